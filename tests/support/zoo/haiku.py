"""Models of haiku, each as a user would write it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

# Models make arrays of a few shapes in common: each draw of another shape takes time to compile.
# No float32 normal here has a last axis of 3, 4 or 5: there XLA departs from its own order.


@dataclass(frozen=True)
class Model:
    """A transformed function with example inputs."""

    transformed: Any
    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def init(self, key: Any) -> Any:
        return self.transformed.init(key, *self.inputs, **self.kwargs)


def mlp(x: Any) -> Any:
    x = hk.nets.MLP([16, 16, 16], activation=jnp.tanh)(x)
    wide = hk.initializers.VarianceScaling(2.0, "fan_avg", "uniform")
    return hk.Linear(2, w_init=wide, b_init=hk.initializers.RandomNormal(0.1))(x)


def cnn(x: Any, train: bool) -> Any:
    for _ in range(2):
        x = hk.Conv2D(8, 3, with_bias=False)(x)
        x = hk.BatchNorm(True, True, 0.9)(x, is_training=train)
        x = hk.avg_pool(jax.nn.relu(x), (1, 2, 2, 1), (1, 2, 2, 1), "SAME")
    return hk.Linear(10)(x.mean((1, 2)))


class Block(hk.Module):
    """A transformer block."""

    def __call__(self, x: Any) -> Any:
        def norm() -> Any:
            return hk.LayerNorm(-1, create_scale=True, create_offset=True)

        width = x.shape[-1]
        start = hk.initializers.VarianceScaling(0.5)
        y = norm()(x)
        x = x + hk.MultiHeadAttention(2, width // 2, w_init=start)(y, y, y)
        y = jax.nn.gelu(hk.Linear(2 * width, w_init=start)(norm()(x)))
        return x + hk.Linear(width, w_init=start)(y)


def recurrent(kind: Callable[..., Any]) -> Any:
    def run(xs: Any) -> Any:
        cell = kind(8)
        out, _ = hk.dynamic_unroll(cell, xs, cell.initial_state(xs.shape[1]))
        return hk.Linear(2)(out[-1])

    return hk.transform(run)


def tied(tokens: Any) -> Any:
    embed = hk.Embed(32, 16)
    start = hk.initializers.RandomNormal(0.02)
    positions = hk.get_parameter("positions", (8, 16), init=start)
    x = hk.Linear(16)(embed(tokens) + positions[None, : tokens.shape[-1]])
    return x @ embed.embeddings.T


def resnet(x: Any) -> Any:
    def norm(x: Any) -> Any:
        return hk.GroupNorm(4)(x)

    x = hk.Conv2D(8, 3, with_bias=False)(x)
    for block in range(3):
        y = jax.nn.relu(norm(hk.Conv2D(8, 3, with_bias=False)(x)))
        y = norm(hk.Conv2D(8, 3, with_bias=False)(y))
        if block == 0:
            x = hk.Conv2D(8, 1, with_bias=False)(x)
        x = jax.nn.relu(x + y)
    return hk.Linear(10)(x.mean((1, 2)))


def moe(x: Any) -> Any:
    """Experts as stacked tensors."""
    gates = jax.nn.softmax(hk.Linear(6, with_bias=False)(x))
    first = hk.get_parameter("first", (6, 8, 16), init=hk.initializers.TruncatedNormal(0.3))
    second = hk.get_parameter("second", (6, 16, 8), init=hk.initializers.RandomUniform(-0.1, 0.1))
    y = jax.nn.relu(jnp.einsum("bd,edf->bef", x, first))
    return jnp.einsum("bef,efd,be->bd", y, second, gates)


def layer(x: Any) -> Any:
    """A small transformer layer."""
    q, k, v = jnp.split(hk.Linear(48, with_bias=False)(hk.LayerNorm(-1, True, True)(x)), 3, -1)
    x = x + jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2)) @ v
    return x + hk.Linear(16)(jax.nn.gelu(hk.Linear(24)(x)))


def scanned(tokens: Any) -> Any:
    x = hk.Embed(32, 16)(tokens)
    x = hk.experimental.layer_stack(3)(layer)(x)
    return hk.Linear(32)(x)


def dropped(x: Any, train: bool) -> Any:
    """Dropout, and a state drawn from the same stream of keys."""
    x = hk.Linear(16)(x)
    if train:
        x = hk.dropout(hk.next_rng_key(), 0.5, x)
    phase = hk.get_state("phase", (16,), init=hk.initializers.RandomUniform())
    return hk.Linear(8)(x + phase[None])


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


# Batch norm makes its first averages of the example batch, in arithmetic that XLA rounds as it
# fuses it; of zeros they are exact.
_IMAGE = np.zeros((2, 8, 8, 3), np.float32)
_TOKENS, _SEQUENCE = np.zeros((1, 8), np.int32), _ones(6, 1, 16)

MODELS = {
    "mlp": Model(hk.without_apply_rng(hk.transform(mlp)), (_ones(1, 8),)),
    "cnn": Model(hk.transform_with_state(cnn), (_IMAGE,), {"train": True}),
    "transformer": Model(hk.transform(lambda x: Block()(x)), (_SEQUENCE,)),
    "gru": Model(recurrent(hk.GRU), (_SEQUENCE,)),
    "dropout": Model(hk.transform_with_state(dropped), (_ones(2, 8),), {"train": True}),
    "lstm": Model(recurrent(hk.LSTM), (_SEQUENCE,)),
    "tied": Model(hk.transform(tied), (_TOKENS,)),
    "resnet": Model(hk.transform(resnet), (_IMAGE,)),
    "moe": Model(hk.transform(moe), (_ones(2, 8),)),
    "scanned": Model(hk.transform(scanned), (_TOKENS,)),
}

# The random variables that XLA draws, by the beginning of their path; the documentation says why.
NOT_NATIVE: dict[str, str] = {}
