"""The native custom call under JAX, and the identity of its normals with XLA's."""

from __future__ import annotations

import concurrent.futures

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import plan_reference as ref
from helpers import assert_same_bits
from plan_reference import Draw
from seedbed._run import native

_cpu = native.load()[0]
if _cpu is None:
    pytest.skip(native.load()[1], allow_module_level=True)
pytestmark = pytest.mark.usefixtures("native")

BELOW = np.nextafter(np.float32(-1), np.float32(0))
NORMAL = ref.float_bits(np.float32(1) - BELOW, BELOW, 2**0.5, -np.inf, np.inf, 1.0, -0.0)
DRAWS = [
    Draw(ref.KEY, 32, 4, prefix=(3,)),
    Draw(ref.BITS, 32, 4, 33, prefix=(3, 1)),
    Draw(ref.NORMAL, 32, 4, 50, params=NORMAL),
    Draw(ref.BITS, 8, 1, 4, dims=(3,), levels=((0, (1,)),)),
    Draw(ref.BITS, 16, 2, 0),
]
DTYPES = [jnp.uint32, jnp.uint32, jnp.float32, jnp.uint8, jnp.uint16]


def fill(draws, dtypes, size, *, attributes=None, shapes=None, extra=()):
    """The custom call of keys and members; `attributes` and `shapes` replace the right ones."""
    shapes = shapes or [(size, d.batch, d.row_items) for d in draws]
    results = [jax.ShapeDtypeStruct(s, t) for s, t in zip(shapes, dtypes, strict=True)]
    good = {"mode": np.int64(0), "size": np.int64(size), "plan": ref.encode(draws)}
    call = jax.ffi.ffi_call(native.TARGET, [*results, *extra], vmap_method="broadcast_all")
    given = good if attributes is None else good | attributes
    return lambda keys, members, blocks=None: call(
        keys, members, keys if blocks is None else blocks, **given
    )


def keys_of(*shape: int) -> jax.Array:
    return jax.random.bits(jax.random.key(1), (*shape, 2), "uint32")


NONE = np.zeros(2, np.uint32)


def test_matches_jax():
    size, keys = 9, keys_of(9)

    def member(words):
        key = jax.random.wrap_key_data(words)
        child = jax.random.fold_in(key, 3)
        return [
            jax.random.key_data(child)[None],
            jax.random.bits(jax.random.fold_in(child, 1), (1, 33)),
            jax.random.normal(key, (1, 50)),
            jax.vmap(lambda k: jax.random.bits(k, (4,), "uint8"))(jax.random.split(key, 3)),
            jnp.zeros((1, 0), jnp.uint16),
        ]

    got = jax.jit(fill(DRAWS, DTYPES, size))(keys, NONE)
    assert_same_bits(got, jax.jit(jax.vmap(member))(keys))


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_vmap_is_more_members(batch):
    call, keys = fill(DRAWS, DTYPES, 5), keys_of(batch, 5)
    got = jax.jit(jax.vmap(call, (0, None)))(keys, NONE)
    for i in range(batch):
        assert_same_bits([x[i] for x in got], call(keys[i], NONE))
    assert all(x.shape[0] == batch for x in got)


@pytest.mark.parametrize("mode", [ref.RANGE, ref.INDICES])
def test_modes(mode):
    index = np.arange(5, 12, dtype=np.uint32)
    indices = np.stack([np.zeros_like(index), index], axis=1)
    members = indices if mode == ref.INDICES else indices[0]
    root = keys_of(1)[0]
    got = fill(DRAWS, DTYPES, 7, attributes={"mode": np.int64(mode)})(root, members)
    keys = np.stack([jax.random.key_data(jax.random.fold_in(root, i)) for i in index])
    assert_same_bits(got, fill(DRAWS, DTYPES, 7)(keys, NONE))


def test_large_outputs_and_concurrent_calls():
    draws = [Draw(ref.NORMAL, 32, 4, 400_001, params=NORMAL), Draw(ref.BITS, 32, 4, 300_000)]
    call, keys = jax.jit(fill(draws, [jnp.float32, jnp.uint32], 8)), keys_of(8)
    expected = ref.outputs(draws, 8)
    _cpu.run_plan(ref.encode(draws), 0, 8, np.asarray(keys), NONE, expected)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: call(keys, NONE), range(12)):
            for one, two in zip(got, expected, strict=True):
                words = np.asarray(one).view(np.uint32).reshape(two.shape)
                np.testing.assert_array_equal(words, two)


def spoilt(position: int, value: int) -> dict:
    plan = ref.encode(DRAWS)
    plan[position] = value
    return {"plan": plan}


BAD_CALLS = {
    "expected the magic number": dict(attributes=spoilt(0, 1)),
    "plan has version 7": dict(attributes=spoilt(1, 7)),
    "plan ends early": dict(attributes={"plan": ref.encode(DRAWS)[:-4]}),
    "words too many": dict(attributes={"plan": np.append(ref.encode(DRAWS), 0)}),
    "mode must be": dict(attributes={"mode": np.int64(9)}),
    "size must be": dict(attributes={"size": np.int64(-4)}),
    "expected S64 but got S32": dict(attributes={"size": np.int32(4)}),
    "Wrong number of attributes": dict(attributes={"colour": np.int64(4)}),
    "the call 6 results": dict(extra=[jax.ShapeDtypeStruct((4,), jnp.uint32)]),
    r"result 1 must have 132 elements of 4 bytes, got U32\[4,33,2\]": dict(
        shapes=[(4, 1, 2), (4, 33, 2), (4, 1, 50), (4, 3, 4), (4, 0)]
    ),
}


@pytest.mark.parametrize("message", BAD_CALLS)
def test_bad_calls(message):
    call = jax.jit(fill(DRAWS, DTYPES, 4, **BAD_CALLS[message]))
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARGUMENT(.|\n)*{message}"):
        jax.block_until_ready(call(keys_of(4), NONE))


@pytest.mark.parametrize(
    ("mode", "keys", "members", "message"),
    [
        (ref.MEMBER_KEYS, keys_of(3), NONE, r"`keys` must be U32\[...,4,2\], got U32\[3,2\]"),
        (ref.MEMBER_KEYS, keys_of(4).astype(jnp.int32), NONE, "`keys` must be U32"),
        (ref.RANGE, keys_of(), np.zeros(3, np.uint32), "`members` must be U32"),
        (ref.INDICES, keys_of(), NONE, r"`members` must be U32\[...,4,2\], got U32\[2\]"),
        (ref.RANGE, keys_of(2), NONE, "must have the same batch dims"),
        (ref.ALL, keys_of().astype(jnp.float32), NONE, "`keys` must be U32"),
    ],
)
def test_bad_operands(mode, keys, members, message):
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARGUMENT(.|\n)*{message}"):
        call = fill(DRAWS, DTYPES, 4, attributes={"mode": np.int64(mode)})
        jax.block_until_ready(jax.jit(call)(keys, members))


@pytest.mark.parametrize("dtype", [jnp.uint16, jnp.complex64])
def test_bad_result_type(dtype):
    with pytest.raises(jax.errors.JaxRuntimeError, match="result 2 must have 200 elements of 4"):
        jax.block_until_ready(
            jax.jit(fill(DRAWS, [*DTYPES[:2], dtype, *DTYPES[3:]], 4))(keys_of(4), NONE)
        )


# The identity of normals. `seedbed doctor` goes through all 2^23 inputs; here is a sample.


def span(lower: float, upper: float) -> tuple[np.float32, np.float32]:
    """The range of uniforms of a truncated normal."""
    bounds = np.array([lower, upper], np.float32) / np.sqrt(np.float32(2))
    low, high = np.asarray(jax.scipy.special.erf(bounds))
    return low, high


def between(lower: float, upper: float) -> tuple[np.float32, np.float32]:
    """Its clipping bounds."""
    one, two, inf = np.float32(lower), np.float32(upper), np.float32(np.inf)
    return np.nextafter(one, inf), np.nextafter(two, -inf)


NO_CLIP = (-np.inf, np.inf)
CHAINS = {
    "normal": ((BELOW, np.float32(1)), NO_CLIP),
    "truncated": (span(-2, 2), between(-2, 2)),
    "half": (span(0, np.inf), between(0, np.inf)),
    "far": (span(-9, 9), between(-9, 9)),  # erf_inv(-1) = -inf, clipped
    "tail": (span(3, 4), between(3, 4)),
    "beyond": ((np.float32(-1.5), np.float32(1.5)), NO_CLIP),  # NaN and infinities
    "reversed": ((np.float32(0), np.float32(-1)), (-np.inf, -0.0)),
    "positive": ((BELOW, np.float32(1)), (0.0, np.inf)),
    "nan": ((BELOW, np.float32(1)), (np.nan, 1.0)),
}


@pytest.mark.parametrize("isa", _cpu.isas())
@pytest.mark.parametrize("scale", [1.0, -0.37], ids=["", "scaled"])
@pytest.mark.parametrize("name", CHAINS)
def test_normals_equal_xla(name, scale, isa):
    (lo, hi), clip = CHAINS[name]
    root2, scale = np.float32(np.sqrt(2)), np.float32(scale)

    @jax.jit
    def chain(words):
        unit = lax.bitcast_convert_type((words >> 9) | np.uint32(0x3F800000), jnp.float32) - 1
        value = root2 * lax.erf_inv(lax.max(lo, unit * (hi - lo) + lo))
        if clip != NO_CLIP:
            value = lax.clamp(np.float32(clip[0]), value, np.float32(clip[1]))
            value = value * scale
        return value

    # All of both ends, where the branches are, and a sample of the rest.
    inner = np.random.default_rng(0).integers(2**12, 2**23 - 2**12, 2**16 - 2**13)
    units = np.concatenate([np.arange(2**12), inner, np.arange(2**23 - 2**12, 2**23)])
    words = (units << 9).astype(np.uint32)
    factor = scale if clip != NO_CLIP else 1.0
    params = np.array([hi - lo, lo, root2, *clip, factor, -0.0], np.float32)
    out = np.zeros(words.size, np.float32)
    _cpu.transform(params, words, out, isa)
    assert_same_bits(out, np.asarray(chain(words)), nan=True)
