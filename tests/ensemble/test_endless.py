"""Arguments without an end: lists that contain themselves, iterators that never stop."""

import itertools

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from modules import Group, picture

pytestmark = pytest.mark.end("newest")

N = 2


def own():
    endless = []
    endless.append(endless)
    return endless


def table():
    endless = {}
    endless["a"] = endless
    return endless


def twice():
    doubled = [int]
    for _ in range(60):
        doubled = [doubled, doubled]
    return doubled


def net():
    return sb.nn.Linear(2, 2)


init = sb.nn.vmap_init_all_states
zeros = jax.nn.initializers.zeros
KEY = jax.random.key(0)


# --- filters ----------------------------------------------------------------------------

FILTERED = {
    "to_predicate": lambda net, f: sb.filters.to_predicate(f),
    "combined": lambda net, f: net.states([sb.filters.Not(f)]),
    "vmap_init nodes": lambda net, f: init(net, axis_size=N, node_to_exclude=f),
    "vmap_init states": lambda net, f: init(net, axis_size=N, state_to_exclude=f),
    "vmap_call": lambda net, f: sb.nn.vmap_call_all_fns(
        net, "init_state", axis_size=N, node_to_exclude=f
    ),
    "vmap_reset": lambda net, f: sb.nn.vmap_reset_all_states(net, axis_size=N, node_to_exclude=f),
    "call": lambda net, f: sb.nn.call_all_fns(net, "init_state", node_to_exclude=f),
    "init": lambda net, f: sb.nn.init_all_states(net, node_to_exclude=f),
    "reset": lambda net, f: sb.nn.reset_all_states(net, node_to_exclude=f),
    "plan_init nodes": lambda net, f: sb.nn.plan_init(net, axis_size=N, node_to_exclude=f),
    "plan_init states": lambda net, f: sb.nn.plan_init(net, axis_size=N, state_to_exclude=f),
    "init_function": lambda net, f: sb.nn.init_function(net, node_to_exclude=f),
    "vmap_new_states": lambda net, f: sb.nn.vmap_new_states(
        lambda: None, axis_size=N, state_to_exclude=f
    ),
    "states": lambda net, f: net.states(f),
    "nodes": lambda net, f: net.nodes(f),
    "split": lambda net, f: sb.nn.split(net, f),
}


@pytest.mark.parametrize("call", FILTERED.values(), ids=FILTERED)
@pytest.mark.parametrize(
    ("make", "message"),
    [(own, "filters nested more than 64 deep, or in themselves"), (twice, "more than 262144 fil")],
)
def test_every_filter_comes_by_the_one_door(call, make, message):
    module = net()
    before = picture(module)
    with pytest.raises(TypeError, match=f"^Invalid collection filter: {message}.*a filter is a t"):
        call(module, make())
    assert picture(module) == before


def test_a_module_within_a_filter_is_a_slip_wherever_it_is():
    module = net()
    for given in (module, [[module]], sb.filters.Any("a", sb.filters.Not([module]))):
        with pytest.raises(TypeError, match="^Invalid collection filter: the module Linear itself"):
            init(module, axis_size=N, node_to_exclude=given)


@pytest.mark.parametrize("framework", ["linen", "haiku", "nnx", "nnx only"])
def test_filters_of_other_frameworks_too(framework):
    key, x = jax.random.key(0), jnp.ones((2, 3))
    with pytest.raises(TypeError, match="^Invalid collection filter: .* more than 64 deep, or in"):
        if framework == "linen":
            linen = pytest.importorskip("flax.linen")
            sb.adapters.linen.ensemble(linen.Dense(4), N, shared=own())(key, x)
        elif framework == "haiku":
            haiku = pytest.importorskip("haiku")
            made = haiku.transform(lambda x: haiku.Linear(4)(x))
            sb.adapters.haiku.ensemble(made, N, shared=own())(key, x)
        else:
            nnx = pytest.importorskip("flax.nnx")
            option = {"only" if "only" in framework else "shared": own()}
            sb.adapters.nnx.ensemble(nnx.Linear, N, **option)


# --- pytrees ----------------------------------------------------------------------------


class Holds(sb.nn.Module):
    def init_state(self, value):
        self.x = sb.nn.State(1.0)
        self.x.value = [value]


PYTREES = {
    "value": lambda x: sb.nn.State(x),
    "value in a call": lambda x: sb.nn.init_all_states(Holds(), x),
    "value in a call on all members": lambda x: init(Holds(), x, axis_size=N),
    "args": lambda x: sb.nn.vmap(lambda a: 1.0, axis_size=N)(x),
    "in_axes": lambda x: sb.nn.vmap(lambda a: 1.0, axis_size=N, in_axes=[x])(jnp.ones(N)),
    "out_axes": lambda x: sb.nn.vmap(lambda a: 1.0, axis_size=N, out_axes=x)(jnp.ones(N)),
    "result": lambda x: sb.nn.vmap(lambda a: x)(jnp.ones(N)),
    "state_by_abs_path['weight']": lambda x: sb.nn.assign_state_values(net(), {"weight": x}),
    "key": lambda x: sb.ensemble(lambda key: 1.0, N)(x),
    "args of an ensemble": lambda x: sb.ensemble(lambda key, a: 1.0, N)(KEY, x),
    "in_axes itself": lambda x: sb.nn.vmap(lambda a: 1.0, in_axes=x)(jnp.ones(N)),
    "in_axes of an ensemble": lambda x: sb.ensemble(lambda key, a: 1.0, N, in_axes=[x])(KEY, 1.0),
    "old": lambda x: sb.ensemble(lambda key: jnp.ones(3), N, donate=True)(KEY, x),
}


@pytest.mark.parametrize("name", PYTREES)
@pytest.mark.parametrize("make", [own, table])
def test_a_pytree_that_contains_itself(name, make):
    argument = name.split(" ")[0].replace("[", r"\[").replace("]", r"\]")
    message = rf"^`{argument}` must be a pytree that ends; got one that contains itself, or is nes"
    with pytest.raises(ValueError, match=message):
        PYTREES[name](make())


@pytest.mark.parametrize("make", [own, table])
def test_a_result_that_contains_itself(make):
    endless = make()
    for call in (
        lambda: sb.ensemble(lambda key: endless, N)(KEY),
        lambda: jax.jit(sb.ensemble(lambda key: [jnp.ones(2), endless], N))(KEY),
        lambda: sb.ensemble(lambda key: endless, N).plan(KEY),
    ):
        with pytest.raises(ValueError, match="^the result of `init` must be a pytree that ends"):
            call()


def of_linen():
    linen = pytest.importorskip("flax.linen")
    net, adapter, x = linen.Dense(3), sb.adapters.linen, jnp.ones(4)
    held = adapter.ensemble(net, N)(KEY, x)
    return {
        "key": lambda v: adapter.ensemble(net, N)(v, x),
        "key ": lambda v: adapter.ensemble(net, N)({"params": v}, x),
        "args": lambda v: adapter.ensemble(net, N)(KEY, v),
        "kwargs": lambda v: adapter.ensemble(net, N).member(KEY, 0, inputs=v),
        "in_axes": lambda v: adapter.ensemble(net, N, in_axes=[v])(KEY, x),
        "variables": adapter.unstack,
        "variables ": lambda v: adapter.forward(net, v, x),
        "inputs": lambda v: adapter.forward(net, held, v),
        "rngs": lambda v: adapter.forward(net, held, x, rngs=v),
    }


def of_haiku():
    haiku = pytest.importorskip("haiku")
    net, adapter = haiku.transform(lambda x: haiku.Linear(3)(x)), sb.adapters.haiku
    x = jnp.ones(4)
    held = adapter.ensemble(net, N)(KEY, x)
    return {
        "key": lambda v: adapter.ensemble(net, N)(v, x),
        "args": lambda v: adapter.ensemble(net, N)(KEY, v),
        "variables": adapter.unstack,
        "variables ": lambda v: adapter.forward(net, v, None, x),
        "inputs": lambda v: adapter.forward(net, held, None, v),
        "rng": lambda v: adapter.forward(net, held, v, x),
    }


def of_equinox():
    eqx = pytest.importorskip("equinox")
    adapter, x = sb.adapters.equinox, jnp.ones(4)
    held = adapter.ensemble(eqx.nn.Linear, N)(KEY, 4, 3)
    return {
        "key": lambda v: adapter.ensemble(eqx.nn.Linear, N)(v, 4, 3),
        "args": lambda v: adapter.ensemble(lambda key, a: x, N)(KEY, v),
        "the result of `make`": lambda v: adapter.ensemble(lambda key: v, N)(KEY),
        "models": adapter.unstack,
        "models ": lambda v: adapter.forward(v, x),
        "inputs": lambda v: adapter.forward(held, v),
        "in_axes": lambda v: adapter.forward(held, x, in_axes=[v]),
    }


def of_nnx():
    nnx = pytest.importorskip("flax.nnx")
    adapter, x = sb.adapters.nnx, jnp.ones(4)
    held = adapter.ensemble(nnx.Linear, N)(nnx.Rngs(0), 4, 3)
    return {
        "rngs_or_key": lambda v: adapter.ensemble(nnx.Linear, N)({"params": v}, 4, 3),
        "args": lambda v: adapter.ensemble(nnx.Linear, N)(nnx.Rngs(0), v, 3),
        "module": adapter.unstack,
        "module ": lambda v: adapter.forward(v, x),
        "inputs": lambda v: adapter.forward(held, v),
        "in_axes": lambda v: adapter.forward(held, x, in_axes=[v]),
    }


@pytest.mark.parametrize("of", [of_linen, of_haiku, of_equinox, of_nnx])
@pytest.mark.parametrize("make", [own, table])
def test_what_adapters_are_given_that_contains_itself(of, make):
    for name, call in of().items():
        what = name if "`" in name else f"`{name.strip()}`"
        with pytest.raises(ValueError, match=f"^{what} must be a pytree that ends; got one that"):
            call(make())


@pytest.mark.parametrize("depth", [100, 300])
def test_pytrees_that_jax_goes_through_are_taken(depth):
    deep = jnp.ones(N)
    for _ in range(depth):
        deep = [deep]
    assert sb.nn.vmap(lambda a: jax.tree.leaves(a)[0])(deep).shape == (N,)
    assert sb.nn.State(deep).value is deep


# --- trees, and what else is gone through -----------------------------------------------


def test_containers_of_modules_may_contain_themselves():
    for endless in (own(), table()):
        group = Group(net(), endless)
        target = [group, endless]
        target.append(target)
        init(target, axis_size=N)
        assert sb.nn.vmap(lambda m: m.items[0].weight.value.sum())(group).shape == (N,)
        sb.nn.vmap_call_all_fns(group, "reset_state", endless, {"value": endless}, axis_size=N)
        assert sb.nn.take(group, 0).items[0].weight.shape == (2, 2)
        assert "Group" in repr(group)


@pytest.mark.parametrize("name", ["in_states", "out_states"])
def test_states_that_repeat_for_ever(name):
    state = sb.nn.State(jnp.ones(N))
    for given in (itertools.repeat(state), itertools.cycle([sb.nn.State(1.0), state])):
        with pytest.raises(ValueError, match=f"^`{name}` has State.* twice"):
            init(net(), axis_size=N, **{name: given})


def test_states_that_contain_themselves():
    for given in (own(), table(), {0: own()}):
        with pytest.raises(TypeError, match="^`in_states` must be a State, several"):
            init(net(), axis_size=N, in_states=given)


def test_tags_and_shapes_without_an_end():
    for tag in (itertools.repeat("a"), itertools.count(), own()):
        with pytest.raises(TypeError, match="^`tag` must be a string, several strings, or None"):
            sb.nn.State(1.0, tag=tag)
    for shape in (itertools.repeat(1), own()):
        with pytest.raises(TypeError, match="^`shape` of State must be a tuple of integers"):
            sb.nn.State(init=zeros, shape=shape)
