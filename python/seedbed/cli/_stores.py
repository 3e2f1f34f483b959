"""A store on disk as the commands look at it: how far it is, what it takes, a sample of members."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from .._jax import paths
from .._store import format as formats
from .._store import read

# Members that lie together are read together, so a sample is some runs of neighbours.
_RUNS = 16
# A sample of a leaf takes no more memory than this.
_SAMPLE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Store:
    """A folder, what its manifest says, and how many of its members are there."""

    folder: Path
    manifest: formats.Manifest
    members: int

    @property
    def whole(self) -> bool:
        return self.members == self.manifest.size

    @property
    def names(self) -> tuple[str, ...]:
        """The leaves' paths as short words."""
        places = formats.rebuilt(self.manifest.tree, list(range(len(self.manifest.leaves))))
        return tuple([word for _, word in paths.names(places)])

    def on_disk(self) -> tuple[int, int]:
        """Bytes and number of the files."""
        sizes = [
            os.lstat(os.path.join(folder, name)).st_size
            for folder, _, names in os.walk(self.folder)
            for name in names
        ]
        return sum(sizes), len(sizes)

    def samples(self, places: list[int], most: int) -> Iterator[tuple[int, np.ndarray[Any, Any]]]:
        """For each leaf, by number, some of its members, evenly from the whole: as NumPy arrays."""
        reader = read.Reader(self.folder, self.manifest)
        for place in places:
            leaf = self.manifest.leaves[place]
            count = min(most, max(2, _SAMPLE_BYTES // max(leaf.member_bytes, 1)))
            runs = [
                reader.part(place, (slice(start, stop),))
                for start, stop in _runs(self.manifest.size, count)
            ]
            yield place, np.concatenate(runs)


def _runs(size: int, count: int) -> list[tuple[int, int]]:
    """``count`` members of all as runs of neighbours, the first and the last among them."""
    if count >= size:
        return [(0, size)]
    runs = min(_RUNS, count)
    lengths = [count * (i + 1) // runs - count * i // runs for i in range(runs)]
    starts = [(size - lengths[i]) * i // max(runs - 1, 1) for i in range(runs)]
    return [(start, start + length) for start, length in zip(starts, lengths, strict=True)]


def opened(folder: Path) -> Store:
    """A store, whole or not.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is something else, or damaged.
    """
    folder = Path(os.path.abspath(folder))
    if folder.name.endswith(formats.PARTIAL) and folder.is_dir():
        return _partial(folder)
    if not folder.exists() and (found := unfinished(folder)) is not None:
        return found
    manifest = formats.read(folder)
    return Store(folder, manifest, manifest.size)


def unfinished(folder: Path) -> Store | None:
    """What there is yet of a store that has no folder of its own."""
    partial = folder.with_name(folder.name + formats.PARTIAL)
    if not (partial / formats.NAME).exists():
        return None
    return _partial(partial)


def _partial(folder: Path) -> Store:
    manifest = formats.read(folder)
    missing = manifest.missing(folder, range(manifest.chunks))
    there = manifest.size - sum(
        min(manifest.chunk, manifest.size - number * manifest.chunk) for number in missing
    )
    # All chunks may be there before the folder has its name.
    return Store(folder, manifest, min(there, manifest.size - 1))


def numbers(leaf: formats.Leaf, sample: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """The values of a sample as real numbers, one row for each member; None if they are none.

    Of complex numbers, their absolute values.
    """
    if leaf.impl is not None or not leaf.member_bytes:
        return None
    flat = sample.reshape(len(sample), -1)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        return np.abs(flat)
    return flat.astype(np.float64)
