"""What a store looks like: `seedbed.json`, beside the arrays, as data that is checked when read.

    STORE/seedbed.json                        the manifest; there when all of the rest is
    STORE/_METADATA, _CHECKPOINT_METADATA     what Orbax knows it by
    STORE/layers.0.w/zarr.json, c.0.0.0, ...  one array for each leaf, members first

Each array is of zarr 3, with shards of ``chunk`` members, a file each; in a shard ``inner`` members
are one piece, uncompressed, with its checksum (crc32c). Keys of jax are stored as their words.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from .._base.record import Record
from .._jax import paths

NAME = "seedbed.json"
FORMAT = 1
# What the name of a store ends with until all of it is there.
PARTIAL = ".partial"


class StoreError(ValueError):
    """A store on disk that is not what it has to be: damaged, foreign or of other origin."""


class Leaf(Record):
    """One array of a store.

    Attributes:
        path: as `jax.tree_util.keystr` writes it.
        name: of its folder, the path as one word.
        shape, dtype: of one member, as stored.
        impl: for keys of jax, the name of their implementation; ``shape`` ends with their words.
    """

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: str
    impl: str | None = None

    @property
    def member_bytes(self) -> int:
        """What one member takes."""
        return math.prod(self.shape) * int(jnp.dtype(self.dtype).itemsize)

    def file(self, chunk: int) -> str:
        """Where in the store a chunk of it is. Arrays without elements have no files."""
        return f"{self.name}/{self.file_name(chunk)}"

    def file_name(self, chunk: int) -> str:
        """Its name in the folder of the leaf."""
        return f"c.{chunk}{'.0' * len(self.shape)}"


class Manifest(Record):
    """What a store holds, and of what it was made.

    Attributes:
        size: number of members.
        chunk: members that were made, and are stored, together.
        inner: members that are read together.
        tree: structure of the result, see `described`.
        leaves: in the order of `jax.tree_util.tree_leaves`.
        made_from: what decides the numbers, by name, as text: two stores with equal ones hold the
            same bytes.
    """

    size: int
    chunk: int
    inner: int
    tree: Any
    leaves: tuple[Leaf, ...]
    made_from: dict[str, str]

    @property
    def chunks(self) -> int:
        return -(-self.size // self.chunk)

    @property
    def bytes(self) -> int:
        return self.size * sum([leaf.member_bytes for leaf in self.leaves])

    def missing(self, store: Path, chunks: Sequence[int]) -> list[int]:
        """Those of some chunks of which a file is not there."""
        names = []
        for leaf in self.leaves:
            if leaf.member_bytes:
                try:
                    there = set(os.listdir(store / leaf.name))
                except OSError:
                    there = set()
                names.append((there, leaf))
        return [
            chunk
            for chunk in chunks
            if any(leaf.file_name(chunk) not in there for there, leaf in names)
        ]

    def differs(self, other: Manifest) -> str:
        """What another store is made from that this one is not, in words; empty if nothing."""
        names = dict.fromkeys((*self.made_from, *other.made_from))
        pairs = [(name, self.made_from.get(name), other.made_from.get(name)) for name in names]
        return "; ".join(
            f"{name} was {there or 'not there'}, now is {here or 'not there'}"
            for name, here, there in pairs
            if here != there
        )

    def text(self) -> str:
        """The manifest as JSON."""
        fields = {
            "format": FORMAT,
            "size": self.size,
            "chunk": self.chunk,
            "inner": self.inner,
            "made_from": self.made_from,
            "leaves": [
                {
                    "path": leaf.path,
                    "name": leaf.name,
                    "shape": list(leaf.shape),
                    "dtype": leaf.dtype,
                    "impl": leaf.impl,
                }
                for leaf in self.leaves
            ],
            "tree": self.tree,
        }
        return json.dumps({**fields, "digest": _digest(fields)}, indent=1) + "\n"

    def file_bytes(self, leaf: Leaf, chunk: int) -> int:
        """How long the file of a chunk is: its pieces with their checksums, then the places of all
        that fit in a chunk, two words of 8 bytes each, and the checksum of these."""
        members = min(self.chunk, self.size - chunk * self.chunk)
        pieces = -(-members // self.inner) * (self.inner * leaf.member_bytes + 4)
        return pieces + 16 * (self.chunk // self.inner) + 4


def _digest(fields: dict[str, Any]) -> str:
    """Of all else that a manifest says: a letter that changes in a name changes nothing else."""
    return hashlib.blake2b(json.dumps(fields).encode(), digest_size=16).hexdigest()


# --- the structure of a result ----------------------------------------------------------


def described(tree: Any) -> Any:
    """A pytree's structure as JSON: its dicts, lists, tuples and None, and the places of leaves.

    Containers of other types become ``{"other": type, "children": [[word, ...], ...]}``: without
    the type at hand they are read as dicts.
    """
    places = jax.tree_util.tree_map(lambda _: _Place(), tree)
    for number, place in enumerate(jax.tree_util.tree_leaves(places)):
        place.number = number
    return _described(places)


class _Place:
    number = 0


def _described(node: Any) -> Any:
    if isinstance(node, _Place):
        return node.number
    if node is None:
        return None
    kind = type(node)
    if kind is dict and all(isinstance(key, (str, int)) for key in node):
        return {"dict": [[key, _described(node[key])] for key in sorted(node)]}
    if kind in (list, tuple):
        return {kind.__name__: [_described(child) for child in node]}
    level, _ = jax.tree_util.tree_flatten_with_path(node, is_leaf=lambda one: one is not node)
    name = f"{kind.__module__}.{kind.__qualname__}"
    return {
        "other": name,
        "children": [[paths.short(path), _described(child)] for path, child in level],
    }


def rebuilt(tree: Any, leaves: Sequence[Any] | Mapping[int, Any]) -> Any:
    """The pytree that `described` told of, with these leaves; other containers are dicts."""
    if tree is None:
        return None
    if isinstance(tree, int):
        return leaves[tree]
    if "dict" in tree:
        return {key: rebuilt(child, leaves) for key, child in tree["dict"]}
    if "list" in tree:
        return [rebuilt(child, leaves) for child in tree["list"]]
    if "tuple" in tree:
        return tuple([rebuilt(child, leaves) for child in tree["tuple"]])
    return {word: rebuilt(child, leaves) for word, child in tree["children"]}


# --- reading ----------------------------------------------------------------------------

# What is found where no store is, and what it is.
_OTHERS = {
    "_CHECKPOINT_METADATA": "a checkpoint of Orbax that holds something else",
    "_METADATA": "a checkpoint of Orbax that holds something else",
    "zarr.json": "an array or a group of zarr",
}


def read(store: Path) -> Manifest:
    """The manifest of a store.

    Raises:
        FileNotFoundError: there is nothing at this path.
        StoreError: it is no store of seedbed, or one of a newer version, damaged, or unfinished.
    """
    file = store / NAME
    try:
        text = file.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise _no_store(store) from None
    except UnicodeDecodeError as error:
        raise StoreError(f"{file} is damaged: {error}") from None
    try:
        fields = json.loads(text)
        version = fields["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: {error!r}") from None
    if version != FORMAT:
        raise StoreError(
            f"{str(store)!r} has the format {version!r}, and this seedbed reads format {FORMAT}: "
            "a newer seedbed wrote it, or it is damaged"
        )
    digest = fields.pop("digest", None)
    if digest != _digest(fields):
        raise StoreError(f"{file} is damaged: it is not what its digest {digest!r} is of")
    try:
        return _checked(fields)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: {error!r}") from None


def _no_store(store: Path) -> Exception:
    """Why there is no manifest."""
    partial = store.with_name(store.name + PARTIAL)
    if not store.exists():
        if partial.exists():
            return unfinished(store)
        return FileNotFoundError(f"`path` {str(store)!r} does not exist")
    found = f"it has no {NAME}"
    if not store.is_dir():
        found = "it is a file"
    else:
        known = [what for name, what in _OTHERS.items() if (store / name).exists()]
        found = f"{found}, and is {known[0]}" if known else found
    return StoreError(f"`path` {str(store)!r} is no ensemble that seedbed saved: {found}")


def unfinished(store: Path) -> StoreError:
    """That not all of a store is there yet."""
    return StoreError(
        f"{str(store)!r} is unfinished: it is being written, or that was interrupted, and what is "
        f"there is in {store.name + PARTIAL!r}. The call of `save` that began it goes on where it "
        "ended"
    )


def _checked(fields: dict[str, Any]) -> Manifest:
    size, chunk, inner = (_positive(fields, name) for name in ("size", "chunk", "inner"))
    leaves = []
    for entry in fields["leaves"]:
        leaf = Leaf(
            str(entry["path"]),
            str(entry["name"]),
            tuple([_natural(one) for one in entry["shape"]]),
            str(entry["dtype"]),
            None if entry["impl"] is None else str(entry["impl"]),
        )
        parts = Path(leaf.name).parts
        if Path(leaf.name).is_absolute() or ".." in parts or "\0" in leaf.name or not parts:
            raise ValueError(f"a leaf's folder cannot be {leaf.name!r}")
        jnp.dtype(leaf.dtype)
        leaves.append(leaf)
    if not chunk <= size or not inner <= chunk:
        raise ValueError(f"size {size}, chunk {chunk} and inner {inner} do not fit")
    made_from = {str(name): str(value) for name, value in fields["made_from"].items()}
    manifest = Manifest(size, chunk, inner, fields["tree"], tuple(leaves), made_from)
    numbers = dict(enumerate(range(len(leaves))))
    places = jax.tree_util.tree_leaves(rebuilt(manifest.tree, numbers))
    if sorted(places) != list(range(len(leaves))):
        raise ValueError(f"the structure does not hold each of the {len(leaves)} leaves once")
    return manifest


def _positive(fields: dict[str, Any], name: str) -> int:
    value = fields[name]
    if _natural(value) < 1:
        raise ValueError(f"{name} is {value}")
    return int(value)


def _natural(value: Any) -> int:
    # What is counted in zarr has 63 bits.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 62:
        raise ValueError(f"{value!r} is no size")
    return value
