"""Models that are pytrees of variables: which all members share, one member, a call of all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ... import filters
from ..._ensemble import check
from ..._jax import compat
from .parts import TakenApart
from .stacking import listed, stacked

# A variable with its path; ``is_variable`` says which subtrees are one variable, boxed.
_Item = tuple[tuple[Any, ...], Any]
IsVariable = Callable[[Any], bool] | None


def take_apart(variables: Any, shared: Any, is_variable: IsVariable = None) -> TakenApart:
    """Variables as those of a member and those that ``shared`` picks.

    ``shared`` is a filter of `seedbed.filters`, in which a string is the beginning of a path.
    """
    items, tree = _items(check.finite(variables, "variables"), is_variable)
    picked = _picked(items, shared)
    own = [None if one else item for (_, item), one in zip(items, picked, strict=True)]
    common = [item if one else None for (_, item), one in zip(items, picked, strict=True)]
    return TakenApart(tree.unflatten(own), tree.unflatten(common), (tree, picked))


def put_together(made: TakenApart) -> Any:
    """The variables again, with or without a member axis."""
    tree, picked = made.rest
    if not any(picked):
        return made.own
    own, common = tree.flatten_up_to(made.own), tree.flatten_up_to(made.common)
    return tree.unflatten([b if one else a for a, b, one in zip(own, common, picked, strict=True)])


def unstack(variables: Any, shared: Any, is_variable: IsVariable = None) -> list[Any]:
    """The variables of every member, without the member axis."""
    made = take_apart(variables, shared, is_variable)
    size = _size(variables, shared, is_variable)
    if size is None:
        raise ValueError("`variables` must hold a variable that the members do not share")
    return [
        put_together(TakenApart(row(made.own, index), made.common, made.rest))
        # Sent explicitly, which jax.transfer_guard("disallow") allows.
        for index in map(jax.device_put, np.arange(size, dtype=np.int32))
    ]


def stack(variables: Any, shared: Any, is_variable: IsVariable = None) -> Any:
    """The variables of several models as one, with a leading axis; what is shared of the first."""
    made = [take_apart(one, shared, is_variable) for one in listed(variables, "variables")]
    own = stacked([one.own for one in made], "variables")
    return put_together(TakenApart(own, made[0].common, made[0].rest))


@jax.jit
def row(tree: Any, index: Any) -> Any:
    """One member of arrays that have them first."""
    return jax.tree.map(
        lambda leaf: jax.lax.dynamic_index_in_dim(leaf, index, keepdims=False), tree
    )


def run(
    function: Callable[[Any, Any, tuple[Any, ...]], Any],
    variables: Any,
    shared: Any,
    keys: Any,
    inputs: tuple[Any, ...],
    in_axes: Any,
    is_variable: IsVariable = None,
) -> Any:
    """``function(variables, keys, inputs)`` for all members, results with a leading axis.

    Args:
        keys: a pytree of keys, each one key, which is split, or a key for every member.
        inputs: the same for all members, but for what ``in_axes`` maps; need not be arrays.
    """
    made = take_apart(variables, shared, is_variable)
    leaves, tree = jax.tree_util.tree_flatten_with_path(check.finite(inputs, "inputs"))
    given = [None] * len(leaves) if in_axes is None else check.spread(in_axes, inputs)
    axes = [
        check.axis(one, f"inputs{jax.tree_util.keystr(path)}", leaf)
        for one, (path, leaf) in zip(given, leaves, strict=True)
    ]
    size = _size(variables, shared, is_variable)
    for axis, (path, leaf) in zip(axes, leaves, strict=True):
        if axis is not None:
            size = leaf.shape[axis] if size is None else size
            if leaf.shape[axis] != size:
                raise ValueError(
                    f"`in_axes` maps axis {axis} of inputs{jax.tree_util.keystr(path)}, of length "
                    f"{leaf.shape[axis]}, over {size} members; the two must be equal"
                )
    if size is None:
        raise ValueError(
            "how many members there are must follow from `variables` or from an input that "
            "`in_axes` maps; all variables are shared, and no input is mapped"
        )
    keys = _split(keys, size)

    def member(own: Any, keys: Any, mapped: Any) -> Any:
        rest = iter(mapped)
        parts = [
            leaf if axis is None else next(rest)
            for axis, (_, leaf) in zip(axes, leaves, strict=True)
        ]
        whole = put_together(TakenApart(own, made.common, made.rest))
        return function(whole, keys, jax.tree_util.tree_unflatten(tree, parts))

    mapped = [leaf for axis, (_, leaf) in zip(axes, leaves, strict=True) if axis is not None]
    moved = [axis for axis in axes if axis is not None]
    return jax.vmap(member, (0, 0, moved))(made.own, keys, mapped)


def _split(keys: Any, size: int) -> Any:
    if keys is None:
        return None
    check.keys(keys, size)
    return jax.tree_util.tree_map(
        lambda one: one if check.is_stack(one) else jax.random.split(one, size), keys
    )


def _items(variables: Any, is_variable: IsVariable) -> tuple[list[_Item], Any]:
    found, tree = jax.tree_util.tree_flatten_with_path(variables, is_leaf=is_variable)
    return [(tuple(map(_name, path)), item) for path, item in found], tree


def _name(entry: Any) -> Any:
    for field in ("key", "name", "idx"):
        if hasattr(entry, field):
            return getattr(entry, field)
    return str(entry)


def _picked(items: list[_Item], shared: Any) -> tuple[bool, ...]:
    filters.check_end(shared)
    keep = filters.to_predicate(_by_path(shared, [_text(path) for path, _ in items]))
    picked = []
    for path, item in items:
        types = [_type(path, leaf) for leaf in jax.tree_util.tree_leaves(item)]
        picked.append(keep(path, types[0] if types else None))
    return tuple(picked)


def _type(path: tuple[Any, ...], leaf: Any) -> Any:
    """What a filter sees of a variable: what is shared must not depend on the numbers."""
    if not check.array_like(leaf):
        raise TypeError(
            f"variables must be arrays or numbers; {_text(path)} is {leaf!r} of type "
            f"{type(leaf).__name__}"
        )
    found = jax.typeof(leaf)
    return compat.abstract(found.shape, found.dtype)


def _by_path(shared: Any, texts: list[str]) -> Any:
    """A filter with its strings replaced by the beginning of a path."""
    if isinstance(shared, (list, tuple)):
        return [_by_path(one, texts) for one in shared]
    if isinstance(shared, (filters.Any, filters.All, filters.Not)):
        return type(shared)(*(_by_path(one, texts) for one in shared._args))
    if not isinstance(shared, str):
        return shared
    if not any(_begins(text, shared) for text in texts):
        raise ValueError(
            f"`shared` names {shared!r}, and no variable's path begins so; there are: "
            f"{', '.join(texts[:8])}{', ...' if len(texts) > 8 else ''}"
        )
    return lambda path, leaf: _begins(_text(path), shared)


def _text(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


def _begins(text: str, prefix: str) -> bool:
    return text == prefix or text.startswith(prefix.rstrip("/") + "/")


def _size(variables: Any, shared: Any, is_variable: IsVariable) -> int | None:
    """The number of members that the variables have, or None where they share all."""
    items, _ = _items(variables, is_variable)
    found: dict[int, str] = {}
    for (path, item), common in zip(items, _picked(items, shared), strict=True):
        for leaf in () if common else jax.tree_util.tree_leaves(item):
            shape = np.shape(leaf)
            if not shape:
                raise ValueError(
                    f"`variables` must have the member axis first; {_text(path)} has none. Name "
                    "what all members share in `shared`"
                )
            found.setdefault(shape[0], _text(path))
    if len(found) > 1:
        (one, first), (other, second), *_ = found.items()
        raise ValueError(
            f"`variables` must have one member axis; {first} has {one} members and {second} "
            f"{other}. Name what all members share in `shared`"
        )
    return next(iter(found), None)
