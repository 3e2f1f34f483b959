"""Figures: a row of panels for each case, the same peers on every panel of a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no display needed

from matplotlib import pyplot as plt  # noqa: E402

from ..peers import PEERS  # noqa: E402
from . import limits_plots  # noqa: E402
from .summary import FLOOR, ours, rows  # noqa: E402

# What each column shows: title, attribute of `summary.Row`, factor, format.
_WARM = (("warm, wall ms", "wall", 1e3, ".3g"), ("warm, CPU ms", "cpu", 1e3, ".3g"))
_ALL = (
    ("cold start, s", "cold", 1.0, ".2f"),
    *_WARM,
    ("peak memory / output", "peak", 1.0, ".2f"),
)
_COLUMNS = {
    "draws": _WARM,
    "ensembles": _ALL,
    "modules": _ALL,
    "frameworks": _ALL,
    "scaling": _WARM,
    "scale": (("cold start, CPU s", "cold_cpu", 1.0, ".2f"), *_WARM, _ALL[-1]),
    "lazy": (_ALL[0], *_WARM, _ALL[-1]),
    "donate": (*_WARM, _ALL[-1]),
    "latency": (("one call, wall µs", "wall", 1e6, ".1f"), ("one call, CPU µs", "cpu", 1e6, ".1f")),
}
_OURS, _OURS_TOO, _THEIRS, _FLOOR = "#d1495b", "#e8a5ad", "#7c93b0", "#c9ced6"


def draw(run: dict[str, Any], path: Path) -> None:
    """Writes one table of a run as a PNG; nothing for a table that has no figure."""
    if run["table"] in limits_plots.DRAWN:
        figure = limits_plots.DRAWN[run["table"]](run)
        _save(figure, run, path)
    elif run["table"] in _COLUMNS:
        _save(_rows_of_bars(run, _COLUMNS[run["table"]]), run, path, "; shorter is better")


def _rows_of_bars(run: dict[str, Any], columns: tuple[tuple[str, str, float, str], ...]) -> Any:
    cases = [(case, rows(case)) for case in run["cases"]]
    heights = [len(table) + 1.6 for _, table in cases]
    figure, grid = plt.subplots(
        len(cases),
        len(columns),
        figsize=(2.4 + 3.1 * len(columns), 0.9 + 0.27 * sum(heights)),
        gridspec_kw={"height_ratios": heights},
        squeeze=False,
        layout="constrained",
    )
    for (case, table), axes in zip(cases, grid, strict=True):
        for axis, (title, attribute, factor, form) in zip(axes, columns, strict=True):
            values = [getattr(row, attribute) for row in table]
            _bars(axis, table, ours(case), values, factor, form)
            axis.set_title(title, fontsize=9, color="#555555")
        axes[0].set_yticks(range(len(table)), [PEERS[row.name].label for row in table])
        axes[0].annotate(
            case["heading"],
            (0, 1),
            xycoords=("figure fraction", "axes fraction"),
            xytext=(8, 18),
            textcoords="offset points",
            fontsize=11,
            fontweight="bold",
            annotation_clip=False,
        )
    return figure


def _save(figure: Any, run: dict[str, Any], path: Path, more: str = "") -> None:
    about = run["environment"]
    figure.suptitle(
        f"seedbed {about['packages'].get('seedbed', '')}, jax {about['packages'].get('jax', '')}, "
        f"{about['cpu']}, {about['cores']} cores{more}",
        fontsize=10,
        color="#555555",
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _colour(name: str, own: str) -> str:
    if name == own:
        return _OURS
    if name.startswith(FLOOR):
        return _FLOOR
    return _OURS_TOO if PEERS[name].is_seedbed else _THEIRS


def _bars(
    axis: Any, table: list[Any], own: str, values: list[Any], factor: float, form: str
) -> None:
    shown = [0.0 if value is None else value * factor for value in values]
    colours = [_colour(row.name, own) for row in table]
    axis.barh(range(len(table)), shown, color=colours, height=0.72)
    longest = max(shown, default=0.0) or 1.0
    for place, (row, value, length) in enumerate(zip(table, values, shown, strict=True)):
        over = row.status == "over" and value is None
        digits = form if length < 1000 else ",.0f"  # never an exponent
        text = format(length, digits) if value is not None else row.reason if over else row.status
        if value is None and row.status == "ok":
            text = "not measured"
        axis.text(length + 0.02 * longest, place, text, va="center", fontsize=8)
    axis.set_xlim(0, 1.25 * longest)
    axis.set_ylim(len(table) - 0.4, -0.6)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.tick_params(length=0, labelsize=8)
    for side in ("top", "right", "bottom"):
        axis.spines[side].set_visible(False)
    axis.spines["left"].set_color("#aaaaaa")
