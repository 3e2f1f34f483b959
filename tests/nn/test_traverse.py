"""Walking module trees: order and paths; the words that a path's keys are derived with."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import run_python
from modules import Node
from seedbed.nn import ParamState, State
from seedbed.nn._tree.walk import dotted, path_words, walk

pytestmark = pytest.mark.end("newest")


# --- order and paths --------------------------------------------------------------------


def test_children_come_before_their_parent_and_the_root_last():
    net = Node(b=Node(y=Node(), x=Node()), a=Node(z=Node()), c=State(1))
    assert list(net.nodes()) == [("a", "z"), ("a",), ("b", "x"), ("b", "y"), ("b",), ()]
    assert net.nodes()[()] is net and net.nodes()["b", "y"] is net.b.y


def test_attributes_by_name_items_by_index_and_key():
    items = [Node() for _ in range(11)]
    net = Node(z=State(0), a=items, d={"k": Node(), "b": Node(), "a": State(1)}, t=(Node(),))
    expected = [("a", i) for i in range(11)] + [("d", "b"), ("d", "k"), ("t", 0), ()]
    assert list(net.nodes()) == expected
    assert list(net.states()) == [("d", "a"), ("z",)]


def test_order_does_not_depend_on_insertion():
    one, two = Node(a=Node(), b=Node(), c=Node()), Node(c=Node(), b=Node(), a=Node())
    assert list(one.nodes()) == list(two.nodes()) == [("a",), ("b",), ("c",), ()]
    first, second = Node(d={1: Node(), 2: Node()}), Node(d={2: Node(), 1: Node()})
    assert list(first.nodes()) == list(second.nodes())


def test_numbers_as_keys_are_ordered_as_numbers():
    net = Node(d={10: State(0), 9: State(0), -1: State(0)})
    assert list(net.states()) == [("d", -1), ("d", 9), ("d", 10)]


def test_keys_of_several_types_have_an_order_too():
    keys = ["a", 1, b"x", (1, "b"), 0]
    one = Node(d={key: State(0) for key in keys})
    two = Node(d={key: State(0) for key in reversed(keys)})
    assert list(one.states()) == list(two.states())
    assert {path[1] for path in one.states()} == set(keys)


def test_containers_nest():
    net = Node(a=[{"x": (Node(s=State(1)), [State(2)])}])
    assert list(net.nodes()) == [("a", 0, "x", 0), ()]
    assert list(net.states()) == [("a", 0, "x", 0, "s"), ("a", 0, "x", 1, 0)]


def test_a_shared_node_is_found_once_under_its_first_path():
    shared, tied = Node(s=State(1)), State(2)
    net = Node(b=shared, a=[shared, tied], c={"k": tied, "l": shared})
    assert list(net.nodes()) == [("a", 0), ()]
    assert list(net.states()) == [("a", 0, "s"), ("a", 1)]


def test_equal_but_distinct_states_are_two():
    assert len(Node(a=State(1), b=State(1)).states()) == 2


def test_cycles_end():
    net = Node(child=Node())
    net.me = net
    net.child.parent = net
    net.items = []
    net.items.append(net.items)
    net.items.append({"up": net.items, "s": State(1)})
    assert list(net.nodes()) == [("child",), ()]
    assert list(net.states()) == [("items", 1, "s")]


def test_what_is_not_a_module_or_plain_container_is_not_entered():
    class Holder:
        def __init__(self):
            self.state = State(1)

    net = Node(a=Holder(), b=lambda: State(1), c="text", d={State}, e=jnp.ones(3))
    assert not net.states() and list(net.nodes()) == [()]


def test_targets_may_be_containers():
    tree = walk([Node(s=State(1)), {"k": (Node(),)}])
    assert list(tree.nodes) == [(0,), (1, "k", 0)] and list(tree.states) == [(0, "s")]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "`target` must be a seedbed.nn.Module, or a list, tuple or dict of modules; got 3 of"),
        (None, "got None of type NoneType"),
        (State(1), r"got State\(1\) of type State"),
        ([Node(), 3], "its item 1 is 3 of type int"),
        ({"a": "b"}, "its item 'a' is 'b' of type str"),
    ],
)
def test_other_targets_are_refused(target, message):
    for call in (sb.nn.init_all_states, sb.nn.split, lambda t: sb.nn.assign_state_values(t, {})):
        with pytest.raises(TypeError, match=message):
            call(target)


def test_depth_and_number_do_not_matter():
    root = tip = Node(s=State(0))
    for _ in range(5000):
        tip.child = Node(s=State(0))
        tip = tip.child
    assert len(root.states()) == len(root.nodes()) == 5001
    items = deep = []
    for _ in range(5000):
        deep.append([])
        deep = deep[0]
    deep.append(State(1))
    assert len(Node(a=items).states()) == 1


# --- the words of a path ----------------------------------------------------------------


def words_of(encoding: bytes) -> tuple[int, int]:
    """blake2b of 8 bytes, as two big-endian words."""
    digest = hashlib.blake2b(encoding, digest_size=8).digest()
    return tuple(np.frombuffer(digest, ">u4").tolist())


def length(n: int) -> bytes:
    return n.to_bytes(8, "big")


# Written down by hand from the encoding that the documentation gives.
ENCODINGS = {
    (): b"",
    ("weight",): b"s" + length(6) + b"weight",
    ("layers", 0): b"s" + length(6) + b"layers" + b"i" + length(1) + b"0",
    ("layers", 10): b"s" + length(6) + b"layers" + b"i" + length(2) + b"10",
    ("é",): b"s" + length(2) + b"\xc3\xa9",
    ("",): b"s" + length(0),
    (-3,): b"i" + length(2) + b"-3",
    (True, False): b"b1b0",
    (b"\x00s",): b"y" + length(2) + b"\x00s",
    ((),): b"t" + length(0),
    (("a", (1,), True),): (
        b"t" + length(3) + b"s" + length(1) + b"a" + b"t" + length(1) + b"i" + length(1) + b"1b1"
    ),
}

# What `printf ENCODING | b2sum -l 64` prints for some of them.
GOLDEN = {
    (): (0xE4A6A057, 0x7479B2B4),
    ("weight",): (0x8ACA3E9A, 0x1BD09010),
    ("layers", 0): (0x7AFB273B, 0xE4DD1ABC),
    (True, False): (0x9CE384CE, 0x7A875DD0),
    (("a", (1,), True),): (0x3A627E91, 0x570F5E57),
}


@pytest.mark.parametrize("path", ENCODINGS, ids=str)
def test_words_are_the_hash_of_the_encoding(path):
    assert path_words(path) == words_of(ENCODINGS[path])


@pytest.mark.parametrize("path", GOLDEN, ids=str)
def test_words_never_change(path):
    assert path_words(path) == GOLDEN[path]


def test_paths_that_look_alike_have_words_of_their_own():
    paths = [
        *ENCODINGS,
        (1,), ("1",), (b"1",), (True,), ((1,),), (1, 0), (10,), ("1", "0"), ("10",),
        ("a", "b"), ("ab",), ("a.b",), (("a", "b"),), (("a",), "b"), ("b", "a"), (0,), (False,),
    ]  # fmt: skip
    assert len({path_words(path) for path in paths}) == len(paths)


def test_numbers_of_subclasses_are_numbers():
    class Index(int):
        def __str__(self):
            return "an index"

    class Name(str):
        pass

    assert path_words((Index(3), Name("a"))) == path_words((3, "a"))
    assert path_words((2**70,)) == words_of(b"i" + length(22) + b"1180591620717411303424")


def test_a_lone_surrogate_has_words():
    assert path_words(("\ud800",)) == words_of(b"s" + length(3) + b"\xed\xa0\x80")


@pytest.mark.parametrize("key", [1.5, None, frozenset(), jax.nn.relu, ("a", 2.0), np.float32(1)])
def test_other_keys_have_no_words(key):
    with pytest.raises(TypeError, match="random keys are derived from paths; use keys of type str"):
        path_words(("layers", key))


def test_an_initialisation_with_such_a_key_fails_and_changes_nothing(key):
    net = Node(d={1.5: sb.nn.Linear(2, 2)}, a=sb.nn.Linear(2, 2))
    with sb.random.stream(key):
        for init in (
            sb.nn.init_all_states,
            lambda net: sb.nn.vmap_init_all_states(net, axis_size=3),
        ):
            with pytest.raises(TypeError, match=r"the dictionary key 1\.5 of type float is on"):
                init(net)
        assert sb.random.get_state().count == 0
    assert not any(state.initialized for state in net.states().values())


_WORDS = """
    import json
    from seedbed.nn._tree.walk import path_words
    print(json.dumps([path_words(("layers", 0)), path_words(("a", (b"b", True)))]))
"""


def test_words_are_the_same_in_every_process():
    printed = {run_python(_WORDS, PYTHONHASHSEED=seed) for seed in ("0", "12345")}
    assert len(printed) == 1
    expected = [path_words(("layers", 0)), path_words(("a", (b"b", True)))]
    assert json.loads(printed.pop()) == [list(words) for words in expected]


def test_the_key_of_a_node_is_derived_with_the_words(key):
    net = Node(layers=[Node(s=ParamState(init=jax.nn.initializers.normal(1.0), shape=(3,)))])
    with sb.random.stream(key):
        sb.nn.init_all_states(net)
    node_key = jax.random.fold_in(key, 0)
    for word in words_of(ENCODINGS["layers", 0]):
        node_key = jax.random.fold_in(node_key, np.uint32(word))
    expected = jax.random.normal(jax.random.fold_in(node_key, 0), (3,))
    np.testing.assert_array_equal(net.states()["layers", 0, "s"].value, expected)


# --- dotted paths -----------------------------------------------------------------------


def test_dotted():
    assert dotted(("layers", 0, "weight")) == "layers.0.weight"
    assert dotted(()) == ""


@pytest.mark.parametrize(
    "attributes",
    [
        {"a": {"b": State(1)}, "a.b": State(2)},
        {"a": {1: State(1), "1": State(2)}},
        {"a": {"b.c": State(1), "b": {"c": State(2)}}},
    ],
)
def test_paths_that_are_written_alike_are_refused(attributes):
    net = Node(**attributes)
    assert len(net.states()) == 2
    with pytest.raises(ValueError, match="are both written 'a.*rename the attribute"):
        sb.nn.split(net)
    with pytest.raises(ValueError, match="are both written 'a.*rename the attribute"):
        sb.nn.assign_state_values(net, {("a",): 1})


# --- a filter has the path and the object -----------------------------------------------


def test_filters_of_states_and_nodes():
    net = Node(a=sb.nn.Linear(2, 2), b=Node(s=State(1, tag="t")))
    assert list(net.states("t")) == [("b", "s")]
    assert list(net.states(ParamState)) == [("a", "bias"), ("a", "weight")]
    assert list(net.states(sb.filters.PathContains("a"))) == [("a", "bias"), ("a", "weight")]
    assert list(net.states((ParamState, "t"))) == list(net.states())
    assert not net.states(None) and not net.nodes(False)
    assert list(net.nodes(sb.nn.Linear)) == [("a",)]
    assert list(net.nodes(lambda path, node: len(path) == 1)) == [("a",), ("b",)]
    for call in (net.states, net.nodes):
        with pytest.raises(TypeError, match="Invalid collection filter"):
            call(3)
