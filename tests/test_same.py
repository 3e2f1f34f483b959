"""Structural equality: a function that is traced anew finds the program compiled for it."""

import dataclasses
import enum
import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle
from seedbed import _ensemble, _execute, _same, _trace

normal, uniform = jax.random.normal, jax.random.uniform
KEY = jax.eval_shape(lambda: jax.random.key(0))


def jaxpr(f, *args):
    return jax.make_jaxpr(f)(*(args or (jax.random.key(0),)))


def token(f, *args):
    return _same.token(jaxpr(f, *args))


def programs():
    """How many programs were made so far, on either backend."""
    caches = _execute.program, _execute.reference_program
    return sum(cache.cache_info().misses for cache in caches)


# --- functions that are made anew, and traced anew, each time -----------------------------


def orthogonal():
    return lambda key: jax.nn.initializers.orthogonal()(key, (5, 3))


def loop():
    def init(key):
        def body(carry, x):
            return carry * 0.5 + x, jnp.sin(carry)

        return jax.lax.scan(body, jnp.float32(0.25), normal(key, (6,)))

    return init


def branch():
    def init(key):
        x = normal(key, (6,))
        return jax.lax.cond(x[0] > 0, lambda x: x + 1.0, lambda x: jnp.cos(x), x)

    return init


def repeat():
    def init(key):
        x = uniform(key, (3,))
        return jax.lax.while_loop(lambda x: x.sum() < 5.0, lambda x: 2.0 * x, x)

    return init


def ordered():
    return lambda key: (jnp.sort(normal(key, (7,))), jax.random.permutation(key, 6))


def arithmetic():
    return lambda key: jnp.tanh(normal(key, (6,)) * 1.75 + 0.1) ** 3


def helper():
    @jax.jit
    def inner(x):
        return jnp.exp(x) / 3.0

    return lambda key: inner(normal(key, (6,)))


def mapped():
    return lambda key: jax.vmap(lambda key: jnp.linalg.inv(normal(key, (2, 2)) + 3 * jnp.eye(2)))(
        jax.random.split(key, 3)
    )


def gathered():
    return lambda key: normal(key, (6, 2))[jnp.array([3, 0])].T


def remat():
    return lambda key: jax.checkpoint(lambda x: jnp.sin(jnp.cumsum(x)))(normal(key, (6,)))


def bfloat():
    return lambda key: jnp.cumsum(normal(key, (6,), jnp.bfloat16)).astype(jnp.float32)


MADE = [orthogonal, loop, branch, repeat, ordered, arithmetic, helper, mapped, gathered, remat]
MADE += [bfloat]


@pytest.mark.parametrize("make", MADE, ids=lambda make: make.__name__)
def test_two_traces_of_one_function_are_the_same(make):
    first, again = jaxpr(make()), jaxpr(make())
    assert first is not again
    assert _same.token(first) == _same.token(again)
    assert hash(_same.token(first)) == hash(_same.token(again))


def test_different_functions_are_not_the_same():
    tokens = [token(make()) for make in MADE]
    assert len(set(tokens)) == len(MADE)


@pytest.mark.parametrize(
    "make", [orthogonal, loop, branch, ordered], ids=lambda make: make.__name__
)
def test_a_function_traced_anew_finds_its_program(make, key):
    sb.ensemble(make(), 3)(key)
    before = programs()
    got = sb.ensemble(make(), 3)(key)
    assert programs() == before
    want = oracle(make(), 3, key)
    assert_same_bits(got, want, either=jax.vmap(make())(jax.random.split(key, 3)), ulps=1)


def test_nothing_is_compiled_for_the_second_trace(key):
    events = []

    def hear(event, duration, **_):
        events.append(event)

    def make():
        return sb.ensemble(lambda key: jnp.sort(uniform(key, (6,)) * 1.37 + 0.21), 3)

    make()(key)
    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        make()(jax.random.key(4))
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)
    assert "/jax/core/compile/backend_compile_duration" not in events


# --- constants ----------------------------------------------------------------------------

SCALAR_PAIRS = [
    (0.0, -0.0),
    (1.0, np.nextafter(np.float32(1), np.float32(2))),
    (np.float32(2), np.int32(2)),
    (np.float32(2), np.float16(2)),
    (np.float32(1.5), 1.5),  # strong and weak
    (1, 1.0),
    (1, True),
    (np.nan, np.inf),
]


@pytest.mark.parametrize("pair", SCALAR_PAIRS, ids=str)
def test_constants_that_differ_make_different_programs(pair, key):
    def with_constant(value):
        return lambda key: jnp.sort(jnp.copysign(normal(key, (6,)), value) + value)

    one, two = (token(with_constant(value)) for value in pair)
    assert one != two
    for value in pair:
        init = with_constant(value)
        assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key), nan=True)


def test_nan_is_the_same_as_itself():
    assert token(lambda key: normal(key) + np.nan) == token(lambda key: normal(key) + np.nan)


@pytest.mark.parametrize("captured", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("size", [1, 6])
def test_captured_arrays_keep_their_own_numbers(captured, size, key):
    def init(values):
        return lambda key: jnp.sort(normal(key, (6,)) * values)

    numbers = [np.full(size, x, np.float32) for x in (2.0, 3.0, 0.0, -0.0)]
    for values in map(captured, numbers):
        assert_same_bits(sb.ensemble(init(values), 3)(key), oracle(init(values), 3, key))


def test_another_captured_array_needs_no_other_program(key):
    def init(values):
        return lambda key: jnp.sort(normal(key, (6,)) * values)

    sb.ensemble(init(jnp.arange(6.0)), 3)(key)
    before = programs()
    other = init(jnp.arange(6.0) ** 2)
    assert_same_bits(sb.ensemble(other, 3)(key), oracle(other, 3, key))
    assert programs() == before


@pytest.mark.parametrize("captured", [np.asarray, jnp.asarray])
def test_jitted_helpers_that_close_over_arrays(captured, key):
    def init(values):
        inner = jax.jit(lambda x: jnp.sort(x * values))
        return lambda key: inner(normal(key, (6,)))

    for values in (np.arange(6, dtype=np.float32), np.arange(6, dtype=np.float32)[::-1].copy()):
        made = init(captured(values))
        assert_same_bits(sb.ensemble(made, 3)(key), oracle(made, 3, key))
    same = np.arange(6, dtype=np.float32)
    assert token(init(same)) == token(init(same.copy()))
    assert token(init(same)) != token(init(same + 1))


def test_a_changed_array_is_another_program(key):
    values = np.arange(6, dtype=np.float32)

    def init():
        inner = jax.jit(lambda x: jnp.sort(x * values))
        return lambda key: inner(normal(key, (6,)))

    assert_same_bits(sb.ensemble(init(), 3)(key), oracle(init(), 3, key))
    values += 1
    assert_same_bits(sb.ensemble(init(), 3)(key), oracle(init(), 3, key))


# --- parameters ---------------------------------------------------------------------------


def frozen(value):
    return _same._Walk().freeze(value)


class Colour(enum.IntEnum):
    RED = 1


@dataclasses.dataclass(frozen=True)
class Option:
    value: object


@dataclasses.dataclass
class Loose:
    value: object


UNLIKE = [
    *(1, True, 1.0, 1 + 0j, np.int32(1), np.float32(1), np.array(1), "1", b"1", Colour.RED),
    *(0.0, -0.0, None, (), [], (1,), (True,), [1], (1.0,), {"a": 1}, {"a": True}, {1: "a"}),
    *(Option(1), Option(True), Option(-0.0), Option(0.0), frozenset([1]), frozenset([True])),
    *(np.zeros(2), -np.zeros(2), np.zeros((2, 1)), np.zeros(2, np.float32), np.dtype("f4"), float),
    *(jax.lax.Precision.HIGH, jax.lax.Precision.HIGHEST, jax.sharding.PartitionSpec("a")),
]


def test_values_that_python_takes_for_equal_are_told_apart():
    assert len({frozen(value) for value in UNLIKE}) == len(UNLIKE)


@pytest.mark.parametrize(
    "make",
    [
        lambda: (1, (2.5, "x", None)),
        lambda: float("nan"),
        lambda: np.arange(5.0) * np.nan,
        lambda: {"a": [1, 2]},
        lambda: Option((np.ones(2), Option(3))),
        lambda: jnp.dtype(jnp.bfloat16),
        lambda: jax.random.key(0).dtype,
        lambda: jax.sharding.PartitionSpec("a", None),
        lambda: jax.lax.GatherDimensionNumbers((0,), (1,), (1,)),
    ],
)
def test_plain_data_is_compared_by_value(make):
    assert frozen(make()) == frozen(make()) and hash(frozen(make())) == hash(frozen(make()))


@pytest.mark.parametrize(
    "make",
    [lambda: Loose(1), lambda: lambda: 1, lambda: jnp.ones(2), object, lambda: {1}],
)
def test_what_does_not_show_its_meaning_is_compared_by_identity(make):
    value = make()
    assert frozen(value) == frozen(value) and frozen(value) != frozen(make())


def test_what_is_compared_by_identity_is_kept_alive():
    class Thing:
        pass

    thing = Thing()
    alive, kept = weakref.ref(thing), frozen(thing)
    del thing
    gc.collect()
    assert alive() is not None and kept == frozen(alive())
    del kept
    gc.collect()
    assert alive() is None


def test_extra_attributes_of_a_dataclass_count():
    one, two = Option(1), Option(1)
    object.__setattr__(two, "hidden", 3)
    assert frozen(one) != frozen(two)


def test_the_context_of_an_equation_counts():
    def init(key):
        return jnp.sort(normal(key, (6,)))

    with jax.threefry_partitionable(False):
        old = token(init)
    assert old != token(init) and token(init) == token(init)


def test_derivative_rules_are_told_apart(key):
    def init(factor):
        @jax.custom_jvp
        def f(x):
            return jnp.cumsum(x)

        f.defjvp(lambda primals, tangents: (f(*primals), factor * jnp.cumsum(tangents[0])))
        return lambda key, scale: f(scale * normal(key, (3,)))

    for factor in (2.0, 3.0):
        made = sb.ensemble(init(factor), 2)

        def total(scale, made=made):
            return made(key, scale).sum()

        direct = jax.grad(lambda s, f=init(factor): oracle(f, 2, key, s).sum())(1.0)
        np.testing.assert_allclose(jax.grad(total)(1.0), direct, rtol=1e-6)


# --- depth and sharing --------------------------------------------------------------------


def nested(depth):
    def init(x):
        return jnp.sort(x)

    for _ in range(depth):
        init = jax.jit(init)
    return init


def test_deep_nesting():
    closed = jaxpr(lambda x: x + 1.0, 1.0)
    (eqn,) = jaxpr(nested(1), jnp.ones(3)).eqns

    def deep(depth):
        inner = jaxpr(nested(1), jnp.ones(3))
        for _ in range(depth):
            params = {**eqn.params, "jaxpr": inner}
            inner = closed.replace(
                jaxpr=jaxpr(nested(1), jnp.ones(3)).jaxpr.replace(eqns=[eqn.replace(params=params)])
            )
        return inner

    one, two, other = (_same.token(deep(depth)) for depth in (3000, 3000, 2999))
    assert one == two and hash(one) == hash(two) and one != other


def test_sharing_of_nested_programs_makes_no_difference():
    shared = jax.jit(lambda x: jnp.sort(x))
    assert token(lambda x: shared(shared(x)), jnp.ones(3)) == token(
        lambda x: jax.jit(lambda x: jnp.sort(x))(jax.jit(lambda x: jnp.sort(x))(x)), jnp.ones(3)
    )


# --- the part that matters ----------------------------------------------------------------


def test_unused_arguments_are_left_out(key):
    def init(key, used, unused):
        del unused
        return jnp.sort(normal(key, (6,)) + used)

    def plain(key, used):
        return jnp.sort(normal(key, (6,)) + used)

    want = sb.ensemble(plain, 3)(key, 1.5)
    before = programs()
    for axes, unused in (
        (None, np.ones(4)),
        ((None, 0), np.ones((3, 2))),
        ((None, 1), jnp.ones((5, 3))),
    ):
        assert_same_bits(sb.ensemble(init, 3, in_axes=axes)(key, 1.5, unused), want)
        make = sb.ensemble(lambda key, x, y: init(key, y, x), 3, in_axes=axes and axes[::-1])
        assert_same_bits(make(key, unused, 1.5), want)
    assert programs() == before


def test_unused_arguments_are_still_checked(key):
    make = sb.ensemble(lambda key, unused: normal(key, (6,)), 3, in_axes=0)
    with pytest.raises(ValueError, match="length 4"):
        make(key, np.ones(4))


def test_what_has_effects_is_kept(key):
    heard = []

    def init(key, x):
        jax.debug.callback(lambda x: heard.append(float(x)), x)
        return normal(key, (6,))

    make = sb.ensemble(init, 2, in_axes=0)
    assert_same_bits(make(key, np.array([1.0, 2.0])), oracle(lambda key: normal(key, (6,)), 2, key))
    jax.effects_barrier()
    assert sorted(heard) == [1.0, 2.0]


def test_trimmed():
    large = jnp.arange(2000.0)

    def init(key, a, b, c):
        dead = jnp.sort(b * normal(key, (3,)))
        del dead
        return a + large[:3], c

    closed = jaxpr(init, jax.random.key(0), 1.0, 2.0, 3.0)
    trimmed, captures, read = _same.trim(closed)
    assert read == (0, 2) and [array.shape for array in captures] == [(2000,)]
    assert not any("sort" in str(eqn.primitive) for eqn in trimmed.eqns)
    got = trimmed.evaluate(jax.random.key(0), *captures, 1.0, 3.0)
    assert_same_bits(got, [1.0 + large[:3], 3.0], weak=False) if hasattr(got[1], "shape") else None
    assert_same_bits(got[0], 1.0 + large[:3])
    assert got[1] == 3.0
    again, _, _ = _same.trim(jaxpr(init, jax.random.key(0), 1.0, 2.0, 3.0))
    assert trimmed == again and hash(trimmed) == hash(again) and trimmed != closed


# --- ensembles of recorded functions ------------------------------------------------------


def recorded(init, *args):
    types = jax.tree.map(lambda x: jax.ShapeDtypeStruct(np.shape(x), np.result_type(x)), args)
    return _trace.record(init, KEY, types)


def test_a_recorded_function_runs_without_another_trace(key):
    traces = []

    def init(key, scale, shift):
        traces.append(1)
        return {"x": jnp.sort(scale * normal(key, (6,))), "y": [uniform(key, (3,)) + shift["a"]]}

    scales = np.linspace(0.5, 2.0, 4, dtype=np.float32)
    shift = {"a": np.float32(0.5)}
    want = oracle(init, 4, key, scales, shift, in_axes=(0, None))
    traces.clear()
    made = recorded(init, scales[0], shift)
    make = _ensemble.recorded_ensemble(made, 4, (0, None))
    leaves = scales, shift["a"]
    assert_same_bits(make(key, *leaves), want)
    assert_same_bits(make(jax.random.split(key, 4), *leaves), want)
    assert_same_bits(make.member(key, 2, *leaves), jax.tree.map(lambda x: x[2], want))
    assert_same_bits(make.members(key, [3, 1], *leaves), jax.tree.map(lambda x: x[[3, 1]], want))
    parts = list(make.stream(key, *leaves, chunk_size=3))
    assert_same_bits(jax.tree.map(lambda *x: jnp.concatenate(x), *parts), want)
    assert_same_bits(jax.jit(make)(key, *leaves), want)
    assert [output.path for output in make.plan(key, *leaves).outputs] == ["['x']", "['y'][0]"]
    assert_same_bits(oracle(made, 4, key, *leaves, in_axes=(0, None)), want)
    assert traces == [1]


def test_a_recorded_function_without_arguments(key):
    make = _ensemble.recorded_ensemble(recorded(arithmetic()), 3, ())
    assert_same_bits(make(key), oracle(arithmetic(), 3, key), ulps=1)


def test_two_recordings_share_a_program(key):
    _ensemble.recorded_ensemble(recorded(loop()), 3, ())(key)
    before = programs()
    _ensemble.recorded_ensemble(recorded(loop()), 3, ())(key)
    assert programs() == before


def test_a_recorded_function_refuses_other_types(key):
    make = _ensemble.recorded_ensemble(recorded(lambda key, x: x + normal(key), 1.0), 3, (None,))
    with pytest.raises(TypeError, match="was traced for arguments of types"):
        make(key, np.ones(2, np.float32))
    with pytest.raises(TypeError, match="was traced for arguments of types"):
        make(jax.random.key_data(key), 1.0)
