"""JAX's own numbers for an ensemble, and how ours differ from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from .._jax import compat, lowering


def bits(array: Any) -> np.ndarray[Any, Any]:
    """An array's bit patterns, as unsigned integers that share its memory; keys as their words."""
    if compat.is_key(array.dtype):
        array = jax.random.key_data(array)
    values = np.ascontiguousarray(array)
    if values.dtype.kind == "c":
        values = values.view(values.real.dtype)
    return values.view(f"u{values.itemsize}")


class Oracle:
    """``vmap(init)(keys)``. Where jitted and unjitted JAX round differently, either is right.

    Args:
        init: init function of one member.
        keys: the members' keys.
        jitted: the leaves of ``jax.jit(jax.vmap(init))(keys)``, where they are known already.
        args, in_axes: further arguments of ``init``, and those of `jax.vmap` for all.
    """

    def __init__(
        self,
        init: Callable[..., Any],
        keys: Any,
        jitted: list[Any] | None = None,
        args: tuple[Any, ...] = (),
        in_axes: Any = 0,
    ) -> None:
        self._make = jax.vmap(init, in_axes=in_axes)
        self._given = (keys, *args)
        if jitted is None:
            with lowering.jax_alone():
                jitted = jax.tree.leaves(jax.jit(self._make)(*self._given))
        self.jitted = jitted
        self._unjitted: list[Any] | None = None

    def count(self, leaves: Iterable[int]) -> int:
        """How many values some leaves, by number, have."""
        return sum(int(self.jitted[leaf].size) for leaf in leaves)

    def differing(self, made: Iterable[tuple[int, Any]]) -> tuple[int, int]:
        """Values and bits that are neither of JAX's own.

        Args:
            made: leaves to compare, each with its number.
        """
        values = wrong_bits = 0
        for leaf, ours in made:
            difference = bits(ours) ^ bits(self.jitted[leaf])
            if difference.any():
                if self._unjitted is None:
                    with lowering.jax_alone():
                        self._unjitted = jax.tree.leaves(self._make(*self._given))
                difference[bits(ours) == bits(self._unjitted[leaf])] = 0
            values += int(np.count_nonzero(difference))
            wrong_bits += int(np.bitwise_count(difference).sum())
        return values, wrong_bits
