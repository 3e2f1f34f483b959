"""The filter language: what each filter matches, and what is refused before anything is asked."""

import copy
import doctest
import itertools
import pickle
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from seedbed import filters
from seedbed.filters import (
    All,
    Any,
    Everything,
    Not,
    Nothing,
    OfType,
    PathContains,
    WithTag,
    to_predicate,
)

pytestmark = pytest.mark.end("newest")


class Weight:
    tag = "slow"


class Bias:
    tag = None


class Gain(Weight):
    tag = ("fast", "sweep")


OBJECTS = {
    ("layers", 0, "weight"): Weight(),
    ("layers", 0, "bias"): Bias(),
    ("layers", 1, "weight"): Gain(),
    ("gain",): Gain(),
}


def selected(filter):
    keep = to_predicate(filter)
    return [path for path, obj in OBJECTS.items() if keep(path, obj)]


W0, B0, W1, G = OBJECTS


@pytest.mark.parametrize(
    ("filter", "paths"),
    [
        (True, [W0, B0, W1, G]),
        (..., [W0, B0, W1, G]),
        (False, []),
        (None, []),
        (Everything(), [W0, B0, W1, G]),
        (Nothing(), []),
        (Weight, [W0, W1, G]),
        (OfType(Gain), [W1, G]),
        ("slow", [W0]),
        ("sweep", [W1, G]),
        ("swee", []),
        (WithTag("fast"), [W1, G]),
        (PathContains("weight"), [W0, W1]),
        (PathContains(0), [W0, B0]),
        (PathContains(False), []),
        (PathContains("0"), []),
        (lambda path, obj: path[-1] == "bias", [B0]),
        (lambda path, obj: np.bool_(len(path) == 1), [G]),
        ([], []),
        ((), []),
        ([Bias, "slow"], [W0, B0]),
        ([[(Bias,)], [None, ["slow"]]], [W0, B0]),
        (Any(), []),
        (All(), [W0, B0, W1, G]),
        (Any(Bias, PathContains("gain")), [B0, G]),
        (All(Weight, PathContains("layers")), [W0, W1]),
        (All(Gain, Not(["slow", PathContains("layers")])), [G]),
        (Not(Weight), [B0]),
        (Not([]), [W0, B0, W1, G]),
    ],
)
def test_what_a_filter_matches(filter, paths):
    assert selected(filter) == paths


@pytest.mark.parametrize(
    ("obj", "matches"),
    [
        (SimpleNamespace(tag="a"), True),
        (SimpleNamespace(tag="ab"), False),
        (SimpleNamespace(tag=["b", "a"]), True),
        (SimpleNamespace(tag={"a"}), True),
        (SimpleNamespace(tags=frozenset({"a", "b"})), True),
        (SimpleNamespace(tag=None, tags=frozenset()), False),
        (SimpleNamespace(tag=np.zeros(3)), False),
        (SimpleNamespace(tag=[np.zeros(3), "a"]), True),
        (object(), False),
    ],
)
def test_tags(obj, matches):
    assert to_predicate("a")((), obj) is matches
    assert to_predicate(WithTag("a"))((), obj) is matches


@pytest.mark.parametrize("key", [1, True, "1", b"1", (1,), (True,), ("a", (1, "b"))])
def test_path_elements_are_told_apart_by_type(key):
    elements = [1, True, "1", b"1", (1,), (True,), ("a", (1, "b")), ("a", (True, "b"))]
    keep = to_predicate(PathContains(key))
    same = [one for one in elements if keep(("x", one), None)]
    assert [repr(one) for one in same] == [repr(key)]
    assert PathContains(1) != PathContains(True) and PathContains(key) == PathContains(key)


@pytest.mark.parametrize(
    ("filter", "came"),
    [
        (3, "got 3 of type int"),
        (1, "got 1 of type int"),
        (1.5, "got 1.5 of type float"),
        ({"slow"}, "got {'slow'} of type set"),
        ({}, "got {} of type dict"),
        (np.True_, "of type bool"),
        (np.zeros(2), "of type ndarray"),
        (list[int], "got list of type GenericAlias"),
        (int | str, "of type Union"),
        (object(), "of type object"),
    ],
)
def test_everything_else_is_refused(filter, came):
    for wrapped in (filter, [filter], Not(filter), Any("a", All(filter)), [[True, [filter]]]):
        with pytest.raises(TypeError, match="^Invalid collection filter: got ") as caught:
            to_predicate(wrapped)
        assert came in str(caught.value)
        assert str(caught.value).endswith("Everything, Nothing")


@pytest.mark.parametrize("one", [Everything, Nothing, WithTag, Any, Not])
def test_a_filter_class_that_was_not_called(one):
    message = (
        rf"^Invalid collection filter: got the class {one.__name__}.*did you mean {one.__name__}\("
    )
    for make in (lambda: to_predicate(one), lambda: to_predicate([int, one]), lambda: OfType(one)):
        with pytest.raises(TypeError, match=message):
            make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WithTag(3), "WithTag takes a str, not 3 of type int"),
        (lambda: WithTag(["a"]), r"WithTag takes a str, not \['a'\] of type list"),
        (lambda: PathContains(1.0), "PathContains takes one element of a path .* not 1.0 of type"),
        (lambda: PathContains(None), "PathContains takes one element of a path .* NoneType"),
        (lambda: OfType("Linear"), "OfType takes a type, not 'Linear' of type str"),
        (lambda: OfType((int, str)), "OfType takes a type, not .* of type tuple"),
    ],
)
def test_arguments_of_the_filters(make, message):
    with pytest.raises(TypeError, match="^Invalid collection filter: " + message):
        make()


def test_filters_take_the_arguments_they_say():
    for make in (lambda: Not(), lambda: Not(1, 2), lambda: Everything(1), lambda: WithTag()):
        with pytest.raises(TypeError, match="argument"):
            make()


@pytest.mark.parametrize("answer", [None, 1, "yes", np.ones(1, bool), jnp.array(True), [True]])
def test_a_callable_must_answer_with_a_bool(answer):
    def choose(path, obj):
        return answer

    keep = to_predicate(Not([choose]))
    with pytest.raises(TypeError, match="must answer with a bool") as caught:
        keep(("layers", 0), None)
    assert "choose" in str(caught.value) and "('layers', 0)" in str(caught.value)
    assert f"of type {type(answer).__name__}" in str(caught.value)


def test_what_a_callable_raises_comes_through():
    def choose(path, obj):
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        to_predicate([choose])((), None)


def test_any_and_all_stop_early():
    def never(path, obj):
        raise AssertionError("asked")

    assert to_predicate([True, never])((), None)
    assert not to_predicate(All(False, never))((), None)


def test_nesting():
    deep = shallow = "slow"
    for _ in range(64):
        shallow = [shallow]
    assert selected(shallow) == [W0]
    for _ in range(5_000):
        deep = Not(deep)
    own = []
    own += [own, own]
    for absurd in ([shallow], deep, own):
        with pytest.raises(TypeError, match="^Invalid collection filter: .* more than 64 deep"):
            to_predicate(absurd)
    with pytest.raises(TypeError, match="more than 64 deep"):
        Any(own)


class Endless(list):
    def __iter__(self):
        return itertools.repeat(int)


def test_a_filter_that_is_never_gone_through():
    twice = [int]
    for _ in range(60):
        twice = [twice, twice]
    combined = Any(int)
    for _ in range(60):
        combined = Any(combined, combined)
    for absurd in (twice, combined, Endless([int])):
        with pytest.raises(TypeError, match="^Invalid collection filter: more than 262144 filt"):
            to_predicate(absurd)
    for absurd in (twice, Endless([int])):
        with pytest.raises(TypeError, match="^Invalid collection filter: more than 262144 filt"):
            Not(absurd)
    assert to_predicate(["a"] * 200_000 + [int])((), 3)


FILTERS = [
    *(Everything(), Nothing(), WithTag("a"), PathContains("a"), PathContains((1, "a"))),
    *(OfType(int), OfType(Weight), Any(), All(), Any("a", int), All("a", int), Not("a")),
    *(Not(["a", [int]]), Any(..., None, True), All(Not(PathContains(1)), Weight), Not(Any("a"))),
]


@pytest.mark.parametrize("filter", FILTERS, ids=repr)
def test_filters_are_values(filter):
    assert eval(repr(filter)) == filter
    for twin in (eval(repr(filter)), copy.deepcopy(filter), pickle.loads(pickle.dumps(filter))):
        assert twin == filter and hash(twin) == hash(filter) and type(twin) is type(filter)
    assert [other for other in FILTERS if other == filter] == [filter]
    assert filter != "a" and filter is not None
    with pytest.raises(AttributeError, match="immutable"):
        filter.tag = "b"
    with pytest.raises(AttributeError, match="immutable"):
        del filter._args


def test_a_list_inside_of_a_filter_is_copied():
    tags = ["slow"]
    filter = Not(tags)
    tags.append("fast")
    assert selected(filter) == [B0, W1, G]
    assert repr(filter) == "Not(('slow',))"


def test_a_list_is_read_once():
    tags = ["slow"]
    keep = to_predicate(tags)
    tags.append(3)
    assert keep(W0, OBJECTS[W0]) and not keep(W1, OBJECTS[W1])


def test_examples_in_the_documentation():
    results = doctest.testmod(filters)
    assert not results.failed and results.attempted >= 20
