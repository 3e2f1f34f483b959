"""Pytrees that contain themselves: jax would go through them until the stack ends."""

from __future__ import annotations

import sys
from typing import Any


def finite(value: Any, name: str) -> Any:
    """A pytree that jax can go through: it does not contain itself.

    Args:
        value: the pytree.
        name: of an argument, or in words (with backquotes) what it is.

    Raises:
        ValueError: it does, or it is nested deeper than Python's limit on recursion.
    """
    pending = [iter((value,))]
    while pending:
        for item in pending[-1]:
            if isinstance(item, (list, tuple, dict)):
                if len(pending) > sys.getrecursionlimit():
                    name = name if "`" in name else f"`{name}`"
                    raise ValueError(
                        f"{name} must be a pytree that ends; got one that contains itself, or is "
                        f"nested more than {sys.getrecursionlimit()} deep"
                    )
                pending.append(iter(list(item.values()) if isinstance(item, dict) else item))
                break
        else:
            pending.pop()
    return value
