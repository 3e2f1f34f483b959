"""nnx: a single module, and variables that lie as asked for or as their metadata says."""

import copy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax.nnx")
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from helpers import as_words
from meshes import KINDS, assert_lie, assert_same, mesh_of, specs, whole
from nnx_models import WIDTH, Keeper, Model, three_streams

pytestmark = pytest.mark.shared

RULES = (("embed", "a"), ("mlp", "b"))
SHAPES = {"1": (1, 1), "2": (2, 1), "4": (2, 2), "8": (4, 2)}


class Net(nnx.Module):
    """Variables with metadata of several kinds, and without."""

    def __init__(self, *, rngs, width=8):
        normal = nnx.initializers.normal()
        onto = nnx.with_partitioning(normal, (None, "b"))
        self.onto = nnx.Linear(6, width, kernel_init=onto, rngs=rngs)
        ruled = {"out_sharding": ("embed", "mlp")}
        self.ruled = nnx.Linear(width, 16, kernel_metadata=ruled, rngs=rngs)
        own = {"out_sharding": ("other",), "sharding_rules": (("other", "a"),)}
        self.own = nnx.Linear(16, 8, kernel_metadata=own, rngs=rngs)
        self.plain = nnx.Linear(8, 6, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        # Not to be laid out at once, says its author.
        self.gain = nnx.Param(jnp.ones(8), eager_sharding=False)


WHERE = {"onto": P(None, "b"), "ruled": P("a", "b"), "own": P("a"), "plain": P()}


@pytest.fixture
def adapter():
    return sb.adapters.nnx


def in_mesh(*shape, kind="Explicit"):
    return mesh_of(kind, shape or (4, 2), ("a", "b"))


def by_nnx(make, rngs, *args):
    return nnx.jit(lambda rngs: make(*args, rngs=rngs))(rngs)


@pytest.fixture(scope="module")
def alone():
    """What one device makes; variables with metadata ask for a mesh."""
    with jax.set_mesh(in_mesh(1, 1, kind="Auto")), nnx.logical_axis_rules(RULES):
        return by_nnx(Net, nnx.Rngs(3))


def assert_same_modules(got, expected):
    (graphdef, state), (other, other_state) = nnx.split(got), nnx.split(expected)
    assert graphdef == other
    assert jax.tree.structure(state) == jax.tree.structure(other_state)
    assert_same(whole(jax.tree.leaves(state)), whole(jax.tree.leaves(other_state)))


def kernels(model):
    return {name: getattr(model, name).kernel.get_value() for name in WHERE}


# --- one module -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Keeper, lambda rngs: Model(WIDTH, rngs=rngs)])
def test_a_single_module_is_that_of_the_class(make, adapter):
    rngs, other = three_streams(), three_streams()
    single = adapter.single(make)
    for _ in range(2):  # streams go on where they were left
        assert_same_modules(single(rngs), by_nnx(make, other))
        assert_same(nnx.state(rngs), nnx.state(other))


def test_arguments_and_keys_in_all_the_forms_that_rngs_take(adapter):
    make = adapter.single(nnx.Linear)
    want = by_nnx(nnx.Linear, nnx.Rngs(7), WIDTH, WIDTH)
    for key in (7, jax.random.key(7), jax.random.PRNGKey(7), {"params": 7}, {"default": 7}):
        assert_same_modules(make(key, WIDTH, WIDTH), want)
    assert_same_modules(nnx.jit(lambda rngs: make(rngs, WIDTH, WIDTH))(nnx.Rngs(7)), want)
    assert_same_modules(copy.deepcopy(make)(7, WIDTH, WIDTH), want)
    rngs = nnx.Rngs(7)
    assert [one.path for one in make.plan(rngs, WIDTH, WIDTH).outputs][-1] == "['rngs']['default']"
    assert int(rngs.default.count[...]) == 0 and repr(make) == "single(Linear)"


def test_a_module_that_keeps_its_rngs_keeps_those_of_the_caller(adapter):
    rngs = three_streams()
    for places in (None, in_mesh()):
        got = adapter.single(Keeper, out_shardings=places)(rngs)
        assert got.inner.rngs is rngs and len(rngs.params.key[...].devices()) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_metadata_says_where_variables_lie(shape, kind, adapter, alone):
    mesh = in_mesh(*SHAPES[shape], kind=kind)
    make = adapter.single(Net, out_shardings=mesh)
    with nnx.logical_axis_rules(RULES):
        rngs = nnx.Rngs(3)
        got = make(rngs)
        jitted = nnx.jit(make)(jax.random.key(3))
        with jax.set_mesh(mesh):
            entered = make(nnx.Rngs(3))
    assert int(rngs.default.count[...]) == 9
    for model in (got, jitted, entered):
        assert_same_modules(model, alone)
        assert_lie(kernels(model), mesh, WHERE)
        assert_lie(model.plain.bias.get_value(), mesh, P())
    assert got.gain.eager_sharding is False and got.onto.kernel.eager_sharding is True


def test_rules_are_those_around_the_call(adapter):
    make = adapter.single(Net, out_shardings=in_mesh())
    for rules in (RULES, (("embed", None), ("mlp", "a"))):
        with nnx.logical_axis_rules(rules):
            names = dict(rules)
            assert specs(kernels(make(0))["ruled"]) == P(names["embed"], names["mlp"])


def test_what_nnx_hands_out_says_it_too(adapter, alone):
    mesh = in_mesh()
    with jax.set_mesh(in_mesh(kind="Auto")), nnx.logical_axis_rules(RULES):
        shapes = nnx.eval_shape(lambda: Net(rngs=nnx.Rngs(0)))
        given = nnx.get_named_sharding(nnx.state(shapes), mesh)
    got = adapter.single(Net, out_shardings=given)(3)
    assert specs(kernels(got)) == WHERE
    assert_same_modules(got, alone)


def test_modules_and_variables_by_path(adapter):
    mesh = in_mesh()
    b = NamedSharding(mesh, P("b"))
    given = {"onto": b, "ruled": {"bias": b}}
    got = adapter.single(Net, out_shardings=given)(3)
    where = {"onto": P("b"), "ruled": P(), "own": P(), "plain": P()}
    assert specs(kernels(got)) == where
    assert specs(got.ruled.bias.get_value()) == specs(got.onto.bias.get_value()) == P("b")
    layers = adapter.single(
        lambda rngs: nnx.Sequential(nnx.Linear(4, 8, rngs=rngs), nnx.Linear(8, 4, rngs=rngs)),
        out_shardings={"layers": {1: b}},
    )(0)
    assert specs(layers.layers[1].kernel.get_value()) == P("b")
    assert specs(layers.layers[0].kernel.get_value()) == P()


def test_nothing_is_sent(adapter, native):
    make = adapter.single(Net, out_shardings=in_mesh())

    def state(key):
        return nnx.state(make(key))

    with nnx.logical_axis_rules(RULES):
        text = jax.jit(state).lower(jax.random.key(0)).compile().as_text()
    assert "seedbed_fill" in text
    assert not [word for word in ("all-", "collective", "reduce-scatter") if word in text]


# --- ensembles --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_members_lie_as_asked_for(kind, adapter):
    mesh = in_mesh(kind=kind)
    place = NamedSharding(mesh, P(("a", "b")))
    make = adapter.ensemble(Model, 8, out_shardings=place)
    plain = adapter.ensemble(Model, 8)
    rngs, other = three_streams(), three_streams()
    got = make(rngs, WIDTH)
    assert_same_modules(got, plain(other, WIDTH))
    assert_same(nnx.state(rngs), nnx.state(other))
    own = jax.tree.leaves(nnx.state(got))
    assert all(leaf.sharding.is_equivalent_to(place, leaf.ndim) for leaf in own)
    assert_same_modules(make.member(rngs, 2, WIDTH), plain.member(other, 2, WIDTH))


def test_members_are_whole_where_only_metadata_speaks(adapter):
    shared = nnx.PathContains("ruled")
    with nnx.logical_axis_rules(RULES):
        got = adapter.ensemble(Net, 3, shared=shared, out_shardings=in_mesh())(0)
    assert got.onto.kernel.shape == (3, 6, 8) and got.ruled.kernel.shape == (8, 16)
    where = {"onto": P(None, None, "b"), "ruled": P("a", "b"), "own": P(None, "a"), "plain": P()}
    assert specs(kernels(got)) == where


def test_streams_that_are_not_split_and_shared_variables_are_whole(adapter):
    a = NamedSharding(in_mesh(), P("a"))
    shared = nnx.PathContains("linear")
    make = adapter.ensemble(Model, 4, only="params", shared=shared, out_shardings=a)
    plain = adapter.ensemble(Model, 4, only="params", shared=shared)
    rngs, other = three_streams(), three_streams()
    assert_same_modules(make(rngs, WIDTH), plain(other, WIDTH))
    assert_same(nnx.state(rngs), nnx.state(other))


def test_padding(adapter):
    place = NamedSharding(in_mesh(), P("a"))
    got = adapter.ensemble(nnx.Linear, 6, out_shardings=place, pad=True)(0, WIDTH, WIDTH)
    assert_same_modules(got, adapter.ensemble(nnx.Linear, 8)(0, WIDTH, WIDTH))
    with pytest.raises(ValueError, match="`size` is 6 members.*pass pad=True"):
        adapter.ensemble(nnx.Linear, 6, out_shardings=place)(0, WIDTH, WIDTH)


# --- what is refused --------------------------------------------------------------------


def test_metadata_that_does_not_fit(adapter):
    make = adapter.single(Net, out_shardings=in_mesh())
    says = r"P\w*\('embed', 'mlp'\) for the leaf \['ruled'\]\['kernel'\].value of shape \(8, 16\)"
    with pytest.raises(ValueError, match=says + r".*\(a: 4, b: 2\).*no axis 'embed'"):
        make(0)
    with nnx.logical_axis_rules(RULES), pytest.raises(ValueError, match="length 9 does not divide"):
        make(0, width=9)


def test_what_says_nothing_of_places(adapter):
    place = NamedSharding(in_mesh(), P())
    for wrong in ("a", {"onto": {"kernel": 3}}, nnx.Linear(2, 2, rngs=nnx.Rngs(0))):
        with pytest.raises(TypeError, match="`out_shardings` must consist of NamedShardings"):
            adapter.single(Net, out_shardings=wrong)
    with pytest.raises(ValueError, match="names onto.kern, and the model has no such variable"):
        adapter.single(Net, out_shardings={"onto": {"kern": place}})(0)
    with pytest.raises(TypeError, match="`make` must be an nnx.Module class"):
        adapter.single(3)
    with pytest.raises(ValueError, match="one key in each stream for a single model"):
        adapter.single(nnx.Linear)(jax.random.split(jax.random.key(0), 2), 2, 2)
    with pytest.raises(TypeError, match="the rngs are the first argument"):
        adapter.single(nnx.Linear)(0, 2, 2, rngs=nnx.Rngs(0))


def test_a_model_that_fails_leaves_the_rngs_as_they_were(adapter):
    def fails(*, rngs):
        rngs.params()
        raise RuntimeError("no")

    rngs = three_streams()
    before = [np.asarray(as_words(leaf)) for leaf in jax.tree.leaves(nnx.state(rngs))]
    with pytest.raises(RuntimeError, match="no"):
        adapter.single(fails, out_shardings=in_mesh())(rngs)
    after = [np.asarray(as_words(leaf)) for leaf in jax.tree.leaves(nnx.state(rngs))]
    assert all(map(np.array_equal, before, after)) and nnx.using_eager_sharding()
