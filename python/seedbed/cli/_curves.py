"""The picture of `seedbed.bench`: time and memory over the number of members. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from . import _benchmark, _measure, _text
from ._palette import FAINT, INK, OURS, THEIRS, plain

_STYLES = {
    "seedbed": {"color": OURS, "lw": 2.4, "marker": "o", "zorder": 3},
    "jit(vmap)": {"color": THEIRS, "lw": 1.8, "marker": "s"},
    "unrolled": {"color": "#c77d2e", "lw": 1.8, "marker": "D"},
    "zeros": {"color": INK, "lw": 1.2, "marker": ".", "ls": (0, (3, 2))},
}


def draw(path: Path, found: _benchmark.Benchmark) -> None:
    """Writes the picture as a PNG."""
    figure = Figure(figsize=(13, 5.4), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    facts, last = found.facts, found.results[-1]
    largest = _text.size(last["members"] * facts["member_bytes"])
    figure.text(0.055, 0.93, found.name, fontsize=19, weight="bold", color=INK)
    figure.text(
        0.055, 0.88,
        f"{_text.size(facts['member_bytes'])} a member, {largest} for {last['members']:,}; "
        f"seedbed {facts['seedbed']}, jax {facts['jax']} on {facts['platform']}, "
        f"{facts['cores']} cores; {_verdict(found)}",
        fontsize=11, color=FAINT,
    )  # fmt: skip
    panels = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.07, right=0.985, top=0.74, bottom=0.13, wspace=0.3)
    _panel(panels[0], found, "cold", "first call of a process, with compilation")
    _panel(panels[1], found, "warm", f"any later call, median of {facts['rounds']}")
    _panel(panels[2], found, "peak", "memory of a call")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper left", bbox_to_anchor=(0.05, 0.865), ncols=len(labels),
        frameon=False, labelcolor=INK, fontsize=11,
    )  # fmt: skip
    figure.savefig(path)


def _verdict(found: _benchmark.Benchmark) -> str:
    same = found.same_bits
    return "bits not compared" if same is None else f"bits {'equal to jax' if same else 'DIFFER'}"


def _panel(axes: Any, found: _benchmark.Benchmark, what: str, title: str) -> None:
    sizes = [result["members"] for result in found.results]
    shown, seen = [], set()
    for way, style in _STYLES.items():
        values = [_benchmark.figure(one["ways"][way], what) for one in found.results]
        points = [(x, y) for x, y in zip(sizes, values, strict=True) if y is not None]
        shown += [y for _, y in points]
        seen |= {x for x, _ in points}
        x, y = zip(*points, strict=True) if points else ((), ())
        axes.plot(x, y, label=_benchmark.LABELS[way], **style)
    axes.set_xscale("log")
    axes.set_title(title, loc="left", color=INK, fontsize=12)
    axes.set_xlabel("members", color=INK)
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(min(sizes) / 1.4, max(sizes) * 1.4)
    if what == "peak":
        axes.set_ylabel("peak memory / size of the result", color=INK)
        axes.set_ylim(0, 1.15 * max([1.0, *shown]))
    else:
        axes.set_ylabel("wall time", color=INK)
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _text.seconds(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    if not shown:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=FAINT)
    elif what == "peak" and seen != {*sizes}:
        said = f"results below {_text.size(_measure.VISIBLE)} are too small to be seen"
        axes.text(0.02, 0.02, said, transform=axes.transAxes, fontsize=9, color=FAINT)
    axes.grid(axis="y", color="#eceff1", lw=0.8)
    axes.set_axisbelow(True)
    plain(axes)
