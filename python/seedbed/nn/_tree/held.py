"""What modules hold, and what they and their lists and dictionaries held before a call.

A call may change lists, dictionaries and cached properties past its draft. They are noted at its
start, and when a module of another tree hands one out: to give them their items back if the call
fails, and to find traced values in them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from ..._base import undo as _undo
from ..._jax import compat
from .content import DELETED

CONTAINERS = (list, tuple, dict)


def own_attributes(owner: Any) -> dict[str, Any]:
    """What an object itself holds, in its ``__dict__`` and in the slots of its classes."""
    found: dict[str, Any] = object.__getattribute__(owner, "__dict__")
    slots = getattr(type(owner), "_slots", ())
    if slots:
        found = dict(found)
        for name in slots:
            with contextlib.suppress(AttributeError):  # an empty slot
                found[name] = object.__getattribute__(owner, name)
    return found


def leaves(value: Any) -> Iterator[Any]:
    """What an attribute holds: containers as Python has them, other pytrees as jax has them.

    Unlike those of jax, dictionaries may have keys of several types, and lists hold themselves.
    """
    seen: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, CONTAINERS):
            if id(item) not in seen:
                seen.add(id(item))
                pending.extend(_items(item))
        else:
            yield from jax.tree.leaves(item)


class Before:
    """What lists, dictionaries and the ``__dict__`` of modules held before a call."""

    def __init__(self) -> None:
        self._containers: list[tuple[Any, Any]] = []
        self._modules: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._known: dict[int, Any] = {}

    def note(self, containers: Iterable[Any]) -> list[_undo.Step[Any]]:
        """Notes lists and dictionaries; what gives these their items back."""
        steps: list[_undo.Step[Any]] = []
        for container in containers:
            if id(container) not in self._known:
                self._known[id(container)] = container
                self._containers.append((container, container.copy()))
                steps += _undo.refilling(container)
        return steps

    def note_modules(self, modules: Iterable[Any]) -> None:
        self._modules += [(module.__dict__, module.__dict__.copy()) for module in modules]

    def note_within(self, value: Any) -> list[_undo.Step[Any]]:
        """Notes the lists and dictionaries in a list, tuple or dictionary, and itself."""
        if id(value) in self._known:
            return []
        found: dict[int, Any] = {}
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, CONTAINERS) and id(item) not in found:
                found[id(item)] = item
                pending.extend(_items(item))
        steps = self.note(item for item in found.values() if not isinstance(item, tuple))
        self._known.update(found)
        return steps

    def added(self) -> Iterator[Any]:
        """What they hold now and did not before."""
        for holder, before in (*self._containers, *self._modules):
            known = set(map(id, _items(before)))
            for value in list(_items(holder)):
                if id(value) not in known:
                    yield value

    def dropping_traced(self) -> Iterator[_undo.Step[Any]]:
        """What gives modules their attributes back that hold traced values now."""
        for attributes, before in self._modules:
            for name, value in list(attributes.items()):
                if value is before.get(name, DELETED):
                    continue
                if not any(compat.is_tracer(leaf) for leaf in leaves(value)):
                    continue
                if name in before:
                    yield _undo.Step(attributes.__setitem__, name, before[name])
                else:
                    yield _undo.Step(attributes.pop, name, None)

    def handing_to(self, outer: Before) -> list[_undo.Step[Any]]:
        """What adds it to that of the call around, which knows what it noted itself."""
        return [
            _undo.Step(outer._containers.extend, self._containers),
            _undo.Step(outer._modules.extend, self._modules),
        ]


def _items(holder: Any) -> Any:
    return holder.values() if isinstance(holder, dict) else holder
