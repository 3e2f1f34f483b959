"""Every byte of a store, read and compared with its checksum."""

from __future__ import annotations

from pathlib import Path

from .._run.members import Chosen
from .format import Manifest, StoreError, read
from .progress import Bar
from .read import Reader

# Damaged files that are named; a disk that fails may have thousands.
_NAMED = 10


def verify(path: Path, manifest: Manifest, progress: bool) -> None:
    """Reads all chunks, one leaf after the other, from the disk.

    Files that no leaf has are left alone: they are never read.

    Raises:
        StoreError: some are damaged; it names them, and the leaf and the members that are in each.
    """
    if read(path) != manifest:
        raise StoreError(f"{str(path)!r} was replaced by another store since it was opened")
    # Nothing that was read before: it might not be what is there.
    reader = Reader(path, manifest, kept=0)
    wrong: dict[str, None] = {}
    member_bytes = sum([leaf.member_bytes for leaf in manifest.leaves])
    with Bar(progress, "verifying", manifest.size, member_bytes) as bar:
        bar.begin()
        for start in range(0, manifest.size, manifest.chunk):
            members = Chosen(min(manifest.chunk, manifest.size - start), start)
            for place in range(len(manifest.leaves)):
                try:
                    reader.begin([place], members)()
                except StoreError as error:
                    wrong[str(error)] = None
            bar.advance(members.count)
    if wrong:
        named = [f"... and {len(wrong) - _NAMED} more"] if len(wrong) > _NAMED else []
        raise StoreError("\n".join([*list(wrong)[:_NAMED], *named]))
