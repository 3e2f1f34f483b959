"""Shows what is in a folder that `seedbed init` or `make.save` made: its members and leaves, what
they were made from, and how the values of a sample of members are distributed."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .._store import format as formats
from . import OK, USAGE, WRONG, _stores, _text

_SAMPLE = 64  # members in the table
_DRAWN = 256  # members in the picture
_DIGEST = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{20,}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder, finished or not")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE.png",
        help="also draw, for each leaf, the distributions of values and of members' norms",
    )
    parser.add_argument("--leaf", metavar="PATH", help="only this leaf, as in layers.0.w")


def run(args: argparse.Namespace) -> int:
    try:
        store = _stores.opened(args.folder)
        places = _places(store, args.leaf)
        if args.plot is not None:
            _plottable(args.plot, store)
        _show(store, places)
        if args.plot is not None:
            _plot(args.plot, store, places)
    except _Wrong as error:
        return _failed(error, USAGE)
    except (formats.StoreError, OSError, ImportError) as error:
        return _failed(error, WRONG)
    return OK


class _Wrong(Exception):
    """An option that does not fit the store."""


def _failed(error: object, code: int) -> int:
    print(f"seedbed show: {error}", file=sys.stderr)
    return code


def _places(store: _stores.Store, path: str | None) -> list[int]:
    """The leaves that are asked for, by number."""
    leaves, names = store.manifest.leaves, store.names
    if path is None:
        return list(range(len(leaves)))
    found = [i for i, leaf in enumerate(leaves) if path in (leaf.path, leaf.name, names[i])]
    if not found:
        near = difflib.get_close_matches(path, names, 3) or list(names[:5])
        raise _Wrong(f"--leaf: there is no leaf {path!r}; there are {', '.join(near)}")
    return found


def _plottable(file: Path, store: _stores.Store) -> None:
    """Whether a picture can be drawn, asked before anything is read."""
    if file.suffix.lower() != ".png":
        raise _Wrong(f"--plot: {str(file)!r} does not end in .png")
    if not file.resolve().parent.is_dir():
        raise _Wrong(f"--plot: no folder {file.resolve().parent}")
    if not store.whole:
        raise _Wrong(f"--plot: {store.folder} is not finished")
    try:
        from . import _leaves  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"--plot needs matplotlib, which cannot be imported ({error}): pip install matplotlib"
        ) from error


def _show(store: _stores.Store, places: list[int]) -> None:
    manifest = store.manifest
    size, files = store.on_disk()
    member = manifest.bytes // manifest.size
    print(f"{store.folder}: {manifest.size:,} members, {_text.size(manifest.bytes)}\n")
    state = "whole"
    if not store.whole:
        share = store.members / manifest.size
        state = (
            f"UNFINISHED: {store.members:,} members ({share:.0%}) are there; the command or the\n"
        )
        state += "call of `save` that began it goes on where it ended"
    lines = [
        ("state", state),
        ("member", f"{_text.count(manifest.leaves, 'array')}, {_text.size(member)}"),
        ("stored", f"in {manifest.chunks:,} chunks of {manifest.chunk:,} members"),
        ("read", f"{manifest.inner:,} members at a time, {_text.size(manifest.inner * member)}"),
        ("on disk", f"{_text.size(size)} in {files:,} files"),
    ]
    print(_text.fields(lines))
    origin = [(name, _DIGEST.sub(r"\1...", told)) for name, told in manifest.made_from.items()]
    print("\nmade from\n" + _text.fields(origin))
    print("\n" + _text.table(_table(store, places)))
    if store.whole:
        members = min(_SAMPLE, manifest.size)
        print(
            f"\n  mean to max: of {members:,} members, evenly from the whole; of large leaves fewer"
        )


def _table(store: _stores.Store, places: list[int]) -> list[list[str]]:
    leaves, names = store.manifest.leaves, store.names
    statistics = ["mean", "std", "min", "max"] if store.whole else []
    rows = [["leaf", "shape", "dtype", "a member", *statistics]]
    found = dict(store.samples(places, _SAMPLE)) if store.whole else {}
    for place in places:
        leaf = leaves[place]
        shape, dtype = leaf.shape, leaf.dtype
        if leaf.impl is not None:
            shape, dtype = shape[:-1], f"key<{leaf.impl}>"
        row = [names[place], str(shape), dtype, _text.size(leaf.member_bytes)]
        if store.whole:
            row += _statistics(_stores.numbers(leaf, found[place]))
        rows.append(row)
    return rows


def _statistics(values: Any) -> list[str]:
    if values is None:
        return [""] * 4
    finite = values[np.isfinite(values)]
    if not finite.size:
        return ["", "", "", "none finite"]
    found = finite.mean(), finite.std(), finite.min(), finite.max()
    cells = [f"{value:.4g}" for value in found]
    if finite.size < values.size:
        cells[-1] += f", {values.size - finite.size:,} not finite"
    return cells


def _plot(file: Path, store: _stores.Store, places: list[int]) -> None:
    from . import _leaves

    leaves, names = store.manifest.leaves, store.names
    drawable = [
        place for place in places if leaves[place].impl is None and leaves[place].member_bytes
    ]
    if not drawable:
        raise _Wrong("--plot: there are no leaves of numbers")
    shown = drawable[: _leaves.MOST]
    cards = [
        _leaves.Card(names[place], leaves[place].dtype, leaves[place].shape, values)
        for place, sample in store.samples(shown, _DRAWN)
        if (values := _stores.numbers(leaves[place], sample)) is not None
    ]
    manifest = store.manifest
    title = f"{manifest.size:,} members of {_init_name(manifest)}"
    about = f"{store.folder.name}: {_text.count(leaves, 'array')}, {_text.size(manifest.bytes)}"
    _leaves.draw(file, title, about, cards, len(drawable) - len(shown))
    print(f"picture: {file}")


def _init_name(manifest: formats.Manifest) -> str:
    origin = manifest.made_from
    return (origin.get("init") or f"values {origin.get('values', '')}").split(",")[0]
