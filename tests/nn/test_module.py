"""Modules: attributes, members, their picture, calls refused, depth, writes in init_state."""

import copy
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import Node, normal
from seedbed.nn import HiddenState, Module, ParamState, State

pytestmark = pytest.mark.end("newest")


def batched(net, size=5):
    return sb.nn.vmap_init_all_states(net, axis_size=size)


# --- attributes -------------------------------------------------------------------------


def test_attributes_are_pythons():
    net = Node(a=1)
    assert net.a == 1 and vars(net) == {"a": 1} and hasattr(net, "a")
    del net.a
    assert not hasattr(net, "a")
    with pytest.raises(AttributeError, match="'Node' object has no attribute 'a'"):
        net.a  # noqa: B018
    with pytest.raises(AttributeError, match="a"):
        del net.a


def test_no_constructor_is_needed():
    class Plain(Module):
        pass

    net = Plain()
    assert not net.states() and list(net.nodes()) == [()] and net.members is None
    assert sb.nn.init_all_states(net) is net


class WithProperty(Module):
    """A property with a setter, a slot, a class attribute, and __getattr__."""

    limit = 3

    def __init__(self):
        self._scale = State(1.0)

    @property
    def scale(self):
        return self._scale.value

    @scale.setter
    def scale(self, value):
        if value < 0:
            raise ValueError("negative scale")
        self._scale.value = value

    def __getattr__(self, name):
        if name.startswith("any_"):
            return name
        raise AttributeError(name)


def test_properties_and_getattr_work():
    net = WithProperty()
    net.scale = 2.0
    assert net._scale.value == 2.0 and "scale" not in vars(net)
    with pytest.raises(ValueError, match="negative scale"):
        net.scale = -1.0
    assert net.any_thing == "any_thing" and not hasattr(net, "other") and net.limit == 3


# --- attributes set inside of init_state ------------------------------------------------


class Writes(WithProperty):
    """An init_state that makes, changes and deletes attributes, and looks at them."""

    def __init__(self):
        super().__init__()
        self.old = "old"
        self.changed = 1
        self.inits = 0
        self.seen = None

    def init_state(self, fail=False):
        self.inits += 1
        self.changed = 2
        self.new = {"flag": True}
        self.limit = 4
        self.scale = 5.0
        self.v = HiddenState(jnp.zeros(3))
        assert hasattr(self, "old") and hasattr(self, "new")
        del self.old
        del self.new["flag"]
        self.temporary = 1
        del self.temporary
        with pytest.raises(AttributeError, match="has no attribute 'never'"):
            del self.never
        with pytest.raises(AttributeError, match="old"):
            del self.old
        self.seen = (hasattr(self, "old"), hasattr(self, "temporary"), self.changed, self.any_x)
        if fail:
            raise RuntimeError("stop")

    def __delattr__(self, name):
        if name == "never":
            raise AttributeError("'Writes' object has no attribute 'never'")
        super().__delattr__(name)


CALLS = {
    "init": sb.nn.init_all_states,
    "vmap_init": lambda net, *args: sb.nn.vmap_init_all_states(net, *args, axis_size=4),
    "vmap_call": lambda net, *args: sb.nn.vmap_call_all_fns(net, "init_state", args, axis_size=4),
}


@pytest.mark.parametrize("call", CALLS)
def test_what_init_state_sets_is_there_afterwards(call):
    net = Writes()
    CALLS[call](net)
    size = None if call == "init" else 4
    assert net.inits == 1 and net.changed == 2 and net.new == {}
    assert not hasattr(net, "old") and "temporary" not in vars(net)
    assert vars(net)["limit"] == 4 and Writes.limit == 3
    assert net.seen == (False, False, 2, "any_x")
    assert net.v.members == size and net._scale.members == size
    np.testing.assert_array_equal(net._scale.value, np.full((4,) if size else (), 5.0))
    CALLS[call](node := Writes())
    assert sorted(vars(node)) == sorted(vars(net))


@pytest.mark.parametrize("call", CALLS)
def test_nothing_that_a_failed_init_state_set_is_there(call):
    net = Writes()
    before = dict(vars(net))
    with pytest.raises(RuntimeError, match="stop"):
        CALLS[call](net, True)
    assert vars(net) == before and net.limit == 3 and net._scale.value == 1.0


def test_the_order_of_attributes_is_that_of_setting_them():
    net = Node()
    net.init_state = lambda: [setattr(net, name, 1) for name in ("z", "a", "m")]
    sb.nn.init_all_states(net)
    assert list(vars(net)) == ["init_state", "z", "a", "m"]


def test_a_traced_value_may_not_become_an_attribute():
    class Careless(Module):
        def init_state(self):
            self.scale = jax.random.uniform(sb.random.next_key())

    net = Careless()
    message = "'scale' of Careless was set to a value that is traced.*self.scale = seedbed.nn.State"
    with pytest.raises(TypeError, match=message):
        batched(net)
    assert not hasattr(net, "scale")
    sb.nn.init_all_states(net)
    assert net.scale.shape == ()


# --- members ----------------------------------------------------------------------------


def test_members():
    net = Node(a=sb.nn.Linear(3, 2), b=[sb.nn.Linear(2, 1)], c=State(1))
    assert net.members is None
    batched(net.a)
    assert net.members == 5 and net.a.members == 5 and net.b[0].members is None
    batched(net.b[0], 4)
    message = "hold different numbers of members: {5: ('a', 'bias'), 4: ('b', 0, 'bias')}"
    with pytest.raises(ValueError, match=re.escape(message)):
        net.members  # noqa: B018


# --- the picture ------------------------------------------------------------------------


def test_repr_is_a_tree():
    net = Node(
        layers=[sb.nn.Linear(10, 20), jax.nn.relu, sb.nn.Linear(20, 1, bias=False)],
        gain=State(2.0, tag=("sweep", "fast")),
        rate=0.5,
        table=np.zeros((3, 4), np.int8),
        sizes=(10, 20),
        named={"a": State({"x": jnp.ones(2)}), 3: None},
        _secret="hidden",
        _state=State(None),
    )
    net.alias = net.layers[0]
    net.tied = net.gain
    net.root = net
    assert repr(net).splitlines() == [
        "Node",
        "  _state: State(None)",
        "  alias: Linear",
        "    bias: ParamState(shape=(20,), dtype=float32, declared)",
        "    weight: ParamState(shape=(20, 10), dtype=float32, declared)",
        "  gain: State(2.0, tag='fast', 'sweep')",
        "  layers.0: Linear  (shared: alias)",
        "  layers.1: relu",
        "  layers.2: Linear",
        "    bias: None",
        "    weight: ParamState(shape=(1, 20), dtype=float32, declared)",
        "  named.3: None",
        "  named.a: State({x: float32[2]})",
        "  rate: 0.5",
        "  root: Node  (shared: root)",
        "  sizes: (10, 20)",
        "  table: ndarray(shape=(3, 4), dtype=int8)",
        "  tied: State(2.0, tag='fast', 'sweep')  (shared: gain)",
    ]


def test_repr_of_members():
    net = batched(sb.nn.Sequential(sb.nn.Linear(3, 2)), 8)
    assert repr(net).splitlines() == [
        "Sequential  (8 members)",
        "  layers.0: Linear",
        "    bias: ParamState(shape=(8, 2), dtype=float32, members=8)",
        "    weight: ParamState(shape=(8, 2, 3), dtype=float32, members=8)",
    ]


def test_repr_cuts_what_is_long():
    assert repr(Node(text="x" * 100)).splitlines()[1] == f"  text: '{'x' * 55} ..."


def test_repr_of_mixed_members_does_not_fail():
    net = Node(a=batched(sb.nn.Linear(1, 1), 5), b=batched(sb.nn.Linear(1, 1), 4))
    assert repr(net).splitlines()[0] == "Node  (4, 5 members)"


# --- calling a module of many members ---------------------------------------------------

MESSAGE = (
    r"^{} holds 5 members, and calling it runs a single one; run all of them with "
    r"seedbed\.nn\.vmap\(module\)\(\.\.\.\)\. A function of modules takes them as arguments: "
    r"vmap\(function\)\(module, \.\.\.\)$"
)


class Doubled(sb.nn.Linear):
    def __call__(self, x):
        return 2 * super().__call__(x)


class Inherited(Doubled):
    pass


@pytest.mark.parametrize("cls", [sb.nn.Linear, Doubled, Inherited])
def test_a_module_of_many_members_refuses_a_call(cls):
    net = cls(3, 2)
    single = sb.nn.init_all_states(cls(3, 2))
    assert single(jnp.ones(3)).shape == (2,)
    batched(net)
    for x in (jnp.ones(3), jnp.ones((5, 3)), jnp.ones((5, 7, 3))):
        with pytest.raises(ValueError, match=MESSAGE.format(cls.__name__)):
            net(x)
    assert sb.nn.vmap(net)(jnp.ones((5, 3))).shape == (5, 2)
    sb.nn.init_all_states(net)
    assert net(jnp.ones(3)).shape == (2,)


def test_a_parent_of_one_refuses_too():
    net = batched(sb.nn.Sequential(jax.nn.relu, sb.nn.Linear(3, 2)))
    with pytest.raises(ValueError, match=MESSAGE.format("Linear")):
        net(jnp.ones(3))


def test_a_module_with_states_in_containers_refuses():
    class Bag(Module):
        def __init__(self):
            self.items = {"a": [ParamState(init=normal, shape=())]}

        def __call__(self):
            return self.items["a"][0].value

    net = batched(Bag())
    with pytest.raises(ValueError, match=MESSAGE.format("Bag")):
        net()
    assert sb.nn.vmap(net)().shape == (5,)


def test_a_call_keeps_its_name_and_documentation():
    assert sb.nn.Linear.__call__.__name__ == "__call__"
    assert Doubled.__call__.__qualname__ == "Doubled.__call__"


# --- what a parent does with its children ----------------------------------------------


def test_the_default_init_state_draws_the_states_of_its_node(key):
    net = Node(a=ParamState(init=normal, shape=(2,)), b=[sb.nn.Linear(1, 1)], c=State(7))
    with sb.random.stream(key):
        net.init_state("ignored", also=1)
    assert net.a.initialized and net.c.value == 7
    assert not net.b[0].weight.initialized
    net.reset_state("ignored", also=1)
    assert_same_bits(net.a.value, normal(jax.random.fold_in(key, 0), (2,), jnp.float32))


# --- depth and number -------------------------------------------------------------------

DEPTH = 1200


def chain(depth):
    root = tip = Node(s=ParamState(init=normal, shape=(2,)))
    for _ in range(depth):
        tip.child = Node(s=ParamState(init=normal, shape=(2,)))
        tip = tip.child
    tip.root = root
    return root


@pytest.fixture(scope="module")
def deep():
    net = chain(DEPTH)
    sb.nn.assign_state_values(net, {path: jnp.ones(2) for path in net.states()})
    return net


def test_a_deep_tree_is_copied(deep):
    twin = copy.deepcopy(deep)
    assert len(twin.states()) == DEPTH + 1
    assert twin.nodes()[("child",) * DEPTH].root is twin
    assert not {id(state) for state in twin.states().values()} & {
        id(state) for state in deep.states().values()
    }


def test_a_tree_as_deep_as_pickle_can_go_is_pickled():
    net = chain(100)
    twin = pickle.loads(pickle.dumps(net))
    assert list(twin.states()) == list(net.states())
    assert twin.nodes()[("child",) * 100].root is twin


def test_a_deep_tree_is_printed(deep):
    lines = repr(deep).splitlines()
    assert len(lines) == 2 * (DEPTH + 1) + 1
    assert lines[-DEPTH - 2].strip() == "root: Node  (shared: root)"


def test_a_deep_tree_is_split_and_merged(deep):
    definition, values = sb.nn.split(deep)
    twin = sb.nn.merge(definition, values)
    assert list(twin.states()) == list(deep.states())
    assert repr(twin) == repr(deep)


def test_two_thousand_nodes():
    net = Node(items=[Node(s=State(float(i))) for i in range(2000)])
    assert len(net.nodes()) == 2001
    twin = copy.deepcopy(net)
    assert twin.items[1999].s.value == 1999.0 and twin.items[0] is not net.items[0]
    definition, values = sb.nn.split(net)
    again = sb.nn.merge(definition, values)
    assert [node.s.value for node in again.items] == [float(i) for i in range(2000)]
    sb.nn.vmap_init_all_states(net, axis_size=2)
    assert net.members is None  # nothing was declared, so nothing was written
