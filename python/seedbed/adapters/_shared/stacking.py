"""Members as plain models, put together into one with a member axis; and what is no such one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._ensemble import check


def listed(models: Any, name: str) -> list[Any]:
    """The models in a list or tuple, one at least."""
    if not isinstance(models, (list, tuple)):
        raise TypeError(
            f"`{name}` must be a list or tuple of models, as `unstack` gives; got one of type "
            f"{type(models).__name__}"
        )
    if not models:
        raise ValueError(f"`{name}` must have one model at least; it is empty")
    return list(check.finite(models, name))


def stacked(trees: Sequence[Any], name: str) -> Any:
    """Trees of arrays as one, with a leading axis on every array."""
    structures: list[Any] = [*map(jax.tree_util.tree_structure, trees)]
    kinds = _kinds(trees[0])
    for number, tree in enumerate(trees):
        if structures[number] != structures[0]:
            raise ValueError(f"`{name}` must be models of one structure; 0 and {number} differ")
        for path, kind in _kinds(tree).items():
            if kind != kinds[path]:
                raise ValueError(
                    f"`{name}` must be models with arrays of the same types; {path or 'it'} is "
                    f"{kinds[path]} in 0 and {kind} in {number}"
                )
    return jax.tree_util.tree_map(lambda *leaves: jnp.stack(leaves), *trees)


def _kinds(tree: Any) -> dict[str, str]:
    return {
        jax.tree_util.keystr(path): str(jax.typeof(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def refuse_single(
    name: str, nodes: Sequence[Any], layers: Sequence[tuple[type, str, Callable[[Any], int]]]
) -> None:
    """Refuses a model that shows by the layers in it that it has no member axis.

    Args:
        nodes: modules in the model.
        layers: types of them, which array tells, and how many axes that has in a single model.
    """
    for node in nodes:
        for kind, field, axes in layers:
            if not isinstance(node, kind):
                continue
            shape = getattr(getattr(node, field, None), "shape", None)
            if shape is not None and len(shape) == axes(node):
                raise ValueError(
                    f"`{name}` must have a leading axis of members; this is a single model: "
                    f"`{field}` of a {kind.__name__} has shape {shape}"
                )
