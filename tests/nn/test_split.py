"""Modules as a definition and values, and back: jax's transformations and optax on the values."""

import copy
import itertools
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import seedbed as sb
from helpers import assert_same_bits
from modules import Node
from seedbed.nn import HiddenState, Module, ParamState, State

pytestmark = pytest.mark.end("newest")

normal = jax.nn.initializers.normal(1.0)


class Net(Module):
    """Parameters, a hidden state and a constant, in a list and a dictionary."""

    def __init__(self):
        self.layers = [sb.nn.Linear(3, 4), sb.nn.Linear(4, 2)]
        self.more = {"gain": State(2.0, tag="gain"), "h": HiddenState(jnp.zeros(2))}
        self.name = "net"

    def __call__(self, x):
        for layer in self.layers:
            x = jnp.tanh(layer(x))
        self.more["h"].value = self.more["h"].value + x
        return self.more["gain"].value * x


NAMES = {"layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight"}


@pytest.fixture
def net(key):
    with sb.random.stream(key):
        return sb.nn.init_all_states(Net())


def test_split_has_every_state_by_its_dotted_path(net):
    definition, values = sb.nn.split(net)
    assert set(values) == NAMES | {"more.gain", "more.h"}
    assert values["layers.0.weight"] is net.layers[0].weight.value
    assert repr(definition) == "Definition(Net, 6 states)"


def test_merge_makes_new_objects(net):
    definition, values = sb.nn.split(net)
    one, two = sb.nn.merge(definition, values), sb.nn.merge(definition, values)
    assert one is not two and one is not net
    assert one.layers[0].weight is not two.layers[0].weight
    assert one.name == "net" and one.more["gain"].tags == {"gain"}
    assert list(one.states()) == list(net.states())
    assert [type(state) for state in one.states().values()] == [
        type(state) for state in net.states().values()
    ]
    one.layers[0].bias.value = jnp.ones(4)
    one.name = "one"
    assert two.layers[0].bias.value.sum() == 0 == net.layers[0].bias.value.sum()
    assert two.name == "net"
    x = jnp.arange(3.0)
    assert_same_bits(two(x), net(x))


def test_the_definition_does_not_follow_the_module(net):
    definition, values = sb.nn.split(net)
    net.name = "changed"
    net.layers.append(None)
    net.more["gain"].add_tag("later")
    twin = sb.nn.merge(definition, values)
    assert twin.name == "net" and len(twin.layers) == 2 and twin.more["gain"].tags == {"gain"}


def test_the_definition_holds_no_values(net):
    definition, values = sb.nn.split(net)
    assert not any(state.initialized for state in definition.skeleton.states().values())
    assert values["more.gain"] == 2.0


FILTERS = {"params": ParamState, "hidden": HiddenState, "gain": "gain"}


@pytest.mark.parametrize("order", list(itertools.permutations(FILTERS)))
def test_filters_make_dictionaries_in_their_order(net, order):
    definition, *groups = sb.nn.split(net, *(FILTERS[name] for name in order))
    found = dict(zip(order, map(set, groups), strict=True))
    assert found == {"params": NAMES, "hidden": {"more.h"}, "gain": {"more.gain"}}
    for values in itertools.permutations(groups):
        twin = sb.nn.merge(definition, *values)
        assert twin.layers[1].weight.value is net.layers[1].weight.value


def test_the_first_filter_that_selects_counts(net):
    _, weights, params, rest, none = sb.nn.split(
        net, sb.filters.PathContains("weight"), ParamState, ..., ...
    )
    assert set(weights) == {"layers.0.weight", "layers.1.weight"}
    assert set(params) == {"layers.0.bias", "layers.1.bias"}
    assert set(rest) == {"more.gain", "more.h"} and none == {}


def test_a_state_that_no_filter_selects_is_an_error(net):
    with pytest.raises(ValueError, match=r"no filter selects the state 'more.gain'; end with \.\."):
        sb.nn.split(net, ParamState)


def test_a_wrong_filter_is_found_first():
    net = Net()
    with pytest.raises(TypeError, match="Invalid collection filter"):
        sb.nn.split(net, ..., 3)
    assert not net.layers[0].weight.initialized


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: [{**v, "more.x": 1}], "missing are [], unexpected are ['more.x']"),
        (lambda v: [{}], "every state of Definition(Net, 6 states); missing are ['layers.0.bias'"),
        (lambda v: [v, {"more.gain": 1}], "`values` has two values for ['more.gain']"),
        (lambda v: [], "unexpected are []"),
    ],
)
def test_values_that_do_not_fit_are_refused(net, change, message):
    definition, values = sb.nn.split(net)
    with pytest.raises(ValueError, match=re.escape(message)):
        sb.nn.merge(definition, *change(values))


@pytest.mark.parametrize("values", [3, None, [1, 2], "more.gain"])
def test_values_that_are_no_mapping_are_refused(net, values):
    definition, _ = sb.nn.split(net)
    message = f"`values` must be dictionaries from dotted paths to values; got {values!r} of type"
    with pytest.raises(TypeError, match=re.escape(message)):
        sb.nn.merge(definition, values)


@pytest.mark.parametrize("definition", [None, 3, Net()])
def test_only_a_definition_merges(definition):
    with pytest.raises(TypeError, match="`definition` must be what seedbed.nn.split returned"):
        sb.nn.merge(definition, {})


def test_declared_states_are_drawn_by_split(key):
    net = Net()
    with sb.random.stream(key):
        _, values = sb.nn.split(net)
        assert sb.random.get_state().count == 4
    assert values["layers.0.weight"] is net.layers[0].weight.value
    assert net.layers[0].weight.declared


def test_a_merged_module_can_be_initialised_anew(net, key):
    twin = sb.nn.merge(*sb.nn.split(net))
    with sb.random.stream(key):
        sb.nn.vmap_init_all_states(twin, axis_size=3)
    assert twin.layers[0].weight.members == 3 and net.members is None


def test_containers_and_empty_modules_split():
    definition, values = sb.nn.split([Node(), {"a": Node(s=State(1))}])
    assert values == {"1.a.s": 1}
    (first, second) = sb.nn.merge(definition, {"1.a.s": 5})
    assert type(first) is Node and second["a"].s.value == 5
    definition, values = sb.nn.split(Node())
    assert values == {} and type(sb.nn.merge(definition, values)) is Node


# --- shared states ----------------------------------------------------------------------


class Tied(Module):
    def __init__(self):
        self.encode = sb.nn.Linear(3, 2, bias=False)
        self.decode = Node(weight=self.encode.weight, root=self)

    def __call__(self, x):
        return self.encode(x) @ self.decode.weight.value


def test_tied_weights_stay_tied(key):
    with sb.random.stream(key):
        net = sb.nn.init_all_states(Tied())
    definition, values = sb.nn.split(net)
    assert list(values) == ["decode.weight"]
    twin = sb.nn.merge(definition, {"decode.weight": jnp.ones((2, 3))})
    assert twin.encode.weight is twin.decode.weight is not net.encode.weight
    assert twin.decode.root is twin
    np.testing.assert_array_equal(twin(jnp.ones(3)), [6, 6, 6])
    weight = values["decode.weight"]
    grad = jax.grad(lambda v: sb.nn.merge(definition, v)(jnp.ones(3)).sum())(values)
    expected = jax.grad(lambda w: ((jnp.ones(3) @ w.T) @ w).sum())(weight)
    np.testing.assert_allclose(grad["decode.weight"], expected, rtol=1e-6)


# --- through jax ------------------------------------------------------------------------


def test_values_go_through_jit_and_the_definition_too(net):
    definition, values = sb.nn.split(net)

    @jax.jit
    def run(definition, values, x):
        net = sb.nn.merge(definition, values)
        y = net(x)
        definition, values = sb.nn.split(net)
        return y, definition, values

    x = jnp.arange(3.0)
    y, again, after = run(definition, values, x)
    _, _, third = run(definition, values, x)
    assert run._cache_size() == 1
    np.testing.assert_allclose(y, net(x), rtol=1e-6)
    np.testing.assert_allclose(after["more.h"], net.more["h"].value, rtol=1e-6)
    assert_same_bits(after, third)
    twin = sb.nn.merge(again, after)
    assert twin.layers[0].weight.shape == (4, 3) and twin.name == "net"
    twin.more["h"].value = jnp.zeros(2)  # it belongs outside of the trace now
    assert jax.tree.leaves(definition) == []


def test_a_module_merged_inside_a_trace_is_traced(net):
    definition, values = sb.nn.split(net)
    grads = jax.jit(jax.grad(lambda v: sb.nn.merge(definition, v)(jnp.ones(3)).sum()))(values)
    assert jax.tree.structure(grads) == jax.tree.structure(values)
    assert grads["layers.0.weight"].shape == (4, 3) and grads["more.gain"] != 0


def test_vmap_over_values_is_a_loop_over_members(net):
    definition, values = sb.nn.split(net)
    many = jax.tree.map(lambda leaf: jnp.stack([leaf * (i + 1) for i in range(4)]), values)
    x = jnp.arange(3.0)
    out = jax.vmap(lambda v: sb.nn.merge(definition, v)(x))(many)
    for i in range(4):
        one = jax.tree.map(lambda leaf: leaf[i], many)  # noqa: B023
        np.testing.assert_allclose(out[i], sb.nn.merge(definition, one)(x), rtol=1e-5)


def test_scan_over_a_module(net):
    definition, params, others = sb.nn.split(net, ParamState, ...)

    def step(others, x):
        net = sb.nn.merge(definition, params, others)
        y = net(x)
        return sb.nn.split(net, ParamState, ...)[2], y

    others["more.gain"] = jnp.float32(2)
    xs = jnp.linspace(-1, 1, 12).reshape(4, 3)
    after, ys = jax.lax.scan(step, others, xs)
    for x, y in zip(xs, ys, strict=True):
        np.testing.assert_allclose(net(x), y, rtol=1e-5)
    np.testing.assert_allclose(after["more.h"], net.more["h"].value, rtol=1e-5)


def test_training_with_optax_lowers_the_loss(net, key):
    definition, params, others = sb.nn.split(net, ParamState, ...)
    optimiser = optax.adam(0.05)
    x = jax.random.normal(key, (64, 3))
    y = jnp.stack([jnp.sin(x[:, 0]), x[:, 1] * x[:, 2]], axis=-1)

    def loss(params):
        twin = sb.nn.merge(definition, params, {**others, "more.h": jnp.zeros((64, 2))})
        return jnp.mean((twin(x) - y) ** 2)

    @jax.jit
    def step(params, memory):
        value, grads = jax.value_and_grad(loss)(params)
        updates, memory = optimiser.update(grads, memory)
        return optax.apply_updates(params, updates), memory, value

    memory, losses = optimiser.init(params), []
    for _ in range(60):
        params, memory, value = step(params, memory)
        losses.append(float(value))
    assert losses[-1] < 0.3 * losses[0]
    unexpected, missing = sb.nn.assign_state_values(net, params)
    assert not unexpected and set(missing) == {"more.gain", "more.h"}
    assert_same_bits(net.layers[0].weight.value, params["layers.0.weight"])


# --- members ----------------------------------------------------------------------------


@pytest.fixture
def many(key):
    with sb.random.stream(key):
        return sb.nn.vmap_init_all_states(Net(), axis_size=5)


def test_members_are_kept(many):
    definition, values = sb.nn.split(many)
    assert values["layers.0.weight"].shape == (5, 4, 3)
    twin = sb.nn.merge(definition, values)
    assert twin.layers[0].weight.mapped == ((5, 0),) and twin.members == 5
    assert twin.more["gain"].members is None
    with pytest.raises(ValueError, match="holds 5 members"):
        twin.layers[0](jnp.ones(3))


def test_values_of_another_number_of_members_are_refused(many):
    definition, values = sb.nn.split(many)
    for wrong in (values["layers.0.bias"][:3], jnp.ones(())):
        message = r"has a value of shape .* for 'layers.0.bias', and the definition has 5 members"
        with pytest.raises(ValueError, match=message):
            sb.nn.merge(definition, {**values, "layers.0.bias": wrong})


def test_a_batched_module_is_initialised_and_split_under_jit(key, many):
    @jax.jit
    def make(key):
        with sb.random.stream(key):
            net = sb.nn.vmap_init_all_states(Net(), axis_size=5)
        return sb.nn.split(net)

    definition, values = make(key)
    expected = jax.tree.map(jnp.asarray, sb.nn.split(many)[1])
    assert_same_bits(values, expected, weak=False)
    assert sb.nn.merge(definition, values).members == 5


def test_definitions_are_copied_and_pickled(many):
    definition, values = sb.nn.split(many)
    for twin in (copy.deepcopy(definition), pickle.loads(pickle.dumps(definition))):
        assert sb.nn.merge(twin, values).members == 5
        assert repr(twin) == repr(definition)
