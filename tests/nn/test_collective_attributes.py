"""Collective calls on nodes whose attributes are not in `__dict__`: descriptors and slots."""

import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import assert_values, call_key, normal, picture, uniform, vmapped

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("seeded")]

N = 3


class TimesTen:
    """A data descriptor."""

    def __set_name__(self, owner, name):
        self.name = "_" + name

    def __get__(self, instance, owner=None):
        return self if instance is None else instance.__dict__[self.name]

    def __set__(self, instance, value):
        instance.__dict__[self.name] = value * 10


class Described(sb.nn.Module):
    number = TimesTen()

    @property
    def twice(self):
        return self._half * 2

    @twice.setter
    def twice(self, value):
        self._half = value / 2

    def init_state(self):
        self.number = 1
        self.twice = 6.0
        self.v = sb.nn.State(jnp.full(2, self.number + self.twice))


@pytest.mark.parametrize("size", [None, N])
def test_a_descriptor_is_read_and_set_as_outside_of_the_call(size):
    net = Described()
    if size is None:
        sb.nn.init_all_states(net)
    else:
        sb.nn.vmap_init_all_states(net, axis_size=size)
    assert net.number == 10 and net.twice == 6.0
    assert_same_bits(net.v.value, jnp.full((2,) if size is None else (size, 2), 16.0))


class Slotted(sb.nn.Module):
    __slots__ = ("made", "old", "w")

    def __init__(self):
        self.w = sb.nn.State(init=normal, shape=(6,))
        self.old = sb.nn.State(jnp.zeros(2))

    def init_state(self, error=None):
        super().init_state()
        self.made = sb.nn.HiddenState(uniform())
        if hasattr(self, "old"):
            del self.old
        if error is not None:
            raise error


def test_states_in_slots_are_found_drawn_and_deleted():
    net = Slotted()
    assert list(net.states()) == [("old",), ("w",)]
    expected = vmapped(Slotted(), N, call_key())
    sb.nn.vmap_init_all_states(net, axis_size=N)
    assert list(net.states()) == [("made",), ("w",)] and not hasattr(net, "old")
    assert_values(net, expected)


@pytest.mark.parametrize("size", [None, N])
def test_states_in_slots_are_as_before_after_an_exception(size):
    net = Slotted()
    before = picture(net)
    old, w = net.old, net.w
    with pytest.raises(KeyError):
        if size is None:
            sb.nn.init_all_states(net, KeyError("no"))
        else:
            sb.nn.vmap_init_all_states(net, KeyError("no"), axis_size=size)
    assert picture(net) == before
    assert net.old is old and net.w is w and not net.w.initialized and not hasattr(net, "made")
