"""Random numbers of a process that a traced function drew: a warning that names the line.

A function is traced once, for all members and all later calls. What it draws from `numpy.random` or
`random` meanwhile is a constant to jax: equal in all members, and frozen.

That something was drawn is seen by the state (`recorded`); the line is looked for in the code of
the function and of what it uses, which is read and not run.
"""

from __future__ import annotations

import builtins
import dis
import functools
import inspect
import itertools
import sys
import threading
import types
import warnings
from collections.abc import Iterator, Sequence
from typing import Any


class GlobalRandomWarning(UserWarning):
    """What was traced drew from a random state of the process: all members got the same numbers."""


# Where no user's code is: looked through for what it refers to, not read.
_LIBRARIES = frozenset(
    ("brainstate", "builtins", "equinox", "flax", "haiku", "jax", "jaxlib", "numpy", "seedbed")
)
_MOST = 4096  # objects looked at
_seen: dict[Any, Any] = {}  # which lines were warned about, as `warnings` keeps it


def warn(moved: Sequence[str], roots: Sequence[Any]) -> None:
    """Warns, once for each place, that the states of these modules moved."""
    found = list(itertools.islice(dict.fromkeys(_lines(roots, moved)), 3))
    said = " or ".join(f"{what} (line {line} of {file})" for what, file, line in found)
    if not found:
        if threading.active_count() > 1:  # it may have been another one's
            return
        said = f"{' or '.join(moved)}, somewhere in what it calls"
        found = [("", *_start(function)) for function in itertools.islice(_functions(roots), 1)]
    _, file, line = found[0] if found else ("", "<unknown>", 1)
    warnings.warn_explicit(
        f"what is traced for all members uses {said}, and a random state of the process "
        "moved. It runs once, for all members and all later calls: the numbers are "
        "equal in every member, and frozen. Draw from the key, as jax.random.normal(key, shape) "
        "does",
        GlobalRandomWarning,
        file,
        line,
        registry=_seen,
    )


def _lines(roots: Sequence[Any], moved: Sequence[str]) -> Iterator[tuple[str, str, int]]:
    """Where functions of the random states are mentioned: their names, files and lines."""
    states = {id(state): name for name in moved if (state := _state_of(name)) is not None}
    for function in _functions(roots):
        for line, value in _mentions(function):
            owner = states.get(id(getattr(value, "__self__", None)))
            if owner is not None:
                yield f"{owner}.{value.__name__}", function.__code__.co_filename, line


def _state_of(name: str) -> Any:
    """The object that the functions of a module are methods of."""
    function = getattr(sys.modules[name], "random" if name == "random" else "random_sample", None)
    return getattr(function, "__self__", None)


def _start(function: types.FunctionType) -> tuple[str, int]:
    return function.__code__.co_filename, function.__code__.co_firstlineno


def _functions(roots: Sequence[Any]) -> Iterator[types.FunctionType]:
    """The user's functions that can be reached, those that are called first at first."""
    pending, seen = list(roots), set[int]()
    for value in pending:
        if len(seen) > _MOST:
            return
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, types.FunctionType) and not _is_librarys(value):
            yield value
            pending += [mentioned for _, mentioned in _mentions(value)]
        pending += _inside(value)


def _inside(value: Any) -> list[Any]:
    """What an object refers to that may be called."""
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    if isinstance(value, types.FunctionType):
        return [*_cells(value).values(), *(value.__defaults__ or ())]
    if isinstance(value, (staticmethod, classmethod)):
        return [value.__func__]
    if isinstance(value, property):
        return [value.fget]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, type):
        own = [one for one in value.__mro__ if not _is_librarys(one)]
        return [part for one in own for part in vars(one).values()]
    if isinstance(value, (str, bytes, int, float, complex, types.ModuleType)) or value is None:
        return []
    if type(value).__module__.split(".")[0] in ("jax", "jaxlib", "numpy"):
        return []
    names = [name for one in type(value).__mro__ for name in getattr(one, "__slots__", ())]
    names = [name for name in names if _is_slot(inspect.getattr_static(value, name, None))]
    slots = [getattr(value, name, None) for name in names]
    return [type(value), *getattr(value, "__dict__", {}).values(), *slots]


def _is_slot(found: Any) -> bool:
    return isinstance(found, types.MemberDescriptorType)


def _is_librarys(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").split(".")[0] in _LIBRARIES


def _cells(function: types.FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not set yet
            pass
    return found


def _mentions(function: types.FunctionType) -> list[tuple[int, Any]]:
    """Objects that the code of a function names, with the lines."""
    known = {**vars(builtins), **function.__globals__, **_cells(function)}
    found: list[tuple[int, Any]] = []
    codes, local = [function.__code__], dict[str, Any]()
    for code in codes:
        codes += [one for one in code.co_consts if isinstance(one, types.CodeType)]
        line, value = code.co_firstlineno, None
        for instruction in dis.get_instructions(code):
            if instruction.positions is not None and instruction.positions.lineno is not None:
                line = instruction.positions.lineno
            name, kind = instruction.argval, instruction.opname
            if kind.startswith(("LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM")):
                value = vars(value).get(name) if isinstance(value, types.ModuleType) else None
            elif kind.startswith("IMPORT_NAME"):
                value = sys.modules.get(name)
            elif kind.startswith(("STORE_FAST", "STORE_DEREF")) and isinstance(name, str):
                local[name] = value
            elif kind.startswith("LOAD_") and isinstance(name, str) and "CONST" not in kind:
                value = local.get(name, known.get(name))
            elif kind not in ("PRECALL", "CACHE"):
                value = None
            if value is not None:
                found.append((line, value))
    return found
