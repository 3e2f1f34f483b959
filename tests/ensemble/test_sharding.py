"""Arrays that lie on the devices of a mesh: jax's numbers, laid out as jax lays them out.

The numbers are those of `jax.jit` on one device or, where jax on a mesh rounds its own way, those.
"""

import contextlib

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from helpers import assert_same_bits
from meshes import KEY, KINDS, SIZE, assert_as_jax, mesh_of, on_one, put, scaled, stacked, whole

pytestmark = pytest.mark.shared

# --- what the issue shows -----------------------------------------------------------------


def test_keys_and_arguments_on_the_mesh_that_jax_makes():
    place = NamedSharding(mesh_of(), P("x"))
    keys = jax.device_put(jax.random.split(jax.random.key(0), 4), place)
    scale = jax.device_put(jnp.arange(1.0, 5.0), place)

    def f(key, scale):
        return scale * jax.random.normal(key, (9,))

    want = jax.jit(jax.vmap(f))(keys, scale)
    got = sb.ensemble(f, 4, in_axes=0)(keys, scale)
    assert_as_jax(got, want, jax.jit(jax.vmap(f))(*on_one((keys, scale))))
    assert got.sharding.spec == P("x", None)
    drawn = jax.jit(jax.vmap(lambda key: sb.random.normal(key, (9,))))(keys)
    want = jax.jit(jax.vmap(lambda key: jax.random.normal(key, (9,))))
    assert_as_jax(drawn, want(keys), want(*on_one((keys,))))
    drawn = jax.jit(jax.vmap(lambda key: sb.random.bits(key, (9,))))(keys)
    want = jax.jit(jax.vmap(lambda key: jax.random.bits(key, (9,))))
    assert_as_jax(drawn, want(keys), want(*on_one((keys,))))


# --- ensembles ----------------------------------------------------------------------------


def spread(mesh):
    return put(jax.random.split(KEY, SIZE), mesh)


# Of uniforms: one operation on one, which no program rounds in another way.
def wide(key, x):
    return x * jax.random.uniform(key, (8,))


def matrix(key, x):
    return jax.random.uniform(key, (3, 8)) + x[None, :]


SCALES, ROW, ROWS = jnp.arange(1.0, 5.0), jnp.arange(8.0), jnp.arange(32.0).reshape(4, 8)

# For each: the init, the axes that are mapped, and key and arguments for a mesh.
CASES = {
    "keys": (scaled, (), lambda m: (stacked(m),)),
    "legacy keys": (scaled, (), lambda m: (jax.random.key_data(stacked(m)),)),
    "mapped": (scaled, (0,), lambda m: (stacked(m), put(SCALES, m, "x"))),
    "mapped and laid out": (wide, (0,), lambda m: (spread(m), put(ROWS, m, None, "x"))),
    "another axis": (wide, (1,), lambda m: (stacked(m), put(ROWS.T, m, None, "x"))),
    "one key everywhere": (scaled, (), lambda m: (put(KEY, m),)),
    "broadcast": (wide, (None,), lambda m: (put(KEY, m), put(ROW, m, "x"))),
    "broadcast, the key on one device": (wide, (None,), lambda m: (KEY, put(ROW, m, "x"))),
    "broadcast, whole": (wide, (None,), lambda m: (stacked(m), put(ROW, m))),
    "added": (matrix, (None,), lambda m: (put(KEY, m), put(ROW, m, "x"))),
}  # fmt: skip


def picked(tree, few):
    return jax.tree.map(
        lambda leaf: leaf[jnp.array(few) if type(few) is list else few], whole(tree)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_ensembles(case, kind, entered):
    init, axes, make_args = CASES[case]
    mesh = mesh_of(kind)
    key, *args = make_args(mesh)
    single = key.shape in ((), (2,))
    make = sb.ensemble(init, SIZE, in_axes=axes or None)

    def by_jax(key, *args):
        keys = jax.random.split(key, SIZE) if single else key
        return jax.vmap(init, (0, *axes))(keys, *args)

    alone = jax.jit(by_jax)(*on_one((key, *args)))
    with entered(mesh):
        want = jax.jit(by_jax)(key, *args)
        # Of an Auto mesh the types say nothing, and XLA lays out what it makes.
        for _ in range(2):  # planned; as the last call
            assert_as_jax(make(key, *args), want, alone, kind == "Explicit")
        assert_as_jax(jax.jit(make)(key, *args), want, alone, kind == "Explicit")
        for few, call in (
            (2, make.member),
            ([3, 0], make.members),
            (slice(1, 3), jax.jit(lambda key, few, *args: make.members(key, slice(1, 3), *args))),
        ):
            part = [picked(x, few) for x in (want, alone)]
            got = whole(call(key, few if type(few) is not slice else 0, *args))
            assert_same_bits(got, part[0], either=part[1], weak=False)
        pieces = [whole(piece) for piece in make.stream(key, *args, chunk_size=3)]
        joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)
        assert_same_bits(joined, whole(want), either=whole(alone), weak=False)


def test_the_plan_says_why(key):
    mesh = mesh_of()
    make = sb.ensemble(scaled, SIZE)
    assert make.plan(key).reference is None or "SEEDBED_BACKEND" in make.plan(key).reference
    reason = make.plan(stacked(mesh)).reference
    assert "sharded over the devices of an explicit mesh" in reason or "SEEDBED_BACKEND" in reason
    assert make.plan(put(key, mesh)).reference == make.plan(key).reference
    assert make.plan(key).reference == sb.ensemble(scaled, SIZE).plan(key).reference


def test_one_ensemble_for_keys_on_one_device_and_on_many(key):
    make = sb.ensemble(scaled, SIZE)
    keys, alone = (
        jax.random.split(key, SIZE),
        jax.jit(jax.vmap(scaled))(jax.random.split(key, SIZE)),
    )
    for mesh in (mesh_of(), None, mesh_of("Auto"), mesh_of(), None):
        given = keys if mesh is None else put(keys, mesh, "x")
        assert_as_jax(make(given), jax.jit(jax.vmap(scaled))(given), alone, places=False)


def test_two_axes_of_a_mesh(entered):
    mesh = mesh_of(shape=(2, 2), names=("x", "y"))
    keys = put(jax.random.split(KEY, SIZE), mesh, "x")
    row = put(ROW, mesh, "y")
    want = jax.jit(jax.vmap(wide, (0, None)))
    alone = want(*on_one((keys, row)))
    with entered(mesh):
        got = sb.ensemble(wide, SIZE)(keys, row)
        assert_as_jax(got, want(keys, row), alone)
        assert got.sharding.spec == P("x", "y")


def test_captured_arrays(entered):
    mesh = mesh_of()
    row = put(ROW, mesh, "x")

    def init(key):
        return row * jax.random.uniform(key, (8,)), jax.random.normal(key, (9,))

    def copied(key):
        return ROW * jax.random.uniform(key, (8,)), jax.random.normal(key, (9,))

    alone = jax.jit(jax.vmap(copied))(jax.random.split(KEY, SIZE))
    with entered(mesh):
        key = put(KEY, mesh)
        want = jax.jit(lambda key: jax.vmap(init)(jax.random.split(key, SIZE)))(key)
        assert_as_jax(sb.ensemble(init, SIZE)(key), want, alone)
        assert_as_jax(jax.jit(sb.ensemble(init, SIZE))(key), want, alone)
        assert_same_bits(whole(sb.ensemble(init, SIZE)(KEY)), whole(alone), weak=False)


def test_draws_that_init_lays_out():
    mesh = mesh_of()

    def init(key):
        made = jax.random.normal(key, (8,), out_sharding=P("x"))
        return made, jax.sharding.reshard(jax.random.uniform(key, (4, 8)), P(None, "x"))

    with jax.set_mesh(mesh):
        want = jax.jit(jax.vmap(init))(jax.random.split(KEY, SIZE))
        assert_as_jax(sb.ensemble(init, SIZE)(KEY), want, want)
        assert_as_jax(jax.jit(sb.ensemble(init, SIZE))(KEY), want, want)


@pytest.mark.parametrize("devices", [1, 4])
def test_a_mesh_that_is_set_changes_nothing(devices, native):
    make = sb.ensemble(scaled, SIZE)
    want = jax.jit(jax.vmap(scaled))(jax.random.split(KEY, SIZE))
    with jax.set_mesh(mesh_of(shape=(devices,))):
        assert make.plan(KEY).reference is None
        assert_same_bits(whole(make(KEY)), whole(want), weak=False)
        text = jax.jit(make).lower(KEY).as_text()
        assert "seedbed_fill_v1" in text


def test_a_batch_of_ensembles_over_devices(entered):
    mesh = mesh_of()

    def init(key):
        return scaled(key)[:2]

    make = sb.ensemble(init, 3)

    def by_jax(key):
        return jax.vmap(init)(jax.random.split(key, 3))

    keys = stacked(mesh)
    alone = jax.jit(jax.vmap(by_jax))(*on_one((keys,)))
    with entered(mesh):
        want = jax.jit(jax.vmap(by_jax))(keys)
        assert_as_jax(jax.jit(jax.vmap(make))(keys), want, alone)
        assert_as_jax(jax.vmap(make)(keys), want, alone)
        assert_as_jax(jax.vmap(jax.jit(make))(keys), want, alone)


@pytest.mark.parametrize("kind", KINDS)
def test_inside_of_shard_map(kind, entered):
    mesh = mesh_of(kind)
    local = sb.ensemble(scaled, 2)
    all_members = sb.ensemble(scaled, 8)
    keys = put(jax.random.split(KEY, 8), mesh, "x")
    alone = jax.jit(jax.vmap(scaled))(*on_one((keys,)))

    def own(key):
        start = 2 * jax.lax.axis_index("x")
        return all_members.members(key, start + jnp.arange(2))

    def drawn(keys):
        return jax.vmap(lambda key: sb.random.normal(key, (8,)))(keys)

    with entered(mesh):
        spread = {"mesh": mesh, "out_specs": P("x")}
        for program in (jax.shard_map(local, in_specs=P("x"), **spread),):
            assert_same_bits(whole(program(keys)), whole(alone), weak=False)
            assert_same_bits(whole(jax.jit(program)(keys)), whole(alone), weak=False)
        program = jax.jit(jax.shard_map(drawn, in_specs=P("x"), **spread))
        assert_same_bits(whole(program(keys)), whole(alone[0]), weak=False)
        program = jax.shard_map(own, in_specs=P(), **spread)
        assert_same_bits(whole(jax.jit(program)(KEY)), whole(alone), weak=False)


def test_keys_of_other_generators(entered):
    mesh = mesh_of()
    # On every device: jax does not map rbg keys that lie on several.
    keys = put(jax.random.split(jax.random.key(1, impl="rbg"), SIZE), mesh)
    make = sb.ensemble(lambda key: jax.random.uniform(key, (4,)), SIZE)
    with entered(mesh):
        try:
            want = jax.jit(jax.vmap(make.init))(keys)
        except AttributeError:
            pytest.skip("this jax does not map rbg keys on a mesh of explicit axes")
        got = make(keys)
        assert_as_jax(got, want, want)
        assert_same_bits(whole(make.member(keys, 2)), whole(got)[2])


# --- only arguments on the mesh -----------------------------------------------------------

# jax does not map keys that are not on the mesh beside arguments that are: here they are moved.
MOVED = {
    "one key": (scaled, 0, KEY, SCALES, ("x",)),
    "a legacy key": (scaled, 0, jax.random.key_data(KEY), SCALES, ("x",)),
    "a key for each": (scaled, 0, jax.random.split(KEY, SIZE), SCALES, ("x",)),
    "another axis": (wide, 1, KEY, ROWS.T, (None, "x")),
    "another axis laid out": (wide, 0, KEY, ROWS, (None, "x")),
}  # fmt: skip


@pytest.mark.parametrize("case", MOVED)
def test_keys_are_moved_to_the_mesh_of_the_arguments(case, entered):
    init, axis, key, arg, spec = MOVED[case]
    mesh = mesh_of()
    arg = put(arg, mesh, *spec)
    keys = key if len(key.shape) == 1 and key.dtype != "uint32" else jax.random.split(key, SIZE)
    mapped = jax.jit(jax.vmap(init, (0, axis)))
    alone = mapped(*on_one((keys, arg)))
    make = sb.ensemble(init, SIZE, in_axes=axis)
    again = sb.ensemble(init, SIZE, in_axes=axis, donate=True)
    places = case != "another axis laid out"  # where keys may stay, jax may place what they make
    with entered(mesh):
        want = mapped(put(keys, mesh, "x") if places else keys, arg)
        for _ in range(2):  # planned; as the last call
            assert_as_jax(make(key, arg), want, alone, places)
        assert_as_jax(jax.jit(make)(key, arg), want, alone, places)
        assert_as_jax(again(key, make(key, arg), arg), want, alone, places)
        for few, got in ((2, make.member(key, 2, arg)), ([3, 0], make.members(key, [3, 0], arg))):
            part = [picked(x, few) for x in (want, alone)]
            assert_same_bits(whole(got), part[0], either=part[1], weak=False)
        pieces = [whole(piece) for piece in make.stream(key, arg, chunk_size=3)]
        joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *pieces)
        assert_same_bits(joined, whole(want), either=whole(alone), weak=False)
        assert "sharded over the devices" in (reason := make.plan(key, arg).reference) or (
            "SEEDBED_BACKEND" in reason
        )


def test_keys_are_moved_to_the_mesh_within_transformations(entered):
    mesh = mesh_of()
    arg, keys = put(SCALES, mesh, "x"), jax.random.split(KEY, 2)
    make = sb.ensemble(lambda key, x: scaled(key, x)[0], SIZE, in_axes=0)
    alone = make(KEY, SCALES)
    with entered(mesh):
        batch = jax.vmap(make, (0, None))(keys, arg)
        assert_same_bits(whole(batch[1]), whole(make(keys[1], SCALES)), weak=False)
        _, turned = jax.lax.scan(lambda c, _: (c, make(KEY, arg)), 0, None, length=2)
        assert_same_bits(whole(turned[1]), whole(alone), weak=False)
        value, slope = jax.jvp(lambda x: make(KEY, x), (arg,), (arg,))
        assert_same_bits(whole((value, slope)), whole((alone, alone)), weak=False)
        assert jax.typeof(value).sharding.spec == P("x", None)
        assert jax.eval_shape(make, KEY, arg).shape == alone.shape


def test_keys_of_a_call_are_moved_to_the_mesh_of_its_arguments(entered):
    mesh = mesh_of()

    def call(x):
        return x * jax.random.normal(sb.random.next_key(), (2,))

    with sb.random.stream(KEY):
        want = sb.nn.vmap(call)(SCALES)
    with entered(mesh), sb.random.stream(KEY):
        got = sb.nn.vmap(call)(put(SCALES, mesh, "x"))
    assert_same_bits(whole(got), whole(want), weak=False)
    assert got.sharding.spec == P("x", None)


# --- modules and models -------------------------------------------------------------------


def test_modules_whose_inputs_are_on_a_mesh(entered):
    mesh = mesh_of()
    net = sb.nn.Linear(8, 3)
    with sb.random.stream(KEY):
        sb.nn.vmap_init_all_states(net, axis_size=SIZE)
    want = sb.nn.vmap(net, in_axes=None)(ROW)
    for state in net.states().values():
        state.value = put(state.value, mesh, "x")
    with entered(mesh):
        got = sb.nn.vmap(net, in_axes=None)(put(ROW, mesh))
        assert_same_bits(whole(got), whole(want), ulps=16, weak=False)
        assert got.sharding.spec[0] == "x"
        with sb.random.stream(put(KEY, mesh)):
            other = sb.nn.vmap_init_all_states(sb.nn.Linear(8, 3), axis_size=SIZE)
    assert_same_bits(
        [whole(state.value) for state in other.states().values()],
        [whole(state.value) for state in net.states().values()],
    )


def equinox_models(key):
    eqx = pytest.importorskip("equinox")
    return sb.adapters.equinox.ensemble(lambda key: eqx.nn.Linear(8, 3, key=key), SIZE)(key)


def linen_models(key):
    linen = pytest.importorskip("flax.linen")
    return sb.adapters.linen.ensemble(linen.Dense(3), SIZE)(key, jnp.ones(8))


def haiku_models(key):
    hk = pytest.importorskip("haiku")
    made = hk.transform(lambda x: hk.Linear(3)(x))
    return sb.adapters.haiku.ensemble(made, SIZE)(key, jnp.ones(8))


def nnx_models(key):
    nnx = pytest.importorskip("flax.nnx")
    make = sb.adapters.nnx.ensemble(lambda rngs: nnx.Linear(8, 3, rngs=rngs), SIZE)
    return nnx.state(make(nnx.Rngs(key)), nnx.Param)


def brainstate_models(key):
    brainstate = pytest.importorskip("brainstate")
    brainstate.random.seed(0)
    net = brainstate.nn.Linear(8, 3)
    brainstate.random.set_key(key)
    sb.nn.vmap_init_all_states(net, axis_size=SIZE)
    return {str(path): state.value for path, state in net.states().items()}


MODELS = [equinox_models, linen_models, haiku_models, nnx_models, brainstate_models]


@pytest.mark.parametrize("models", MODELS, ids=lambda models: models.__name__)
def test_models_of_keys_on_a_mesh(models, entered):
    mesh = mesh_of()
    want = [leaf for leaf in jax.tree.leaves(models(KEY)) if isinstance(leaf, jax.Array)]
    # brainstate's own constructors fail under a mesh of several devices that is set.
    alone = models is brainstate_models
    with contextlib.nullcontext() if alone else entered(mesh):
        got = jax.tree.leaves(models(put(KEY, mesh)))
        got = [leaf for leaf in got if isinstance(leaf, jax.Array)]
    assert_same_bits(whole(got), whole(want), weak=False)
