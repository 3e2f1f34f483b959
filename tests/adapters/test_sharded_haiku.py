"""haiku: parameters of a single model, and parameters that lie as asked for."""

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("haiku")
import haiku as hk
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from meshes import KINDS, assert_lie, assert_same, mesh_of, specs, whole

pytestmark = pytest.mark.shared

KEY, X = jax.random.key(5), jnp.ones((1, 8))


@hk.transform
def net(x):
    return hk.nets.MLP([16, 8])(x)


@hk.transform_with_state
def with_state(x):
    return hk.BatchNorm(True, True, 0.9)(hk.Linear(8)(x), is_training=True)


@pytest.fixture
def adapter():
    return sb.adapters.haiku


def in_mesh(kind="Explicit"):
    return mesh_of(kind, (4, 2), ("a", "b"))


@pytest.mark.parametrize("model", [net, with_state], ids=["plain", "with state"])
def test_a_single_model_is_that_of_init(model, adapter):
    want = jax.jit(model.init)(KEY, X)
    make = adapter.single(model)
    for run in (make, jax.jit(make)):
        assert_same(run(KEY, X), want)
    if model is net:
        assert_same(make(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype)), want)
    assert "['params']" in make.plan(KEY, X).outputs[0].path


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_model_lies_as_asked_for(kind, adapter):
    mesh = in_mesh(kind)
    b = NamedSharding(mesh, P(None, "b"))
    want = whole(jax.jit(net.init)(KEY, X))
    for given in (b.update(spec=P("b")), {name: {"w": b, "b": None} for name in want}):
        make = adapter.single(net, out_shardings=given)
        for got in (make(KEY, X), jax.jit(make)(KEY, X)):
            assert_same(whole(got), want)
            for layer in got.values():
                assert_lie(layer["w"], mesh, P(None, "b") if isinstance(given, dict) else P("b"))
    params, state = adapter.single(
        with_state, out_shardings=({"batch_norm": b, "linear": None}, None)
    )(KEY, X)
    assert specs(params["linear"]["w"]) == P() and specs(params["batch_norm"]["scale"]) == P(
        None, "b"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_members_lie_as_asked_for(kind, adapter):
    mesh = in_mesh(kind)
    place = NamedSharding(mesh, P("a"))
    make, plain = adapter.ensemble(net, 8, out_shardings=place), adapter.ensemble(net, 8)
    got = make(KEY, X)
    assert_same(whole(got), whole(plain(KEY, X)))
    assert_lie(got, mesh, P("a"))
    assert_same(whole(make.member(KEY, 3, X)), whole(plain.member(KEY, 3, X)))
    assert len(adapter.forward(net, got, None, X).sharding.device_set) == 8
    shared = adapter.ensemble(with_state, 8, shared="state", out_shardings=place)
    params, state = shared(KEY, X)
    assert_lie(params, mesh, P("a"))
    assert_lie(state, mesh, P())


def test_what_does_not_fit(adapter):
    mesh = in_mesh()
    says = (
        r"P\w*\(None, 'a'\) for the leaf \['params'\]\['mlp/~/linear_0'\]\['b'\] of shape \(16,\)"
    )
    with pytest.raises(ValueError, match=says):
        adapter.single(net, out_shardings=NamedSharding(mesh, P(None, "a")))(KEY, X)
    for wrong in ("a", mesh):
        with pytest.raises(TypeError, match="`out_shardings` must consist of NamedShardings"):
            adapter.single(net, out_shardings=wrong)
    with pytest.raises(ValueError, match="structure is a prefix of the result's"):
        adapter.single(net, out_shardings=(NamedSharding(mesh, P()), None))(KEY, X)
    with pytest.raises(TypeError, match="`transformed` must be what hk.transform"):
        adapter.single(3)
    with pytest.raises(ValueError, match="`size` is 6 members.*pass pad=True"):
        adapter.ensemble(net, 6, out_shardings=NamedSharding(mesh, P("a")))(KEY, X)
    padded = adapter.ensemble(net, 6, out_shardings=NamedSharding(mesh, P("a")), pad=True)(KEY, X)
    assert_same(whole(padded), whole(adapter.ensemble(net, 8)(KEY, X)))
