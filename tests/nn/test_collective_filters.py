"""Which nodes and states a collective call leaves out, and what excluded states hold."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import (
    Declared,
    Group,
    Noise,
    Tree,
    assert_values,
    call_key,
    node_key,
    picture,
    values,
    vmapped,
)
from seedbed.filters import All, Any, Everything, Not, Nothing, OfType, PathContains, WithTag

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("seeded")]


# --- nodes ------------------------------------------------------------------------------


class Tagged(Noise):
    tag = "skip"


def group():
    return Group(Noise(2), Declared(2), Tagged(2), {"deep": Group(Noise(1))})


ALL = {"items.0.x", "items.1.b", "items.1.w", "items.2.x", "items.3.deep.items.0.x"}
NODE_FILTERS = {
    "None": (None, ALL),
    "False": (False, ALL),
    "empty list": ([], ALL),
    "empty tuple": ((), ALL),
    "Nothing": (Nothing(), ALL),
    "True": (True, set()),
    "Ellipsis": (..., set()),
    "Everything": (Everything(), set()),
    "type": (Declared, ALL - {"items.1.b", "items.1.w"}),
    "type with subclasses": (Noise, {"items.1.b", "items.1.w"}),
    "list": ([Declared, Tagged], {"items.0.x", "items.3.deep.items.0.x"}),
    "nested": ([[Declared], (Tagged, (None, [False]))], {"items.0.x", "items.3.deep.items.0.x"}),
    "str": ("skip", ALL - {"items.2.x"}),
    "WithTag": (WithTag("skip"), ALL - {"items.2.x"}),
    "PathContains": (PathContains("deep"), ALL - {"items.3.deep.items.0.x"}),
    "PathContains index": (PathContains(2), ALL - {"items.2.x"}),
    "callable": (lambda path, node: path[-1:] == (1,), ALL - {"items.1.b", "items.1.w"}),
    "numpy bool": (lambda path, node: np.bool_(path == ("items", 0)), ALL - {"items.0.x"}),
    "OfType": (OfType(Tagged), ALL - {"items.2.x"}),
    "Any": (Any(Tagged, Declared), {"items.0.x", "items.3.deep.items.0.x"}),
    "All": (All(Noise, Not("skip")), {"items.1.b", "items.1.w", "items.2.x"}),
    "Not": (Not(Declared), {"items.1.b", "items.1.w"}),
}


@pytest.mark.parametrize("name", NODE_FILTERS)
@pytest.mark.parametrize("size", [None, 3])
def test_filters_of_nodes(name, size):
    given, expected = NODE_FILTERS[name]
    net = group()
    if size is None:
        sb.nn.init_all_states(net, node_to_exclude=given)
    else:
        sb.nn.vmap_init_all_states(net, axis_size=size, node_to_exclude=given)
    states = {".".join(map(str, path)): state for path, state in net.states().items()}
    assert {path for path, state in states.items() if state.initialized} == expected
    assert all(states[path].members == size for path in expected)
    if name == "callable" and size is not None:
        sb.random.seed(11)
        every = values(sb.nn.vmap_init_all_states(group(), axis_size=size))
        for path in expected:
            assert_same_bits(states[path].value, every[path])


def test_an_excluded_parent_does_not_exclude_its_children():
    net = sb.nn.vmap_init_all_states(Tree(), axis_size=2, node_to_exclude=Tree)
    assert not hasattr(net, "own") and net.first.w.shape == (2, 2)


def test_filters_of_nodes_in_the_other_calls():
    net = sb.nn.vmap_init_all_states(Group(sb.nn.LIF(2), sb.nn.LIF(2)), axis_size=3)
    before = values(net)
    skip = PathContains(0)
    sb.nn.vmap_reset_all_states(net, axis_size=3, node_to_exclude=skip)
    after = values(net)
    assert_same_bits(after["items.0.v"], before["items.0.v"])
    assert not np.array_equal(after["items.1.v"], before["items.1.v"])
    sb.nn.vmap_call_all_fns(net, "reset_state", axis_size=3, node_to_exclude=Not(skip))
    assert_same_bits(net.items[1].v.value, after["items.1.v"])
    assert not np.array_equal(net.items[0].v.value, after["items.0.v"])


@pytest.mark.parametrize("answer", [1, None, "yes", jnp.bool_(True)], ids=repr)
@pytest.mark.parametrize("which", ["node_to_exclude", "state_to_exclude"])
def test_a_filter_that_does_not_answer_with_a_bool(which, answer):
    net = group()
    before = picture(net)
    given = {which: lambda path, obj: answer}
    with pytest.raises(TypeError, match="must answer with a bool; at path .* it gave "):
        sb.nn.vmap_init_all_states(net, axis_size=2, **given)
    assert picture(net) == before


# --- states -----------------------------------------------------------------------------

STATE_FILTERS = {
    "None": (None, set()),
    "False": (False, set()),
    "empty": ([], set()),
    "Nothing": (Nothing(), set()),
    "True": (True, ALL),
    "Ellipsis": (..., ALL),
    "Everything": (Everything(), ALL),
    "type": (sb.nn.ParamState, {"items.1.b", "items.1.w"}),
    "str": ("trained", {"items.1.w"}),
    "list": (["trained", PathContains("deep")], {"items.1.w", "items.3.deep.items.0.x"}),
    "nested": (((PathContains("b"),), [["trained"]]), {"items.1.b", "items.1.w"}),
    # `x` is an attribute that only `init_state` makes.
    "PathContains": (PathContains("x"), {path for path in ALL if path.endswith("x")}),
    "PathContains index": (PathContains(2), {"items.2.x"}),
    "callable": (lambda path, state: path == ("items", 1, "w"), {"items.1.w"}),
    "by value": (lambda path, state: state.shape == (1,), {"items.3.deep.items.0.x"}),
    "Any": (Any("trained", PathContains(2)), {"items.1.w", "items.2.x"}),
    "All": (All(sb.nn.ParamState, Not("trained")), {"items.1.b"}),
    "Not": (Not(sb.nn.ParamState), ALL - {"items.1.b", "items.1.w"}),
}


@pytest.mark.parametrize("name", STATE_FILTERS)
def test_filters_of_states(name):
    given, excluded = STATE_FILTERS[name]
    net = sb.nn.vmap_init_all_states(group(), axis_size=3, state_to_exclude=given)
    states = {".".join(map(str, path)): state for path, state in net.states().items()}
    assert set(states) == ALL
    sb.random.seed(11)
    single = values(sb.nn.init_all_states(group()))
    # jax's own eager and compiled results may differ in the last bit; either is right.
    compiled = jax.jit(sb.nn.init_function(group()))(call_key())
    sb.random.seed(11)
    every = values(sb.nn.vmap_init_all_states(group(), axis_size=3))
    for path, state in states.items():
        assert state.members == (None if path in excluded else 3), path
        if path in excluded:
            assert_same_bits(state.value, single[path], either=compiled[path])
        else:
            assert_same_bits(state.value, every[path])


def test_filters_of_states_see_real_paths():
    seen = {}

    def look(path, state):
        seen[path] = type(state)
        return False

    net = sb.nn.vmap_init_all_states(group(), axis_size=2, state_to_exclude=look)
    assert seen == {path: type(state) for path, state in net.states().items()}
    assert ("items", 3, "deep", "items", 0, "x") in seen


class Reads(sb.nn.Module):
    """States that are computed from another, which may be shared."""

    def init_state(self):
        self.base = sb.nn.State(jax.random.normal(sb.random.next_key(), (2,)))
        noise = jax.random.normal(sb.random.next_key(), (2,))
        self.copy = sb.nn.State(self.base.value)
        self.near = sb.nn.State(jnp.maximum(self.base.value, noise))
        self.base.value = -self.base.value
        self.after = sb.nn.State(self.base.value)


def test_members_read_the_value_of_the_excluded_state():
    net = sb.nn.vmap_init_all_states(Reads(), axis_size=4, state_to_exclude=PathContains("base"))
    base = -np.asarray(jax.random.normal(node_key(call_key()), (2,)))
    assert_same_bits(net.base.value, jnp.asarray(base))
    assert_same_bits(net.copy.value, jnp.broadcast_to(-base, (4, 2)))
    assert_same_bits(net.after.value, jnp.broadcast_to(base, (4, 2)))

    def near(key):
        return jnp.maximum(-base, jax.random.normal(node_key(key, draw=1), (2,)))

    assert_same_bits(net.near.value, jax.vmap(near)(jax.random.split(call_key(), 4)))


def test_an_excluded_state_that_is_computed_from_a_state_of_the_members():
    net = sb.nn.vmap_init_all_states(Reads(), axis_size=4, state_to_exclude=PathContains("near"))
    expected = vmapped(Reads(), 4, call_key())
    single = jax.jit(sb.nn.init_function(Reads()))(call_key())
    assert_values(net, {**expected, "near": single["near"]})


def test_an_excluded_state_is_usable_and_can_be_shared_again():
    exclude = PathContains("weight")
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(6, 2), axis_size=3, state_to_exclude=exclude)
    assert net.weight.members is None and net.weight.shape == (2, 6)
    x = jnp.arange(6.0)
    out = sb.nn.vmap(net, in_axes=None)(x)
    assert_same_bits(out, jnp.broadcast_to(out[0], (3, 2)))
    held = net.weight
    sb.nn.vmap_init_all_states(net, axis_size=3)
    assert net.weight is held and held.shape == (3, 2, 6)
    sb.nn.vmap_init_all_states(net, axis_size=2, state_to_exclude=exclude)
    assert net.weight is held and held.shape == (2, 6) and net.bias.shape == (2, 2)


def test_all_states_excluded():
    net = sb.nn.vmap_init_all_states(Tree(), axis_size=5, state_to_exclude=True)
    assert net.members is None
    assert_values(net, jax.jit(sb.nn.init_function(Tree()))(call_key()))


# --- NonBatchState ----------------------------------------------------------------------


class Shared(sb.nn.Module):
    def __init__(self):
        self.mean = sb.nn.NonBatchState(jnp.zeros(2))

    def init_state(self):
        self.scale = sb.nn.NonBatchState(jax.random.normal(sb.random.next_key(), (2,)))
        self.mean.value = jnp.ones(2)
        self.w = sb.nn.ParamState(jax.random.normal(sb.random.next_key(), (2,)))
        self.twice = sb.nn.State(self.scale.value * 2)

    def shift(self):
        self.mean.value = self.mean.value + 1
        self.w.value = self.w.value * 2


@pytest.mark.parametrize("exclude", [None, lambda path, state: False])
def test_a_non_batch_state_has_no_members(exclude):
    net = sb.nn.vmap_init_all_states(Shared(), axis_size=3, state_to_exclude=exclude)
    assert net.mean.shape == net.scale.shape == (2,) and net.scale.members is None
    assert_same_bits(net.scale.value, jax.random.normal(node_key(call_key()), (2,)))
    assert_same_bits(net.twice.value, jnp.broadcast_to(2 * net.scale.value, (3, 2)))
    assert_same_bits(net.w.value, vmapped(Shared(), 3, call_key())["w"])


def test_a_non_batch_state_in_another_call():
    net = sb.nn.vmap_init_all_states(Shared(), axis_size=3)
    w = net.w.value
    sb.nn.vmap_call_all_fns(net, "shift", axis_size=3)
    assert_same_bits(net.mean.value, 2 * jnp.ones(2))
    assert_same_bits(net.w.value, w * 2)


def test_a_non_batch_state_that_differs_from_member_to_member():
    class Differs(Shared):
        def shift(self):
            self.mean.value = self.w.value

    net = sb.nn.vmap_init_all_states(Differs(), axis_size=3)
    before = picture(net)
    message = r"^the states \['mean'\] are shared by all members, but would be computed from "
    with pytest.raises(ValueError, match=message):
        sb.nn.vmap_call_all_fns(net, "shift", axis_size=3)
    assert picture(net) == before


# --- tags -------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["new", ("new", "more"), ["new"]])
def test_the_states_of_a_call_get_its_tag(tag):
    net = sb.nn.vmap_init_all_states(group(), axis_size=2, state_tag=tag)
    tags = {tag} if isinstance(tag, str) else set(tag)
    assert net.items[0].x.tags == tags and net.items[1].w.tags == tags | {"trained"}
    assert set(net.states("new")) == set(net.states())


def test_the_tag_of_vmap_call_is_for_the_states_that_it_makes():
    class Makes(Declared):
        def make(self):
            self.w.value = self.w.value
            self.fresh = sb.nn.State(1.0)

    net = sb.nn.vmap_init_all_states(Makes(2), axis_size=2)
    sb.nn.vmap_call_all_fns(net, "make", axis_size=2, state_tag="new")
    assert net.fresh.tags == {"new"} and net.w.tags == {"trained"} and net.b.tags == frozenset()
