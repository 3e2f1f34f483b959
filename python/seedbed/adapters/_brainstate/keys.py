"""brainstate's chain of keys, derived natively."""

from __future__ import annotations

import functools
from typing import Any

import jax

from ..._ensemble import check, ensemble, within
from ..._jax import compat, generators


def split_key(state: Any, n: Any = None, backup: bool = False) -> Any:
    """`RandomState.split_key`: the same keys, made natively and without a program for each n."""
    key = state.value
    threefry = compat.is_key(key.dtype) and generators.is_threefry(generators.of(key))
    if backup or not (threefry and compat.partitionable()) or key.ndim:
        return type(state).split_key(state, n, backup)
    if n is None:
        state.value, second = within.alone(_pair(), key)
        return second
    rest = _rest(check.size(n, "axis_size")).members(key, slice(1, None))
    state.value, _ = within.alone(_pair(), key)
    return rest


@functools.lru_cache(maxsize=64)
def _rest(n: int) -> Any:
    return within.for_modules(lambda key: key, n + 1)


@functools.cache
def _pair() -> Any:
    # The first keys of a split do not depend on how many there are.
    return ensemble.ensemble(lambda key: tuple(jax.random.split(key)), 1)
