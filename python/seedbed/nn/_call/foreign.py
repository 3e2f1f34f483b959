"""Modules of brainstate: the functions of this package hand them to their adapter."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar, cast

from .._tree import Module

F = TypeVar("F", bound=Callable[..., Any])


def takes_brainstate(function: F) -> F:
    """Decorator: on brainstate's modules the function is the adapter's one of the same name."""

    @functools.wraps(function)
    def dispatched(*args: Any, **kwargs: Any) -> Any:
        target = args[0] if args else kwargs.get("target")
        run = getattr(_adapter(), function.__name__) if _is_brainstate(target) else function
        return run(*args, **kwargs)

    return cast(F, dispatched)


def reached(function: Any) -> Any:
    """The adapter, if a function can reach a module of brainstate."""
    if "brainstate.nn" not in sys.modules:
        return None
    try:
        adapter = _adapter()
    except ImportError:  # a brainstate that the adapter does not know, and nobody asked for
        return None
    return adapter if any(map(_is_brainstate, adapter.roots_of(function))) else None


def _adapter() -> Any:
    return importlib.import_module("seedbed.adapters.brainstate")


def _is_brainstate(target: Any) -> bool:
    package = sys.modules.get("brainstate.graph")
    if package is None:
        return False
    entries = list(_entries(target))
    theirs = [entry for entry in entries if isinstance(entry, package.Node)]
    # brainstate passes over other things in a container.
    if theirs and any(isinstance(entry, Module) for entry in entries):
        raise TypeError(
            "`target` must be modules of one kind, seedbed's or brainstate's; got "
            f"{[type(entry).__name__ for entry in entries]}"
        )
    return bool(theirs)


def _entries(target: Any) -> Iterator[Any]:
    """What is in a target, in its order: itself, or what is in a list, tuple or dictionary,
    however deep."""
    seen: set[int] = set()
    pending = [target]
    while pending:
        item = pending.pop()
        if not isinstance(item, (list, tuple, Mapping)):
            yield item
        elif id(item) not in seen:
            seen.add(id(item))
            pending += [*(item.values() if isinstance(item, Mapping) else item)][::-1]
