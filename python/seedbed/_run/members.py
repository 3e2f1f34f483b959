"""Which members are wanted, checked, and their numbers as words."""

from __future__ import annotations

import operator
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.record import Record
from .._jax import compat, places
from .layout import Layout

# More members than a 64-bit processor has addresses.
_SIZE_LIMIT = 1 << 48


class Chosen(Record):
    """Members asked for: ``count`` from ``start`` on, or those with the given indices.

    Attributes:
        start: an integer, which may be traced; or two words of one, the high one first, which
            need no integers of 64 bits.
        place: where in arrays of members those from `start` on are; None: at their number.
    """

    count: int
    start: Any | None = None
    listed: Any | None = None
    place: Any | None = None

    def indices(self) -> Any:
        """Member numbers, as an integer array; not of those that start at two words."""
        if self.start is None:
            return self.listed
        if isinstance(self.start, int):
            return np.arange(self.start, self.start + self.count)
        return jnp.arange(self.count, dtype=self.start.dtype) + self.start

    def words(self) -> Any:
        """Member numbers as ``uint32[count, 2]``, high word first."""
        if not self._in_words:
            return words(self.indices())
        low = jnp.arange(self.count, dtype=np.uint32)
        return plus(self.start, jnp.stack([jnp.zeros_like(low), low], axis=-1))

    def first_words(self) -> Any:
        """The number of the first of consecutive members as ``uint32[2]``."""
        return self.start if self._in_words else words(self.start)

    @property
    def _in_words(self) -> bool:
        return bool(getattr(self.start, "ndim", 0))

    def pick(self, whole: Any, single: bool) -> Any:
        """The chosen members of a whole ensemble."""
        # Sent explicitly, which jax.transfer_guard("disallow") allows.
        index = jax.device_put(self.indices()[0] if single else self.indices())
        whole = jax.tree_util.tree_map(lambda leaf: places.gathered(leaf, 0), whole)
        return _picked(whole, index)

    def take(self, leaf: Any, axis: int) -> Any:
        """The chosen members of an array with a member axis."""
        leaf = places.gathered(leaf, axis)
        if self.place is not None:
            return jax.lax.dynamic_slice_in_dim(leaf, self.place, self.count, axis)
        if isinstance(self.start, int):
            return jax.lax.slice_in_dim(
                jnp.asarray(leaf), self.start, self.start + self.count, axis=axis
            )
        return jnp.take(leaf, jax.device_put(self.indices()), axis=axis)


@jax.jit
def _picked(whole: Any, index: Any) -> Any:
    return jax.tree_util.tree_map(lambda leaf: leaf[index], whole)


# --- what users ask for -----------------------------------------------------------------


def size(value: Any, name: str = "size") -> int:
    """A positive number of members."""
    if compat.is_tracer(value):
        raise TypeError(
            f"`{name}` must be known when the program is traced, as array shapes are; got the "
            f"traced value {value!r}"
        )
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(
            f"`{name}` must be a positive integer (int or NumPy integer); got {value!r} of type "
            f"{type(value).__name__}"
        )
    number = operator.index(value)
    if not 0 < number < _SIZE_LIMIT:
        raise ValueError(f"`{name}` must be at least 1 and below 2**48; got {number}")
    return number


def member(value: Any, count: int, name: str = "i") -> Chosen:
    """One member, by index."""
    array = isinstance(value, (jax.Array, np.ndarray))
    if array and compat.is_key(value.dtype):
        raise TypeError(f"`{name}` must be an integer; got a key (the key comes first)")
    if array and value.ndim == 0 and value.dtype.kind in "iu":
        if compat.is_tracer(value):
            return Chosen(1, _traced(value, count, name), None)
        value = int(value)
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(
            f"`{name}` must be an integer; got {value!r} of type {type(value).__name__}"
        )
    number = operator.index(value)
    if not -count <= number < count:
        raise IndexError(f"`{name}` is {number}, out of range for an ensemble of size={count}")
    return Chosen(1, number % count, None)


def members(index: Any, count: int) -> Chosen:
    """Several members, by slice or index array."""
    if isinstance(index, slice):
        chosen = range(*index.indices(count))
        if chosen.step == 1:
            return Chosen(len(chosen), chosen.start, None)
        return Chosen(len(chosen), None, np.arange(chosen.start, chosen.stop, chosen.step))
    index = as_array(index)
    array = isinstance(index, (np.ndarray, jax.Array))
    if array and compat.is_key(index.dtype):
        raise TypeError(
            "`index` must be a slice or an array of integers; got keys (they come first)"
        )
    if not array or index.ndim != 1 or index.dtype.kind not in "iu":
        what = f"an array of dtype {index.dtype} and shape {index.shape}" if array else repr(index)
        raise TypeError(
            f"`index` must be a slice or a one-dimensional array of integers; got {what} of type "
            f"{type(index).__name__}"
        )
    if compat.is_tracer(index):
        return Chosen(index.shape[0], None, _traced(index, count, "index"))
    listed = np.asarray(index)
    wrong = listed[(listed < -count) | (listed >= count)]
    if wrong.size:
        raise IndexError(
            f"`index` contains {int(wrong[0])}, out of range for an ensemble of size={count}"
        )
    listed = listed.astype(np.int64)
    return Chosen(listed.size, None, np.where(listed < 0, listed + count, listed))


def as_array(index: Any) -> Any:
    """A list, tuple or range as an array, if it can be one; anything else as it is."""
    if isinstance(index, (list, tuple, range)):
        try:
            return np.asarray(index, dtype=None if len(index) else np.int64)
        except ValueError:  # rows of different lengths
            pass
    return index


def indexed(index: Any, count: int) -> tuple[Chosen, bool]:
    """What ``[index]`` picks, and whether that is one member, without a dimension for members."""
    if isinstance(index, tuple):
        raise TypeError(
            f"the index must be of members alone: an integer, a slice, a list or an array; got the "
            f"tuple {index!r}"
        )
    if isinstance(index, (slice, list, range)) or getattr(index, "ndim", 0) > 0:
        return members(index, count), False
    return member(index, count, "index"), True


def _traced(index: Any, count: int, name: str) -> Any:
    """Traced indices, counted from the front: unsigned, of 32 or 64 bits.

    What arithmetic, or jax at the edge of a compiled function, has made of numbers that a type of
    32 bits does not hold cannot be seen any more: it would be the number of some other member.
    """
    if index.dtype.itemsize < 4:
        index = index.astype(np.int32)
    kept = 1 << (8 * index.dtype.itemsize - (index.dtype.kind == "i"))
    if count > kept:
        raise TypeError(
            f"`{name}` is traced and of dtype {index.dtype}, in which indices of size={count} "
            "members wrap around; use 64 bits (jax.enable_x64), or an ensemble of a size up to "
            f"{kept}, whose members are the same"
        )
    if index.dtype.kind == "u":
        return index
    unsigned = np.dtype(f"uint{8 * index.dtype.itemsize}")
    from_front = index.astype(unsigned)
    return jnp.where(index < 0, from_front + unsigned.type(count), from_front)


# --- in programs ------------------------------------------------------------------------


class Wanted(Record):
    """What is wanted of a program (`programs`).

    Attributes:
        total: members of the whole ensemble.
        chosen: the members wanted, None for all in order.
        stacked: for each key, whether it holds the members' own keys.
        single, types, donate: see `execute.program`.
        layout: where the results lie, None if that is left to jax.
        padded: how many members are made, where `layout` splits more than are wanted.
    """

    total: int
    chosen: Chosen | None
    stacked: tuple[bool, ...]
    single: bool
    types: Hashable
    donate: bool
    layout: Layout | None = None
    padded: int = 0

    @property
    def size(self) -> int:
        return self.padded or (self.total if self.chosen is None else self.chosen.count)


def plus(a: Any, b: Any) -> Any:
    """The sum of numbers of two words, the high one first."""
    low = a[..., 1] + b[..., 1]
    carry = (low < a[..., 1]).astype(np.uint32)
    return jnp.stack([a[..., 0] + b[..., 0] + carry, low], axis=-1)


def words(indices: Any) -> Any:
    """Member numbers as ``uint32[..., 2]``, high word first."""
    if compat.is_tracer(indices):
        high = jnp.zeros(indices.shape, jnp.uint32)
        if indices.dtype.itemsize == 8:
            high = (indices >> 32).astype(jnp.uint32)
        return jnp.stack([high, indices.astype(jnp.uint32)], axis=-1)
    wide = np.asarray(indices).astype(np.uint64)
    pair = [wide >> np.uint64(32), wide & np.uint64(0xFFFFFFFF)]
    # Sent explicitly, which jax.transfer_guard("disallow") allows.
    return jax.device_put(np.stack(pair, axis=-1).astype(np.uint32))
