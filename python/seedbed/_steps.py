"""Residual equations as inert data: what a plan leaves to XLA, and where its operands are."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from . import _same
from ._draw import Shape
from ._fold import splat


@dataclass(frozen=True, slots=True)
class Operand:
    """Where one operand of the residual program comes from.

    ``kind`` is ``"draw"`` (index into the plan's draws), ``"key"`` (the same, wrapped as typed
    keys of ``impl``), ``"arg"`` (index into the plan's ``args``), ``"capture"`` (into its
    ``captures``) or ``"value"`` (result of an earlier residual equation, by number).
    """

    kind: str
    index: int
    impl: Any = None  # of a ``"key"``


@dataclass(frozen=True, slots=True)
class Splat:
    """A constant array of one repeated number, kept as one number."""

    dtype: str
    shape: Shape
    data: bytes

    def value(self) -> Any:
        number = np.frombuffer(self.data, np.dtype(self.dtype))[0]
        return jnp.full(self.shape, number) if self.shape else number


@dataclass(frozen=True, slots=True)
class Literal:
    """A small constant array."""

    dtype: str
    shape: Shape
    data: bytes

    def value(self) -> Any:
        return np.frombuffer(self.data, np.dtype(self.dtype)).reshape(self.shape)


Source = Operand | Splat | Literal


@dataclass(frozen=True, eq=False)
class Step:
    """One residual equation; compared by what it computes, not by which trace it is from."""

    eqn: Any
    inputs: tuple[Source, ...]
    outputs: tuple[int, ...]

    @functools.cached_property
    def _meaning(self) -> tuple[Any, ...]:
        return (_same.token(self.eqn), self.inputs, self.outputs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Step):
            return NotImplemented
        return self is other or self._meaning == other._meaning

    def __hash__(self) -> int:
        return hash(self._meaning)


def constant(value: np.ndarray[Any, Any]) -> Splat | Literal:
    """A constant as hashable data."""
    number = splat(value)
    if number is not None:
        scalar = np.asarray(number, value.dtype)
        return Splat(value.dtype.name, value.shape, scalar.tobytes())
    return Literal(value.dtype.name, value.shape, np.ascontiguousarray(value).tobytes())
