"""`in_states`, `out_states`: what each member of a collective call reads and writes of its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import Holds, call_key, node_key, picture
from seedbed.filters import PathContains

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("seeded")]


class Scaled(sb.nn.Module):
    """Weights times a gain."""

    def __init__(self, gain):
        self.gain = sb.nn.State(gain)

    def init_state(self):
        draw = jax.random.normal(sb.random.next_key(), (2, 6))
        self.w = sb.nn.ParamState(self.gain.value * draw)


def scaled(gains, number=0):
    def member(key, gain):
        return gain * jax.random.normal(node_key(key), (2, 6))

    keys = jax.random.split(call_key(number=number), len(gains))
    return jax.jit(jax.vmap(member))(keys, gains)


def test_a_sweep_over_gains():
    gains = jnp.linspace(0.5, 2.0, 4)
    net = Scaled(gains)
    sb.nn.vmap_init_all_states(net, axis_size=4, in_states=net.gain)
    assert_same_bits(net.w.value, scaled(gains))
    assert_same_bits(net.gain.value, gains)
    assert net.gain.members == 4 and net.members == 4
    # The gain holds members now and is read per member without being named.
    sb.nn.vmap_init_all_states(net, axis_size=4)
    assert_same_bits(net.w.value, scaled(gains, 1))


FORMS = {
    "state": lambda net: net.gain,
    "list": lambda net: [net.gain],
    "tuple": lambda net: (net.gain,),
    "generator": lambda net: (state for state in [net.gain]),
    "states": lambda net: net.states(PathContains("gain")),
    "module": lambda net: net,
    "axis": lambda net: {0: net.gain},
    "negative axis": lambda net: {-1: [net.gain]},
    "numpy axis": lambda net: {np.int64(0): net.states()},
    "several axes": lambda net: {0: net.gain, 1: []},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_in_states(form):
    gains = jnp.linspace(0.5, 2.0, 4)
    net = Scaled(gains)
    sb.nn.vmap_init_all_states(net, axis_size=4, in_states=FORMS[form](net))
    assert_same_bits(net.w.value, scaled(gains))


@pytest.mark.parametrize("axis", [1, -2, 2, -1, 0])
def test_axes_of_in_states(axis):
    gains = jax.random.uniform(jax.random.key(3), (4, 2, 6))
    net = Scaled(jnp.moveaxis(gains, 0, axis))
    sb.nn.vmap_init_all_states(net, axis_size=4, in_states={axis: net.gain})
    assert_same_bits(net.w.value, scaled(gains))
    assert net.gain.members == 4 and net.gain.mapped[0].axis % 3 == axis % 3
    sb.nn.vmap_init_all_states(net, axis_size=4)
    assert_same_bits(net.w.value, scaled(gains, 1))


def test_a_state_of_in_states_that_is_written():
    class Halves(Scaled):
        def init_state(self):
            super().init_state()
            self.gain.value = self.gain.value / 2

    net = Halves(jnp.linspace(1.0, 2.0, 8).reshape(2, 4)[:, :, None])
    before = net.gain.value
    sb.nn.vmap_init_all_states(net, axis_size=4, in_states={1: net.gain})
    assert net.gain.members == 4
    assert_same_bits(net.gain.value, before / 2)


def test_a_state_of_in_states_outside_of_the_tree():
    gain = sb.nn.State(jnp.arange(4.0))
    net = Holds(lambda: gain.value + 1)
    sb.nn.vmap_init_all_states(net, axis_size=4, in_states=gain)
    assert_same_bits(net.s.value, jnp.arange(4.0) + 1)


@pytest.mark.parametrize("form", ["state", "axis", "negative axis"])
def test_members_that_disagree_with_axis_size(form):
    net = Scaled(jnp.arange(3.0))
    before = picture(net)
    axis = -1 if form == "negative axis" else 0
    message = (
        rf"^`in_states` maps axis {axis} of the state 'gain', of shape \(3,\) and so 3 members, "
        "and axis_size is 4; the two must agree$"
    )
    with pytest.raises(ValueError, match=message):
        sb.nn.vmap_init_all_states(net, axis_size=4, in_states=FORMS[form](net))
    assert picture(net) == before


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda net: {1: net.gain}, ValueError, r"and so no members, and axis_size is 3"),
        (lambda net: [net.gain, net.gain], ValueError, "^`in_states` has State.* twice$"),
        (lambda net: {0: net.gain, -1: net.gain}, ValueError, "^`in_states` has State.* twice$"),
        (lambda net: sb.nn.Linear(2, 2).weight, ValueError, "which has no value yet$"),
        (lambda net: {"0": net.gain, 1: []}, TypeError, "^`in_states` must be a State, several"),
        (lambda net: {True: 3}, TypeError, "^`in_states` must be a State, several"),
        (lambda net: 3, TypeError, "^`in_states` must be a State, several.* got 3 of type int$"),
    ],
)
def test_bad_in_states(given, error, message):
    net = Scaled(jnp.arange(3.0))
    before = picture(net)
    with pytest.raises(error, match=message):
        sb.nn.vmap_init_all_states(net, axis_size=3, in_states=given(net))
    assert picture(net) == before


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_axes_of_out_states(axis):
    for net in (Scaled(2.0), sb.nn.Linear(6, 2)):
        sb.random.seed(11)
        plain = sb.nn.vmap_init_all_states(net, axis_size=4)
        state = net.w if isinstance(net, Scaled) else net.weight
        expected = jnp.moveaxis(state.value, 0, axis)
        sb.random.seed(11)
        sb.nn.vmap_init_all_states(net, axis_size=4, out_states={axis: state})
        assert plain is net and state.members == 4
        assert_same_bits(state.value, expected)
        # It is read back along that axis.
        got = sb.nn.vmap(lambda net, state=state: state.value, in_axes=None)(net)
        assert_same_bits(got, jnp.moveaxis(expected, axis, 0))


def test_an_axis_of_out_states_that_the_value_does_not_have():
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(6, 2), axis_size=3)
    before = picture(net)
    message = (
        r"^`out_states` puts the members of the state 'weight' at axis 5; with them, a value of "
        r"shape \(2, 6\) has 3 axes$"
    )
    with pytest.raises(ValueError, match=message):
        sb.nn.vmap_init_all_states(net, axis_size=3, out_states={5: net.weight})
    assert picture(net) == before
