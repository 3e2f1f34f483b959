"""linen: a single model, and variables that lie as asked for or as their metadata says."""

import copy

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("flax.linen")
from flax import linen as nn
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from meshes import KINDS, assert_lie, assert_same, mesh_of, specs, whole

pytestmark = pytest.mark.shared

KEY, X = jax.random.key(5), jnp.ones((1, 6))
RULES = (("embed", "a"), ("mlp", "b"), ("nowhere", None))
SHAPES = {"1": (1, 1), "2": (2, 1), "4": (2, 2), "8": (4, 2)}


def by_rules(*names, **options):
    return nn.with_logical_partitioning(nn.initializers.normal(), names, **options)


class Net(nn.Module):
    """Variables with metadata of either kind, and without."""

    @nn.compact
    def __call__(self, x):
        onto = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "b"))
        x = nn.Dense(8, kernel_init=onto, name="onto")(x)
        x = nn.Dense(16, kernel_init=by_rules("embed", "mlp"), name="ruled")(x)
        own = by_rules("embed", "other", rules=(("other", "a"),))
        x = nn.Dense(16, kernel_init=own, name="own")(x)
        return nn.BatchNorm(use_running_average=True)(nn.Dense(6, name="plain")(x))


WHERE = {"onto": P(None, "b"), "ruled": P("a", "b"), "own": P(None, "a"), "plain": P()}


@pytest.fixture
def linen():
    return sb.adapters.linen


@pytest.fixture(scope="module")
def alone():
    return jax.jit(Net().init)(KEY, X)


def kernels(variables):
    params = nn.meta.unbox(variables["params"])
    return {name: params[name]["kernel"] for name in WHERE}


def in_mesh(*shape, kind="Explicit"):
    return mesh_of(kind, shape or (4, 2), ("a", "b"))


# --- one model --------------------------------------------------------------------------


def test_a_single_model_is_that_of_init(linen, alone):
    make = linen.single(Net())
    for run in (make, jax.jit(make)):
        assert_same(run(KEY, X), alone)
    assert_same(make(KEY, jax.ShapeDtypeStruct(X.shape, X.dtype)), alone)
    keys = {"params": KEY, "dropout": jax.random.key(1)}
    assert_same(make(keys, X), jax.jit(Net().init)(keys, X))
    assert make.plan(KEY, X).outputs[0].path == "['batch_stats']['BatchNorm_0']['mean']"
    assert repr(make) == "single(Net)"
    assert_same(copy.deepcopy(make)(KEY, X), alone)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_metadata_says_where_variables_lie(shape, kind, linen, alone):
    mesh = in_mesh(*SHAPES[shape], kind=kind)
    make = linen.single(Net(), out_shardings=mesh)
    for run in (make, jax.jit(make)):
        with nn.logical_axis_rules(RULES):
            got = run(KEY, X)
        assert jax.tree.structure(got) == jax.tree.structure(alone)  # boxes and all
        assert_same(whole(got), whole(alone))
        assert all(leaf.sharding.mesh == mesh for leaf in jax.tree.leaves(got))
        assert_lie(kernels(got), mesh, WHERE)
        assert_lie(got["batch_stats"], mesh, P())


def test_rules_are_those_around_the_call(linen):
    make = linen.single(Net(), out_shardings=in_mesh())
    for rules, where in ((RULES, P("a", "b")), ((("mlp", "a"),), P(None, "a")), ((), P())):
        with nn.logical_axis_rules(rules):
            assert specs(kernels(make(KEY, X))["ruled"]) == where


def test_what_flax_hands_out_says_it_too(linen, alone):
    mesh = in_mesh()
    shapes = jax.eval_shape(Net().init, KEY, X)
    with nn.logical_axis_rules(RULES):
        given = nn.logical_to_mesh_sharding(nn.get_partition_spec(shapes), mesh)
    got = linen.single(Net(), out_shardings=given)(KEY, X)
    assert_same(whole(got), whole(alone))
    # These rules know nothing of names of the mesh.
    assert specs(kernels(got)) == {**WHERE, "onto": P(), "own": P("a")}


def test_layers_of_a_scan_have_an_axis_of_their_own(linen):
    class Layers(nn.Module):
        @nn.compact
        def __call__(self, x):
            layer = nn.Dense(
                8, kernel_init=nn.with_partitioning(nn.initializers.normal(), ("a", "b"))
            )

            def body(layer, x):
                return layer(x), None

            meta = {nn.PARTITION_NAME: None}
            scan = nn.scan(
                body, {"params": 0}, split_rngs={"params": True}, length=3, metadata_params=meta
            )
            return scan(layer, x)[0]

    x = jnp.ones((1, 8))
    got = linen.single(Layers(), out_shardings=in_mesh())(KEY, x)["params"]
    (kernel,) = [leaf for leaf in jax.tree.leaves(got) if leaf.ndim == 3]
    assert specs(kernel) == P(None, "a", "b")
    assert_same(whole(got), whole(jax.jit(Layers().init)(KEY, x)["params"]))


def test_nothing_is_sent_and_nothing_is_held_twice(linen, native):
    make = jax.jit(linen.single(Net(), out_shardings=in_mesh()))
    with nn.logical_axis_rules(RULES):
        compiled = make.lower(KEY, X).compile()
    text = compiled.as_text()
    assert "seedbed_fill" in text
    assert not [word for word in ("all-", "collective", "reduce-scatter") if word in text]


# --- ensembles --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_members_lie_as_asked_for(kind, linen):
    mesh = in_mesh(kind=kind)
    place = NamedSharding(mesh, P(("a", "b")))
    make = linen.ensemble(Net(), 8, out_shardings=place)
    plain = linen.ensemble(Net(), 8)
    got = make(KEY, X)
    assert_same(whole(got), whole(plain(KEY, X)))
    assert all(leaf.sharding.is_equivalent_to(place, leaf.ndim) for leaf in jax.tree.leaves(got))
    assert_same(whole(make.member(KEY, 3, X)), whole(plain.member(KEY, 3, X)))
    some = make.members(KEY, slice(0, 8), X)
    assert specs(some) == specs(got)
    with jax.set_mesh(mesh):  # flax's own constraints fail on explicit meshes that are set
        dense = nn.Dense(8) if kind == "Explicit" else Net()
        again = linen.ensemble(dense, 8, out_shardings=P(("a", "b")))(KEY, X)
    assert_same(whole(again), whole(linen.ensemble(dense, 8)(KEY, X)))
    assert all(leaf.sharding.is_equivalent_to(place, leaf.ndim) for leaf in jax.tree.leaves(again))


def test_members_are_whole_where_only_metadata_speaks(linen):
    shared = ["batch_stats", "params/ruled"]
    make = linen.ensemble(Net(), 3, shared=shared, out_shardings=in_mesh())
    with nn.logical_axis_rules(RULES):
        got = make(KEY, X)
    assert_same(whole(got), whole(linen.ensemble(Net(), 3, shared=shared)(KEY, X)))
    where = {"onto": P(None, None, "b"), "ruled": P("a", "b"), "own": P(None, None, "a")}
    assert specs(kernels(got)) == {**where, "plain": P()}


def test_shared_variables_are_whole_or_as_a_tree_says(linen):
    mesh, shared = in_mesh(), "params/plain"
    a = NamedSharding(mesh, P("a"))
    got = linen.ensemble(Net(), 4, shared=shared, out_shardings=a)(KEY, X)["params"]
    assert specs(got["own"]["kernel"].value) == P("a")
    assert specs(got["plain"]) == {"kernel": P(), "bias": P()}
    params = {"onto": a, "ruled": None, "own": a, "BatchNorm_0": None}
    params["plain"] = {"kernel": NamedSharding(mesh, P(None, "b")), "bias": None}
    given = {"params": params, "batch_stats": None}
    got = linen.ensemble(Net(), 4, shared=shared, out_shardings=given)(KEY, X)["params"]
    assert specs(got["plain"]) == {"kernel": P(None, "b"), "bias": P()}
    assert specs(got["onto"]["kernel"].value) == P("a")


def test_padding(linen):
    place = NamedSharding(in_mesh(), P("a"))
    dense = nn.Dense(4)
    got = linen.ensemble(dense, 6, out_shardings=place, pad=True)(KEY, X)
    assert_same(whole(got), whole(linen.ensemble(dense, 8)(KEY, X)), weak=False)
    with pytest.raises(ValueError, match="`size` is 6 members.*pass pad=True"):
        linen.ensemble(dense, 6, out_shardings=place)(KEY, X)
    with pytest.raises(ValueError, match="`pad` is for `out_shardings`"):
        linen.ensemble(dense, 6, pad=True)


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("q",), r"P\w*\('q',\) for the leaf \['params'\]\['kernel'\].value.*mesh has no axis 'q'"),
        ((None, "a"), r"\(a: 4, b: 2\): dimension 1 of length 6 does not divide into 4"),
        ((None, None, "a"), "has 3 entries for 2 dimensions"),
        (("b", "b"), "two dimensions cannot be split over the same axis 'b'"),
    ],
)
def test_metadata_that_does_not_fit(names, says, linen):
    onto = nn.with_partitioning(nn.initializers.normal(), names)
    with pytest.raises(ValueError, match=says):
        linen.single(nn.Dense(6, kernel_init=onto), out_shardings=in_mesh())(KEY, X)


def test_what_says_nothing_of_places(linen):
    place = NamedSharding(in_mesh(), P())
    for wrong in ("a", {"params": 3}, jax.devices()):
        with pytest.raises(TypeError, match="`out_shardings` must consist of NamedShardings"):
            linen.single(Net(), out_shardings=wrong)
    with pytest.raises(ValueError, match="structure is a prefix of the result's"):
        linen.single(nn.Dense(2), out_shardings={"params": {"kernel": place}})(KEY, X)
    with pytest.raises(TypeError, match="`model` must be a module of flax.linen"):
        linen.single(Net)
    with pytest.raises(ValueError, match="`key` must be one key"):
        linen.single(Net())(jax.random.split(KEY, 2), X)
