"""Nothing at `path` until all of it is there: where a store grows, and how it gets its name.

    PATH.partial            what is being made, by one or several processes; the manifest is in it
                            from the start, and a chunk is made when its files are there
    .PATH.seedbed-new-...   a `PATH.partial` that is being begun
    .PATH.seedbed-old       what `overwrite` replaces, from when the new one is whole until it has
                            the name

Each step is one rename, so that a process may be killed between any two of them, and the next call
goes on from there. Processes of one machine take turns at the steps, by a lock on the folder around
`PATH`, and those that write hold one on `PATH.partial` together, so that it gets its name when all
are done. Locks are gone with their holders; without any the renames alone still lose nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from .format import NAME, PARTIAL, Manifest, StoreError, read

# What folders say that need not, or cannot, be synchronised.
_NOTHING_TO_SYNCHRONISE = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES)


class Place:
    """Where a store is to be, and what is around it."""

    def __init__(self, path: Path, manifest: Manifest, overwrite: bool) -> None:
        self.path = path
        self.manifest = manifest
        self.overwrite = overwrite
        self.partial = path.with_name(path.name + PARTIAL)
        self.old = path.with_name(f".{path.name}.seedbed-old")

    def begin(self, make: Callable[[Path], None]) -> bool:
        """Sees to it that ``partial`` is there, or says that all is done.

        Args:
            make: makes a folder with all but the chunks.

        Returns:
            Whether the store is there, whole.

        Raises:
            FileExistsError: something else is at ``path``, or at ``partial``.
            StoreError: ``partial`` was begun by another call, or the store is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(self.path.parent):
            if self._done():
                self._clear()
                return True
            while not self._begun():
                new = self.path.with_name(f".{self.path.name}.seedbed-new-{secrets.token_hex(8)}")
                new.mkdir()
                try:
                    make(new / "store")
                    _synchronise(new / "store", files=True)
                    # Without the lock another process may have begun it meanwhile.
                    with contextlib.suppress(FileExistsError), _occupied_is_there():
                        os.rename(new / "store", self.partial)
                finally:
                    shutil.rmtree(new, ignore_errors=True)
                _synchronise(self.path.parent, deep=False)
        return False

    @contextlib.contextmanager
    def writing(self) -> Iterator[bool]:
        """While files are written; gives whether there are any to write.

        Raises:
            StoreError: see `published`.
        """
        with contextlib.ExitStack() as stack:
            # What is not there was given its name meanwhile, or is gone.
            with contextlib.suppress(FileNotFoundError):
                stack.enter_context(_locked(self.partial, shared=True))
            yield not self.published()

    def publish(self) -> bool:
        """Gives the store its name, if all chunks are there.

        Returns:
            Whether it has it now.

        Raises:
            StoreError: see `published`.
        """
        with _locked(self.path.parent):
            if self._done() or self.published():
                return True
            if self.manifest.missing(self.partial, range(self.manifest.chunks)):
                return False
            with _locked(self.partial):
                for place, _, files in os.walk(self.partial):
                    for name in files:
                        # Of writers that were killed.
                        if name.endswith(".__lock"):
                            Path(place, name).unlink(missing_ok=True)
                _synchronise(self.partial)
                if self.path.exists():
                    os.rename(self.path, self.old)
                os.rename(self.partial, self.path)
            _synchronise(self.path.parent, deep=False)
            self._clear()
            return True

    def published(self) -> bool:
        """Whether another process has given the store its name while this one was making it.

        Raises:
            StoreError: it has not, and what was begun is not there any more.
        """
        if (self.partial / NAME).exists():
            return False
        if self._done():
            return True
        raise StoreError(
            f"{str(self.partial)!r}, where the ensemble is being written, was removed or changed "
            "meanwhile; remove what is left of it and save again"
        )

    def _done(self) -> bool:
        """Whether the store is at ``path``; False also if what is there is to be replaced."""
        if not os.path.lexists(self.path):
            return False
        try:
            there = read(self.path)
        except StoreError as error:
            if (self.path / NAME).exists():
                raise  # damaged, or of a newer seedbed: not ours to delete
            raise FileExistsError(f"{error}; it is left alone, also with overwrite=True") from None
        differs = self.manifest.differs(there)
        if differs and not self.overwrite:
            raise FileExistsError(
                f"`path` {str(self.path)!r} holds another ensemble: {differs}; overwrite=True "
                "replaces it"
            )
        if differs:
            return False
        missing = self.manifest.missing(self.path, range(self.manifest.chunks))
        if missing and not self.overwrite:
            chunk = self.manifest.chunk
            raise StoreError(
                f"`path` {str(self.path)!r} holds this ensemble, damaged: files of the members "
                f"from {missing[0] * chunk} on are not there ({len(missing)} chunks); "
                "overwrite=True makes it anew"
            )
        return not missing

    def _begun(self) -> bool:
        """Whether ``partial`` is there and of this call."""
        if not os.path.lexists(self.partial) or _emptied(self.partial):
            return False
        try:
            differs = self.manifest.differs(read(self.partial))
        except StoreError as error:
            raise FileExistsError(
                f"{str(self.partial)!r}, where `path` would be written, exists and is no save "
                f"that was interrupted ({error}); move it away"
            ) from None
        if differs and not self.overwrite:
            raise StoreError(
                f"{str(self.partial)!r} is of a save that was interrupted and cannot be resumed "
                f"by this call: {differs}; repeat that call, or pass overwrite=True to start anew"
            )
        if differs:
            with _locked(self.partial, wait=False):
                _delete(self.partial)
        return not differs

    def _clear(self) -> None:
        """Removes what is of no use now, or of processes that were killed."""
        if self.old.exists():
            _delete(self.old)
        for new in self.path.parent.glob(f".{_literal(self.path.name)}.seedbed-new-*"):
            shutil.rmtree(new, ignore_errors=True)


def _literal(name: str) -> str:
    """A name as a pattern that means it."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _emptied(folder: Path) -> bool:
    """Removes a folder with nothing in it: what `_delete` leaves that is killed at the very end."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


def _delete(store: Path) -> None:
    """Deletes a store, and the manifest last: until then it can be seen that it is one."""
    if _emptied(store):
        return
    if not (store / NAME).is_file() or store.is_symlink():
        raise FileExistsError(f"{str(store)!r} is no store of seedbed, and in the way; move it")
    for one in store.iterdir():
        if one.is_dir() and not one.is_symlink():
            shutil.rmtree(one)
        elif one.name != NAME:
            one.unlink()
    shutil.rmtree(store)


@contextlib.contextmanager
def _occupied_is_there() -> Iterator[None]:
    """Systems have two errors for a rename onto a folder that is not empty."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        raise FileExistsError(error.errno, error.strerror, error.filename2) from None


@contextlib.contextmanager
def _locked(folder: Path, shared: bool = False, wait: bool = True) -> Iterator[None]:
    """Processes of one machine take turns with a folder, or those that share it are in it together.

    Raises:
        StoreError: not to ``wait``, and another process is in it.
    """
    try:
        import fcntl
    except ImportError:  # pragma: no cover - Windows
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(descriptor, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise StoreError(f"{str(folder)!r} is being written by another process") from None
        except OSError:  # some network file systems have no locks of folders
            pass
        yield
    finally:
        os.close(descriptor)


def _synchronise(folder: Path, files: bool = False, deep: bool = True) -> None:
    """Has the file system write the names in a folder, and in those in it.

    Args:
        files: whether what the files hold, too; TensorStore does it for those that it writes.
        deep: whether those in it.
    """
    for place, below, names in os.walk(folder):
        for name in names if files else ():
            _fsync(Path(place, name))
        _fsync(Path(place))
        if not deep:
            below.clear()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NOTHING_TO_SYNCHRONISE):
            raise
    finally:
        os.close(descriptor)
