"""The reference backend: plain `jax.vmap` of the traced function. Also the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax

from .._jax import compat, places
from .._trace import Trimmed


def member_keys(key: Any, total: int, members: Any, fold: bool) -> Any:
    """Keys of the members with the given indices.

    Args:
        key: scalar key (typed, or legacy ``uint32`` words).
        total: size of the whole ensemble.
        members: integer array of indices, or None for all of them; with ``fold`` the indices
            as ``uint32[..., 2]`` words, high word first.
        fold: whether ``fold_in(key, i)`` is ``split(key, total)[i]`` (threefry in
            partitionable mode), so that one member costs one fold.
    """
    if members is None:
        return jax.random.split(key, total)
    if not fold:
        return jax.random.split(key, total)[members]
    if total <= 1 << 32:
        return jax.vmap(jax.random.fold_in, (None, 0))(key, members[:, 1])
    return _fold_wide(key, members)


def _fold_wide(key: Any, members: Any) -> Any:
    """``fold_in`` by indices of 64 bits, which `jax.random.fold_in` does not take."""
    typed = compat.is_key(key.dtype)
    words = compat.key_words(key)
    pairs = compat.threefry_2x32(words, members.T.reshape(-1)).reshape(2, -1).T
    return jax.random.wrap_key_data(pairs, impl=compat.key_impl(key.dtype)) if typed else pairs


def evaluate(
    trimmed: Trimmed,
    size: int,
    keys: Sequence[Any],
    captures: Sequence[Any],
    args: Sequence[Any],
    axes: Sequence[int | None],
) -> list[Any]:
    """Every output leaf of the traced function for ``size`` members, members first."""

    def member(keys: Sequence[Any], *args: Any) -> list[Any]:
        return trimmed.evaluate(*keys, *captures, *args)

    mapped: Any = jax.vmap(member, in_axes=(0, *axes), out_axes=0, axis_size=size)
    return list(mapped(places.mapped_alike(keys, args, axes), *args))
