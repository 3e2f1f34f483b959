"""Measures an init function of yours: ensembles of it by seedbed, by jax in its two ways, and the
same memory filled with zeros, each in a fresh process."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from . import INTERRUPTED, OK, USAGE, WRONG, _race, _target, _text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _target.add_arguments(parser)
    parser.add_argument(
        "--members",
        type=_text.positives,
        default=[16, 128, 1024],
        metavar="N,N,...",
        help="numbers of members (default 16,128,1024)",
    )
    parser.add_argument(
        "--rounds", type=_text.positive, default=7, help="timed warm calls of each way (default 7)"
    )
    parser.add_argument(
        "--starts",
        type=_text.positive,
        default=1,
        help="fresh processes that measure a cold start of each way (default 1)",
    )
    parser.add_argument(
        "--limit",
        type=_text.positive,
        default=120,
        metavar="SECONDS",
        help="after which a way is given up (default 120)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="all that was measured")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="the same as a picture")
    parser.add_argument("--no-progress", action="store_true", help="show no bar")


def run(args: argparse.Namespace) -> int:
    for option, path in (("--json", args.json), ("--plot", args.plot)):
        if path is not None and not path.resolve().parent.is_dir():
            print(f"seedbed bench: {option}: no folder {path.resolve().parent}", file=sys.stderr)
            return USAGE
    try:
        return _target.guarded("bench", args.target, lambda: _run(args))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED


def _run(args: argparse.Namespace) -> int:
    if args.plot is not None:
        try:
            from . import _curves  # noqa: F401  before minutes of measuring
        except ImportError as error:
            print(f"seedbed bench: --plot needs matplotlib: {error}", file=sys.stderr)
            return USAGE
    init, given = _target.resolve(args.target, _target.arguments(args.args))
    found = _target.checked(
        lambda: _race.bench(
            init,
            args.members,
            *given,
            seed=args.seed,
            rounds=args.rounds,
            starts=args.starts,
            limit=args.limit,
            progress=not args.no_progress,
        )
    )
    found.name = args.target
    print(found)
    if args.json is not None:
        args.json.write_text(found.json() + "\n", encoding="utf-8")
        print(f"JSON: {args.json}")
    if args.plot is not None:
        found.plot(args.plot)
        print(f"picture: {args.plot}")
    return WRONG if found.same_bits is False else OK
