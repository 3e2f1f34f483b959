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

from .record import Record

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


class _Place:
    """A module and a name in it."""

    def __init__(self, module: str, name: str) -> None:
        self.module = module
        self.name = name

    def found(self) -> Any:
        return named(self.module, self.name)


class _Otherwise:
    """What `_Place.found` finds, from a call instead."""

    __name__ = "found"

    def __init__(self, reduced: Reduced) -> None:
        self.reduced = reduced

    def __call__(self, place: _Place) -> Any:
        function, args = self.reduced
        return function(*args)


def named_or(module: str, name: str, reduced: Reduced) -> Reduced:
    """How to reduce what plain pickle takes by name, and cloudpickle by value.

    In a script, `__main__`, names are good for processes that run it too, as those that
    multiprocessing starts; cloudpickle sends what is there to others. Values are not told what
    pickles them, but both treat methods so: pickle as an attribute's name, cloudpickle as
    a function and what it is bound to.
    """
    return _called, (types.MethodType(_Otherwise(reduced), _Place(module, name)),)


def _called(function: Callable[[], Any]) -> Any:
    return function()


class Scripts:
    """A wrapped function of `__main__`; pickles as the function, for any pickler."""

    def __init__(self, value: Any, module: str, name: str) -> None:
        self.value = value
        self.place = module, name

    def __reduce__(self) -> Reduced:
        return named_or(*self.place, (_same, (self.value,)))


def _same(value: Any) -> Any:
    return value


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
    """What it hands on is for the outer pickler: names in `__main__` may mean nothing elsewhere."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.handed: list[Any] = []

    def persistent_id(self, value: Any) -> int | None:
        if isinstance(value, (type, types.FunctionType)):
            if value.__module__ != "__main__":
                return None
        elif not isinstance(value, Scripts):
            found = name_of(value)
            if found is None or found[0] != "__main__":
                return None
            value = Scripts(value, *found)
        self.handed.append(value)
        return len(self.handed) - 1

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


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, handed: tuple[Any, ...]) -> None:
        super().__init__(file)
        self._handed = handed

    def persistent_load(self, index: int) -> Any:
        return self._handed[index]


_inside = threading.local()  # .values: ids of the values of `Packed` being pickled


class AsItIs(Record):
    """A value that deep copies share: devices cannot be copied."""

    value: Any

    def __deepcopy__(self, memo: dict[int, Any]) -> AsItIs:
        return self


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
            dumped = self._dumped()
            return (Packed, (self.value,)) if dumped is None else (_loaded, dumped)
        finally:
            values.discard(id(self.value))
        return Packed, (self.value,)

    def _dumped(self) -> tuple[bytes, tuple[Any, ...]] | None:
        file = io.BytesIO()
        pickler = _Pickler(file)
        try:
            pickler.dump(self.value)
        except Exception:
            return None
        return file.getvalue(), tuple(pickler.handed)

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        if is_wrapped(self.value):  # copied as functions are; a jitted one would compile anew
            return self
        return Packed(copy.deepcopy(self.value, memo))


def _loaded(data: bytes, handed: tuple[Any, ...]) -> Packed:
    return Packed(_Unpickler(io.BytesIO(data), handed).load())


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
        module, name = getattr(self, "__module__", ""), getattr(self, "__qualname__", "")
        again = _again, (Packed(self._how),)
        try:
            if named(module, name) is self:  # a decorated function
                return named_or(module, name, again) if module == "__main__" else name
        except (AttributeError, ImportError, ValueError):
            pass
        return again


def _again(packed: Packed) -> Any:
    maker, args, kwargs = packed.value
    return maker(*args, **kwargs)
