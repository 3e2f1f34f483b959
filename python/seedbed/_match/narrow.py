"""Rule for narrow words: bfloat16 and float16 draws as tables.

An 8-bit word has 256 values and a float16 mantissa 1,024, so whatever elementwise chain
follows is a table, filled by XLA itself: exact by construction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._plan import Shape
from .._trace import Equation
from . import rounding
from .meaning import Lookup, Meaning, Operand, Word, number

_ELEMENTWISE = frozenset(
    "add sub mul div max min neg abs and or xor not shift_right_logical shift_left erf_inv sqrt "
    "bitcast_convert_type convert_element_type lt le gt ge eq ne clamp exp log log1p expm1 tanh "
    "logistic integer_pow sign floor ceil round cos sin select_n".split()
)
_TABLE_BITS = 12


def step(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    """One more elementwise step on a narrow word, with constants as the other operands."""
    if equation.name not in _ELEMENTWISE:
        return None
    chain = [d for d, operand in enumerate(operands) if isinstance(operand, (Word, Lookup))]
    if len(chain) != 1:
        return None
    others = tuple(None if d == chain[0] else number(operand) for d, operand in enumerate(operands))
    if any(number is None for d, number in enumerate(others) if d != chain[0]):
        return None
    value = operands[chain[0]]
    if isinstance(value, Word):
        if value.bits > 16 or value.step:
            return None
        drop = 0
        if equation.name == "shift_right_logical" and chain[0] == 0:
            drop = int(others[1])  # type: ignore[arg-type]
        if not 0 <= drop < value.bits or value.bits - drop > _TABLE_BITS:
            return None
        value = Lookup(value.path, value.bits, drop, shape, f"uint{value.bits}", ())
    assert isinstance(value, Lookup)
    aval = equation.eqn.outvars[0].aval
    if np.dtype(aval.dtype).itemsize > 4:
        return None
    # Of numbers that keep all of float32's bits, a table has those of another loop.
    if aval.dtype == np.float32 and rounding.short(shape) and rounding.by_loop([equation.eqn]):
        return None
    constants = tuple(
        None if number is None else (np.asarray(number).dtype.name, np.asarray(number).tobytes())
        for number in others
    )
    params = tuple(sorted((k, v) for k, v in equation.params.items()))
    step = (equation.name, params, chain[0], constants)
    return value.replace(shape=shape, dtype=np.dtype(aval.dtype).name, steps=(*value.steps, step))
