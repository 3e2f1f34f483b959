"""Which methods a collective call calls, on which nodes and in which order."""

from __future__ import annotations

import difflib
import inspect
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..._ensemble import check
from ..._jax import compat
from .._tree import walk
from .keys import Keys
from .unmatched import Asked

MAX_ORDER = 10
_IF_NOT_EXIST = ("raise", "pass", "none", "warn")


def call_order(
    level: int = 0, check_order_boundary: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: when a method runs in a collective call.

    Methods without it run first, in traversal order (children before parents); then those
    with it, by ascending level, ties in traversal order.

    Args:
        level: 0 to 9.
        check_order_boundary: whether to refuse other levels.

    Raises:
        ValueError: the level is outside of 0 to 9, and that is checked.
        TypeError: the level is not a number.
    """
    if not isinstance(level, (int, float, np.integer, np.floating)):
        raise TypeError(f"`level` must be an integer; got {level!r} of type {type(level).__name__}")
    if check_order_boundary and not 0 <= level < MAX_ORDER:
        raise ValueError(f"`level` must be an integer in [0, {MAX_ORDER}), got {level}")

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        method.call_order = level  # type: ignore[attr-defined]
        return method

    return mark


@dataclass(frozen=True, eq=False)
class Methods:
    """A method of every node of a tree, in the order to call them, with the arguments."""

    target: Any
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    calls: tuple[tuple[walk.Path, Callable[..., Any]], ...]

    @property
    def initialises(self) -> bool:
        return self.name == "init_state"

    @property
    def initialised(self) -> list[walk.Path]:
        """The nodes that the call initialises."""
        return [path for path, _ in self.calls] if self.initialises else []

    def __call__(self, keys: Keys, further: tuple[Any, ...] = ()) -> None:
        del further
        for path, method in self.calls:
            with keys.using(path):
                method(*self.args, **self.kwargs)


def methods(
    target: Any,
    fn_name: Any,
    args: Any,
    kwargs: Any,
    node_to_exclude: Any,
    fn_if_not_exist: Any = "raise",
) -> Methods:
    """Checks the arguments of a collective call and finds what to call, calling nothing."""
    if not isinstance(fn_name, str):
        raise TypeError(
            f"`fn_name` must be a string, the name of a method; got {fn_name!r} of type "
            f"{type(fn_name).__name__}"
        )
    if not isinstance(args, tuple):
        args = (args,)
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(
            f"`kwargs` must be a mapping of keyword arguments; got {kwargs!r} of type "
            f"{type(kwargs).__name__}"
        )
    if fn_if_not_exist not in _IF_NOT_EXIST:
        raise ValueError(
            f"`fn_if_not_exist` must be one of {', '.join(map(repr, _IF_NOT_EXIST))}; got "
            f"{fn_if_not_exist!r}"
        )
    excluded = Asked(walk.predicate(node_to_exclude), node_to_exclude, "node_to_exclude")
    walk.check_target(target)
    unordered, ordered = [], []
    taken: set[str] = set()
    for path, node in walk.walk(target).nodes.items():
        if excluded(path, node):
            continue
        method = _method(path, node, fn_name, fn_if_not_exist)
        if method is None:
            continue
        taken |= _parameters(method)
        level = getattr(method, "call_order", None)
        if level is None:
            unordered.append((path, method))
        else:
            ordered.append((level, (path, method)))
    _check_names(kwargs or {}, taken)
    excluded.warn_if_unmatched()
    ordered.sort(key=lambda entry: entry[0])
    calls = (*unordered, *(entry for _, entry in ordered))
    return Methods(target, fn_name, args, kwargs or {}, calls)


def _method(path: walk.Path, node: Any, name: str, if_not_exist: str) -> Callable[..., Any] | None:
    missing = object()
    # Looked up without running properties, whose own errors are not "no such method".
    static = inspect.getattr_static(node, name, missing)
    if static is missing and not hasattr(node, name):
        message = f"{type(node).__name__} at path {path} has no method {name!r}"
        if if_not_exist == "raise":
            raise AttributeError(message)
        if if_not_exist == "warn":
            warnings.warn(f"{message}; it is skipped", UserWarning, stacklevel=5)
        return None
    method: Any = getattr(node, name)
    if not callable(method):
        raise TypeError(
            f"{name!r} of {type(node).__name__} at path {path} must be a method; got {method!r} "
            f"of type {type(method).__name__}"
        )
    return method  # type: ignore[no-any-return]


def check_axis_size(value: Any) -> int:
    """A positive number of members.

    Raises:
        ValueError: it is anything else.
    """
    number = None
    if not isinstance(value, (bool, np.bool_, np.ndarray, jax.Array)):
        try:
            number = operator.index(value)
        except TypeError:
            pass
    if number is None or number <= 0:
        what = "a traced value" if compat.is_tracer(value) else repr(value)
        raise ValueError(
            f"axis_size must be a positive integer, got {what} of type {type(value).__name__}"
        )
    return check.size(number, "axis_size")


# Parameters of the collective calls; what is meant for them must not go to the methods.
_OWN = (
    *("axis_size", "node_to_exclude", "state_to_exclude", "state_tag", "in_states", "out_states"),
    "out_shardings",
)


def _check_names(kwargs: Mapping[str, Any], taken: set[str]) -> None:
    """Refuses a keyword that no method names and that looks like one of the call's own."""
    for name in kwargs:
        alike = difflib.get_close_matches(str(name), _OWN, 1, 0.85)
        if alike and name not in taken:
            raise TypeError(
                f"got the keyword argument {name!r}, which no method that is called names; did you "
                f"mean {alike[0]!r}?"
            )


def _parameters(method: Callable[..., Any]) -> set[str]:
    try:
        return set(inspect.signature(method).parameters)
    except (TypeError, ValueError):  # some callables have none
        return set()
