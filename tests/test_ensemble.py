"""The public object: calls, members, arguments, and every transformation around it."""

import doctest
import importlib
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import as_words, assert_same_bits, native_problem, oracle, split

normal, uniform = jax.random.normal, jax.random.uniform


def init(key):
    w, b = jax.random.split(key)
    return {"w": normal(w, (7, 2)), "b": uniform(b, (6,)), "step": jnp.zeros((), jnp.int32)}


def sweep(key, scale, shift):
    """An init with an argument for every member and one for all."""
    return scale * normal(key, (7,)) + shift


@pytest.fixture(scope="module")
def expected():
    return oracle(init, 9, jax.random.key(20))


@pytest.fixture
def make():
    return sb.ensemble(init, 9)


def some(cases):
    """The cases to run: a few on the reference backend, where each compiles the whole init."""
    return cases[::4] if native_problem() else cases


def take(tree, index):
    return jax.tree.map(lambda leaf: leaf[index], tree)


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


# --- transformations --------------------------------------------------------------------


def test_jit(make, key, expected):
    assert_same_bits(jax.jit(make)(key), expected)
    assert_same_bits(jax.jit(make)(split(key, 9)), expected)


def test_vmap_is_a_batch_of_ensembles(make, key):
    # Row 28.
    keys = jax.random.split(key, 4)
    want = jax.jit(jax.vmap(lambda key: jax.vmap(init)(split(key, 9))))(keys)
    assert_same_bits(jax.vmap(make)(keys), want)
    assert_same_bits(jax.jit(jax.vmap(make))(keys), want)
    assert_same_bits(jax.vmap(make, in_axes=0, out_axes=1)(keys)["b"], want["b"].swapaxes(0, 1))
    nested = jax.vmap(jax.vmap(make))(keys.reshape(2, 2))
    assert_same_bits(nested["w"].reshape(4, 9, 7, 2), want["w"])
    stacks = jax.vmap(lambda key: split(key, 9))(keys)
    assert_same_bits(jax.vmap(make)(stacks), want)
    assert_same_bits(jax.vmap(lambda key: make.member(key, 3))(keys), take(want, (slice(None), 3)))


def test_vmap_over_members(make, key, expected):
    assert_same_bits(jax.vmap(make.member, (None, 0))(key, jnp.arange(9)), expected)


def test_vmap_over_no_keys(make, key):
    # Row 28.
    got = jax.vmap(make)(jax.random.split(key, 0))
    assert {name: leaf.shape for name, leaf in got.items()} == {
        "w": (0, 9, 7, 2),
        "b": (0, 9, 6),
        "step": (0, 9),
    }


def test_vmap_over_arguments(key):
    make = sb.ensemble(sweep, 3)
    scales = jnp.linspace(0.5, 2.0, 4)
    got = jax.vmap(make, (None, 0, None))(key, scales, 0.25)
    both = jax.vmap(lambda scale: jax.vmap(sweep, (0, None, None))(split(key, 3), scale, 0.25))
    assert_same_bits(got, jax.jit(both)(scales), either=both(scales))


def test_scan(make, key):
    _, got = jax.lax.scan(lambda carry, key: (carry, make(key)["w"]), 0, jax.random.split(key, 3))
    want = [oracle(init, 9, one)["w"] for one in jax.random.split(key, 3)]
    assert_same_bits(got, jnp.stack(want))


def test_while_and_cond(make, key, expected):
    got = jax.lax.cond(True, make, lambda key: take(expected, slice(None)), key)
    assert_same_bits(got, expected)
    grown = jax.lax.fori_loop(0, 2, lambda i, total: total + make(key)["b"], jnp.zeros((9, 6)))
    assert_same_bits(grown, expected["b"] + expected["b"])


def test_eval_shape(make, key, expected):
    shapes = jax.eval_shape(make, key)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), expected
    )
    huge = jax.eval_shape(sb.ensemble(lambda key: normal(key, (2**20,)), 2**20), key)
    assert huge.shape == (2**20, 2**20)


def test_grad_of_what_follows(make, key, expected):
    # Row 27: the draws are constants of the gradient.
    x = jnp.linspace(0.0, 1.0, 14).reshape(7, 2)

    def loss(x, draws):
        return ((draws["w"] * x[None]) ** 2).sum()

    got = jax.grad(lambda x: loss(x, make(key)))(x)
    assert_same_bits(got, jax.grad(loss)(x, expected))
    compiled = jax.jit(jax.grad(lambda x: loss(x, make(key))))(x)
    np.testing.assert_allclose(compiled, got, rtol=1e-6)


def test_grad_through_an_argument(key):
    def total(make):
        return lambda scale: make(key, scale, 0.5).sum()

    make = sb.ensemble(sweep, 5)
    got = jax.grad(total(make))(2.0)
    want = jax.grad(total(lambda *args: oracle(sweep, 5, *args)))(2.0)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    forward = jax.jvp(lambda scale: make(key, scale, 0.5), (2.0,), (1.0,))[1]
    assert_same_bits(forward, oracle(lambda key: normal(key, (7,)), 5, key))
    assert jax.jacrev(lambda scale: make(key, scale, 0.5))(2.0).shape == (5, 7)


def test_grad_with_respect_to_a_key_is_refused_as_jax_does(make, key):
    with pytest.raises(TypeError):
        jax.grad(lambda key: make(key)["w"].sum())(key)


def test_checkpoint(key):
    make = sb.ensemble(sweep, 5)
    plain = jax.grad(lambda scale: jnp.sin(make(key, scale, 0.5)).sum())
    saved = jax.grad(jax.checkpoint(lambda scale: jnp.sin(make(key, scale, 0.5)).sum()))
    np.testing.assert_allclose(saved(2.0), plain(2.0), rtol=1e-6)


def test_custom_derivatives_inside_init_keep_their_meaning(key):
    @jax.custom_jvp
    def clipped(x):
        return jnp.clip(x, -1.0, 1.0)

    clipped.defjvp(lambda primals, tangents: (clipped(*primals), 10.0 * tangents[0]))

    def init(key, scale):
        return clipped(scale * normal(key, (6,)))

    make = sb.ensemble(init, 3)
    got = jax.jacfwd(lambda scale: make(key, scale))(0.1)
    want = jax.jacfwd(lambda scale: oracle(init, 3, key, scale))(0.1)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_sharding_of_the_result(make, key, expected):
    # Row 29: the numbers do not depend on where they are made.
    mesh = jax.make_mesh((4,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.NamedSharding(mesh, jax.P("members"))
    wide = sb.ensemble(init, 8)
    got = jax.jit(wide, out_shardings=spread)(key)
    assert all(leaf.sharding.is_equivalent_to(spread, leaf.ndim) for leaf in jax.tree.leaves(got))
    assert_same_bits(got, take(expected, slice(8)))
    keys = jax.device_put(split(key, 9)[:8], spread)
    assert_same_bits(jax.jit(wide)(keys), take(expected, slice(8)))


def test_shard_map(key, expected):
    mesh = jax.make_mesh((4,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    local = sb.ensemble(init, 2)
    spread = jax.shard_map(local, mesh=mesh, in_specs=jax.P("members"), out_specs=jax.P("members"))
    assert_same_bits(spread(split(key, 9)[:8]), take(expected, slice(8)))
    assert_same_bits(jax.jit(spread)(split(key, 9)[:8]), take(expected, slice(8)))


def test_results_follow_the_device_of_the_key(make, key, expected):
    # Row 29.
    device = jax.devices()[2]
    got = make(jax.device_put(key, device))
    assert {leaf.device for leaf in jax.tree.leaves((got["w"], got["b"]))} == {device}
    assert_same_bits(got, expected)


# --- settings of jax --------------------------------------------------------------------


def test_disable_jit(make, key, expected):
    # Row 31.
    with jax.disable_jit():
        got = make(key)
    assert_same_bits(got, expected, either=jax.vmap(init)(split(key, 9)))


def test_debug_nans(make, key, expected):
    # Row 31.
    with jax.debug_nans(True):
        assert_same_bits(make(key), expected)


def test_debug_key_reuse(key, expected):
    # Row 32.
    with jax.debug_key_reuse(True):
        assert_same_bits(sb.ensemble(init, 9)(jax.random.key(20)), expected)


def test_transfer_guard(make, key, expected):
    # Row 33: a warm call moves nothing that was not asked for.
    make(key)
    with jax.transfer_guard("disallow"):
        got = make(key)
    assert_same_bits(got, expected)


def test_strict_promotion(key, expected):
    # Row 34 (rank promotion is an error in all tests).
    with jax.numpy_dtype_promotion("strict"):
        assert_same_bits(sb.ensemble(init, 9)(key), expected)


def test_tracer_leak_check(key, expected):
    with jax.check_tracer_leaks():
        assert_same_bits(jax.jit(sb.ensemble(init, 9))(key), expected)


def test_x64_switched_between_calls(key):
    # Row 15: the default dtype belongs to the call, not to the ensemble.
    make = sb.ensemble(lambda key: uniform(key, (6,)), 3)
    narrow = make(key)
    with jax.enable_x64(True):
        wide = make(key)
        assert_same_bits(wide, oracle(make.init, 3, key))
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    assert_same_bits(make(key), narrow)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "philox4x32"])
def test_other_key_types_go_through_the_reference(impl):
    # Row 20.
    def init(key):
        return jax.random.bits(jax.random.fold_in(key, 1), (2,))

    try:
        key = jax.random.key(3, impl=impl)
    except ValueError:
        pytest.skip(reason=f"jax {jax.__version__} has no {impl}")
    make, want = sb.ensemble(init, 4), oracle(init, 4, key)
    assert_same_bits(make(key), want)
    assert_same_bits(make(split(key, 4)), want)
    # The hardware's generators draw for a whole batch; a member is still one of the whole.
    assert_same_bits(make.members(key, slice(1, 3)), want[1:3])
    assert_same_bits(make.members(key, [3, 0]), want[jnp.array([3, 0])])
    assert_same_bits(make.member(key, 2), want[2])
    assert_same_bits(jnp.concatenate([*make.stream(key, chunk_size=3)]), want)
    assert native_problem() or repr(impl) in make.plan(key).explain()


def test_non_partitionable_threefry_goes_through_the_reference(make, key, expected):
    # Row 30.
    with jax.threefry_partitionable(False):
        want = oracle(init, 9, key)
        assert_same_bits(make(key), want)
        assert_same_bits(make.member(key, 4), take(want, 4))
        assert_same_bits(make.members(key, [7, 2]), take(want, np.array([7, 2])))
        assert native_problem() or "jax_threefry_partitionable" in make.plan(key).explain()
    assert not np.array_equal(as_words(want["w"]), as_words(expected["w"]))
    assert_same_bits(make(key), expected)


def test_legacy_keys_of_another_default_type():
    with jax.default_prng_impl("rbg"):
        key = jax.random.PRNGKey(3)
        assert key.shape == (4,)
        assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


def test_side_effects_run_as_in_jax(key, capfd):
    def init(key):
        x = normal(key, (2,))
        jax.debug.callback(lambda x: None, x)
        return x

    make = sb.ensemble(init, 3)
    assert_same_bits(make(key), oracle(init, 3, key))
    assert native_problem() or "side effects" in make.plan(key).explain()


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
    for name in ("seedbed", "seedbed._ensemble"):
        results = doctest.testmod(importlib.import_module(name))
        assert not results.failed
    assert results.attempted >= 5


def test_repr(make):
    assert repr(make) == "ensemble(init, 9)"
    assert repr(sb.ensemble(sweep, 3, in_axes=(0, None))) == "ensemble(sweep, 3, in_axes=(0, None))"
