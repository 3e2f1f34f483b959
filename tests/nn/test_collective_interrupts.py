"""Ctrl-C at any moment: a module is as before or as after, and no key is used twice."""

import signal

import pytest

from helpers import run_python

pytestmark = [
    pytest.mark.end("newest"),
    pytest.mark.skipif(
        not hasattr(signal, "setitimer"), reason="this platform has no interval timer"
    ),
]

# A real signal may come inside of any library and of Python itself, so not in this process.
CODE = """
import random, signal, statistics, threading, time, traceback
import jax, numpy as np
from jax._src import core
import seedbed as sb
from seedbed.nn._tree import draft as _draft

class Net(sb.nn.Module):
    def __init__(self):
        self.layers = [sb.nn.Linear(6, 2), sb.nn.Linear(2, 7)]
        self.made, self.round = [], 0

    def init_state(self):
        self.h = sb.nn.HiddenState(jax.random.normal(sb.random.next_key(), (2,)))
        self.made.append(self.round)
        self.round += 1

def free():
    got = []
    def attempt():
        if _draft.LOCK.acquire(timeout=5):
            _draft.LOCK.release()
            got.append(True)
    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(got)

def call(i):
    if SINGLE:
        sb.nn.init_all_states(net)
    else:
        sb.nn.vmap_init_all_states(net, axis_size=3 + i % 2)

def timed(i):
    start = time.perf_counter()
    call(i)
    return time.perf_counter() - start

net = Net()
sb.random.seed(0)
for i in range(4):
    call(i)
cost = statistics.median(timed(i) for i in range(6))
moments = random.Random(0)
signal.signal(signal.SIGALRM, signal.default_int_handler)
interrupted, seen = 0, set()
for i in range(ROUNDS):
    contents = [state._content for state in net.states().values()]
    others = net.round, list(net.made)
    count = sb.random.get_state().count
    stopped, where = False, ""
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.02, 1.05) * cost)
            call(i)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except BaseException:
        # The extension of jax turns an interrupt of a comparison into an error that quotes it.
        if "KeyboardInterrupt" not in traceback.format_exc():
            raise
        stopped, where = True, traceback.format_exc()
        # The context managers of jax may have been left open.
        core.trace_ctx.set_trace(core.eval_trace)
    interrupted += stopped
    # A machine that others use is not always equally fast.
    cost *= 1.05 if stopped else 0.9
    changed = [s._content is not c for s, c in zip(net.states().values(), contents, strict=True)]
    new = all(changed)
    assert new == any(changed), changed
    assert new or stopped
    assert (net.round, net.made) == ((others[0] + 1, [*others[1], others[0]]) if new else others)
    assert sb.random.get_state().count == count + new, where
    assert sb.random._innermost()._at.in_use()[1] == []
    assert _draft.current() is None and free()
    if new:
        numbers = np.asarray(net.layers[0].weight.value).tobytes()[:8]
        assert numbers not in seen
        seen.add(numbers)
count = sb.random.get_state().count
sb.nn.vmap_init_all_states(net, axis_size=3)
key = jax.random.fold_in(jax.random.key(0), count)
init = sb.nn.init_function(Net())
expected = jax.jit(jax.vmap(init))(jax.random.split(key, 3))
for name, value in sb.nn.split(net)[1].items():
    assert np.array_equal(value, expected[name]), name
print(interrupted)
"""


@pytest.mark.parametrize("single, rounds", [(False, 200), (True, 60)], ids=["members", "single"])
def test_a_call_that_is_interrupted_has_happened_or_has_not(single, rounds):
    interrupted = int(run_python(f"SINGLE, ROUNDS = {single}, {rounds}\n{CODE}"))
    assert interrupted >= rounds // 4
