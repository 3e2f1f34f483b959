"""The draws of a plan in jax's own operations: for programs that run without seedbed.

`jax.export` writes these in place of the native call. The cipher and the arithmetic are those that
`jax.random` is made of, so the numbers are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._base.record import Record
from .._jax import compat
from .._plan import Draw, KeyMode, Kind, Node, Shape, rows_of
from . import formula

_MASK32, _MASK64 = (1 << 32) - 1, (1 << 64) - 1

# A 64-bit number, or an array of them, as high and low words: such integers may be switched off.
Words = tuple[Any, Any]
_ZERO: Words = (np.uint32(0), np.uint32(0))


def fill(
    keys: Any,
    members: Any,
    blocks: Any,
    *,
    draws: tuple[Draw, ...],
    mode: KeyMode,
    size: int,
    tiles: tuple[Shape | None, ...],
) -> list[jax.Array]:
    """All draws of all members, or blocks of them; the arguments of `fill.call`, with leading batch
    dimensions of the keys and members."""
    # What a user set for the whole program says nothing of these operations.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        own = _member_keys(keys, members, mode, size)
        known: dict[Node, Any] = {}
        made, first = [], 0
        for draw, tile in zip(draws, tiles or (None,) * len(draws), strict=True):
            layout = rows_of(draw, tile)
            assert layout is not None
            numbers = () if tile is None else blocks[first : first + len(tile)]
            first += len(numbers)
            rows = _Rows(layout, _row_keys(draw.key.node, layout, numbers, own, known), numbers)
            shape = draw.shape if tile is None else tile
            made.append(_VALUES[draw.kind](draw, rows).reshape(*own.shape[:-1], *shape))
        return made


class _Rows(Record):
    """The rows of a draw, or of a block of one.

    Attributes:
        layout: where they are (`_plan.rows_of`).
        keys: of every row, ``uint32[..., 2]``.
        numbers: of the block, along each dimension of the draw's shape; ``()`` for the whole.
    """

    layout: Any
    keys: Any
    numbers: Any

    @property
    def shape(self) -> Shape:
        return (*self.keys.shape[:-1], self.layout.inner)

    def bits(self, width: int, keys: Any) -> Any:
        """A random word of so many bits for each element, by these keys of the rows."""
        if not len(self.numbers):
            words = functools.partial(
                compat.threefry_prng_impl.random_bits, bit_width=width, shape=self.shape[-1:]
            )
            return jax.vmap(words)(keys.reshape(-1, 2)).reshape(self.shape)
        high, low = self._counters()
        operands = (keys[..., 0, None], keys[..., 1, None], high, low)
        cipher = compat.random_primitives["cipher"]
        one, two = cipher.bind(*(jnp.broadcast_to(word, self.shape) for word in operands))
        if width < 64:
            return (one ^ two).astype(f"uint{width}")
        return (one.astype(np.uint64) << np.uint64(32)) | two.astype(np.uint64)

    def _counters(self) -> Words:
        dims, strides = self.layout.dims, self.layout.counters
        start = _start(self.layout, (*strides, 1), self.numbers)
        high, low = _sum(start, _indices(0, strides, dims))
        places = _indices(0, (1,), self.shape[-1:])
        return _sum((jnp.asarray(high)[..., None], jnp.asarray(low)[..., None]), places)


# --- keys ---------------------------------------------------------------------------------


def _member_keys(keys: Any, members: Any, mode: KeyMode, size: int) -> Any:
    """``uint32[..., size, 2]``."""
    if mode == KeyMode.MEMBER_KEYS:
        return keys
    words = member_words(members, mode, size)
    return _fold(keys[..., None, :], words[..., 0], words[..., 1])


def member_words(members: Any, mode: KeyMode, size: int) -> Any:
    """The members' numbers, ``uint32[..., size, 2]``, high word first, in any mode but that of
    given keys."""
    if mode == KeyMode.INDICES:
        return members
    first = members if mode == KeyMode.RANGE else jnp.zeros((2,), np.uint32)
    # Counted in two words: 64-bit integers may be switched off.
    count = np.arange(size, dtype=np.uint64) if size >> 32 else lax.iota(np.uint32, size)
    high, low = _words(count) if size >> 32 else (np.uint32(0), count)
    low = first[..., 1:] + low
    carry = (low < first[..., 1:]).astype(np.uint32)
    return jnp.stack([first[..., :1] + high + carry, low], axis=-1)


def _row_keys(node: Node, layout: Any, numbers: Any, own: Any, known: dict[Node, Any]) -> Any:
    """The keys of a draw's rows, ``uint32[..., size, *layout.dims, 2]``."""
    keys, dims = _node_keys(node, own, known), layout.dims
    if not (dims or layout.levels):
        return keys
    keys = keys.reshape(*keys.shape[:-1], *(1,) * len(dims), 2)
    for level in layout.levels:
        index = _indices(level.base, level.strides, dims)
        if len(numbers):
            index = _sum(_start(layout, (*level.strides, 0), numbers), index)
        keys = _fold(keys, *index)
    return jnp.broadcast_to(keys, (*own.shape[:-1], *dims, 2))


def _node_keys(node: Node, own: Any, known: dict[Node, Any]) -> Any:
    chain = []
    while node.parent is not None and node not in known:
        chain.append(node)
        node = node.parent
    keys = known.get(node, own)
    for child in reversed(chain):
        keys = known[child] = _fold(keys, *_words(child.index))
    return keys


def _indices(base: int, strides: Sequence[int], batch: Shape) -> Words:
    """``base + sum(stride * coordinate)`` of each row."""
    largest = base + sum(
        stride * (length - 1) for stride, length in zip(strides, batch, strict=True)
    )
    small = largest <= _MASK32 and min(base, *strides, 0) >= 0
    kind: Any = np.uint32 if small else np.uint64
    mask = _MASK32 if small else _MASK64
    total: Any = np.full((1,) * len(batch), base & mask, kind)
    for dimension, (stride, length) in enumerate(zip(strides, batch, strict=True)):
        count = lax.iota(kind, length) if small else np.arange(length, dtype=kind)
        shape = [length if d == dimension else 1 for d in range(len(batch))]
        total = total + (count * kind(stride & mask)).reshape(shape)
    return (np.uint32(0), total) if small else _words(total)


def _start(layout: Any, strides: Sequence[int], numbers: Any) -> Words:
    """``sum(stride * coordinate)`` of the first place of a block."""
    total, extents = _ZERO, (*layout.dims, layout.inner)
    for part in layout.parts:
        number = numbers[part.axis] // np.uint32(part.divisor) % np.uint32(part.count)
        total = _sum(total, _product(strides[part.dim] * extents[part.dim], number))
    return total


def _sum(one: Words, other: Words) -> Words:
    low = one[1] + other[1]
    return one[0] + other[0] + (low < one[1]).astype(np.uint32), low


def _product(factor: int, word: Any) -> Words:
    """Modulo 2^64, of a number that is known and a word."""
    high, low = _words(factor)
    mask, half = np.uint32(0xFFFF), np.uint32(16)
    a, b, c, d = word >> half, word & mask, low >> half, low & mask
    middle = a * d + (b * d >> half)
    carried = (middle & mask) + b * c
    return high * word + a * c + (middle >> half) + (carried >> half), low * word


def _words(index: Any) -> Words:
    """A 64-bit number that is known, or an array of them, as its high and low words."""
    if isinstance(index, int):
        return np.uint32((index >> 32) & _MASK32), np.uint32(index & _MASK32)
    return (index >> np.uint64(32)).astype(np.uint32), index.astype(np.uint32)


def _fold(keys: Any, high: Any, low: Any) -> Any:
    """Keys ``uint32[..., 2]``, each folded with a 64-bit index."""
    shape = jnp.broadcast_shapes(keys.shape[:-1], np.shape(high), np.shape(low))
    operands = (keys[..., 0], keys[..., 1], high, low)
    cipher = compat.random_primitives["cipher"]
    return jnp.stack(cipher.bind(*(jnp.broadcast_to(one, shape) for one in operands)), axis=-1)


# --- values -------------------------------------------------------------------------------


def _key_values(draw: Draw, rows: _Rows) -> Any:
    return rows.keys


def _bit_values(draw: Draw, rows: _Rows) -> Any:
    return rows.bits(draw.word_bits, rows.keys).astype(draw.dtype)


def _float_values(draw: Draw, rows: _Rows) -> Any:
    return formula.chain(draw)(rows.bits(draw.word_bits, rows.keys)).astype(draw.dtype)


def _randint_values(draw: Draw, rows: _Rows) -> Any:
    unsigned: Any = np.dtype(f"uint{draw.word_bits}").type
    p = {name: unsigned(value) for name, value in draw.integers().items()}
    halves = (_fold(rows.keys, np.uint32(0), np.uint32(i)) for i in (0, 1))
    high, low = (rows.bits(draw.word_bits, keys) for keys in halves)
    if span := p["span"]:
        high, low = high % span, low % span
    offset = high * p["multiplier"] + low
    return (p["first"] + (offset % span if span else offset)).astype(draw.dtype)


def _table_values(draw: Draw, rows: _Rows) -> Any:
    table = np.frombuffer(draw.table, f"u{draw.itemsize}")
    words = rows.bits(draw.word_bits, rows.keys)
    drop = words.dtype.type(draw.integers()["drop"])
    index = lax.shift_right_logical(words, jnp.full_like(words, drop))
    return _as(draw.dtype, jnp.asarray(table)[index])


def _constant_values(draw: Draw, rows: _Rows) -> Any:
    data = draw.integers()["value"].to_bytes(draw.itemsize, "little")
    value = np.frombuffer(data, f"u{draw.itemsize}")
    return _as(draw.dtype, jnp.full(rows.shape, value[0]))


def _as(dtype: str, words: Any) -> Any:
    """Bit patterns as numbers."""
    if dtype == "bool":
        return words.astype(bool)
    return lax.bitcast_convert_type(words, np.dtype(dtype))


_VALUES: dict[Kind, Callable[[Draw, _Rows], Any]] = {
    Kind.KEY: _key_values,
    Kind.BITS: _bit_values,
    **dict.fromkeys(formula.OPERATIONS, _float_values),
    Kind.RANDINT: _randint_values,
    Kind.TABLE: _table_values,
    Kind.CONSTANT: _constant_values,
}
