"""What a call on brainstate's modules may change in Python objects, and how to undo it."""

from __future__ import annotations

import contextlib
import functools
import operator
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
from brainstate import State
from brainstate.graph import Node
from brainstate.random import DEFAULT

from ..._base import undo as _undo
from ..._jax import compat
from ..._random import stream

T = TypeVar("T")
_PLAIN = (str, bytes, int, float, complex, type(None), type, types.ModuleType, jax.Array)


class Place:
    """An entry of an object's attributes, of a dictionary or of a list."""

    __slots__ = ("holder", "key", "path", "state")

    def __init__(self, holder: Any, key: Any, path: str, state: Any = None) -> None:
        self.holder = holder
        self.key = key
        self.path = path
        self.state = state  # whose value it is

    @property
    def value(self) -> Any:
        return self.holder[self.key]

    @value.setter
    def value(self, value: Any) -> None:
        self.holder[self.key] = value


def roots_of(fun: Any) -> list[Any]:
    """The objects that a function can reach.

    Those of its closure, its instance and its arguments, and the modules among its globals.
    """
    found: list[Any] = []
    seen: set[int] = set()
    pending = [fun]
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, _PLAIN):
            continue
        seen.add(id(one))
        if isinstance(one, functools.partial):
            pending += [one.func, *one.args, *one.keywords.values()]
        elif isinstance(one, types.MethodType):
            pending += [one.__self__, one.__func__]
        elif isinstance(one, types.FunctionType):
            for cell in one.__closure__ or ():
                with contextlib.suppress(ValueError):  # a cell that is still empty
                    pending.append(cell.cell_contents)
            named = (one.__globals__.get(name) for name in _names(one.__code__))
            pending += [value for value in named if _has_modules(value)]
        else:
            found.append(one)
    return found[::-1]


def _names(code: types.CodeType) -> Iterator[str]:
    """Names that are global, or of attributes, in a function and the functions in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _has_modules(value: Any) -> bool:
    """A module or a state, or what has some; an empty container may be about to."""
    if is_object_of_brainstate(value):
        return True
    if isinstance(value, (dict, list)):
        entries = list(value.values()) if isinstance(value, dict) else value
        return not entries or any(map(is_object_of_brainstate, entries))
    return _is_object(value) and any(map(is_object_of_brainstate, vars(value).values()))


def walk(roots: Iterable[Any]) -> Iterator[Place]:
    """Every entry of the modules, states and containers that can be reached from the roots."""
    seen: set[int] = set()
    roots = list(roots)
    top = {id(root) for root in roots}
    pending = [("", root) for root in reversed(roots)]
    while pending:
        path, one = pending.pop()
        if id(one) in seen or isinstance(one, _PLAIN):
            continue
        seen.add(id(one))
        if isinstance(one, State):
            yield Place(vars(one), "_value", path, one)
            continue
        if isinstance(one, tuple):
            entries = [(path, value) for value in jax.tree.leaves(one, is_leaf=is_holder)]
        else:
            entries = []
            for key in _keys(one, id(one) in top):
                place = Place(holder_of(one), key, f"{path}.{key}" if path else str(key))
                yield place
                entries.append((place.path, place.value))
        pending += [(path, value) for path, value in reversed(entries) if not _is_leaf(value)]


def holder_of(one: Any) -> Any:
    return one if isinstance(one, (dict, list)) else vars(one)


def _keys(one: Any, top: bool) -> list[Any]:
    if isinstance(one, Node) or (top and _is_object(one)):
        return sorted(vars(one))
    if isinstance(one, dict):
        return list(one)
    return list(range(len(one))) if isinstance(one, list) else []


def _is_object(one: Any) -> bool:
    return isinstance(getattr(one, "__dict__", None), dict) and not isinstance(one, _PLAIN)


def _is_leaf(value: Any) -> bool:
    return not (is_holder(value) or isinstance(value, tuple))


def is_object_of_brainstate(value: Any) -> bool:
    return isinstance(value, (State, Node))


def is_holder(value: Any) -> bool:
    return is_object_of_brainstate(value) or isinstance(value, (dict, list))


def flatten(place: Place) -> tuple[list[tuple[Any, Any]], Any]:
    """What an entry holds itself, not by way of a module or a container in it."""
    inside = is_object_of_brainstate if place.state is not None else is_holder
    return jax.tree_util.tree_flatten_with_path(place.value, is_leaf=inside)


def tracers(place: Place) -> list[tuple[str, Any]]:
    """The traced values among those, with their paths."""
    if place.state is None and is_holder(place.value):
        return []
    return [
        (place.path + _name(path), leaf)
        for path, leaf in flatten(place)[0]
        if compat.is_tracer(leaf)
    ]


def _name(path: Any) -> str:
    # The number within a quantity has a path without a name.
    named = [key for key in path if not isinstance(key, jax.tree_util.FlattenedIndexKey)]
    return jax.tree_util.keystr(tuple(named))


class Snapshot:
    """Attributes, containers and states, to be put back as they were."""

    def __init__(self, roots: list[Any]) -> None:
        self._noted: dict[int, Any] = {}
        self._steps: list[_undo.Step[Any]] = []
        for root in roots:
            if is_holder(root) or _is_object(root):
                self._keep(root)
        for place in walk(roots):
            if place.state is None:
                for value in jax.tree.leaves(place.value, is_leaf=is_holder):
                    if is_holder(value):
                        self._keep(value)

    def _keep(self, one: Any) -> None:
        if not isinstance(one, State):
            holder = holder_of(one)
            self._note(holder, _undo.refilling(holder))

    def _note(self, one: Any, undo: list[_undo.Step[Any]]) -> None:
        if id(one) not in self._noted:
            noted = _undo.Step(self._noted.__setitem__, id(one), one)
            _undo.make([noted, _undo.Step(self._steps.extend, undo)])

    def note(self, state: Any, value: Any) -> None:
        """Remembers what a state held, unless it is remembered already."""
        self._note(state, [_undo.Step(vars(state).__setitem__, "_value", value)])

    def note_trace(self, trace: Any) -> None:
        """Remembers what the states held that a brainstate trace has seen."""
        for state, value in zip(trace.states, trace.original_state_values, strict=True):
            self.note(state, value)

    def guard(self, body: Callable[[], T]) -> T:
        """``body()``; after an exception all is as it was, also seedbed's random streams.

        Written as `nn._tree.draft.transacted` is.
        """
        around = stream._call.get()
        put_back = _undo.Step(_undo.run, map(operator.call, self._steps))
        log = _undo.Log(
            [
                put_back,
                _undo.Step(stream._current.set, stream._current.get()),
                _undo.Step(stream._call.set, around),
            ]
        )
        try:
            try:
                stream._call.set(log)
                result = body()
                _undo.make([_undo.Step(log.closing.remove, put_back), *log.settled(around)])
                return result
            finally:
                _undo.run(log.back)
        finally:
            _undo.run(log.back)


def unchanged_on_failure(target: Any, body: Callable[[], T]) -> T:
    """``body()``, a call that runs once, without a trace of brainstate's."""
    snapshot = Snapshot([target])
    snapshot.note(DEFAULT, vars(DEFAULT)["_value"])
    for place in walk([target]):
        if place.state is not None:
            snapshot.note(place.state, place.value)
    return snapshot.guard(body)
