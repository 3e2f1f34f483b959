"""Structural equality of traced programs: whether two traces mean the same computation.

Every trace makes new equations and variables, and often new nested jaxprs. A fingerprint
forgets those objects and keeps what decides the numbers, so that a program compiled for one
trace serves the next. Equal fingerprints mean equal programs; unequal ones of programs that
happen to agree cost a compilation and nothing else.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._base.record import Record
from .._jax import jaxprs

if TYPE_CHECKING:
    from .._jax.types import Eqn

_JAXPRS = jaxprs.JAXPRS
_BY_VALUE = frozenset([bool, int, str, bytes])
# Parameters nested deeper than this are compared by identity.
_DEPTH_LIMIT = 32


class _Identity:
    """A value compared by identity, and kept alive, so that its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return hash((_Identity, id(self.value)))


class Fingerprint:
    """What `token` returns: a flat tuple, one entry for each distinct nested jaxpr."""

    __slots__ = ("_bodies", "_hash")

    def __init__(self, bodies: tuple[Hashable, ...]) -> None:
        self._bodies = bodies
        self._hash = hash(bodies)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Fingerprint):
            return NotImplemented
        return self is other or (self._hash == other._hash and self._bodies == other._bodies)

    def __hash__(self) -> int:
        return self._hash


def token(program: Any) -> Fingerprint:
    """The fingerprint of one equation, or of a jaxpr (closed or not).

    Equal by value: primitives, types, literals, numpy arrays (by their bytes), contexts, and
    parameters of plain data. Equal by identity: jax arrays that a nested jaxpr closes over,
    functions, and everything else that does not show what it means.
    """
    if isinstance(program, _JAXPRS):
        return _Walk().run(_body(program))
    inputs = tuple(v for v in program.invars if not jaxprs.is_literal(v))
    # The same variable read twice is one input.
    return _Walk().run(_Body(tuple(dict.fromkeys(inputs)), (), (program,), tuple(program.outvars)))


def token_of_parts(
    inputs: tuple[Any, ...],
    constants: tuple[tuple[Any, Any], ...],
    eqns: tuple[Any, ...],
    outvars: tuple[Any, ...],
) -> Fingerprint:
    """The fingerprint of part of a jaxpr, whose constants are small and compared by value."""
    return _Walk().run(_Body(inputs, constants, eqns, outvars, settled=True))


class _Body(Record):
    """The parts of a jaxpr that are compared."""

    inputs: tuple[Any, ...]
    consts: tuple[tuple[Any, Any], ...]
    eqns: Sequence[Any]
    outvars: Sequence[Any]
    effects: Any = frozenset()
    # Whether the constants are small numbers, compared by value even where jax holds them.
    settled: bool = False


def _body(program: Any) -> _Body:
    jaxpr, consts = jaxprs.opened(program)
    # An open jaxpr takes its constants as inputs.
    variables = tuple(jaxpr.constvars)
    bound = tuple(zip(variables, consts, strict=True)) if consts else ()
    inputs = (() if bound else variables) + tuple(jaxpr.invars)
    return _Body(inputs, bound, jaxpr.eqns, jaxpr.outvars, jaxpr.effects)


class _Walk:
    """Numbers the nested jaxprs, inner ones first, equal ones alike. Iterative over nesting."""

    def __init__(self) -> None:
        self.bodies: dict[Hashable, int] = {}
        self.known: dict[int, int] = {}
        self.contexts: dict[int, Hashable] = {}
        # What the body being described contains and was not numbered yet.
        self.missing: list[tuple[Any, _Body]] = []

    def run(self, root: _Body) -> Fingerprint:
        pending: list[tuple[Any, _Body]] = [(None, root)]
        while pending:
            jaxpr, body = pending[-1]
            if id(jaxpr) in self.known:
                pending.pop()
                continue
            self.missing = self.called(body)
            described = None if self.missing else self.describe(body)
            if self.missing:
                pending += self.missing
                continue
            pending.pop()
            number = self.bodies.setdefault(described, len(self.bodies))
            if jaxpr is not None:
                self.known[id(jaxpr)] = number
        return Fingerprint(tuple(self.bodies))

    def called(self, body: _Body) -> list[tuple[Any, _Body]]:
        """The nested jaxprs in plain sight that are not numbered yet; `freeze` finds the rest."""
        found = {}
        for eqn in body.eqns:
            for value in eqn.params.values():
                for item in value if type(value) is tuple else (value,):
                    if isinstance(item, _JAXPRS) and id(item) not in self.known:
                        found[id(item)] = item
        return [(item, _body(item)) for item in found.values()]

    def describe(self, body: _Body) -> Hashable:
        numbers: dict[Any, int] = {}

        def bind(variables: Sequence[Any]) -> tuple[Hashable, ...]:
            for variable in variables:
                numbers[variable] = len(numbers)
            return tuple(variable.aval for variable in variables)

        def read(variable: Any) -> Hashable:
            if jaxprs.is_literal(variable):
                return ("literal", variable.aval, _literal(variable))
            return numbers[variable]

        consts = tuple(
            _array(np.asarray(value)) if body.settled else self.freeze(value)
            for _, value in body.consts
        )
        header = (bind([variable for variable, _ in body.consts]), consts, bind(body.inputs))
        eqns = []
        for eqn in body.eqns:
            inputs = tuple(read(variable) for variable in eqn.invars)
            params = tuple((name, self.freeze(eqn.params[name])) for name in sorted(eqn.params))
            outputs = bind(eqn.outvars)
            effects = self.freeze(frozenset(eqn.effects))
            eqns.append(
                (_Identity(eqn.primitive), inputs, outputs, params, effects, self.context(eqn))
            )
        results = tuple(read(variable) for variable in body.outvars)
        return (header, tuple(eqns), results, self.freeze(frozenset(body.effects)))

    def context(self, eqn: Eqn) -> Hashable:
        found = self.contexts.get(id(eqn.ctx))
        if found is None:
            found = self.contexts[id(eqn.ctx)] = self.freeze(jaxprs.context_fields(eqn))
        return found

    def freeze(self, value: Any, depth: int = 0) -> Hashable:
        """``value`` as a hashable that equals another only if the two mean the same."""
        kind = type(value)
        if value is None or kind in _BY_VALUE:
            return (kind, value)  # with its type, since 1 == True == 1.0
        if kind is float or kind is complex:
            return (kind, np.asarray(value).tobytes())  # tells 0.0 from -0.0, and nan is nan
        if depth > _DEPTH_LIMIT:
            return _Identity(value)
        if kind is tuple or kind is list or (isinstance(value, tuple) and hasattr(kind, "_fields")):
            return (kind, *[self.freeze(item, depth + 1) for item in value])
        if isinstance(value, _JAXPRS):
            number = self.known.get(id(value))
            if number is None:
                self.missing.append((value, _body(value)))
            return ("jaxpr", number)
        if isinstance(value, np.dtype):
            return (kind, value)
        if isinstance(value, (enum.Enum, type)):
            return _Identity(value)
        if isinstance(value, frozenset):
            return (kind, frozenset(self.freeze(item, depth + 1) for item in value))
        if isinstance(value, Mapping):
            items = [(key, value[key]) for key in value]
            return (kind, *[self.freeze(item, depth + 1) for item in items])
        if isinstance(value, jax.Array):
            return _Identity(value)
        if isinstance(value, (np.ndarray, np.generic)):
            return _array(value)
        if isinstance(value, Record):
            return (kind, *[self.freeze(field, depth + 1) for field in value.fields()])
        if (fields := _fields(value)) is not None:
            return (kind, *[self.freeze(field, depth + 1) for field in fields])
        if _has_own_equality(value):
            return (kind, value)
        return _Identity(value)


def _literal(literal: Any) -> Hashable:
    value = literal.val
    if isinstance(value, jax.Array) and value.size > 1:
        return _Identity(value)
    return _array(np.asarray(value, dtype=literal.aval.dtype))


def _array(value: Any) -> Hashable:
    array = np.asarray(value)
    if array.dtype.kind == "O":
        return _Identity(value)
    return (type(value), array.dtype, array.shape, array.tobytes())


def _fields(value: Any) -> tuple[Any, ...] | None:
    """The fields of an instance of a frozen dataclass that holds nothing besides."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    if not value.__dataclass_params__.frozen:  # type: ignore[attr-defined]
        return None
    names = [field.name for field in dataclasses.fields(value)]
    if not set(getattr(value, "__dict__", ())) <= set(names):
        return None
    if not all(hasattr(value, name) for name in names):
        return None
    return tuple(getattr(value, name) for name in names)


def _has_own_equality(value: Any) -> bool:
    """Whether jax itself compares values of this type by what they mean, in its own caches."""
    kind: Any = type(value)
    if kind.__module__.partition(".")[0] not in ("jax", "jaxlib"):
        return False
    # These compare users' data with ==, where 1 == True.
    if callable(value) or isinstance(value, jax.tree_util.PyTreeDef):
        return False
    if kind.__eq__ is object.__eq__ or kind.__hash__ in (None, object.__hash__):
        return False
    try:
        hash(value)
    except TypeError:
        return False
    return True
