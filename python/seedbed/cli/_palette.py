"""What the pictures have in common."""

from __future__ import annotations

from typing import Any

OURS, THEIRS, INK, FAINT = "#1b7f5c", "#a9b1ba", "#22282e", "#6b747d"


def plain(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#c9ced3")
    axes.tick_params(colors=FAINT, labelsize=9)
