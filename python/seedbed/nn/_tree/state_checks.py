"""What a `State` accepts: tags, shapes, dtypes, and values with the axis of its members."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._jax import compat
from . import held
from .content import Declared, MemberAxis

# More tags or axes than anyone has: an iterator without an end is refused, not gone through.
_MOST = 1000


def as_tags(tag: Any) -> frozenset[str]:
    if tag is None:
        return frozenset()
    if isinstance(tag, str):
        return frozenset((tag,))
    try:
        tags = list(itertools.islice(tag, _MOST + 1))
    except TypeError:
        tags = [None]
    if len(tags) > _MOST or not all(isinstance(one, str) for one in tags):
        raise TypeError(
            f"`tag` must be a string, several strings, or None; got {tag!r} of type "
            f"{type(tag).__name__}"
        )
    return frozenset(tags)


def declared_dtype(declared: Declared) -> Any:
    return jnp.dtype(jax.dtypes.canonicalize_dtype(declared.dtype or float))


def as_shape(name: str, shape: Any) -> tuple[int, ...]:
    try:
        several = isinstance(shape, Iterable)
        sizes = tuple(itertools.islice(shape, _MOST + 1)) if several else (shape,)
        if len(sizes) > _MOST or any(isinstance(size, (bool, np.bool_)) for size in sizes):
            raise TypeError
        sizes = tuple(size.__index__() for size in sizes)
        if any(size < 0 for size in sizes):
            raise TypeError
    except (TypeError, AttributeError):
        raise TypeError(
            f"`shape` of {name} must be a tuple of integers that are not negative; got {shape!r}"
        ) from None
    return sizes


def check_traced(home: Any, value: Any) -> None:
    """Where nothing is traced, a traced value is of another thread, or left over."""
    if home == compat.top_trace_state() and compat.under_trace(list(held.leaves(value))):
        raise ValueError(
            "a value that is traced (by jit, vmap, grad, a call on all members, ...) cannot be "
            "kept in a State outside of the traced function, or by another thread"
        )


def check_members(state: Any, mapped: tuple[MemberAxis, ...], value: Any) -> None:
    """A value for all members must have their axis."""
    if not mapped:
        return
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        shape = list(np.shape(leaf))
        for size, axis in mapped:
            if not -len(shape) <= axis < len(shape) or shape[axis] != size:
                where = jax.tree_util.keystr(path)
                raise ValueError(
                    f"{state._name()} holds {size} members along axis {axis}; the new value{where} "
                    f"has shape {np.shape(leaf)}. Initialise the module anew to change the number "
                    "of members, or to have a single one."
                )
            del shape[axis]


def copied(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array):
        # Not the same buffer: either copy may be donated.
        return leaf if compat.is_tracer(leaf) else jnp.copy(leaf)
    return copy.deepcopy(leaf)


def check_drawn(state: Any, declared: Declared, value: Any) -> None:
    """Whether ``init`` made what was declared."""
    if callable(value) and not hasattr(value, "shape"):
        raise TypeError(
            f"`init` of {state._name()} returned a function; an initialiser is what the function "
            "returns: jax.nn.initializers.he_normal() and not he_normal"
        )
    if hasattr(value, "shape") and tuple(value.shape) != declared.shape:
        raise ValueError(
            f"`init` of {state._name()} returned shape {tuple(value.shape)}; declared was "
            f"{declared.shape}"
        )
