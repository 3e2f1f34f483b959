"""brainstate: a single module, and states that lie as asked for."""

import copy

import jax
import numpy as np
import pytest

pytest.importorskip("brainstate")
import brainstate as bs
from brainstate.util.filter import PathContains
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from meshes import KINDS, assert_lie, assert_same, mesh_of, whole

pytestmark = [
    pytest.mark.shared,
    pytest.mark.usefixtures("as_users_have_it"),
]


def net(width=16):
    """Linear layers of other random streams' states too."""
    made = bs.nn.Sequential(bs.nn.Linear(8, width), bs.nn.LayerNorm(width), bs.nn.Linear(width, 8))
    made.noise = bs.ShortTermState(bs.random.uniform(0.0, 1.0, (8,)))
    return made


def shown(width=16):
    """The same, which brainstate itself has to run: it makes text of what it draws."""
    made = net(width)
    made.text = f"{made.noise.value}"
    return made


@pytest.fixture
def adapter():
    return sb.adapters.brainstate


def in_mesh(kind="Explicit"):
    return mesh_of(kind, (4, 2), ("a", "b"))


def values(module):
    return {path: state.value for path, state in bs.graph.states(module).items()}


def seeded(seed, *args):
    bs.random.seed(seed)
    return whole(values(net(*args)))


@pytest.mark.parametrize("make", [net, shown])
def test_a_single_module_is_that_of_the_seed(make, adapter):
    before = bs.random.DEFAULT.value
    single = adapter.single(make)
    for seed in (3, jax.random.key(3), jax.random.PRNGKey(3)):
        assert_same(whole(values(single(seed))), seeded_apart(3))
    assert_same(whole(values(copy.deepcopy(single)(3, 24))), seeded_apart(3, 24))
    assert repr(single) == f"single({make.__name__})"
    assert np.array_equal(jax.random.key_data(before), jax.random.key_data(bs.random.DEFAULT.value))


def seeded_apart(seed, *args):
    """`seeded`, with brainstate's stream as it was."""
    before = bs.random.DEFAULT.value
    try:
        return seeded(seed, *args)
    finally:
        bs.random.DEFAULT.restore_value(before)


def test_its_plan(adapter, native):
    plan = adapter.single(net).plan(3)
    assert len(plan.native) == 3 and "layers.0.weight['weight']" in plan.explain()
    with pytest.raises(ValueError, match="brainstate's own function runs this call"):
        adapter.single(shown).plan(3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_module_lies_as_asked_for(kind, adapter):
    mesh = in_mesh(kind)
    b = NamedSharding(mesh, P("b"))
    got = values(adapter.single(net, out_shardings=b)(3))
    assert_same(whole(got), seeded_apart(3))
    assert_lie(got, mesh, P("b"))
    given = {PathContains(0): b, bs.ShortTermState: NamedSharding(mesh, P("a"))}
    got = values(adapter.single(net, out_shardings=given)(3))
    assert_same(whole(got), seeded_apart(3))
    assert_lie(got["layers", 0, "weight"], mesh, P("b"))
    assert_lie(got["layers", 2, "weight"], mesh, P())
    assert_lie(got["noise",], mesh, P("a"))


@pytest.mark.parametrize("kind", KINDS)
def test_members_lie_as_asked_for(kind, adapter):
    mesh = in_mesh(kind)
    place = NamedSharding(mesh, P("a", None, "b"))
    given = {bs.ParamState: place}

    def linear():
        return bs.nn.Linear(8, 16, b_init=None)

    make = adapter.ensemble(linear, 8, out_shardings=given)
    plain = adapter.ensemble(linear, 8)
    got = make(3)
    assert_same(whole(values(got)), whole(values(plain(3))))
    assert_lie(values(got), mesh, P("a", None, "b"))
    one = make.member(3, 5)
    assert_same(whole(values(one)), whole(values(plain.member(3, 5))))
    assert_lie(values(one), mesh, P(None, "b"))
    some = make.members(3, [1, 2, 5, 7])
    assert_same(whole(values(some)), whole(values(plain.members(3, [1, 2, 5, 7]))))
    assert_lie(values(some), mesh, P("a", None, "b"))


def test_what_does_not_fit(adapter):
    mesh = in_mesh()
    place = NamedSharding(mesh, P(None, None, "a"))
    says = r"\(None, None, 'a'\) for the leaf layers.0.weight\['bias'\] of shape \(16,\), on a mesh"
    with pytest.raises(ValueError, match=says):
        adapter.single(net, out_shardings=place)(3)
    for wrong in (3, {bs.ParamState: "a"}, mesh):
        with pytest.raises(TypeError, match="must be a sharding, a PartitionSpec, or a mapping"):
            adapter.single(net, out_shardings=wrong)
    a = NamedSharding(mesh, P("a"))
    with pytest.raises(ValueError, match="brainstate's own function runs this call: it makes text"):
        adapter.single(shown, out_shardings=a)(3)
    with pytest.raises(ValueError, match="`seed_or_key` must be one key for a single model"):
        adapter.single(net)(jax.random.split(jax.random.key(0), 2))
    with pytest.raises(TypeError, match="`make` must be a function"):
        adapter.single(3)
    with pytest.raises(ValueError, match="is 6 members.*pass pad=True"):
        adapter.ensemble(net, 6, out_shardings=a)(3)
    padded = adapter.ensemble(net, 6, out_shardings=a, pad=True)(
        jax.random.split(jax.random.key(0), 6)
    )
    assert padded.noise.value.shape == (8, 8)
    with pytest.raises(ValueError, match="`pad` is for `out_shardings`"):
        adapter.ensemble(net, 6, pad=True)
    with pytest.raises(TypeError, match="`out_shardings` works on modules of seedbed.nn"):
        sb.nn.vmap_init_all_states(bs.nn.GRUCell(2, 3), axis_size=4, out_shardings=a)
