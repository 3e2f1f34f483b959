"""Writing: chunks that are made one after the other, each while the one before is being written.

TensorStore writes each file under another name, synchronises it and renames it, so a file that is
there is whole: a chunk with all its files need not be made again. It reads the arrays where they
are and keeps no copy, so two chunks are all the memory that is taken.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import arrays, skeleton
from .extra import library
from .format import Manifest, StoreError
from .progress import Bar
from .publish import Place

# Files that are written at a time: what each waits for, to be synchronised, is one for several.
_FILES = 16
# Threads that add checksums; they are far faster than disks.
_COPIES = 2

# What TensorStore raises for what goes wrong.
_FAILURES = (ValueError, OSError, RuntimeError, LookupError, NotImplementedError)
# An operating system's error, in TensorStore's words.
_OS_ERROR = re.compile(r"os_error_code=.(\d+)")


class Chunk(NamedTuple):
    """Members that were made.

    Attributes:
        data: one array in this process's memory for each leaf, members first.
        spare: what may be given up, when that is written, to make further ones in its memory.
    """

    data: Sequence[Any]
    spare: Any


# ``make(start, count, spare)`` is ``count`` members from ``start`` on.
Make = Callable[[int, int, Any], Chunk]


class _Pending(NamedTuple):
    """A chunk that is being written."""

    number: int
    chunk: Chunk
    writes: list[Any]


def libraries() -> tuple[Any, Any]:
    """Orbax and TensorStore.

    Raises:
        ImportError: one of them is not installed.
    """
    what = "`save` writes ensembles"
    return library("orbax.checkpoint", what), library("tensorstore", what)


def save(
    path: Path,
    manifest: Manifest,
    make: Make,
    part: tuple[int, int],
    overwrite: bool,
    bar: Bar,
) -> bool:
    """Writes a store, or one of several parts of it, or what is missing of it.

    Args:
        path: where; absolute.
        manifest: what it is.
        make: makes members.
        part: number of this part of the chunks, and of how many.
        overwrite: whether another store may be replaced.
        bar: is told what is done.

    Returns:
        Whether all of it is there now; else other parts are missing.

    Raises:
        FileExistsError, StoreError: see `publish.Place`.
        OSError: the disk is full, or cannot be written to for some other reason.
    """
    orbax, tensorstore = libraries()
    arrays.storable(tensorstore, manifest)
    place = Place(path, manifest, overwrite)
    if place.begin(lambda folder: skeleton.made(folder, manifest, orbax, tensorstore)):
        return True
    number, count = part
    chunks = range(number * manifest.chunks // count, (number + 1) * manifest.chunks // count)
    with bar:
        while not place.publish():
            todo = manifest.missing(place.partial, chunks)
            if not todo:
                return False
            bar.begin(_members(manifest, chunks) - _members(manifest, todo))
            with place.writing() as needed:
                if needed:
                    _Writer(place, tensorstore, make, bar).write(todo)
    return True


def _members(manifest: Manifest, chunks: Sequence[int]) -> int:
    return sum(_count(manifest, number) for number in chunks)


def _count(manifest: Manifest, number: int) -> int:
    return min(manifest.chunk, manifest.size - number * manifest.chunk)


class _Writer:
    def __init__(self, place: Place, tensorstore: Any, make: Make, bar: Bar) -> None:
        self.place = place
        self.make = make
        self.bar = bar
        context = tensorstore.Context(
            {
                "cache_pool": {"total_bytes_limit": 0},
                "data_copy_concurrency": {"limit": _COPIES},
                "file_io_concurrency": {"limit": _FILES},
                "file_io_sync": True,
            }
        )
        opened = [
            tensorstore.open(
                {**arrays.spec(place.partial, place.manifest, leaf), "open": True}, context=context
            )
            for leaf in place.manifest.leaves
        ]
        try:
            self.arrays = [one.result() for one in opened]
        except _FAILURES as error:
            raise self.said(error) from error

    def write(self, chunks: Sequence[int]) -> None:
        manifest = self.place.manifest
        # While one is synchronised the next one's bytes are on their way: disks are never idle.
        pending: list[_Pending] = []
        spare: Any = None
        try:
            for number in chunks:
                if self.place.published():
                    return
                start, count = number * manifest.chunk, _count(manifest, number)
                # Not held here as well: what is not given up is to be freed.
                given, spare = (spare if count == manifest.chunk else None), None
                chunk = self.make(start, count, given)
                del given
                pending.append(_Pending(number, chunk, self.begun(chunk, start, count)))
                del chunk
                if len(pending) == 2:
                    spare = self.finish(pending)
            while pending:
                self.finish(pending)
        finally:
            # What failed, failed: chunks that were made before are written all the same.
            for one in pending:
                for write in one.writes:
                    write.exception()

    def begun(self, chunk: Chunk, start: int, count: int) -> list[Any]:
        return [
            array[start : start + count].write(data, can_reference_source_data_indefinitely=True)
            for array, data in zip(self.arrays, chunk.data, strict=True)
            if data.size
        ]

    def finish(self, pending: list[_Pending]) -> Any:
        """Waits until the first chunk is written; what may be given up."""
        first = pending[0]
        try:
            for write in first.writes:
                write.result()
        except _FAILURES as error:
            # Another process makes the same, and was first.
            missing = self.place.manifest.missing(self.place.partial, [first.number])
            if missing and not self.place.published():
                raise self.said(error) from error
        del pending[0]
        self.bar.advance(_count(self.place.manifest, first.number))
        return first.chunk.spare

    def said(self, error: Exception) -> Exception:
        """TensorStore's error as Python's."""
        found = _OS_ERROR.search(str(error))
        where = f"writing {str(self.place.partial)!r}"
        if found is None:
            return StoreError(f"{where} failed: {error}")
        code = int(found[1])
        more = "; the same call goes on from here" if code in (errno.ENOSPC, errno.EDQUOT) else ""
        return OSError(code, f"{os.strerror(code)}, while {where}{more}")
