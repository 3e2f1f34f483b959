"""Members of a store as arrays of NumPy: any of them, checked, and nothing else of it."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._run.members import Chosen
from . import arrays
from .extra import library
from .format import Leaf, Manifest, StoreError

# What is kept of what was read, in bytes: the places of pieces in their files, mostly.
_KEPT = 16 << 20
# Where jax lets arrays begin.
_ALIGNED = 64


class Reader:
    """The arrays of a store, each opened when it is first read.

    Attributes:
        path: of the store.
        manifest: of it.
    """

    def __init__(self, path: Path, manifest: Manifest, kept: int = _KEPT) -> None:
        self.path = path
        self.manifest = manifest
        self._tensorstore = library("tensorstore", "ensembles on disk are read")
        self._context = self._tensorstore.Context({"cache_pool": {"total_bytes_limit": kept}})
        self._opened: dict[int, Any] = {}
        self._opening = threading.Lock()

    def begin(
        self, places: Sequence[int], chosen: Chosen
    ) -> Callable[[], list[np.ndarray[Any, Any]]]:
        """Begins to read members of these leaves; what it returns waits for them.

        Raises:
            StoreError: now or then; they are damaged, or not there.
        """
        chunk = self.manifest.chunk
        if isinstance(chosen.start, int):
            stop = chosen.start + chosen.count
            members: Any = slice(chosen.start, stop)
            chunks: Iterable[int] = range(chosen.start // chunk, -(-stop // chunk))
        else:
            members = chosen.listed
            chunks = np.unique(members // chunk).tolist()
        for number in chunks:
            for place in places:
                self._there(self.manifest.leaves[place], number)
        reading = [self._begin(array[members]) for array in self._open(places)]
        return lambda: [
            self._done(place, chosen, *begun) for place, begun in zip(places, reading, strict=True)
        ]

    def part(self, place: int, index: tuple[slice, ...]) -> np.ndarray[Any, Any]:
        """Part of a leaf, members first."""
        leaf, chunk, members = self.manifest.leaves[place], self.manifest.chunk, index[0]
        for number in range(members.start // chunk, -(-members.stop // chunk)):
            self._there(leaf, number)
        (array,) = self._open([place])
        chosen = Chosen(members.stop - members.start, members.start)
        return self._done(place, chosen, *self._begin(array[index]))

    def _begin(self, stored: Any) -> tuple[np.ndarray[Any, Any], Any]:
        """Memory for an array, and the future that fills it."""
        read = _aligned(stored.shape, stored.dtype.numpy_dtype)
        return read, self._tensorstore.array(read, context=self._context).write(stored)

    def _there(self, leaf: Leaf, chunk: int) -> None:
        """That a file has the length that it must have, before memory is taken for what it holds:
        one that is not there would be read as zeros by others."""
        if not leaf.member_bytes:
            return
        name = leaf.file(chunk)
        try:
            length = os.stat(self.path / name).st_size
        except FileNotFoundError:
            raise self._damaged(leaf, chunk, "is missing") from None
        except OSError as error:
            raise self._damaged(leaf, chunk, f"cannot be read: {error.strerror}") from None
        expected = self.manifest.file_bytes(leaf, chunk)
        if length != expected:
            raise self._damaged(leaf, chunk, f"is of {length:,} bytes instead of {expected:,}")

    def _damaged(self, leaf: Leaf, chunk: int, how: str) -> StoreError:
        first = chunk * self.manifest.chunk
        last = min(first + self.manifest.chunk, self.manifest.size) - 1
        return StoreError(
            f"{str(self.path)!r} is damaged: the file {leaf.file(chunk)}, of the members {first} "
            f"to {last} of the leaf {leaf.path}, {how}"
        )

    def _open(self, places: Sequence[int]) -> list[Any]:
        missing = [place for place in places if place not in self._opened]
        if missing:
            with self._opening:
                opening = [(place, self._array(self.manifest.leaves[place])) for place in missing]
                for place, future in opening:
                    try:
                        self._opened[place] = future.result()
                    except _WRONG as error:
                        raise self._unlike(self.manifest.leaves[place], error) from None
        return [self._opened[place] for place in places]

    def _array(self, leaf: Leaf) -> Any:
        inside = (self.path / leaf.name).resolve()
        if not inside.is_relative_to(self.path.resolve()):
            raise StoreError(
                f"{str(self.path)!r} is no store: the folder {leaf.name} of the leaf {leaf.path} "
                f"is a link to {str(inside)!r}, outside of it"
            )
        spec = arrays.spec(self.path, self.manifest, leaf)
        try:
            return self._tensorstore.open(
                {**spec, "fill_missing_data_reads": False},
                open=True,
                read=True,
                context=self._context,
            )
        except _WRONG as error:
            raise self._unlike(leaf, error) from None

    def _unlike(self, leaf: Leaf, error: Exception) -> StoreError:
        return StoreError(
            f"{str(self.path)!r} is damaged: {leaf.name}/zarr.json is missing, damaged, or not of "
            f"the array that the manifest says the leaf {leaf.path} is: {_said(error)}"
        )

    def _done(
        self, place: int, chosen: Chosen, read: np.ndarray[Any, Any], future: Any
    ) -> np.ndarray[Any, Any]:
        try:
            future.result()
            return read
        except _WRONG as error:
            numbers = chosen.indices()
            raise StoreError(
                f"{str(self.path)!r} is damaged, in the leaf {self.manifest.leaves[place].path} "
                f"among the members {numbers.min()} to {numbers.max()}: {_said(error)}"
            ) from None


def _aligned(shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
    """Memory that jax takes over as it is on the CPU, and of which NumPy asks for large pages."""
    length = math.prod(shape) * dtype.itemsize
    memory = np.empty(length + _ALIGNED, np.uint8)
    first = -memory.ctypes.data % _ALIGNED
    array: np.ndarray[Any, Any] = memory[first : first + length].view(dtype).reshape(shape)
    return array


# What TensorStore raises for what is wrong on disk.
_WRONG = (ValueError, OSError, RuntimeError, LookupError, NotImplementedError)


def _said(error: Exception) -> str:
    """What TensorStore says of an error, without all that it was told."""
    return str(error).split(" [tensorstore_spec=")[0].split(" [source locations=")[0]
