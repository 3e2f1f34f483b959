"""Donation: which arrays of an old ensemble may be overwritten by a new one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax

from . import _compat
from ._plan import Plan


def memory(array: Any) -> int:
    """A number that arrays which share memory have in common."""
    if usable(array) and array.size:
        return _compat.address(array)
    return id(array)


def usable(array: Any) -> bool:
    """Whether a value is an array with memory of its own, on one device."""
    if not isinstance(array, jax.Array) or _compat.is_tracer(array) or array.is_deleted():
        return False
    return len(array.sharding.device_set) == 1


def free(arrays: Iterable[Any], kept: Iterable[Any]) -> list[Any]:
    """Those of ``arrays`` that share memory neither with ``kept`` nor with each other."""
    taken = {memory(one) for one in kept}
    found = []
    for array in arrays:
        place = memory(array)
        if usable(array) and place not in taken:
            taken.add(place)
            found.append(array)
    return found


def checked(old: Any, plan: Plan, count: int, others: Any) -> list[Any]:
    """The arrays of a result that is given back to be overwritten.

    Only paths and types are compared: nothing else of the old result is made use of.

    Args:
        old: what the user passed.
        plan: of the new result.
        count: number of members.
        others: the key and the arguments, which are read while ``old`` is overwritten.

    Raises:
        TypeError: a leaf is not a `jax.Array`.
        ValueError: ``old`` is not like the result, or cannot be given up.
    """
    leaves = jax.tree_util.tree_leaves_with_path(old)
    found = [jax.tree_util.keystr(path) for path, _ in leaves]
    alone = jax.tree_util.treedef_is_leaf(plan.out_tree)
    paths = ["" if alone else output.path for output in plan.outputs]
    if found != paths:
        raise ValueError(
            "`old` must be a result of an earlier call, with the leaves "
            f"{_listed(paths)}; got {_listed(found)}"
        )
    read = {memory(leaf) for leaf in jax.tree_util.tree_leaves(others)}
    seen: set[int] = set()
    for path, (_, leaf), output in zip(paths, leaves, plan.outputs, strict=True):
        name, shape = f"`old{path}`", (count, *output.shape)
        if not isinstance(leaf, jax.Array):
            raise TypeError(
                f"{name} must be a jax.Array, whose memory can be reused; got a value of type "
                f"{type(leaf).__name__}"
            )
        if leaf.shape != shape or str(leaf.dtype) != output.dtype:
            raise ValueError(
                f"{name} must have shape {shape} and dtype {output.dtype}; got shape {leaf.shape} "
                f"and dtype {leaf.dtype}"
            )
        if _compat.is_tracer(leaf):
            continue
        if leaf.is_deleted():
            raise ValueError(f"{name} has been deleted or donated already")
        if not usable(leaf):
            raise ValueError(
                f"{name} must be on one device, which the new result is made on; it is on "
                f"{len(leaf.sharding.device_set)}"
            )
        place = memory(leaf)
        if place in seen or place in read:
            other = "another leaf of `old`" if place in seen else "the key or an argument"
            raise ValueError(f"{name} has the same memory as {other}; it can be given up only once")
        seen.add(place)
    return [leaf for _, leaf in leaves]


def _listed(paths: list[str]) -> str:
    shown = [path or "the array itself" for path in paths[:8]]
    more = [f"{len(paths) - 8} more"] if len(paths) > 8 else []
    return ", ".join([*shown, *more]) or "none"
