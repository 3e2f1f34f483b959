"""What of jax's types is relied on, under the names that signatures use.

For type checkers: nothing imports it to run. Which classes jax has for these differs between
releases, and mypy knows those of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from jax.tree_util import PyTreeDef as Tree


class Aval(Protocol):
    """The type of an array."""

    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...

    @property
    def weak_type(self) -> bool: ...


class Eqn(Protocol):
    """One application of a primitive."""

    @property
    def primitive(self) -> Any: ...

    @property
    def invars(self) -> Sequence[Any]: ...

    @property
    def outvars(self) -> Sequence[Any]: ...

    @property
    def params(self) -> dict[str, Any]: ...

    @property
    def effects(self) -> Any: ...

    @property
    def ctx(self) -> Any: ...

    def replace(self, **changes: Any) -> Eqn: ...


class Jaxpr(Protocol):
    """A program."""

    @property
    def constvars(self) -> Sequence[Any]: ...

    @property
    def invars(self) -> Sequence[Any]: ...

    @property
    def eqns(self) -> Sequence[Any]: ...

    @property
    def outvars(self) -> Sequence[Any]: ...

    @property
    def effects(self) -> Any: ...

    def replace(self, **changes: Any) -> Jaxpr: ...


class ClosedJaxpr(Protocol):
    """A program, with the values of its constants."""

    @property
    def jaxpr(self) -> Any: ...

    @property
    def consts(self) -> Sequence[Any]: ...

    @property
    def in_avals(self) -> Sequence[Aval]: ...

    @property
    def out_avals(self) -> Sequence[Aval]: ...


__all__ = ["Aval", "ClosedJaxpr", "Eqn", "Jaxpr", "Tree"]
