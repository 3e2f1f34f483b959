"""Markdown: the page of one run, and ``benchmarks/README.md`` from all runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..peers import PEERS
from .limits import OVERVIEWS
from .markdown import milliseconds, number, pair, seconds, table
from .summary import FLOOR, Row, ours, output, rows

SCRATCH = "scratch"
# Facts about a peer that the tables show.
_TOLD = ("warning", "isa", "threefry", "threads", "temporary", "collectives")

_INTRODUCTION = """\
# Benchmarks

This page is written by the runner from the files in `results/`; do not edit it.

```
python -m benchmarks all                    # everything, about an hour, and this page
python -m benchmarks all --quick            # small sizes, some minutes, into results/scratch
python -m benchmarks ensembles cold         # some tables, and this page
python -m benchmarks store --bytes 12e9     # how much is written; --limit, of memory
python -m benchmarks --case mlp --rounds 21 # one case; --list names them
python -m benchmarks --compare BASE.json    # measure the cases of a result again; flag losses
python -m benchmarks --report               # this page and the figures again, without measuring
```

`make bench` runs everything in the environment of the tests, which has no torch; a peer that is not
installed is left out, and the table says so. `pip install torch` into that environment adds it.

**How it is measured.** Every peer runs in a process of its own, so that none warms another's
memory or caches. After all have imported their libraries, each makes its first call while the
others sleep: that is its *cold* time (call to ready arrays; for all peers without importing and
without making the key). Then come the *warm* rounds: in each, every peer makes the ensemble once,
with a key it has not seen, in an order that rotates. Times are medians, in brackets the first and
third quartile; CPU time is that of all threads. Ratios are medians of the ratios within a round.
Peak memory is the growth of resident memory during one warm call, over the size of the output, or
over the parts of it that a process holds. Of a peer in several processes, the wall time is that of
the slowest and the CPU time that of all.
Results of the peers that promise jax's numbers, or a framework's, are compared with those, every
bit of every leaf. Nothing is asserted about time.
"""

# What a table is about, above it on the page.
ABOUT = {
    "ensembles": "A model for all members at once, fresh memory for every call.",
    "draws": "One draw for 16 members. numpy and torch draw other numbers, from one stream.",
    "modules": "A tree of modules, made and initialised by every call.",
    "frameworks": "Each framework's own way beside seedbed's adapter for it; the same numbers.",
    "scaling": "As much work cut another way: by more members, more leaves, more threads.",
    "isa": "The same draws by instruction set and number of threads.",
    "cold": "The first call of a process, by depth, by number of leaves and by number of members.",
    "donate": "A new ensemble into the memory of the old one, beside fresh memory.",
    "latency": "One small call, beside a compiled function that draws nothing.",
    "scale": "Past one device: what lies in parts on virtual devices of this processor.",
    "lazy": "Ensembles that are never stored: members made when they are looked at.",
    "store": "Ensembles written to a disk and read from it, every way in turn.",
    "roofline": "Every kernel beside the bound that this machine sets it.",
}
_LIMITS = ("scaling", "isa", "scale", "lazy", "store", "roofline")


def readme(results: Path) -> str:
    """The page over all stored runs: the run with most peers first."""
    runs = [json.loads(path.read_text()) | {"path": path} for path in results.glob("*/*.json")]
    runs = [run for run in runs if run["path"].parent.name != SCRATCH]
    runs.sort(key=lambda run: (-len(run["environment"]["packages"]), str(run["path"].parent)))
    lines = [_INTRODUCTION, "**Peers.**\n"]
    lines += [f"- {peer.label}: {peer.description}" for peer in PEERS.values()]
    order = list(ABOUT)
    for folder in dict.fromkeys(run["path"].parent for run in runs):
        mine = [run for run in runs if run["path"].parent == folder]
        mine.sort(key=lambda run: order.index(run["table"]))
        lines += ["", f"## {folder.name}", "", _environment(mine[0]["environment"])]
        for run in mine:
            link = f"results/{folder.name}/{run['table']}"
            lines += ["", f"### {run['table'].capitalize()}", "", ABOUT[run["table"]], ""]
            if run["environment"]["date"] != mine[0]["environment"]["date"]:
                lines += [_environment(run["environment"]), ""]
            lines += [overview(run), ""]
            if (folder / f"{run['table']}.png").exists():
                lines += [f"![{run['table']}]({link}.png)", ""]
            lines += [f"[All numbers]({link}.md)"]
        lines += ["", "### Where another is faster", "", lost(mine)]
    return "\n".join(lines) + "\n"


def page(run: dict[str, Any]) -> str:
    """All numbers of one table of one run."""
    settings = run["settings"]
    shrunk = ", shrunk by --quick: for checking the runner, not for comparing" * settings["quick"]
    lines = [f"# {run['table'].capitalize()}", "", _environment(run["environment"]), ""]
    if run["cases"]:
        own = "seedbed" if _by_case(run) else PEERS[ours(run["cases"][0])].label
        lines += [
            f"{settings['rounds']} rounds{shrunk}. `x` columns: how many times {own} is faster "
            "than that row.",
            "",
        ]
    lines.append(overview(run))
    for case in run["cases"]:
        lines += ["", f"## {case['heading']}", "", *_case(case)]
    return "\n".join(lines) + "\n"


def _environment(about: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in about["packages"].items())
    lines = [
        f"{about['cpu']}, {about['cores']} cores ({' '.join(about['isa'])}), "
        f"{about['memory_gib']} GiB; {about['system']}; transparent huge pages: "
        f"{about['huge_pages'] or 'none'}.",
        f"Python {about['python']}, {packages}.",
        f"{about['date']}; load before {about['load']}, after {about['load_after']}.",
    ]
    if about["variables"]:
        given = " ".join(f"`{name}={value}`" for name, value in about["variables"].items())
        lines.append(f"Environment: {given}.")
    return "  \n".join(lines)


def _by_case(run: dict[str, Any]) -> bool:
    """Whether the cases of a table have baselines of their own."""
    return len({tuple(case["baselines"]) for case in run["cases"]}) > 1


def _pairs(run: dict[str, Any]) -> str:
    """One line for each case and baseline of it."""
    header = ["", "beside", "seedbed cold", "x cold", "warm wall", "x wall / CPU", "bits"]
    lines = []
    for case in run["cases"]:
        of = {row.name: row for row in rows(case)}
        mine = of.get(ours(case))
        for name in case["baselines"]:
            lines.append(
                [
                    case["heading"],
                    PEERS[name].description,
                    seconds(mine.cold if mine else None),
                    _cold_ratio(of.get(name), mine),
                    milliseconds(mine.wall if mine else None),
                    _pair(of.get(name), case),
                    _bits(mine),
                ]
            )
    return table(header, lines, "llrrrrc") + "\n\nx: times faster, by wall time / by CPU time."


def _bits(row: Row | None) -> str:
    return {None: "", True: "same", False: "**DIFFERENT**"}[row.same_bits if row else None]


def overview(run: dict[str, Any]) -> str:
    """What a table tells: by default seedbed's times, and how many times faster than baselines."""
    if run["table"] in OVERVIEWS:
        return OVERVIEWS[run["table"]](run)
    if _by_case(run):
        return _pairs(run)
    names = list(dict.fromkeys(name for case in run["cases"] for name in case["baselines"]))
    own = PEERS[ours(run["cases"][0])].label
    beside = [f"x {PEERS[name].label}" for name in names]
    warm, cold = [], []
    for case in run["cases"]:
        of = {row.name: row for row in rows(case)}
        mine = of.get(ours(case))
        warm.append(
            [
                case["heading"],
                milliseconds(mine.wall if mine else None),
                milliseconds(mine.cpu if mine else None),
                *(_pair(of.get(name), case) for name in names),
            ]
        )
        cold.append(
            [
                case["heading"],
                seconds(mine.cold if mine else None),
                *(_cold_ratio(of.get(name), mine) for name in names),
                number(mine.peak if mine else None, ".2f"),
            ]
        )
    parts = [table(["warm", f"{own} wall", "CPU", *beside], warm, "l")]
    parts.append("Times faster: by wall time / by CPU time.")
    if run["table"] != "draws":
        parts.append(table(["cold", own, *beside, "peak memory / output"], cold, "l"))
    return "\n\n".join(parts)


def _case(case: dict[str, Any]) -> list[str]:
    values, size = output(case)
    text = f"{values:,} values, {size / 1e6:,.1f} MB. {case['note']}".strip()
    header = [
        "peer",
        "cold s",
        "x",
        "warm wall ms",
        "x",
        "warm CPU ms",
        "x",
        "G values/s",
        "peak / output",
        "bits",
        "",
    ]
    lines = [_cells(row, values) for row in rows(case)]
    return [text, "", table(header, lines, "lrrrrrrrrcl")]


def _cells(row: Row, values: int) -> list[str]:
    wall = number(row.wall and row.wall * 1e3, ".2f")
    if row.spread:
        wall += f" [{row.spread[0] * 1e3:.2f}, {row.spread[1] * 1e3:.2f}]"
    note = f"{row.status}: {row.reason}" if row.status != "ok" else ""
    told = [f"{name} {row.facts[name]}" for name in _TOLD if name in row.facts]
    note = "; ".join(x for x in (note, *told) if x)
    return [
        PEERS[row.name].label,
        row.reason if row.status == "over" else number(row.cold, ".3f"),
        number(row.faster_cold, ".3g"),
        wall,
        number(row.faster_wall, ".2f"),
        number(row.cpu and row.cpu * 1e3, ".2f"),
        number(row.faster_cpu, ".2f"),
        number(row.wall and values / row.wall / 1e9, ".3f"),
        number(row.peak, ".2f"),
        _bits(row),
        note,
    ]


def lost(runs: list[dict[str, Any]]) -> str:
    """Every case and clock by which a peer beats seedbed; the honest end of the page."""
    lines, floor = [], []
    for run in runs:
        for case in run["cases"] if run["table"] not in _LIMITS else []:
            for row in rows(case):
                if row.name.startswith(FLOOR):
                    if run["table"] in ("draws", "ensembles"):
                        floor += [ratio for ratio in (row.faster_wall, row.faster_cpu) if ratio]
                elif row.name != ours(case) and (better := _better(row, run["table"])):
                    lines.append(f"- {case['heading']}: {PEERS[row.name].label}, {better}")
    lines = lines or ["- Nowhere in this run."]
    if floor:
        lines += [
            "",
            f"jnp.zeros draws nothing and is here as the floor: a warm ensemble costs "
            f"{min(1 / x for x in floor):.1f} to {max(1 / x for x in floor):.1f} times as much.",
        ]
    return "\n".join(lines)


def _better(row: Row, name: str) -> str:
    """By how much a peer beats seedbed in a table, by every clock that counts there."""
    clocks = {"wall": row.faster_wall, "CPU": row.faster_cpu}
    # A cold draw is one call of one function; what users wait for is a cold ensemble.
    if name not in ("draws", "donate", "latency"):
        clocks["cold"] = row.faster_cold
    return ", ".join(
        f"{1 / x:.2f} times by {clock} time" for clock, x in clocks.items() if x and x < 1
    )


def _pair(row: Row | None, case: dict[str, Any]) -> str:
    if row is None or row.name not in case["baselines"]:
        return ""
    if row.faster_wall is None or row.faster_cpu is None:
        return row.reason if row.status == "over" else row.status
    return pair(row.faster_wall, row.faster_cpu)


def _cold_ratio(row: Row | None, mine: Row | None) -> str:
    if row is None:
        return ""
    if row.status == "over":
        return f"over ({row.reason})"
    return number(row.faster_cold, ".3g")
