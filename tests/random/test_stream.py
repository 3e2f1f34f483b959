"""Streams under failure, from several threads, and saved and set again."""

import contextlib
import gc
import pickle
import threading
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

import seedbed as sb
from helpers import run_python
from seedbed._base import undo
from seedbed._jax import compat
from seedbed._random import stream
from seedbed.random import StreamState
from streams import nth, plain, words

pytestmark = [pytest.mark.end("newest"), pytest.mark.usefixtures("seeded")]


def state(key_data=(3, 4), impl="threefry2x32", count=2):
    return StreamState(np.array(key_data, np.uint32), impl, count)


# --- transactions -----------------------------------------------------------------------


def spend(then=lambda key: None):
    """The next key; given back if ``then`` raises."""
    got = []

    def use(key):
        got.append(key)
        then(key)
        return []

    sb.random._spend(use)
    return got[0]


def raises(error):
    def then(key):
        raise error

    return then


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_failed_call_leaves_the_stream_as_it_was(error):
    sb.random.next_key()
    before = plain(sb.random.get_state())
    got = []
    with pytest.raises(error):
        sb.random._spend(lambda key: got.append(key) or raises(error)(key))
    assert words(got[0]) == nth(jax.random.key(11), 1)
    assert plain(sb.random.get_state()) == before
    assert words(spend()) == words(got[0])
    assert sb.random.get_state().count == 2


def test_nested_reservations_that_fail():
    def then(key):
        with contextlib.suppress(KeyError):
            spend(raises(KeyError))
        assert sb.random.get_state().count == 1
        raise ValueError

    with pytest.raises(ValueError):
        spend(then)
    assert sb.random.get_state().count == 0


def test_a_key_used_inside_of_a_failed_call_is_not_handed_out_again():
    got = []

    def then(outer):
        got.extend((outer, sb.random.next_key()))
        raise ValueError

    with pytest.raises(ValueError):
        spend(then)
    outer, inner = got
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


def test_a_key_of_before_set_state_is_not_given_back():
    def then(key):
        sb.random.set_state(state(count=0))
        raise ValueError

    with pytest.raises(ValueError):
        spend(then)
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
        log = undo.Log()
        number, key = self.stream._take(log)
        smallest = next(n for n in range(len(self.used) + 1) if n not in self.used)
        assert number == smallest and words(key) == nth(self.stream.key, smallest)
        self.used.add(smallest)
        return number, log

    @rule(ticket=consumes(out))
    def give_back(self, ticket):
        number, log = ticket
        undo.run(log.back)
        self.used.remove(number)

    @rule(ticket=consumes(out))
    def keep(self, ticket):
        assert ticket[0] in self.used

    @invariant()
    def the_count_is_after_the_last_key_in_use(self):
        assert self.stream.count == max(self.used, default=-1) + 1
        assert self.stream._at.in_use()[1] == [
            n for n in range(self.stream.count) if n not in self.used
        ]


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
                log = undo.Log()
                number, _ = made._take(log)
                if fails and (turn + which) % 3 == 0:
                    undo.run(log.back)
                else:
                    mine.append(number)
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
    assert [made._take(None)[0] for _ in missing] == missing
    assert made._take(None)[0] == max(*numbers, *missing) + 1


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


# --- states -----------------------------------------------------------------------------


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
    logs = [undo.Log() for _ in range(3)]
    for log in logs:
        made._take(log)
    undo.run(logs[0].back)
    sb.random.set_state(state(count=7))
    undo.run(logs[1].back)
    assert made._take(None)[0] == 7


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


def test_running_out_of_keys():
    sb.random.set_state(StreamState(np.zeros(2, np.uint32), "threefry2x32", 2**32 - 1))
    sb.random.next_key()
    for _ in range(2):
        with pytest.raises(OverflowError, match=r"all 2\*\*32 keys .* were handed out"):
            sb.random.next_key()
    assert sb.random.get_state().count == 2**32


def test_the_state_of_a_trace_is_compared_and_keeps_nothing_alive():
    states, traces = [compat.trace_state()], []

    def record(x):
        states.append(compat.trace_state())
        assert states[-1] == compat.trace_state() != states[0]
        assert compat.top_trace_state() == states[0]
        traces.append(weakref.ref(compat.trace_of(x)))
        return x

    jax.jit(record)(0.0)
    jax.jit(lambda x: record(x) + 1)(0.0)
    gc.collect()
    assert [trace() for trace in traces] == [None, None]
    assert states[1] != states[2] and states[0] == compat.trace_state()


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "legacy"])
def test_keys_are_those_of_fold_in(typed):
    # The stream computes the block itself where that saves a compilation.
    rng = np.random.default_rng()
    for _ in range(20):
        words = rng.integers(0, 2**32, 2, dtype=np.uint32)
        key = jax.random.wrap_key_data(words) if typed else jnp.asarray(words)
        for number in (0, 1, 2**31, 2**32 - 1, int(rng.integers(2**32))):
            ours = stream._fold_in(key, number)
            theirs = jax.random.fold_in(key, np.uint32(number))
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            words_of = jax.random.key_data if typed else lambda array: array
            np.testing.assert_array_equal(words_of(ours), words_of(theirs))
            assert ours.committed == theirs.committed


def test_the_first_key_compiles_nothing():
    out = run_python(
        """
        import jax
        import seedbed as sb
        compiled = []
        jax.monitoring.register_event_duration_secs_listener(
            lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else 0
        )
        sb.random.seed(0)
        compiled.clear()  # making the key of a seed is jax's
        sb.random.next_key()
        print(compiled)
        """
    )
    assert out.strip() == "[]"
