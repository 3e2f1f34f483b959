"""Models as users of brainstate write them, at tiny widths; for `test_zoo_brainstate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import brainstate as bs
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

WIDTH = 8
init = braintools.init


class CNN(bs.nn.Module):
    """Convolutions, each with batch norm, and a linear head."""

    def __init__(self, size=(6, 6, 1), channels=(8, 8)):
        super().__init__()
        layers = []
        for count in channels:
            layers.append(bs.nn.Conv2d(size, count, kernel_size=(3, 3)))
            layers.append(bs.nn.BatchNorm2d(layers[-1].out_size))
            layers.append(bs.nn.ReLU())
            size = layers[-2].out_size
        self.body = bs.nn.Sequential(*layers)
        self.head = bs.nn.Linear(channels[-1], 2)

    def update(self, x):
        return self.head(self.body(x).mean((-3, -2)))


class Block(bs.nn.Module):
    """A transformer block: attention and feed-forward, each after a layer norm."""

    def __init__(self, width=WIDTH):
        super().__init__()
        self.width = width
        self.norms = [bs.nn.LayerNorm((width,)) for _ in range(2)]
        self.qkv = bs.nn.Linear(width, 3 * width, b_init=None, w_init=init.XavierUniform())
        self.out = bs.nn.Linear(width, width, w_init=init.XavierUniform())
        self.up = bs.nn.Linear(width, 2 * width, w_init=init.Normal(0.0, 0.02))
        self.down = bs.nn.Linear(2 * width, width, w_init=init.Normal(0.0, 0.02))

    def update(self, x):
        q, k, v = jnp.split(self.qkv(self.norms[0](x)), 3, axis=-1)
        x = x + self.out(jax.nn.softmax(q @ k.T / self.width**0.5) @ v)
        return x + self.down(jax.nn.gelu(self.up(self.norms[1](x))))


class Recurrent(bs.nn.Module):
    """A cell with random first states, and a head."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell(2, WIDTH, state_init=init.Uniform(-0.1, 0.1))
        self.head = bs.nn.Linear(WIDTH, 1)

    def update(self, x):
        return self.head(self.cell(x))


class Language(bs.nn.Module):
    """An embedding and a head that is the same array."""

    def __init__(self, words=11):
        super().__init__()
        self.embedding = bs.nn.Embedding(words, WIDTH)
        self.hidden = bs.nn.Linear(WIDTH, WIDTH)
        self.table = self.embedding.weight  # the same State

    def update(self, word):
        return jnp.tanh(self.hidden(self.embedding(word))) @ self.table.value.T


class ResNet(bs.nn.Module):
    """Residual blocks of convolutions: many leaves."""

    def __init__(self, depth=3):
        super().__init__()
        size = (6, WIDTH)
        self.blocks = []
        for _ in range(depth):
            block = {
                "first": bs.nn.Conv1d(size, WIDTH, kernel_size=(3,)),
                "norm": bs.nn.RMSNorm((WIDTH,)),
                "second": bs.nn.Conv1d(size, WIDTH, kernel_size=(3,)),
            }
            self.blocks.append(block)

    def update(self, x):
        for block in self.blocks:
            x = x + block["second"](jax.nn.relu(block["norm"](block["first"](x))))
        return x


class Experts(bs.nn.Module):
    """A mixture of experts: stacked weights and a router."""

    def __init__(self, count=WIDTH):
        super().__init__()
        draw = init.LecunNormal()
        self.up = bs.ParamState(jnp.stack([draw((WIDTH, WIDTH)) for _ in range(count)]))
        self.down = bs.ParamState(bs.random.normal(size=(count, WIDTH, WIDTH)) / WIDTH**0.5)
        self.router = bs.nn.Linear(WIDTH, count)

    def update(self, x):
        hidden = jnp.tanh(jnp.einsum("i,eij->ej", x, self.up.value))
        out = jnp.einsum("ej,ejk->ek", hidden, self.down.value)
        return jax.nn.softmax(self.router(x)) @ out


class Deep(bs.nn.Module):
    """Layers whose weights are stacked, to be scanned over."""

    def __init__(self, depth=3):
        super().__init__()
        draw = jax.nn.initializers.lecun_normal()
        keys = bs.random.split_key(depth)
        self.weights = bs.ParamState(jax.vmap(lambda key: draw(key, (WIDTH, WIDTH)))(keys))
        self.scales = bs.ParamState(jnp.ones((depth, WIDTH)))
        self.position = bs.ParamState(bs.random.normal(0.0, 0.02, size=(6, WIDTH)))

    def update(self, x):
        def layer(x, one):
            weight, scale = one
            return x + jnp.tanh(x * scale @ weight), None

        layers = (self.weights.value, self.scales.value)
        return jax.lax.scan(layer, x + self.position.value, layers)[0]


class Dropout(bs.nn.Module):
    """A network whose noise has a random stream of its own."""

    def __init__(self):
        super().__init__()
        self.rng = bs.random.RandomState(bs.random.split_key())
        self.hidden = bs.nn.Linear(2, WIDTH)
        self.out = bs.nn.Linear(WIDTH, 1)

    def update(self, x):
        h = jnp.tanh(self.hidden(x))
        return self.out(jnp.where(self.rng.bernoulli(0.9, size=h.shape), h, 0.0))


class LIF(bs.nn.Dynamics):
    """Leaky integrate-and-fire neurons, with units and random first potentials."""

    def __init__(self, size, adaptive=False):
        super().__init__(size)
        self.tau = init.param(10.0 * u.ms, self.varshape)
        self.threshold = init.param(init.Constant(1.0 * u.mV), self.varshape)
        self.adaptive = adaptive

    def init_state(self, **kwargs):
        draw = init.Uniform(0.0 * u.mV, 1.0 * u.mV)
        self.V = bs.HiddenState(init.param(draw, self.varshape))
        if self.adaptive:
            self.a = bs.HiddenState(init.param(init.Uniform(0.1, 0.2), self.varshape))

    def reset_state(self, **kwargs):
        self.V.value = jnp.zeros(self.varshape) * u.mV

    def update(self, current):
        rise = self.threshold * (1.0 + self.a.value) if self.adaptive else self.threshold
        spike = (self.V.value >= rise).astype(float)
        leak = self.V.value / self.tau * (1.0 * u.ms)
        self.V.value = self.V.value - leak + current * u.mV - spike * rise
        return spike


class Spiking(bs.nn.Module):
    """Two populations of spiking neurons and the synapses between them."""

    def __init__(self, adaptive=False):
        super().__init__()
        self.one = LIF(WIDTH, adaptive)
        self.synapses = bs.nn.Linear(WIDTH, 6, w_init=init.KaimingNormal(), b_init=None)
        self.two = LIF(6, adaptive)

    def update(self, current):
        return self.two(self.synapses(self.one(current)))


@dataclass(frozen=True)
class Model:
    """A model: how to build it, its input, and which leaves XLA finishes after a native draw.

    All other random leaves, ``native`` of them, come from the custom call as they are.
    """

    build: Callable[[], Any]
    input: Callable[[], Any]
    native: int
    finished: dict[str, str] = field(default_factory=dict)

    def make(self) -> Any:
        return bs.nn.init_all_states(self.build())


def _finished(*names: str) -> dict[str, str]:
    """Layers whose draw XLA finishes: an orthogonal matrix, a truncated normal by ``ndtri``."""
    return {f"{name}.weight['weight']": "mul" for name in names}


def _mlp() -> Any:
    hidden = bs.nn.Linear(2, WIDTH, w_init=init.KaimingUniform())
    middle = bs.nn.Linear(WIDTH, WIDTH, w_init=init.TruncatedNormal(0.0, 0.1))
    return bs.nn.Sequential(hidden, bs.nn.Tanh(), middle, bs.nn.Tanh(), bs.nn.Linear(WIDTH, 1))


MODELS = {
    "mlp": Model(_mlp, lambda: jnp.ones(2), 2, _finished("layers.2")),
    "cnn": Model(CNN, lambda: jnp.ones((2, 6, 6, 1)), 3),
    "transformer": Model(Block, lambda: jnp.ones((6, WIDTH)), 4),
    "gru": Model(
        lambda: Recurrent(bs.nn.GRUCell),
        lambda: jnp.ones(2),
        2,
        _finished("cell.Wrz", "cell.Wh"),
    ),
    "lstm": Model(lambda: Recurrent(bs.nn.LSTMCell), lambda: jnp.ones(2), 4),
    "embedding": Model(Language, lambda: jnp.array(3), 2),
    "resnet": Model(ResNet, lambda: jnp.ones((6, WIDTH)), 6),
    "experts": Model(Experts, lambda: jnp.ones(WIDTH), 2, {"up": "stack|concatenate"}),
    "scan": Model(Deep, lambda: jnp.ones((6, WIDTH)), 2),
    "dropout": Model(Dropout, lambda: jnp.ones(2), 3),
    "lif": Model(Spiking, lambda: jnp.ones(WIDTH), 3),
    "alif": Model(lambda: Spiking(adaptive=True), lambda: jnp.ones(WIDTH), 5),
}
