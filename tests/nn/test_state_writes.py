"""What a state refuses to hold: values of a trace that ends, and values without its member axis."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from modules import normal
from seedbed.nn import ParamState, State

pytestmark = pytest.mark.end("newest")


# --- writes that would leave a traced value ---------------------------------------------

TRACES = {
    "jit": lambda write: jax.jit(write)(1.0),
    "vmap": lambda write: jax.vmap(write)(jnp.arange(3.0)),
    "grad": lambda write: jax.grad(write)(1.0),
    "scan": lambda write: jax.lax.scan(lambda c, x: (write(c), x), 0.0, jnp.arange(3.0)),
    "cond": lambda write: jax.lax.cond(True, write, lambda x: x, 1.0),
    "make_jaxpr": lambda write: jax.make_jaxpr(write)(1.0),
    "eval_shape": lambda write: jax.eval_shape(write, 1.0),
}


@pytest.mark.parametrize("trace", TRACES)
def test_a_trace_cannot_write_to_a_state_from_outside(trace):
    state, fresh = State(1.0), ParamState(init=normal, shape=(3, 2))

    def write(to):
        def run(x):
            to.value = x * 2
            return x

        return run

    for target in (state, fresh):
        with pytest.raises(ValueError, match="outside of the function that jax is tracing"):
            TRACES[trace](write(target))
    assert state.value == 1.0 and type(state.value) is float
    assert not fresh.initialized


@pytest.mark.parametrize("trace", ["jit", "vmap", "grad"])
def test_a_state_made_inside_a_trace_may_be_written_there(trace):
    def inside(x):
        state = State(x)
        state.value = state.value * 3
        return state.value

    result = TRACES[trace](inside)
    np.testing.assert_array_equal(result, {"jit": 3, "vmap": [0, 3, 6], "grad": 3}[trace])


def test_a_state_from_outside_may_be_read_inside():
    state = State(jnp.arange(3.0))
    assert jax.jit(lambda x: state.value.sum() * x)(2.0) == 6


# --- the member axis --------------------------------------------------------------------


def batched():
    return sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5).weight


def test_members_and_mapped():
    weight = batched()
    assert weight.members == 5 and weight.mapped == ((5, 0),)
    level = weight.mapped[0]
    assert (level.size, level.axis) == (5, 0)
    assert weight.shape == (5, 2, 3) and weight.ndim == 3


@pytest.mark.parametrize(
    "value", [0.0, jnp.ones((4, 2, 3)), np.ones(3), [jnp.ones(5), jnp.ones(2)]]
)
def test_a_value_without_the_member_axis_is_refused(value):
    weight = batched()
    before = weight.value
    with pytest.raises(ValueError, match="holds 5 members along axis 0; the new value"):
        weight.value = value
    assert weight.value is before and weight.members == 5


def test_a_value_with_the_member_axis_is_taken():
    weight = batched()
    weight.value = {"a": jnp.ones((5, 7)), "b": np.ones(5)}
    assert weight.members == 5


def test_a_member_axis_that_is_not_the_first():
    weight = ParamState(init=normal, shape=(2, 3))
    net = sb.nn.Sequential(sb.nn.Linear(1, 1))
    net.extra = weight
    sb.nn.vmap_init_all_states(net, axis_size=5, out_states={-1: weight})
    assert weight.shape == (2, 3, 5) and weight.mapped == ((5, -1),)
    weight.value = jnp.zeros((5,))
    with pytest.raises(ValueError, match="holds 5 members along axis -1"):
        weight.value = jnp.zeros((5, 2))
