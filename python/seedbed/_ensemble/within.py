"""Ensembles for callers within the package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .ensemble import Ensemble


def for_modules(
    init: Callable[..., Any], size: int, in_axes: Any = None, **options: Any
) -> Ensemble:
    """An ensemble in a call on modules, where the number of members is ``axis_size``."""
    made = Ensemble(init, size, in_axes=in_axes, **options)
    made._size_name = "axis_size"
    return made


def alone(make: Ensemble, key: Any, *args: Any) -> Any:
    """What an ensemble of one makes with this key, which is not split, without the member axis."""
    return make._run(make._call(key[None], args, single=True))


def into(make: Ensemble, old: list[Any], key: Any, *args: Any) -> Any:
    """What ``make(key, *args)`` is, in the memory of arrays that are given up."""
    return make._run(make._call(key, args, give_up=lambda plan, shape: old))
