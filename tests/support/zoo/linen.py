"""Models of flax.linen, each as a user would write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

# Models make arrays of a few shapes in common: each draw of another shape takes time to compile.
# No float32 normal here has a last axis of 3, 4 or 5: there XLA departs from its own order.


@dataclass(frozen=True)
class Model:
    """A module with example inputs, and the streams of keys it takes beside ``params``."""

    module: nn.Module
    inputs: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    streams: tuple[str, ...] = ()

    def key(self, seed: int) -> Any:
        """What ``init`` takes: a key, or one for each stream."""
        if not self.streams:
            return jax.random.key(seed)
        names = ("params", *self.streams)
        return {name: jax.random.key(seed + i) for i, name in enumerate(names)}

    def init(self, key: Any) -> Any:
        return self.module.init(key, *self.inputs, **self.kwargs)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.tanh(nn.Dense(16)(x))
        x = nn.relu(nn.Dense(16, kernel_init=nn.initializers.he_uniform())(x))
        x = nn.gelu(nn.Dense(16, bias_init=nn.initializers.normal(0.1))(x))
        return nn.Dense(2, kernel_init=nn.initializers.xavier_normal(), dtype=jnp.bfloat16)(x)


class CNN(nn.Module):
    @nn.compact
    def __call__(self, x: Any, train: bool = False) -> Any:
        for width in (8, 8):
            x = nn.Conv(width, (3, 3), use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train)(x)
            x = nn.avg_pool(nn.relu(x), (2, 2), strides=(2, 2))
        return nn.Dense(10)(x.mean((1, 2)))


class Block(nn.Module):
    """A transformer block, with its axes named for sharding."""

    width: int = 16

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x))
        x = x + y
        wide = nn.with_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
        y = nn.gelu(nn.Dense(2 * self.width, kernel_init=wide)(nn.LayerNorm()(x)))
        return x + nn.Dense(self.width)(y)


class TiedHead(nn.Module):
    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        embed = nn.Embed(32, 16)
        positions = self.param("positions", nn.initializers.normal(0.02), (8, 16))
        x = embed(tokens) + positions[None, : tokens.shape[-1]]
        return embed.attend(nn.Dense(16)(x))


class Residual(nn.Module):
    width: int
    project: bool = False

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.Conv(self.width, (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=True)(y))
        y = nn.Conv(self.width, (3, 3), use_bias=False)(y)
        y = nn.BatchNorm(use_running_average=True, scale_init=nn.initializers.zeros)(y)
        if self.project:
            x = nn.Conv(self.width, (1, 1), use_bias=False)(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.Conv(8, (3, 3), use_bias=False)(x)
        for block in range(3):
            x = Residual(8, project=block == 0)(x)
        return nn.Dense(10)(x.mean((1, 2)))


class Expert(nn.Module):
    @nn.compact
    def __call__(self, x: Any) -> Any:
        return nn.Dense(8)(nn.relu(nn.Dense(16)(x)))


class MoE(nn.Module):
    """Experts stacked by `nn.vmap`, and a tensor of all of them that is drawn at once."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        gates = nn.softmax(nn.Dense(6, use_bias=False)(x))
        experts = nn.vmap(
            Expert,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=None,
            out_axes=1,
            axis_size=6,
        )()
        stacked = nn.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        last = self.param("last", stacked, (6, 8, 8))
        return jnp.einsum("bed,be,edf->bf", experts(x), gates, last)


class Layer(nn.Module):
    """A small transformer layer, with the signature that `nn.scan` asks for."""

    @nn.compact
    def __call__(self, x: Any, _: Any) -> tuple[Any, None]:
        q, k, v = jnp.split(nn.Dense(48, use_bias=False)(nn.LayerNorm()(x)), 3, -1)
        x = x + nn.dot_product_attention(q[:, :, None], k[:, :, None], v[:, :, None])[:, :, 0]
        wide = nn.with_partitioning(nn.initializers.lecun_normal(), ("embed", "mlp"))
        return x + nn.Dense(16)(nn.gelu(nn.Dense(24, kernel_init=wide)(x))), None


class Scanned(nn.Module):
    @nn.compact
    def __call__(self, tokens: Any) -> Any:
        x = nn.Embed(32, 16)(tokens)
        layers = nn.scan(
            Layer,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            length=3,
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = layers()(x, None)
        return nn.Dense(32)(x)


class Dropped(nn.Module):
    """Dropout, and a variable drawn from a stream of its own."""

    @nn.compact
    def __call__(self, x: Any, train: bool) -> Any:
        x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(16)(x))
        shape = x.shape[-1:]
        phase = self.variable(
            "noise", "phase", lambda: jax.random.uniform(self.make_rng("noise"), shape)
        )
        return nn.Dropout(0.1, deterministic=not train)(nn.Dense(8)(x + phase.value[None]))


def _ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


_IMAGE, _TOKENS, _SEQUENCE = _ones(1, 8, 8, 3), np.zeros((1, 8), np.int32), _ones(1, 6, 16)

MODELS = {
    "mlp": Model(MLP(), (_ones(1, 8),)),
    "cnn": Model(CNN(), (_IMAGE,), {"train": False}),
    "transformer": Model(Block(), (_SEQUENCE,)),
    "gru": Model(nn.RNN(nn.GRUCell(8)), (_SEQUENCE,)),
    "dropout": Model(Dropped(), (_ones(2, 8),), {"train": True}, ("dropout", "noise")),
    "lstm": Model(nn.RNN(nn.OptimizedLSTMCell(8)), (_SEQUENCE,)),
    "tied": Model(TiedHead(), (_TOKENS,)),
    "resnet": Model(ResNet(), (_IMAGE,)),
    "moe": Model(MoE(), (_ones(2, 8),)),
    "scanned": Model(Scanned(), (_TOKENS,)),
}

# The random variables that XLA draws, by the beginning of their path; the documentation says why.
NOT_NATIVE: dict[str, str] = {}
