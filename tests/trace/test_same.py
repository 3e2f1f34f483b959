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
from helpers import assert_same_bits, oracle, programs
from seedbed._trace import fingerprint

pytestmark = pytest.mark.shared

normal, uniform = jax.random.normal, jax.random.uniform


def jaxpr(f, *args):
    return jax.make_jaxpr(f)(*(args or (jax.random.key(0),)))


def token(f, *args):
    return fingerprint.token(jaxpr(f, *args))


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
    assert fingerprint.token(first) == fingerprint.token(again)
    assert hash(fingerprint.token(first)) == hash(fingerprint.token(again))


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
    return fingerprint._Walk().freeze(value)


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

        def direct(scale, f=factor):
            return oracle(init(f), 2, key, scale).sum()

        np.testing.assert_allclose(jax.grad(total)(1.0), jax.grad(direct)(1.0), rtol=1e-6)


# --- depth and sharing --------------------------------------------------------------------


def nested(depth):
    """A chain of jitted functions that jax itself could not trace so deep."""
    inner = jaxpr(jnp.sort, jnp.ones(3))
    for _ in range(depth):
        level = jaxpr(jax.jit(lambda x: jnp.sort(x)), jnp.ones(3)).jaxpr
        (call,) = level.eqns
        inner = level.replace(eqns=[call.replace(params={**call.params, "jaxpr": inner})])
    return inner


def test_deep_nesting():
    one, two, other = (fingerprint.token(nested(depth)) for depth in (700, 700, 699))
    assert one == two and hash(one) == hash(two) and one != other


def test_sharing_of_nested_programs_makes_no_difference():
    shared = jax.jit(lambda x: jnp.sort(x))
    assert token(lambda x: shared(shared(x)), jnp.ones(3)) == token(
        lambda x: jax.jit(lambda x: jnp.sort(x))(jax.jit(lambda x: jnp.sort(x))(x)), jnp.ones(3)
    )
