"""Copies and pickles of states and modules: independent, with what was shared still shared."""

import copy
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from seedbed.nn import HiddenState, Module, ParamState, State

pytestmark = pytest.mark.end("newest")

initializers = jax.nn.initializers


def pickled(thing):
    return pickle.loads(pickle.dumps(thing))


def half(key, shape, dtype):
    """An initialiser of a module's own."""
    return jax.random.normal(key, shape, dtype) / 2


COPIES = {"copy": copy.copy, "deepcopy": copy.deepcopy, "pickle": pickled}


@pytest.fixture(params=COPIES)
def copied(request):
    return COPIES[request.param]


# --- states -----------------------------------------------------------------------------


def test_a_copy_of_a_state_is_independent(copied):
    state = ParamState(jnp.arange(3.0), tag="a")
    twin = copied(state)
    assert type(twin) is ParamState and twin is not state
    assert_same_bits(twin.value, state.value)
    twin.value = jnp.zeros(7)
    twin.add_tag("b")
    assert state.shape == (3,) and state.tags == {"a"} and twin.tags == {"a", "b"}
    state.value = jnp.ones(2)
    assert twin.shape == (7,)


def test_a_copy_of_a_declared_state_is_declared(copied, key):
    state = State(init=half, shape=(4,), dtype=jnp.float16, tag="t")
    twin = copied(state)
    assert repr(twin) == "State(shape=(4,), dtype=float16, declared, tag='t')"
    with sb.random.stream(key):
        drawn = twin.value
    assert not state.initialized
    with sb.random.stream(key):
        assert_same_bits(drawn, state.value)


def test_a_copy_of_a_state_with_members_keeps_them(copied):
    weight = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5).weight
    twin = copied(weight)
    assert twin.mapped == ((5, 0),) and twin.declared
    assert_same_bits(twin.value, weight.value)
    with pytest.raises(ValueError, match="holds 5 members along axis 0"):
        twin.value = 0.0


VALUES = {
    "none": None,
    "nested": {"a": jnp.ones((2, 0)), "b": [np.arange(3), (True, 2.5, 3j)]},
    "bfloat16": jnp.ones(3, jnp.bfloat16),
    "typed key": jax.random.key(3),
    "typed keys": {"k": jax.random.split(jax.random.key(3, impl="rbg"), 2)},
    "legacy key": jax.random.PRNGKey(3),
}


@pytest.mark.parametrize("name", VALUES)
def test_copies_of_values_of_all_kinds(copied, name):
    state = HiddenState(VALUES[name])
    twin = copied(state)
    assert jax.tree.structure(twin.value) == jax.tree.structure(state.value)
    for one, two in zip(jax.tree.leaves(twin.value), jax.tree.leaves(state.value), strict=True):
        assert type(one) is type(two)
        assert_same_bits(jnp.asarray(one), jnp.asarray(two))


def test_a_deepcopy_shares_no_buffer():
    state = State({"numpy": np.arange(3.0), "jax": jnp.arange(3.0)})
    twin = copy.deepcopy(state)
    twin.value["numpy"][0] = 9
    twin.value["jax"].delete()
    assert state.value["numpy"][0] == 0 and state.value["jax"][0] == 0


class Noted(State):
    """A kind with an attribute of its own."""

    def __init__(self, value, notes):
        super().__init__(value)
        self.notes = notes


def test_attributes_of_a_kind_are_copied_too(copied):
    state = Noted(1, ["a"])
    twin = copied(state)
    assert twin.notes == ["a"]
    if copied is not copy.copy:
        twin.notes.append("b")
        assert state.notes == ["a"]


# --- pickles of initialisers ------------------------------------------------------------

INITS = {
    "zeros": initializers.zeros,
    "ones": initializers.ones,
    "constant": initializers.constant(0.25),
    "constant of an array": initializers.constant(np.arange(6.0)),
    "constant of a jax array": initializers.constant(jnp.arange(6.0)),
    "uniform": initializers.uniform(0.3),
    "normal": initializers.normal(),
    "normal of a dtype": initializers.normal(2.0, dtype=jnp.bfloat16),
    "truncated_normal": initializers.truncated_normal(0.1, lower=-1.0, upper=3.0),
    "variance_scaling": initializers.variance_scaling(2.0, "fan_avg", "uniform"),
    "variance_scaling over axes": initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
    ),
    "variance_scaling of a batch": initializers.variance_scaling(
        1.0, "fan_out", "normal", in_axis=0, out_axis=1, batch_axis=()
    ),
    "glorot_uniform": initializers.glorot_uniform(),
    "glorot_normal": initializers.glorot_normal(),
    "lecun_uniform": initializers.lecun_uniform(),
    "lecun_normal": initializers.lecun_normal(),
    "he_uniform": initializers.he_uniform(),
    "he_normal": initializers.he_normal(in_axis=1, out_axis=0),
    "orthogonal": initializers.orthogonal(1.5, column_axis=0),
    "a function": half,
    "a partial": functools.partial(half),
}


@pytest.mark.parametrize("name", INITS)
def test_a_pickled_declared_state_draws_the_same_numbers(name, key):
    state = ParamState(init=INITS[name], shape=(5, 6))
    twin = pickled(state)
    assert not twin.initialized and not state.initialized
    with sb.random.stream(key):
        state.redraw()
    with sb.random.stream(key):
        twin.redraw()
    assert_same_bits(twin.value, state.value)


def test_a_pickled_delta_orthogonal(key):
    state = ParamState(init=initializers.delta_orthogonal(), shape=(3, 4, 4))
    twin = pickled(state)
    with sb.random.stream(key):
        state.redraw()
    with sb.random.stream(key):
        twin.redraw()
    assert_same_bits(twin.value, state.value)


@pytest.mark.parametrize("drawn", [False, True])
def test_what_pickle_cannot_take_is_pickles_own_error(drawn):
    state = State(init=lambda key, shape, dtype: jnp.zeros(shape, dtype), shape=(2,))
    if drawn:
        state.value  # noqa: B018
    with pytest.raises((pickle.PicklingError, AttributeError), match="<lambda>"):
        pickle.dumps(state)


# --- modules ----------------------------------------------------------------------------


class Tied(Module):
    """Two names for one state and one module, and a way back to the root."""

    def __init__(self):
        self.inner = sb.nn.Linear(3, 3)
        self.same = self.inner
        self.tied = self.inner.weight
        self.parts = {"x": [self.inner, ParamState(1.0)], 2: (self.inner.bias,)}
        self.root = self
        self.note = ["plain", {"b": 1}]


def draw(net, key, size):
    with sb.random.stream(key):
        if size is None:
            sb.nn.init_all_states(net)
        else:
            sb.nn.vmap_init_all_states(net, axis_size=size)
    return net


DEEP = {"deepcopy": copy.deepcopy, "pickle": pickled}


@pytest.fixture(params=DEEP)
def deep(request):
    return DEEP[request.param]


@pytest.mark.parametrize("size", [None, 4, "declared"])
def test_what_a_module_shares_its_copy_shares(deep, key, size):
    net = Tied() if size == "declared" else draw(Tied(), key, size)
    twin = deep(net)
    assert twin.same is twin.inner and twin.inner is not net.inner
    assert twin.tied is twin.inner.weight and twin.tied is not net.tied
    assert twin.parts["x"][0] is twin.inner and twin.parts[2][0] is twin.inner.bias
    assert twin.root is twin
    assert twin.note == net.note and twin.note[1] is not net.note[1]
    assert list(twin.states()) == list(net.states())
    assert list(twin.nodes()) == list(net.nodes())
    assert repr(twin) == repr(net)
    draw(net, key, 3), draw(twin, key, 3)
    for one, two in zip(twin.states().values(), net.states().values(), strict=True):
        assert_same_bits(jnp.asarray(one.value), jnp.asarray(two.value))


def test_a_copy_is_drawn_on_its_own(deep, key):
    net = sb.nn.Linear(3, 2)
    twin = deep(net)
    draw(net, key, 4)
    assert not twin.weight.initialized and twin.members is None
    draw(twin, key, 7)
    assert net.members == 4 and twin.members == 7
    assert_same_bits(twin.weight.value[:0], net.weight.value[:0])


def test_a_shallow_copy_of_a_module_shares_its_states():
    net = sb.nn.Linear(3, 2)
    twin = copy.copy(net)
    assert twin is not net and twin.weight is net.weight
    twin.bias = None
    assert net.bias is not None


@pytest.mark.parametrize(
    "make",
    [
        lambda: sb.nn.Sequential(sb.nn.Linear(3, 4), jax.nn.relu, jnp.tanh, sb.nn.Linear(4, 2)),
        lambda: sb.nn.GRUCell(3, 4),
        lambda: sb.nn.LIF(3),
        lambda: sb.nn.Dropout(0.5),
    ],
)
def test_layers_are_copied_and_pickled_before_and_after_initialisation(deep, make, key):
    net = deep(make())
    draw(net, key, 3)
    expected = draw(make(), key, 3)
    again = deep(net)
    for path, state in expected.states().items():
        assert_same_bits(net.states()[path].value, state.value)
        assert_same_bits(again.states()[path].value, state.value)
    assert again.members == expected.members


def test_a_pickle_does_not_hold_the_trace_it_was_made_in():
    data = pickle.dumps(sb.nn.Linear(3, 2))

    @jax.jit
    def inside(x):
        net = pickle.loads(data)
        net.weight.value = jnp.full((2, 3), x)
        net.bias.value = jnp.zeros(2)
        return net(jnp.ones(3))

    np.testing.assert_array_equal(inside(2.0), [6, 6])


def test_deepcopy_of_a_list_of_modules_goes_through_its_memo():
    shared = ParamState(2.0)
    one, two = sb.nn.Linear(1, 1), sb.nn.Linear(1, 1)
    one.extra = two.extra = shared
    first, second, alone = copy.deepcopy([one, two, shared])
    assert first.extra is second.extra is alone and alone is not shared


# --- copies made in a call --------------------------------------------------------------


class Target(Module):
    """A second network that starts as a copy of the first."""

    def __init__(self, way):
        self.net, self.way = sb.nn.Linear(3, 2), way

    def init_state(self):
        self.target = self.way(self.net)


WAYS = {"deepcopy": copy.deepcopy, "split and merge": lambda net: sb.nn.merge(*sb.nn.split(net))}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [None, 4])
def test_init_state_may_copy_a_child(way, size, key):
    net = draw(Target(WAYS[way]), key, size)
    assert_same_bits(net.target.weight.value, net.net.weight.value)
    assert net.target.weight is not net.net.weight
    assert net.target.members == size and net.members == size
    net.target.weight.value = net.target.weight.value + 1
    assert not np.array_equal(net.target.weight.value, net.net.weight.value)
    assert_same_bits(draw(Target(WAYS[way]), key, size).net.weight.value, net.net.weight.value)


@pytest.mark.parametrize("exclude", [None, sb.filters.PathContains("target")])
def test_a_copied_state_may_be_excluded(exclude, key):
    with sb.random.stream(key):
        net = Target(copy.deepcopy)
        sb.nn.vmap_init_all_states(net, axis_size=4, state_to_exclude=exclude)
    assert net.net.weight.members == 4
    assert net.target.weight.members == (None if exclude else 4)
    if exclude:
        assert_same_bits(
            net.target.weight.value, draw(Target(copy.deepcopy), key, None).net.weight.value
        )


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy])
def test_init_state_may_copy_a_state(how, key):
    class Both(Module):
        def __init__(self):
            self.net = sb.nn.Linear(3, 2)

        def init_state(self):
            self.twin = how(self.net.weight)
            self.fresh = how(State(init=half, shape=(2,)))

    net = draw(Both(), key, 4)
    assert_same_bits(net.twin.value, net.net.weight.value)
    assert net.fresh.shape == (4, 2) and net.twin.members == net.fresh.members == 4
