"""Initialises a large ensemble of a real network, compares every bit with JAX's own result,
times both, and draws the ensemble."""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax

from .._ensemble import ensemble
from . import OK, USAGE, WRONG, _measure, _model, _text
from ._oracle import Oracle

_ROUNDS = 7


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", type=_text.positive, default=1024, help="members (default 1024)")
    parser.add_argument(
        "--layers",
        type=_text.positive,
        nargs="+",
        default=list(_model.LAYERS),
        metavar="WIDTH",
        help="widths of the network, input to output (default 64 128 128 128 10)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo.png"), help="the picture (default demo.png)"
    )
    parser.add_argument("--no-plot", action="store_true", help="draw no picture")


def run(args: argparse.Namespace) -> int:
    if len(args.layers) < 2:
        print("seedbed demo: --layers needs two widths or more", file=sys.stderr)
        return USAGE
    if not args.no_plot and not args.out.resolve().parent.is_dir():
        print(f"seedbed demo: --out: no folder {args.out.resolve().parent}", file=sys.stderr)
        return USAGE
    library, size = _model.available(), args.size
    init = _model.make_init(args.layers, library)
    make = ensemble.ensemble(init, size)
    plan = make.plan(jax.random.key(0))
    print(f"{size:,} members of {_name(args.layers)} ({library}), ", end="")
    print(f"{_text.size(size * plan.member_bytes)} of parameters\n")
    print(plan.explain())
    if plan.reference is not None:
        print("\nThe native backend is NOT in use: `seedbed` below is plain JAX as well.")
    print(
        "\nEach cold start is a fresh process, from finished imports to ready arrays ...",
        flush=True,
    )
    fresh = {}
    for way in _measure.WAYS:
        fresh[way] = _measure.in_fresh_process(way, size, args.layers, library)
        print(f"  {way}: {_text.seconds(fresh[way]['cold'])}", flush=True)
    print("Compiling both here, then timing them in turns ...", flush=True)
    warm, results = _warm(init, size)
    print("\n" + _text.table(_rows(fresh, warm)) + "\n")
    print("Comparing every bit ...", flush=True)
    verdict, code = _compare(init, size, results)
    print(verdict)
    if not args.no_plot:
        how = "native seedbed" if plan.reference is None else "seedbed's reference backend"
        _draw(args, library, fresh, warm, results["seedbed"], how, verdict)
    return code


def _name(layers: list[int]) -> str:
    return f"MLP {'-'.join(map(str, layers))}"


def _warm(init: Any, size: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Median seconds of each way, the runs taking turns, and the last results."""
    calls = {way: _measure.make_call(way, init, size) for way in _measure.WAYS}
    times: dict[str, list[float]] = {way: [] for way in calls}
    results: dict[str, Any] = {}
    with _text.Progress((_ROUNDS + 1) * len(calls)) as progress:
        for warm in range(_ROUNDS + 1):
            for way, call in calls.items():
                results.pop(way, None)  # two results of one way need not exist at once
                started = time.perf_counter()
                results[way] = call()
                if warm:  # the first round compiles
                    times[way].append(time.perf_counter() - started)
                progress.advance(1, f"timing {way}")
    return {way: statistics.median(taken) for way, taken in times.items()}, results


def _rows(fresh: dict[str, Any], warm: dict[str, float]) -> list[list[str]]:
    ours, theirs = _measure.WAYS
    rows = [["", ours, f"jax.{theirs}", "gain"]]
    for name, values in (
        ("cold: compile and run", {way: fresh[way]["cold"] for way in fresh}),
        (f"warm: median of {_ROUNDS}", warm),
    ):
        gain = f"{values[theirs] / values[ours]:.1f} times"
        rows.append([name, *(_text.seconds(values[way]) for way in (ours, theirs)), gain])
    extra = [fresh[way]["extra"] for way in (ours, theirs)]
    if None not in extra:
        output = fresh[ours]["output"]
        shares = [f"{value / output:.2f} x" for value in extra]
        rows.append(["peak memory / output", *shares, ""])
    return rows


def _compare(init: Any, size: int, results: dict[str, Any]) -> tuple[str, int]:
    ours, theirs = (jax.tree.leaves(results[way]) for way in _measure.WAYS)
    keys = jax.random.split(jax.random.key(0), size)
    _, wrong = Oracle(init, keys, theirs).differing(enumerate(ours))
    total = 8 * sum(leaf.nbytes for leaf in theirs)
    verdict = f"differing bits: {wrong:,} of {total:,}"
    return verdict, WRONG if wrong else OK


def _draw(
    args: argparse.Namespace,
    library: str,
    fresh: dict[str, Any],
    warm: dict[str, float],
    params: Any,
    how: str,
    verdict: str,
) -> None:
    try:
        from . import _picture
    except ImportError as error:
        print(f"no picture: {error}. `pip install matplotlib` gets what is missing.")
        return
    network = _picture.Network(args.layers, library, params)
    title = f"{args.size:,} members of {_name(args.layers)}"
    _picture.draw(args.out, title, how, verdict, network, fresh, warm)
    print(f"picture: {args.out}")
