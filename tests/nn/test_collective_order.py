"""In which order a collective call runs the methods of a tree, and which trees it walks."""

import itertools

import jax
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import Declared, Group, Log, Noise, assert_values, call_key, node_key, values, vmapped

pytestmark = [
    pytest.mark.shared,
    pytest.mark.reference("oldest"),
    pytest.mark.usefixtures("seeded"),
]


# --- order ------------------------------------------------------------------------------


def leveled(name, log, *levels, **children):
    """A `Log` whose `note` has a call order; None leaves it without one."""

    class Leveled(Log):
        def note(self):
            self.say()

    for level in levels:
        Leveled.note = sb.nn.call_order(level, check_order_boundary=False)(Leveled.note)
    return Leveled(name, log, **children)


COLLECTIVE = {
    "single": lambda target, name: sb.nn.call_all_fns(target, name),
    "members": lambda target, name: sb.nn.vmap_call_all_fns(target, name, axis_size=2),
}


@pytest.mark.parametrize("how", COLLECTIVE)
def test_children_before_parents_and_attributes_by_name(how):
    log = []
    net = Log("root", log, b=Log("b", log, z=Log("z", log)), a=Log("a", log))
    assert COLLECTIVE[how](net, "note") is net
    assert log == ["a", "z", "b", "root"]


@pytest.mark.parametrize("how", COLLECTIVE)
def test_methods_without_an_order_run_first_then_ascending_levels(how):
    log = []
    net = leveled(
        "root",
        log,
        0,
        a=leveled("a", log, 2),
        b=leveled("b", log),
        c=leveled("c", log, 1),
        d=leveled("d", log, 2),
        e=leveled("e", log, 1),
        f=leveled("f", log),
    )
    COLLECTIVE[how](net, "note")
    assert log == ["b", "f", "root", "c", "e", "a", "d"]


def test_levels_that_are_not_checked_run_in_their_order_too():
    log = []
    net = leveled("root", log, a=leveled("a", log, 12), b=leveled("b", log, -1))
    sb.nn.call_all_fns(net, "note")
    assert log == ["root", "b", "a"]


def test_order_of_init_state_and_reset_state():
    seen = []

    class Late(sb.nn.Module):
        @sb.nn.call_order(3)
        def init_state(self):
            seen.append("late init")

        @sb.nn.call_order()
        def reset_state(self):
            seen.append("level 0")

    class Plain(sb.nn.Module):
        def init_state(self):
            seen.append("init")

        def reset_state(self):
            seen.append("plain")

    net = Group(Late(), Plain())
    sb.nn.vmap_init_all_states(net, axis_size=2)
    sb.nn.init_all_states(net)
    sb.nn.vmap_reset_all_states(net, axis_size=2)
    sb.nn.reset_all_states(net)
    assert seen == ["init", "late init"] * 2 + ["plain", "level 0"] * 2


@pytest.mark.parametrize("level", [-1, 10, 11, 99])
def test_levels_outside_of_0_to_9_are_refused(level):
    with pytest.raises(
        ValueError, match=rf"^`level` must be an integer in \[0, 10\), got {level}$"
    ):
        sb.nn.call_order(level)


@pytest.mark.parametrize("level", ["a", None, [1]])
def test_levels_of_another_type_are_refused(level):
    with pytest.raises(TypeError, match="^`level` must be an integer; got .* of type "):
        sb.nn.call_order(level, check_order_boundary=False)


@pytest.mark.parametrize("level", range(10))
def test_levels_from_0_to_9_are_taken(level):
    assert sb.nn.call_order(level)(lambda: None).call_order == level


# --- the tree ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", COLLECTIVE)
def test_a_shared_node_is_called_once(how):
    log = []
    shared = Log("shared", log)
    net = Log("root", log, a=Log("a", log, s=shared), b=shared, c=[shared, {"d": shared}])
    COLLECTIVE[how](net, "note")
    assert log == ["shared", "a", "root"]


def test_a_shared_node_is_drawn_under_its_first_path():
    shared = Noise()
    net = Group(shared, shared)
    sb.nn.vmap_init_all_states(net, axis_size=3)
    assert list(values(net)) == ["items.0.x"]
    key = jax.random.split(call_key(), 3)[2]
    expected = jax.random.normal(node_key(key, "items", 0), (6,))
    assert_same_bits(shared.x.value[2], expected)


def test_a_shared_state_is_drawn_once():
    net = Group(Declared(), Declared())
    net.items[1].w = net.items[0].w
    sb.nn.vmap_init_all_states(net, axis_size=3)
    assert net.items[1].w is net.items[0].w and net.items[0].w.shape == (3, 6)
    assert sorted(values(net)) == ["items.0.b", "items.0.w", "items.1.b"]
    assert_values(net, vmapped(net, 3, call_key()))
    apart = sb.nn.vmap_init_all_states(Group(Declared(), Declared()), axis_size=3)
    sb.random.seed(11)
    sb.nn.vmap_init_all_states(apart, axis_size=3)
    assert_same_bits(apart.items[0].w.value, net.items[0].w.value)


@pytest.mark.parametrize("how", COLLECTIVE)
def test_cycles_end(how):
    log = []
    net = Log("root", log, a=Log("a", log))
    net.a.up, net.me, net.a.list = net, net, [net.a]
    COLLECTIVE[how](net, "note")
    assert log == ["a", "root"]


@pytest.mark.parametrize("how", COLLECTIVE)
def test_modules_in_lists_dictionaries_and_nested(how):
    log = []
    net = Log("root", log)
    net.deep = {"b": [Log("b0", log), (Log("b1", log),)], "a": Log("a", log), 4: Log("4", log)}
    COLLECTIVE[how](net, "note")
    assert sorted(log) == ["4", "a", "b0", "b1", "root"] and log[-1] == "root"
    assert log.index("a") < log.index("b0") < log.index("b1")


@pytest.mark.parametrize(
    "wrap",
    [list, tuple, lambda both: dict(zip("ab", both, strict=True)), lambda both: [[both[0]], both]],
    ids=["list", "tuple", "dict", "nested"],
)
def test_a_target_of_several_modules(wrap):
    one, two = Noise(), Declared()
    target = wrap([one, two])
    assert sb.nn.vmap_init_all_states(target, axis_size=4) is target
    assert one.x.shape == (4, 6) and two.w.shape == (4, 6)
    assert_values(target, vmapped(target, 4, call_key()))


def test_a_parent_that_initialises_its_child_itself():
    class Parent(sb.nn.Module):
        def __init__(self):
            self.child = Noise()

        def init_state(self):
            self.child.init_state(2.0)
            self.doubled = sb.nn.State(self.child.x.value * 2)

    net = sb.nn.vmap_init_all_states(Parent(), axis_size=3)
    assert sorted(values(net)) == ["child.x", "doubled"]
    assert_values(net, vmapped(Parent(), 3, call_key()))
    assert_same_bits(net.doubled.value, net.child.x.value * 2)
    # The child is one of the tree's nodes and had its turn before.
    first = jax.random.normal(node_key(jax.random.split(call_key(), 3)[0], "child"), (6,))
    assert not np.array_equal(net.child.x.value[0], first)


def test_modules_made_during_the_call_are_initialised():
    class Grows(sb.nn.Module):
        def init_state(self):
            self.inner = sb.nn.Linear(7, 2)
            self.more = [Declared(), {"d": Declared()}]

    net = sb.nn.vmap_init_all_states(Grows(), axis_size=4)
    assert net.inner.weight.shape == (4, 2, 7) and net.more[1]["d"].w.shape == (4, 6)
    assert_values(net, vmapped(Grows(), 4, call_key()))
    rows = [net.inner.weight.value.ravel(), net.more[0].w.value.ravel()]
    rows.append(net.more[1]["d"].w.value.ravel())
    assert all(not np.isin(a, b).any() for a, b in itertools.combinations(rows, 2))
