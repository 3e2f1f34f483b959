"""Example inputs of which only the shapes are given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ... import _trace
from ..._jax import compat


def call(init: Callable[..., Any], key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """``init(key, *args, **kwargs)``, where inputs may be `jax.ShapeDtypeStruct`.

    To be called under a trace, where the place of such an input costs nothing.

    Raises:
        ValueError: a result depends on the values of such an input.
    """
    found, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    paths = [path for path, leaf in found if isinstance(leaf, jax.ShapeDtypeStruct)]
    if not paths:
        return init(key, *args, **kwargs)
    shapes = [leaf for _, leaf in found if isinstance(leaf, jax.ShapeDtypeStruct)]
    arrays = [leaf for _, leaf in found if isinstance(leaf, jax.Array)]

    def filled(shapes: Any, key: Any, arrays: Any) -> Any:
        first, second = iter(shapes), iter(arrays)
        leaves = [
            next(first)
            if isinstance(leaf, jax.ShapeDtypeStruct)
            else next(second)
            if isinstance(leaf, jax.Array)
            else leaf
            for _, leaf in found
        ]
        args, kwargs = jax.tree_util.tree_unflatten(tree, leaves)
        with _trace.released_on_failure(jax.tree_util.tree_leaves((shapes, key))):
            out = init(key, *args, **kwargs)
            _trace.check_outputs(out)
        return out

    closed, result = jax.make_jaxpr(filled, return_shape=True)(shapes, key, arrays)
    used = _trace.cut.inputs_used(closed)
    for path, one in zip(paths, used[: len(paths)], strict=True):
        if one:
            where, *rest = path
            name = f"{('args', 'kwargs')[where.idx]}{jax.tree_util.keystr(tuple(rest))}"
            raise ValueError(
                f"what is initialised depends on the values of {name}, of which a "
                "jax.ShapeDtypeStruct gives only the shape; give an array"
            )
    blanks = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes]
    inputs = jax.tree_util.tree_leaves((blanks, key, arrays))
    out = jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *inputs)
    # Numbers come back as such, of a type of their own.
    out = [
        compat.with_weak_type(jnp.asarray(leaf, aval.dtype), aval.weak_type)
        if isinstance(leaf, (bool, int, float, complex))
        else leaf
        for leaf, aval in zip(out, closed.out_avals, strict=True)
    ]
    return jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(result), out)
