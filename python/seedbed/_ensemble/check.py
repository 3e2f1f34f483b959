"""Checks of what users pass in: before any work, with the argument's name in the message."""

from __future__ import annotations

import inspect
import os
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._jax import compat, generators, places
from .._plan import Plan, largest
from .._run.members import Chosen as Chosen
from .._run.members import member as member
from .._run.members import members as members
from .._run.members import size as size
from .._trace import finite as finite

if TYPE_CHECKING:
    from .._jax.types import Tree

# Results below this size are allocated without a look at the free memory.
_SMALL = 64 << 20


def flag(value: Any, name: str) -> bool:
    """A yes or no."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"`{name}` must be True or False; got {value!r} of type {type(value).__name__}"
        )
    return bool(value)


def init_call(init: Any, args: tuple[Any, ...]) -> None:
    """Whether ``init(key, *args)`` fits the function's signature, where it has one."""
    try:
        signature = inspect.signature(init)
    except (TypeError, ValueError):  # builtins and some wrapped functions have none
        return
    try:
        signature.bind(None, *args)
    except TypeError as error:
        raise TypeError(
            f"`init` is called as init(key, *args), here with {len(args)} argument(s) after the "
            f"key, and its signature {signature} does not accept that: {error}"
        ) from None


# --- keys -------------------------------------------------------------------------------


def _typed(key: Any) -> bool:
    return compat.is_key(key.dtype)


def keys(value: Any, count: int) -> list[Any]:
    """The leaves of a pytree of keys: each one key or ``count`` keys, typed or legacy."""
    if isinstance(value, (jax.Array, np.ndarray)):
        return [_key(value, count, "`key`")]
    leaves = jax.tree_util.tree_leaves_with_path(finite(value, "key"))
    if not leaves or not leaves[0][0]:
        _key(value, count, "`key`")
    return [_key(leaf, count, f"`key{jax.tree_util.keystr(path)}`") for path, leaf in leaves]


def _key(value: Any, count: int, name: str) -> Any:
    accepted = (
        "one key (jax.random.key(0), or a legacy jax.random.PRNGKey(0)) or an array of "
        f"size={count} keys"
    )
    if not isinstance(value, (jax.Array, np.ndarray)):
        raise TypeError(f"{name} must be {accepted}; got {value!r} of type {type(value).__name__}")
    shape = value.shape
    if not _typed(value):
        words = generators.legacy_words()
        if value.dtype != np.uint32 or value.ndim == 0 or shape[-1] != words:
            raise TypeError(
                f"{name} must be {accepted}; got an array of dtype {value.dtype} and shape "
                f"{shape}, and {generators.legacy_form()}"
            )
        shape = shape[:-1]
    if shape not in ((), (count,)):
        raise ValueError(f"{name} must be {accepted}; got keys of shape {shape}")
    return value


def is_stack(value: Any) -> bool:
    """Whether a checked key holds one key for each member."""
    return bool(value.ndim > (0 if _typed(value) else 1))


def member_key_type(value: Any) -> Any:
    """The abstract type of one member's key."""
    shape = () if _typed(value) else value.shape[-1:]
    place = places.member(value, 0 if is_stack(value) else None)
    return compat.abstract(shape, value.dtype, place=place)


# --- arguments --------------------------------------------------------------------------


def axes(in_axes: Any, args: tuple[Any, ...], count: int) -> tuple[int | None, ...]:
    """The mapped axis of every argument leaf, with lengths checked."""
    leaves = jax.tree_util.tree_leaves_with_path(finite(args, "args"))
    for path, leaf in leaves:
        if not array_like(leaf):
            raise TypeError(
                f"arguments of `init` must be arrays or numbers; args{jax.tree_util.keystr(path)} "
                f"is {leaf!r} of type {type(leaf).__name__}. Bind other values with "
                "functools.partial or a lambda."
            )
    if in_axes is None:
        return (None,) * len(leaves)
    checked = []
    for one, (path, leaf) in zip(spread(in_axes, args), leaves, strict=True):
        name = f"args{jax.tree_util.keystr(path)}"
        one = axis(one, name, leaf)
        if one is not None and np.shape(leaf)[one] != count:
            raise ValueError(
                f"`in_axes` maps axis {one} of {name}, of length {np.shape(leaf)[one]}, over "
                f"size={count} members; the two must be equal"
            )
        checked.append(one)
    return tuple(checked)


def spread(axes: Any, tree: Tree, name: str = "in_axes") -> list[Any]:
    """One entry of ``axes``, a prefix of the tree ``tree``, for every leaf of it."""
    finite(axes, name)
    if isinstance(axes, list):
        axes = tuple(axes)
    if name == "in_axes":
        if isinstance(axes, tuple) and len(axes) != len(tree):
            raise ValueError(
                f"`in_axes` has {len(axes)} entries for {len(tree)} arguments after the key; give "
                "one entry for each (the key itself has none)"
            )
        axes = axes if isinstance(axes, tuple) else (axes,) * len(tree)
    try:
        lists = jax.tree_util.tree_map(
            lambda axis, part: [axis] * len(jax.tree_util.tree_leaves(part)),
            axes,
            tree,
            is_leaf=lambda axis: axis is None,
        )
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be None, an integer, or a tuple whose structure is a prefix of the "
            f"{'arguments' if name == 'in_axes' else 'result'}'; got {axes!r}: {error}"
        ) from None
    return jax.tree_util.tree_leaves(lists, is_leaf=lambda axis: axis is None)


def axis(axis: Any, name: str, leaf: Any) -> int | None:
    """One mapped axis of a leaf, counted from the front."""
    if axis is None:
        return None
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(
            f"`in_axes` must consist of integers and None; got {axis!r} of type "
            f"{type(axis).__name__} for {name}"
        )
    shape = np.shape(leaf)
    if not -len(shape) <= axis < len(shape):
        raise ValueError(f"`in_axes` maps axis {axis} of {name}, which has shape {shape}")
    return int(axis) % len(shape)


def array_like(leaf: Any) -> bool:
    """Whether jax takes a leaf as an array."""
    if isinstance(leaf, (np.generic, np.ndarray)):
        return leaf.dtype.kind not in "OSUMmT"
    return isinstance(leaf, (bool, int, float, complex, jax.Array))


def member_type(leaf: Any, axis: int | None) -> Any:
    """The type of an argument leaf as one member sees it."""
    aval = jax.typeof(leaf)
    shape = aval.shape if axis is None else aval.shape[:axis] + aval.shape[axis + 1 :]
    return compat.abstract(shape, aval.dtype, aval.weak_type, places.member(aval, axis))


# --- memory -----------------------------------------------------------------------------


def memory(
    plan: Plan,
    member_bytes: int,
    count: int,
    concrete: bool,
    name: str = "size",
    reused: int = 0,
) -> None:
    """Refuses a result that cannot exist, before anything is allocated.

    Args:
        plan: names the largest results in the message.
        member_bytes: what one member takes, `Plan.total_bytes`.
        count: how many members.
        concrete: whether they are about to be allocated, not only traced.
        name: of the argument that said how many.
        reused: bytes that are there already.
    """
    asked = count * member_bytes
    # Symbolic dimensions (`jax.export`) have no size yet.
    if not isinstance(asked, int) or asked < _SMALL:
        return
    leaves = ", ".join(
        f"{output.path} {(count, *output.shape)} {output.dtype}" for output in largest(plan)
    )
    message = f"{count} members of {member_bytes:,} bytes are {asked:,} bytes"
    if asked >= 1 << 63:
        raise OverflowError(f"`{name}` is too large: {message}. Largest results: {leaves}")
    available = _free_memory() if concrete else None
    if available is not None and asked - reused > available:
        raise MemoryError(
            f"`{name}` is too large for this machine: {message}, and {available:,} bytes are free. "
            f"Largest results: {leaves}. `stream`, `members`, `lazy` and `save` make the ensemble "
            "in parts."
        )


def room(asked: int, what: str) -> None:
    """Refuses other results that cannot exist."""
    available = _free_memory() if asked >= _SMALL else None
    if available is not None and asked > available:
        raise MemoryError(f"{what} are {asked:,} bytes, and {available:,} bytes are free")


def _free_memory() -> int | None:
    """Bytes that the device has left, or this machine where the device has no memory of its own."""
    if (platform := compat.platform()) == "cuda":
        return compat.free_memory(compat.first_device(platform))
    return _available_memory()


def _available_memory() -> int | None:
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
