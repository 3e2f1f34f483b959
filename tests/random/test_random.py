"""The ambient stream: its keys, where it is seen, its seeds, and what jax traces."""

import contextvars
import doctest
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

import seedbed as sb
from helpers import run_python
from seedbed.random import Stream
from streams import nth, plain, words

pytestmark = pytest.mark.usefixtures("seeded")


# --- keys and nesting -------------------------------------------------------------------


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_the_nth_key(impl):
    key = jax.random.key(7, impl=impl)
    with sb.random.stream(key):
        got = [sb.random.next_key() for _ in range(4)]
    assert [words(one) for one in got] == [nth(key, number) for number in range(4)]
    assert all(one.dtype == key.dtype and one.shape == () for one in got)


def test_legacy_keys():
    key = jax.random.PRNGKey(7)
    for given in (key, np.asarray(key)):
        with sb.random.stream(given):
            got = sb.random.next_key()
        assert got.dtype == np.uint32 and words(got) == nth(key, 0)


def test_a_key_of_numpy_is_copied():
    raw = np.array([1, 2], np.uint32)
    made = sb.random.stream(raw)
    raw[:] = 0
    assert words(made.next_key()) == nth(jnp.array([1, 2], np.uint32), 0)


def test_seed_is_the_key_of_jax():
    sb.random.seed(5)
    assert words(sb.random.next_key()) == nth(jax.random.key(5), 0)
    for key in (jax.random.key(6), jax.random.PRNGKey(6), np.array([0, 6], np.uint32)):
        sb.random.seed(key)
        assert words(sb.random.next_key()) == nth(jax.random.key(6), 0)


def test_streams_nest_and_are_restored():
    a, b = jax.random.key(1), jax.random.key(2)
    with sb.random.stream(a) as outer:
        assert isinstance(outer, Stream) and words(outer.key) == words(a)
        sb.random.next_key()
        with pytest.raises(KeyError), sb.random.stream(b):
            assert words(sb.random.next_key()) == nth(b, 0)
            raise KeyError
        assert words(sb.random.next_key()) == nth(a, 1)
        assert outer.count == 2
    assert words(sb.random.next_key()) == nth(jax.random.key(11), 0)


def test_a_stream_can_be_opened_again():
    key = jax.random.key(1)
    made = sb.random.stream(key)
    with made, made:
        sb.random.next_key()
    with made:
        assert words(sb.random.next_key()) == nth(key, 1)
    assert sb.random.get_state().count == 0
    assert repr(made).startswith("Stream(Array(") and repr(made).endswith("count=2)")


def test_seed_leaves_an_open_stream_alone():
    with sb.random.stream(jax.random.key(1)):
        sb.random.seed(3)
        assert words(sb.random.next_key()) == nth(jax.random.key(1), 0)
    assert words(sb.random.next_key()) == nth(jax.random.key(3), 0)


def test_a_stream_is_seen_in_its_own_context_only():
    seen = []
    with sb.random.stream(jax.random.key(1)):
        thread = threading.Thread(
            target=contextvars.Context().run,
            args=(lambda: seen.append(words(sb.random.next_key())),),
        )
        thread.start()
        thread.join()
        assert words(sb.random.next_key()) == nth(jax.random.key(1), 0)
    assert seen == [nth(jax.random.key(11), 0)]


def test_blocks_left_out_of_order_leave_no_stream_behind():
    def hold(key):
        with sb.random.stream(key):
            yield

    first = hold(jax.random.key(1))
    next(first)
    with sb.random.stream(jax.random.key(2)):
        next(first, None)
    assert words(sb.random.next_key()) == nth(jax.random.key(11), 0)


def test_other_sources_of_keys():
    class Node:
        def next_key(self):
            return "a key"

    with sb.random._using(Node()):
        assert sb.random.next_key() == "a key"
        sb.random._spend(lambda key: [] if key == "a key" else pytest.fail(str(key)))
        for call in (sb.random.get_state, lambda: sb.random.set_state(None)):
            with pytest.raises(RuntimeError, match="keys come from the module's node"):
                call()
    with pytest.raises(KeyError), sb.random._using(Node()):
        raise KeyError
    assert words(sb.random.next_key()) == nth(jax.random.key(11), 0)


_UNSEEDED = """
    import jax, seedbed as sb
    key = jax.jit(lambda key: jax.random.fold_in(key, 1))(sb.random.next_key())
    print(*jax.random.key_data(key), *sb.random.get_state().key_data)
"""


def test_without_a_seed_the_operating_system_gives_one():
    outs = {run_python(_UNSEEDED) for _ in range(2)}
    assert len(outs) == 2 and all(len(out.split()) == 4 for out in outs)


def test_the_unseeded_stream_may_be_made_while_jax_traces(monkeypatch):
    monkeypatch.setattr(sb.random._process, "stream", None)
    with pytest.raises(RuntimeError, match="made outside of the function"):
        jax.jit(sb.random.next_key)()
    assert sb.random.next_key().shape == ()


# --- arguments --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "error", "message"),
    [
        (0, TypeError, "`key` must be one key .* got 0 of type int"),
        (None, TypeError, "got None of type NoneType"),
        ([0, 1], TypeError, "of type list"),
        (np.zeros(2, np.int32), TypeError, "dtype int32 and shape .2,., and raw key words"),
        (np.zeros(3, np.uint32), TypeError, "shape .3,., and raw key words are uint32 .* of 2"),
        (np.uint32(3), TypeError, "`key` must be one key"),
        (np.array(3, np.uint32), TypeError, "raw key words"),
        (jnp.zeros(2), TypeError, "dtype float32"),
        (np.zeros((4, 2), np.uint32), ValueError, r"got keys of shape \(4,\)"),
    ],
)
def test_what_is_not_a_key(key, error, message):
    with pytest.raises(error, match=message):
        sb.random.stream(key)


def test_several_keys_are_refused():
    keys = jax.random.split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match=r"`key` must be one key .* got keys of shape \(3,\)"):
        sb.random.stream(keys)
    with pytest.raises(ValueError, match=r"`n` must be one key .* got keys of shape \(3,\)"):
        sb.random.seed(keys)


@pytest.mark.parametrize(
    ("n", "error", "message"),
    [
        (True, TypeError, "`n` must be an integer or a key; got True of type bool"),
        (np.True_, TypeError, "`n` must be an integer or a key"),
        (np.array(True), TypeError, "`n` must be an integer or a key"),
        (1.0, TypeError, "got 1.0 of type float"),
        ("1", TypeError, "got '1' of type str"),
        (None, TypeError, "got None of type NoneType"),
        (np.zeros(2), TypeError, "`n` must be one key"),
        (np.array([3]), TypeError, "`n` must be one key"),
        (2**63, OverflowError, r"below 2\*\*63.*got 9223372036854775808"),
        (-(2**63) - 1, OverflowError, r"at least -2\*\*63"),
    ],
)
def test_bad_seeds_change_nothing(n, error, message):
    before = plain(sb.random.get_state())
    with pytest.raises(error, match=message):
        sb.random.seed(n)
    assert plain(sb.random.get_state()) == before


@pytest.mark.parametrize("n", [0, -1, 2**32 - 1, -(2**31), np.int64(3), np.array(4), jnp.int32(5)])
def test_good_seeds(n):
    sb.random.seed(n)
    assert words(sb.random.next_key()) == nth(jax.random.key(n), 0)


@pytest.mark.parametrize("n", [2**32, 2**32 + 5, 2**63 - 1, -(2**31) - 1, -(2**63)])
def test_seeds_above_32_bits(n):
    with jax.enable_x64(False):
        with pytest.warns(UserWarning, match=f"`n` is {n}, .* this is the seed {n % 2**32}") as log:
            sb.random.seed(n)
        assert log[0].filename == __file__
        assert words(sb.random.next_key()) == nth(jax.random.key(n % 2**32), 0)
    with jax.enable_x64(True):
        sb.random.seed(n)
        assert words(sb.random.next_key()) == nth(jax.random.key(n), 0)


def test_a_warning_made_an_error_changes_nothing():
    before = plain(sb.random.get_state())
    with jax.enable_x64(False), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="low 32 bits"):
            sb.random.seed(2**32)
    assert plain(sb.random.get_state()) == before


def test_traced_seeds_are_refused():
    with pytest.raises(TypeError, match="`n` must not be a key that is being traced"):
        jax.jit(sb.random.seed)(jax.random.key(0))
    with pytest.raises(TypeError, match="`n` must be an integer or a key"):
        jax.jit(sb.random.seed)(3)
    jax.jit(lambda: sb.random.seed(4))()
    assert words(sb.random.next_key()) == nth(jax.random.key(4), 0)


# --- traces -----------------------------------------------------------------------------


def in_shard_map(function):
    mesh = jax.make_mesh((2,), ("members",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("members")
    return jax.shard_map(function, mesh=mesh, in_specs=spec, out_specs=spec)


TRACES = {
    "jit": lambda f: jax.jit(f)(jnp.arange(4.0)),
    "eval_shape": lambda f: jax.eval_shape(f, jnp.arange(4.0)),
    "vmap": lambda f: jax.vmap(f)(jnp.arange(4.0)),
    "grad": lambda f: jax.grad(lambda x: f(x).sum())(jnp.arange(4.0)),
    "jvp": lambda f: jax.jvp(f, (jnp.arange(4.0),), (jnp.arange(4.0),)),
    "scan": lambda f: jax.lax.scan(lambda c, x: (c, f(x)), 0, jnp.arange(4.0)),
    "cond": lambda f: jax.lax.cond(True, f, f, jnp.arange(4.0)),
    "checkpoint": lambda f: jax.checkpoint(f)(jnp.arange(4.0)),
    "shard_map": lambda f: in_shard_map(f)(jnp.arange(4.0)),
    "jit of vmap": lambda f: jax.jit(jax.vmap(f))(jnp.arange(4.0)),
}


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_a_stream_of_outside_is_refused_while_jax_traces(trace):
    message = (
        "made outside of the function that jax is tracing .* its key would be a constant of the "
        r"compiled program.* `with seedbed.random.stream\(key\):`"
    )

    def ambient(x):
        return x + jax.random.normal(sb.random.next_key())

    def reserved(x):
        got = []
        sb.random._spend(lambda key: got.append(x + jax.random.normal(key)) or [])
        return got[0]

    before = plain(sb.random.get_state())
    for function in (ambient, reserved):
        with pytest.raises(RuntimeError, match=message):
            trace(function)
        with sb.random.stream(jax.random.key(1)), pytest.raises(RuntimeError, match=message):
            trace(function)
    assert plain(sb.random.get_state()) == before


@pytest.mark.parametrize("trace", TRACES.values(), ids=TRACES)
def test_a_stream_of_inside_is_good(trace):
    def noisy(x):
        with sb.random.stream(jax.random.key(1)) as made:
            sb.random.next_key()
            y = x + jax.random.normal(sb.random.next_key())
            assert made.count == 2
        return y

    def plain_noise(x):
        return x + jax.random.normal(jax.random.fold_in(jax.random.key(1), 1))

    got, want = trace(noisy), trace(plain_noise)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a, b), *map(concrete, (got, want)))


def concrete(tree):
    return jax.tree.map(lambda x: np.zeros(x.shape) if hasattr(x, "update") else x, tree)


def test_traced_keys():
    def noisy(key):
        with sb.random.stream(key):
            sb.random.next_key()
            return jax.random.normal(sb.random.next_key())

    def want(key):
        return jax.random.normal(jax.random.fold_in(key, 1))

    keys = jax.random.split(jax.random.key(0), 3)
    assert jax.jit(noisy)(keys[0]) == jax.jit(want)(keys[0])
    for change in (jax.vmap, lambda f: jax.jit(jax.vmap(f)), lambda f: lambda k: jax.lax.map(f, k)):
        np.testing.assert_array_equal(change(noisy)(keys), change(want)(keys))
    grads = jax.grad(lambda x, key: x * noisy(key))(2.0, keys[1])
    assert grads == want(keys[1])
    assert jax.eval_shape(noisy, keys[0]).shape == ()


def test_a_stream_does_not_reach_into_an_inner_trace():
    @jax.jit
    def outer(key, x):
        with sb.random.stream(key):
            sb.random.next_key()
            return jax.vmap(lambda x: x + jax.random.normal(sb.random.next_key()))(x)

    with pytest.raises(RuntimeError, match="constant of the compiled program"):
        outer(jax.random.key(0), jnp.arange(3.0))


def test_a_stream_that_outlived_its_trace():
    kept = []

    @jax.jit
    def leak(key):
        kept.append(sb.random.stream(key))
        return key

    leak(jax.random.key(0))
    for call in (kept[0].next_key, jax.jit(kept[0].next_key)):
        with pytest.raises(RuntimeError, match="made outside of the function"):
            call()


def test_eager_modes_are_the_top_level():
    with jax.ensure_compile_time_eval():
        first = sb.random.next_key()
    with jax.debug_nans(True):
        second = sb.random.next_key()
    with jax.disable_jit():
        third = jax.jit(lambda x: sb.random.next_key())(0)
        fourth = jax.lax.scan(lambda c, x: (c, sb.random.next_key()), 0, jnp.arange(1))[1][0]
    got = [words(key) for key in (first, second, third, fourth)]
    assert got == [nth(jax.random.key(11), number) for number in range(4)]


def test_compile_time_evaluation_inside_of_a_trace_is_still_a_constant():
    def constant(x):
        with jax.ensure_compile_time_eval():
            return x + jax.random.normal(sb.random.next_key())

    with pytest.raises(RuntimeError, match="constant of the compiled program"):
        jax.jit(constant)(1.0)


def test_guards_of_jax():
    want = [nth(jax.random.key(11), number) for number in range(3)]
    with jax.transfer_guard("disallow"):
        first = sb.random.next_key()
    with jax.debug_key_reuse(True):
        rest = [sb.random.next_key(), sb.random.next_key()]
    assert [words(key) for key in (first, *rest)] == want


def test_examples_in_the_documentation():
    results = doctest.testmod(sb.random)
    assert not results.failed and results.attempted >= 12
