"""The arrays of a store, as TensorStore is told of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .format import Leaf, Manifest

_BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
_CHECKSUM = {"name": "crc32c"}


def metadata(manifest: Manifest, leaf: Leaf) -> dict[str, Any]:
    """The zarr metadata of a leaf."""
    # A side without length has pieces of length 1, of which there are none.
    rest = [max(side, 1) for side in leaf.shape]
    # Numbers of one byte have no order of bytes.
    words = {"name": "bytes"} if leaf.dtype == "bool" else _BYTES
    pieces = {
        "chunk_shape": [manifest.inner, *rest],
        "codecs": [words, _CHECKSUM],
        "index_codecs": [_BYTES, _CHECKSUM],
        "index_location": "end",
    }
    return {
        "shape": [manifest.size, *leaf.shape],
        "data_type": leaf.dtype,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [manifest.chunk, *rest]},
        },
        # One folder for each leaf, not one for each chunk: as many have to be synchronised.
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
        "codecs": [{"name": "sharding_indexed", "configuration": pieces}],
    }


def spec(folder: Path, manifest: Manifest, leaf: Leaf) -> dict[str, Any]:
    """How TensorStore opens a leaf to write it."""
    return {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(folder / leaf.name)},
        "metadata": metadata(manifest, leaf),
        # Else chunks of nothing but zeros would be no files, and look as if they were missing.
        "store_data_equal_to_fill_value": True,
    }


def storable(tensorstore: Any, manifest: Manifest) -> None:
    """Whether TensorStore has a type for each leaf.

    Raises:
        TypeError: it has none for one.
    """
    checked: dict[str, str] = {}
    for leaf in manifest.leaves:
        checked.setdefault(leaf.dtype, leaf.path)
    for dtype, path in checked.items():
        leaf = Leaf(path, "x", (), dtype)
        told = {
            **spec(Path(), manifest, leaf),
            "kvstore": {"driver": "memory"},
            "create": True,
        }
        try:
            tensorstore.open(told).result()
        except ValueError as error:
            raise TypeError(
                f"leaf {path} is of dtype {dtype}, which zarr arrays cannot have (TensorStore "
                f"says: {str(error)[:200]}); convert it in `init`"
            ) from None
