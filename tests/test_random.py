"""The ambient stream: its keys, transactions, threads, traces and state."""

import contextlib
import contextvars
import doctest
import gc
import pickle
import threading
import warnings
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from jax.sharding import PartitionSpec

import seedbed as sb
from helpers import run_python
from seedbed import _compat
from seedbed.random import Stream, StreamState


@pytest.fixture(autouse=True)
def seeded():
    sb.random.seed(11)


def words(key):
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return tuple(int(word) for word in np.asarray(key).ravel())


def nth(key, number):
    return words(jax.random.fold_in(key, number))


def plain(state):
    return (*map(int, state.key_data), state.impl, state.count)


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
        with sb.random._reserve() as key:
            assert key == "a key"
        for call in (sb.random.get_state, lambda: sb.random.set_state(state())):
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
    monkeypatch.setattr(sb.random, "_process", None)
    with pytest.raises(RuntimeError, match="made outside of the function"):
        jax.jit(sb.random.next_key)()
    assert sb.random.next_key().shape == ()


def test_running_out_of_keys():
    sb.random.set_state(StreamState(np.zeros(2, np.uint32), "threefry2x32", 2**32 - 1))
    sb.random.next_key()
    for _ in range(2):
        with pytest.raises(OverflowError, match=r"all 2\*\*32 keys .* were handed out"):
            sb.random.next_key()
    assert sb.random.get_state().count == 2**32


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


# --- transactions -----------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_failed_call_leaves_the_stream_as_it_was(error):
    sb.random.next_key()
    before = plain(sb.random.get_state())
    with pytest.raises(error), sb.random._reserve() as key:
        assert words(key) == nth(jax.random.key(11), 1)
        raise error
    assert plain(sb.random.get_state()) == before
    with sb.random._reserve() as again:
        assert words(again) == words(key)
    assert sb.random.get_state().count == 2


def test_nested_reservations_that_fail():
    with pytest.raises(ValueError), sb.random._reserve():
        with contextlib.suppress(KeyError), sb.random._reserve():
            raise KeyError
        assert sb.random.get_state().count == 1
        raise ValueError
    assert sb.random.get_state().count == 0


def test_a_key_used_inside_of_a_failed_call_is_not_handed_out_again():
    with pytest.raises(ValueError), sb.random._reserve() as outer:
        inner = sb.random.next_key()
        raise ValueError
    assert sb.random.get_state().count == 2
    assert words(sb.random.next_key()) == words(outer)
    assert words(sb.random.next_key()) == nth(jax.random.key(11), 2) != words(inner)


def test_a_key_that_cannot_be_made_is_not_counted():
    key = jax.random.key(0)
    made = sb.random.stream(key)
    key.delete()
    with pytest.raises(RuntimeError, match="deleted"):
        made.next_key()
    assert made.count == 0


def test_a_ticket_of_before_set_state_is_void():
    with pytest.raises(ValueError), sb.random._reserve():
        sb.random.set_state(state(count=0))
        raise ValueError
    got = [words(sb.random.next_key()) for _ in range(3)]
    assert len(set(got)) == 3 and sb.random.get_state().count == 3


class Tickets(RuleBasedStateMachine):
    """A stream beside a model of it: the set of the numbers that are in use."""

    out = Bundle("out")

    def __init__(self):
        super().__init__()
        self.stream = sb.random.stream(jax.random.key(3))
        self.used = set()

    @rule(target=out)
    def take(self):
        ticket, key = self.stream._take()
        smallest = next(n for n in range(len(self.used) + 1) if n not in self.used)
        assert ticket.number == smallest and words(key) == nth(self.stream.key, smallest)
        self.used.add(smallest)
        return ticket

    @rule(ticket=consumes(out))
    def give_back(self, ticket):
        self.stream._give_back(ticket)
        self.used.remove(ticket.number)

    @rule(ticket=consumes(out))
    def keep(self, ticket):
        assert ticket.number in self.used

    @invariant()
    def the_count_is_after_the_last_key_in_use(self):
        assert self.stream.count == max(self.used, default=-1) + 1


TestTickets = Tickets.TestCase


@pytest.mark.parametrize("fails", [False, True])
def test_threads_get_no_key_twice(fails):
    numbers, failures, start = [], [], threading.Barrier(8)
    made = sb.random._innermost()

    def work(which):
        try:
            start.wait()
            mine = []
            for turn in range(2_000):
                ticket, _ = made._take()
                if fails and (turn + which) % 3 == 0:
                    made._give_back(ticket)
                else:
                    mine.append(ticket.number)
            numbers.extend(mine)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(numbers) == len(set(numbers))
    assert len(numbers) == (10_667 if fails else 16_000)
    # What was given back is handed out before anything new.
    missing = sorted(set(range(made.count)) - set(numbers))
    assert [made._take()[0].number for _ in missing] == missing
    assert made._take()[0].number == max(*numbers, *missing) + 1


def test_threads_get_keys_of_the_stream():
    got, failures = [], []

    def work():
        try:
            got.extend([words(sb.random.next_key()) for _ in range(50)])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    want = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(11), jnp.arange(400))
    assert sorted(got) == sorted(map(words, want))


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
        with sb.random._reserve() as key:
            return x + jax.random.normal(key)

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


def test_the_state_of_a_trace_is_compared_and_keeps_nothing_alive():
    states, traces = [_compat.trace_state()], []

    def record(x):
        states.append(_compat.trace_state())
        assert states[-1] == _compat.trace_state() != states[0]
        assert _compat.top_trace_state() == states[0]
        traces.append(weakref.ref(_compat.trace_of(x)))
        return x

    jax.jit(record)(0.0)
    jax.jit(lambda x: record(x) + 1)(0.0)
    gc.collect()
    assert [trace() for trace in traces] == [None, None]
    assert states[1] != states[2] and states[0] == _compat.trace_state()


# --- states -----------------------------------------------------------------------------


def state(key_data=(3, 4), impl="threefry2x32", count=2):
    return StreamState(np.array(key_data, np.uint32), impl, count)


@pytest.mark.parametrize(
    "key",
    [jax.random.key(1), jax.random.key(1, impl="rbg"), jax.random.PRNGKey(1)],
    ids=["threefry", "rbg", "legacy"],
)
def test_states_round_trip(key):
    with sb.random.stream(key):
        sb.random.next_key()
        saved = pickle.loads(pickle.dumps(sb.random.get_state()))
        want = [sb.random.next_key() for _ in range(2)]
    assert isinstance(saved, StreamState) and saved.count == 1
    assert saved.key_data.dtype == np.uint32 and saved.key_data.flags.writeable
    sb.random.set_state(saved)
    got = [sb.random.next_key() for _ in range(2)]
    assert [words(one) for one in got] == [words(one) for one in want]
    assert got[0].dtype == want[0].dtype


def test_a_state_is_of_the_innermost_stream():
    with sb.random.stream(jax.random.key(1)) as inner:
        sb.random.set_state(state())
        assert inner.count == 2 and plain(sb.random.get_state()) == plain(state())
    assert plain(sb.random.get_state()) == (0, 11, "threefry2x32", 0)


def test_set_state_forgets_what_was_given_back():
    made = sb.random._innermost()
    tickets = [made._take()[0] for _ in range(3)]
    made._give_back(tickets[0])
    sb.random.set_state(state(count=7))
    assert made._take()[0].number == 7


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (((3, 4), "threefry2x32", 2), TypeError, "`s` must be a StreamState .* got tuple"),
        (None, TypeError, "`s` must be a StreamState .* got NoneType"),
        (state()._replace(key_data=[3, 4]), TypeError, "`s.key_data` must be a uint32 array"),
        (state()._replace(key_data=np.zeros(2)), TypeError, "`s.key_data` must be a uint32 array"),
        (state()._replace(impl=3), TypeError, "`s.impl` must be the name .* got 3"),
        (state()._replace(count="2"), TypeError, "`s.count` must be an integer; got '2'"),
        (state()._replace(count=True), TypeError, "`s.count` must be an integer; got True"),
        (state()._replace(count=1.0), TypeError, "`s.count` must be an integer; got 1.0"),
        (state(count=-1), ValueError, "`s.count` must be at least 0 .* got -1"),
        (state(count=2**32 + 1), ValueError, r"at most 2\*\*32; got 4294967297"),
        (state((1, 2, 3)), ValueError, r"`s.key_data` must be of shape \(2,\); got \(3,\)"),
        (state(impl="rbg"), ValueError, r"`s.key_data` must be of shape \(4,\); got \(2,\)"),
        (state((1, 2, 3), None), ValueError, r"`s.key_data` must be of shape \(2,\)"),
        (state(impl="mersenne"), ValueError, "`s.impl` names no implementation .* 'mersenne'"),
    ],
)
def test_bad_states_change_nothing(bad, error, message):
    before = plain(sb.random.get_state())
    with pytest.raises(error, match=message):
        sb.random.set_state(bad)
    assert plain(sb.random.get_state()) == before


def test_a_traced_stream_has_no_state():
    @jax.jit
    def inside(key):
        with sb.random.stream(key):
            for call in (sb.random.get_state, lambda: sb.random.set_state(state())):
                with pytest.raises(RuntimeError, match="made inside a function that jax is trac"):
                    call()
        return key

    inside(jax.random.key(0))


def test_a_state_may_be_read_and_set_while_jax_traces():
    @jax.jit
    def inside(x):
        assert plain(sb.random.get_state()) == (0, 11, "threefry2x32", 0)
        sb.random.set_state(state())
        return x

    inside(0)
    assert words(sb.random.next_key()) == nth(
        jax.random.wrap_key_data(jnp.array([3, 4], "uint32")), 2
    )


def test_examples_in_the_documentation():
    results = doctest.testmod(sb.random)
    assert not results.failed and results.attempted >= 12
