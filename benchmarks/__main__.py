"""The runner: ``python -m benchmarks [TABLE] [--quick] ...`` from the repository root."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from . import cases, environment, measure, report

RESULTS = Path(__file__).parent / "results"
# Where runs go that are not meant to be shown; git ignores it.
SCRATCH = RESULTS / "scratch"
_EPILOG = (
    "Runs of whole tables rewrite benchmarks/README.md; others, of --case, --peer or --quick, go "
    "to results/scratch."
)


def main(arguments: list[str] | None = None) -> int:
    """Measures what is asked for; returns 1 if peers that promise the same bits differ."""
    options = _options(arguments)
    if options.list:
        for case in cases.CASES:
            print(f"{case.name:22} {case.heading}\n{'':22} {', '.join(case.peers)}")
        return 0
    if options.report:
        for path in sorted(RESULTS.glob("*/*.json")):
            if path.parent != SCRATCH:
                _present(path)
        _rewrite_page()
        return 0
    try:
        chosen = cases.select(options.table + options.case, options.peer)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    settings = measure.QUICK if options.quick else measure.Settings()
    changes = {"rounds": options.rounds, "cap": options.cap}
    settings = dataclasses.replace(
        settings, **{name: value for name, value in changes.items() if value is not None}
    )
    described = environment.describe()
    full = not (options.quick or options.case or options.peer or options.out)
    out = options.out or (RESULTS / _run_name(described) if full else SCRATCH)
    out.mkdir(parents=True, exist_ok=True)
    if described["load"] and described["load"] > 0.5:
        _log(f"! the machine is busy (load {described['load']}): times will be too long")
    started = time.monotonic()
    same = True
    for table in dict.fromkeys(case.table for case in chosen):
        path = out / f"{table}.json"
        run: dict[str, Any] = {
            "table": table,
            "settings": dataclasses.asdict(settings),
            "environment": described,
            "cases": [],
        }
        for case in chosen:
            if case.table == table:
                run["cases"].append(measure.measure(case, settings, _log))
                described["load_after"] = environment.load()
                path.write_text(_json(run))  # a run that is cut off keeps what it has
        _present(path)
        print(f"\n{report.overview(run)}\n", flush=True)
        peers = [peer for case in run["cases"] for peer in case["peers"].values()]
        same &= all(peer.get("same_bits") is not False for peer in peers)
    if full:
        _rewrite_page()
    _log(f"{time.monotonic() - started:.0f} s; results in {out}")
    return 0 if same else 1


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, epilog=_EPILOG
    )
    parser.add_argument("table", nargs="*", default=[], help="only this table, all of it")
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
    parser.add_argument("--out", type=Path, help="folder for JSON, Markdown and PNG")
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


def _json(run: dict[str, Any]) -> str:
    """Indented, but with lists of numbers on one line."""
    text = json.dumps(run, indent=1)
    return re.sub(r"\[([-+.\de,\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"


def _present(path: Path) -> None:
    """Writes the tables and the figure beside a result."""
    run = json.loads(path.read_text())
    path.with_suffix(".md").write_text(report.page(run))
    try:
        from . import plots
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
