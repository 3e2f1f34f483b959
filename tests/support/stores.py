"""Small stores, written as `_store/format.py` says that they look."""

from __future__ import annotations

import jax
import numpy as np
import tensorstore

from seedbed._jax import paths
from seedbed._store import arrays
from seedbed._store import format as _format


def write(folder, result, *, chunk, inner, made_from=None):
    """Writes a pytree with a leading dimension of members; its manifest."""
    leaves, stored = [], []
    for (long, word), leaf in zip(paths.names(result), jax.tree.leaves(result), strict=True):
        impl = None
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            impl, leaf = str(jax.random.key_impl(leaf)), jax.random.key_data(leaf)
        values = np.asarray(leaf)
        leaves.append(_format.Leaf(long, word, values.shape[1:], values.dtype.name, impl))
        stored.append(values)
    size = len(stored[0])
    tree = _format.described(result)
    manifest = _format.Manifest(size, chunk, inner, tree, tuple(leaves), made_from or {})
    folder.mkdir()
    for leaf, values in zip(leaves, stored, strict=True):
        spec = arrays.spec(folder, manifest, leaf)
        tensorstore.open(spec, create=True).result()[...].write(values).result()
    (folder / _format.NAME).write_text(manifest.text(), encoding="utf-8")
    return manifest
