"""`out_shardings`: every device makes its part, and the whole has the bits of one device."""

import copy
import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from helpers import assert_same_bits
from meshes import KINDS, mesh_of, whole

pytestmark = pytest.mark.shared

SIZE = 16
KEY = jax.random.key(11)
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


def init(key, scale=1.0):
    keys = jax.random.split(key, 6)
    layers = jax.vmap(lambda key: jax.random.uniform(key, (16, 8)))
    return {
        "normal": jax.random.normal(keys[0], (64, 32)),
        "keys": jax.random.split(keys[1], 8),
        "zeros": jnp.zeros(8),
        "scaled": jax.random.uniform(keys[2], (6, 8)) * scale,
        "qr": jnp.linalg.qr(jax.random.normal(keys[3], (8, 8)))[0],
        "layers": layers(jax.random.split(keys[4], 8)),
        "count": jnp.arange(8.0),
        "integers": jax.random.randint(keys[5], (16,), 0, 100),
    }


def of_parameters(mesh, a, b):
    """Leaves split over members, over parameters, over both and over neither."""

    def place(*spec):
        return NamedSharding(mesh, P(*spec))

    return {
        "normal": place(a, b),
        "keys": place(None, a),
        "zeros": place(b, a),
        "scaled": place(a, None, b),
        "qr": place((a, b)),
        "layers": place(None, a, None, b),
        "count": place(None, b),
        "integers": None,
    }


MESHES = {"1": (1, 1), "2": (2, 1), "4": (2, 2), "8": (4, 2), "8 of one axis": (1, 8)}
LAYOUTS = {
    "members": lambda mesh: NamedSharding(mesh, P("a")),
    "members over both": lambda mesh: NamedSharding(mesh, P(("b", "a"))),
    "parameters": lambda mesh: of_parameters(mesh, "a", "b"),
}


@pytest.fixture(scope="module")
def alone():
    """What one device makes."""
    return whole(jax.jit(jax.vmap(init))(jax.random.split(KEY, SIZE)))


def assert_laid_out(got, shardings):
    if not isinstance(shardings, dict):
        shardings = dict.fromkeys(got, shardings)
    for name, leaf in got.items():
        if shardings[name] is None:
            assert leaf.sharding.is_fully_replicated, name
        else:
            assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim), name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", MESHES)
def test_any_mesh_gives_the_bits_of_one_device(shape, kind, layout, alone):
    mesh = mesh_of(kind, MESHES[shape], ("a", "b"))
    shardings = LAYOUTS[layout](mesh)
    make = sb.ensemble(init, SIZE, out_shardings=shardings)
    for run in (make, jax.jit(make)):
        got = run(KEY)
        assert_laid_out(got, shardings)
        assert_same_bits(whole(got), alone)
        with jax.set_mesh(mesh):
            assert_same_bits(whole(run(KEY)), alone)


def narrow(key):
    keys = jax.random.split(key, 3)
    return {f"{n}": jax.random.normal(keys[n - 3], (16, n)) for n in (3, 4, 5)}


@pytest.mark.parametrize("kind", KINDS)
def test_normals_in_short_rows_are_within_three_ulps(kind):
    # XLA makes them (docs/short-rows.md), by a loop that depends on how many members it sees.
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    want = whole(jax.jit(jax.vmap(narrow))(jax.random.split(KEY, 64)))
    for spec in (P(("a", "b")), P("a", "b")):
        got = whole(sb.ensemble(narrow, 64, out_shardings=NamedSharding(mesh, spec))(KEY))
        for name, leaf in got.items():
            np.testing.assert_array_max_ulp(np.asarray(leaf), np.asarray(want[name]), maxulp=3)


@pytest.mark.parametrize("kind", KINDS)
def test_specs_are_of_the_mesh_that_is_set(kind, alone):
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    make = sb.ensemble(init, SIZE, out_shardings=P("a"))
    with jax.set_mesh(mesh):
        for run in (make, jax.jit(make)):
            got = run(KEY)
            assert_laid_out(got, NamedSharding(mesh, P("a")))
            assert_same_bits(whole(got), alone)
    other = sb.ensemble(init, SIZE, out_shardings=P("x"))
    with warnings.catch_warnings():  # a mesh as a context: jax is about to give it up
        warnings.simplefilter("ignore", DeprecationWarning)
        with mesh_of("Auto", (2,)):
            assert other(KEY)["normal"].sharding.num_devices == 2
    with jax.set_mesh(mesh_of(kind, (4,))):
        assert other(KEY)["normal"].sharding.num_devices == 4


def test_one_device():
    device = jax.devices()[3]
    got = sb.ensemble(init, SIZE, out_shardings=SingleDeviceSharding(device))(KEY)
    assert {leaf.device for leaf in jax.tree.leaves(got)} == {device}


# --- what is asked for ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_some_members(layout, kind, alone):
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    make = sb.ensemble(init, SIZE, out_shardings=LAYOUTS[layout](mesh))
    listed = np.array([3, 1, 7, 15, 2, 2, 0, 9])
    for index in (slice(4, 12), listed):
        want = {name: leaf[index] for name, leaf in alone.items()}
        assert_same_bits(whole(make.members(KEY, index)), want)
    one = jax.jit(make.member)(KEY, jnp.int32(5))
    assert_same_bits(whole(one), jax.tree.map(lambda x: x[5], alone))
    assert one["normal"].sharding.mesh.shape == mesh.shape
    parts = [*make.stream(KEY, chunk_size=8)]
    assert_same_bits(whole(parts[1]), jax.tree.map(lambda x: x[8:], alone))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [None, (), ("a",)], ids=["one device", "whole", "sharded"])
def test_mapped_arguments_and_stacked_keys(native, spec, kind):
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    keys, scale = jax.random.split(KEY, SIZE), jnp.arange(1.0, SIZE + 1)
    want = whole(jax.jit(jax.vmap(init))(keys, scale))
    if spec is not None:
        place = NamedSharding(mesh, P(*spec))
        keys, scale = jax.device_put(keys, place), jax.device_put(scale, place)
    make = sb.ensemble(init, SIZE, in_axes=0, out_shardings=LAYOUTS["parameters"](mesh))
    assert make.plan(keys, scale).reference is None
    assert_same_bits(whole(make(keys, scale)), want)
    assert_same_bits(whole(make(KEY, scale)), want)
    part = make.members(keys, slice(8, 16), scale)
    assert_same_bits(whole(part), jax.tree.map(lambda x: x[8:], want))


def test_several_keys_and_legacy_ones():
    def noisy(keys):
        return jax.random.normal(keys["a"], (8,)), jax.random.bits(keys["b"], (3,))

    place = NamedSharding(mesh_of("Auto", (8,)), P("x"))
    keys = {"a": KEY, "b": jax.random.PRNGKey(3)}
    make = sb.ensemble(noisy, SIZE, out_shardings=place)
    assert_same_bits(whole(make(keys)), whole(sb.ensemble(noisy, SIZE)(keys)))


@pytest.mark.parametrize("kind", KINDS)
def test_donated_arrays_are_written_over(kind, alone):
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    shardings = LAYOUTS["parameters"](mesh)
    old = sb.ensemble(init, SIZE, out_shardings=shardings)(jax.random.key(5))
    places = [shard.data.unsafe_buffer_pointer() for shard in old["normal"].addressable_shards]
    new = sb.ensemble(init, SIZE, donate=True, out_shardings=shardings)(KEY, old)
    assert_same_bits(whole(new), alone)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(old))
    got = [shard.data.unsafe_buffer_pointer() for shard in new["normal"].addressable_shards]
    assert got == places


def test_sizes_that_do_not_divide_may_be_padded(alone):
    place = NamedSharding(mesh_of("Auto", (8,)), P("x"))
    make = sb.ensemble(init, 13, in_axes=0, out_shardings=place, pad=True)
    scale = jnp.ones(13)
    for key in (KEY, jax.random.split(KEY, 13)):
        got = make(key, scale)
        assert got["normal"].shape[0] == 16
        first = jax.tree.map(lambda x: x[:13], (whole(got), alone))
        assert_same_bits(*first)
    # The rest are members of a larger ensemble.
    assert_same_bits(whole(make(KEY, scale)), alone)
    assert make.members(KEY, slice(0, 3), scale)["zeros"].shape == (8, 8)
    listed = make.members(KEY, np.array([2, 0]), scale)
    assert_same_bits(whole(listed["normal"][:2]), alone["normal"][jnp.array([2, 0])])


# --- inside of other programs -----------------------------------------------------------------


def compiled_text(run, *args):
    compiled = jax.jit(run).lower(*args).compile()
    return compiled.as_text(), compiled.memory_analysis()


def large(key):
    w, b = jax.random.split(key)
    return {"w": jax.random.normal(w, (512, 256)), "b": jax.random.uniform(b, (512,))}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("spec", [("a",), (("a", "b"),), ("a", "b"), (None, "b")], ids=str)
def test_no_device_has_more_than_its_part(native, spec, kind):
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    make = sb.ensemble(large, 8, out_shardings=NamedSharding(mesh, P(*spec)))
    text, memory = compiled_text(make, KEY)
    assert not [word for word in COLLECTIVES if word in text]
    parts = np.prod([mesh.shape[name] for entry in spec if entry for name in entry])
    total = 8 * sum(leaf.nbytes for leaf in jax.tree.leaves(large(KEY)))
    assert memory.output_size_in_bytes <= total / parts + 4096
    assert memory.temp_size_in_bytes < 64 << 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_users_own_program_is_split_over_members(native, kind):
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    place = NamedSharding(mesh, P(("a", "b")))
    make = sb.ensemble(large, 8)
    want = whole(make(KEY))

    def constrained(key):
        made = make(key)
        put = jax.lax.with_sharding_constraint if kind == "Auto" else jax.sharding.reshard
        return jax.tree.map(lambda leaf: put(leaf, place), made)

    asked = jax.jit(make, out_shardings=place)
    runs = [asked, jax.jit(constrained)] if kind == "Auto" else [asked]
    for run in runs:
        compiled = run.lower(KEY).compile()
        assert not [word for word in COLLECTIVES if word in compiled.as_text()]
        assert compiled.memory_analysis().temp_size_in_bytes < 64 << 10
        got = run(KEY)
        assert got["w"].sharding.is_equivalent_to(place, 3)
        assert_same_bits(whole(got), want)
    keys = jax.random.split(KEY, 8)
    assert_same_bits(whole(asked(keys)), want)


@pytest.mark.parametrize("check", [True, False])
def test_inside_of_shard_map(check):
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    make = sb.ensemble(large, 2)
    keys = jax.random.split(KEY, 4)

    def local(keys):
        return make(keys[0])

    specs = {"mesh": mesh, "in_specs": P("a"), "out_specs": P("a"), "check_vma": check}
    got = jax.jit(jax.shard_map(local, **specs))(keys)
    for i, key in enumerate(keys):
        part = jax.tree.map(lambda leaf, i=i: leaf[2 * i : 2 * i + 2], got)
        assert_same_bits(whole(part), whole(make(key)))


def test_inside_of_shard_map_over_another_axis():
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    make = sb.ensemble(large, 2, out_shardings=NamedSharding(mesh, P("b")))
    keys = jax.random.split(KEY, 4)
    specs = {"mesh": mesh, "in_specs": P("a"), "out_specs": P("a"), "axis_names": {"a"}}
    got = jax.jit(jax.shard_map(lambda keys: make(keys[0]), **specs))(keys)
    assert_same_bits(whole(got["b"][:2]), whole(sb.ensemble(large, 2)(keys[0])["b"]))


def test_differentiated_and_mapped():
    place = NamedSharding(mesh_of("Auto", (8,)), P("x"))
    make = sb.ensemble(lambda key, s: jax.random.normal(key, (8,)) * s, 8, out_shardings=place)
    grad = jax.grad(lambda s: make(KEY, s).sum())(2.0)
    np.testing.assert_allclose(grad, make(KEY, 1.0).sum(), rtol=1e-5)
    keys = jax.random.split(KEY, 3)
    got = jax.vmap(make, (0, None))(keys, 2.0)
    assert_same_bits(np.asarray(got[1]), np.asarray(make(keys[1], 2.0)))


def constrained(key):
    """As flax's partitioned parameters are, also inside of calls, loops and derivative rules."""

    @jax.custom_jvp
    def doubled(x):
        return jax.lax.with_sharding_constraint(x * 2, P("b"))

    doubled.defjvp(lambda primals, tangents: (doubled(*primals), 2 * tangents[0]))

    def body(carry, x):
        return carry, jax.lax.with_sharding_constraint(x + 1, P("a"))

    keys = jax.random.split(key, 4)
    put = jax.jit(lambda x: jax.lax.with_sharding_constraint(x, P("b", None)))
    return {
        "normal": jax.lax.with_sharding_constraint(jax.random.normal(keys[0], (16, 8)), P("a")),
        "called": put(jax.random.uniform(keys[1], (16, 8))),
        "doubled": doubled(jax.random.uniform(keys[2], (16, 8))),
        "loop": jax.lax.scan(body, 0, jax.random.uniform(keys[3], (3, 16)))[1],
    }


def test_what_init_says_of_places_gives_way(native):
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    with jax.set_mesh(mesh):
        want = whole(jax.jit(jax.vmap(constrained))(jax.random.split(KEY, 8)))
        shardings = {**dict.fromkeys(want, P("b", "a")), "loop": P("b")}
        make = sb.ensemble(constrained, 8, out_shardings=shardings)
        why = {output.path: output.why for output in make.plan(KEY).outputs}
        assert why["['normal']"] == why["['called']"] == "native"
        assert_same_bits(whole(make(KEY)), want)
        make = sb.ensemble(constrained, 8, out_shardings=P("a"))
        for run in (make, jax.jit(make)):
            assert_same_bits(whole(run(KEY)), want)
        one = sb.single(constrained, out_shardings={**dict.fromkeys(want, P("a")), "loop": P()})
        assert_same_bits(whole(one(KEY)), whole(jax.jit(constrained)(KEY)))


# --- backends, copies, what is shown ----------------------------------------------------------


def test_keys_of_other_generators(alone):
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    key = jax.random.key(0, impl="rbg")
    make = sb.ensemble(large, 8, out_shardings=NamedSharding(mesh, P("a", "b")))
    want = whole(sb.ensemble(large, 8)(key))
    got = make(key)
    assert got["w"].sharding.is_equivalent_to(NamedSharding(mesh, P("a", "b")), 3)
    assert_same_bits(whole(got), want)
    part = make.members(key, slice(0, 4))
    assert_same_bits(whole(part), jax.tree.map(lambda leaf: leaf[:4], want))
    assert part["w"].sharding.is_equivalent_to(NamedSharding(mesh, P("a", "b")), 3)


def test_the_reference_backend(monkeypatch, alone):
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    shardings = LAYOUTS["parameters"](mesh)
    make = sb.ensemble(init, SIZE, out_shardings=shardings)
    got = make(KEY)
    assert_laid_out(got, shardings)
    for name in ("keys", "integers", "layers", "zeros"):  # no sum, which a mesh may round its way
        assert_same_bits(whole(got[name]), alone[name])
    padded = sb.ensemble(init, 13, out_shardings=NamedSharding(mesh, P("a")), pad=True)
    assert_same_bits(whole(padded(KEY)["layers"]), alone["layers"])
    with jax.set_mesh(mesh):
        again = jax.jit(sb.ensemble(init, SIZE, out_shardings=P("a")))(KEY)
        assert again["normal"].sharding.is_equivalent_to(NamedSharding(mesh, P("a")), 3)


def test_copies_lay_out_as_the_original():
    place = NamedSharding(mesh_of("Auto", (8,)), P("x"))
    make = sb.ensemble(large, 8, out_shardings=place, pad=True)
    assert repr(make).endswith(f", 8, out_shardings={place!r}, pad=True)")
    for again in (copy.copy(make), copy.deepcopy(make)):
        assert again(KEY)["w"].sharding.is_equivalent_to(place, 3) and again.pad
    # jax's meshes do not pickle; what is said of whichever mesh is set does.
    again = pickle.loads(pickle.dumps(sb.ensemble(large, 8, out_shardings=P("x"))))
    with jax.set_mesh(place.mesh):
        assert again(KEY)["w"].sharding.is_equivalent_to(place, 3)


def test_the_plan_says_what_is_made_whole(native):
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    make = sb.ensemble(init, SIZE, out_shardings=LAYOUTS["parameters"](mesh))
    plan = make.plan(KEY, jnp.float32(2))
    why = {output.path: output.why for output in plan.outputs}
    assert why["['normal']"] == "native"
    assert why["['scaled']"].endswith("; made whole, then cut")
    assert why["['qr']"].startswith("XLA: ") and "made whole" not in why["['qr']"]
    assert why["['count']"] == "XLA: constant; made whole, then cut"
    assert "made whole, then cut" in plan.explain()
