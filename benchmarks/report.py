"""Markdown: the page of one run, and ``benchmarks/README.md`` from all runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .peers import PEERS
from .summary import FLOOR, Row, ours, output, rows

SCRATCH = "scratch"
# Facts about a peer that the tables show.
_TOLD = ("warning", "isa", "threefry", "threads")

_INTRODUCTION = """\
# Benchmarks

This page is written by the runner from the files in `results/`; do not edit it.

```
make bench                                  # everything, half an hour or more, and this page
python -m benchmarks --quick                # small sizes, about a minute, into results/scratch
python -m benchmarks modules                # one table, and this page
python -m benchmarks frameworks             # another: each framework beside its adapter
python -m benchmarks --case mlp --rounds 21 # one case; --list names them
python -m benchmarks --report               # this page and the figures again, without measuring
```

**How it is measured.** Every peer runs in a process of its own, so that none warms another's
memory or caches. After all have imported their libraries, each makes its first call while the
others sleep: that is its *cold* time (call to ready arrays; for all peers without importing and
without making the key). Then come the *warm* rounds: in each, every peer makes the ensemble once,
with a key it has not seen, in an order that rotates. Times are medians, in brackets the first and
third quartile; CPU time is that of all threads. Ratios are medians of the ratios within a round.
Peak memory is the growth of resident memory during one warm call, over the size of the output.
Results of the peers that promise jax's numbers, or a framework's, are compared with those, every
bit of every leaf. Nothing is asserted about time. A peer that is not installed (by `make bench`,
torch is not) is left out, and the table says so.
"""


def readme(results: Path) -> str:
    """The page over all stored runs: the run with most peers first."""
    runs = [json.loads(path.read_text()) | {"path": path} for path in results.glob("*/*.json")]
    runs = [run for run in runs if run["path"].parent.name != SCRATCH]
    runs.sort(key=lambda run: (-len(run["environment"]["packages"]), str(run["path"].parent)))
    lines = [_INTRODUCTION, "**Peers.**\n"]
    lines += [f"- {peer.label}: {peer.description}" for peer in PEERS.values()]
    for folder in dict.fromkeys(run["path"].parent for run in runs):
        mine = sorted(
            (run for run in runs if run["path"].parent == folder),
            key=lambda run: run["table"] != "ensembles",
        )
        lines += ["", f"## {folder.name}", "", _environment(mine[0]["environment"])]
        for run in mine:
            link = f"results/{folder.name}/{run['table']}"
            lines += ["", f"### {run['table'].capitalize()}", ""]
            if run["environment"]["date"] != mine[0]["environment"]["date"]:
                lines += [_environment(run["environment"]), ""]
            lines += [overview(run), ""]
            lines += [f"![{run['table']}]({link}.png)", "", f"[All numbers]({link}.md)"]
        lines += ["", "### Where another is faster", "", _lost(mine)]
    return "\n".join(lines) + "\n"


def page(run: dict[str, Any]) -> str:
    """All numbers of one table of one run."""
    settings = run["settings"]
    own = "seedbed" if _by_case(run) else PEERS[ours(run["cases"][0])].label
    title = f"# {run['table'].capitalize()}"
    lines = [title, "", _environment(run["environment"]), ""]
    lines += [
        f"{settings['rounds']} rounds"
        + (", shrunk by --quick: for checking the runner, not for comparing" * settings["quick"])
        + f". `x` columns: how many times {own} is faster than that row.",
        "",
        overview(run),
    ]
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
    lines = [_line(header), _line(["---", "---"] + ["---:"] * 4 + [":---:"])]
    for case in run["cases"]:
        table = {row.name: row for row in rows(case)}
        mine = table.get(ours(case))
        for name in case["baselines"]:
            cells = [
                case["heading"],
                PEERS[name].description,
                _seconds(mine.cold if mine else None),
                _cold_ratio(table.get(name), mine),
                _milliseconds(mine.wall if mine else None),
                _pair(table.get(name), case),
                _bits(mine),
            ]
            lines.append(_line(cells))
    return "\n".join([*lines, "", "x: times faster, by wall time / by CPU time."])


def _bits(row: Row | None) -> str:
    return {None: "", True: "same", False: "**DIFFERENT**"}[row.same_bits if row else None]


def overview(run: dict[str, Any]) -> str:
    """One line for each case: seedbed's time, and how many times faster than the baselines."""
    if _by_case(run):
        return _pairs(run)
    names = list(dict.fromkeys(name for case in run["cases"] for name in case["baselines"]))
    cold = run["table"] != "draws"
    own = PEERS[ours(run["cases"][0])].label
    header = ["warm", f"{own} wall", "CPU", *(f"x {PEERS[name].label}" for name in names)]
    lines = [_line(header), _line(["---"] + ["---:"] * (len(header) - 1))]
    for case in run["cases"]:
        table = {row.name: row for row in rows(case)}
        mine = table.get(ours(case))
        cells = [
            case["heading"],
            _milliseconds(mine.wall if mine else None),
            _milliseconds(mine.cpu if mine else None),
        ]
        cells += [_pair(table.get(name), case) for name in names]
        lines.append(_line(cells))
    lines += ["", "Times faster: by wall time / by CPU time."]
    if cold:
        header = ["cold", own, *header[3:], "peak memory / output"]
        lines += ["", _line(header), _line(["---"] + ["---:"] * (len(header) - 1))]
        for case in run["cases"]:
            table = {row.name: row for row in rows(case)}
            mine = table.get(ours(case))
            cells = [case["heading"], _seconds(mine.cold if mine else None)]
            cells += [_cold_ratio(table.get(name), mine) for name in names]
            lines.append(_line([*cells, _number(mine.peak if mine else None, ".2f")]))
    return "\n".join(lines)


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
    lines = [text, "", _line(header), _line(["---"] + ["---:"] * 8 + [":---:", "---"])]
    for row in rows(case):
        lines.append(_line(_cells(row, values)))
    return lines


def _cells(row: Row, values: int) -> list[str]:
    wall = _number(row.wall and row.wall * 1e3, ".2f")
    if row.spread:
        wall += f" [{row.spread[0] * 1e3:.2f}, {row.spread[1] * 1e3:.2f}]"
    note = f"{row.status}: {row.reason}" if row.status != "ok" else ""
    told = [f"{name} {row.facts[name]}" for name in _TOLD if name in row.facts]
    note = "; ".join(x for x in (note, *told) if x)
    return [
        PEERS[row.name].label,
        row.reason if row.status == "over" else _number(row.cold, ".3f"),
        _number(row.faster_cold, ".3g"),
        wall,
        _number(row.faster_wall, ".2f"),
        _number(row.cpu and row.cpu * 1e3, ".2f"),
        _number(row.faster_cpu, ".2f"),
        _number(row.wall and values / row.wall / 1e9, ".3f"),
        _number(row.peak, ".2f"),
        _bits(row),
        note,
    ]


def _lost(runs: list[dict[str, Any]]) -> str:
    """Every case and clock by which a peer beats seedbed; the honest end of the page."""
    lines, floor = [], []
    for run in runs:
        # A cold draw is one call of one function; what users wait for is a cold ensemble.
        clocks = [("wall", "faster_wall"), ("CPU", "faster_cpu")]
        clocks += [("cold", "faster_cold")] if run["table"] != "draws" else []
        for case in run["cases"]:
            for row in rows(case):
                if row.name == ours(case):
                    continue
                if row.name.startswith(FLOOR):
                    floor += [ratio for ratio in (row.faster_wall, row.faster_cpu) if ratio]
                    continue
                ratios = [(clock, getattr(row, attribute)) for clock, attribute in clocks]
                better = [
                    f"{1 / x:.2f} times by {clock} time" for clock, x in ratios if x and x < 1
                ]
                if better:
                    lines.append(
                        f"- {case['heading']}: {PEERS[row.name].label}, {', '.join(better)}"
                    )
    lines = lines or ["- Nowhere in this run."]
    if floor:
        lines += [
            "",
            f"jnp.zeros draws nothing and is here as the floor: a warm ensemble costs "
            f"{min(1 / x for x in floor):.1f} to {max(1 / x for x in floor):.1f} times as much.",
        ]
    return "\n".join(lines)


def _pair(row: Row | None, case: dict[str, Any]) -> str:
    if row is None or row.name not in case["baselines"]:
        return ""
    if row.faster_wall is None or row.faster_cpu is None:
        return row.reason if row.status == "over" else row.status
    return f"{row.faster_wall:.2f} / {row.faster_cpu:.2f}"


def _cold_ratio(row: Row | None, mine: Row | None) -> str:
    if row is None:
        return ""
    if row.status == "over":
        return f"over ({row.reason})"
    return _number(row.faster_cold, ".3g")


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.1f} ms"


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.2f} s"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
