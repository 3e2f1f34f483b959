"""Donation: which arrays of an old ensemble may be overwritten by a new one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from .._jax import compat
from .._plan import Plan


def memory(array: Any) -> frozenset[Any]:
    """Numbers that arrays which share memory have in common, one for each device's part."""
    if usable(array) and array.size:
        return frozenset(_addresses(array))
    return frozenset([id(array)])


def _addresses(array: Any) -> list[tuple[int, int]]:
    """Devices and places of an array's data, or of typed keys', in this process's memory."""
    # `key_data` would be traced where anything is.
    base = getattr(array, "_base_array", array)
    if len(base.sharding.device_set) == 1:
        return [(_memory_of(next(iter(base.devices()))), int(base.unsafe_buffer_pointer()))]
    parts = [shard.data for shard in base.addressable_shards]
    return [(_memory_of(next(iter(x.devices()))), int(x.unsafe_buffer_pointer())) for x in parts]


def _memory_of(device: Any) -> int:
    """A number of the memory that a device computes in: CPU devices share one."""
    return -1 if device.platform == "cpu" else int(device.id)


def usable(array: Any) -> bool:
    """Whether a value is an array with memory of its own."""
    return isinstance(array, jax.Array) and not compat.is_tracer(array) and not array.is_deleted()


def alone(array: Any) -> bool:
    """Whether such an array is on one device."""
    return usable(array) and len(array.sharding.device_set) == 1


def free(arrays: Iterable[Any], kept: Iterable[Any]) -> list[Any]:
    """Those of ``arrays`` that share memory neither with ``kept`` nor with each other."""
    taken = frozenset().union(*map(memory, kept))
    found = []
    for array in arrays:
        places = memory(array)
        if usable(array) and not places & taken:
            taken |= places
            found.append(array)
    return found


def checked(
    old: Any, plan: Plan, leading: tuple[int, ...], others: Any, name: str = "old"
) -> list[Any]:
    """The arrays of a result that is given back to be overwritten.

    Only paths and types are compared: nothing else of the old result is made use of.

    Args:
        old: what the user passed.
        plan: of the new result.
        leading: the dimensions in front of a member's: one, for the members.
        others: the key and the arguments, which are read while ``old`` is overwritten.
        name: of the argument.

    Raises:
        TypeError: a leaf is not a `jax.Array`.
        ValueError: ``old`` is not like the result, or cannot be given up.
    """
    leaves = alike(old, plan, leading, name, reused=True)
    read = frozenset().union(*map(memory, jax.tree_util.tree_leaves(others)))
    seen: frozenset[Any] = frozenset()
    for named, leaf in leaves:
        if compat.is_tracer(leaf):
            continue
        if leaf.is_deleted():
            raise ValueError(f"{named} has been deleted or donated already")
        places = memory(leaf)
        if places & seen or places & read:
            other = f"another leaf of `{name}`" if places & seen else "the key or an argument"
            raise ValueError(
                f"{named} has the same memory as {other}; it can be given up only once"
            )
        seen |= places
    return [leaf for _, leaf in leaves]


def alike(
    given: Any, plan: Plan, leading: tuple[int, ...], name: str, reused: bool = False
) -> list[tuple[str, Any]]:
    """The leaves of what has to be like a result, each with its name for messages.

    Raises:
        TypeError: a leaf is not an array, or is to be ``reused`` and not a `jax.Array`.
        ValueError: there are other leaves than in the result, or of other shapes or dtypes.
    """
    leaves = jax.tree_util.tree_leaves_with_path(given)
    found = [jax.tree_util.keystr(path) for path, _ in leaves]
    alone = jax.tree_util.treedef_is_leaf(plan.out_tree)
    paths = ["" if alone else output.path for output in plan.outputs]
    if found != paths:
        raise ValueError(
            f"`{name}` must be a result of an earlier call, with the leaves "
            f"{_listed(paths)}; got {_listed(found)}"
        )
    kinds = (jax.Array,) if reused else (jax.Array, np.ndarray, np.generic)
    wanted = "a jax.Array, whose memory can be reused" if reused else "an array"
    checked = []
    for path, (_, leaf), output in zip(paths, leaves, plan.outputs, strict=True):
        named, shape = f"`{name}{path}`", (*leading, *output.shape)
        if not isinstance(leaf, kinds):
            raise TypeError(f"{named} must be {wanted}; got a value of type {type(leaf).__name__}")
        if leaf.shape != shape or str(leaf.dtype) != output.dtype:
            raise ValueError(
                f"{named} must have shape {shape} and dtype {output.dtype}; got shape {leaf.shape} "
                f"and dtype {leaf.dtype}"
            )
        checked.append((named, leaf))
    return checked


def _listed(paths: list[str]) -> str:
    shown = [path or "the array itself" for path in paths[:8]]
    more = [f"{len(paths) - 8} more"] if len(paths) > 8 else []
    return ", ".join([*shown, *more]) or "none"
