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

from .._jax import compat
from .._plan import Draw, KeyMode, KeyPath, Kind, Level, Node
from . import formula

_MASK32, _MASK64 = (1 << 32) - 1, (1 << 64) - 1


def fill(
    keys: Any, members: Any, *, draws: tuple[Draw, ...], mode: KeyMode, size: int
) -> list[jax.Array]:
    """All draws of all members; the arguments of `native.call`, with leading batch
    dimensions."""
    # What a user set for the whole program says nothing of these operations.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        own = _member_keys(keys, members, mode, size)
        known: dict[Node, Any] = {}
        return [
            _values(draw, _row_keys(draw.key, own, known)).reshape(*own.shape[:-1], *draw.shape)
            for draw in draws
        ]


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


def _row_keys(path: KeyPath, own: Any, known: dict[Node, Any]) -> Any:
    """The keys of a draw's rows, ``uint32[..., size, *batch, 2]``."""
    keys = _node_keys(path.node, own, known)
    if not path.batch:
        return keys
    keys = keys.reshape(*keys.shape[:-1], *(1,) * len(path.batch), 2)
    for level in path.levels:
        keys = _fold(keys, *_indices(level, path.batch))
    return jnp.broadcast_to(keys, (*own.shape[:-1], *path.batch, 2))


def _node_keys(node: Node, own: Any, known: dict[Node, Any]) -> Any:
    chain = []
    while node.parent is not None and node not in known:
        chain.append(node)
        node = node.parent
    keys = known.get(node, own)
    for child in reversed(chain):
        keys = known[child] = _fold(keys, *_words(child.index))
    return keys


def _indices(level: Level, batch: Sequence[int]) -> tuple[Any, Any]:
    """The index that each row is folded with, as its high and low words."""
    largest = level.base + sum(
        stride * (length - 1) for stride, length in zip(level.strides, batch, strict=True)
    )
    small = largest <= _MASK32 and min(level.base, *level.strides) >= 0
    kind: Any = np.uint32 if small else np.uint64
    mask = _MASK32 if small else _MASK64
    total: Any = np.full((1,) * len(batch), level.base & mask, kind)
    for dimension, (stride, length) in enumerate(zip(level.strides, batch, strict=True)):
        count = lax.iota(kind, length) if small else np.arange(length, dtype=kind)
        shape = [length if d == dimension else 1 for d in range(len(batch))]
        total = total + (count * kind(stride & mask)).reshape(shape)
    return (np.uint32(0), total) if small else _words(total)


def _words(index: Any) -> tuple[Any, Any]:
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


def _bits(draw: Draw, keys: Any) -> Any:
    """A random word of `Draw.word_bits` for each element, ``[..., inner]``."""
    words = functools.partial(
        compat.threefry_prng_impl.random_bits, bit_width=draw.word_bits, shape=(draw.inner,)
    )
    return jax.vmap(words)(keys.reshape(-1, 2)).reshape(*keys.shape[:-1], draw.inner)


def _key_values(draw: Draw, keys: Any) -> Any:
    return keys


def _bit_values(draw: Draw, keys: Any) -> Any:
    return _bits(draw, keys).astype(draw.dtype)


def _float_values(draw: Draw, keys: Any) -> Any:
    return formula.chain(draw)(_bits(draw, keys)).astype(draw.dtype)


def _randint_values(draw: Draw, keys: Any) -> Any:
    unsigned: Any = np.dtype(f"uint{draw.word_bits}").type
    p = {name: unsigned(value) for name, value in draw.integers().items()}
    high, low = (_bits(draw, _fold(keys, np.uint32(0), np.uint32(i))) for i in (0, 1))
    if span := p["span"]:
        high, low = high % span, low % span
    offset = high * p["multiplier"] + low
    return (p["first"] + (offset % span if span else offset)).astype(draw.dtype)


def _table_values(draw: Draw, keys: Any) -> Any:
    table = np.frombuffer(draw.table, f"u{draw.itemsize}")
    words = _bits(draw, keys)
    drop = words.dtype.type(draw.integers()["drop"])
    index = lax.shift_right_logical(words, jnp.full_like(words, drop))
    return _as(draw.dtype, jnp.asarray(table)[index])


def _constant_values(draw: Draw, keys: Any) -> Any:
    data = draw.integers()["value"].to_bytes(draw.itemsize, "little")
    value = np.frombuffer(data, f"u{draw.itemsize}")
    return _as(draw.dtype, jnp.full((*keys.shape[:-1], draw.inner), value[0]))


def _as(dtype: str, words: Any) -> Any:
    """Bit patterns as numbers."""
    if dtype == "bool":
        return words.astype(bool)
    return lax.bitcast_convert_type(words, np.dtype(dtype))


_VALUES: dict[Kind, Callable[[Draw, Any], Any]] = {
    Kind.KEY: _key_values,
    Kind.BITS: _bit_values,
    **dict.fromkeys(formula.OPERATIONS, _float_values),
    Kind.RANDINT: _randint_values,
    Kind.TABLE: _table_values,
    Kind.CONSTANT: _constant_values,
}


def _values(draw: Draw, keys: Any) -> Any:
    """A draw's elements, row by row, for the keys of its rows."""
    return _VALUES[draw.kind](draw, keys)
