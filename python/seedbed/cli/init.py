"""Initialises an ensemble that may be larger than memory and writes it to a folder, piece by
piece. Whatever interrupts it, the same command goes on where it ended."""

from __future__ import annotations

import argparse
import operator
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from .._ensemble import ensemble
from .._store import format as formats
from . import INTERRUPTED, OK, WRONG, _stores, _target, _text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _target.add_arguments(parser)
    parser.add_argument("--members", type=_text.positive, required=True, help="how many")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--chunk",
        type=_text.positive,
        metavar="N",
        help="members that are made, and stored, together (default: as many as make 128 MB)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what an earlier command made at DIR"
    )
    parser.add_argument(
        "--part",
        type=_part,
        metavar="I/N",
        help="make the I-th of N parts, counted from 0, while other processes make the others",
    )
    parser.add_argument("--no-progress", action="store_true", help="show no bar")


def run(args: argparse.Namespace) -> int:
    try:
        return _target.guarded("init", args.target, lambda: _run(args))
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from here", file=sys.stderr)
        return INTERRUPTED


def _run(args: argparse.Namespace) -> int:
    init, given = _target.resolve(args.target, _target.arguments(args.args))
    key = _target.key(args.seed)
    make = ensemble.ensemble(init, args.members)
    plan = _target.checked(lambda: make.plan(key, *given))
    store = args.out.resolve()
    total = args.members * plan.member_bytes
    part = "" if args.part is None else f", part {args.part[0]} of {args.part[1]}"
    before, begun = _begun(store, args)
    print(f"{args.members:,} members of {args.target}, seed {args.seed}{part}")
    made_by = "native kernels, and XLA" if plan.reference is None else f"jax: {plan.reference}"
    lines = [
        ("leaves", f"{_text.count(plan.outputs, 'array')}, of {_shown(plan.outputs)}"),
        ("size", f"{_text.size(plan.member_bytes)} each, {_text.size(total)} in all"),
        ("made by", made_by),
        ("into", f"{store}, where {_text.size(_free(store))} are free"),
        *begun,
    ]
    print(_text.fields(lines), flush=True)
    started = time.perf_counter()
    options = {
        "chunk_size": args.chunk,
        "progress": not args.no_progress,
        "overwrite": args.overwrite,
        "part": args.part,
    }
    try:
        saved = _target.checked(lambda: make.save(store, key, *given, **options))
    except (formats.StoreError, OSError, ImportError, MemoryError) as error:
        said = str(error).replace("overwrite=True", "--overwrite")
        print(f"seedbed init: {said}", file=sys.stderr)
        return WRONG
    _finished(saved, before, args, time.perf_counter() - started)
    return OK


def _shown(outputs: Any) -> str:
    """The shapes of the first leaves."""
    first = [f"{leaf.dtype}{list(leaf.shape)}" for leaf in outputs[:4]]
    return ", ".join([*first, "..."] if len(outputs) > len(first) else first)


def _free(store: Path) -> int:
    """Bytes that a disk has room for."""
    place = next(folder for folder in (store, *store.parents) if folder.is_dir())
    return shutil.disk_usage(place).free


def _begun(store: Path, args: argparse.Namespace) -> tuple[int | None, list[tuple[str, str]]]:
    """How many members an earlier command left, where that is known, and what to say of it."""
    if store.exists():
        if args.overwrite:
            return None, [("", "which exists, and is replaced if it is another ensemble")]
        return args.members, [("", "which exists")]
    found = _stores.unfinished(store)
    if found is None:
        return 0, []
    return found.members, [("resumes", f"{found.members:,} members are there already")]


def _finished(saved: Any, before: int | None, args: argparse.Namespace, seconds: float) -> None:
    took = _text.seconds(seconds)
    if saved is None:
        print(
            f"\npart {args.part[0]} of {args.part[1]} is there, in {took}; others are missing yet,"
        )
        print("and the last of them puts the folder in its place")
    elif before == args.members:
        print(f"\nall {saved.size:,} members were there already")
    else:
        told = ""
        if before is not None and args.part is None:
            made = saved.nbytes * (args.members - before) // args.members
            told = f": {_text.size(made)} made, {_text.size(made / seconds)} a second"
        print(f"\nall {saved.size:,} members are there, in {took}{told}")


def _part(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    try:
        part = operator.index(int(number)), operator.index(int(count))
    except ValueError:
        part = 0, 0
    if not slash or not 0 <= part[0] < part[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N, a part I of N with 0 <= I < N")
    return part
