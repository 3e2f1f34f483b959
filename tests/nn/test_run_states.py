"""What members write when a module runs over them, and what an exception leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from members import (
    Counter,
    N,
    assert_unchanged,
    close,
    looped,
    make,
    members_of,
    normal,
    snapshot,
)
from seedbed.nn import HiddenState, Module, NonBatchState, ParamState, State

pytestmark = pytest.mark.shared


@pytest.fixture
def counter(key):
    return make(Counter(), key)


# --- what is written --------------------------------------------------------------------


def test_a_recurrent_cell_over_time(key):
    cell = make(sb.nn.GRUCell(3, 4), key)
    xs = jax.random.normal(key, (5, N, 3))
    run = sb.nn.vmap(cell)
    singles = list(members_of(cell))
    for x in xs:
        got = run(x)
        expected = jnp.stack([one(x[i]) for i, one in enumerate(singles)])
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-6)
    close(cell.h.value, jnp.stack([one.h.value for one in singles]))
    assert cell.h.members == N and type(cell.h) is HiddenState
    sb.nn.vmap_reset_all_states(cell, axis_size=N)
    assert cell.h.shape == (N, 4) and not cell.h.value.any()


def test_a_recurrent_cell_with_a_batch_of_inputs(key):
    with sb.random.stream(key):
        cell = sb.nn.vmap_init_all_states(sb.nn.GRUCell(3, 4), batch_size=7, axis_size=N)
    assert cell.h.shape == (N, 7, 4)
    x = jax.random.normal(key, (7, 3))
    expected = looped(cell, lambda one, i: one(x))
    close(sb.nn.vmap(cell, in_axes=None)(x), expected)


def test_spiking_neurons_with_gains_of_their_own(key):
    gain = State(jnp.linspace(0.5, 4.0, N))
    net = make(sb.nn.LIF(8, gain=gain, dt=2.0), key, in_states=gain)
    assert net.v.shape == (N, 8) and gain.members == N
    counts = jnp.zeros(N)
    singles = list(members_of(net))
    for _ in range(20):
        spikes = sb.nn.vmap(net, in_axes=None)(1.5)
        assert_same_bits(spikes, jnp.stack([one(1.5) for one in singles]))
        counts += spikes.sum(axis=1)
    assert counts[0] == 0 and counts[-1] > counts[1]


def test_a_shared_counter_stays_shared(counter, xs):
    for times in (1, 2):
        assert_same_bits(sb.nn.vmap(counter)(xs), xs * counter.w.value)
        assert counter.count.value == times and counter.count.shape == ()
        assert counter.count.members is None
    for options in ({"chunk_size": 4}, {"loop": True}):
        sb.nn.vmap(counter, **options)(xs)
    assert counter.count.value == 4 and counter.count.shape == ()


@pytest.mark.parametrize("options", [{}, {"chunk_size": 4}, {"loop": True}], ids=str)
def test_a_shared_state_written_per_member_is_an_error(counter, xs, options):
    before = snapshot(counter)
    with pytest.raises(ValueError, match="'total'.*shared by all members, but .*each member has"):
        sb.nn.vmap(counter.add, **options)(xs)
    assert_unchanged(counter, before)


def test_a_shared_state_written_from_a_mapped_argument_is_an_error(counter, xs):
    before = snapshot(counter)
    with pytest.raises(ValueError, match="shared by all members"):
        sb.nn.vmap(counter.tell)(jnp.arange(N))
    assert_unchanged(counter, before)
    sb.nn.vmap(counter.tell, in_axes=None)(jnp.int32(7))
    assert counter.count.value == 7 and counter.count.shape == ()


def test_a_shared_state_written_from_a_members_key_is_an_error(key):
    class Noisy(Module):
        def __init__(self):
            self.noise = State(jnp.zeros(2))

        def __call__(self):
            self.noise.value = jax.random.normal(sb.random.next_key(), (2,))

    net = Noisy()
    before = snapshot(net)
    with sb.random.stream(key):
        with pytest.raises(ValueError, match="shared by all members"):
            sb.nn.vmap(net, axis_size=3)()
        assert sb.random.get_state().count == 0
    assert_unchanged(net, before)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_out_states_get_a_value_per_member(counter, xs, axis):
    sb.nn.vmap(counter.add, out_states={axis: counter.total})(xs)
    expected = xs * counter.w.value
    assert_same_bits(jnp.moveaxis(counter.total.value, axis, 0), expected)
    assert counter.total.mapped == ((N, axis),)
    sb.nn.vmap(counter.add)(xs)  # now it is one of the states that hold members
    np.testing.assert_allclose(jnp.moveaxis(counter.total.value, axis, 0), 2 * expected, rtol=1e-6)
    assert counter.total.mapped == ((N, axis),)


def test_an_in_state_that_is_written_keeps_its_members(xs):
    total = State(jnp.zeros((3, N)))

    def add(x):
        total.value = total.value + x

    sb.nn.vmap(add, in_states={-1: total})(xs)
    assert_same_bits(total.value, xs.T)


def test_a_write_to_an_unlisted_state_is_an_error(xs):
    elsewhere = State(jnp.zeros(3))

    def put(x):
        elsewhere.value = x

    with pytest.raises(ValueError, match="shared by all members"):
        sb.nn.vmap(put)(xs)
    assert elsewhere.value.shape == (3,)
    sb.nn.vmap(put, out_states=elsewhere)(xs)
    assert_same_bits(elsewhere.value, xs)


def test_states_of_another_batched_module_must_be_named(counter, xs):
    def use(x):
        return counter.w.value * x

    with pytest.raises(ValueError, match="holds 6 members and is not one of the .*`in_states`"):
        sb.nn.vmap(use)(xs)
    assert_same_bits(sb.nn.vmap(use, in_states=counter.w)(xs), xs * counter.w.value)


def test_a_non_batch_state_stays_shared(key, xs):
    class Net(Module):
        def __init__(self):
            self.steps = NonBatchState(jnp.int32(0))
            self.w = ParamState(init=normal, shape=(3,))

        def __call__(self, x):
            self.steps.value += 1
            return x + self.w.value

    net = make(Net(), key)
    sb.nn.vmap(net)(xs)
    assert net.steps.value == 1 and net.steps.members is None


def test_states_made_by_the_call_hold_members(counter, xs):
    class Late(Module):
        def __call__(self, x):
            self.v = HiddenState(x * 2)
            return State(x + 1, tag="result")

    net = Late()
    made = sb.nn.vmap(net)(xs)
    assert net.v.members == N and made.members == N and made.tag == "result"
    assert_same_bits(net.v.value, xs * 2)
    assert_same_bits(made.value, xs + 1)


def test_declared_states_in_what_the_call_returns_are_drawn(key):
    def build():
        return ParamState(init=normal, shape=(8,)), sb.nn.Linear(3, 2)

    with sb.random.stream(key):
        state, net = sb.nn.vmap(build, axis_size=N)()
        again, _ = sb.nn.vmap(build, axis_size=2)()
    assert state.members == net.members == N and net.weight.shape == (N, 2, 3)
    assert len(np.unique(state.value)) == 8 * N
    keys = [jax.random.fold_in(k, 0) for k in jax.random.split(jax.random.fold_in(key, 0), N)]
    assert_same_bits(state.value, jnp.stack([normal(k, (8,), jnp.float32) for k in keys]))
    assert again.members == 2


def test_a_list_that_a_failed_call_appended_to_is_as_before(counter, xs):
    counter.seen = [1]

    def fails(net, x):
        net.seen.append(x)
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        sb.nn.vmap(fails)(counter, xs)
    assert counter.seen == [1]


# --- exceptions -------------------------------------------------------------------------


def test_an_exception_leaves_everything(counter, xs, key):
    def fails(net, x):
        net.count.value = net.count.value + 1
        net.w.value = net.w.value * 2
        net.flag = True
        sb.random.next_key()
        raise RuntimeError("half way")

    before = snapshot(counter)
    with sb.random.stream(key):
        with pytest.raises(RuntimeError, match="half way"):
            sb.nn.vmap(fails)(counter, xs)
        with pytest.raises(TypeError, match="must return arrays"):
            sb.nn.vmap(lambda net, x: (net(x), object()))(counter, xs)
        with pytest.raises(ValueError, match="`out_axes`"):
            sb.nn.vmap(counter, out_axes=5)(xs)
        assert sb.random.get_state().count == 0
    assert_unchanged(counter, before)
    assert not hasattr(counter, "flag")
    assert_same_bits(sb.nn.vmap(counter)(xs), xs * counter.w.value)


def test_a_value_that_leaks_out_is_no_tracer_in_a_state(counter, xs):
    sb.nn.vmap(counter)(xs)
    for state in counter.states().values():
        assert not isinstance(state.value, jax.core.Tracer)
