"""Which parts of a draw can be made alone."""

from __future__ import annotations

from .draw import Draw, Shape


def can_tile(draw: Draw, tile: Shape) -> bool:
    return False
