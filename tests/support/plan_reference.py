"""Encoded plans, and what they must produce: plain numpy and exact fractions, no shared code."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

MAGIC, VERSION = 0x5EEDBED0, 6
KEY, BITS, UNIFORM, NORMAL, BERNOULLI, RANDINT, TABLE, CONSTANT = range(8)
EXPONENTIAL, GUMBEL, LAPLACE = SAMPLERS = 8, 9, 10
MEMBER_KEYS, RANGE, INDICES, ALL = range(4)
MASK32, MASK64 = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


@dataclass(frozen=True)
class Draw:
    """A draw as csrc/plan.h describes it.

    A level is ``(base, strides)``, a part ``(dim, block, divisor, count)``; no counter strides mean
    that all are 0.
    """

    kind: int
    word_bits: int
    itemsize: int
    inner: int = 1
    offset: int = 0
    params: tuple[int, ...] = ()
    dims: tuple[int, ...] = ()
    levels: tuple[tuple[int, tuple[int, ...]], ...] = ()
    prefix: tuple[int, ...] = ()
    table: bytes = b""
    counters: tuple[int, ...] = ()
    parts: tuple[tuple[int, int, int, int], ...] = ()

    @property
    def batch(self) -> int:
        return math.prod(self.dims)

    @property
    def row_items(self) -> int:
        return 2 if self.kind == KEY else self.inner


def encode(draws: list[Draw], blocks: tuple[int, ...] = ()) -> np.ndarray:
    """The words of a plan; ``blocks`` says how many there are, by word of the operand."""
    nodes = {(): 0}
    folds = []
    for d in draws:
        for n in range(len(d.prefix)):
            if d.prefix[: n + 1] not in nodes:
                nodes[d.prefix[: n + 1]] = len(nodes)
                folds += [nodes[d.prefix[:n]], d.prefix[n]]
    words = [MAGIC, VERSION, len(nodes) - 1, len(draws), len(blocks), *blocks, *folds]
    for d in draws:
        table = np.frombuffer(d.table + b"\0" * (-len(d.table) % 8), np.int64).tolist()
        words += [d.kind, d.word_bits, d.itemsize, d.inner, d.offset, nodes[d.prefix]]
        words += [len(d.params), len(d.dims), len(d.levels), len(table), len(d.parts), *d.dims]
        words += d.counters or (0,) * len(d.dims)
        for base, strides in d.levels:
            words += [base, *strides]
        for part in d.parts:
            words += part
        words += [*d.params, *table]
    return np.array([word & MASK64 for word in words], np.uint64).view(np.int64)


def placed(draw: Draw, numbers: Sequence[int]) -> Draw:
    """The block with these numbers as a draw without parts."""
    strides = [*draw.counters, 1] if draw.counters else [*(0,) * len(draw.dims), 1]
    for dim, block, divisor, count in draw.parts:
        start = int(numbers[block]) // divisor % count * (*draw.dims, draw.inner)[dim]
        levels = [(base + start * (*by, 0)[dim], by) for base, by in draw.levels]
        draw = replace(draw, offset=draw.offset + start * strides[dim], levels=tuple(levels))
    return replace(draw, parts=())


def float_bits(*values: float) -> tuple[int, ...]:
    return tuple(np.array(values, np.float32).view(np.uint32).tolist())


def double_bits(*values: float) -> tuple[int, ...]:
    return tuple(np.array(values, np.float64).view(np.uint64).tolist())


def threefry(k0, k1, c0, c1) -> tuple[np.ndarray, np.ndarray]:
    """threefry2x32-20 from its definition, on uint32 arrays."""
    k0, k1, a, b = (np.asarray(x, np.uint64).copy() for x in np.broadcast_arrays(k0, k1, c0, c1))
    mask = np.uint64(MASK32)
    keys = (k0, k1, k0 ^ k1 ^ np.uint64(0x1BD11BDA))
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    a, b = (a + k0) & mask, (b + k1) & mask
    for group in range(5):
        for r in rotations[group % 2]:
            a = (a + b) & mask
            b = (((b << np.uint64(r)) | (b >> np.uint64(32 - r))) & mask) ^ a
        a = (a + keys[(group + 1) % 3]) & mask
        b = (b + keys[(group + 2) % 3] + np.uint64(group + 1)) & mask
    return a.astype(np.uint32), b.astype(np.uint32)


def fold(keys: np.ndarray, indices) -> np.ndarray:
    """Child keys; ``keys`` is uint32[n, 2], ``indices`` n integers or one."""
    indices = [indices] if isinstance(indices, int) else indices
    indices = np.array([i & MASK64 for i in indices], np.uint64)  # by way of Python integers
    high, low = indices >> np.uint64(32), indices & np.uint64(MASK32)
    return np.stack(threefry(keys[:, 0], keys[:, 1], high, low), axis=1)


def member_keys(mode: int, size: int, keys: np.ndarray, members: np.ndarray) -> np.ndarray:
    keys = keys.reshape(-1, 2)
    if mode == MEMBER_KEYS:
        return keys
    if mode == ALL:
        return fold(np.repeat(keys, size, axis=0), [*range(size)] * len(keys))
    index = [(int(high) << 32) + int(low) for high, low in members.reshape(-1, 2)]
    if mode == RANGE:
        index = [first + i for first in index for i in range(size)]
    return fold(np.repeat(keys, size, axis=0), index)


def row_keys(draw: Draw, keys: np.ndarray) -> np.ndarray:
    members = len(keys)
    keys = np.repeat(keys, draw.batch, axis=0)
    for base, strides in [(index, (0,) * len(draw.dims)) for index in draw.prefix] + [*draw.levels]:
        index = [
            base + sum(s * c for s, c in zip(strides, place, strict=True))
            for place in np.ndindex(*draw.dims)
        ]
        keys = fold(keys, index * members) if len(keys) else keys
    return keys


def words(draw: Draw, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The word pairs of all elements, uint32[rows, inner] each."""
    starts = [draw.offset]
    if draw.counters:
        starts = [
            draw.offset + sum(s * c for s, c in zip(draw.counters, place, strict=True))
            for place in np.ndindex(*draw.dims)
        ]
    rows = np.resize(np.array(starts, np.uint64), (len(keys), 1))  # member by member
    counter = rows + np.arange(draw.inner, dtype=np.uint64)
    high, low = counter >> np.uint64(32), counter & np.uint64(MASK32)
    return threefry(keys[:, :1], keys[:, 1:], high, low)


def integers(draw: Draw, keys: np.ndarray) -> np.ndarray:
    """Random integers of ``word_bits`` bits, as uint64."""
    a, b = words(draw, keys)
    if draw.word_bits == 64:
        return (a.astype(np.uint64) << np.uint64(32)) | b
    return (a ^ b).astype(np.uint64) & np.uint64((1 << draw.word_bits) - 1)


def _round32(value: Fraction) -> np.float32:
    """Correct rounding, where going through a double would round twice."""
    near = np.float32(float(value))
    around = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    return min(around, key=lambda x: (abs(Fraction(float(x)) - value), int(x.view(np.uint32)) & 1))


def fma(a: float, b: float, c: float, width: int) -> float:
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    if exact == 0:
        return a * b + c  # only the sign of zero is left to decide
    return float(_round32(exact)) if width == 32 else float(exact)


def _ranged(draw: Draw, word: int) -> tuple[float, list[float]]:
    """max(lo, u * span + lo), and the params as numbers."""
    wide = draw.word_bits == 64
    params = np.array(draw.params, np.uint64 if wide else np.uint32)
    values = [float(x) for x in params.view(np.float64 if wide else np.float32)]
    unit = (word >> 12) / 2**52 if wide else (word >> 9) / 2**23
    return max(values[1], fma(unit, values[0], values[1], draw.word_bits)), values


def sample(draw: Draw, keys: np.ndarray) -> np.ndarray:
    """One draw's output but for normals, as unsigned integers [rows, row_items]."""
    out = np.dtype(f"u{draw.itemsize}")
    if draw.kind == KEY:
        return keys
    if draw.kind == CONSTANT:
        value = draw.params[0] & ((1 << 8 * draw.itemsize) - 1)
        return np.full((len(keys), draw.inner), value, out)
    if draw.kind == RANDINT:
        span, mult, minval = draw.params
        parts = [integers(draw, fold(keys, i)).astype(object) for i in (0, 1)]
        mask = (1 << draw.word_bits) - 1
        high, low = ((part % span if span else part) for part in parts)
        r = (high * mult + low) & mask
        return ((minval + (r % span if span else r)) & ((1 << 8 * draw.itemsize) - 1)).astype(out)
    bits = integers(draw, keys)
    if draw.kind == BITS:
        return bits.astype(out)
    if draw.kind == TABLE:
        return np.frombuffer(draw.table, out)[bits >> np.uint64(draw.params[0])]
    number = np.float32 if draw.word_bits == 32 else np.float64
    flat = []
    for word in bits.ravel().tolist():
        value, params = _ranged(draw, word)
        if draw.kind == UNIFORM:
            flat.append(fma(value, params[2], params[3], draw.word_bits))
        else:
            flat.append(value < params[2])
    values = np.array(flat, number if draw.kind == UNIFORM else np.uint8)
    return values.view(out).reshape(bits.shape)


def outputs(draws: list[Draw], members: int) -> list[np.ndarray]:
    return [np.zeros((members * d.batch, d.row_items), f"u{d.itemsize}") for d in draws]
