"""Ensembles of brainstate's modules: keys, taking apart, running over members."""

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from brainstate_modules import Cell, N, adapter, bs, values
from helpers import assert_same_bits

pytestmark = [
    pytest.mark.shared,
    pytest.mark.reference("newest"),
    pytest.mark.usefixtures("as_users_have_it"),
]


def test_an_ensemble_has_what_vmap_new_states_makes():
    kept = []
    bs.random.seed(5)
    build = bs.transform.vmap_new_states(lambda n: kept.append(bs.nn.Linear(2, n)), in_axes=None,
                                         axis_size=N)  # fmt: skip
    build(8)
    stream = bs.random.DEFAULT.value
    ensemble = adapter.ensemble(lambda n: bs.nn.Linear(2, n), N)
    nets = ensemble(5, 8)
    assert_same_bits(bs.random.DEFAULT.value, stream)  # not touched
    either = bs.transform.jit(lambda: values(ensemble(5, 8)))()
    assert_same_bits(values(nets), values(kept[-1]), either=either)
    keys = jax.random.split(jax.random.key(5), N + 1)[1:]
    assert_same_bits(values(ensemble(keys, 8)), values(nets))
    assert_same_bits(values(ensemble(jax.random.key(5), n=8)), values(nets))
    some = ensemble.members(5, [2, 0], 8)
    assert_same_bits(values(some), jax.tree.map(lambda leaf: leaf[jnp.array([2, 0])], values(nets)))
    assert_same_bits(
        values(ensemble.member(5, -1, 8)), jax.tree.map(lambda leaf: leaf[-1], values(nets))
    )
    assert repr(ensemble).endswith(f"<lambda>, {N})")


@pytest.mark.parametrize("impl", ["rbg", "threefry2x32"])
def test_members_of_keys_that_draw_for_the_whole(impl):
    def make():
        return bs.nn.init_all_states(Cell())

    def of(whole, index):
        return {
            path: value if path == ("shared",) else jax.tree.map(lambda leaf: leaf[index], value)
            for path, value in whole.items()
        }

    ensemble, key = adapter.ensemble(make, N), jax.random.key(5, impl=impl)
    for keys in (key, jax.random.split(key, N)):
        whole = values(ensemble(keys))
        for i in (1, -1):
            assert_same_bits(values(ensemble.member(keys, i)), of(whole, i))
        some = ensemble.members(keys, [2, 0])
        assert_same_bits(values(some), of(whole, jnp.array([2, 0])))


def test_unstack_forward_and_reset():
    def make():
        return bs.nn.init_all_states(Cell())

    nets = adapter.ensemble(make, N)(0)
    nets.update = lambda x: None
    members = adapter.unstack(nets)
    assert_same_bits([one.h.value for one in members], list(nets.h.value))
    assert_same_bits(members[1].shared.value, nets.shared.value)
    members[0].h.value = jnp.ones(8)
    assert float(nets.h.value.sum()) == 0.0
    hidden = nets.h
    adapter.reset_members(nets)
    assert nets.h is hidden
    assert_same_bits(nets.h.value, jnp.ones((N, 8)))


def test_forward_maps_what_it_is_told_to():
    linear = adapter.ensemble(lambda: bs.nn.Linear(2, 8), N)(0)
    x = jax.random.uniform(jax.random.key(0), (N, 5, 2))
    assert adapter.forward(linear, x).shape == (N, N, 5, 8)
    assert adapter.forward(linear, x, in_axes=0).shape == (N, 5, 8)
    run = bs.transform.jit(lambda x: adapter.forward(linear, x, in_axes=0))
    assert jnp.allclose(run(x), adapter.forward(linear, x, in_axes=0))
    gru = bs.nn.GRUCell(2, 8)
    sb.nn.vmap_init_all_states(gru, axis_size=N)
    out = adapter.forward(gru, jnp.ones(2), states=bs.HiddenState)
    assert out.shape == gru.h.value.shape == (N, 8)


def test_errors_of_ensembles():
    with pytest.raises(TypeError, match="`make` must be a function that returns a brainstate"):
        adapter.ensemble(3, N)
    with pytest.raises(TypeError, match="`make` must return a brainstate module; .* returned 3"):
        adapter.ensemble(lambda: 3, N)(0)
    with pytest.raises(ValueError, match="array of size=3 keys"):
        adapter.ensemble(Cell, N)(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(IndexError, match="out of range"):
        adapter.ensemble(Cell, N).member(0, N)
    with pytest.raises(TypeError, match="`module` must be a brainstate module; got 3"):
        adapter.unstack(3)
    gru = bs.nn.GRUCell(2, 8)
    sb.nn.vmap_init_all_states(gru, axis_size=N)
    with pytest.raises(ValueError, match=r"one number of members; found .*3 in 'h'.*`states=`"):
        adapter.unstack(gru)
    with pytest.raises(ValueError, match="the state 'w' is a number .* `states=`"):
        adapter.unstack(bs.nn.init_all_states(Cell()), states=bs.ParamState)
