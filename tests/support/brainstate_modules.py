"""Modules of brainstate that the tests of its adapter share, after either's call."""

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits

bs = pytest.importorskip("brainstate")
braintools = pytest.importorskip("braintools")
u = pytest.importorskip("brainunit")
adapter = sb.adapters.brainstate

N = 3


class Cell(bs.nn.Module):
    """States of many kinds, made by ``init_state``."""

    def __init__(self, width=8):
        super().__init__()
        self.width = width
        self.weight = bs.ParamState(jnp.ones(2))  # there before

    def init_state(self, scale=1.0):
        self.w = bs.ParamState({"a": bs.random.uniform(size=(2, self.width)) * scale, "b": 1.0})
        self.v = bs.HiddenState(bs.random.uniform(-70.0, -50.0, size=self.width) * u.mV, name="V")
        self.h = bs.ShortTermState(jnp.zeros(self.width), tag="slow")
        self.shared = bs._state.NonBatchState(jnp.arange(2.0))
        self.steps = jnp.zeros(2)  # an attribute that is no state
        self.either = (jnp.ones(2), 3)

    def reset_state(self):
        self.h.value = jnp.ones(self.width)


class Tree(bs.nn.Module):
    def __init__(self):
        super().__init__()
        self.cells = [Cell(), {"b": Cell(6)}]
        self.shared = self.cells[0]
        self.gru = bs.nn.GRUCell(2, 8, state_init=braintools.init.Uniform(-0.1, 0.1))


def values(module):
    return {path: arrays(state.value) for path, state in module.states().items()}


def arrays(tree):
    return jax.tree.map(jnp.asarray, tree)


def described(module):
    return {
        path: (type(state), state.name, state.tag, state.stack_level)
        for path, state in module.states().items()
    }


def both(call, make=Tree):
    """The module after brainstate's own call and after seedbed's, from the same stream."""
    made = []
    for functions in (bs.nn, sb.nn):
        bs.random.seed(7)
        made.append(make())
        call(functions, made[-1])
    return made


def assert_equal(one, two):
    assert_same_bits(values(two), values(one))
    assert described(two) == described(one)


class Breaks(Cell):
    """Raises after it has made its states."""

    error = RuntimeError("broken")

    def init_state(self, **kwargs):
        super().init_state()
        raise self.error

    reset_state = init_state
