"""How an ensemble is written and read, by name. Whatever is written is on the disk afterwards."""

from __future__ import annotations

import functools
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

LAYERS = (64, 128, 128, 128, 10)
# Bytes of a member of `make`, without importing jax.
MEMBER = 4 * sum(n * m + m for n, m in zip(LAYERS, LAYERS[1:], strict=False))
# What raw writes write at once, as much as a chunk of seedbed's.
_PIECE = 128 << 20
_ROWS = 256


def make(members: int) -> Any:
    """The ensemble that all write."""
    import jax

    import seedbed as sb

    he = jax.nn.initializers.he_normal()

    def init(key: Any) -> Any:
        keys = jax.random.split(key, len(LAYERS) - 1)
        sizes = zip(LAYERS, LAYERS[1:], strict=False)
        return {
            f"layer{i}": {"w": he(key, (n, m)), "b": 0.1 * jax.random.normal(key, (m,))}
            for i, (key, (n, m)) in enumerate(zip(keys, sizes, strict=True))
        }

    return sb.ensemble(init, members)


def key() -> Any:
    import jax

    return jax.random.key(0)


def named(tree: Any) -> dict[str, Any]:
    """The leaves by the names of their folders."""
    import jax

    return {
        ".".join(str(step.key) for step in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


# --- writing ----------------------------------------------------------------------------


def seedbed(folder: Path, members: int) -> None:
    make(members).save(folder, key(), progress=False)


@functools.cache
def buffer() -> mmap.mmap:
    """What raw writes write, at a page, as files without the system's cache want it."""
    found = mmap.mmap(-1, _PIECE)
    random = np.random.default_rng(0)
    for _ in range(_PIECE >> 20):
        found.write(random.bytes(1 << 20))
    return found


def raw(folder: Path, members: int, flags: int = 0) -> None:
    """As many bytes of one buffer into one file, which is then synchronised and renamed."""
    folder.mkdir()
    file = os.open(folder / "partial", os.O_WRONLY | os.O_CREAT | flags, 0o644)
    left = members * MEMBER
    while left > 0:
        piece = min(left + -left % 4096, _PIECE)
        with memoryview(buffer()) as view:
            left -= os.write(file, view[:piece])
    os.fsync(file)
    os.close(file)
    os.rename(folder / "partial", folder / "raw")


def raw_direct(folder: Path, members: int) -> None:
    raw(folder, members, os.O_DIRECT)


def orbax(folder: Path, members: int) -> None:
    import orbax.checkpoint as ocp

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder, make(members)(key()))


def zarr(folder: Path, members: int) -> None:
    import zarr as library

    rows = min(_ROWS, members)
    chunk = min(max(1, _PIECE // MEMBER // rows), -(-members // rows)) * rows
    arrays: dict[str, Any] = {}
    start = 0
    for piece in make(members).stream(key(), chunk_size=min(chunk, members)):
        for name, leaf in named(piece).items():
            values = np.asarray(leaf)
            if name not in arrays:
                arrays[name] = library.create_array(
                    folder / name,
                    shape=(members, *values.shape[1:]),
                    dtype=values.dtype,
                    chunks=(rows, *values.shape[1:]),
                    shards=(chunk, *values.shape[1:]),
                    compressors=None,
                )
            arrays[name][start : start + len(values)] = values
        start += len(values)
    _synchronise(folder)


def npy(folder: Path, members: int) -> None:
    folder.mkdir()
    for name, leaf in named(make(members)(key())).items():
        np.save(folder / f"{name}.npy", np.asarray(leaf))
    _synchronise(folder)


def _synchronise(folder: Path) -> None:
    for path in folder.rglob("*"):
        file = os.open(path, os.O_RDONLY)
        os.fsync(file)
        os.close(file)


# --- reading ----------------------------------------------------------------------------
# Each gives a function of a member's number, and pieces of the whole; names of leaves to arrays.

Members = tuple[Callable[[int], Any], Callable[[], Iterator[dict[str, Any]]]]


def with_seedbed(folder: Path) -> Members:
    import seedbed as sb

    saved = sb.load(folder)
    return saved.__getitem__, lambda: map(named, saved.chunks())


def with_zarr(folder: Path) -> Members:
    import zarr as library

    names = [path.parent.name for path in sorted(folder.glob("*/zarr.json"))]
    arrays = {name: library.open_array(folder / name, mode="r") for name in names}

    def pieces() -> Iterator[dict[str, Any]]:
        (size,) = {array.shape[0] for array in arrays.values()}
        step = next(iter(arrays.values())).shards[0]
        for start in range(0, size, step):
            yield {name: array[start : start + step] for name, array in arrays.items()}

    return lambda i: {name: array[i] for name, array in arrays.items()}, pieces


def with_orbax(folder: Path) -> Members:
    import jax
    import orbax.checkpoint as ocp

    def leaves() -> Iterator[dict[str, Any]]:
        """One after the other: all of them together may not fit into memory."""
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            tree = checkpointer.metadata(folder).item_metadata.tree
            for layer, parts in tree.items():
                for part, told in parts.items():
                    item = {layer: {part: jax.ShapeDtypeStruct(told.shape, told.dtype)}}
                    wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), item)
                    options = ocp.args.PyTreeRestore(
                        item=item, restore_args=wanted, partial_restore=True
                    )
                    yield named(checkpointer.restore(folder, args=options))

    def one(i: int) -> dict[str, Any]:
        return {name: leaf[i] for part in leaves() for name, leaf in part.items()}

    return one, leaves


def with_npy(folder: Path) -> Members:
    arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}
    return (
        lambda i: {name: np.array(array[i]) for name, array in arrays.items()},
        lambda: iter([{name: np.array(array) for name, array in arrays.items()}]),
    )


def digest(pieces: Iterator[dict[str, Any]]) -> str:
    """Of all bytes of all leaves, whatever the pieces."""
    found: dict[str, Any] = {}
    for piece in pieces:
        for name, leaf in piece.items():
            found.setdefault(name, hashlib.blake2b(digest_size=16)).update(
                np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data
            )
    return " ".join(f"{name} {one.hexdigest()}" for name, one in sorted(found.items()))


WRITERS = {
    "seedbed": seedbed,
    "raw": raw,
    "raw_direct": raw_direct,
    "orbax": orbax,
    "zarr": zarr,
    "npy": npy,
}
READERS = {
    "seedbed": with_seedbed,
    "zarr": with_zarr,
    "orbax": with_orbax,
    "npy": with_npy,
}
# What each needs, and what it is.
NEEDS = {
    "seedbed": ("seedbed", "tensorstore", "orbax.checkpoint"),
    "orbax": ("seedbed", "orbax.checkpoint"),
    "zarr": ("seedbed", "zarr"),
    "npy": ("seedbed",),
}
