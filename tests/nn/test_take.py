"""`take`, and what else guards against slips: shapes, names, and states that nobody drew."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from seedbed.nn import HiddenState, Module, ParamState, State

pytestmark = pytest.mark.end("newest")

normal = jax.nn.initializers.normal()


@pytest.fixture
def net():
    made = sb.nn.Sequential(sb.nn.Linear(2, 6), jnp.tanh, sb.nn.Dropout(0.5))
    made.shared = State(jnp.arange(3.0), tag="kept")
    return sb.nn.vmap_init_all_states(made, axis_size=5)


def weights(net):
    return net.layers[0].weight


# --- take -------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [0, 3, -1, np.int64(2)])
def test_one_member_is_a_single_model(net, index):
    one = sb.nn.take(net, index)
    assert one.members is None and net.members == 5
    assert_same_bits(weights(one).value, weights(net).value[int(index)])
    assert_same_bits(one.shared.value, net.shared.value)
    assert one.shared is not net.shared and one.shared.tag == "kept"
    x = jnp.ones(2)
    expected = sb.nn.vmap(net, in_axes=None)(x, train=False)[int(index)]
    np.testing.assert_allclose(one(x, train=False), expected, rtol=1e-6)


@pytest.mark.parametrize("index", [slice(1, 4), [4, 0, 0], np.array([2]), slice(None, None, -2)])
def test_several_members_are_an_ensemble(net, index):
    some = sb.nn.take(net, index)
    expected = np.asarray(weights(net).value)[index]
    assert_same_bits(weights(some).value, expected)
    assert some.members == len(expected)
    assert sb.nn.vmap(some, in_axes=None)(jnp.ones(2)).shape == (len(expected), 6)


def test_members_along_another_axis_and_within_members():
    lin = sb.nn.Linear(3, 2)
    sb.nn.vmap_init_all_states(lin, axis_size=4, out_states={-1: lin.weight})
    some = sb.nn.take(lin, [1, 3])
    assert some.weight.shape == (2, 3, 2)
    assert_same_bits(some.weight.value, lin.weight.value[..., jnp.array([1, 3])])
    assert_same_bits(sb.nn.take(lin, 2).weight.value, lin.weight.value[..., 2])
    inner = sb.nn.Linear(3, 2)
    sb.nn.vmap_new_states(lambda: sb.nn.vmap_init_all_states(inner, axis_size=2), axis_size=4)()
    one = sb.nn.take(inner, 3)
    assert one.members == 2 and one.weight.shape == (2, 2, 3)


def test_what_take_refuses(net):
    with pytest.raises(IndexError, match="^`index` is 5, out of range for an ensemble of size=5"):
        sb.nn.take(net, 5)
    for wrong in (1.5, True, "a", None):
        with pytest.raises(TypeError, match="^`index` must be a slice or a one-dimensional array"):
            sb.nn.take(net, wrong)
    with pytest.raises(ValueError, match="^`module` must hold one number of members; .* hold 0"):
        sb.nn.take(sb.nn.Linear(2, 2), 0)
    with pytest.raises(TypeError, match="^`target` must be a seedbed.nn.Module"):
        sb.nn.take(None, 0)


# --- states that an override leaves alone -----------------------------------------------


class Forgetful(Module):
    def __init__(self):
        self.w = ParamState(init=normal, shape=(6,))

    def init_state(self):  # without super().init_state()
        self.h = HiddenState(jax.random.uniform(sb.random.next_key(), (2,)))


def test_declared_states_are_drawn_without_super():
    net = sb.nn.vmap_init_all_states(Forgetful(), axis_size=4)
    assert net.w.shape == (4, 6) and len(np.unique(net.w.value)) == 24
    with sb.random.stream(jax.random.key(1)):
        sb.nn.vmap_init_all_states(net, axis_size=3)
    again = Forgetful()
    with sb.random.stream(jax.random.key(1)):
        sb.nn.vmap_init_all_states(again, axis_size=3)
    assert_same_bits(net.w.value, again.w.value)
    assert sb.nn.init_all_states(Forgetful()).w.shape == (6,)


# --- slips ------------------------------------------------------------------------------


def test_an_initialiser_must_make_what_was_declared():
    slip = ParamState(init=jax.nn.initializers.he_normal, shape=(3, 3))
    with pytest.raises(TypeError, match="returned a function; an initialiser is what the function"):
        slip.value  # noqa: B018
    short = ParamState(init=lambda key, shape, dtype: jnp.zeros(5, dtype), shape=(3, 3))
    with pytest.raises(ValueError, match=r"returned shape \(5,\); declared was \(3, 3\)"):
        short.value  # noqa: B018
    assert not slip.initialized and not short.initialized


def test_a_state_is_not_replaced_by_an_array(net):
    before = weights(net).value
    with pytest.raises(TypeError, match="^'weight' of Linear is a ParamState; set its value, self"):
        net.layers[0].weight = jnp.zeros((5, 6, 2))
    assert weights(net).value is before
    net.layers[0].weight = State(1.0)  # another state is meant


@pytest.mark.parametrize("name", ["members", "nodes", "states"])
def test_names_that_modules_need_are_refused(name):
    with pytest.raises(AttributeError, match=f"^'{name}' is the name of what every module has"):
        setattr(sb.nn.Linear(2, 2), name, 1)


def test_a_misspelt_keyword_is_not_handed_to_the_methods():
    net = sb.nn.Linear(2, 2)
    message = "^got the keyword argument 'state_to_exlude', which no method .* 'state_to_exclude'"
    with pytest.raises(TypeError, match=message):
        sb.nn.vmap_init_all_states(net, axis_size=2, state_to_exlude=ParamState)
    assert not net.weight.initialized

    class Own(Module):
        def init_state(self, state_tags=()):
            self.tags = state_tags

    assert sb.nn.init_all_states(Own(), state_tags=(1,)).tags == (1,)


@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: ["a", (net,)]])
def test_a_module_is_no_filter(net, wrap):
    with pytest.raises(TypeError, match="^Invalid collection filter: the module Sequential itself"):
        sb.nn.vmap_init_all_states(net, axis_size=5, node_to_exclude=wrap(net))
    with pytest.raises(TypeError, match="^Invalid collection filter: the module Sequential itself"):
        net.states(wrap(net))


def test_merge_refuses_values_of_members_that_its_definition_has_not(net):
    definition, _ = sb.nn.split(sb.nn.init_all_states(sb.nn.Linear(3, 3)))
    values = {"bias": jnp.ones((3, 3)), "weight": jnp.ones((3, 3, 3))}
    message = r"of shape \(3, 3\) for 'bias', whose definition has the shape \(3,\) and no members"
    with pytest.raises(ValueError, match=message):
        sb.nn.merge(definition, values)
    definition, values = sb.nn.split(net)
    with pytest.raises(ValueError, match="and the definition has 5 members along axis 0 of it"):
        sb.nn.merge(definition, jax.tree.map(lambda leaf: leaf[:2], values))


def test_assigned_numpy_arrays_are_copied_and_of_the_same_dtype():
    net = sb.nn.init_all_states(sb.nn.Linear(3, 2))
    given = np.ones((2, 3), np.float32)
    sb.nn.assign_state_values(net, {"weight": given})
    given[:] = 7
    assert isinstance(net.weight.value, jax.Array) and net.weight.value[0, 0] == 1
    with pytest.raises(ValueError, match="a value of dtype int32; the state has float32$"):
        sb.nn.assign_state_values(net, {"weight": np.ones((2, 3), np.int32)})
    with pytest.raises(ValueError, match=r"of shape \(4, 2, 3\); .*Initialise 4 members first"):
        sb.nn.assign_state_values(net, {"weight": np.ones((4, 2, 3), np.float32)})
    with pytest.raises(ValueError, match="a value of structure .*; the state has PyTreeDef"):
        sb.nn.assign_state_values(net, {"weight": {"a": given}})


def test_numbers_that_are_not_mapped_stay_numbers(net):
    class Power(Module):
        def __call__(self, x, times, flag):
            for _ in range(times):
                x = x * 2
            return x if flag else -x

    run = sb.nn.vmap(Power(), in_axes=(0, None, None))
    np.testing.assert_array_equal(run(jnp.ones(3), 2, False), [-4, -4, -4])


@pytest.mark.parametrize("way", [copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_keep_functions_of_jax(net, way):
    net.layers = (*net.layers, jax.nn.relu)
    twin = way(net)
    assert twin.layers[1] is jnp.tanh and twin.layers[3] is jax.nn.relu
    definition, values = sb.nn.split(net)
    assert sb.nn.merge(way(definition), values).layers[1] is jnp.tanh


def test_sequential_hands_on_whether_it_trains():
    inner = sb.nn.Sequential(sb.nn.Dropout(0.5))
    net = sb.nn.Sequential(sb.nn.Dropout(0.5), inner, jnp.negative)
    x = jnp.ones(1000)
    np.testing.assert_array_equal(net(x, train=False), -x)
    assert 0 < np.count_nonzero(net(x)) < 500


def test_members_are_taken_inside_of_a_call(net):
    class Picks(Module):
        def init_state(self):
            self.best = sb.nn.take(inner, 1)

    inner = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=2)
    picks = Picks()
    sb.nn.init_all_states(picks)
    assert_same_bits(picks.best.weight.value, inner.weight.value[1])
