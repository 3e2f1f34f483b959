"""equinox: a single module, and arrays that lie as asked for."""

import copy

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("equinox")
import equinox as eqx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from meshes import KINDS, assert_lie, assert_same, mesh_of, specs, whole

pytestmark = pytest.mark.shared

KEY = jax.random.key(5)
SIZES = (8, 16, 32, 2)  # in, out, width, depth


@pytest.fixture
def adapter():
    return sb.adapters.equinox


def mlp(key):
    return eqx.nn.MLP(*SIZES, key=key)


def arrays(model):
    return whole(eqx.filter(model, eqx.is_array))


def in_mesh(kind="Explicit"):
    return mesh_of(kind, (4, 2), ("a", "b"))


def in_columns(mesh):
    """Matrices over the second axis, all else whole: a prefix with leaves for functions too."""
    shapes = eqx.filter_eval_shape(mlp, KEY)

    def place(leaf):
        matrix = len(getattr(leaf, "shape", ())) == 2
        return NamedSharding(mesh, P(None, "b") if matrix else P())

    return jax.tree.map(place, shapes)


def test_a_single_model_is_that_of_the_class(adapter):
    want = arrays(eqx.filter_jit(mlp)(KEY))
    make = adapter.single(eqx.nn.MLP)
    for one in (make, copy.deepcopy(make)):
        assert_same(arrays(one(KEY, *SIZES)), want)
    assert_same(arrays(adapter.single(mlp)(KEY)), want)
    assert_same(arrays(eqx.filter_jit(adapter.single(mlp))(KEY)), want)
    assert make.plan(KEY, *SIZES).outputs[0].path == ".layers[0].weight"
    assert repr(make) == "single(MLP)"


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_model_lies_as_asked_for(kind, adapter):
    mesh = in_mesh(kind)
    want = arrays(eqx.filter_jit(mlp)(KEY))
    for given in (NamedSharding(mesh, P("b")), in_columns(mesh)):
        make = adapter.single(mlp, out_shardings=given)
        for got in (make(KEY), eqx.filter_jit(make)(KEY)):
            assert_same(arrays(got), want)
            one = P("b") if isinstance(given, NamedSharding) else P(None, "b")
            assert_lie([layer.weight for layer in got.layers], mesh, one)
            assert_lie(got.layers[0].bias, mesh, P("b") if one == P("b") else P())


def test_models_with_a_state(adapter):
    def norm(key):
        return eqx.nn.make_with_state(eqx.nn.BatchNorm)(8, "batch", mode="batch")

    place = NamedSharding(in_mesh(), P("b"))
    got, state = adapter.single(norm, out_shardings=(place, None))(KEY)
    assert specs(got.weight) == P("b")
    leaves = jax.tree.leaves(state)
    assert leaves and all(leaf.sharding.is_fully_replicated for leaf in leaves)


@pytest.mark.parametrize("kind", KINDS)
def test_members_lie_as_asked_for(kind, adapter):
    mesh = in_mesh(kind)
    place = NamedSharding(mesh, P("a"))
    make, plain = adapter.ensemble(mlp, 8, out_shardings=place), adapter.ensemble(mlp, 8)
    got = make(KEY)
    assert_same(arrays(got), arrays(plain(KEY)))
    assert_lie(eqx.filter(got, eqx.is_array), mesh, P("a"))
    assert_same(arrays(make.member(KEY, 3)), arrays(plain.member(KEY, 3)))
    outputs = adapter.forward(got, jnp.ones(8))
    assert_same(whole(outputs), whole(adapter.forward(plain(KEY), jnp.ones(8))), ulps=64)
    assert len(outputs.sharding.device_set) == 8


def test_shared_arrays_are_whole(adapter):
    def first(model):
        return model.layers[0]

    place = NamedSharding(in_mesh(), P("a"))
    got = adapter.ensemble(mlp, 4, shared=first, out_shardings=place)(KEY)
    assert_same(arrays(got), arrays(adapter.ensemble(mlp, 4, shared=first)(KEY)))
    assert specs(got.layers[0].weight) == P() and specs(got.layers[1].weight) == P("a")


def test_padding(adapter):
    place = NamedSharding(in_mesh(), P("a"))
    got = adapter.ensemble(mlp, 6, out_shardings=place, pad=True)(KEY)
    assert_same(arrays(got), arrays(adapter.ensemble(mlp, 8)(KEY)))
    with pytest.raises(ValueError, match="`size` is 6 members.*pass pad=True"):
        adapter.ensemble(mlp, 6, out_shardings=place)(KEY)


def test_what_does_not_fit(adapter):
    mesh = in_mesh()
    says = r"P\w*\('a'\S*\) for the leaf \.layers\[0\]\.weight of shape \(6, 8\).*not divide into 4"
    with pytest.raises(ValueError, match=says):
        adapter.single(eqx.nn.MLP, out_shardings=NamedSharding(mesh, P("a")))(KEY, 8, 8, 6, 1)
    for wrong in ("a", mesh):
        with pytest.raises(TypeError, match="`out_shardings` must consist of NamedShardings"):
            adapter.single(mlp, out_shardings=wrong)
    with pytest.raises(TypeError, match="`out_shardings` must consist of NamedShardings"):
        adapter.single(mlp, out_shardings=mlp(KEY))(KEY)
    with pytest.raises(ValueError, match="structure is a prefix of the result's"):
        adapter.single(mlp, out_shardings=(NamedSharding(mesh, P()), None))(KEY)
    with pytest.raises(TypeError, match="`make` must be a module class"):
        adapter.single(3)
