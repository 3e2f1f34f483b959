"""Collective calls that fail: the message, and that nothing has changed."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import (
    Declared,
    Group,
    Log,
    Noise,
    assert_values,
    call_key,
    picture,
    stream_position,
    values,
    vmapped,
)

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("in_use")]


@pytest.fixture
def net():
    """A module that holds three members, with tags and a reference to no state."""
    net = Group(Declared(), Noise(), {"c": Noise(2)})
    net.items[1].extra = sb.nn.State(jnp.arange(2.0), tag=("a", "b"))
    net.flag, net.history = "kept", [1, {"x": [2]}]
    sb.nn.vmap_init_all_states(net, axis_size=3)
    return net


# --- axis_size --------------------------------------------------------------------------

BAD_SIZES = [
    None,
    True,
    False,
    np.True_,
    0,
    -1,
    2.0,
    2.5,
    "3",
    np.int32(0),
    np.int64(-5),
    np.float32(2),
    np.array(3),
    (3,),
    jnp.int32(2),
    jnp.arange(2),
]
COLLECTIVE = {
    "init": lambda net, n: sb.nn.vmap_init_all_states(net, axis_size=n),
    "call": lambda net, n: sb.nn.vmap_call_all_fns(net, "init_state", axis_size=n),
    "reset": lambda net, n: sb.nn.vmap_reset_all_states(net, axis_size=n),
    "plan": lambda net, n: sb.nn.plan_init(net, axis_size=n),
}


@pytest.mark.parametrize("size", BAD_SIZES, ids=repr)
@pytest.mark.parametrize("how", COLLECTIVE)
def test_a_bad_axis_size_is_refused_and_changes_nothing(net, how, size):
    before = picture(net)
    message = f"axis_size must be a positive integer, got {size!r} of type {type(size).__name__}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        COLLECTIVE[how](net, size)
    assert picture(net) == before


@pytest.mark.parametrize("how", COLLECTIVE)
def test_no_axis_size_is_refused(net, how):
    before = picture(net)
    without = {
        "init": lambda: sb.nn.vmap_init_all_states(net),
        "call": lambda: sb.nn.vmap_call_all_fns(net, "init_state"),
        "reset": lambda: sb.nn.vmap_reset_all_states(net),
        "plan": lambda: sb.nn.plan_init(net),
    }
    with pytest.raises(ValueError, match="^axis_size must be a positive integer, got None"):
        without[how]()
    assert picture(net) == before


@pytest.mark.parametrize("how", COLLECTIVE)
def test_a_traced_axis_size_is_refused(net, how):
    before = picture(net)

    @jax.jit
    def traced(n):
        with pytest.raises(
            ValueError, match="^axis_size must be a positive integer, got a traced value of type "
        ):
            COLLECTIVE[how](net, n)
        return n

    traced(3)
    assert picture(net) == before


@pytest.mark.parametrize("size", [3, np.int64(3), np.uint8(3)], ids=repr)
def test_integers_of_numpy_are_sizes(size):
    net = sb.nn.vmap_init_all_states(Noise(), axis_size=size)
    assert net.x.shape == (3, 6) and type(net.members) is int
    assert_values(net, vmapped(net, 3, call_key(number=1)))


def test_a_size_that_no_machine_holds(net):
    before = picture(net)
    with pytest.raises(MemoryError, match=r"too large.*1099511627776 members of .* bytes are free"):
        sb.nn.vmap_init_all_states(net, axis_size=2**40)
    assert picture(net) == before
    # The stream is not poisoned: the next call gets the key that this one had.
    sb.nn.vmap_init_all_states(net, axis_size=2)
    expected = vmapped(net, 2, call_key(number=2))
    assert_same_bits({name: values(net)[name] for name in expected}, expected, weak=False)
    assert np.isfinite(np.asarray(jax.random.normal(sb.random.next_key(), (4,)))).all()


@pytest.mark.parametrize("size", [2**48, 2**62, 2**64, 2**70])
@pytest.mark.parametrize("how", COLLECTIVE)
def test_a_size_that_no_counter_holds(net, how, size):
    before = picture(net)
    message = f"^`axis_size` must be at least 1 and below 2\\*\\*48; got {size}$"
    with pytest.raises(ValueError, match=message):
        COLLECTIVE[how](net, size)
    assert picture(net) == before


def test_bytes_beyond_64_bits():
    net = Noise(2**20)
    before = picture(net)
    with pytest.raises(OverflowError, match=f"too large: {2**44} members of .*Largest results: x"):
        sb.nn.vmap_init_all_states(net, axis_size=2**44)
    assert picture(net) == before


def test_a_size_that_no_machine_holds_without_any_draw():
    class Constant(sb.nn.Module):
        def init_state(self):
            self.c = sb.nn.State(jnp.zeros((4, 2)))

    net = Constant()
    before = picture(net)
    with pytest.raises(MemoryError, match="too large"):
        sb.nn.vmap_init_all_states(net, axis_size=2**40)
    assert picture(net) == before


# --- other arguments --------------------------------------------------------------------

BAD_ARGUMENTS = {
    "fn_name": (
        lambda net: sb.nn.call_all_fns(net, 3),
        TypeError,
        "`fn_name` must be a string, the name of a method; got 3 of type int",
    ),
    "fn_name function": (
        lambda net: sb.nn.vmap_call_all_fns(net, len, axis_size=3),
        TypeError,
        "`fn_name` must be a string, the name of a method; got <built-in function len> of type "
        "builtin_function_or_method",
    ),
    "kwargs list": (
        lambda net: sb.nn.call_all_fns(net, "reset_state", (), []),
        TypeError,
        "`kwargs` must be a mapping of keyword arguments; got [] of type list",
    ),
    "kwargs list for members": (
        lambda net: sb.nn.vmap_call_all_fns(net, "reset_state", (), [], axis_size=3),
        TypeError,
        "`kwargs` must be a mapping of keyword arguments; got [] of type list",
    ),
    "fn_if_not_exist": (
        lambda net: sb.nn.call_all_fns(net, "reset_state", fn_if_not_exist="ignore"),
        ValueError,
        "`fn_if_not_exist` must be one of 'raise', 'pass', 'none', 'warn'; got 'ignore'",
    ),
    "fn_if_not_exist None": (
        lambda net: sb.nn.vmap_call_all_fns(net, "x", axis_size=3, fn_if_not_exist=None),
        ValueError,
        "`fn_if_not_exist` must be one of 'raise', 'pass', 'none', 'warn'; got None",
    ),
    "fn_if_not_exist True": (
        lambda net: sb.nn.call_all_fns(net, "reset_state", fn_if_not_exist=True),
        ValueError,
        "`fn_if_not_exist` must be one of 'raise', 'pass', 'none', 'warn'; got True",
    ),
    "node_to_exclude": (
        lambda net: sb.nn.init_all_states(net, node_to_exclude=3),
        TypeError,
        "Invalid collection filter",
    ),
    "node_to_exclude nested": (
        lambda net: sb.nn.vmap_init_all_states(net, axis_size=3, node_to_exclude=[int, (2.5,)]),
        TypeError,
        "Invalid collection filter",
    ),
    "state_to_exclude": (
        lambda net: sb.nn.vmap_init_all_states(net, axis_size=3, state_to_exclude={"a": 1}),
        TypeError,
        "Invalid collection filter",
    ),
    "state_tag": (
        lambda net: sb.nn.vmap_init_all_states(net, axis_size=3, state_tag=3),
        TypeError,
        "`tag` must be a string, several strings, or None; got 3 of type int",
    ),
    "in_states": (
        lambda net: sb.nn.vmap_init_all_states(net, axis_size=3, in_states="x"),
        TypeError,
        "`in_states` must be a State, several (a list, or what Module.states returns), or "
        "{axis: states}; got 'x' of type str",
    ),
    "out_states": (
        lambda net: sb.nn.vmap_init_all_states(net, axis_size=3, out_states=[1]),
        TypeError,
        "`out_states` must be a State, several (a list, or what Module.states returns), or "
        "{axis: states}; got 1 of type int",
    ),
    "no such method": (
        lambda net: sb.nn.call_all_fns(net, "fly"),
        AttributeError,
        "Declared at path ('items', 0) has no method 'fly'",
    ),
    "argument too many": (
        lambda net: sb.nn.vmap_init_all_states(net, 1, 2, 3, axis_size=3),
        TypeError,
        "init_state() takes from 1 to 2 positional arguments but 4 were given",
    ),
}


@pytest.mark.parametrize("what", BAD_ARGUMENTS)
def test_bad_arguments_change_nothing(net, what):
    call, error, message = BAD_ARGUMENTS[what]
    before = picture(net)
    with pytest.raises(error, match=re.escape(message)):
        call(net)
    assert picture(net) == before


@pytest.mark.parametrize("kwargs", [[], (), 0, "", False], ids=repr)
@pytest.mark.parametrize("how", ["single", "members"])
def test_kwargs_that_are_no_mapping_are_refused_also_when_they_are_false(net, how, kwargs):
    before = picture(net)
    kind = type(kwargs).__name__
    message = f"`kwargs` must be a mapping of keyword arguments; got {kwargs!r} of type {kind}"
    with pytest.raises(TypeError, match=f"^{re.escape(message)}$"):
        if how == "single":
            sb.nn.call_all_fns(net, "reset_state", (), kwargs)
        else:
            sb.nn.vmap_call_all_fns(net, "reset_state", (), kwargs, axis_size=3)
    assert picture(net) == before


BAD_TARGETS = [None, 3, "net", object(), jnp.zeros(2), len, {"a": 3}, [None], [Noise(), 3], Noise]


@pytest.mark.parametrize("target", BAD_TARGETS, ids=lambda target: str(target)[:20])
@pytest.mark.parametrize("how", [*COLLECTIVE, "single"])
def test_a_target_that_is_no_module(how, target):
    before = stream_position()
    message = "^`target` must be a seedbed.nn.Module, or a list, tuple or dict of modules; "
    with pytest.raises(TypeError, match=message):
        if how == "single":
            sb.nn.init_all_states(target)
        else:
            COLLECTIVE[how](target, 3)
    assert stream_position() == before


# --- methods that are not there, or not methods -----------------------------------------


class Partly(sb.nn.Module):
    def __init__(self):
        self.a, self.b, self.c = Noise(), Noise(), Log("c", [])


HOW = {
    "single": lambda net, name, **more: sb.nn.call_all_fns(net, name, **more),
    "members": lambda net, name, **more: sb.nn.vmap_call_all_fns(net, name, axis_size=2, **more),
}


@pytest.mark.parametrize("how", HOW)
def test_a_node_without_the_method_raises(how):
    net = Partly()
    before = picture(net)
    with pytest.raises(AttributeError, match=r"^Noise at path \('a',\) has no method 'note'$"):
        HOW[how](net, "note")
    assert picture(net) == before


@pytest.mark.parametrize("choice", ["pass", "none"])
@pytest.mark.parametrize("how", HOW)
def test_a_node_without_the_method_is_skipped(how, choice):
    log = []
    net = Partly()
    net.c = Log("c", log)
    assert HOW[how](net, "note", fn_if_not_exist=choice) is net
    assert log == ["c"]


@pytest.mark.parametrize("how", HOW)
def test_one_warning_for_every_node_without_the_method(how):
    with pytest.warns(UserWarning) as caught:
        HOW[how](Partly(), "note", fn_if_not_exist="warn")
    assert [str(one.message) for one in caught] == [
        "Noise at path ('a',) has no method 'note'; it is skipped",
        "Noise at path ('b',) has no method 'note'; it is skipped",
        "Partly at path () has no method 'note'; it is skipped",
    ]
    assert {one.filename for one in caught} == {__file__}


@pytest.mark.parametrize("choice", ["raise", "pass", "none", "warn"])
@pytest.mark.parametrize("error", [ValueError, AttributeError, RuntimeError])
@pytest.mark.parametrize("how", HOW)
def test_a_property_that_raises_shows_its_own_error(how, error, choice):
    class Broken(sb.nn.Module):
        @property
        def note(self):
            raise error("of the property itself")

    net = Group(Declared(), Broken())
    before = picture(net)
    for target in (net.items[1], net):
        if target is net and choice == "raise":
            continue  # the other nodes have no such method
        with pytest.raises(error, match="^of the property itself$"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            HOW[how](target, "note", fn_if_not_exist=choice)
    assert picture(net) == before


@pytest.mark.parametrize("choice", ["raise", "pass", "none", "warn"])
@pytest.mark.parametrize("how", HOW)
def test_an_attribute_that_is_no_method(how, choice):
    net = Group(Noise())
    net.items[0].note = 5
    before = picture(net)
    message = r"^'note' of Noise at path \(\) must be a method; got 5 of type int$"
    with pytest.raises(TypeError, match=message):
        HOW[how](net.items[0], "note", fn_if_not_exist=choice)
    assert picture(net) == before


@pytest.mark.parametrize("how", HOW)
def test_an_attribute_that_is_a_function_is_called(how):
    log = []
    net = Noise()
    net.note = lambda: log.append("called")
    HOW[how](net, "note")
    assert log == ["called"]
