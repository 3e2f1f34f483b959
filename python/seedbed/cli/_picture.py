"""The demo's picture: the ensemble as functions, and what making it took. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from . import _measure, _model, _text
from ._palette import FAINT, INK, OURS, THEIRS, plain

_FAN = 1024  # members in the fan
_TILES = 10  # members in the gallery
_MARKED = 3  # of them also marked in the fan, which is a line through the gallery's plane
_SLOPE = 0.4


@dataclass(frozen=True, slots=True)
class Network:
    """The members' parameters, and what is needed to apply them."""

    layers: Sequence[int]
    library: str
    params: Any

    def outputs(self, points: np.ndarray[Any, Any], members: int) -> np.ndarray[Any, Any]:
        """First output of some members at points of the plane: ``(members, len(points))``."""
        some = jax.tree.map(lambda leaf: leaf[:members], self.params)
        inputs = _features(points, self.layers[0])
        apply = jax.vmap(lambda one: _model.apply(self.layers, self.library, one, inputs)[:, 0])
        return np.asarray(jax.jit(apply)(some))


def _features(points: np.ndarray[Any, Any], width: int) -> jax.Array:
    """Points ``(n, 2)`` as network inputs ``(n, width)``: waves of random direction and phase."""
    random = np.random.default_rng(3)
    waves = random.normal(0.0, 1.0, (2, width))
    phases = random.uniform(0.0, 2 * np.pi, width)
    return jnp.asarray(np.sqrt(2.0) * np.cos(points @ waves + phases), jnp.float32)


def draw(
    path: Path,
    title: str,
    how: str,
    verdict: str,
    network: Network,
    fresh: dict[str, Any],
    warm: dict[str, float],
) -> None:
    """Writes the picture as a PNG.

    Args:
        title, how, verdict: what was made, by which backend, and whether all bits agree.
        fresh: by way, what `_measure.measure` found.
        warm: by way, median seconds.
    """
    figure = Figure(figsize=(13, 7.6), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.07, 0.945, title, fontsize=19, weight="bold", color=INK)
    figure.text(
        0.07, 0.905, f"{how} against jax.jit(jax.vmap(init)): {verdict}",
        fontsize=12, color=FAINT,
    )  # fmt: skip
    grid = figure.add_gridspec(
        2, 2, width_ratios=(1.75, 1), height_ratios=(2.5, 1),
        left=0.07, right=0.965, top=0.83, bottom=0.03, wspace=0.2, hspace=0.46,
    )  # fmt: skip
    _fan(figure.add_subplot(grid[0, 0]), network)
    bars = grid[0, 1].subgridspec(3, 1, hspace=0.75)
    _times(figure.add_subplot(bars[0]), "cold start", {w: fresh[w]["cold"] for w in fresh})
    _times(figure.add_subplot(bars[1]), "warm", warm)
    _memory(figure.add_subplot(bars[2]), fresh)
    tiles = grid[1, :].subgridspec(1, _TILES, wspace=0.07)
    figure.text(0.07, 0.254, "the first of them as functions of two inputs", fontsize=12, color=INK)
    _gallery([figure.add_subplot(tiles[index]) for index in range(_TILES)], network)
    figure.savefig(path)


def _fan(axes: Any, network: Network) -> None:
    """Every member as a function of one input."""
    x = np.linspace(-3, 3, 241)
    y = network.outputs(np.stack([x, _SLOPE * x], axis=1), _FAN)
    lines = np.stack([np.broadcast_to(x, y.shape), y], axis=2)
    order = np.argsort(np.argsort(y.mean(axis=1)))
    colours = colormaps["BrBG"](0.08 + 0.84 * order / max(len(y) - 1, 1))
    axes.add_collection(LineCollection(list(lines), colors=colours, alpha=0.22, linewidths=0.6))
    for share in (0.05, 0.95):
        axes.plot(x, np.quantile(y, share, axis=0), color=INK, lw=1.1, ls=(0, (4, 3)))
    for member in y[:_MARKED]:
        axes.plot(x, member, color=INK, lw=1.5)
    limit = float(np.quantile(np.abs(y), 0.998))
    axes.set(xlim=(x[0], x[-1]), ylim=(-limit, limit))
    axes.set_xlabel("input, along a line through its plane", color=INK)
    axes.set_ylabel("first output of the network", color=INK)
    axes.set_title(f"{len(y):,} new members as functions of one input", loc="left", color=INK)
    axes.text(
        0.012, 0.02, "colour: a member's mean; dashed: 5 % to 95 %; solid: the lines drawn below",
        transform=axes.transAxes, fontsize=9, color=INK,
        bbox={"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "pad": 2},
    )  # fmt: skip
    plain(axes)


def _times(axes: Any, name: str, seconds: dict[str, float]) -> None:
    ours, theirs = (seconds[way] for way in _measure.WAYS)
    _bars(axes, (ours, theirs), (_text.seconds(ours), _text.seconds(theirs)))
    axes.set_title(f"{name}: {theirs / ours:.1f} times faster", loc="left", color=INK)


def _memory(axes: Any, fresh: dict[str, Any]) -> None:
    extra = [fresh[way]["extra"] for way in _measure.WAYS]
    if None in extra:
        axes.set_axis_off()
        return
    output = fresh[_measure.WAYS[0]]["output"]
    _bars(axes, extra, [f"{value / output:.2f} x" for value in extra])
    axes.axvline(output, color=INK, lw=1.0, ls=(0, (2, 2)))
    axes.set_title(f"peak memory; dashed: the result, {_text.size(output)}", loc="left", color=INK)


def _bars(axes: Any, values: Sequence[float], labels: Sequence[str]) -> None:
    axes.barh((1, 0), values, color=(OURS, THEIRS), height=0.72)
    for row, value, label in zip((1, 0), values, labels, strict=True):
        axes.text(value, row, f"  {label}", va="center", fontsize=10, color=INK)
    axes.set(yticks=(1, 0), yticklabels=("seedbed", "jax"), xlim=(0, 1.28 * max(values)))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.tick_params(axis="x", bottom=False, labelbottom=False)
    plain(axes)
    axes.spines["bottom"].set_visible(False)


def _gallery(tiles: Sequence[Any], network: Network) -> None:
    """The first members as functions of two inputs."""
    side = np.linspace(-3, 3, 96)
    points = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    images = network.outputs(points, len(tiles)).reshape(-1, len(side), len(side))
    limit = float(np.quantile(np.abs(images), 0.99))
    for number, axes in enumerate(tiles):
        axes.set_axis_off()
        if number < len(images):
            axes.imshow(
                images[number], cmap="BrBG", vmin=-limit, vmax=limit, origin="lower",
                extent=(-3, 3, -3, 3),
            )  # fmt: skip
            axes.set_title(f"member {number}", fontsize=9, color=FAINT, pad=4)
        if number < min(_MARKED, len(images)):
            axes.plot((-3, 3), (-3 * _SLOPE, 3 * _SLOPE), color=INK, lw=1.5)
