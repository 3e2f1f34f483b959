"""Rules for draws as the rows of larger ones: put behind one another, moved, out of a loop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .._jax import ask_xla
from .._plan import KeyPath, Shape
from .._trace import Equation
from .draws import RULES
from .keys import joined, rearranged
from .meaning import (
    Integers,
    Keys,
    KeyWords,
    Lookup,
    Meaning,
    Operand,
    Real,
    Remainder,
    Sample,
    Stack,
    Word,
    adding_to,
)

_rule = adding_to(RULES)
_EXACT = (Word, Remainder, Integers)
_ELEMENTS = (*_EXACT, Real, Lookup, Sample)


def _path(meaning: Meaning) -> KeyPath:
    return meaning.made.key if isinstance(meaning, Sample) else meaning.path  # type: ignore[union-attr]


def _moved(meaning: Meaning, path: KeyPath, shape: Shape) -> Meaning:
    """A draw by other keys, in another shape."""
    if isinstance(meaning, Sample):
        return Sample(meaning.made.replace(key=path, shape=shape), shape)
    return meaning.replace(path=path, shape=shape)


@_rule("transpose")
def _transpose(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    """Dimensions of the keys may change places; the elements of each key stay in order."""
    return _transposed(operands[0], tuple(equation.params["permutation"]), shape)


def _transposed(value: Operand, order: Sequence[int], shape: Shape) -> Meaning | None:
    if isinstance(value, Stack):
        axis = list(order).index(value.axis)
        inner = [d - (d > value.axis) for d in order if d != value.axis]
        row = tuple(extent for d, extent in enumerate(shape) if d != axis)
        pieces = [_transposed(piece, inner, row) for piece in value.pieces]
        found = tuple(piece for piece in pieces if piece is not None)
        return Stack(found, axis) if len(found) == len(pieces) else None
    if list(order) == sorted(order):
        return value if isinstance(value, (*_ELEMENTS, Keys, KeyWords)) else None
    if not isinstance(value, _ELEMENTS):
        return None
    path = _path(value)
    rank = len(path.batch)
    if value.shape[:rank] != path.batch or list(order[rank:]) != list(range(rank, len(order))):
        return None
    if isinstance(value, Real) and ask_xla.row(shape) != ask_xla.row(value.shape):
        return None
    moved = rearranged(path, shape[:rank], lambda index: index.transpose(order[:rank]))
    return None if moved is None else _moved(value, moved, shape)


@_rule("concatenate")
def _concatenate(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    """Draws by keys that follow one another are one draw."""
    values: list[Any] = list(operands)
    if any(isinstance(value, Sample) for value in values):  # some are from a loop, some beside it
        values = [_settled(one) if isinstance(one, _ELEMENTS) else None for one in values]
    first: Any = values[0]
    if equation.params["dimension"] != 0 or not isinstance(first, _ELEMENTS):
        return None
    first = _moved(first, _path(first), first.shape)
    paths = []
    for value in values:
        # Numbers in one dimension are rows of another length, as are the loops XLA makes of them.
        if not isinstance(value, _ELEMENTS) or (len(shape) == 1 and not isinstance(value, _EXACT)):
            return None
        # The same but for the keys, and as many elements of each.
        inner = math.prod(value.shape) * math.prod(_path(first).batch)
        if inner != math.prod(first.shape) * math.prod(_path(value).batch) or not inner:
            return None
        if _moved(value, _path(first), first.shape) != first:
            return None
        paths.append(_path(value))
    path = joined(paths)
    return None if path is None else _moved(first, path, shape)


@_rule("seedbed_rows")
def _rows(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    """What a loop results in: XLA rounds it there, whatever follows."""
    found: list[Meaning] = [one for one in operands if isinstance(one, (*_ELEMENTS, Stack))]
    if len(found) < len(operands):
        return None
    if equation.params["final"]:
        settled = [_settled(one) for one in found]
        found = [one for one in settled if one is not None]
    if len(found) < len(operands):
        return None
    return found[0] if equation.params["whole"] else Stack(tuple(found), 0)


def _settled(meaning: Meaning) -> Meaning | None:
    if not isinstance(meaning, (Real, Lookup)):
        return meaning
    made = meaning.draw()
    return None if made is None else Sample(made, meaning.shape)
