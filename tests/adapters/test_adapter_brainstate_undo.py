"""brainstate's modules: a call that fails or is interrupted leaves nothing behind."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from lines import At, Interrupt
from modules import stream_position

bs = pytest.importorskip("brainstate")
adapter = sb.adapters.brainstate

from brainstate.transform import _mapping1  # noqa: E402

from seedbed._random import stream as _stream  # noqa: E402
from seedbed.adapters._brainstate import program  # noqa: E402

pytestmark = pytest.mark.usefixtures("as_users_have_it", "seeded")

N = 3
ADAPTERS = Path(adapter.__file__).parent
FILES = {str(ADAPTERS / "brainstate.py"), str(ADAPTERS.parent / "_base" / "undo.py")}
FILES |= {str(ADAPTERS / "_brainstate" / f"{name}.py") for name in ("call", "program", "roots")}
assert all(Path(file).is_file() for file in FILES)


class Cell(bs.nn.Module):
    def __init__(self):
        super().__init__()
        self.old = bs.ShortTermState(jnp.zeros(2))
        self.list, self.dict, self.then = [1], {"k": [2]}, None
        self.own = bs.random.RandomState(3)

    def init_state(self):
        self.h = bs.HiddenState(bs.random.uniform(size=6))
        self.w = bs.ParamState(self.own.uniform(size=6))
        self.list.append(len(self.list))
        self.dict["k"].append(3)
        if self.then is not None:
            self.then()

    reset_state = init_state


def picture(cell):
    attributes = {name: id(value) for name, value in vars(cell).items()}
    states = {path: (id(state), id(state._value)) for path, state in cell.states().items()}
    containers = list(cell.list), list(cell.dict["k"])
    stream = id(bs.random.DEFAULT._value), vars(bs.random.DEFAULT).keys()
    return attributes, states, containers, stream, stream_position(), vars(cell.own).keys()


CALLS = {
    "vmap_init": lambda cell: sb.nn.vmap_init_all_states(cell, axis_size=N),
    "vmap_call": lambda cell: sb.nn.vmap_call_all_fns(cell, "init_state", axis_size=N),
    "vmap_reset": lambda cell: sb.nn.vmap_reset_all_states(cell, axis_size=N),
    "init": sb.nn.init_all_states,
    "reset": sb.nn.reset_all_states,
    "new_states": lambda cell: sb.nn.vmap_new_states(cell.init_state, axis_size=N)(),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("what", ["brainstate", "own", "seedbed", "stream"])
def test_a_seed_in_a_call_that_fails(name, what):
    cell, opened = Cell(), sb.random.stream(jax.random.key(5))

    def then():
        if what == "brainstate":
            bs.random.DEFAULT.seed(99)
        elif what == "own":
            cell.own.seed(99)
        elif what == "seedbed":
            sb.random.seed(99)
        else:
            with opened:
                sb.random.set_state(sb.random.StreamState(*sb.random.get_state()[:2], 8))
        raise RuntimeError("on purpose")

    cell.then = then
    before = picture(cell)
    with pytest.raises(RuntimeError, match="on purpose"):
        CALLS[name](cell)
    assert picture(cell) == before and opened.count == 0


def test_seedbed_s_seed_in_a_call_that_succeeds():
    cell = Cell()
    cell.then = lambda: sb.random.seed(5)
    sb.nn.vmap_init_all_states(cell, axis_size=N)
    assert stream_position()[1] == 5


@pytest.mark.parametrize("name", ["vmap_init", "init"])
def test_an_interrupt_at_every_line_of_the_end(name):
    cell, outcomes = Cell(), []
    call = CALLS[name]
    done = Cell()
    call(done)
    before = picture(cell)
    begin = ("settle",) if name == "vmap_init" else ("guard",)
    while True:
        at = At(FILES, len(outcomes) + 1, begin)
        interrupted = at.run(functools.partial(call, cell))
        new = picture(cell) != before
        if new:
            assert cell.h.value.shape == ((N, 6) if name == "vmap_init" else (6,)), at.where
            assert (cell.list, cell.dict) == (done.list, done.dict)
            cell = Cell()
            before = picture(cell)
        outcomes.append(new)
        assert _stream._call.get() is None and "split_key" not in vars(bs.random.DEFAULT)
        if not interrupted:
            break
    assert outcomes == sorted(outcomes) and outcomes[-1] and not outcomes[0]


@pytest.mark.parametrize("name", ["vmap_init", "init"])
def test_an_interrupt_at_every_line_of_what_takes_a_call_back(name):
    cell, at = Cell(), None

    def first():
        at.arm()
        raise Interrupt

    cell.then = first
    before = picture(cell)
    for number in range(1, 1000):
        at = At(FILES, number)
        at.armed = False
        assert at.run(lambda: CALLS[name](cell), trace=False)
        assert picture(cell) == before, at.where
        if at.left:
            break
    assert number >= 3


@pytest.mark.parametrize("block", [adapter.patched, program.shown])
def test_an_interrupt_at_every_line_of_a_block_that_swaps_a_function(block):
    own = _mapping1._vmap_new_states_transform, jax.core.Tracer.__repr__

    def use():
        with block():
            pass

    for number in range(1, 1000):
        at = At(FILES, number)
        interrupted = at.run(use)
        del at
        assert (_mapping1._vmap_new_states_transform, jax.core.Tracer.__repr__) == own
        if not interrupted:
            break
    assert number > 5


# --- filters without an end -------------------------------------------------------------


def endless():
    own = []
    own.append(own)
    return own


FILTERED = {
    "vmap_init nodes": lambda cell, f: sb.nn.vmap_init_all_states(
        cell, axis_size=N, node_to_exclude=f
    ),
    "vmap_init states": lambda cell, f: sb.nn.vmap_init_all_states(
        cell, axis_size=N, state_to_exclude=f
    ),
    "vmap_call": lambda cell, f: sb.nn.vmap_call_all_fns(
        cell, "init_state", axis_size=N, node_to_exclude=f
    ),
    "vmap_reset": lambda cell, f: sb.nn.vmap_reset_all_states(cell, axis_size=N, node_to_exclude=f),
    "call": lambda cell, f: sb.nn.call_all_fns(cell, "init_state", node_to_exclude=f),
    "call positional": lambda cell, f: sb.nn.call_all_fns(cell, "init_state", (), None, f),
    "init": lambda cell, f: sb.nn.init_all_states(cell, node_to_exclude=f),
    "reset": lambda cell, f: sb.nn.reset_all_states(cell, node_to_exclude=f),
    "new_states": lambda cell, f: adapter.vmap_new_states(
        cell.init_state, axis_size=N, state_to_exclude=f
    ),
    "plan_init": lambda cell, f: adapter.plan_init(cell, axis_size=N, state_to_exclude=f),
    "unstack": lambda cell, f: adapter.unstack(cell, f),
    "forward": lambda cell, f: adapter.forward(cell, states=f),
    "reset_members": lambda cell, f: adapter.reset_members(cell, states=f),
}


@pytest.mark.parametrize("name", FILTERED)
def test_a_filter_list_that_contains_itself(name):
    cell = Cell()
    before = picture(cell)
    with pytest.raises(
        TypeError, match="^Invalid collection filter: .* more than 64 deep, or in t"
    ):
        FILTERED[name](cell, endless())
    assert picture(cell) == before


def test_patched_functions_refuse_such_a_list_too():
    with adapter.patched(), pytest.raises(TypeError, match="more than 64 deep, or in themselves"):
        bs.nn.vmap_init_all_states(Cell(), axis_size=N, state_to_exclude=endless())


def test_containers_that_contain_themselves_are_no_modules_of_brainstate():
    deep, own = [], []
    own.append(own)
    for _ in range(2_000):
        deep = [deep]
    for target in (deep, own):
        assert sb.nn.vmap_init_all_states(target, axis_size=N) is target
