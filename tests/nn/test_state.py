"""States: their kinds, tags and values; what is declared only."""

import collections
import re
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from seedbed.nn import (
    BatchState,
    HiddenState,
    LongTermState,
    NonBatchState,
    ParamState,
    ShortTermState,
    State,
)

pytestmark = pytest.mark.end("newest")

normal = jax.nn.initializers.normal()


class Counting:
    """An initialiser that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, key, shape, dtype):
        self.calls += 1
        return jax.random.normal(key, shape, dtype)


def declared(init=normal, shape=(3, 2), **options):
    return ParamState(init=init, shape=shape, **options)


# --- kinds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (ShortTermState, State),
        (HiddenState, ShortTermState),
        (LongTermState, State),
        (ParamState, LongTermState),
        (BatchState, LongTermState),
        (NonBatchState, ShortTermState),
    ],
)
def test_kinds_are_a_hierarchy(kind, parent):
    assert kind.__bases__ == (parent,)
    assert kind(1.5).value == 1.5


def test_long_and_short_term_are_apart():
    assert not issubclass(HiddenState, LongTermState)
    assert not issubclass(ParamState, ShortTermState)


# --- values and what is known of them ---------------------------------------------------

VALUES = {
    "array": (jnp.ones((2, 3), jnp.bfloat16), (2, 3), "bfloat16"),
    "numpy": (np.ones((4,), np.int8), (4,), "int8"),
    "numpy scalar": (np.float16(2), (), "float16"),
    "int": (3, (), "int32"),
    "float": (3.0, (), "float32"),
    "bool": (True, (), "bool"),
    "complex": (1j, (), "complex64"),
    "empty": (jnp.zeros((0, 4)), (0, 4), "float32"),
}


@pytest.mark.parametrize("name", VALUES)
def test_shape_dtype_and_ndim(name):
    value, shape, dtype = VALUES[name]
    state = State(value)
    assert state.value is value
    assert state.shape == shape and state.ndim == len(shape)
    assert state.dtype == jnp.dtype(dtype)
    assert state.initialized and not state.declared
    assert state.members is None and state.mapped == ()


def test_shape_and_dtype_of_keys(key):
    state = State(jax.random.split(key, 5))
    assert state.shape == (5,) and state.ndim == 1
    assert state.dtype == key.dtype


@pytest.mark.parametrize("what", ["shape", "dtype", "ndim"])
@pytest.mark.parametrize("value", [None, {}, {"a": jnp.ones(2)}, (1, 2), [jnp.ones(2)]])
def test_a_pytree_has_no_single_shape(value, what):
    state = HiddenState(value)
    assert state.value is value
    with pytest.raises(TypeError, match=f"holds a {type(value).__name__}, which has no single"):
        getattr(state, what)


def test_a_quantity_with_a_unit_has_its_shape():
    brainunit = pytest.importorskip("brainunit")
    state = State(jnp.ones((2, 3)) * brainunit.mV)
    assert state.shape == (2, 3) and state.dtype == jnp.float32
    assert repr(state) == "State(shape=(2, 3), dtype=float32, unit=mV)"


def test_a_value_is_replaced_by_any_pytree():
    state = State(1.0)
    for value in [jnp.ones(3), {"a": (1, None)}, None, "text", np.zeros(2)]:
        state.value = value
        assert state.value is value


# --- declared states --------------------------------------------------------------------


def test_a_declared_state_is_drawn_at_its_first_read_and_once(key):
    init = Counting()
    state = declared(init)
    assert state.declared and not state.initialized and init.calls == 0
    assert (state.shape, state.dtype, state.ndim) == ((3, 2), jnp.float32, 2)
    assert init.calls == 0
    with sb.random.stream(key):
        first = state.value
        assert state.value is first and init.calls == 1 and state.initialized
    assert_same_bits(first, jax.random.normal(jax.random.fold_in(key, 0), (3, 2)))


def test_declaring_allocates_nothing():
    before = {id(array) for array in jax.live_arrays()}
    state = declared(shape=(1 << 20, 1 << 20))  # 4 TiB
    assert (state.shape, state.ndim, repr(state)) == (
        (1 << 20, 1 << 20),
        2,
        "ParamState(shape=(1048576, 1048576), dtype=float32, declared)",
    )
    assert {id(array) for array in jax.live_arrays()} <= before


def test_eight_threads_that_read_at_once_draw_once():
    init = Counting()
    state = declared(init, (100,))
    barrier, seen = threading.Barrier(8), []

    def read():
        barrier.wait()
        seen.append(state.value)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert init.calls == 1
    assert len(seen) == 8 and all(value is seen[0] for value in seen)


def test_an_init_that_raises_leaves_state_and_stream(key):
    def fails(key, shape, dtype):
        raise RuntimeError("no numbers today")

    state = declared(fails)
    with sb.random.stream(key):
        with pytest.raises(RuntimeError, match="no numbers today"):
            state.value  # noqa: B018
        assert sb.random.get_state().count == 0
    assert not state.initialized


def test_redraw_takes_the_next_key(key):
    state = declared()
    with sb.random.stream(key):
        first = state.value
        state.redraw()
    assert not np.array_equal(first, state.value)
    with pytest.raises(TypeError, match=r"State\(1\.0\) was not declared with `init` and `shape`"):
        State(1.0).redraw()


@pytest.mark.parametrize(
    "dtype",
    [None, float, int, "bfloat16", jnp.float16, np.dtype("float32"), np.dtype("int8"), np.uint32],
)
def test_declared_dtypes(dtype):
    seen = []

    def init(key, shape, dtype):
        seen.append(dtype)
        return jnp.zeros(shape, dtype)

    expected = jnp.zeros((), float if dtype is None else dtype).dtype
    state = State(init=init, shape=(2,), dtype=dtype)
    assert state.dtype == expected
    assert state.value.dtype == expected
    assert seen == [jnp.float32 if dtype is None else dtype]


@pytest.mark.parametrize("shape", [5, np.int64(5), (5,), [5], np.array([5]), iter([5])])
def test_declared_shapes(shape):
    state = State(init=normal, shape=shape)
    assert state.shape == (5,) and type(state.shape[0]) is int
    assert state.value.shape == (5,)


def test_a_written_declared_state_is_not_drawn():
    init = Counting()
    state = declared(init)
    state.value = jnp.ones((3, 2))
    assert state.initialized and init.calls == 0 and state.value.sum() == 6


def test_a_state_declared_outside_is_not_drawn_under_a_trace():
    state = declared()
    with pytest.raises(ValueError, match="declared outside of the function that jax is tracing"):
        jax.jit(lambda: state.value)()
    assert not state.initialized


# --- what the constructor refuses -------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "ParamState takes a value, or `init` and `shape` to declare one; got neither"),
        (
            {"value": 1, "init": normal, "shape": ()},
            "ParamState takes a value, or `init` and `shape` to declare one; got both",
        ),
        ({"shape": (2,)}, "ParamState takes a value, or `init` and `shape` to declare one"),
        ({"value": 1, "shape": ()}, "ParamState takes `shape` and `dtype` with `init` only"),
        ({"value": 1, "dtype": int}, "ParamState takes `shape` and `dtype` with `init` only"),
        (
            {"init": 3, "shape": ()},
            "`init` of ParamState must be a function init(key, shape, dtype), as those of "
            "jax.nn.initializers; got 3 of type int",
        ),
        ({"init": normal}, "`shape` of ParamState must be a tuple of integers that are not "),
        ({"init": normal, "shape": (2, -1)}, "are not negative; got (2, -1)"),
        ({"init": normal, "shape": (2.0,)}, "are not negative; got (2.0,)"),
        ({"init": normal, "shape": True}, "are not negative; got True"),
        ({"init": normal, "shape": (True, 2)}, "are not negative; got (True, 2)"),
        ({"init": normal, "shape": "12"}, "are not negative; got '12'"),
        ({"init": normal, "shape": ((1,),)}, "are not negative; got ((1,),)"),
        (
            {"init": normal, "shape": 2, "dtype": "float99"},
            "`dtype` of ParamState must be a dtype; got 'float99' of type str",
        ),
        (
            {"init": normal, "shape": 2, "dtype": 3.5},
            "`dtype` of ParamState must be a dtype; got 3.5 of type float",
        ),
        ({"value": 1, "tag": 1}, "`tag` must be a string, several strings, or None; got 1 of "),
        ({"value": 1, "tag": ["a", 1]}, "or None; got ['a', 1] of type list"),
        ({"value": 1, "tag": b"ab"}, "or None; got b'ab' of type bytes"),
        ({"value": 1, "tag": [["a"]]}, "or None; got [['a']] of type list"),
    ],
)
def test_what_the_constructor_refuses(options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        ParamState(**options)


# --- tags -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "tags", "as_tag"),
    [
        (None, set(), None),
        ("slow", {"slow"}, "slow"),
        ("", {""}, ""),
        ([], set(), None),
        (["slow"], {"slow"}, "slow"),
        (("a", "b", "a"), {"a", "b"}, frozenset({"a", "b"})),
        ({"a", "b"}, {"a", "b"}, frozenset({"a", "b"})),
    ],
)
def test_tags(tag, tags, as_tag):
    state = State(1, tag=tag)
    assert state.tags == tags and isinstance(state.tags, frozenset)
    assert state.tag == as_tag


def test_tags_are_added_and_replaced():
    state = declared(tag="a")
    state.add_tag("b")
    assert state.tags == {"a", "b"}
    state.tag = "c"
    assert state.tag == "c"
    state.tag = None
    assert state.tags == frozenset()
    with pytest.raises(TypeError, match="`tag` must be a string"):
        state.add_tag(3)
    with pytest.raises(TypeError, match="`tag` must be a string"):
        state.tag = {"a": 1, 2: 3}
    assert state.tags == frozenset() and not state.initialized


# --- repr -------------------------------------------------------------------------------

Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: State(3.0), "State(3.0)"),
        (lambda: State(None), "State(None)"),
        (lambda: State("a"), "State('a')"),
        (lambda: State(True, tag="t"), "State(True, tag='t')"),
        (lambda: ParamState(jnp.ones((2, 3))), "ParamState(shape=(2, 3), dtype=float32)"),
        (lambda: State(np.zeros(3, np.int8)), "State(shape=(3,), dtype=int8)"),
        (lambda: State(np.float16(1)), "State(shape=(), dtype=float16)"),
        (lambda: State(jax.random.key(0)), "State(shape=(), dtype=key<fry>)"),
        (lambda: State({"a": jnp.ones(2), "b": (1, None)}), "State({a: float32[2], b: (1, None)})"),
        (lambda: State(Point(1, jnp.ones(3))), "State(Point(x=1, y=float32[3]))"),
        (lambda: State({}), "State({})"),
        (lambda: declared(), "ParamState(shape=(3, 2), dtype=float32, declared)"),
        (
            lambda: HiddenState(init=normal, shape=4, dtype=jnp.bfloat16, tag=("b", "a")),
            "HiddenState(shape=(4,), dtype=bfloat16, declared, tag='a', 'b')",
        ),
    ],
)
def test_repr(make, text):
    assert repr(make()) == text


def test_repr_of_members():
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5)
    assert repr(net.weight) == "ParamState(shape=(5, 2, 3), dtype=float32, members=5)"
