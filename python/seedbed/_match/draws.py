"""Rules for draws: from random words to uniforms, what is made of them, and integers.

To teach the planner another sampler, write a rule here: a function of the equation, its
output shape and the meanings (or constants) of its operands, under ``@_rule("primitive")``.
It returns the meaning of the output, or None when it is not sure: the equation then stays
residual and the result is right all the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._jax.ask_xla import divides_by_reciprocals, merges_factors
from .._plan import RECORDS, Kind, Shape, float_params, make_draw
from .._trace import Const, Equation
from .meaning import (
    SAMPLERS,
    SCALABLE,
    UNCHANGED,
    Expression,
    Integers,
    Keys,
    KeyWords,
    Meaning,
    Operand,
    Part,
    Real,
    Remainder,
    Rule,
    Sample,
    Stack,
    Stage,
    Word,
    adding_to,
    number,
    pair,
)

RULES: dict[str, Rule] = {}
_rule = adding_to(RULES)


# Everything else works element by element, on operands of the result's shape.
RESHAPES = ("reshape", "squeeze", "expand_dims", "broadcast_in_dim")
REARRANGES = (*RESHAPES, "transpose", "concatenate", "seedbed_rows")


@_rule(*RESHAPES)
def _reshape(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    """A draw in another shape is the same draw, as long as the flat order stays."""
    value = operands[0]
    if value is None or isinstance(value, (Const, Keys, KeyWords, Stack)) or len(operands) != 1:
        return None
    if equation.params.get("dimensions") and equation.name == "reshape":
        return None
    if equation.name == "broadcast_in_dim":
        axes = list(equation.params["broadcast_dimensions"])
        if axes != sorted(axes) or math.prod(shape) != math.prod(value.shape):
            return None
    return value.replace(shape=shape)


@_rule("copy", "copy_p", "stop_gradient", "name")
def _identity(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    return operands[0] if not isinstance(operands[0], Const) else None


_MANTISSA_SHIFT = {32: 9, 64: 12}
_ONE = {32: 0x3F800000, 64: 0x3FF0000000000000}


@_rule("shift_right_logical")
def _shift(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    word, amount = operands[0], number(operands[1])
    if isinstance(word, Word) and word.step == 0 and amount is not None:
        if _MANTISSA_SHIFT.get(word.bits) == int(amount):
            return word.replace(shape=shape, step=1)
    return None


@_rule("or")
def _or(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    word, pattern = pair(operands)
    if isinstance(word, Word) and word.step == 1 and pattern is not None:
        if int(pattern) == _ONE[word.bits]:
            return word.replace(shape=shape, step=2)
    return None


@_rule("bitcast_convert_type")
def _bitcast(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    word = operands[0]
    if isinstance(word, Word) and word.step == 2:
        if np.dtype(equation.params["new_dtype"]).name == f"float{word.bits}":
            return Real(word.path, word.bits, shape, Stage.ONE_TWO)
    return None


def _times(real: Real, shape: Shape, constant: Any) -> Meaning | None:
    """One more constant factor, rounded where XLA rounds it."""
    if not _usual(real, constant):
        return None
    if constant == 1.0:
        return real.replace(shape=shape)
    if real.scale == 1.0:
        return real.replace(shape=shape, scale=float(constant))
    if merges_factors():
        with np.errstate(all="ignore"):
            scale = float(real.dtype(real.scale) * real.dtype(constant))
        return real.replace(shape=shape, scale=scale) if _usual(real, scale) else None
    if real.stage is Stage.NORMAL and real.factor == 1.0:
        return real.replace(shape=shape, factor=real.scale, scale=float(constant))
    return None


def _usual(real: Real, factor: Any) -> bool:
    """Not a factor that XLA flushes to zero or that makes an infinity when merged."""
    size = abs(float(factor))
    return size == 0.0 or float(np.finfo(real.dtype).tiny) <= size < math.inf


@_rule("sub")
def _sub(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    real, constant = operands[0], number(operands[1])
    if not isinstance(real, Real) or constant is None:
        return None
    if real.stage is Stage.ONE_TWO:
        return real.replace(shape=shape, stage=Stage.UNIT) if constant == 1.0 else None
    return _shifted(real, shape, -float(constant))


@_rule("mul")
def _mul(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    value, constant = pair(operands)
    if constant is None:
        return _function(equation, shape, operands)
    if isinstance(value, Remainder) and value.part is Part.WORD:
        return value.replace(shape=shape, part=Part.PRODUCT, mult=int(constant))
    if not isinstance(value, Real) or value.shift is not None:
        return None
    if value.stage is Stage.UNIT:
        return value.replace(shape=shape, stage=Stage.SCALED, span=float(constant))
    if value.stage in SCALABLE:
        return _times(value, shape, constant)
    return None


@_rule("div")
def _div(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    real, constant = operands[0], number(operands[1])
    if not isinstance(real, Real) or real.shift is not None or constant is None:
        return None
    if real.stage not in SCALABLE:
        return None
    exact = abs(math.frexp(float(constant))[0]) == 0.5  # powers of two
    if not (exact or divides_by_reciprocals()):
        return None
    with np.errstate(all="ignore"):
        return _times(real, shape, real.dtype(1.0) / real.dtype(constant))


@_rule("add", "add_any")
def _add(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    first, second = operands
    if isinstance(first, Remainder) and isinstance(second, Remainder):
        return _remainder_sum(first, second, shape)
    value, constant = pair(operands)
    if constant is None:
        return None
    if isinstance(value, Integers) and not value.shifted:
        low = int(constant) & ((1 << value.bits) - 1)
        whole = np.dtype(value.dtype).itemsize * 8 == value.bits
        return value.replace(shape=shape, low=low, shifted=True) if whole else None
    if not isinstance(value, Real):
        return None
    if value.stage is Stage.SCALED:
        return value.replace(shape=shape, stage=Stage.SHIFTED, low=float(constant))
    return _shifted(value, shape, float(constant))


def _shifted(real: Real, shape: Shape, constant: float) -> Meaning | None:
    if real.stage not in SCALABLE or real.shift is not None:
        return None
    # XLA leaves out the addition of a zero, also where it would make 0.0 of -0.0.
    return real.replace(shape=shape, shift=constant if constant else None)


@_rule("max")
def _max(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    real, bound = pair(operands)
    if not isinstance(real, Real) or bound is None or real.shift is not None:
        return None
    if real.stage is Stage.SHIFTED and _same(float(bound), real.low):
        return real.replace(shape=shape, stage=Stage.RANGED)
    if real.stage is Stage.NORMAL and real.factor == 1.0:
        # The clip separates the factors before it from those after.
        clip = (float(bound), math.inf)
        return real.replace(
            shape=shape, stage=Stage.CLIP_LOW, clip=clip, factor=real.scale, scale=1.0
        )
    return None


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


@_rule("min")
def _min(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    real, bound = pair(operands)
    if isinstance(real, Real) and real.stage is Stage.CLIP_LOW and bound is not None:
        return real.replace(shape=shape, stage=Stage.CLIPPED, clip=(real.clip[0], float(bound)))
    return None


@_rule("clamp")
def _clamp(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    low, real, high = number(operands[0]), operands[1], number(operands[2])
    plain = (Stage.NORMAL, 1.0, None)
    if isinstance(real, Real) and (real.stage, real.factor, real.shift) == plain:
        if low is not None and high is not None:
            clip = (float(low), float(high))
            return real.replace(
                shape=shape, stage=Stage.CLIPPED, clip=clip, factor=real.scale, scale=1.0
            )
    return None


@_rule("erf_inv")
def _erf_inv(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    real = operands[0]
    if not isinstance(real, Real) or real.stage is not Stage.RANGED:
        return None
    if real.scale != 1.0 or real.shift is not None:
        return None
    return real.replace(shape=shape, stage=Stage.NORMAL)


# --- functions of one uniform -------------------------------------------------------------


def _parts(of: Expression) -> Iterator[Expression]:
    """An expression and those inside of it."""
    yield of
    for operand in of[1:] if isinstance(of, tuple) else ():
        yield from _parts(operand)


_MADE = {(of, RECORDS[kind].over): stage for stage, (kind, of) in SAMPLERS.items()}
_ON_THE_WAY = {(part, RECORDS[kind].over) for kind, of in SAMPLERS.values() for part in _parts(of)}


@_rule("neg", "log", "log1p", "abs", "sign")
def _function(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    """One more operation on one uniform, if it may become one of the samplers."""
    first = operands[0]
    if not isinstance(first, Real) or first.bits != 32:
        return None
    uniform = first.replace(stage=Stage.RANGED, of=UNCHANGED)
    if uniform.scale != 1.0 or uniform.shift is not None:
        return None
    inside = []
    for real in operands:
        if not isinstance(real, Real) or real.stage not in (Stage.RANGED, Stage.PART):
            return None
        if real.replace(stage=Stage.RANGED, of=UNCHANGED) != uniform:
            return None
        inside.append(real.of)
    made = ((equation.name, *inside), (uniform.span, uniform.low))
    if made in _MADE:
        return uniform.replace(shape=shape, stage=_MADE[made])
    if made in _ON_THE_WAY:
        return uniform.replace(shape=shape, stage=Stage.PART, of=made[0])
    return None


@_rule("lt")
def _lt(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    real, bound = operands[0], number(operands[1])
    if not isinstance(real, Real) or real.stage not in (Stage.UNIT, Stage.RANGED) or bound is None:
        return None
    if real.scale != 1.0 or real.shift is not None:
        return None
    params = float_params(Kind.BERNOULLI, real.bits, span=real.span, low=real.low, p=float(bound))
    made = make_draw(Kind.BERNOULLI, real.path, real.bits, "bool", shape, params)
    return Sample(made, shape)


# --- integers ---------------------------------------------------------------------------


@_rule("rem")
def _rem(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    value, span = operands[0], number(operands[1])
    if span is None:
        return None
    if isinstance(value, Word) and value.step == 0 and value.bits in (32, 64):
        return Remainder(Part.WORD, value.path, value.bits, shape, int(span))
    if isinstance(value, Remainder) and value.part is Part.SUM and value.span == int(span):
        unsigned = f"uint{value.bits}"
        return Integers(value.path, value.bits, shape, unsigned, value.span, value.mult)
    return None


def _remainder_sum(first: Remainder, second: Remainder, shape: Shape) -> Meaning | None:
    """The sum of the two words' parts, if their keys are the two halves of one split."""
    if first.part is Part.WORD:
        first, second = second, first
    if (first.part, second.part) != (Part.PRODUCT, Part.WORD):
        return None
    if (first.bits, first.span) != (second.bits, second.span):
        return None
    high, low = first.path.last(), second.path.last()
    if high is None or low is None or high[0] != low[0] or (high[1], low[1]) != (0, 1):
        return None
    parent = high[0]
    return Remainder(Part.SUM, parent, first.bits, shape, first.span, first.mult)


@_rule("convert_element_type")
def _convert(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    value, new = operands[0], np.dtype(equation.params["new_dtype"])
    if isinstance(value, Integers) and new.kind in "iu":
        if new.itemsize <= np.dtype(value.dtype).itemsize:
            return value.replace(shape=shape, dtype=new.name)
    if isinstance(value, Real) and new == np.dtype(value.dtype):
        return value.replace(shape=shape)
    if isinstance(value, Word) and value.step == 0 and new.name == f"uint{value.bits}":
        return value.replace(shape=shape)
    return None
