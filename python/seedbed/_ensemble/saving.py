"""`Ensemble.save`: members made piece by piece, for a store to write, and what decides them."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import _trace
from .._base.record import Record
from .._jax import compat, generators, known, paths
from .._run import native
from .._run.members import Chosen
from .._store import format as formats
from .._store import progress as bars
from .._store import write
from . import check

if TYPE_CHECKING:
    from .._store.saved import Saved
    from .call import Call
    from .ensemble import Ensemble
    from .prepare import Prepared

# Two chunks are in memory at a time. Files of many megabytes are written as fast as larger ones,
# and what a crash costs is one chunk.
_CHUNK_BYTES = 128 << 20
# What is read for one member is a piece: small enough to be read in no time, and large enough that
# its checksum and its place in the index do not count.
_PIECE_BYTES = 2 << 20
# What a store's own files, and what else Orbax or zarr look for in a folder, is named.
_TAKEN = frozenset(
    [formats.NAME, "zarr.json", "commit_success.txt", "_METADATA", "_CHECKPOINT_METADATA"]
    + ["_sharding", "array_metadatas", "manifest.ocdbt"]
)
_NAME_LIMIT = 200


class Order(Record):
    """How a store is to be written, checked; as `Ensemble.save` takes it."""

    folder: Path
    chunk_size: int | None
    progress: bool
    overwrite: bool
    part: tuple[int, int]


def ordered(path: Any, chunk_size: Any, progress: Any, overwrite: Any, part: Any) -> Order:
    """The record of what was asked for.

    Raises:
        TypeError, ValueError: something in it is not what it has to be.
        ImportError: Orbax or TensorStore is not installed.
    """
    write.libraries()
    folder = _path(path)
    check.flag(progress, "progress")
    check.flag(overwrite, "overwrite")
    parts = _part(part)
    if chunk_size is not None:
        check.size(chunk_size, "chunk_size")
    return Order(folder, chunk_size, progress, overwrite, parts)


def save(
    make: Ensemble,
    order: Order,
    key: Any,
    args: tuple[Any, ...],
    shaped: Callable[[Any], Any] = lambda out: out,
    name: str | None = None,
) -> Saved | None:
    """Makes members for a store; see `Ensemble.save`.

    Args:
        shaped: what is stored of a result of the ensemble: its arrays in other containers.
        name: of the init function; its own by default.
    """
    call = make._call(key, args)
    check_outside([*call.keys, *call.leaves])
    if make.out_shardings is not None:
        raise ValueError(
            "`save` makes members on one device, in pieces; this ensemble has "
            f"out_shardings={make.out_shardings!r}. Save one without: its members are the same"
        )
    prepared = make._prepare(call)
    recorded, result = traced(make, call)
    tree = shaped(result)
    name = _name_of(make.init) if name is None else name

    def made_from(chunk: int) -> dict[str, str]:
        return _made_from(name, call, prepared, recorded, chunk, make.size)

    manifest = planned(order, make.size, tree, made_from)
    _in_pieces(prepared, call, manifest.chunk, make.size)
    if prepared.drawing.watched:
        generators.use_up(call.keys)  # as the whole call does

    def made(start: int, count: int, spare: Any) -> write.Chunk:
        whole = count == make.size
        chosen = None if whole else Chosen(count, start, None)
        give_up = None if spare is None else lambda plan, shape: spare
        out = make._run(call.replace(chosen=chosen, give_up=give_up))
        found = jax.tree_util.tree_leaves(shaped(out))
        # Typed keys are what they are made of, in other memory.
        data = [compat.in_memory(compat.key_words(leaf)) for leaf in found]
        return write.Chunk(data, [leaf for leaf in found if not compat.is_key(leaf.dtype)])

    return written(order, manifest, made)


def traced(make: Ensemble, call: Call) -> tuple[_trace.Recorded, Any]:
    """The init function as it was traced, and its result as types."""
    recorded = _trace.record(make.init, *call.member_types())
    return recorded, jax.tree_util.tree_unflatten(recorded.out_tree, recorded.closed.out_avals)


def check_outside(leaves: Any) -> None:
    """That no function is being traced.

    Raises:
        TypeError: there is one.
    """
    if compat.under_trace(leaves) or not compat.at_top():
        raise TypeError(
            "`save` writes files, which a function that is being traced (jax.jit, jax.vmap, "
            "jax.grad, ...) cannot do; call it outside"
        )


def planned(
    order: Order, size: int, tree: Any, made_from: Callable[[int], dict[str, str]]
) -> formats.Manifest:
    """The manifest of a store.

    Args:
        tree: one member, as types.
        made_from: what decides the numbers, given how many members are made together.
    """
    leaves = _leaves(tree)
    chunk, inner = _sizes(order.chunk_size, size, sum(leaf.member_bytes for leaf in leaves))
    described = formats.described(tree)
    origin = {**made_from(chunk), "result": _result(described, leaves)}
    return formats.Manifest(size, chunk, inner, described, leaves, origin)


def written(order: Order, manifest: formats.Manifest, made: write.Make) -> Saved | None:
    """The store, with all that was missing of it, or of this part of it."""
    number, count = order.part
    total = (number + 1) * manifest.chunks // count - number * manifest.chunks // count
    shown = min(manifest.size, total * manifest.chunk)
    bar = bars.Bar(order.progress, "saving", shown, manifest.bytes // manifest.size)
    if not write.save(order.folder, manifest, made, order.part, order.overwrite, bar):
        return None
    from .._store import saved

    return saved.load(order.folder)


# --- what was passed in -----------------------------------------------------------------


def _path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not isinstance(os.fspath(path), str):
        raise TypeError(
            f"`path` must be a str or a path of a folder; got {path!r} of type "
            f"{type(path).__name__}"
        )
    text = os.fspath(path)
    found = Path(os.path.realpath(text.replace("\0", "")))
    if not text or "\0" in text or not found.name:
        raise ValueError(f"`path` must be the path of a new folder; got {text!r}")
    if "://" in text:
        raise ValueError(f"`path` must be on a file system that is mounted; got {text!r}")
    if found.name.endswith(formats.PARTIAL):
        raise ValueError(
            f"`path` must not end in {formats.PARTIAL!r}, as stores that are not whole do; got "
            f"{text!r}"
        )
    return found


def _part(part: Any) -> tuple[int, int]:
    if part is None:
        return 0, 1
    accepted = "`part` must be None or (i, n), the i-th of n parts with 0 <= i < n"
    integers = (int, np.integer)
    if (
        not isinstance(part, (tuple, list))
        or len(part) != 2
        or any(isinstance(one, bool) or not isinstance(one, integers) for one in part)
    ):
        raise TypeError(f"{accepted}; got {part!r} of type {type(part).__name__}")
    number, count = map(operator.index, part)
    if not 0 <= number < count:
        raise ValueError(f"{accepted}; got {part!r}")
    return number, count


def _sizes(given: Any, size: int, member_bytes: int) -> tuple[int, int]:
    """Members in a chunk, and in a piece of one, which divides it."""
    aim = max(1, _PIECE_BYTES // max(member_bytes, 1))
    if given is not None:
        chunk = operator.index(given)
        if chunk > size:
            raise ValueError(f"`chunk_size` must be at most size={size}; got {chunk}")
        return chunk, _divisor(chunk, aim)
    chunk = min(size, max(1, _CHUNK_BYTES // max(member_bytes, 1)))
    inner = _divisor(chunk, aim)
    if inner < chunk and inner < aim // 4:
        # A number with few divisors: a chunk that is a little smaller has better ones.
        inner = min(aim, chunk)
        chunk -= chunk % inner
    return chunk, inner


def _divisor(number: int, aim: int) -> int:
    """The largest divisor up to ``aim``."""
    if aim >= number:
        return number
    small = [one for one in range(1, int(number**0.5) + 1) if number % one == 0]
    return max(one for low in small for one in (low, number // low) if one <= aim)


def _leaves(tree: Any) -> tuple[formats.Leaf, ...]:
    """The leaves of a result as arrays of a store.

    Raises:
        ValueError: there are none, or their names are no names of folders.
    """
    leaves = []
    types = jax.tree_util.tree_leaves(tree)
    for (path, name), aval in zip(paths.names(tree), types, strict=True):
        shape, dtype = tuple(aval.shape), str(aval.dtype)
        impl: str | None = None
        if compat.is_key(aval.dtype):
            generator = compat.key_impl(aval.dtype)
            shape, dtype = (*shape, *generator.key_shape), "uint32"
            impl = str(generator.name)
        if name == paths.WHOLE and name not in path:
            name = ""  # of a key without letters, not of an array alone
        leaves.append(formats.Leaf(path, name, shape, dtype, impl))
    if not leaves:
        raise ValueError("`init` returns no arrays, so there is nothing to save")
    taken: dict[str, str] = {}
    for leaf in leaves:
        _name(leaf)
        if leaf.name in taken:
            one, other = taken[leaf.name], leaf.path
            raise ValueError(f"leaves {one} and {other} would both be named {leaf.name!r}")
        taken[leaf.name] = leaf.path
    for leaf in leaves:
        parts = leaf.name.split("/")
        for end in range(1, len(parts)):
            if (above := "/".join(parts[:end])) in taken:
                raise ValueError(
                    f"leaf {leaf.path} would be in the folder of the leaf {taken[above]}"
                )
    return tuple(leaves)


def _name(leaf: formats.Leaf) -> None:
    parts = leaf.name.split("/")
    try:
        long = max(len(part.encode()) for part in parts) > _NAME_LIMIT
    except UnicodeEncodeError:
        long = True
    wrong = any(part in ("", ".", "..") for part in parts) or parts[0] in _TAKEN
    if long or wrong or "\0" in leaf.name or "\\" in leaf.name:
        raise ValueError(
            f"leaf {leaf.path} would be stored in a folder named {leaf.name[:_NAME_LIMIT]!r}, "
            "which is taken or no name; rename it"
        )


# --- what decides the numbers -----------------------------------------------------------


def _in_pieces(prepared: Prepared, call: Call, chunk: int, size: int) -> None:
    """Whether members of a piece are what they are among all.

    Raises:
        ValueError: they are not.
    """
    if prepared.drawing.alone or chunk == size:
        return
    shown = ", ".join(dict.fromkeys(generators.shown(generators.of(key)) for key in call.keys))
    raise ValueError(
        f"`key` is of {shown}, or `init` uses such keys, whose numbers depend on how many members "
        "are made at once: they cannot be made in pieces. Use threefry2x32 keys, or "
        f"chunk_size={size}, which makes all of them in memory"
    )


def _made_from(
    name: str, call: Call, prepared: Prepared, recorded: Any, chunk: int, size: int
) -> dict[str, str]:
    """All that decides the bytes of a store, by name."""
    from .._trace import digest

    here = known.situation()
    altered = " ".join([*here["flags"], *here["settings"]])
    return {
        "key": key_text(call),
        "size": str(size),
        "chunk_size": str(chunk),
        "init": f"{name}, traced as {digest.digest(recorded.closed)}",
        "args": _args(call),
        "in_axes": str(call.axes),
        "seedbed": native.version(),
        "jax": here["jax"],
        "jaxlib": here["jaxlib"],
        "platform": f"{compat.platform()}, {here['machine']}",
        "compiler": altered or "as it is",
        "backend": "native" if prepared.plan.reference is None else "reference",
        **compat.deciding_settings(),
    }


def key_text(call: Call) -> str:
    """Keys as text: their words, or those of many as a digest."""
    from .._trace import digest

    shown = []
    for path, key in jax.tree_util.tree_leaves_with_path(call.key):
        words = np.asarray(compat.key_words(key))
        kind = generators.of(key).name
        what = words.tolist() if words.ndim == 1 else f"{len(words)}, {digest.of_arrays([words])}"
        shown.append(f"{jax.tree_util.keystr(path)} {kind} {what}".strip())
    return "; ".join(shown)


def _args(call: Call) -> str:
    from .._trace import digest

    names = [path for path, _ in paths.names(call.args)]
    return ", ".join([*names, digest.of_arrays(call.leaves)]) if names else "none"


def _result(tree: Any, leaves: tuple[formats.Leaf, ...]) -> str:
    """The structure of the result as text."""
    from .._trace import digest

    fields = [leaf.fields() for leaf in leaves]
    member_bytes = sum(leaf.member_bytes for leaf in leaves)
    said = digest.of_text(json.dumps([tree, fields]))
    return f"{len(leaves)} arrays, {member_bytes} bytes a member, {said}"


def _name_of(init: Any) -> str:
    return getattr(init, "__qualname__", None) or type(init).__qualname__
