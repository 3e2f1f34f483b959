"""Pickling of what pickle refuses: functions by how they were made, or by the name they go by.

Initialisers of jax and flax are local functions, `jax.nn.relu` and every jitted function wrap
another one. Models and init functions are full of them.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import io
import pickle
import sys
import threading
import types
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# What `__reduce__` returns, for values that it says nothing of otherwise.
Reduced = tuple[Callable[..., Any], tuple[Any, ...]]
# Where functions of jax are looked up first: their own modules are private.
_PUBLIC = ("jax.nn", "jax.nn.initializers", "jax.numpy", "jax.lax")
# Packages whose functions may be called to see whether they make another one.
_MAKERS = frozenset(["jax", "flax"])


def named(module: str, name: str) -> Any:
    """What a module has under a name."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def made(module: str, name: str, arguments: Mapping[str, Any]) -> Any:
    """What the function of that name returns."""
    return named(module, name)(**arguments)


def is_wrapped(value: Any) -> bool:
    """Whether this is a function that wraps another, as `jax.jit` and `jax.custom_jvp` do."""
    return callable(value) and not isinstance(value, type) and hasattr(value, "__wrapped__")


def name_of(value: Any) -> tuple[str, str] | None:
    """Module and name of a wrapped function, which pickle would take for the one inside."""
    if not is_wrapped(value):
        return None
    name = getattr(value, "__qualname__", None)
    if not isinstance(name, str):
        return None
    for module in (*_PUBLIC, getattr(value, "__module__", "")):
        if getattr(sys.modules.get(module), name, None) is value:
            return module, name
    return None


def maker_of(value: Any) -> tuple[str, str, dict[str, Any]] | None:
    """How a function of jax or flax makes this local function: its module, name and arguments.

    What a local function closes over, and its defaults of the same names, are the arguments that
    it was made with; or the answer is None.
    """
    if not isinstance(value, types.FunctionType):
        return None
    module = value.__globals__.get("__name__", "")
    name, _, local = value.__code__.co_qualname.partition(".<locals>.")
    if not local or module.split(".")[0] not in _MAKERS:
        return None
    maker: Any = getattr(sys.modules.get(module), name, None)
    public = [one for one in _PUBLIC if getattr(sys.modules.get(one), name, None) is maker]
    module = public[0] if public else module
    arguments = closure_of(value)
    try:
        known = inspect.signature(maker).parameters
        defaults = inspect.signature(value, follow_wrapped=False).parameters.values()
        arguments |= {
            one.name: one.default
            for one in defaults
            if one.name in known and one.default is not one.empty
        }
        return (module, name, arguments) if alike(maker(**arguments), value) else None
    except (TypeError, ValueError):  # the function that makes it takes other arguments
        return None


def closure_of(function: Any) -> dict[str, Any]:
    """The names that a function closes over, and their values."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells}


def alike(left: Any, right: Any) -> bool:
    """Whether two functions are the same code over the same values, or two values the same."""
    if left is right:
        return True
    if type(left) is not type(right):
        return False
    if isinstance(left, types.FunctionType):
        if left.__code__ is not right.__code__:
            return False
        parts = [
            (function.__defaults__, *closure_of(function).values()) for function in (left, right)
        ]
        return alike(*parts)
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(alike, left, right))
    return bool(np.array_equal(left, right))


# Functions ``(value) -> Reduced | None``; adapters add one for what their framework makes.
REDUCERS: list[Callable[[Any], Reduced | None]] = []


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if not callable(value) or isinstance(value, type):
            return NotImplemented
        if (found := name_of(value)) is not None:
            return named, found
        if (how := maker_of(value)) is not None:
            return made, how
        for reducer in REDUCERS:
            if (reduced := reducer(value)) is not None:
                return reduced
        return NotImplemented


_inside = threading.local()  # .values: ids of the values of `Packed` being pickled


class Packed:
    """A value that pickles wherever it can; also under `copy`, which copies it.

    What plain pickle takes is left to it, so that what is pickled beside it stays shared, and
    so is what cannot be pickled at all: the error is pickle's own.
    """

    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> Any:
        values = vars(_inside).setdefault("values", set())
        if id(self.value) in values:  # it holds what it is part of
            return Packed, (self.value,)
        values.add(id(self.value))
        try:
            pickle.dumps(self.value)
        except Exception:
            data = self._dumped()
            return (Packed, (self.value,)) if data is None else (_loaded, (data,))
        finally:
            values.discard(id(self.value))
        return Packed, (self.value,)

    def _dumped(self) -> bytes | None:
        file = io.BytesIO()
        try:
            _Pickler(file).dump(self.value)
        except Exception:
            return None
        return file.getvalue()

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        if is_wrapped(self.value):  # copied as functions are; a jitted one would compile anew
            return self
        return Packed(copy.deepcopy(self.value, memo))


def _loaded(data: bytes) -> Packed:
    return Packed(pickle.loads(data))


class Made:
    """A function that another one made of a function; pickled as the call that makes it."""

    def __init__(self, run: Callable[..., Any], function: Any, how: Any) -> None:
        """
        Args:
            run: what it does.
            function: what it stands for, whose name it has.
            how: ``(maker, args, kwargs)``.
        """
        functools.update_wrapper(self, function, updated=())
        self._run = run
        self._how = how

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else types.MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<function {getattr(self, '__qualname__', repr(getattr(self, '__wrapped__', '')))}>"

    def __copy__(self) -> Made:
        return self  # as functions are

    def __deepcopy__(self, memo: dict[int, Any]) -> Made:
        return self

    def __reduce__(self) -> Any:
        name = getattr(self, "__qualname__", "")
        try:
            if named(getattr(self, "__module__", ""), name) is self:  # a decorated function
                return name
        except (AttributeError, ImportError, ValueError):
            pass
        return _again, (Packed(self._how),)


def _again(packed: Packed) -> Any:
    maker, args, kwargs = packed.value
    return maker(*args, **kwargs)
