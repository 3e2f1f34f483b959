"""The public object: calls, members, arguments, what init may do, compilation."""

import doctest
import importlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle, some, split, take
from models import small as init
from models import sweep

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

normal, uniform = jax.random.normal, jax.random.uniform


# --- calls ------------------------------------------------------------------------------


def test_call_equals_vmap(make, key, expected):
    assert_same_bits(make(key), expected)


def test_a_stack_of_keys_is_used_as_it_is(make, key, expected):
    assert_same_bits(make(split(key, 9)), expected)
    words = jax.random.key_data(split(key, 9))
    assert_same_bits(make(words), expected)
    assert_same_bits(make(np.asarray(words)), expected)


def test_legacy_keys_give_the_same_numbers(make, key, expected):
    assert_same_bits(make(jax.random.key_data(key)), expected)
    assert_same_bits(make(np.asarray(jax.random.key_data(key))), expected)


def test_one_member_is_still_an_ensemble(key):
    # Row 12: a scalar of one member is an array of length one.
    got = sb.ensemble(lambda key: uniform(key), 1)(key)
    assert_same_bits(got, oracle(lambda key: uniform(key), 1, key))
    assert got.shape == (1,)


@pytest.mark.parametrize("i", some([0, 4, 8, -1, -9, np.int64(3), np.uint8(2)]))
def test_member(make, key, expected, i):
    assert_same_bits(make.member(key, i), take(expected, int(i)))
    assert_same_bits(make.member(split(key, 9), i), take(expected, int(i)))


def test_member_with_an_index_of_jax(make, key, expected):
    assert_same_bits(make.member(key, jnp.asarray(5)), take(expected, 5))
    traced = jax.jit(make.member)
    for i in (0, 8):
        assert_same_bits(traced(key, i), take(expected, i))
        assert_same_bits(traced(split(key, 9), i), take(expected, i))


SLICES = [
    slice(None),
    slice(2, 5),
    slice(-3, None),
    slice(None, None, 2),
    slice(None, None, -1),
    slice(7, 1, -3),
    slice(5, 5),
    slice(3, 1),
    slice(20, 30),
    slice(-100, 100),
]


@pytest.mark.parametrize("index", some(SLICES), ids=str)
def test_members_by_slice(make, key, expected, index):
    assert_same_bits(make.members(key, index), take(expected, index))
    assert_same_bits(make.members(split(key, 9), index), take(expected, index))


LISTS = [[0], [8, 0, 3, 3], [-1, 2], [], (4, 5), range(1, 9, 3), np.array([2, 7], np.uint8)]


@pytest.mark.parametrize("index", some(LISTS), ids=str)
def test_members_by_list(make, key, expected, index):
    chosen = take(expected, np.asarray(index, np.int64))
    assert_same_bits(make.members(key, index), chosen)
    assert_same_bits(make.members(split(key, 9), index), chosen)


def test_members_with_a_traced_index(make, key, expected):
    got = jax.jit(make.members)(key, jnp.array([8, 1, 1]))
    assert_same_bits(got, take(expected, np.array([8, 1, 1])))


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64", "uint8", "uint32"])
def test_traced_indices_count_from_the_end_too(key, dtype):
    def init(key, scale):
        return scale * uniform(key, (3,), np.float32)

    make, scale = sb.ensemble(init, 200, in_axes=0), np.linspace(0.5, 2.0, 200, dtype=np.float32)
    index = np.array([3, 0, 127, *(() if dtype[0] == "u" else (-1, -128))], dtype)
    for keys in (key, split(key, 200)):
        # (Of 200 members: 8 bits with a sign hold the indices, but not the size.)
        expected = take(make(keys, scale), index.astype(np.int64))
        with jax.enable_x64(dtype == "int64"):
            assert_same_bits(jax.jit(make.members)(keys, index, scale), expected)
            assert_same_bits(jax.jit(make.member)(keys, index[-1], scale), expected[-1])
    rest = jax.jit(jax.vmap(make.member, (None, 0, None)))(key, index, scale)
    assert_same_bits(rest, expected)


@pytest.mark.parametrize("chunk", some([2, 1, 4, 9, 100]))
def test_stream(make, key, expected, chunk):
    parts = list(make.stream(key, chunk_size=chunk))
    assert [part["b"].shape[0] for part in parts[:-1]] == [chunk] * (len(parts) - 1)
    assert_same_bits(jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts), expected)


def test_a_member_does_not_depend_on_the_size(make, key, expected):
    for size in (3, 40):
        bigger = sb.ensemble(init, size)(key)
        assert_same_bits(take(bigger, slice(3)), take(expected, slice(3)))


# --- arguments --------------------------------------------------------------------------

SCALES = np.linspace(0.5, 2.0, 9, dtype=np.float32)


@pytest.mark.parametrize(
    ("in_axes", "scale", "shift"),
    [
        (None, 0.5, 1.5),
        ((None, None), np.float32(0.5), jnp.float32(1.5)),
        (0, SCALES, SCALES[::-1].copy()),
        ((0, None), SCALES, 1.5),
        ([0, None], SCALES, 1.5),
        ((1, -1), np.tile(SCALES, (7, 1)), np.tile(SCALES, (7, 1))),
        ((None, 0), jnp.float32(2.0), jnp.asarray(SCALES)),
    ],
    ids=str,
)
def test_arguments_are_broadcast_or_mapped(key, in_axes, scale, shift):
    make = sb.ensemble(sweep, 9, in_axes=in_axes)
    axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    want = oracle(sweep, 9, key, scale, shift, in_axes=axes)
    assert_same_bits(make(key, scale, shift), want)
    assert_same_bits(make.member(key, 3, scale, shift), want[3])
    assert_same_bits(make.members(key, [5, 1], scale, shift), want[np.array([5, 1])])
    assert_same_bits(make.members(key, slice(2, 4), scale, shift), want[2:4])


def test_arguments_may_be_trees(key):
    def init(key, options, shift):
        return options["scale"] * normal(key, (6,)) + options["bias"][0] + shift

    options = {"scale": SCALES, "bias": [np.float32(0.5)]}
    axes = ({"scale": 0, "bias": None}, None)
    make = sb.ensemble(init, 9, in_axes=axes)
    assert_same_bits(make(key, options, 1.0), oracle(init, 9, key, options, 1.0, in_axes=axes))


def test_arguments_change_without_a_new_trace(key):
    traces = []

    def init(key, scale):
        traces.append(1)
        return scale * normal(key, (6,))

    make = sb.ensemble(init, 3)
    for scale in (0.5, 2.0):
        assert_same_bits(make(key, scale), oracle(lambda k, s: s * normal(k, (6,)), 3, key, scale))
    assert len(traces) == 1


def test_typed_keys_as_arguments_and_results(key):
    def init(key, other):
        return {"next": jax.random.fold_in(key, 1), "mixed": normal(other, (6,)), "other": other}

    other = jax.random.key(5)
    assert_same_bits(sb.ensemble(init, 3)(key, other), oracle(init, 3, key, other))
    others = jax.random.split(other, 3)
    make = sb.ensemble(init, 3, in_axes=0)
    assert_same_bits(make(key, others), oracle(init, 3, key, others, in_axes=(0,)))


# --- what init may do -------------------------------------------------------------------


def test_init_runs_once(key):
    runs = []

    def init(key):
        runs.append(isinstance(key, jax.core.Tracer))
        return normal(key, (6,))

    make = sb.ensemble(init, 5)
    make(key), make.member(key, 1), make.members(key, [1]), make.plan(key), make(jax.random.key(1))
    assert runs == [True]


def test_init_may_close_over_arrays(key):
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    large = jnp.linspace(0.0, 1.0, 5000)
    indices = jnp.array([3, 0])

    def init(key):
        w = normal(key, (6, 2))
        return w + table, w[indices], large, jax.random.split(key, 4)[indices], large.sum() * w

    got, want = sb.ensemble(init, 3)(key), oracle(init, 3, key)
    assert_same_bits(got[:4], want[:4])
    assert_same_bits(got, want, ulps=4)  # a sum of 5,000 numbers has more than one order


def test_init_may_close_over_traced_values(key):
    @jax.jit
    def outer(key, scale, offset):
        make = sb.ensemble(lambda key: scale * normal(key, (6,)), 3)
        again = sb.ensemble(lambda key: normal(offset, (6,)) + uniform(key, (6,)), 3)
        return make(key), make.member(key, 1), again(key)

    @jax.jit
    def direct(key, scale, offset):
        keys = jax.random.split(key, 3)
        first = jax.vmap(lambda key: scale * normal(key, (6,)))(keys)
        return (
            first,
            first[1],
            jax.vmap(lambda key: normal(offset, (6,)) + uniform(key, (6,)))(keys),
        )

    for scale in (0.5, 3.0):
        args = key, scale, jax.random.key(9)
        assert_same_bits(outer(*args), direct(*args))


def test_an_ensemble_is_not_spoilt_by_a_trace_it_was_used_in(key):
    make = sb.ensemble(lambda key: normal(key, (6,)), 3)
    inside = jax.jit(make)(key)
    assert_same_bits(make(key), inside)
    assert_same_bits(jax.jit(lambda key: make(key))(key), inside)


def test_constants_and_nothing(key):
    def init(key):
        return {
            "zeros": jnp.zeros((3, 2)),
            "half": jnp.full((2,), 0.5, jnp.bfloat16),
            "number": 3.5,
            "count": 7,
            "flag": True,
            "array": np.arange(4, dtype=np.int8),
            "scalar": np.float32(2.5),
            "none": None,
            "empty": {},
            "shape": jnp.asarray(key.shape, jnp.int32),
        }

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key))


def test_dtypes_and_weak_types(key):
    def init(key):
        x = normal(key, ())
        return {
            "strong": x,
            "weak": jnp.asarray(2.0) * 1,
            "python": 1.0,
            "integer": jax.random.randint(key, (), 0, 9),
            "narrow": x.astype(jnp.float16),
            "bool": x > 0,
            "complex": jax.lax.complex(x, x),
            "where": jnp.where(x > 0, 1.0, 2.0),
        }

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key), weak=True)


def test_float64_without_x64_warns_as_jax_does(key):
    # Row 14.
    def init(key):
        return normal(key, (6,), jnp.float64)

    with pytest.warns(UserWarning, match="float64"):
        got = sb.ensemble(init, 3)(key)
    with pytest.warns(UserWarning, match="float64"):
        want = oracle(init, 3, key)
    assert got.dtype == np.float32
    assert_same_bits(got, want)


def test_no_random_numbers_at_all(key):
    assert_same_bits(
        sb.ensemble(lambda key: jnp.ones(3), 4)(key), oracle(lambda key: jnp.ones(3), 4, key)
    )


# --- compilation and threads ------------------------------------------------------------


class Compilations:
    """Counts what XLA compiles while the block runs."""

    def __enter__(self):
        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def __exit__(self, *_):
        jax.monitoring.unregister_event_duration_listener(self._hear)

    def _hear(self, event, duration, **_):
        self.count += event == "/jax/core/compile/backend_compile_duration"


def test_compiled_once_per_plan_and_size(native, key):
    def fresh(key):
        return uniform(key, (11,), minval=-0.123)

    with Compilations() as compilations:
        make = sb.ensemble(fresh, 3)
        make(key)
        assert compilations.count == 1
        make(jax.random.key(1)), make(jax.random.key(2))
        assert compilations.count == 1
        # Another ensemble of an equal plan shares the program.
        sb.ensemble(lambda key: uniform(key, (11,), minval=-0.123), 3)(key)
        assert compilations.count == 1
        # Members of one kind share theirs, whichever they are.
        make.members(key, [0, 2]), make.members(key, [1, 1])
        make.member(key, 0), make.member(key, 2)
        assert compilations.count == 3
        sb.ensemble(fresh, 4)(key)
        assert compilations.count == 4


def test_threads_may_call_at_once(key):
    # Row 46.
    make, failures = sb.ensemble(init, 9), []
    want = [oracle(init, 9, jax.random.key(seed)) for seed in range(4)]
    barrier = threading.Barrier(8)

    def work(seed):
        try:
            barrier.wait()
            for _ in range(5):
                assert_same_bits(make(jax.random.key(seed)), want[seed])
                sb.ensemble(init, 9).plan(key)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number % 4,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_examples_in_the_documentation():
    for name in ("seedbed", "seedbed._ensemble.lazy", "seedbed._ensemble.ensemble"):
        results = doctest.testmod(importlib.import_module(name))
        assert not results.failed
    assert results.attempted >= 5


def test_repr(make):
    assert repr(make) == "ensemble(small, 9)"
    assert repr(sb.ensemble(sweep, 3, in_axes=(0, None))) == "ensemble(sweep, 3, in_axes=(0, None))"
