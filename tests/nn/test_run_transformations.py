"""Running over members within transformations, and transformations within the run."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from members import (
    Counter,
    N,
    Scale,
    assert_unchanged,
    close,
    make,
    members_of,
    snapshot,
)
from seedbed.nn import ParamState

pytestmark = pytest.mark.shared


# --- training inside of the call --------------------------------------------------------


def train(net, x):
    """One step of gradient descent of a single model."""
    definition, values = sb.nn.split(net)

    def loss(values):
        return jnp.sum(sb.nn.merge(definition, values)(x) ** 2)

    value, grads = jax.value_and_grad(loss)(values)
    stepped = jax.tree.map(lambda leaf, grad: leaf - 0.1 * grad, values, grads)
    sb.nn.assign_state_values(net, stepped)
    return value


@pytest.mark.parametrize("options", [{}, {"chunk_size": 4}, {"loop": True}], ids=str)
def test_members_are_trained_inside_the_call(key, xs, options):
    net = make(sb.nn.Sequential(sb.nn.Linear(3, 4), jnp.tanh, sb.nn.Linear(4, 1)), key)
    singles = list(members_of(net))
    run = sb.nn.vmap(train, in_axes=(None, 0), **options)
    for _ in range(3):
        losses = run(net, xs)
        close(losses, jnp.stack([train(one, xs[i]) for i, one in enumerate(singles)]))
    assert net.members == N
    for path, state in net.states().items():
        close(state.value, jnp.stack([one.states()[path].value for one in singles]))


def test_a_copy_inside_the_call_is_of_one_member(key, xs):
    net = make(Scale(), key)

    def shifted(net, x):
        twin = sb.nn.merge(*sb.nn.split(net))
        twin.w.value = twin.w.value + 1
        return twin(x) - net(x)

    np.testing.assert_allclose(sb.nn.vmap(shifted)(net, xs), xs, rtol=1e-5, atol=1e-6)


def test_a_transformation_inside_the_call_must_not_write(key, xs):
    net = make(sb.nn.GRUCell(3, 4), key)
    before = snapshot(net)

    def over_time(cell, xs):
        return jax.lax.scan(lambda c, x: (c, cell(x)), 0, xs)[1]

    with pytest.raises(ValueError, match="outside of the function that jax is tracing"):
        sb.nn.vmap(over_time, in_axes=(None, 1))(net, jnp.stack([xs, xs]))
    with pytest.raises(ValueError, match="outside of the function that jax is tracing"):
        sb.nn.vmap(lambda cell, x: jax.jit(lambda x: train(cell, x))(x))(net, xs)
    assert_unchanged(net, before)


def test_new_states_may_be_trained_where_they_are_made(key):
    def build():
        net = sb.nn.init_all_states(sb.nn.Linear(3, 2))
        train(net, jnp.ones(3))
        return net

    with sb.random.stream(key):
        net = sb.nn.vmap_new_states(build, axis_size=4)()
    assert net.members == 4 and net.weight.shape == (4, 2, 3)
    assert len(np.unique(np.asarray(net.weight.value)[:, 0, 0])) == 4


# --- members of members -----------------------------------------------------------------


@pytest.fixture
def grid(key):
    """Scale for 2 x 4 members."""
    net = Scale()
    with sb.random.stream(key):
        sb.nn.vmap_new_states(lambda: sb.nn.vmap_init_all_states(net, axis_size=4), axis_size=2)()
    return net


def test_vmap_of_vmap_runs_outer_and_inner(grid, key):
    assert grid.w.shape == (2, 4, 3) and grid.w.mapped == ((2, 0), (4, 0))
    assert grid.members == 2
    x = jax.random.normal(key, (2, 4, 3))
    both = sb.nn.vmap(lambda net, x: sb.nn.vmap(net)(x))
    assert_same_bits(both(grid, x), x * grid.w.value)
    outer = sb.nn.vmap(lambda net, x: sb.nn.vmap(net, in_axes=None)(x))
    assert_same_bits(outer(grid, x[:, 0]), x[:, :1] * grid.w.value)
    with pytest.raises(ValueError, match="holds 4 members, and calling it runs a single one"):
        sb.nn.vmap(grid)(x)
    with pytest.raises(ValueError, match="holds 2 members, and calling it runs a single one"):
        grid(x)


def test_random_numbers_of_members_of_members(key):
    def draw():
        return jax.random.bits(sb.random.next_key(), (2,))

    with sb.random.stream(key):
        got = sb.nn.vmap(lambda: sb.nn.vmap(draw, axis_size=4)(), axis_size=3)()
    assert got.shape == (3, 4, 2)
    assert len(np.unique(got)) == 24


# --- transformations --------------------------------------------------------------------


def test_jit_over_members_with_split_and_merge(key, xs):
    cell = make(sb.nn.GRUCell(3, 4), key)
    definition, params, hidden = sb.nn.split(cell, ParamState, ...)

    @jax.jit
    def step(params, hidden, x):
        net = sb.nn.merge(definition, params, hidden)
        y = sb.nn.vmap(net)(x)
        return y, sb.nn.split(net, ParamState, ...)[2]

    for _ in range(3):
        y, hidden = step(params, hidden, xs)
        close(y, sb.nn.vmap(cell)(xs))
    close(hidden["h"], cell.h.value)
    assert step._cache_size() == 1


@pytest.mark.parametrize("options", [{}, {"chunk_size": 4}, {"loop": True}], ids=str)
def test_gradients_are_those_of_the_members(key, xs, options):
    net = make(sb.nn.Sequential(sb.nn.Linear(3, 4), jnp.tanh, sb.nn.Linear(4, 1)), key)
    definition, values = sb.nn.split(net)

    def loss(values):
        twin = sb.nn.merge(definition, values)
        return jnp.sum(sb.nn.vmap(twin, **options)(xs) ** 2)

    grads = jax.jit(jax.grad(loss))(values)
    close(jax.grad(loss)(values), grads)
    for i, one in enumerate(members_of(net)):
        single, part = sb.nn.split(one)
        expected = jax.grad(
            lambda part: jnp.sum(sb.nn.merge(single, part)(xs[i]) ** 2)  # noqa: B023
        )(part)
        close(jax.tree.map(lambda leaf: leaf[i], grads), expected)  # noqa: B023


def test_gradients_through_random_numbers(key, xs):
    net = make(sb.nn.Sequential(sb.nn.Linear(3, 4), sb.nn.Dropout(0.5)), key)
    definition, values = sb.nn.split(net)

    @jax.jit
    def loss(values, key):
        with sb.random.stream(key):
            return jnp.sum(sb.nn.vmap(sb.nn.merge(definition, values))(xs))

    bias = jax.grad(loss)(values, key)["layers.0.bias"]
    assert set(np.unique(bias)) == {0.0, 2.0}
    assert not np.array_equal(bias, jax.grad(loss)(values, jax.random.key(1))["layers.0.bias"])


def test_inside_jax_vmap(key, xs):
    net = make(Scale(), key)
    definition, values = sb.nn.split(net)
    got = jax.vmap(lambda x: sb.nn.vmap(sb.nn.merge(definition, values))(x))(
        jnp.stack([xs, 2 * xs])
    )
    assert_same_bits(got, jnp.stack([xs, 2 * xs]) * jnp.stack([net.w.value] * 2))


def test_a_module_from_outside_may_run_in_a_trace_when_it_writes_nothing(key, xs):
    net, counter = make(Scale(), key), make(Counter(), key)
    assert_same_bits(jax.jit(lambda x: sb.nn.vmap(net)(x))(xs), xs * net.w.value)
    before = snapshot(counter)
    with pytest.raises(ValueError, match="outside of the function that jax is tracing"):
        jax.jit(lambda x: sb.nn.vmap(counter)(x))(xs)
    assert_unchanged(counter, before)


def test_a_second_call_compiles_nothing(key, xs):
    events = []

    def hear(event, duration, **_):
        events.append(event)

    net = make(sb.nn.GRUCell(3, 4), key)
    sb.nn.vmap(net)(xs)
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        sb.nn.vmap(net)(xs)
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert "/jax/core/compile/backend_compile_duration" not in events


def test_states_made_by_a_call_inside_may_be_written_after_it(key):
    def build():
        net = sb.nn.vmap_init_all_states(sb.nn.GRUCell(3, 4), axis_size=2)
        net.h.value = net.h.value + 1
        net.note = "made"
        return net

    with sb.random.stream(key):
        net = sb.nn.vmap(build, axis_size=5)()
    assert net.h.mapped == ((5, 0), (2, 0)) and net.note == "made"
    np.testing.assert_array_equal(net.h.value, np.ones((5, 2, 4)))
