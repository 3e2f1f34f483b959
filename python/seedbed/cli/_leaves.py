"""The picture of a store: for each leaf its values and its members' norms. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, ScalarFormatter

# Leaves in one picture.
MOST = 48
# Green for values and brown for norms: told apart by every kind of eye, and in grey.
_VALUES, _NORMS, _INK, _FAINT, _LINE = "#1b7f5c", "#a6611a", "#22282e", "#6b747d", "#c9ced3"
_BINS = 49
_DISCRETE = 24  # so many different values, or fewer, are shown one by one
_WIDTH = 13.0  # inches
_HEAD, _FOOT, _CARD = 1.3, 0.85, 1.5
# An axis ends this many times as far from the median as 5 % and 95 % are; a normal ends before.
_REACH = 4.0


@dataclass(frozen=True, slots=True)
class Card:
    """A leaf: its name, and the values of some members, one row for each."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    values: np.ndarray[Any, Any]


def draw(path: Path, title: str, about: str, cards: Sequence[Card], left_out: int) -> None:
    """Writes the picture as a PNG.

    Args:
        title, about: of the whole.
        cards: the leaves that are shown.
        left_out: how many leaves are not.
    """
    columns = 1 if len(cards) <= 3 else 2 if len(cards) <= 16 else 3
    rows = -(-len(cards) // columns)
    height = _HEAD + _FOOT + rows * _CARD
    figure = Figure(figsize=(_WIDTH, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(
        0.045, 1 - 0.42 / height, title, fontsize=19, weight="bold", color=_INK, va="center"
    )
    members = max(len(card.values) for card in cards)
    more = f"; {left_out} more arrays are not shown, --leaf shows one" if left_out else ""
    figure.text(
        0.045, 1 - 0.74 / height,
        f"{about}; {members:,} members, evenly from the whole{more}",
        fontsize=12, color=_FAINT, va="center",
    )  # fmt: skip
    figure.text(
        0.045, 0.2 / height,
        "heights: share of the values, and of the members; line: mean; band: 5 % to 95 %",
        fontsize=9.5, color=_FAINT, va="center",
    )  # fmt: skip
    grid = figure.add_gridspec(
        rows, columns, left=0.045, right=0.965, top=1 - _HEAD / height,
        bottom=_FOOT / height, wspace=0.14, hspace=0.85,
    )  # fmt: skip
    for number, card in enumerate(cards):
        last = number + columns >= len(cards)
        pair = grid[number // columns, number % columns].subgridspec(
            1, 2, width_ratios=(1.7, 1), wspace=0.16
        )
        values, norms = figure.add_subplot(pair[0]), figure.add_subplot(pair[1])
        _name(values, card, wide=columns < 3)
        _panel(values, card.values.ravel(), _VALUES, "value" if last else "")
        norm = np.sqrt(np.sum(np.square(card.values), axis=1))
        _panel(norms, norm, _NORMS, "norm of a member" if last else "")
    figure.savefig(path)


def _name(axes: Any, card: Card, wide: bool) -> None:
    kind = f"{card.dtype} {'x'.join(map(str, card.shape)) or 'scalar'}"
    room = (70 if wide else 42) - len(kind)
    name = card.name if len(card.name) <= room else f"...{card.name[3 - room :]}"
    text = axes.annotate(
        name, (0, 1), xycoords="axes fraction", xytext=(0, 5), textcoords="offset points",
        fontsize=10.5, weight="bold", color=_INK, va="bottom",
    )  # fmt: skip
    axes.annotate(
        f"   {kind}", (1, 0), xycoords=text, fontsize=9, color=_FAINT, va="bottom",
    )  # fmt: skip


def _panel(axes: Any, values: np.ndarray[Any, Any], colour: str, label: str) -> None:
    _plain(axes)
    axes.set_xlabel(label, fontsize=9.5, color=_FAINT)
    finite = values[np.isfinite(values)]
    if finite.size < values.size:
        _note(axes, f"{values.size - finite.size:,} not finite")
    if not finite.size:
        axes.set_xticks([])
        return
    low, high = float(finite.min()), float(finite.max())
    if math.isclose(low, high, rel_tol=1e-6, abs_tol=1e-300):
        axes.set_xticks([])
        axes.text(
            0.5, 0.42, f"all {low:.4g}", transform=axes.transAxes, ha="center", va="center",
            fontsize=10.5, color=colour,
        )  # fmt: skip
        return
    different = np.unique(finite) if finite.size < 1 << 16 else np.unique(finite[: 1 << 16])
    if different.size <= _DISCRETE:
        _bars(axes, finite, colour)
    else:
        _histogram(axes, finite, colour, different.size)
    axes.set_ylim(bottom=0)
    whole = different.size <= _DISCRETE and bool((different == np.round(different)).all())
    room = 5 if axes.get_position().width > 0.2 else 3
    axes.xaxis.set_major_locator(MaxNLocator(room, integer=whole, prune=None if whole else "both"))
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_powerlimits((-3, 4))
    axes.xaxis.set_major_formatter(formatter)
    axes.xaxis.get_offset_text().set(fontsize=8, color=_FAINT)


def _bars(axes: Any, values: np.ndarray[Any, Any], colour: str) -> None:
    at, counts = np.unique(values, return_counts=True)
    gaps = np.diff(at)
    width = 0.6 * float(gaps.min()) if at.size > 1 else 1.0
    axes.bar(at, counts / values.size, width=width, color=f"{colour}4d", edgecolor=colour, lw=1.3)
    axes.set_xlim(at[0] - 1.2 * width, at[-1] + 1.2 * width)


def _histogram(axes: Any, values: np.ndarray[Any, Any], colour: str, different: int) -> None:
    low, high = _limits(values)
    inside = values[(values >= low) & (values <= high)]
    # Fewer where there are few values: half-precision normals are 128.
    bins = int(min(_BINS, max(9, inside.size**0.5), max(9, different / 8)))
    counts, edges = np.histogram(inside, bins, (low, high))
    share = counts / values.size
    axes.stairs(share, edges, fill=True, color=colour, alpha=0.30)
    axes.stairs(share, edges, color=colour, lw=1.3)
    first, last = np.quantile(values, (0.05, 0.95))
    axes.axvspan(first, last, ymax=0.035, color=colour, lw=0)
    axes.axvline(float(inside.mean()), color=_INK, lw=1.0)
    axes.set_xlim(low, high)
    if inside.size < values.size:
        _note(axes, f"{100 * (1 - inside.size / values.size):.2g} % are beyond")


def _limits(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The range of an axis: of all values, unless some are far from the rest."""
    low, high = float(values.min()), float(values.max())
    first, middle, last = (float(one) for one in np.quantile(values, (0.05, 0.5, 0.95)))
    if not first < middle < last:
        return low, high
    return max(low, middle - _REACH * (middle - first)), min(
        high, middle + _REACH * (last - middle)
    )


def _note(axes: Any, text: str) -> None:
    axes.text(
        1, 0.98, text, transform=axes.transAxes, fontsize=8, color=_FAINT, ha="right", va="top"
    )


def _plain(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.set_yticks([])
    axes.tick_params(axis="x", colors=_FAINT, labelsize=8.5, length=3)
