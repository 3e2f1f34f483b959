"""brainstate's chain of keys, derived natively."""

from __future__ import annotations

import functools
from typing import Any

import jax

from .. import _check, _compat, _ensemble, _generators


def split_key(state: Any, n: Any = None, backup: bool = False) -> Any:
    """`RandomState.split_key`: the same keys, made natively and without a program for each n."""
    key = state.value
    threefry = _compat.is_key(key.dtype) and _generators.is_threefry(_generators.of(key))
    if backup or not (threefry and _compat.partitionable()) or key.ndim:
        return type(state).split_key(state, n, backup)
    if n is None:
        state.value, second = _single(_pair(), key)
        return second
    rest = _rest(_check.size(n, "axis_size")).members(key, slice(1, None))
    state.value, _ = _single(_pair(), key)
    return rest


@functools.lru_cache(maxsize=64)
def _rest(n: int) -> Any:
    made = _ensemble.ensemble(lambda key: key, n + 1)
    made._size_name = "axis_size"
    return made


@functools.cache
def _pair() -> Any:
    # The first keys of a split do not depend on how many there are.
    return _ensemble.ensemble(lambda key: tuple(jax.random.split(key)), 1)


def _single(make: Any, key: Any) -> Any:
    return make._run(key[None], (), None, single=True)
