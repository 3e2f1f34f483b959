"""An exception at every line of what ends a call: all is as before, or all is as after.

Signals come where they like (`test_collective_interrupts`); here every line has its turn, and in
what takes a call back after a first exception too.
"""

import ast
import contextlib
import functools
import gc
import threading
from collections import OrderedDict
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from lines import LOCKED, At, Interrupt
from modules import picture, stream_position, values
from seedbed import random
from seedbed._base import garbage
from seedbed._random import stream
from seedbed.nn._tree import draft as _draft

pytestmark = pytest.mark.end("newest")

ROOT = Path(sb.__file__).parent
TREE, CALL = ROOT / "nn" / "_tree", ROOT / "nn" / "_call"
FILES = {str(CALL / f"{name}.py") for name in ("calls", "collective", "keys", "publish", "run")}
FILES |= {str(TREE / f"{name}.py") for name in ("assign", "draft", "held")}
FILES |= {str(ROOT / f"{name}.py") for name in ("_base/undo", "_random/stream", "random")}
assert all(Path(file).is_file() for file in FILES)
FILES |= {contextlib.__file__}


class Busy(sb.nn.Module):
    """Changes all that a call may change."""

    def __init__(self):
        self.w = sb.nn.ParamState(init=jax.nn.initializers.normal(), shape=(6,))
        self.old = sb.nn.State(jnp.zeros(2), tag="old")
        self.list, self.dict = [1, [2]], {"k": {"l": 3}}
        self.ordered = OrderedDict(a=1, b=2)
        self.gone, self.round, self.then = "here", 0, None

    def init_state(self):
        super().init_state()
        self.work()

    reset_state = update = lambda self: self.work()

    def work(self):
        self.round += 1
        self.h = sb.nn.HiddenState(jax.random.normal(sb.random.next_key(), (2,)))
        self.old.value = self.old.value + 1
        self.old.tag = "new"
        self.list.append(self.round)
        self.list[1].append(3)
        self.dict["k"]["m"] = self.h
        self.ordered.move_to_end("a")
        if hasattr(self, "gone"):
            del self.gone
        with contextlib.suppress(RuntimeError):  # of another trace, for all members
            streams[0].next_key()
        sb.random.seed(5)
        if self.then is not None:
            self.then()


def busy():
    sb.random.seed(11)
    net = Busy()
    net.list.append(Busy())
    streams[0] = sb.random.stream(jax.random.key(1))
    streams[0].next_key()
    return net


streams = [None]


def members():
    net = sb.nn.vmap_init_all_states(busy(), axis_size=3)
    sb.random.seed(11)
    return net


def shown(net):
    """What a call leaves, for comparison with another module that has had it."""
    nodes = net.nodes().values()
    kept = [(n.round, str(n.list[:2]), str(list(n.dict["k"])), [*n.ordered]) for n in nodes]
    bits = {name: np.asarray(value).tobytes() for name, value in values(net).items()}
    tags = {path: state.tags for path, state in net.states().items()}
    return kept, bits, tags, [hasattr(n, "gone") for n in nodes], stream_position(), position()


def position():
    return streams[0].count, streams[0]._at.in_use()[1]


def whole(net):
    return picture(net), position()


def assert_nothing_left_open():
    assert _draft.current() is None
    assert stream._current.get() == () and stream._call.get() is None
    free = []

    def attempt():
        for lock in (_draft.LOCK, random._innermost()._lock, streams[0]._lock):
            with lock:
                free.append(lock)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert len(free) == 3
    assert gc.isenabled()


def new_states(net):
    def make(scale):
        net.round += 1
        net.list.append(net.round)
        net.h = sb.nn.HiddenState(scale * jax.random.normal(sb.random.next_key(), (2,)))
        sb.random.seed(5)
        if net.then is not None:
            net.then()

    sb.nn.vmap_new_states(make, axis_size=3)(jnp.arange(3.0))


def assign(net):
    sb.nn.assign_state_values(net, {"w": jnp.ones((3, 6)), "old": jnp.ones((3, 2))})


CALLS = {
    "init_all_states": (busy, sb.nn.init_all_states),
    "reset_all_states": (busy, sb.nn.reset_all_states),
    "call_all_fns": (busy, lambda net: sb.nn.call_all_fns(net, "update")),
    "vmap_init_all_states": (members, lambda net: sb.nn.vmap_init_all_states(net, axis_size=3)),
    "vmap_reset_all_states": (members, lambda net: sb.nn.vmap_reset_all_states(net, axis_size=3)),
    "vmap_call_all_fns": (members, lambda net: sb.nn.vmap_call_all_fns(net, "update", axis_size=3)),
    "vmap": (members, lambda net: sb.nn.vmap(lambda net: net.update())(net)),
    "vmap_new_states": (members, new_states),
    "assign_state_values": (members, assign),
}
END = ("publish_members", "publish")


@pytest.mark.parametrize("name", CALLS)
def test_an_interrupt_at_every_line_of_the_end(name):
    make, call = CALLS[name]
    net = make()
    call(net)
    expected = shown(net)
    net, outcomes, before = make(), [], None
    while True:
        before = before or whole(net)
        at = At(FILES, len(outcomes) + 1, END)
        interrupted = at.run(functools.partial(call, net))
        assert_nothing_left_open()
        new = whole(net) != before
        if new:
            assert shown(net) == expected, at.where
            net, before = make(), None
        outcomes.append(new)
        if not interrupted:
            break
    # First all before the one step, then all after it.
    assert outcomes == sorted(outcomes) and outcomes[-1]
    assert len(outcomes) > 10 and not outcomes[0]


TWICE = ("init_all_states", "vmap_init_all_states", "vmap", "vmap_new_states")


@pytest.mark.parametrize("name", TWICE)
def test_an_interrupt_at_every_line_of_what_takes_a_call_back(name):
    make, call = CALLS[name]
    net = make()
    at = None

    def first():
        at.arm()
        raise Interrupt

    net.then = first
    before = whole(net)
    for number in range(1, 1000):
        at = At(FILES, number, END)
        assert at.run(lambda: call(net), trace=False)
        assert_nothing_left_open()
        assert whole(net) == before, at.where
        if at.left:
            break
    assert number >= 4


@pytest.mark.parametrize("name", TWICE)
def test_an_interrupt_at_every_line_after_one_that_came_too_late(name, monkeypatch):
    make, call = CALLS[name]
    net = make()
    call(net)
    expected = shown(net)
    publish = _draft.Draft.publish

    def then_interrupted(draft):
        publish(draft)
        at.arm()
        raise Interrupt

    monkeypatch.setattr(_draft.Draft, "publish", then_interrupted)
    for number in range(1, 1000):
        with monkeypatch.context() as patch:
            patch.setattr(_draft.Draft, "publish", publish)
            net = make()
        at = At(FILES, number, END)
        assert at.run(lambda: call(net), trace=False)  # noqa: B023
        assert_nothing_left_open()
        assert shown(net) == expected, at.where
        if at.left:
            break
    assert number >= 4


def test_an_interrupt_at_every_line_of_the_first_read_of_a_declared_state():
    busy()
    files = FILES - {contextlib.__file__} | {str(TREE / "state.py")}
    state, outcomes = None, []
    while True:
        if state is None or state.initialized:
            state = sb.nn.State(init=jax.nn.initializers.normal(), shape=(6,))
        count = sb.random.get_state().count
        interrupted = At(files, len(outcomes) + 1).run(functools.partial(getattr, state, "value"))
        assert_nothing_left_open()
        assert sb.random.get_state().count == count + state.initialized
        assert random._innermost()._at.in_use()[1] == []
        outcomes.append(state.initialized)
        if not interrupted:
            break
    assert outcomes == sorted(outcomes) and outcomes[-1] and not outcomes[0]


def test_an_interrupt_at_every_line_before_a_block_without_collections_leaves_them_on():
    reached = []

    def use():
        with garbage.collections_paused():
            reached.append(gc.isenabled())

    for number in range(1, 1000):
        At({garbage.__file__}, number).run(use)
        if reached:  # the line after is of the `finally`, where no signal comes in between
            gc.enable()
            break
        assert gc.isenabled()
    assert number > 3 and reached == [False]


def test_an_interrupt_at_every_line_of_a_block_that_collects_only_new_garbage():
    def use():
        with garbage.only_new_garbage():
            pass

    assert not gc.get_freeze_count()
    for number in range(1, 1000):
        at = At({garbage.__file__}, number)
        interrupted = at.run(use)
        assert not gc.get_freeze_count() and not garbage._NewGarbage.calls, at.where
        if not interrupted:
            break
    assert number > 10


LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp)


def test_no_loop_in_a_block_that_holds_a_lock():
    # Python sees signals where a loop jumps back, and may count this jump to no block: then an
    # interrupt would leave the lock taken. A function called in the block has loops of its own.
    blocks, loops = 0, []
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.With) and LOCKED.match(text.splitlines()[node.lineno - 1]):
                blocks += 1
                inside = [one for line in node.body for one in ast.walk(line)]
                loops += [(path.name, one.lineno) for one in inside if isinstance(one, LOOPS)]
    assert blocks > 10 and not loops
