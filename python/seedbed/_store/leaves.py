"""Leaves of a store as jax has them: keys typed, and numbers as wide as they were saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .format import Leaf, StoreError


def exact(leaf: Leaf) -> None:
    """That jax will not make other numbers of a leaf's."""
    config: Any = jax.config
    wide = np.dtype(jnp.dtype(leaf.dtype)) in (np.int64, np.uint64, np.float64, np.complex128)
    if wide and not config.jax_enable_x64:
        raise ValueError(
            f"the leaf {leaf.path} is saved as {leaf.dtype}, and jax would make 32 bits of it: set "
            "jax_enable_x64, as when it was made, or read other leaves alone, by `leaf`"
        )


def known(store: Path, leaf: Leaf) -> None:
    """That jax knows the keys of a leaf, if it holds some."""
    try:
        type_of(leaf)
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"{str(store)!r} holds keys of {leaf.impl!r} in the leaf {leaf.path}, which jax does "
            f"not know here: {error}"
        ) from None


def as_key(leaf: Leaf, words: Any) -> Any:
    """An array of a leaf, as keys if it holds such."""
    if leaf.impl is None:
        return words
    return jax.random.wrap_key_data(words, impl=leaf.impl)


def type_of(leaf: Leaf) -> jax.ShapeDtypeStruct:
    """Of one member."""
    of: Any = jax.ShapeDtypeStruct
    stored: jax.ShapeDtypeStruct = of(leaf.shape, jnp.dtype(leaf.dtype))
    if leaf.impl is not None:
        stored = jax.eval_shape(lambda words: as_key(leaf, words), stored)
    return stored
