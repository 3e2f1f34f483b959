"""What the matcher can know about a value: meanings, as inert data.

- `Keys`: an array of keys, each a known chain of folds away from the member key
  (`KeyWords`: the same as raw ``uint32`` words),
- `Word`: random words of 8 to 64 bits, one for each element,
- `Real`: a ``uniform``, ``normal`` or other float with constant parameters, finished or half way,
- `Lookup`: any chain of elementwise operations on 8- or 16-bit words, which has so few
  values that a table holds them,
- `Remainder`, `Integers`: the steps of ``randint``,
- `Sample`: a finished draw on which nothing more can be built,
- `Stack`: draws of the steps of a loop, as the rows of one array.

A meaning whose ``draw()`` is not None can be produced by a backend.
"""

from __future__ import annotations

import enum
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._base.record import Record
from .._jax import ask_xla
from .._plan import RECORDS, Draw, KeyPath, Kind, Node, Shape, float_params, make_draw, params
from .._trace import Const, Equation, splat


class Keys(Record):
    path: KeyPath

    def draw(self) -> Draw | None:
        return Draw(Kind.KEY, self.path, 1, 32, "uint32", (*self.path.batch, 2))


class KeyWords(Record):
    path: KeyPath

    def draw(self) -> Draw | None:
        return Keys(self.path).draw()


class Word(Record):
    path: KeyPath
    bits: int
    shape: Shape
    # Steps done towards a float in [1, 2): 0 word, 1 shifted, 2 exponent set.
    step: int = 0

    def draw(self) -> Draw | None:
        if self.step:
            return None
        return make_draw(Kind.BITS, self.path, self.bits, f"uint{self.bits}", self.shape)


class Stage(enum.Enum):
    """How far a float has come from its random word."""

    ONE_TWO = enum.auto()  # in [1, 2)
    UNIT = enum.auto()  # in [0, 1)
    SCALED = enum.auto()  # on the way to RANGED
    SHIFTED = enum.auto()
    RANGED = enum.auto()  # the finished uniform
    NORMAL = enum.auto()
    CLIP_LOW = enum.auto()  # half a clip
    CLIPPED = enum.auto()
    PART = enum.auto()  # on the way from RANGED to one of the next
    EXPONENTIAL = enum.auto()
    GUMBEL = enum.auto()
    LAPLACE = enum.auto()


# What is done to one uniform: an operation and its operands, or nothing yet.
Expression = str | tuple[Any, ...]
UNCHANGED = "u"
_LOG_U = ("log", UNCHANGED)
# The samplers that are a function of one uniform over a range of their own.
SAMPLERS: dict[Stage, tuple[Kind, Expression]] = {
    Stage.EXPONENTIAL: (Kind.EXPONENTIAL, ("neg", ("log1p", ("neg", UNCHANGED)))),
    Stage.GUMBEL: (Kind.GUMBEL, ("neg", ("log", ("neg", _LOG_U)))),
    Stage.LAPLACE: (
        Kind.LAPLACE,
        ("mul", ("sign", UNCHANGED), ("log1p", ("neg", ("abs", UNCHANGED)))),
    ),
}
# What may be scaled and shifted.
SCALABLE = (Stage.RANGED, Stage.NORMAL, Stage.CLIPPED, *SAMPLERS)


class Real(Record):
    """``max(low, u*span + low)``, ``erf_inv`` of it if ``normal``, or ``of`` it on the way to a
    sampler, then ``clip(. * factor) * scale + shift``, in the dtype's arithmetic."""

    path: KeyPath
    bits: int
    shape: Shape
    stage: Stage
    span: float = 1.0
    low: float = 0.0
    factor: float = 1.0
    clip: tuple[float, float] = (-math.inf, math.inf)
    scale: float = 1.0
    shift: float | None = None
    of: Expression = UNCHANGED

    @property
    def dtype(self) -> Any:
        return np.float64 if self.bits == 64 else np.float32

    @property
    def unsteady(self) -> bool:
        """Whether XLA may round ``erf_inv`` or ``log1p`` by the loop that it compiles around it.

        In float64 it calls the C library's log for each number, and rounds all of them alike.
        """
        row = ask_xla.row(self.shape)
        if self.stage in SAMPLERS:
            return row in ask_xla.UNROLLED_ROWS and not ask_xla.flat_logs()
        return self.bits == 32 and row in ask_xla.SHORT_ROWS and not ask_xla.flat_rows()

    @property
    def closed(self) -> bool:
        """Nothing at the end that XLA may merge with what follows, or round by its loop."""
        rounded = self.scale != 1.0 or self.shift is not None
        return not (self.unsteady or rounded) and self.stage is not Stage.UNIT

    def draw(self) -> Draw | None:
        values = {"span": self.span, "low": self.low, "scale": self.scale}
        values["shift"] = -0.0 if self.shift is None else self.shift
        if self.stage in (Stage.UNIT, Stage.RANGED):
            kind = Kind.UNIFORM
        elif self.stage in (Stage.NORMAL, Stage.CLIP_LOW, Stage.CLIPPED) and not self.unsteady:
            kind = Kind.NORMAL
            values["clip_low"], values["clip_high"] = self.clip
            values["factor"] = self.factor
        elif self.stage in SAMPLERS and not self.unsteady:
            kind = SAMPLERS[self.stage][0]
            values = {name: values[name] for name in RECORDS[kind].params}
        else:
            return None
        constants = float_params(kind, self.bits, **values)
        dtype = np.dtype(self.dtype).name
        return make_draw(kind, self.path, self.bits, dtype, self.shape, constants)


class Lookup(Record):
    """``steps`` applied to the index ``word >> drop``; at most 2**16 different values."""

    path: KeyPath
    bits: int
    drop: int
    shape: Shape
    dtype: str
    # Each step: primitive, hashable parameters, position of the chain, other operands.
    steps: tuple[Any, ...]

    @property
    def closed(self) -> bool:
        """As `Real.closed`; integers never round."""
        # Behind a conversion too: XLA keeps narrow floats wider than they are.
        names = [name for name, *_ in self.steps]
        while names and names[-1] == "convert_element_type":
            names.pop()
        return not (names and names[-1] in ("add", "sub", "mul", "div", "neg"))

    def draw(self) -> Draw | None:
        table = ask_xla.table(self.bits, self.drop, self.steps)
        drop = params(Kind.TABLE, drop=self.drop)
        made = make_draw(Kind.TABLE, self.path, self.bits, self.dtype, self.shape, drop)
        return made.replace(table=table)


class Part(enum.Enum):
    """Of what ``randint`` makes of two words."""

    WORD = enum.auto()  # w % span
    PRODUCT = enum.auto()  # (hi % span) * mult
    SUM = enum.auto()


class Remainder(Record):
    """Steps of ``((hi % span) * mult + lo % span) % span``."""

    part: Part
    path: KeyPath
    bits: int
    shape: Shape
    span: int
    mult: int = 0

    def draw(self) -> Draw | None:
        return None


class Integers(Record):
    """A finished ``randint`` of ``word_bits`` arithmetic, as any integer dtype."""

    path: KeyPath
    bits: int
    shape: Shape
    dtype: str
    span: int
    mult: int
    low: int = 0
    shifted: bool = False

    def draw(self) -> Draw | None:
        values = params(Kind.RANDINT, span=self.span, multiplier=self.mult, first=self.low)
        return make_draw(Kind.RANDINT, self.path, self.bits, self.dtype, self.shape, values)


class Sample(Record):
    made: Draw
    shape: Shape

    def draw(self) -> Draw | None:
        return self.made.replace(shape=self.shape)


class Stack(Record):
    """Equal draws but for their keys, along a new axis."""

    pieces: tuple[Meaning, ...]
    axis: int

    @property
    def shape(self) -> Shape:
        inner: Shape = self.pieces[0].shape  # type: ignore[union-attr]
        return (*inner[: self.axis], len(self.pieces), *inner[self.axis :])

    @property
    def closed(self) -> bool:
        return all(getattr(piece, "closed", True) for piece in self.pieces)

    def draw(self) -> Draw | None:
        return None  # but several


Meaning = Keys | KeyWords | Word | Real | Lookup | Remainder | Integers | Sample | Stack


def restarted(meaning: Meaning, then: Meaning | None, now: Meaning | None) -> Meaning | None:
    """What followed from the key ``then``, following from ``now``; None if that is not sure."""
    if not isinstance(then, (Keys, KeyWords)) or type(then) is not type(now):
        return None
    if isinstance(meaning, Stack):
        pieces = [restarted(piece, then, now) for piece in meaning.pieces]
        found = tuple(piece for piece in pieces if piece is not None)
        return meaning.replace(pieces=found) if len(found) == len(pieces) else None
    start, place = then.path, now.path
    if (start.batch, start.levels) != (place.batch, place.levels):
        return None
    path = meaning.made.key if isinstance(meaning, Sample) else meaning.path
    folds = []
    node = path.node
    while node is not start.node:
        if node.parent is None:
            return None
        folds.append(node.index)
        node = node.parent
    path = path.replace(node=functools.reduce(Node.fold, reversed(folds), place.node))
    if isinstance(meaning, Sample):
        return meaning.replace(made=meaning.made.replace(key=path))
    return meaning.replace(path=path)


# What a rule sees of an operand: its meaning, a constant, or nothing.
Operand = Meaning | Const | None
Rule = Callable[[Equation, Shape, Sequence[Operand]], "Meaning | None"]


def adding_to(rules: dict[str, Rule]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator ``@rule("primitive", ...)`` that puts functions into a table of rules."""

    def rule(*names: str) -> Callable[[Rule], Rule]:
        def register(function: Rule) -> Rule:
            rules.update(dict.fromkeys(names, function))
            return function

        return register

    return rule


def number(operand: Operand) -> Any | None:
    return splat(operand.value) if isinstance(operand, Const) else None


def pair(operands: Sequence[Operand]) -> tuple[Meaning | None, Any | None]:
    """A commutative operation's recognised operand and its constant one."""
    first, second = operands
    if isinstance(first, Const) and second is not None and not isinstance(second, Const):
        return second, splat(first.value)
    if isinstance(second, Const) and first is not None and not isinstance(first, Const):
        return first, splat(second.value)
    return None, None
