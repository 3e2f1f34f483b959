"""Residual equations as inert data: what a plan leaves to XLA, and where its operands are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from .._base.record import Record
from .._trace import fingerprint, splat
from .draw import Shape

if TYPE_CHECKING:
    from .._jax.types import Eqn


class FromDraw(Record):
    """A draw of the plan, by its index."""

    index: int


class FromKeys(Record):
    """A draw of the plan, by its index, as typed keys of ``impl``."""

    index: int
    impl: Any


class FromWords(Record):
    """Random words as jax's loops have them, as ``dtype``: a draw, xor the draw ``zeros``; or, of
    64 bits, its two halves."""

    index: int
    dtype: str
    zeros: int = -1


class Stacked(Record):
    """Draws of the plan as the rows of one array, along a new axis."""

    rows: tuple[FromDraw | Stacked, ...]
    axis: int

    @property
    def draws(self) -> tuple[int, ...]:
        """The indices of all draws in it."""
        found = [row.draws if isinstance(row, Stacked) else (row.index,) for row in self.rows]
        return tuple(index for indices in found for index in indices)


class FromArgument(Record):
    """An argument leaf, by its index in the plan's ``args``."""

    index: int


class FromCapture(Record):
    """An array that the function closes over, by its index in the plan's ``captures``."""

    index: int


class FromStep(Record):
    """A result of an earlier residual equation, by its number."""

    number: int


class Splat(Record):
    """A constant array of one repeated number, kept as one number."""

    dtype: str
    shape: Shape
    data: bytes

    def value(self) -> Any:
        number = np.frombuffer(self.data, np.dtype(self.dtype))[0]
        return jnp.full(self.shape, number) if self.shape else number


class Literal(Record):
    """A small constant array."""

    dtype: str
    shape: Shape
    data: bytes

    def value(self) -> Any:
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape)


# Where an operand of a residual equation, or a leaf of the result, comes from.
_Made = FromDraw | FromKeys | FromWords | Stacked
Source = _Made | FromArgument | FromCapture | FromStep | Splat | Literal
Drawn = (FromDraw, FromKeys)  # written by the custom call as they are
Computed = (FromArgument, FromCapture, FromStep)  # left to XLA, member by member


class Shown(Record):
    """An equation as text: what a pickle holds of it, since jax's own objects do not pickle."""

    text: str


class Computation:
    """What an equation computes; compared by that, not by which trace it is from."""

    __slots__ = ("_token", "eqn")

    def __init__(self, eqn: Eqn) -> None:
        self.eqn = eqn
        self._token: fingerprint.Fingerprint | None = None

    def token(self) -> fingerprint.Fingerprint:
        if self._token is None:
            self._token = fingerprint.token(self.eqn)
        return self._token

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Computation):
            return NotImplemented
        return self.eqn is other.eqn or self.token() == other.token()

    def __hash__(self) -> int:
        # The rest costs more than a comparison that is not needed.
        return hash(str(self.eqn.primitive.name))

    def __reduce__(self) -> Any:
        return Shown, (str(self.eqn),)


class Step(Record):
    """One residual equation: what it computes, from what, and the numbers of its results."""

    computation: Computation | Shown
    inputs: tuple[Source, ...]
    outputs: tuple[int, ...]

    @property
    def eqn(self) -> Any:
        if isinstance(self.computation, Shown):
            raise TypeError("a plan that was pickled can be read, and not run")
        return self.computation.eqn


def constant(value: np.ndarray[Any, Any]) -> Splat | Literal:
    """A constant as hashable data."""
    number = splat(value)
    if number is not None:
        scalar = np.asarray(number, value.dtype)
        return Splat(value.dtype.name, value.shape, scalar.tobytes())
    return Literal(value.dtype.name, value.shape, np.ascontiguousarray(value).tobytes())
