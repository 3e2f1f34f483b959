"""The runner: ``python -m benchmarks [TABLE ...] [--quick] ...`` from the repository root."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

from . import environment, measure, report, result
from .case import Case
from .report import compare
from .tables import cases

RESULTS = Path(__file__).parent / "results"
# Where runs go that are not meant to be shown; git ignores it.
SCRATCH = RESULTS / "scratch"
ROOFLINE, STORE = "roofline", "store"
# Tables that no peer and no case has a part in.
_ALONE = (ROOFLINE, STORE)
# Samples of each loop, and MiB of the memory tests; by --quick.
_ROOFLINE = {False: (300, 176), True: (10, 16)}
# Bytes of the ensemble that is written; by --quick.
_STORE = {False: 1_500_000_000, True: 20_000_000}
_EPILOG = (
    "Tables: " + ", ".join([*cases.TABLES, *_ALONE]) + ". Runs of whole tables rewrite "
    "benchmarks/README.md; others, of --case, --peer or --quick, go to results/scratch. The exit "
    "status is 1 if peers that promise the same bits differ, or if --compare finds a loss, and 2 "
    "for arguments that make no sense."
)


def main(arguments: list[str] | None = None) -> int:
    """Does what is asked for; returns the exit status."""
    options = _options(arguments)
    if options.list:
        for case in cases.CASES:
            print(f"{case.name:24} {case.heading}\n{'':24} {', '.join(case.peers)}")
        return 0
    if options.report:
        for path in sorted(RESULTS.glob("*/*.json")):
            if path.parent != SCRATCH:
                _present(path)
        _rewrite_page()
        return 0
    try:
        return _compare(options) if options.compare else _measure(options)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2


def _measure(options: argparse.Namespace) -> int:
    tables = [] if "all" in options.table else options.table
    wanted = [table for table in tables if table not in _ALONE] + options.case
    everything = not (tables or options.case or options.peer)
    chosen = cases.select(wanted, options.peer) if wanted or not tables else ()
    full = not (options.quick or options.case or options.peer or options.out)
    described = environment.describe()
    out = options.out or (RESULTS / _run_name(described) if full else SCRATCH)
    started = time.monotonic()
    same = _run_tables(chosen, _settings(options), described, out)
    if ROOFLINE in tables or everything:
        _run_roofline(options.quick, described, out)
    if STORE in tables or everything:
        same &= _run_store(options, described, out)
    if full:
        _rewrite_page()
    _log(f"{time.monotonic() - started:.0f} s; results in {out}")
    return 0 if same else 1


def _settings(options: argparse.Namespace) -> measure.Settings:
    settings = measure.QUICK if options.quick else measure.Settings()
    changes = {"rounds": options.rounds, "cap": options.cap}
    return dataclasses.replace(
        settings, **{name: value for name, value in changes.items() if value is not None}
    )


def _run_tables(
    chosen: tuple[Case, ...],
    settings: measure.Settings,
    described: dict[str, Any],
    out: Path,
) -> bool:
    """Measures the cases into a file for each table; whether all bits are as promised."""
    if described["load"] and described["load"] > 0.5:
        _log(f"! the machine is busy (load {described['load']}): times will be too long")
    same = True
    for table in dict.fromkeys(case.table for case in chosen):
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"{table}.json"
        run = _run(table, settings, described)
        for case in chosen:
            if case.table == table:
                run["cases"].append(measure.measure(case, settings, _log))
                described["load_after"] = environment.load()
                path.write_text(result.text(run))  # a run that is cut off keeps what it has
        _present(path)
        print(f"\n{report.overview(run)}\n", flush=True)
        peers = [peer for case in run["cases"] for peer in case["peers"].values()]
        same &= all(peer.get("same_bits") is not False for peer in peers)
    return same


def _run_roofline(quick: bool, described: dict[str, Any], out: Path) -> None:
    """The bounds of the machine, which no peer and no case has a part in."""
    from .roofline import bounds

    _log("roofline")
    try:
        measured = bounds.measure(*_ROOFLINE[quick])
    except (OSError, RuntimeError) as error:
        _log(f"! no roofline: {error}")
        return
    described["load_after"] = environment.load()
    settings = measure.QUICK if quick else measure.Settings()
    _write(_run(ROOFLINE, settings, described) | {"measured": measured}, out)


def _run_store(options: argparse.Namespace, described: dict[str, Any], out: Path) -> bool:
    """Ensembles on a disk; whether all that was read is what was made."""
    from .store import turns

    _log("store")
    settings = _settings(options)
    size = _STORE[options.quick] if options.bytes is None else int(options.bytes)
    rounds = 1 if options.quick else options.rounds or 5
    measured = turns.measure(size, rounds, int(options.limit), options.folder, _log)
    described["load_after"] = environment.load()
    _write(_run(STORE, settings, described) | {"measured": measured}, out)
    return all(read.get("same_bytes") is not False for read in measured["reads"].values())


def _write(run: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{run['table']}.json"
    path.write_text(result.text(run))
    _present(path)
    print(f"\n{report.overview(run)}\n", flush=True)


def _run(table: str, settings: measure.Settings, described: dict[str, Any]) -> dict[str, Any]:
    return {
        "table": table,
        "settings": dataclasses.asdict(settings),
        "environment": described,
        "cases": [],
    }


def _compare(options: argparse.Namespace) -> int:
    """A stored result beside another, or beside its cases measured again."""
    base, *others = [json.loads(path.read_text()) for path in options.compare]
    if len(others) > 1:
        raise ValueError("--compare takes a result, or two")
    if not base["cases"]:
        raise ValueError(f"{options.compare[0]} holds no cases")
    if others:
        new = others[0]
    else:
        options.quick |= base["settings"]["quick"]
        names = [case["name"] for case in base["cases"]]
        chosen = [
            case for case in cases.select(options.case or names, options.peer) if case.name in names
        ]
        out = options.out or SCRATCH
        _run_tables(tuple(chosen), _settings(options), environment.describe(), out)
        new = json.loads((out / f"{base['table']}.json").read_text())
    changes = compare.compare(base, new)
    print(compare.report(changes))
    return 1 if any(change.lost for change in changes) else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures seedbed beside its peers and writes tables and figures.",
        epilog=_EPILOG,
    )
    parser.add_argument(
        "table", nargs="*", default=[], help="only these tables; none, or `all`: everything"
    )
    parser.add_argument("--list", action="store_true", help="print the cases and their peers")
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        metavar="NAME",
        help="only this case or table; may be a pattern, may be repeated",
    )
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME",
        help="only this peer, where a case has it; may be repeated",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, few rounds")
    parser.add_argument("--rounds", type=int, help="timed warm calls of every peer")
    parser.add_argument("--cap", type=float, help="seconds after which a cold start is given up")
    parser.add_argument("--bytes", type=float, help="of the ensemble that `store` writes (1.5e9)")
    parser.add_argument(
        "--limit", type=float, default=0, help="of address space for seedbed's process in `store`"
    )
    parser.add_argument("--folder", type=Path, help="where `store` writes: on the disk it measures")
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown and PNG")
    parser.add_argument(
        "--compare",
        nargs="+",
        type=Path,
        metavar="JSON",
        help="BASE.json [NEW.json]: print how NEW differs from BASE, both stored results of one "
        "table, and flag seedbed's losses of more than 10 %%, after what the other peers gained "
        "or lost in the same run is divided out; without NEW, measure the cases of BASE (or those "
        "of --case) again",
    )
    parser.add_argument(
        "--report",
        action="store_true",
        help="measure nothing; write Markdown, PNG and README.md again from the JSON files",
    )
    return parser.parse_args(arguments)


def _run_name(described: dict[str, object]) -> str:
    packages = described["packages"]
    assert isinstance(packages, dict)
    return f"jax-{packages.get('jax', 'none')}"


def _present(path: Path) -> None:
    """Writes the tables and the figure beside a result."""
    run = json.loads(path.read_text())
    path.with_suffix(".md").write_text(report.page(run))
    try:
        from .report import plots
    except ImportError as error:
        _log(f"! no figure: {error}")
    else:
        plots.draw(run, path.with_suffix(".png"))


def _rewrite_page() -> None:
    page = RESULTS.parent / "README.md"
    page.write_text(report.readme(RESULTS))
    _log(f"wrote {page}")


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
