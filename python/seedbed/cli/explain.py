"""Shows what an init function becomes: for each array what is drawn, by which key, and who makes
it. Nothing is drawn."""

from __future__ import annotations

import argparse

from .._ensemble import ensemble
from . import OK, _target, _text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _target.add_arguments(parser)
    parser.add_argument(
        "--members", type=_text.positive, default=1024, help="how many (default 1024)"
    )


def run(args: argparse.Namespace) -> int:
    return _target.guarded("explain", args.target, lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    init, given = _target.resolve(args.target, _target.arguments(args.args))
    make, key = ensemble.ensemble(init, args.members), _target.key(args.seed)
    plan = _target.checked(lambda: make.plan(key, *given))
    print(plan.explain())
    print(f"{args.members:,} members: {_text.size(args.members * plan.member_bytes)}")
    return OK
