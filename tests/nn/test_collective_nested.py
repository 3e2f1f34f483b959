"""Collective calls inside of `vmap_new_states`, of one another, and of jax's transformations."""

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
    assert_no_tracer,
    assert_values,
    call_key,
    picture,
    stream_position,
    values,
    vmapped,
)
from seedbed.filters import PathContains

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("seeded")]


def inner_key(key, number=0):
    """The key of a call inside of a function that runs over members."""
    return jax.random.fold_in(key, number)


# --- vmap_new_states --------------------------------------------------------------------


def test_states_made_for_all_members():
    @sb.nn.vmap_new_states(axis_size=4, state_tag="new")
    def build(x):
        noise = sb.nn.State(x + jax.random.uniform(sb.random.next_key(), (2,)), tag="own")
        return noise, noise.value

    state, value = build(jnp.arange(4.0))

    def member(key, x):
        return x + jax.random.uniform(jax.random.fold_in(key, 0), (2,))

    expected = jax.jit(jax.vmap(member))(jax.random.split(call_key(), 4), jnp.arange(4.0))
    assert_same_bits(value, expected)
    assert_same_bits(state.value, expected)
    assert state.members == 4 and state.tags == {"new", "own"}
    assert stream_position()[-1] == 1


@pytest.mark.parametrize("outer", [1, 5])
def test_nested_calls_have_the_outer_axis_first(outer):
    def make():
        return Group(Declared(2), {"k": Noise(7), 3: Noise(2)})

    def build():
        net = make()
        sb.nn.vmap_init_all_states(net, axis_size=2)
        assert net.items[1]["k"].x.shape == (2, 7)
        return net

    net = sb.nn.vmap_new_states(build, axis_size=outer)()
    assert net.items[1]["k"].x.shape == (outer, 2, 7)
    assert [level.size for level in net.items[0].w.mapped] == [outer, 2] and net.members == outer

    def member(key):
        init = sb.nn.init_function(make())
        return jax.vmap(init)(jax.random.split(inner_key(key), 2))

    assert_values(net, jax.jit(jax.vmap(member))(jax.random.split(call_key(), outer)))
    assert_no_tracer(net)


def test_three_levels():
    @sb.nn.vmap_new_states(axis_size=2)
    def outer():
        @sb.nn.vmap_new_states(axis_size=3)
        def middle():
            return sb.nn.vmap_init_all_states(Noise(7), axis_size=4)

        return middle()

    net = outer()
    assert net.x.shape == (2, 3, 4, 7)
    assert [level.size for level in net.x.mapped] == [2, 3, 4]

    def init(depth):
        if depth == 3:
            return sb.nn.init_function(Noise(7))
        size = (2, 3, 4)[depth]
        step = inner_key if depth else lambda key: key
        return lambda key: jax.vmap(init(depth + 1))(jax.random.split(step(key), size))

    assert_values(net, jax.jit(init(0))(call_key()))


def test_a_module_from_outside_initialised_inside():
    net = Group(Declared(2), Noise(2))
    state = net.items[0].w
    sb.nn.vmap_new_states(lambda: sb.nn.vmap_init_all_states(net, axis_size=3), axis_size=2)()
    assert (
        net.items[0].w is state and state.shape == (2, 3, 2) and net.items[1].x.shape == (2, 3, 2)
    )
    sb.nn.vmap_init_all_states(net, axis_size=4)
    assert state.shape == (4, 2) and net.members == 4
    sb.nn.vmap_new_states(lambda: sb.nn.init_all_states(net) and None, axis_size=5)()
    assert state.shape == (5, 2) and net.members == 5


def test_an_init_state_that_initialises_members_of_its_own():
    class Ensemble(sb.nn.Module):
        def init_state(self):
            self.parts = sb.nn.vmap_init_all_states(sb.nn.Linear(6, 2), axis_size=3)

    net = sb.nn.vmap_init_all_states(Ensemble(), axis_size=2)
    assert net.parts.weight.shape == (2, 3, 2, 6)
    weights = np.asarray(net.parts.weight.value).reshape(6, -1)
    assert len({row.tobytes() for row in weights}) == 6
    assert_values(net, vmapped(Ensemble(), 2, call_key()))
    single = sb.nn.init_all_states(Ensemble())
    assert single.parts.weight.shape == (3, 2, 6)


def test_an_excluded_state_of_an_inner_call():
    def build():
        exclude = PathContains("w")
        return sb.nn.vmap_init_all_states(Declared(2), axis_size=3, state_to_exclude=exclude)

    net = sb.nn.vmap_new_states(build, axis_size=4)()
    assert net.w.shape == (4, 2) and net.b.shape == (4, 3, 2)
    assert len({row.tobytes() for row in np.asarray(net.w.value)}) == 4


def test_states_that_were_there_are_not_written():
    state = sb.nn.State(jnp.zeros(2))
    target = [state]

    def write():
        state.value = jnp.ones(2)

    before = picture(target)
    message = "^vmap_new_states gives members to the states that it makes; State.* was there before"
    with pytest.raises(ValueError, match=message):
        sb.nn.vmap_new_states(write, axis_size=3)()
    assert picture(target) == before
    sb.nn.vmap_new_states(write, axis_size=3, out_states=state)()
    assert_same_bits(state.value, jnp.ones((3, 2)))


def test_states_that_members_read_their_own_value_of():
    gain = sb.nn.State(jnp.arange(3.0))
    other = sb.nn.State(jnp.arange(6.0).reshape(2, 3))

    def build():
        return sb.nn.State(gain.value * 10 + other.value)

    with pytest.raises(ValueError, match="is given|twice|two"):
        sb.nn.vmap_new_states(build, in_states=[gain, gain])
    made = sb.nn.vmap_new_states(build, in_states={0: gain, 1: other})()
    expected = jnp.arange(3.0)[:, None] * 10 + jnp.arange(6.0).reshape(2, 3).T
    assert_same_bits(made.value, expected)


@pytest.mark.parametrize("size", [True, 0, -1, 2.0, "3", jnp.int32(3)], ids=repr)
def test_bad_sizes_of_vmap_new_states(size):
    with pytest.raises(ValueError, match="^axis_size must be a positive integer, got "):
        sb.nn.vmap_new_states(Noise, axis_size=size)


def test_sizes_of_vmap_new_states_that_disagree_or_are_missing():
    gain = sb.nn.State(jnp.arange(3.0))
    before = stream_position()
    with pytest.raises(ValueError, match="needs one number of members; axis_size has 4, .* has 3$"):
        sb.nn.vmap_new_states(Noise, axis_size=4, in_states=gain)()
    with pytest.raises(ValueError, match="finds no number of members: no state and no argument is"):
        sb.nn.vmap_new_states(Noise)()
    assert stream_position() == before


def test_bad_arguments_of_vmap_new_states():
    with pytest.raises(TypeError, match="^`fun` must be a function; got 3 of type int$"):
        sb.nn.vmap_new_states(3, axis_size=2)
    with pytest.raises(TypeError, match="Invalid collection filter"):
        sb.nn.vmap_new_states(Noise, axis_size=2, state_to_exclude=3)
    with pytest.raises(TypeError, match="must return arrays, numbers, modules and states; got 'a'"):
        sb.nn.vmap_new_states(lambda: "a", axis_size=2)()


def test_an_exception_in_vmap_new_states_changes_nothing():
    class Grows(Tree):
        def init_state(self):
            super().init_state()
            self.layers.append(Noise(2))
            self.table["new"] = Declared(2)

    net = sb.nn.vmap_init_all_states(Grows(), axis_size=2)
    before = picture(net)

    def build():
        net.flag = 1
        sb.nn.vmap_init_all_states(net, axis_size=3)
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        sb.nn.vmap_new_states(build, axis_size=2)()
    assert picture(net) == before


# --- jax's transformations --------------------------------------------------------------


def build(key, size=3):
    """A module initialised for all members with a given key; its values."""
    with sb.random.stream(key):
        return values(
            sb.nn.vmap_init_all_states(Group(sb.nn.Linear(6, 2), Noise(2)), axis_size=size)
        )


def expected(key, size=3):
    return vmapped(Group(sb.nn.Linear(6, 2), Noise(2)), size, jax.random.fold_in(key, 0))


def test_under_jit():
    key = jax.random.key(5)
    jitted = jax.jit(build, static_argnums=1)
    assert_same_bits(jitted(key), expected(key), weak=False)
    assert_same_bits(jitted(key), build(key))
    other = jax.random.key(6)
    assert_same_bits(jitted(other, 4), expected(other, 4), weak=False)
    assert stream_position()[-1] == 0


def test_under_jit_for_a_single_model():
    def single(key):
        with sb.random.stream(key):
            return values(sb.nn.init_all_states(Group(Declared(2), Noise(2))))

    key = jax.random.key(5)
    init = sb.nn.init_function(Group(Declared(2), Noise(2)))
    call = jax.random.fold_in(key, 0)
    assert_same_bits(jax.jit(single)(key), jax.jit(init)(call), either=init(call), weak=False)


def test_under_eval_shape():
    shapes = jax.eval_shape(build, jax.random.key(0))
    real = build(jax.random.key(0))
    assert jax.tree.map(lambda leaf: leaf.shape, real) == {n: s.shape for n, s in shapes.items()}
    # Sizes that could not be allocated are fine where nothing is.
    huge = jax.eval_shape(lambda key: build(key, 2**40), jax.random.key(0))
    assert huge["items.0.weight"].shape == (2**40, 2, 6)


def test_inside_of_jax_vmap():
    keys = jax.random.split(jax.random.key(5), 4)
    got = jax.vmap(build)(keys)
    want = jax.jit(jax.vmap(expected))(keys)
    assert got["items.0.weight"].shape == (4, 3, 2, 6)
    assert_same_bits(got, want, weak=False)


def test_inside_of_scan():
    def step(carry, key):
        return carry + 1, build(key)

    keys = jax.random.split(jax.random.key(5), 2)
    _, got = jax.lax.scan(step, 0, keys)
    for i, key in enumerate(keys):
        assert_same_bits({n: v[i] for n, v in got.items()}, expected(key), weak=False)


def test_a_gradient_through_what_was_initialised():
    def loss(scale, key):
        with sb.random.stream(key):
            net = sb.nn.vmap_init_all_states(Noise(2), scale, axis_size=3)
        return jnp.sum(net.x.value)

    key = jax.random.key(5)
    gradient = jax.grad(loss)(1.0, key)
    total = jnp.sum(vmapped(Noise(2), 3, jax.random.fold_in(key, 0), 1.0)["x"])
    np.testing.assert_allclose(gradient, total, rtol=1e-6)


def test_a_module_made_and_kept_in_a_traced_function_is_refused_outside():
    kept = []

    @jax.jit
    def leak(key):
        with sb.random.stream(key):
            kept.append(sb.nn.vmap_init_all_states(Noise(2), axis_size=3))
        return 0

    leak(jax.random.key(0))
    with pytest.raises((ValueError, jax.errors.UnexpectedTracerError)):
        sb.nn.vmap_init_all_states(kept, axis_size=3)
    assert stream_position()[-1] == 0


def test_a_module_from_outside_is_read_inside():
    net = sb.nn.vmap_init_all_states(sb.nn.Linear(6, 2), axis_size=3)
    before = picture(net)
    total = jax.jit(lambda: jnp.sum(net.weight.value))()
    np.testing.assert_allclose(total, np.sum(net.weight.value), rtol=1e-5)
    plan = jax.jit(lambda: len(sb.nn.plan_init(net, axis_size=3).outputs))()
    assert plan == 2 and picture(net) == before
