"""`load`: an ensemble on disk, of which what is asked for is read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .._jax import paths
from .._run.members import Chosen, indexed, size
from . import format as _format
from .format import Leaf
from .leaves import as_key, exact, known, type_of
from .read import Reader

# What is read at once where members are wanted one by one, in bytes.
_AT_ONCE = 16 << 20
# Leaves that `repr` shows.
_SHOWN = 16


class _Members:
    """Members of some leaves of a store, as a pytree of these."""

    def __init__(self, reader: Reader, leaves: Sequence[int], tree: Any) -> None:
        self._reader = reader
        self._leaves = list(leaves)
        self._tree = tree

    @property
    def size(self) -> int:
        """The number of members."""
        return self._reader.manifest.size

    @property
    def nbytes(self) -> int:
        """What all members take, in bytes."""
        return self.size * self._member_bytes

    @property
    def _stored(self) -> list[Leaf]:
        return [self._reader.manifest.leaves[place] for place in self._leaves]

    @property
    def _member_bytes(self) -> int:
        return sum([leaf.member_bytes for leaf in self._stored])

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        """Members, on jax's default device.

        Args:
            index: of one member, negative counts from the end: it comes without a dimension for
                members. Or a slice, a list or a one-dimensional array of integers: these
                members, stacked, in this order.

        Raises:
            TypeError: ``index`` is none of these, or is traced.
            IndexError: there is no such member.
            StoreError: what is on disk of them is damaged.
            ValueError: a leaf is of 64 bits, which jax was not told to compute with.
        """
        if isinstance(index, jax.core.Tracer):
            raise TypeError(
                f"members cannot be read from disk inside of a traced function; got {index!r}"
            )
        chosen, single = indexed(index, self.size)
        read = self._begin(chosen)()
        return self._result([array[0] for array in read] if single else read)

    def __iter__(self) -> Iterator[Any]:
        """Members one by one, read in pieces of 16 MB."""
        inner = self._reader.manifest.inner
        pieces = max(1, _AT_ONCE // max(1, inner * self._member_bytes))
        for count, read in self._pieces(min(pieces * inner, self._reader.manifest.chunk)):
            for member in range(count):
                # Copies, so that a member that is kept does not keep its piece.
                yield self._result([array[member].copy() for array in read])

    def chunks(self, chunk_size: Any = None) -> Iterator[Any]:
        """All members in order, in pieces of at most ``chunk_size``: by default as they were saved.

        While one piece is worked with, the next one is read.
        """
        # Checked here, not when the first piece is asked for.
        as_saved = self._reader.manifest.chunk
        chunk = as_saved if chunk_size is None else size(chunk_size, "chunk_size")
        return (self._result(read) for _, read in self._pieces(chunk))

    def _pieces(self, chunk: int) -> Iterator[tuple[int, list[np.ndarray[Any, Any]]]]:
        """How many members, and these; the next ones are being read by then."""
        following = self._begin(Chosen(min(chunk, self.size), 0))
        for start in range(0, self.size, chunk):
            read = following()
            stop = min(start + chunk, self.size)
            if stop < self.size:
                following = self._begin(Chosen(min(chunk, self.size - stop), stop))
            yield stop - start, read

    def to(self, sharding: Any) -> Any:
        """All members, on devices: each reads its own part.

        Args:
            sharding: a `jax.sharding.Sharding`, or a `PartitionSpec` of the mesh that is set, or a
                pytree of these and None (whole on every device) that is a prefix of the
                result's structure. Dimension 0 is that of the members.

        Returns:
            The pytree, with arrays laid out so. On this machine there is no more of it at a
            time than one device's part of one leaf.

        Raises:
            TypeError: ``sharding`` does not consist of shardings.
            ValueError: it is not like the result, or a leaf cannot be laid out as it says.
            StoreError: what is on disk is damaged.
        """
        from . import placed

        laid = placed.placed(self._reader, self._leaves, self._tree, sharding)
        return jax.tree_util.tree_unflatten(self._tree, laid)

    def _begin(self, chosen: Chosen) -> Any:
        for leaf in self._stored:
            exact(leaf)
        return self._reader.begin(self._leaves, chosen)

    def _result(self, read: list[np.ndarray[Any, Any]]) -> Any:
        put = jax.device_put(read)
        leaves = [as_key(*one) for one in zip(self._stored, put, strict=True)]
        return jax.tree_util.tree_unflatten(self._tree, leaves)


class Saved(_Members):
    """An ensemble on disk. Made by `load`, and by the method ``save`` of ensembles.

    ``saved[i]``, ``saved[a:b]`` and ``saved[[...]]`` read members, ``saved.leaf(path)`` is one leaf
    of all of them, and ``saved.to(sharding)`` the whole. Opening it reads no member. It pickles, by
    its path, and threads may share it.

    Attributes:
        path: of the store, absolute.
    """

    def __init__(self, path: Path, like: Any = None) -> None:
        manifest = _format.read(path)
        numbers = list(range(len(manifest.leaves)))
        plain = _format.rebuilt(manifest.tree, numbers)
        order, tree = jax.tree_util.tree_flatten(plain)
        words = dict(zip(order, [word for _, word in paths.names(plain)], strict=True))
        for leaf in manifest.leaves:
            known(path, leaf)
        self._names = [(leaf.path, words[number]) for number, leaf in enumerate(manifest.leaves)]
        self._like = None
        if like is not None:
            tree, order = _like(like, self._names), numbers
            self._like = jax.tree_util.tree_unflatten(tree, numbers)
        super().__init__(Reader(path, manifest), order, tree)
        self.path = path

    @property
    def paths(self) -> tuple[str, ...]:
        """The leaves, by the names that `leaf` takes."""
        return tuple([self._names[place][1] for place in self._leaves])

    @property
    def shapes(self) -> Any:
        """One member, as a pytree of `jax.ShapeDtypeStruct`."""
        shapes = [type_of(leaf) for leaf in self._stored]
        return jax.tree_util.tree_unflatten(self._tree, shapes)

    @property
    def made_from(self) -> dict[str, str]:
        """What decided the numbers, by name: the key, the function, the releases, ..."""
        return dict(self._reader.manifest.made_from)

    def leaf(self, path: str) -> SavedLeaf:
        """One leaf of all members, which is indexed as this is.

        Args:
            path: as in `paths`, or as `jax.tree_util.keystr` writes it.

        Raises:
            KeyError: there is no such leaf.
        """
        return SavedLeaf(self, paths.find(path, self._names))

    def verify(self, progress: bool = True) -> None:
        """Reads every byte, and compares it with its checksum.

        Args:
            progress: whether a terminal shows how far it is.

        Raises:
            StoreError: something is damaged or missing; it names the files, and the leaf and the
                members that are in each.
        """
        from .verify import verify

        verify(self.path, self._reader.manifest, progress)

    def __reduce__(self) -> Any:
        return Saved, (self.path, self._like)

    def __repr__(self) -> str:
        lines = [
            f"Saved({str(self.path)!r}: {self.size:,} members of {_bytes(self._member_bytes)}, "
            f"{_bytes(self.nbytes)})"
        ]
        stored = self._stored
        width = max([len(word) for word in self.paths[:_SHOWN]], default=0)
        for word, leaf in zip(self.paths[:_SHOWN], stored, strict=False):
            kind = type_of(leaf)
            lines.append(f"  {word:<{width}}  {kind.dtype} {kind.shape}")
        if len(stored) > _SHOWN:
            lines.append(f"  ... and {len(stored) - _SHOWN} more")
        return "\n".join(lines)


class SavedLeaf(_Members):
    """One leaf of an ensemble on disk, indexed as `Saved`. Made by `Saved.leaf`.

    Attributes:
        path: its name, as one word.
    """

    def __init__(self, saved: Saved, place: int) -> None:
        super().__init__(saved._reader, [place], jax.tree_util.tree_structure(0))
        self._saved = saved
        self.path = saved.paths[place]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all members: their number comes first."""
        return (self.size, *type_of(self._stored[0]).shape)

    @property
    def dtype(self) -> Any:
        return type_of(self._stored[0]).dtype

    def __reduce__(self) -> Any:
        return SavedLeaf, (self._saved, self._leaves[0])

    def __repr__(self) -> str:
        return f"SavedLeaf({self.path}, {self.dtype}{list(self.shape)}, {_bytes(self.nbytes)})"


def _bytes(count: int) -> str:
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} bytes"


# --- opening ----------------------------------------------------------------------------


def load(path: str | os.PathLike[str], like: Any = None) -> Saved:
    """Opens an ensemble that was saved. No member is read before it is asked for.

    Args:
        path: of the store, a folder.
        like: a pytree of the result's structure, with anything as its leaves, for results with
            other containers than dicts, lists and tuples, which come back as dicts otherwise.

    Raises:
        TypeError: ``path`` is no path.
        FileNotFoundError: there is nothing.
        StoreError: it is no such store, or an unfinished, damaged or newer one.
        ValueError: ``like`` is of another structure.
        ImportError: TensorStore is not installed, which ``seedbed[save]`` brings.

    Example:
        >>> import jax, os, seedbed as sb, tempfile
        >>> def init(key):
        ...     w, b = jax.random.split(key)
        ...     return {"w": jax.random.normal(w, (3, 2)), "b": jax.random.uniform(b, (2,))}
        >>> path = os.path.join(tempfile.mkdtemp(), "run")
        >>> _ = sb.ensemble(init, 1000).save(path, jax.random.key(0), progress=False)
        >>> saved = sb.load(path)
        >>> saved[17]["w"].shape
        (3, 2)
        >>> saved[::100]["b"].shape
        (10, 2)
        >>> saved.leaf("w")[[5, -1]].shape
        (2, 3, 2)
        >>> sum(len(chunk["b"]) for chunk in saved.chunks(300))
        1000
        >>> saved.verify(progress=False)
        >>> everything = saved.to(jax.sharding.SingleDeviceSharding(jax.devices()[0]))
        >>> everything["w"].shape
        (1000, 3, 2)
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(
            f"`path` must be a path of a folder (str or os.PathLike); got {path!r} of type "
            f"{type(path).__name__}"
        )
    store = Path(os.path.abspath(os.fsdecode(path)))
    if store.name.endswith(_format.PARTIAL):
        raise _format.unfinished(store.with_name(store.name.removesuffix(_format.PARTIAL)))
    return Saved(store, like)


def _like(like: Any, saved: Sequence[tuple[str, str]]) -> Any:
    """The structure of ``like``, if its leaves are those that were saved."""
    names = paths.names(like)
    for number, (got, wanted) in enumerate(zip(names, saved, strict=False)):
        if got[0] != wanted[0] and got[1] != wanted[1]:
            raise ValueError(
                f"`like` is not of the structure that was saved: its leaf {number} is {got[0]}, "
                f"where {wanted[0]} was saved"
            )
    if len(names) != len(saved):
        longer, has = (names, "has") if len(names) > len(saved) else (saved, "lacks")
        first = longer[min(len(names), len(saved))][0]
        raise ValueError(
            f"`like` is not of the structure that was saved: it {has} {first}, with {len(names)} "
            f"leaves instead of {len(saved)}"
        )
    return jax.tree_util.tree_structure(like)
