"""Calls on brainstate's modules that fail: the message, and that nothing has changed."""

import functools

import pytest

import seedbed as sb
from brainstate_modules import Breaks, Cell, N, adapter, bs, described, values
from helpers import assert_same_bits

pytestmark = [
    pytest.mark.shared,
    pytest.mark.reference("newest"),
    pytest.mark.usefixtures("as_users_have_it"),
]


def state_of(cells):
    return [
        ({name: value for name, value in vars(cell).items()}, values(cell), described(cell))
        for cell in cells
    ]


@pytest.mark.parametrize("size", [None, N])
@pytest.mark.parametrize("name", ["init", "reset"])
def test_an_exception_in_the_third_node_changes_nothing(size, name):
    cells = [Cell(), Cell(), Breaks()]
    sb.nn.vmap_init_all_states(cells[:2], axis_size=2)
    before, stream = state_of(cells), bs.random.DEFAULT.value
    prefix, options = ("vmap_", {"axis_size": size}) if size else ("", {})
    with pytest.raises(RuntimeError, match="broken"):
        getattr(sb.nn, f"{prefix}{name}_all_states")(cells, **options)
    assert [entry[0] for entry in state_of(cells)] == [entry[0] for entry in before]
    assert state_of(cells)[0][2] == before[0][2]
    assert_same_bits([entry[1] for entry in state_of(cells)], [entry[1] for entry in before])
    assert bs.random.DEFAULT.value is stream


def test_an_interrupt_changes_nothing():
    cell = Breaks()
    cell.error = KeyboardInterrupt()
    before, stream = vars(cell).copy(), bs.random.DEFAULT.value
    with pytest.raises(KeyboardInterrupt):
        sb.nn.vmap_init_all_states(cell, axis_size=N)
    assert vars(cell) == before and bs.random.DEFAULT.value is stream


@pytest.mark.parametrize("size", [2**40, 2**46])
def test_a_size_that_no_machine_holds(size):
    cell = Cell()
    before, stream = vars(cell).copy(), bs.random.DEFAULT.value
    with pytest.raises(MemoryError, match=f"`axis_size` is too large.* {size} members"):
        sb.nn.vmap_init_all_states(cell, axis_size=size)
    assert vars(cell) == before and bs.random.DEFAULT.value is stream
    sb.nn.vmap_init_all_states(cell, axis_size=2)


@pytest.mark.parametrize("size", [None, 0, -1, True, 2.0, "3"])
def test_a_bad_axis_size(size):
    cell = Cell()
    before = vars(cell).copy()
    for call in (
        sb.nn.vmap_init_all_states,
        sb.nn.vmap_reset_all_states,
        functools.partial(sb.nn.vmap_call_all_fns, fn_name="init_state"),
    ):
        with pytest.raises(ValueError, match="axis_size"):
            call(cell, axis_size=size)
    assert vars(cell) == before


def test_arguments_that_brainstate_refuses():
    cell = Cell()
    with pytest.raises(ValueError, match="in_states"):
        sb.nn.vmap_init_all_states(cell, axis_size=N, in_states=cell.states())
    with pytest.raises(TypeError, match="`donate` works on modules of seedbed.nn; got one of brai"):
        sb.nn.vmap_init_all_states(cell, axis_size=N, donate=True)
    with pytest.raises(AttributeError, match="does not have method 'missing'"):
        sb.nn.vmap_call_all_fns(cell, "missing", axis_size=N)
    with pytest.raises(ValueError, match="makes no states for several members"):
        adapter.plan_of(lambda: None)
