"""Pickling of what pickle refuses: initialisers and functions of jax, and typed keys."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .. import _compat, _generators
from ._draft import Content


@dataclass(frozen=True)
class _Made:
    """An initialiser as the function that makes it and that function's arguments."""

    name: str
    arguments: dict[str, Any]

    def __call__(self) -> Any:
        return getattr(jax.nn.initializers, self.name)(**self.arguments)


@dataclass(frozen=True)
class _Words:
    """A typed key as its words; ``impl`` is a name where jax finds the implementation by it."""

    impl: Any
    words: Any


@dataclass(frozen=True)
class _Named:
    """A function that pickle cannot name although it has one, such as `jax.nn.relu`."""

    module: str
    name: str


# Where functions of jax are looked up first: their own modules are private.
_PUBLIC = ("jax.nn", "jax.numpy", "jax.lax")


def pack_attribute(value: Any) -> Any:
    """An attribute of a module as pickle accepts it."""
    return _mapped(value, _pack_function, set())


def unpack_attribute(value: Any) -> Any:
    """What `pack_attribute` was given."""
    return _mapped(value, _unpack_function, set())


def _mapped(value: Any, change: Callable[[Any], Any], inside: set[int]) -> Any:
    """A value with its items changed; containers without any change stay the same objects."""
    if type(value) not in (list, tuple, dict) or id(value) in inside:
        return change(value)
    inside = inside | {id(value)}
    items = list(value.values()) if type(value) is dict else list(value)
    changed = [_mapped(item, change, inside) for item in items]
    if all(a is b for a, b in zip(items, changed, strict=True)):
        return value
    if type(value) is dict:
        return dict(zip(value, changed, strict=True))
    return type(value)(changed)


def is_wrapped(value: Any) -> bool:
    """Whether this is a function that wraps another, as `jax.jit` and `jax.custom_jvp` do."""
    return callable(value) and not isinstance(value, type) and hasattr(value, "__wrapped__")


def _pack_function(value: Any) -> Any:
    # A wrapped function would be pickled as the one inside.
    if not is_wrapped(value):
        return value
    name = getattr(value, "__qualname__", "")
    for module in (*_PUBLIC, getattr(value, "__module__", "")):
        if getattr(sys.modules.get(module), name, None) is value:
            return _Named(module, name)
    return value


def _unpack_function(value: Any) -> Any:
    if isinstance(value, _Named):
        return getattr(importlib.import_module(value.module), value.name)
    return value


def pack(content: Content) -> Content:
    """The content of a state as pickle accepts it."""
    declared = content.declared
    if declared is not None:
        declared = declared._replace(init=_pack_init(declared.init))
    return content._replace(value=jax.tree.map(_pack_key, content.value), declared=declared)


def unpack(content: Content) -> Content:
    """What `pack` was given."""
    declared = content.declared
    if declared is not None and isinstance(declared.init, _Made):
        declared = declared._replace(init=declared.init())
    return content._replace(value=jax.tree.map(_unpack_key, content.value), declared=declared)


def _pack_init(init: Any) -> Any:
    """``init``, or, for one that `jax.nn.initializers` made, how to make it again.

    Those are local functions, which pickle cannot name; what they close over are the
    arguments they were made with. Anything else is left to pickle.
    """
    name, _, local = getattr(init, "__qualname__", "").partition(".<locals>.")
    if not local or not hasattr(jax.nn.initializers, name) or not init.__closure__:
        return init
    cells = zip(init.__code__.co_freevars, init.__closure__, strict=True)
    made = _Made(name, {argument: cell.cell_contents for argument, cell in cells})
    try:
        return made if _same(made(), init) else init
    except TypeError:  # the function that makes it takes other arguments
        return init


def _pack_key(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and _compat.is_key(leaf.dtype):
        address = _generators.address(_compat.key_impl(leaf.dtype))
        return _Words(address, np.asarray(jax.random.key_data(leaf)))
    return leaf


def _unpack_key(leaf: Any) -> Any:
    if isinstance(leaf, _Words):
        return jax.random.wrap_key_data(leaf.words, impl=leaf.impl)
    return leaf


def _same(left: Any, right: Any) -> bool:
    """Whether two functions are the same code over the same values."""
    if left.__code__ is not right.__code__:
        return False
    pairs = zip(left.__closure__, right.__closure__, strict=True)
    return all(_equal(a.cell_contents, b.cell_contents) for a, b in pairs)


def _equal(left: Any, right: Any) -> bool:
    if left is right:
        return True
    return bool(np.array_equal(left, right)) if type(left) is type(right) else False
