"""A value of a state as text."""

from __future__ import annotations

from typing import Any

import jax


def summary(value: Any) -> str:
    """Shape, dtype and unit of an array; a number as it is; a pytree by its leaves."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        unit = f", unit={value.unit}" if hasattr(value, "unit") else ""
        return f"shape={tuple(value.shape)}, dtype={value.dtype}{unit}"
    if value is None or isinstance(value, (bool, int, float, complex, str)):
        return repr(value)

    def leaf(value: Any) -> str:
        return f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else repr(value)

    described = jax.tree.map(leaf, value)
    return str(described).replace("'", "")
