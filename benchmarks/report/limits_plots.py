"""Figures of the tables that show how a time grows: lines over depth and members, bars by ISA."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from matplotlib import pyplot as plt

from ..peers import ISAS, PEERS
from .summary import output, rows

_COLOURS = {"seedbed": "#d1495b", "jax": "#30638e", "jax_unrolled": "#7c93b0", "zeros": "#9aa0a8"}
# Lines that run close to each other: the number of the upper one stands above it.
_CLOSE = {"jax": "jax_unrolled", "seedbed": "zeros"}
_CLOSE |= {other: name for name, other in _CLOSE.items()}
# Shades of one colour for one thread and for all, by instruction set.
_ONE, _ALL = "#e8a5ad", "#d1495b"


def cold(run: dict[str, Any]) -> Any:
    """Cold start by depth, leaves and members, and warm time by members."""
    panels = (
        ("cold-depth-", "cold start by depth", "layers", "cold"),
        ("cold-leaves-", "cold start by number of leaves", "leaves of (16, 16)", "cold"),
        ("cold-members-", "cold start by members", "members", "cold"),
        ("cold-members-", "warm call by members", "members", "wall"),
    )
    figure, grid = plt.subplots(2, 2, figsize=(10, 7.4), layout="constrained")
    for axis, (prefix, title, label, attribute) in zip(grid.flat, panels, strict=True):
        cases = [case for case in run["cases"] if case["name"].startswith(prefix)]
        sizes = [int(case["name"].removeprefix(prefix)) for case in cases]
        _lines(axis, cases, sizes, attribute)
        axis.set_title(title, fontsize=11, fontweight="bold", loc="left")
        axis.set_xlabel(label, fontsize=9)
        axis.set_ylabel("seconds", fontsize=9)
        if sizes:
            axis.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
            axis.minorticks_off()
    grid[0][0].legend(fontsize=8, frameon=False)
    return figure


def _lines(axis: Any, cases: list[dict[str, Any]], sizes: list[int], attribute: str) -> None:
    """One line for each peer, its name at the end of it."""
    points: dict[str, list[tuple[int, float]]] = {}
    for size, case in zip(sizes, cases, strict=True):
        for row in rows(case):
            value = getattr(row, attribute)
            if value is not None:
                points.setdefault(row.name, []).append((size, value))
    for name, line in points.items():
        x, y = zip(*line, strict=True)
        axis.plot(x, y, "o-", color=_COLOURS.get(name), label=PEERS[name].label, markersize=4)
        for place in (0, -1):
            other = dict(points.get(_CLOSE.get(name, ""), ())).get(x[place], 0.0)
            axis.annotate(
                _seconds(y[place]),
                (x[place], y[place]),
                xytext=(6 if place else -6, -4 if y[place] < other else 3),
                textcoords="offset points",
                fontsize=8,
                color=_COLOURS.get(name),
                ha="left" if place else "right",
                va="center",
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.margins(0.2, 0.15)
    _plain(axis)


def _seconds(value: float) -> str:
    if value < 0.01:
        return f"{value * 1e3:.2g} ms"
    return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"


def isa(run: dict[str, Any]) -> Any:
    """Throughput of every sampler, a pair of bars for each instruction set."""
    cases = run["cases"]
    figure, grid = plt.subplots(
        1, len(cases), figsize=(1.2 + 2.9 * len(cases), 3.6), squeeze=False, layout="constrained"
    )
    for axis, case in zip(grid[0], cases, strict=True):
        values, _ = output(case)
        speed = {row.name: values / row.wall / 1e9 for row in rows(case) if row.wall}
        names = [isa for isa in reversed(ISAS) if f"seedbed_{isa}_one" in speed]
        for shift, threads, colour in ((-0.2, "one", _ONE), (0.2, "all", _ALL)):
            heights = [speed.get(f"seedbed_{isa}_{threads}", 0.0) for isa in names]
            label = f"{threads} thread{'s' * (threads == 'all')}"
            _columns(axis, [x + shift for x in range(len(names))], heights, colour, label)
        if "jax_unrolled" in speed:
            _columns(axis, [len(names)], [speed["jax_unrolled"]], _COLOURS["jax_unrolled"], "")
            names.append("jax,\nunrolled")
        axis.set_xticks(range(len(names)), names, fontsize=8)
        axis.set_title(
            re.sub(r", 2\^.*", "", case["heading"]), fontsize=11, fontweight="bold", loc="left"
        )
        _plain(axis)
    grid[0][0].set_ylabel("G values/s, wall", fontsize=9)
    grid[0][0].legend(fontsize=8, frameon=False, loc="upper left")
    for axis in grid[0]:
        axis.set_ylim(0, 1.12 * axis.get_ylim()[1])
    return figure


def _columns(axis: Any, places: list[float], heights: list[float], colour: str, name: str) -> None:
    axis.bar(places, heights, width=0.38, color=colour, label=name or None)
    for x, y in zip(places, heights, strict=True):
        axis.annotate(
            f"{y:.2f}" if y >= 0.1 else f"{y:.3f}",
            (x, y),
            (0, 2),
            textcoords="offset points",
            ha="center",
            fontsize=7.5,
        )


def _plain(axis: Any) -> None:
    axis.tick_params(labelsize=8)
    axis.grid(axis="y", color="#e4e6ea", linewidth=0.8)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


DRAWN: dict[str, Callable[[dict[str, Any]], Any]] = {"cold": cold, "isa": isa}
