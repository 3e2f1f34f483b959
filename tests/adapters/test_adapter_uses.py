"""What every adapter offers besides: streams, donation, `stack`, copies by pickle."""

import pickle

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits, take

pytestmark = pytest.mark.shared


class Case:
    """A framework's model: how its ensemble is made and called, and what arrays it has."""

    def __init__(self, adapter, model, args, arrays, key=None):
        self.adapter, self.model, self.args, self.arrays = adapter, model, args, arrays
        self.key = jax.random.key(3) if key is None else key

    def ensemble(self, **options):
        return self.adapter.ensemble(self.model, 5, **options)


def _equinox():
    eqx = pytest.importorskip("equinox")
    return Case(sb.adapters.equinox, eqx.nn.Linear, (2, 3), lambda m: [m.weight, m.bias])


def _nnx():
    nnx = pytest.importorskip("flax.nnx")

    def arrays(model):
        return jax.tree.leaves(nnx.state(model))

    from nnx_models import Model

    return Case(sb.adapters.nnx, Model, (3,), arrays)


def _linen():
    nn = pytest.importorskip("flax.linen")
    return Case(sb.adapters.linen, nn.Dense(3), (jnp.ones((1, 2)),), jax.tree.leaves)


def _forward(x):
    import haiku as hk

    return hk.BatchNorm(True, True, 0.9)(hk.Linear(3)(x), True)


def _haiku():
    hk = pytest.importorskip("haiku")
    model = hk.transform_with_state(_forward)
    return Case(sb.adapters.haiku, model, (jnp.ones((4, 2)),), jax.tree.leaves)


def _brainstate_net():
    import brainstate

    return brainstate.nn.Linear(2, 3)


def _brainstate():
    pytest.importorskip("brainstate")

    def arrays(model):
        return jax.tree.leaves(model.weight.value)

    return Case(sb.adapters.brainstate, _brainstate_net, (), arrays, 7)


CASES = {
    "brainstate": _brainstate,
    "equinox": _equinox,
    "haiku": _haiku,
    "linen": _linen,
    "nnx": _nnx,
}


@pytest.fixture(params=[*CASES])
def case(request):
    return CASES[request.param]()


def test_streams_are_the_members_in_order(case):
    make = case.ensemble()
    want = case.arrays(make(case.key, *case.args))
    parts = [case.arrays(one) for one in make.stream(case.key, *case.args, chunk_size=2)]
    assert [part[0].shape[0] for part in parts] == [2, 2, 1]
    assert_same_bits([jnp.concatenate(leaves) for leaves in zip(*parts, strict=True)], want)
    with pytest.raises(ValueError, match="`chunk_size` must be at least 1"):
        make.stream(case.key, *case.args, chunk_size=0)


def test_stack_undoes_unstack(case):
    made = case.ensemble()(case.key, *case.args)
    members = case.adapter.unstack(made)
    assert_same_bits(case.arrays(members[1]), take(case.arrays(made), 1))
    assert_same_bits(case.arrays(case.adapter.stack(members)), case.arrays(made))
    assert_same_bits(
        case.arrays(case.adapter.stack(members[1:3])), take(case.arrays(made), slice(1, 3))
    )
    with pytest.raises(TypeError, match="must be a list or tuple of models, as `unstack` gives"):
        case.adapter.stack(made if not isinstance(made, tuple) else made[0])
    with pytest.raises(ValueError, match="must have one model at least"):
        case.adapter.stack([])


def test_copies_make_the_same(case):
    make = case.ensemble()
    want = case.arrays(make(case.key, *case.args))
    copy = pickle.loads(pickle.dumps(make))
    assert repr(copy) == repr(make)
    assert_same_bits(case.arrays(copy(case.key, *case.args)), want)
    plan = make.plan(case.key, *case.args)
    assert pickle.loads(pickle.dumps(plan)).explain() == plan.explain()


def test_an_old_ensemble_is_overwritten(case):
    plain, make = case.ensemble(), case.ensemble(donate=True)
    old = plain(jax.random.key(8), *case.args)
    arrays = case.arrays(old)
    want = case.arrays(plain(case.key, *case.args))
    assert_same_bits(case.arrays(make(case.key, old, *case.args)), want)
    assert any(one.is_deleted() for one in arrays)
    with pytest.raises(TypeError, match="`old` is missing"):
        case.adapter.ensemble(case.model, 5, donate=True)(case.key)
    other = case.adapter.ensemble(case.model, 4)(case.key, *case.args)
    with pytest.raises(ValueError, match=r"`old.*` must have shape \(5,"):
        make(case.key, other, *case.args)
    with pytest.raises(TypeError, match="`donate` must be True or False"):
        case.ensemble(donate=1)


# --- what is misunderstood --------------------------------------------------------------


def test_models_of_equinox_that_are_not_meant(key):
    eqx = pytest.importorskip("equinox")
    adapter = sb.adapters.equinox
    model = eqx.nn.MLP(2, 4, 4, 1, key=key)
    with pytest.raises(TypeError, match="a model, an instance of MLP: give the class"):
        adapter.ensemble(model, 3)
    with pytest.raises(TypeError, match="a model, an instance of MLP"):
        adapter.single(model)
    for call in (adapter.unstack, lambda model: adapter.forward(model, jnp.ones(2))):
        with pytest.raises(ValueError, match="this is a single model: `weight` of a Linear has"):
            call(eqx.nn.Linear(2, 4, key=key))
    norm = adapter.ensemble(lambda key: eqx.nn.LayerNorm(4), 2)(key)
    assert len(adapter.unstack(norm)) == 2
    with pytest.raises(TypeError, match="the key goes first: .* got 4 in its place, and `key` by"):
        adapter.ensemble(eqx.nn.Linear, 3)(4, 16, key=key)
    assert adapter.ensemble(eqx.filter_jit(eqx.nn.Linear), 3)(key, 4, 16).weight.shape[0] == 3


def test_stacking_what_is_not_alike(key):
    eqx = pytest.importorskip("equinox")
    one, two = (eqx.nn.Linear(2, size, key=key) for size in (3, 4))
    with pytest.raises(ValueError, match="0 and 1"):
        sb.adapters.equinox.stack([one, two])
    with pytest.raises(ValueError, match=r"\['w'\] is float32\[2\] in 0 and float32\[3\] in 1"):
        sb.adapters.linen.stack([{"w": jnp.ones(2)}, {"w": jnp.ones(3)}])


def test_rngs_of_nnx_that_come_later():
    nnx = pytest.importorskip("flax.nnx")
    make = sb.adapters.nnx.ensemble(nnx.Linear, 3)
    with pytest.raises(TypeError, match="got 8 in their place, and an nnx.Rngs as argument 3"):
        make(8, 16, nnx.Rngs(0))
    with pytest.raises(ValueError, match="this is a single model: `kernel` of a Linear has shape"):
        sb.adapters.nnx.unstack(nnx.Linear(4, 4, rngs=nnx.Rngs(0)))


def test_filters_of_brainstates_modules_that_match_nothing(as_users_have_it):
    brainstate = pytest.importorskip("brainstate")
    with pytest.warns(UserWarning, match="`state_to_exclude`='hid' matches nothing"):
        sb.nn.vmap_init_all_states(brainstate.nn.GRUCell(2, 3), axis_size=2, state_to_exclude="hid")
    with pytest.warns(UserWarning, match="`node_to_exclude`='Wz' matches nothing"):
        sb.nn.vmap_init_all_states(brainstate.nn.GRUCell(2, 3), axis_size=2, node_to_exclude="Wz")
