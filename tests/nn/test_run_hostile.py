"""Running over members with what is unusual: changing states, rules, jitted methods, copies."""

import functools
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, programs
from members import Counter, assert_unchanged, close, make, normal, snapshot
from seedbed.nn import Module, ParamState, State

pytestmark = pytest.mark.shared

N = 4


@pytest.fixture
def key():
    return jax.random.key(7)


class Scaled(Module):
    """Scales by an attribute and by a value of each member."""

    def __init__(self, factor=1.0):
        self.factor = factor
        self.w = State(jnp.ones((N, 3)))

    def __call__(self, x):
        return self.w.value * self.factor * x


def run(net, x=1.0, **options):
    return sb.nn.vmap(net, in_axes=None, in_states=net.w, **options)(x)


def test_a_shared_number_that_changes_from_call_to_call_is_no_new_program(key):
    net = make(Counter(), key, N)
    call = sb.nn.vmap(net, in_axes=None)
    call(jnp.ones(3))
    before = programs()
    for i in range(5):
        call(jnp.ones(3))
        assert net.count.value == i + 2
    assert programs() == before


def test_a_value_per_member_that_changes_is_no_new_program():
    net = Scaled()
    run(net)
    before = programs()
    for factor in (2.0, 3.0):
        net.w.value = net.w.value * factor
        run(net)
    assert_same_bits(run(net), jnp.full((N, 3), 6.0, jnp.float32))
    assert programs() == before


def test_constants_that_compare_equal_are_told_apart():
    results = {}
    for factor in (0.0, -0.0, float("nan"), 1, True, 1.0):
        results[repr(factor)] = run(Scaled(factor))[0, 0]
    assert not np.signbit(results["0.0"]) and np.signbit(results["-0.0"])
    assert np.isnan(results["nan"])
    assert results["1"] == results["True"] == results["1.0"] == 1


@pytest.mark.parametrize("options", [{}, {"chunk_size": 3}, {"loop": True}], ids=repr)
def test_derivative_rules_hold_in_every_way_to_run(options):
    @jax.custom_jvp
    def f(x):
        return x * x

    f.defjvp(lambda primals, tangents: (f(primals[0]), tangents[0] * 100))

    @jax.custom_vjp
    def g(x):
        return x * x

    g.defvjp(lambda x: (g(x), x), lambda x, cotangent: (cotangent * 1000.0,))

    class Ruled(Scaled):
        def __call__(self, x):
            remat = jax.checkpoint(lambda w: f(w) + g(w))
            return x * remat(self.w.value)

    net = Ruled()
    definition, values = sb.nn.split(net)

    def loss(values):
        return jnp.sum(run(sb.nn.merge(definition, values), **options))

    for gradient in (jax.grad(loss), jax.jit(jax.grad(loss))):
        np.testing.assert_array_equal(gradient(values)["w"], np.full((N, 3), 1100.0))


def test_random_masks_and_written_states_are_the_same_in_every_way_to_run(key):
    class Drops(Module):
        def __init__(self):
            self.drop = sb.nn.Dropout(0.5)
            self.w, self.h = State(jnp.ones((5, 3))), State(jnp.zeros((5, 3)))

        def __call__(self, x):
            y = self.drop(x * self.w.value)
            self.h.value = self.h.value + y
            return y

    results = []
    for options in ({}, {"chunk_size": 2}, {"loop": True}):
        net = Drops()
        call = sb.nn.vmap(net, in_axes=None, in_states=[net.w, net.h], **options)
        with sb.random.stream(key):
            results.append((call(jnp.ones(3)), call(jnp.ones(3)), net.h.value))
        assert_same_bits(results[-1], results[0])
    first, second, total = results[0]
    assert (first != second).any() and jnp.array_equal(first + second, total)


def test_a_method_that_jax_jit_keeps_traced_values_of_is_refused(key):
    # The cache of jit, by module, would hold one call's traced values.
    class Jits(Module):
        def __init__(self):
            self.w = ParamState(init=normal, shape=(3,))

        @jax.jit
        def _outer(x):
            return x * 2

        def __call__(self, x):
            return self.jitted(x) + Jits._outer(x)

        def __hash__(self):
            return 1

        def jitted(self, x):
            return self.w.value * x

    plain = make(Jits(), key, N)
    close(sb.nn.vmap(plain, in_axes=None)(1.0), plain.w.value + 2)

    class Kept(Jits):
        jitted = jax.jit(Jits.jitted, static_argnums=0)

    class Decorated(Jits):
        __call__ = jax.jit(Jits.jitted, static_argnums=0)

    for kind in (Kept, Decorated):
        net = make(kind(), key, N)
        before = snapshot(net)
        message = "stored a traced value outside itself .* or `jax.jit` of a method"
        with pytest.raises(TypeError, match=message):
            sb.nn.vmap(net, in_axes=None)(1.0)
        assert_unchanged(net, before)
        # Members are not taken for one by the decorated method either.
        with pytest.raises(ValueError, match="holds 4 members, and calling it runs a single one"):
            net(1.0)
        # The members' values are arguments where `split` and `merge` are used.
        definition, values = sb.nn.split(net)

        @jax.jit
        def call(values, definition=definition):
            net = sb.nn.merge(definition, values)
            return sb.nn.vmap(Jits.jitted, in_axes=(0, None))(net, 1.0)

        close(call(values), net.w.value)


def test_a_state_made_inside_a_transformation_inside_the_call():
    def squared(y):
        state = State(y * 2)
        return state.value**2

    def doubled(carry, _):
        state = State(carry * 2)
        return state.value, None

    x = jnp.arange(float(N))
    close(sb.nn.vmap(jax.grad(squared))(x), 8 * x)
    close(sb.nn.vmap(lambda c: jax.lax.scan(doubled, c, length=3)[0])(x), 8 * x)
    close(sb.nn.vmap(jax.jit(squared))(x), 4 * x * x)


def test_a_recurrent_module_over_time_inside_the_call(key):
    class Recurrent(Module):
        def __init__(self):
            self.cell = sb.nn.GRUCell(3, 2)

        def __call__(self, xs):
            definition, values = sb.nn.split(self.cell)

            def step(values, x):
                cell = sb.nn.merge(definition, values)
                y = cell(x)
                return sb.nn.split(cell)[1], y

            return jax.lax.scan(step, values, xs)[1]

    net = make(Recurrent(), key, N)
    xs = jnp.ones((5, 3))
    ys = sb.nn.vmap(net, in_axes=None)(xs)
    assert ys.shape == (N, 5, 2)
    single = sb.nn.init_all_states(Recurrent())
    for i in (0, N - 1):
        members = {name: value[i] for name, value in sb.nn.split(net)[1].items()}
        sb.nn.assign_state_values(single, members)
        close(single(xs), ys[i])


def test_a_module_made_by_the_call_holds_members(key):
    with sb.random.stream(key):
        net = sb.nn.vmap(lambda x: sb.nn.Linear(3, 2))(jnp.ones(N))
    assert net.weight.initialized and net.weight.shape == (N, 2, 3) and net.members == N
    assert sb.nn.vmap(net, in_axes=None)(jnp.ones(3)).shape == (N, 2)
    assert sb.nn.vmap(lambda x: None)(jnp.ones(N)) is None


def test_calls_keep_neither_arrays_nor_traced_values(key):
    def traced():
        gc.collect()
        return sum(isinstance(item, jax.core.Tracer) for item in gc.get_objects())

    before = traced()
    references = []
    for i in range(3):
        array = jnp.full((10, 10), float(i))
        references.append(weakref.ref(array))
        net = Scaled(array.sum())
        net.array = array
        run(net)
        run(net, loop=True)
        with pytest.raises(TypeError, match="missing|positional"):
            sb.nn.vmap(net, in_axes=None, in_states=net.w)()
        del net, array
    assert traced() <= before
    assert [reference() for reference in references] == [None] * 3


def test_a_cached_property_keeps_no_traced_value_of_a_run():
    class Cached(sb.nn.Module):
        def __init__(self):
            self.w = sb.nn.ParamState(init=jax.nn.initializers.normal(), shape=(3,))

        @functools.cached_property
        def scaled(self):
            return 2 * self.w.value

        def __call__(self):
            return jax.nn.relu(self.scaled)

    net = sb.nn.vmap_init_all_states(Cached(), axis_size=4)
    with pytest.raises(TypeError, match="traced"):
        sb.nn.vmap(net)()
    assert "scaled" not in vars(net)
