"""`single`: one model, from a key that is not split, laid out over a mesh."""

import copy
import pickle
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from helpers import assert_same_bits
from meshes import KINDS, mesh_of, whole

pytestmark = pytest.mark.shared

KEY = jax.random.key(23)


def init(key, scale=1.0):
    keys = jax.random.split(key, 4)
    return {
        "normal": jax.random.normal(keys[0], (64, 32)),
        "keys": jax.random.split(keys[1], 8),
        "scaled": jax.random.uniform(keys[2], (6, 8)) * scale,
        "zeros": jnp.zeros(8),
        "truncated": jax.random.truncated_normal(keys[3], -2, 2, (24, 16), jnp.bfloat16),
    }


def places(mesh):
    specs = {
        "normal": P("a", "b"),
        "keys": P("b"),
        "scaled": P(None, "a"),
        "zeros": P(("a", "b")),
        "truncated": P("b"),
    }
    return {name: NamedSharding(mesh, spec) for name, spec in specs.items()}


def test_it_is_the_function_jitted():
    make = sb.single(init)
    for args in ((KEY,), (jax.random.PRNGKey(4),), (KEY, jnp.float32(3))):
        assert_same_bits(make(*args), jax.jit(init)(*args))
        assert_same_bits(jax.jit(make)(*args), jax.jit(init)(*args))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (2, 2), (4, 2), (1, 8)], ids=str)
def test_any_mesh_gives_the_bits_of_one_device(shape, kind):
    want = whole(jax.jit(init)(KEY))
    shardings = places(mesh_of(kind, shape, ("a", "b")))
    make = sb.single(init, out_shardings=shardings)
    for run in (make, jax.jit(make)):
        got = run(KEY)
        assert_same_bits(whole(got), want)
        for name, leaf in got.items():
            assert leaf.sharding.is_equivalent_to(shardings[name], leaf.ndim)
    assert make(KEY)["normal"].sharding == shardings["normal"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_jax_lays_out_within_init(kind):
    """Its decompositions and jitted functions say where they lie while a mesh is set."""
    matrix = jax.nn.initializers.orthogonal()
    inits = [
        lambda key: jax.random.orthogonal(key, 16),
        lambda key: matrix(key, (16, 8)),
        lambda key: jax.jit(lambda x: jnp.abs(x) + 1)(jax.random.uniform(key, (16, 8))),
    ]
    with jax.set_mesh(mesh_of(kind, (4, 2), ("a", "b"))):
        for init in inits:
            want = whole(jax.jit(init)(KEY))
            for spec in (P(), P("a", "b")):
                make = sb.single(init, out_shardings=spec)
                for run in (make, jax.jit(make)):
                    assert_same_bits(whole(run(KEY)), want)
            assert sb.ensemble(init, 8, out_shardings=P("b"))(KEY).shape == (8, *want.shape)


def test_one_spec_under_a_mesh():
    make = sb.single(lambda key: jax.random.normal(key, (8, 3)), out_shardings=P("x"))
    with jax.set_mesh(mesh_of("Auto", (8,))):
        assert make(KEY).addressable_shards[5].data.shape == (1, 3)


def test_nothing_is_made_twice_and_nothing_sent(native):
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    make = sb.single(
        lambda key: jax.random.normal(key, (1024, 512)),
        out_shardings=NamedSharding(mesh, P("a", "b")),
    )
    compiled = jax.jit(make).lower(KEY).compile()
    text, memory = compiled.as_text(), compiled.memory_analysis()
    assert not [word for word in ("all-", "collective", "reduce-scatter") if word in text]
    assert memory.temp_size_in_bytes < 4096
    assert memory.output_size_in_bytes == 1024 * 512 * 4 // 8


def test_planning_looks_at_each_constant_a_few_times_however_many_there_are(monkeypatch):
    from seedbed._plan import plan

    made = []
    fill = plan._fill
    monkeypatch.setattr(plan, "_fill", lambda *given: made.append(given) or fill(*given))

    def many(key):
        return [jax.random.normal(key, (8, 16)), *[jnp.full(16, float(i)) for i in range(60)]]

    place = NamedSharding(mesh_of("Auto", (8,)), P())
    jax.block_until_ready(sb.single(many, out_shardings=place)(KEY))
    assert 0 < len(made) <= 10 * 60


@pytest.mark.parametrize("kind", KINDS)
def test_donated_arrays_are_written_over(kind):
    shardings = places(mesh_of(kind, (4, 2), ("a", "b")))
    for options in ({}, {"out_shardings": shardings}):
        old = sb.single(init, **options)(jax.random.key(1))
        at = [part.data.unsafe_buffer_pointer() for part in old["normal"].addressable_shards]
        again = sb.single(init, donate=True, **options)
        new = again(KEY, old)
        assert_same_bits(whole(new), whole(jax.jit(init)(KEY)))
        assert [x.data.unsafe_buffer_pointer() for x in new["normal"].addressable_shards] == at
        assert old["normal"].is_deleted()
    with pytest.raises(TypeError, match=r"make\(key, old, \*args\), where `old` is the result"):
        again(KEY)
    with pytest.raises(ValueError, match=r"`old\['zeros'\]` must have shape \(8,\) and dtype flo"):
        again(KEY, {**new, "zeros": jnp.zeros(3)})


def test_several_keys():
    def noisy(keys):
        return jax.random.normal(keys["a"], (8,)), jax.random.bits(keys["b"], (3,))

    keys = {"a": KEY, "b": jax.random.PRNGKey(3)}
    assert_same_bits(sb.single(noisy)(keys), jax.jit(noisy)(keys))


def test_keys_of_other_generators_and_the_reference_backend(monkeypatch):
    key = jax.random.key(0, impl="rbg")
    place = NamedSharding(mesh_of("Auto", (8,)), P("x"))

    def bits(key):
        return jax.random.bits(key, (16, 3))

    want = whole(jax.jit(bits)(key))
    assert_same_bits(whole(sb.single(bits)(key)), want)
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    make = sb.single(bits, out_shardings=place)
    assert_same_bits(whole(make(KEY)), whole(jax.jit(bits)(KEY)))
    assert make(KEY).sharding.is_equivalent_to(place, 2)
    assert make.plan(KEY).reference == "SEEDBED_BACKEND=reference"


def test_copies_and_how_it_is_shown():
    make = sb.single(init, donate=True)
    assert repr(make) == "single(init, donate=True)"
    for again in (copy.deepcopy(make), pickle.loads(pickle.dumps(make))):
        assert again.donate and again.init is init and again.out_shardings is None


def test_what_is_refused():
    with pytest.raises(ValueError, match=r"`key` must be one key for a single model.*shape \(1,\)"):
        sb.single(init)(KEY[None])
    with pytest.raises(TypeError, match="`key` must be one key"):
        sb.single(init)(3)
    with pytest.raises(TypeError, match="`init` must be a function"):
        sb.single(3)
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    with pytest.raises(ValueError) as error:
        sb.single(init, out_shardings={**places(mesh), "scaled": NamedSharding(mesh, P("a"))})(KEY)
    assert str(error.value) == (
        f"`out_shardings` gives {P('a')} for the leaf ['scaled'] of shape (6, 8), on a mesh of "
        "(a: 4, b: 2): dimension 0 of length 6 does not divide into 4"
    )


# --- by this machine's processor --------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_parts_made_by_the_processor(native, kind):
    want = whole(jax.jit(init)(KEY, jnp.float32(2)))
    mesh = mesh_of(kind, (4, 2), ("a", "b"))
    make = sb.single(init, out_shardings=places(mesh), host=True)
    with jax.set_mesh(mesh):
        got = make(KEY, 2.0)
    assert_same_bits(whole(got), want)
    for name, leaf in make(KEY, 2.0).items():
        assert leaf.sharding == places(mesh)[name]
        assert_same_bits(whole(leaf), want[name])
    by_spec = sb.single(lambda key: jax.random.normal(key, (8, 3)), out_shardings=P("b"), host=True)
    with jax.set_mesh(mesh):
        assert by_spec(KEY).sharding == NamedSharding(mesh, P("b"))
        assert by_spec.plan(KEY).reference is None
    with pytest.raises(ValueError, match="no mesh is set that it could be of"):
        by_spec(KEY)
    assert repr(make).endswith(", host=True)") and copy.copy(make).host
    assert make.plan(KEY).reference is None


def test_a_first_call_that_is_made_by_the_processor():
    program = """
import jax, seedbed as sb
from jax.sharding import NamedSharding, PartitionSpec as P
place = NamedSharding(jax.make_mesh((8,), ("x",)), P("x"))
make = sb.single(lambda key: jax.random.bits(key, (8, 3)), out_shardings=place, host=True)
print(make(jax.random.key(0)).shape)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "(8, 3)\n", done.stderr


def test_parts_made_by_the_processor_without_the_extension(monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    mesh = mesh_of("Auto", (4, 2), ("a", "b"))
    make = sb.single(init, out_shardings=places(mesh), host=True)
    assert_same_bits(whole(make(KEY)), whole(jax.jit(init)(KEY)))


def test_what_the_processor_cannot_make():
    place = NamedSharding(mesh_of("Auto", (8,)), P("x"))
    for options in ({}, {"out_shardings": place, "donate": True}):
        with pytest.raises(ValueError, match="`host` is for `out_shardings`, which says where"):
            sb.single(init, host=True, **options)
    make = sb.single(lambda key: jax.random.bits(key, (8,)), out_shardings=place, host=True)
    with pytest.raises(ValueError, match="`host=True` makes arrays at once and sends them to dev"):
        jax.jit(make)(KEY)
