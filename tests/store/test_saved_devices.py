"""`Saved.to`: each device reads its own part, and no more is in memory than that."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
import stores
from helpers import assert_same_bits
from meshes import KINDS, mesh_of, whole
from seedbed._store.read import Reader

SIZE = 24


@pytest.fixture(scope="module")
def tree():
    return {
        "key": jax.random.split(jax.random.key(1), SIZE),
        "net": [jax.random.normal(jax.random.key(0), (SIZE, 4, 6)), jnp.arange(SIZE) * 2],
    }


@pytest.fixture(scope="module")
def saved(tree, tmp_path_factory):
    store = tmp_path_factory.mktemp("stores") / "store"
    stores.write(store, tree, chunk=10, inner=5)
    return sb.load(store)


@pytest.fixture
def parts(monkeypatch):
    """The parts that are read."""
    found, part = [], Reader.part

    def noted(reader, place, index):
        found.append((place, index))
        return part(reader, place, index)

    monkeypatch.setattr(Reader, "part", noted)
    return found


def assert_laid_out(got, tree, shardings):
    assert_same_bits(whole(got), whole(tree), weak=False)
    for one, sharding in zip(jax.tree.leaves(got), shardings, strict=True):
        assert one.sharding.is_equivalent_to(sharding, one.ndim)
        assert one.committed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entered", ["alone", "set_mesh"], indirect=True)
def test_members_are_split_over_devices(saved, tree, parts, kind, entered):
    mesh = mesh_of(kind)
    with entered(mesh):
        got = saved.to(NamedSharding(mesh, P("x")))
    assert_laid_out(got, tree, [NamedSharding(mesh, P("x"))] * 3)
    members = [(place, index[0].start, index[0].stop) for place, index in parts]
    assert members == [(place, at, at + 6) for place in range(3) for at in range(0, SIZE, 6)]


def test_other_dimensions_are_split_and_replicas_read_once(saved, tree, parts):
    mesh = mesh_of("Auto", (2, 4), ("x", "y"))
    split, over = NamedSharding(mesh, P("x", None, "y")), NamedSharding(mesh, P(("y", "x")))
    with pytest.raises(ValueError, match=r"leaf \['net'\]\[0\] of shape \(24, 4, 6\)"):
        saved.to({"key": None, "net": [split, over]})
    assert not parts
    split = NamedSharding(mesh, P("x", "y"))
    got = saved.to({"key": None, "net": [split, NamedSharding(mesh, P("x"))]})
    places = [NamedSharding(mesh, P()), split, NamedSharding(mesh, P("x"))]
    assert_laid_out(got, tree, places)
    assert [place for place, _ in parts] == [0] + [1] * 8 + [2] * 2
    assert_laid_out(saved.leaf("net.1").to(over), tree["net"][1], [over])


def test_specs_are_of_the_mesh_that_is_set(saved, tree):
    mesh = mesh_of("Explicit")
    with jax.set_mesh(mesh):
        got = saved.to({"key": P("x"), "net": P(None)})
    places = [NamedSharding(mesh, spec) for spec in (P("x"), P(), P())]
    assert_laid_out(got, tree, places)
    with pytest.raises(ValueError, match="a PartitionSpec, and no mesh is set"):
        saved.to(P("x"))


def test_one_device(saved, tree):
    sharding = SingleDeviceSharding(jax.devices()[3])
    assert_laid_out(saved.to(sharding), tree, [sharding] * 3)


@pytest.mark.parametrize(
    ("sharding", "error", "said"),
    [
        (None, TypeError, "must consist of shardings.* not of None alone"),
        (3, TypeError, "must consist of shardings.*got 3"),
        ({"key": None}, ValueError, "`sharding` must be a sharding, a PartitionSpec, None, or a"),
        (P("y"), ValueError, "y"),
        (P(None, "x"), ValueError, r"leaf \['key'\] of shape \(24,\): .*more entries"),
        (NamedSharding(mesh_of("Auto", (5,)), P("x")), ValueError, r"leaf \['key'\] .*24"),
    ],
    ids=str,
)
def test_what_is_no_sharding_of_it_is_refused(saved, sharding, error, said, parts):
    with jax.set_mesh(mesh_of()), pytest.raises(error, match=said):
        saved.to(sharding)
    assert not parts
