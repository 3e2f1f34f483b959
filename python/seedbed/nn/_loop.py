"""Running members a few at a time, or one by one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp


def looped(
    chunk_size: int | None,
    recorded: Any,
    size: int,
    axes: tuple[int | None, ...],
    key: Any,
    leaves: list[Any],
) -> Sequence[Any]:
    """A recorded call for members one by one, or ``chunk_size`` at a time."""
    closed = recorded.closed
    mapped = [i for i, axis in enumerate(axes) if axis is not None]
    rows = [jnp.moveaxis(leaves[i], axes[i], 0) for i in mapped]

    def body(row: tuple[Any, list[Any]]) -> Any:
        filled = list(leaves)
        for i, value in zip(mapped, row[1], strict=True):
            filled[i] = value
        return jax.core.eval_jaxpr(closed.jaxpr, closed.consts, row[0], *filled)

    batch: Any = functools.partial(jax.lax.map, batch_size=chunk_size)
    out: Sequence[Any] = batch(body, (jax.random.split(key, size), rows))
    return out
