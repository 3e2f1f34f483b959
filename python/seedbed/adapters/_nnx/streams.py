"""What users of nnx pass in: rngs with their streams, and filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from ... import filters
from ..._ensemble import check

ACCEPTED = "an nnx.Rngs, one key or integer, or a mapping from streams to them"


def streams_of(rngs: Any) -> dict[str, Any]:
    return {
        ".".join(map(str, path)): node
        for path, node in nnx.iter_graph(rngs)
        if isinstance(node, nnx.RngStream)
    }


def rngs_of(given: Any) -> Any:
    if isinstance(given, nnx.Rngs):
        for name, stream in streams_of(given).items():
            if stream.key.ndim:
                raise ValueError(
                    f"stream {name!r} of the nnx.Rngs is split already, its keys have shape "
                    f"{stream.key.shape}; give the keys themselves, {{{name!r}: keys}}"
                )
        return given
    if isinstance(given, (int, jax.Array, Mapping)):
        return nnx.Rngs(check.finite(given, "rngs_or_key"))
    raise TypeError(
        f"`rngs_or_key` must be {ACCEPTED}; got {given!r} of type {type(given).__name__}"
    )


def predicate(given: Any, name: str) -> Callable[..., bool]:
    filters.check_end(given)
    try:
        predicate: Callable[..., bool] = nnx.filterlib.to_predicate(given)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a filter of nnx: a type of variables, a tag, a function "
            f"(path, variable) -> bool, True or ..., False or None, or a tuple of filters; got "
            f"{given!r} of type {type(given).__name__}"
        ) from None
    return predicate
