"""A block of a draw: which of the whole draw's keys and counters its elements have.

A draw's array is cut into equal blocks along some of its dimensions, as a sharding cuts it. All
blocks are alike but for where they start, so one description serves them all: the number of the
block along each dimension is an operand of the call (`csrc/plan.h`).
"""

from __future__ import annotations

import math

from .._base.record import Record
from .draw import Draw, Kind, Level, Shape


class Part(Record):
    """Where a block starts along dimension ``dim`` of its layout, which has this extent there:
    at ``extent * (number // divisor % count)``, by its number along ``axis`` of the draw's shape.
    """

    dim: int
    axis: int
    divisor: int
    count: int


class Rows(Record):
    """A draw, or one block of it, in rows: of one key and of consecutive counters each.

    Attributes:
        dims: there is a row for each place in them.
        counters: by dimension, the distance between the first counters of rows.
        levels: as those of `KeyPath`, with strides by dimension.
        inner: elements of a row.
        parts: of a block, where it starts, by ascending dimension; ``len(dims)`` is for the places
            in a row.
        blocks: how many there are along each dimension of the draw's shape.
    """

    dims: Shape
    counters: tuple[int, ...]
    levels: tuple[Level, ...]
    inner: int
    parts: tuple[Part, ...] = ()
    blocks: Shape = ()


def rows_of(draw: Draw, tile: Shape | None) -> Rows | None:
    """A draw, or its blocks of this shape, in rows; None if these cannot be made.

    The draw's shape and the dimensions of its keys and counters are cut into factors which both
    are products of, as a reshape may have merged or split some. A block must not cut a factor
    unevenly, nor the two words of a key apart.
    """
    batch, levels = draw.key.batch, draw.key.levels
    if tile is None:
        return Rows(batch, (0,) * len(batch), levels, draw.inner)
    if len(tile) != len(draw.shape) or not all(map(_divides, tile, draw.shape)):
        return None
    blocks = tuple(size // one if size else 1 for size, one in zip(draw.shape, tile, strict=True))
    if draw.kind is Kind.CONSTANT:
        return Rows((), (), (), math.prod(tile), (), blocks)
    if 0 in draw.shape:
        return Rows((0,), (0,), (), 1, (), blocks)
    is_key = draw.kind is Kind.KEY
    factors = _factors(draw.shape, (*batch, 2 if is_key else draw.inner))
    if factors is None:
        return None
    left, counts = [*tile], [1] * len(tile)
    units = [1] * (len(batch) + 1)  # places between neighbours along a factor, in its dimension
    # What is collected, the innermost first: the run of counters, then dimensions of rows.
    made = [_Dim(1, 1, (0,) * len(levels))]
    for size, axis, dim in factors:
        extent = min(size, left[axis])
        if size % extent or left[axis] % extent:
            return None
        left[axis] //= extent
        count, divisor, unit = size // extent, counts[axis], units[dim]
        counts[axis] *= count
        units[dim] *= size
        if dim < len(batch):
            one = _Dim(extent, 0, tuple(level.strides[dim] * unit for level in levels))
        elif is_key:
            if count > 1:
                return None
            continue
        else:
            one = _Dim(extent, unit, (0,) * len(levels))
        one.part = (axis, divisor, count) if count > 1 else None
        made[-1].grow(one) if made[-1].continues(one) else made.append(one)
    run, dims = made[0], made[:0:-1]
    return Rows(
        tuple(one.extent for one in dims),
        tuple(one.counter for one in dims),
        tuple(
            Level(level.base, tuple(one.strides[i] for one in dims))
            for i, level in enumerate(levels)
        ),
        run.extent,
        tuple(Part(d, *one.part) for d, one in enumerate((*dims, run)) if one.part),
        blocks,
    )


class _Dim:
    """A dimension of a block's rows, or the run of counters in them."""

    def __init__(self, extent: int, counter: int, strides: tuple[int, ...]) -> None:
        self.extent, self.counter, self.strides = extent, counter, strides
        self.part: tuple[int, int, int] | None = None

    def continues(self, outer: _Dim) -> bool:
        """Whether the next dimension outwards is more of the same."""
        steps = zip((outer.counter, *outer.strides), (self.counter, *self.strides), strict=True)
        return self.part is None and all(far == near * self.extent for far, near in steps)

    def grow(self, outer: _Dim) -> None:
        self.extent *= outer.extent
        self.part = outer.part


def _divides(one: int, size: int) -> bool:
    return one == size or (one > 0 and size > 0 and size % one == 0)


def _factors(first: Shape, second: Shape) -> list[tuple[int, int, int]] | None:
    """Extents whose products both shapes consist of, the innermost first, each with the dimension
    of either shape that it is in. Both have as many elements."""
    found: list[tuple[int, int, int]] = []
    i, j, left_i, left_j = len(first), len(second), 1, 1
    while True:
        while left_i == 1 and i > 0:
            i -= 1
            left_i = first[i]
        while left_j == 1 and j > 0:
            j -= 1
            left_j = second[j]
        if left_i == left_j == 1:
            return found
        size = min(left_i, left_j)
        if left_i % size or left_j % size:
            return None
        found.append((size, i, j))
        left_i //= size
        left_j //= size
