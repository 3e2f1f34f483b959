"""Running members a few at a time, or one by one."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ... import _trace


def looped(
    chunk_size: int | None,
    recorded: Any,
    size: int,
    axes: tuple[int | None, ...],
    key: Any,
    leaves: list[Any],
) -> Sequence[Any]:
    """A recorded call for members one by one, or ``chunk_size`` at a time."""
    trimmed, captures, reads = _trace.trim(recorded.closed)
    run = _program(trimmed, chunk_size, size, tuple(axes[i] for i in reads))
    out: Sequence[Any] = run(key, captures, [leaves[i] for i in reads])
    return out


@functools.lru_cache(maxsize=256)
def _program(
    trimmed: _trace.Trimmed, chunk_size: int | None, size: int, axes: tuple[int | None, ...]
) -> Any:
    """The jitted program ``(key, captures, leaves) -> results``, members first."""

    def run(key: Any, captures: Sequence[Any], leaves: Sequence[Any]) -> list[Any]:
        rows = [
            jnp.moveaxis(leaf, axis, 0)
            for leaf, axis in zip(leaves, axes, strict=True)
            if axis is not None
        ]

        def member(row: tuple[Any, list[Any]]) -> list[Any]:
            mapped = iter(row[1])
            inputs = [
                leaf if axis is None else next(mapped)
                for leaf, axis in zip(leaves, axes, strict=True)
            ]
            return trimmed.evaluate(row[0], *captures, *inputs)

        one_by_one: Any = functools.partial(jax.lax.map, batch_size=chunk_size)
        out: list[Any] = one_by_one(member, (jax.random.split(key, size), rows))
        return out

    run.__name__ = "seedbed_loop"
    return jax.jit(run)
