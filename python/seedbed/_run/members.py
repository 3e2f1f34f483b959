"""Which members are wanted, and their numbers as words."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.record import Record
from .._jax import compat, places
from .layout import Layout


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
