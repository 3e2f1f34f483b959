"""Encoded plans on the device, and what they must give: the CPU kernels, or plain numpy.

XLA rounds ``a * b + c`` once on CPUs and twice on GPUs (`mul_add` in csrc/samplers.h). So floats
drawn from a range, and booleans that compare them, have a model in `cuda_host`; normals have
XLA's own chain of operations. All else is the same on both.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import cuda_host
import plan_reference as ref
from plan_reference import Draw
from seedbed._run import native

POISON = 0xA5
UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint64}
NONE = np.zeros(2, np.uint32)


def groups_of(size: int, keys: np.ndarray, mode: int) -> int:
    return keys.size // 2 // (size if mode == ref.MEMBER_KEYS else 1) if keys.size else 0


def on_cpu(draws, size, keys, members=None, *, mode=ref.MEMBER_KEYS) -> list[np.ndarray]:
    """What the CPU kernels make, as unsigned integers [rows, row_items]."""
    from seedbed import _cpu

    keys = np.ascontiguousarray(keys, np.uint32)
    groups = groups_of(size, keys, mode)
    members = np.zeros((groups, 2), np.uint32) if members is None else members
    outputs = ref.outputs(draws, groups * size)
    _cpu.run_plan(ref.encode(draws), mode, size, keys, members, outputs)
    return outputs


def words_of(draw: Draw) -> Draw:
    """The draw of the bits that `draw` makes its values of."""
    return replace(draw, kind=ref.BITS, itemsize=draw.word_bits // 8, params=(), table=b"")


@functools.partial(jax.jit, static_argnums=0)
def _normal(params: tuple[float, ...], words: jax.Array) -> jax.Array:
    span, lo, scale, clip_lo, clip_hi, mul, add = (np.float32(x) for x in params)
    unit = lax.bitcast_convert_type((words >> 9) | np.uint32(0x3F800000), jnp.float32) - 1
    value = scale * lax.erf_inv(lax.max(lo, unit * span + lo))
    if (clip_lo, clip_hi) != (-np.inf, np.inf):
        value = lax.clamp(clip_lo, value, clip_hi)
    return lax.bitcast_convert_type(value * mul + add, jnp.uint32)


def normal(draw: Draw, words: np.ndarray) -> np.ndarray:
    """By XLA, on the device that jax computes on."""
    params = np.array(draw.params, np.uint32).view(np.float32).tolist()
    room = np.zeros(max(1024, 1 << words.size.bit_length()), np.uint32)  # few sizes to compile for
    room[: words.size] = words.ravel()
    return np.asarray(_normal(tuple(params), room))[: words.size].reshape(words.shape)


MODELS = {ref.UNIFORM: cuda_host.floats, ref.BERNOULLI: cuda_host.floats, ref.NORMAL: normal}


def expected(draws, size, keys, members=None, *, mode=ref.MEMBER_KEYS) -> list[np.ndarray]:
    """What the CUDA kernels must make."""
    asked = [words_of(d) if d.kind in MODELS else d for d in draws]
    made = on_cpu(asked, size, keys, members, mode=mode)
    return [
        MODELS[d.kind](d, found) if d.kind in MODELS else found
        for d, found in zip(draws, made, strict=True)
    ]


def call(draws, size, mode, counts=(), numbers=None):
    """The custom call of keys and members, unjitted; ``counts`` and ``numbers`` are of blocks."""
    results = [
        jax.ShapeDtypeStruct((size, d.batch, d.row_items), UNSIGNED[d.itemsize]) for d in draws
    ]
    fill = jax.ffi.ffi_call(native.TARGET, results, vmap_method="broadcast_all")
    attributes = {"mode": np.int64(mode), "size": np.int64(size), "plan": ref.encode(draws, counts)}
    return lambda keys, members: fill(
        keys, members, keys if numbers is None else numbers, **attributes
    )


def poisoned(shape: tuple[int, ...], itemsize: int) -> jax.Array:
    word = int.from_bytes(bytes([POISON] * itemsize), "little")
    return jnp.array(np.full(shape, word, f"u{itemsize}"))  # a copy, so that it can be donated


def on_device(
    draws, size, keys, members=None, *, mode=ref.MEMBER_KEYS, counts=(), numbers=None
) -> list[np.ndarray]:
    """What the custom call leaves in memory that held poison; that is given up for its results.

    Several groups of members run as a batch, but for blocks, of which one group is made.
    """
    keys = np.ascontiguousarray(keys, np.uint32)
    groups = groups_of(size, keys, mode)
    members = np.zeros((groups, 2), np.uint32) if members is None else members
    keys = keys.reshape(groups, *((size, 2) if mode == ref.MEMBER_KEYS else (2,)))
    members = members.reshape(groups, *((size, 2) if mode == ref.INDICES else (2,)))
    one = call(draws, size, mode, counts, numbers)

    def alone(keys, members):
        return [x[None] for x in one(keys[0], members[0])]

    fill = alone if counts else jax.vmap(one)
    with jax.enable_x64(True):
        run = jax.jit(lambda old, *given: fill(*given), donate_argnums=0, keep_unused=True)
        shapes = [(groups, size, d.batch, d.row_items) for d in draws]
        old = [poisoned(shape, d.itemsize) for shape, d in zip(shapes, draws, strict=True)]
        places = sorted(x.unsafe_buffer_pointer() for x in old if x.size)
        made = jax.block_until_ready(run(old, keys, members))
        again = sorted(x.unsafe_buffer_pointer() for x in made if x.size)
    assert again == places, "the results are not in the poisoned memory"
    return [
        np.asarray(x).reshape(groups * size * d.batch, d.row_items)
        for x, d in zip(made, draws, strict=True)
    ]


def ulps(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Distances of two arrays of float bits, in units in the last place."""
    top = np.int64(1) << np.int64(8 * one.dtype.itemsize - 1)

    def ordered(words: np.ndarray) -> np.ndarray:
        wide = words.astype(np.int64)
        return np.where(wide & top, -(wide & (top - 1)), wide)

    return np.abs(ordered(one) - ordered(two))


def check(draws, size, keys, members=None, *, mode=ref.MEMBER_KEYS, counts=(), numbers=None) -> int:
    """Compares the device with what is expected; the largest distance of a normal, at most 2."""
    got = on_device(draws, size, keys, members, mode=mode, counts=counts, numbers=numbers)
    placed = [ref.placed(draw, () if numbers is None else numbers) for draw in draws]
    want = expected(placed, size, keys, members, mode=mode)
    worst = 0
    for index, (d, one, two) in enumerate(zip(draws, got, want, strict=True)):
        if d.kind != ref.NORMAL:
            np.testing.assert_array_equal(one, two, f"draw {index} of {len(draws)}: {d}")
            continue
        far = ulps(one, two) * (one != two)
        worst = max(worst, int(far.max(initial=0)))
        assert worst <= 2, f"draw {index}: {(far > 0).sum()} differ, by up to {worst} ulp: {d}"
    return worst
