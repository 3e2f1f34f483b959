"""Models as users of equinox write them, at tiny widths; for `test_zoo_equinox`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

WIDTH = 8


class CNN(eqx.Module):
    """Convolutions, each with batch norm, and a linear head."""

    convs: list[eqx.nn.Conv2d]
    norms: list[eqx.nn.BatchNorm]
    head: eqx.nn.Linear

    def __init__(self, key, channels=(1, 8, 8)):
        *keys, last = jax.random.split(key, len(channels))
        pairs = zip(channels[:-1], channels[1:], strict=True)
        self.convs = [
            eqx.nn.Conv2d(a, b, 3, padding=1, key=one)
            for (a, b), one in zip(pairs, keys, strict=True)
        ]
        self.norms = [eqx.nn.BatchNorm(n, axis_name="batch", mode="batch") for n in channels[1:]]
        self.head = eqx.nn.Linear(channels[-1], 2, key=last)

    def __call__(self, x, state):
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x, state = norm(conv(x), state)
            x = jax.nn.relu(x)
        return self.head(x.mean((1, 2))), state


class Block(eqx.Module):
    """A transformer block: attention and feed-forward, each after a layer norm."""

    attention: eqx.nn.MultiheadAttention
    feed_forward: eqx.nn.MLP
    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    dropout: eqx.nn.Dropout

    def __init__(self, width, use_bias=True, *, key):
        one, two = jax.random.split(key)
        self.attention = eqx.nn.MultiheadAttention(2, width, key=one)
        biases = {"use_bias": use_bias, "use_final_bias": use_bias}
        self.feed_forward = eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=two, **biases)
        self.norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))
        self.dropout = eqx.nn.Dropout(0.1)

    def __call__(self, x, *, key=None):
        y = jax.vmap(self.norms[0])(x)
        x = x + self.attention(y, y, y)
        y = jax.vmap(self.feed_forward)(jax.vmap(self.norms[1])(x))
        return x + self.dropout(y, key=key, inference=key is None)


class Recurrent(eqx.Module):
    """A cell run over a sequence, with a learnt first state."""

    cell: eqx.Module
    first: jax.Array
    head: eqx.nn.Linear

    def __init__(self, kind, *, key):
        one, two, three = jax.random.split(key, 3)
        self.cell = kind(2, WIDTH, key=one)
        self.first = 0.1 * jax.random.normal(two, (WIDTH,))
        self.head = eqx.nn.Linear(WIDTH, 1, key=three)

    def __call__(self, xs):
        pair = isinstance(self.cell, eqx.nn.LSTMCell)
        first = (self.first, self.first) if pair else self.first
        last, _ = jax.lax.scan(lambda h, x: (self.cell(x, h), None), first, xs)
        return self.head(last[0] if pair else last)


class Language(eqx.Module):
    """An embedding and a head that is the same array."""

    tied: eqx.nn.Shared
    hidden: eqx.nn.Linear

    def __init__(self, words, *, key):
        one, two, three = jax.random.split(key, 3)
        embedding = eqx.nn.Embedding(words, WIDTH, key=one)
        head = eqx.nn.Linear(WIDTH, words, use_bias=False, key=two)
        self.tied = eqx.nn.Shared(
            (embedding, head), where=lambda pair: pair[1].weight, get=lambda pair: pair[0].weight
        )
        self.hidden = eqx.nn.Linear(WIDTH, WIDTH, key=three)

    def __call__(self, word):
        embedding, head = self.tied()
        return head(jnp.tanh(self.hidden(embedding(word))))


class ResNet(eqx.Module):
    """Residual blocks of convolutions: many leaves."""

    blocks: list[dict[str, eqx.Module]]

    def __init__(self, depth, *, key):
        self.blocks = []
        for one in jax.random.split(key, depth):
            first, second = jax.random.split(one)
            self.blocks.append(
                {
                    "first": eqx.nn.Conv1d(WIDTH, WIDTH, 3, padding=1, key=first),
                    "norm": eqx.nn.GroupNorm(2, WIDTH),
                    "second": eqx.nn.Conv1d(WIDTH, WIDTH, 3, padding=1, key=second),
                }
            )

    def __call__(self, x):
        for block in self.blocks:
            x = x + block["second"](jax.nn.relu(block["norm"](block["first"](x))))
        return x


class Experts(eqx.Module):
    """A mixture of experts: stacked networks and a router."""

    experts: eqx.nn.MLP
    router: eqx.nn.Linear
    count: int = eqx.field(static=True)

    def __init__(self, count, *, key):
        one, two = jax.random.split(key)
        make = eqx.filter_vmap(
            lambda key: eqx.nn.MLP(WIDTH, WIDTH, WIDTH, 1, use_final_bias=False, key=key)
        )
        self.experts = make(jax.random.split(one, count))
        self.router = eqx.nn.Linear(WIDTH, count, key=two)
        self.count = count

    def __call__(self, x):
        run = eqx.filter_vmap(lambda expert, x: expert(x), in_axes=(eqx.if_array(0), None))
        return jax.nn.softmax(self.router(x)) @ run(self.experts, x)


class Deep(eqx.Module):
    """A transformer whose layers are stacked, to be scanned over."""

    layers: Block
    position: jax.Array

    def __init__(self, depth, *, key):
        one, two = jax.random.split(key)
        make = eqx.filter_vmap(lambda key: Block(WIDTH, use_bias=False, key=key))
        self.layers = make(jax.random.split(one, depth))
        self.position = 0.02 * jax.random.normal(two, (6, WIDTH))

    def __call__(self, x):
        arrays, rest = eqx.partition(self.layers, eqx.is_array)
        step = lambda x, layer: (eqx.combine(layer, rest)(x), None)  # noqa: E731
        return jax.lax.scan(step, x + self.position, arrays)[0]


class Noisy(eqx.Module):
    """Dropout that takes its keys from a stream of its own, kept as a state."""

    linear: eqx.nn.Linear
    dropout: eqx.nn.Dropout
    stream: eqx.nn.StateIndex

    def __init__(self, keys):
        self.linear = eqx.nn.Linear(WIDTH, WIDTH, key=keys["params"])
        self.dropout = eqx.nn.Dropout(0.5)
        self.stream = eqx.nn.StateIndex(jax.random.fold_in(keys["dropout"], 1))

    def __call__(self, x, state):
        now, after = jax.random.split(state.get(self.stream))
        return self.dropout(self.linear(x), key=now), state.set(self.stream, after)


class Spectral(eqx.Module):
    """Layers whose initialisation computes with what it drew."""

    spectral: eqx.nn.SpectralNorm
    weight_norm: eqx.nn.WeightNorm
    recurrent: jax.Array

    def __init__(self, key):
        one, two, three, four = jax.random.split(key, 4)
        linear = eqx.nn.Linear(WIDTH, WIDTH, key=one)
        self.spectral = eqx.nn.SpectralNorm(linear, "weight", key=two)
        self.weight_norm = eqx.nn.WeightNorm(eqx.nn.Linear(WIDTH, 2, key=three))
        self.recurrent = jax.nn.initializers.orthogonal()(four, (WIDTH, WIDTH))

    def __call__(self, x, state):
        x, state = self.spectral(x, state)
        return self.weight_norm(self.recurrent @ x), state


@dataclass(frozen=True)
class Model:
    """A model and what is known of it.

    Attributes:
        make: function of a key (or of several), as `equinox.filter_vmap` takes it.
        random: how many leaves differ between members.
        xla: those of them that XLA makes of native draws, and which equation makes them.
        streams: names of its keys, where it takes several.
    """

    make: Callable[[Any], Any]
    random: int
    xla: tuple[tuple[str, str], ...] = ()
    streams: tuple[str, ...] = ()


MODELS = {
    "MLP": Model(lambda key: eqx.nn.MLP(WIDTH, 2, 16, 2, key=key), 6),
    "CNN with batch norm": Model(eqx.nn.make_with_state(CNN), 6),
    "transformer block": Model(lambda key: Block(WIDTH, key=key), 8),
    "GRU": Model(lambda key: Recurrent(eqx.nn.GRUCell, key=key), 7),
    "LSTM": Model(lambda key: Recurrent(eqx.nn.LSTMCell, key=key), 6),
    "embedding with a tied head": Model(lambda key: Language(11, key=key), 3),
    "ResNet": Model(lambda key: ResNet(4, key=key), 16),
    "mixture of experts": Model(lambda key: Experts(3, key=key), 5),
    "stacked transformer": Model(lambda key: Deep(2, key=key), 7),
    "dropout with its own stream": Model(
        eqx.nn.make_with_state(Noisy), 3, streams=("params", "dropout")
    ),
    "spectral norm": Model(
        eqx.nn.make_with_state(Spectral),
        8,
        xla=(
            ("[0].weight_norm.g", "jit norm"),
            ("[0].recurrent", "mul"),
            ("[1][<flat index 0>][0]", "div"),
            ("[1][<flat index 0>][1]", "div"),
        ),
    ),
}
