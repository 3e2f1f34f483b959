"""`jax.export` of programs with ensembles: jax's own operations, the same bits, no seedbed."""

import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import seedbed as sb
from helpers import assert_same_bits, oracle, run_python
from seedbed._plan.draw import Draw, KeyPath, Kind, Level, key_path, node
from seedbed._run import portable

pytestmark = pytest.mark.shared

SIZE = 6


def every_kind(key):
    """A draw of each kind, from keys that are split, folded, stacked and stacked twice."""
    a, b, c, d, e, f = jax.random.split(key, 6)

    def folded(key):
        return jax.random.uniform(jax.random.fold_in(key, 3), (6,))

    return {
        "normal": jax.random.normal(a, (7, 8)),
        "uniform": jax.random.uniform(b, (33,), minval=-3.0, maxval=2.0),
        "key": c,
        "bits": [jax.random.bits(d, (5,), dtype) for dtype in ("uint8", "uint16", "uint32")],
        "randint": jax.random.randint(e, (17,), -5, 1000),
        "int8": jax.random.randint(e, (17,), -5, 100, "int8"),
        "bernoulli": jax.random.bernoulli(f, 0.3, (9,)),
        "truncated": 0.1 * jax.random.truncated_normal(f, -1.0, 2.0, (16,)),
        "bfloat16": jax.random.normal(f, (16,), jnp.bfloat16),
        "zeros": jnp.zeros(4),
        "true": jnp.ones((2, 3), bool),
        "stacked": jax.vmap(lambda key: jax.random.normal(key, (8,)))(jax.random.split(a, 5)),
        "twice": jax.vmap(jax.vmap(folded))(jax.random.split(a, (3, 2))),
    }


def exported(program, *args, **options):
    """The exported program, in which nothing is called that only seedbed has."""
    made = export.export(jax.jit(program), **options)(*args)
    assert "seedbed_fill_v1" not in made.mlir_module()
    assert "seedbed_threefry_v1" not in made.mlir_module()
    return made


MAKE = sb.ensemble(every_kind, SIZE)


def small(key):
    a, b = jax.random.split(key)
    return jax.random.normal(a, (4, 8)), jax.random.split(b, 3)


FEW = sb.ensemble(small, SIZE)
WAYS = {
    "keys": lambda key: FEW(jax.random.split(key, SIZE)),
    "member": lambda key: FEW.member(key, 3),
    "slice": lambda key: FEW.members(key, slice(2, 5)),
    "list": lambda key: FEW.members(key, [5, 1]),
    "batch": lambda key: jax.vmap(FEW)(jax.random.split(key, 3)),
    "batch of members": lambda key: jax.vmap(lambda i: FEW.member(key, i))(jnp.arange(3)),
    "one key": lambda key: jax.vmap(FEW.members, (None, 0))(key, jnp.arange(4).reshape(2, 2)),
}


@pytest.mark.parametrize("way", WAYS)
def test_exported_draws_have_the_same_bits(way, key):
    assert_same_bits(exported(WAYS[way], key).call(key), jax.jit(WAYS[way])(key))


def test_exported_for_several_platforms(key):
    made = exported(MAKE, key, platforms=("cpu", "cuda", "tpu"))
    assert made.platforms == ("cpu", "cuda", "tpu")
    assert_same_bits(made.call(key), oracle(every_kind, SIZE, key))


def test_exported_with_64_bits():
    with jax.enable_x64(True):
        key = jax.random.key(8)

        def init(key):
            a, b, c = jax.random.split(key, 3)
            return {
                "bits": jax.random.bits(a, (5,), jnp.uint64),
                "uniform": jax.random.uniform(b, (9,), jnp.float64, -1.0, 3.0),
                "normal": jax.random.normal(c, (9,), jnp.float64),
                "bernoulli": jax.random.bernoulli(a, jnp.float64(0.3), (9,)),
                "randint": jax.random.randint(b, (9,), -(1 << 40), 1 << 41, jnp.int64),
                "constant": jnp.full((2,), 0.1, jnp.float64),
            }

        make = sb.ensemble(init, SIZE)
        assert_same_bits(exported(make, key).call(key), oracle(init, SIZE, key))


def test_exported_members_beyond_32_bits(key):
    make = sb.ensemble(lambda key: jax.random.normal(key, (5,)), 1 << 40)
    for few in (slice((1 << 33) - 2, (1 << 33) + 2), [1, (1 << 39) + 7]):
        program = functools.partial(make.members, index=few)
        assert_same_bits(exported(program, key).call(key), program(key))


def test_exported_with_several_keys_arguments_and_what_is_left_to_xla(key):
    captured = jnp.arange(600.0).reshape(2, 300)

    def init(keys, scale, shift):
        w = jax.random.normal(keys["params"], (4, 8)) * scale + shift[:, None]
        q = jnp.linalg.norm(jax.random.normal(keys["other"], (3, 3)))
        return w, q, captured[0, :8] + jax.random.uniform(keys["other"], (8,))

    keys, scales = {"params": key, "other": jax.random.key(1)}, jnp.arange(1.0, SIZE + 1)
    make = sb.ensemble(init, SIZE, in_axes=(0, None))
    shift = jnp.ones(4)
    w, q, u = exported(make, keys, scales, shift).call(keys, scales, shift)
    members = {name: jax.random.split(one, SIZE) for name, one in keys.items()}
    mapped = jax.vmap(init, (0, 0, None))
    jitted, eager = (function(members, scales, shift) for function in (jax.jit(mapped), mapped))
    assert_same_bits(w, jitted[0], either=eager[0])
    assert_same_bits(q, jitted[1], ulps=2)
    assert_same_bits(u, jitted[2])


def test_exported_with_symbolic_shapes(key):
    def init(key, x):
        # The second has a shape that is not known, and so is jax's.
        return x @ jax.random.normal(key, (3, 8)), jax.random.normal(key, x.shape)

    make = sb.ensemble(init, SIZE)
    like = jax.ShapeDtypeStruct(export.symbolic_shape("n, 3"), np.float32)
    made = exported(make, key, like)
    for rows in (1, 5):
        x = np.arange(3.0 * rows, dtype=np.float32).reshape(rows, 3)
        assert_same_bits(made.call(key, x), make(key, x), ulps=2)
    mapped = sb.ensemble(lambda key, x: x[None] * jax.random.normal(key, (8, 1)), SIZE, in_axes=0)
    like = jax.ShapeDtypeStruct((SIZE, *export.symbolic_shape("m")), np.float32)
    x = np.arange(1.0, 1 + 2 * SIZE, dtype=np.float32).reshape(SIZE, 2)
    assert_same_bits(exported(mapped, key, like).call(key, x), mapped(key, x))


def test_gradients_of_what_follows_are_exported(key):
    make = sb.ensemble(lambda key, scale: scale * jax.random.normal(key, (8,)), SIZE)

    def loss(key, scale):
        return (make(key, scale) ** 2).sum()

    made = exported(jax.grad(loss, 1), key, 2.0)
    want = jax.jit(jax.grad(loss, 1))(key, 2.0)
    np.testing.assert_allclose(made.call(key, 2.0), want, rtol=1e-6)  # sums
    with_gradient = exported(loss, key, 2.0)
    assert with_gradient.has_vjp()
    np.testing.assert_allclose(jax.grad(with_gradient.call, 1)(key, 2.0), want, rtol=1e-6)


def test_a_donating_ensemble_and_one_under_accelerate_are_exported(key):
    old = MAKE(key)
    again = sb.ensemble(every_kind, SIZE, donate=True)
    want = oracle(every_kind, SIZE, jax.random.key(1))
    assert_same_bits(exported(again, key, old).call(jax.random.key(1), old), want)
    if not sb.accelerate.is_active():
        with sb.accelerate():
            made = exported(lambda key: MAKE(key), key)
        assert_same_bits(made.call(key), oracle(every_kind, SIZE, key))


def test_what_is_exported_first_is_native_afterwards(native, key):
    program = jax.jit(lambda key: MAKE(key))
    exported(program, key)
    assert program.lower(key).as_text().count("seedbed_fill_v1") == 1
    assert_same_bits(program(key), oracle(every_kind, SIZE, key))


def linear(key, x):
    with sb.random.stream(key):
        net = sb.nn.vmap_init_all_states(sb.nn.Linear(4, 8), axis_size=3)
    return {path: state.value for path, state in net.states().items()}, sb.nn.vmap(
        net, in_axes=None
    )(x)


def test_modules_are_exported(key):
    x = np.arange(4, dtype=np.float32)
    values, out = exported(linear, key, x).call(key, x)
    want = jax.jit(linear)(key, x)
    assert_same_bits(values, want[0])
    assert_same_bits(out, want[1], ulps=4)


def test_models_of_a_framework_are_exported(key):
    eqx = pytest.importorskip("equinox")
    make = sb.adapters.equinox.ensemble(eqx.nn.Linear, 3)

    def program(key):
        return eqx.filter(make(key, 4, 5), eqx.is_array)

    def arrays(key):
        return jax.tree.leaves(program(key))

    assert_same_bits(exported(arrays, key).call(key), jax.jit(arrays)(key))


_ALONE = """
    import pickle, sys
    sys.modules["seedbed"] = None  # an import fails
    import jax, numpy as np
    with open({path!r}, "rb") as file:
        made = jax.export.Exported(**pickle.load(file), _get_vjp=None)
    out = made.call(np.array([1, 2], np.uint32))
    np.savez({out!r}, *jax.tree.leaves(out))
"""


def test_exported_programs_run_where_seedbed_is_not(tmp_path):
    def program(words):
        made = MAKE(jax.random.wrap_key_data(words))
        return jax.tree.leaves({**made, "key": jax.random.key_data(made["key"])})

    words = np.array([1, 2], np.uint32)
    made = exported(program, words, platforms=("cpu", "cuda"))
    fields = {field.name: getattr(made, field.name) for field in dataclasses.fields(made)}
    del fields["_get_vjp"]
    path, out = tmp_path / "program", tmp_path / "out.npz"
    path.write_bytes(pickle.dumps(fields))
    run_python(_ALONE.format(path=str(path), out=str(out)))
    with np.load(out) as file:
        got = list(file.values())
    for one, other in zip(got, jax.jit(program)(words), strict=True):
        # The format of NumPy's files has no name for bfloat16.
        assert one.tobytes() == np.asarray(other).tobytes()


def test_exported_programs_are_serialised(key):
    pytest.importorskip("flatbuffers", reason="jax writes them with flatbuffers")
    made = export.deserialize(exported(MAKE, key).serialize(vjp_order=0))
    assert_same_bits(made.call(key), oracle(every_kind, SIZE, key))


# --- the draws themselves -----------------------------------------------------------------


def test_every_kind_of_draw_has_its_operations():
    assert set(portable._VALUES) == set(Kind)


def test_indices_of_more_than_32_bits():
    keys = jax.random.key_data(jax.random.split(jax.random.key(5), 2))
    level = Level((1 << 32) - 1, (1, 1 << 33))
    path = key_path((3, 2), node(1 << 40), (level,))
    draw = Draw(Kind.KEY, path, 1, 32, "uint32", (3, 2, 2))
    (got,) = portable.fill(keys, keys, keys, draws=(draw,), mode=0, size=2, tiles=())
    for member in range(2):
        parent = _folded(keys[member], 1 << 40)
        for i, j in np.ndindex(3, 2):
            want = _folded(parent, (1 << 32) - 1 + i + (j << 33))
            assert_same_bits(np.asarray(got[member, i, j]), np.asarray(want))


def _folded(words, index):
    from jax.extend.random import threefry_2x32

    return threefry_2x32(words, jnp.array([index >> 32, index & 0xFFFFFFFF], jnp.uint32))


def test_an_integer_of_every_value():
    # A span of 2^8 is written as 0.
    draw = Draw(Kind.RANDINT, KeyPath(), 4096, 8, "uint8", (4096,), (0, 0, 3))
    keys = jax.random.key_data(jax.random.split(jax.random.key(5), 1))
    (got,) = portable.fill(keys, keys, keys, draws=(draw,), mode=0, size=1, tiles=())
    low = jax.random.bits(jax.random.split(jax.random.key_data(keys)[0])[1], (4096,), jnp.uint8)
    assert_same_bits(got[0], low + jnp.uint8(3))
