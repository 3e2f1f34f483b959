"""Pickling of what pickle refuses: initialisers and functions of jax, and typed keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..._base import pickling
from ..._jax import compat, generators
from .content import Content


@dataclass(frozen=True)
class _Made:
    """An initialiser as the function that makes it and that function's arguments."""

    module: str
    name: str
    arguments: dict[str, Any]


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


def _pack_function(value: Any) -> Any:
    found = pickling.name_of(value)
    if found is None:
        return value
    return pickling.Scripts(value, *found) if found[0] == "__main__" else _Named(*found)


def _unpack_function(value: Any) -> Any:
    if isinstance(value, _Named):
        return pickling.named(value.module, value.name)
    if isinstance(value, pickling.Scripts):  # from a copy
        return value.value
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
        declared = declared._replace(init=_unpack_init(declared.init))
    return content._replace(value=jax.tree.map(_unpack_key, content.value), declared=declared)


def _pack_init(init: Any) -> Any:
    """``init``, or, for one that `jax.nn.initializers` made, how to make it again."""
    how = pickling.maker_of(init)
    return init if how is None else _Made(*how)


def _unpack_init(how: _Made) -> Any:
    return pickling.made(how.module, how.name, how.arguments)


def _pack_key(leaf: Any) -> Any:
    if isinstance(leaf, jax.Array) and compat.is_key(leaf.dtype):
        address = generators.address(compat.key_impl(leaf.dtype))
        return _Words(address, np.asarray(jax.random.key_data(leaf)))
    return leaf


def _unpack_key(leaf: Any) -> Any:
    if isinstance(leaf, _Words):
        return jax.random.wrap_key_data(leaf.words, impl=leaf.impl)
    return leaf
