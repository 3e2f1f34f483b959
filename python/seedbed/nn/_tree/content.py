"""What a state holds, as plain data: a value, its levels of members, its tags, how to draw it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Marker:
    """A named stand-in for a value that is not there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name


# Value of a declared state that was not drawn yet, and of an attribute that was deleted.
UNSET = Marker("UNSET")
DELETED = Marker("DELETED")


@dataclass(frozen=True, slots=True)
class Refused:
    """In place of a value that this call must not read, or not write either: why not."""

    why: str
    writable: bool


class MemberAxis(NamedTuple):
    """One level of members: how many, and along which axis of the value."""

    size: int
    axis: int


class Declared(NamedTuple):
    """How to draw a state: ``init(key, shape, dtype)``."""

    init: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: Any


class Content(NamedTuple):
    """Everything of a state that changes, replaced as a whole so that readers see one state.

    ``mapped`` lists the levels of members, outermost first; the axis of each refers to the
    value without the levels before it.
    """

    value: Any
    mapped: tuple[MemberAxis, ...] = ()
    tags: frozenset[str] = frozenset()
    declared: Declared | None = None
