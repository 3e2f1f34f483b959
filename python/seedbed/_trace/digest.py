"""A digest of a traced program: the same in every process that traces the same function.

`fingerprint` tells two programs of one process apart, and may compare by identity. What is written
to disk beside results has to be found again by another process, so here all goes by what it says:
arrays by their bytes, functions by their names and their code. Nothing has an address in it. Equal
digests mean equal programs, as far as the numbers go; a function that is called back may depend on
what nobody can see.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import re
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._base.record import Record
from .._jax import compat, jaxprs

if TYPE_CHECKING:
    from .._jax.types import ClosedJaxpr

_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+|\b0x[0-9a-fA-F]{6,}")
_DEPTH_LIMIT = 32


def digest(closed: ClosedJaxpr) -> str:
    """The digest of a jaxpr and of the constants in it, as text."""
    return _Walk().program(closed).hex()


def of_arrays(values: Iterable[Any]) -> str:
    """The digest of arrays (of keys, too) and numbers: their types and bytes."""
    return _joined("arrays", [_array(value) for value in values]).hex()


def of_text(text: str) -> str:
    """The digest of a text."""
    return _text("text", text).hex()


def _joined(kind: str, parts: Iterable[bytes]) -> bytes:
    """The digest of a list of digests."""
    made = hashlib.sha256(kind.encode())
    for part in parts:
        made.update(part)
    return made.digest()


def _text(kind: str, text: str) -> bytes:
    return hashlib.sha256(f"{kind}\0{text}".encode("utf-8", "surrogatepass")).digest()


def _array(value: Any) -> bytes:
    if compat.is_key(getattr(value, "dtype", np.int32)):
        kind = f"keys of {compat.key_impl(value.dtype).name}"
        array = np.asarray(jax.random.key_data(value))
    else:
        kind, array = type(value).__name__ if np.isscalar(value) else "array", np.asarray(value)
    if array.dtype.kind == "O":
        return _text(kind, _ADDRESS.sub("", repr(value)))
    made = hashlib.sha256(f"{kind} {array.dtype} {array.shape}\0".encode())
    made.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return made.digest()


class _Walk:
    """Digests the nested jaxprs, each once."""

    def __init__(self) -> None:
        self.known: dict[int, bytes] = {}
        self.kept: list[Any] = []  # so that an id stays its own

    def program(self, program: Any) -> bytes:
        found = self.known.get(id(program))
        if found is None:
            found = self.known[id(program)] = self.described(*jaxprs.opened(program))
            self.kept.append(program)
        return found

    def described(self, jaxpr: Any, consts: Sequence[Any]) -> bytes:
        numbers: dict[Any, int] = {}

        def bound(variables: Sequence[Any]) -> bytes:
            for variable in variables:
                numbers[variable] = len(numbers)
            return _text("types", "; ".join(_type(variable.aval) for variable in variables))

        def read(variable: Any) -> bytes:
            if jaxprs.is_literal(variable):
                value = _array(np.asarray(variable.val, dtype=variable.aval.dtype))
                return _joined(f"literal {_type(variable.aval)}", [value])
            return _text("variable", str(numbers[variable]))

        parts = [bound(jaxpr.constvars), *[_array(value) for value in consts], bound(jaxpr.invars)]
        for eqn in jaxpr.eqns:
            parts += [
                _text("primitive", str(eqn.primitive.name)),
                *[read(variable) for variable in eqn.invars],
                self.plain({name: eqn.params[name] for name in sorted(eqn.params)}),
                self.plain(jaxprs.context_fields(eqn)),
                bound(eqn.outvars),
            ]
        parts += [read(variable) for variable in jaxpr.outvars]
        return _joined("jaxpr", parts)

    def plain(self, value: Any, depth: int = 0) -> bytes:
        """The digest of a parameter of an equation."""
        kind = type(value)
        if isinstance(value, jaxprs.JAXPRS):
            return self.program(value)
        if value is None or kind in (bool, int, str, bytes):
            return _text(kind.__name__, repr(value))
        if isinstance(value, (float, complex, np.ndarray, np.generic, jax.Array)):
            return _array(value)
        name = f"{kind.__module__}.{kind.__qualname__}"
        if depth > _DEPTH_LIMIT:
            return _text(name, "")
        if isinstance(value, (enum.Enum, type, np.dtype)):
            return _text(name, str(value))
        if isinstance(value, (set, frozenset)):
            return _joined(name, sorted(self.plain(item, depth + 1) for item in value))
        if isinstance(value, (tuple, list)):
            return _joined(name, [self.plain(item, depth + 1) for item in value])
        if isinstance(value, Mapping):
            items = [part for key in value for part in (key, value[key])]
            return _joined(name, [self.plain(item, depth + 1) for item in items])
        if isinstance(value, Record):
            return _joined(name, [self.plain(field, depth + 1) for field in value.fields()])
        if isinstance(value, types.CodeType):
            # Where it stands in a file is not part of what it does.
            says: Any = (value.co_code, value.co_names, value.co_varnames, value.co_consts)
            return _joined(name, [self.plain(part, depth + 1) for part in says])
        if isinstance(value, types.FunctionType):
            named = _text(name, f"{value.__module__}.{value.__qualname__}")
            if value.__module__.partition(".")[0] in ("jax", "jaxlib"):
                return named
            closed = [_content(cell) for cell in value.__closure__ or ()]
            says = (value.__code__, value.__defaults__, value.__kwdefaults__, closed)
            return _joined(name, [named, self.plain(says, depth + 1)])
        if dataclasses.is_dataclass(value):
            fields = [getattr(value, one.name, None) for one in dataclasses.fields(value)]
            return _joined(name, [self.plain(field, depth + 1) for field in fields])
        if callable(value):
            parts = [getattr(value, part, None) for part in ("__wrapped__", "func", "args")]
            called = getattr(value, "__qualname__", "")
            return _joined(f"{name} {called}", [self.plain(part, depth + 1) for part in parts])
        # Of other objects: what they show, if they show more than where they are.
        plain: Any = object.__repr__
        shown = "" if kind.__repr__ is plain else _ADDRESS.sub("", repr(value))
        return _text(name, shown)


def _type(aval: Any) -> str:
    if not hasattr(aval, "dtype"):
        return _ADDRESS.sub("", str(aval))
    weak = "weak " if getattr(aval, "weak_type", False) else ""
    return f"{weak}{aval.dtype}{getattr(aval, 'shape', '')}"


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None
