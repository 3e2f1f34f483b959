"""Models of flax nnx, each made by ``model.make(*model.args, rngs=model.rngs())``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

WIDTH = 8


@dataclass(frozen=True)
class Model:
    """How to make a model, and the shape of what it is called with."""

    make: Callable[..., Any]
    rngs: Callable[[], nnx.Rngs]
    args: tuple[Any, ...] = ()
    inputs: tuple[int, ...] = (2, WIDTH)
    dtype: Any = jnp.float32


class MLP(nnx.Module):
    def __init__(self, layers, *, rngs):
        sizes = [WIDTH] * layers + [2 * WIDTH]
        self.layers = nnx.List(
            [nnx.Linear(one, two, rngs=rngs) for one, two in zip(sizes, sizes[1:], strict=False)]
        )

    def __call__(self, x):
        for layer in self.layers:
            x = jax.nn.relu(layer(x))
        return x


class CNN(nnx.Module):
    def __init__(self, *, rngs):
        self.conv = nnx.Conv(1, WIDTH, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, rngs=rngs)
        self.head = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        return self.head(jax.nn.relu(self.norm(self.conv(x))).mean((1, 2)))


class Block(nnx.Module):
    """A transformer block; ``rate`` of its dropout, which has a stream of its own."""

    def __init__(self, rate=0.0, *, rngs):
        self.attention = nnx.MultiHeadAttention(
            2, WIDTH, dropout_rate=rate, decode=False, deterministic=False, rngs=rngs
        )
        self.norms = nnx.List([nnx.LayerNorm(WIDTH, rngs=rngs) for _ in range(2)])
        self.up = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)
        self.down = nnx.Linear(2 * WIDTH, WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norms[0](x))
        return x + self.dropout(self.down(jax.nn.gelu(self.up(self.norms[1](x)))))


class Recurrent(nnx.Module):
    def __init__(self, cell, *, rngs):
        self.rnn = nnx.RNN(cell(WIDTH, WIDTH, rngs=rngs))

    def __call__(self, x):
        return self.rnn(x)


class Language(nnx.Module):
    """An embedding that is the output head, too."""

    def __init__(self, *, rngs):
        self.embedding = nnx.Embed(16, WIDTH, rngs=rngs)
        self.position = nnx.Param(jax.random.normal(rngs.params(), (1, 2, WIDTH)) * 0.02)
        self.body = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.head = self.embedding  # the same node in two places

    def __call__(self, tokens):
        return self.head.attend(self.body(self.embedding(tokens) + self.position))


class Residual(nnx.Module):
    def __init__(self, inner, *, rngs):
        self.convs = nnx.List([nnx.Conv(WIDTH, WIDTH, (3,), rngs=rngs) for _ in range(inner)])
        self.norms = nnx.List([nnx.BatchNorm(WIDTH, rngs=rngs) for _ in range(inner)])

    def __call__(self, x):
        y = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            y = jax.nn.relu(norm(conv(y)))
        return x + y


class ResNet(nnx.Module):
    def __init__(self, blocks, *, rngs):
        self.stem = nnx.Conv(WIDTH, WIDTH, (3,), rngs=rngs)
        self.blocks = nnx.List([Residual(2, rngs=rngs) for _ in range(blocks)])
        self.head = nnx.Linear(WIDTH, 2 * WIDTH, rngs=rngs)

    def __call__(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Experts(nnx.Module):
    """A mixture of experts, whose weights are stacked."""

    def __init__(self, experts, *, rngs):
        @nnx.split_rngs(splits=experts)
        @nnx.vmap(in_axes=0)
        def expert(rngs):
            return nnx.Linear(WIDTH, WIDTH, rngs=rngs)

        self.router = nnx.Linear(WIDTH, experts, use_bias=False, rngs=rngs)
        self.experts = expert(rngs)

    def __call__(self, x):
        weights = jax.nn.softmax(self.router(x))
        each = nnx.vmap(lambda expert, x: expert(x), in_axes=(0, None), out_axes=-1)
        return jnp.einsum("...de,...e->...d", each(self.experts, x), weights)


class Scanned(nnx.Module):
    """A transformer whose blocks are one block with a leading axis of layers."""

    def __init__(self, layers, *, rngs):
        @nnx.split_rngs(splits=layers)
        @nnx.vmap(in_axes=0)
        def block(rngs):
            return Block(0.1, rngs=rngs)

        self.blocks = block(rngs)
        self.head = nnx.Linear(WIDTH, WIDTH, rngs=rngs)

    def __call__(self, x):
        run = nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
        return self.head(run(x, self.blocks))


class Noisy(nnx.Module):
    """Dropout, and a layer that keeps a stream to draw from."""

    def __init__(self, *, rngs):
        self.linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.noise = rngs.noise.fork()

    def __call__(self, x):
        return self.dropout(self.linear(x)) + 0.1 * jax.random.normal(self.noise(), x.shape)


def _one() -> nnx.Rngs:
    return nnx.Rngs(0)


def _several() -> nnx.Rngs:
    return nnx.Rngs(0, params=1, dropout=2)


def _used() -> nnx.Rngs:
    rngs = nnx.Rngs(params=3, dropout=jax.random.key(4), noise=5)
    rngs.params()
    rngs.dropout()
    rngs.dropout()
    return rngs


MODELS: dict[str, Model] = {
    "mlp": Model(MLP, _one, (3,)),
    "cnn": Model(CNN, _one, (), (2, 6, 6, 1)),
    "transformer": Model(Block, _several, (0.1,), (1, 2, WIDTH)),
    "gru": Model(Recurrent, _one, (nnx.GRUCell,), (1, 2, WIDTH)),
    "lstm": Model(Recurrent, _several, (nnx.OptimizedLSTMCell,), (1, 2, WIDTH)),
    "tied": Model(Language, _several, (), (1, 2), jnp.int32),
    "resnet": Model(ResNet, _one, (3,), (1, 4, WIDTH)),
    "moe": Model(Experts, _one, (6,)),
    "dropout": Model(Noisy, _used),
    "scanned": Model(Scanned, _several, (2,), (1, 2, WIDTH)),
}
