"""Walking a tree of modules: which nodes and states it has, under which paths, in which order.

Depth first, children before their parent, the root last; attributes by name, list items by
index, dictionary items by key; a shared node once, under its first path; cycles are fine.
A path is a tuple of attribute names, indices and dictionary keys.
"""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import filters
from ..._jax import compat
from . import draft as _draft
from .held import CONTAINERS
from .state import State

Path = tuple[Any, ...]


class Node:
    """Base of `Module`: what a walk enters and reports."""

    # The trace it was made in. A slot, so that it is no attribute of the user's.
    __slots__ = ("__dict__", "__weakref__", "_home")

    _home: object

    # Names of the slots that classes of the user have.
    _slots: tuple[str, ...] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        slots = [n for n, v in vars(cls).items() if isinstance(v, types.MemberDescriptorType)]
        cls._slots = (*cls._slots, *slots)

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        del args, kwargs
        node = object.__new__(cls)
        object.__setattr__(node, "_home", compat.trace_state())
        draft = _draft.current()
        if draft is not None:
            draft.create_module(node)
        return node


@dataclass(slots=True)
class Tree:
    """What a walk found, in order."""

    nodes: dict[Path, Node] = field(default_factory=dict)
    states: dict[Path, State] = field(default_factory=dict)
    # Identity of a node -> its own states, those in its lists and dictionaries included.
    own: dict[int, list[State]] = field(default_factory=dict)
    containers: list[Any] = field(default_factory=list)

    @property
    def paths(self) -> dict[int, Path]:
        """Where each state is, by its identity."""
        return {id(state): path for path, state in self.states.items()}


def children(holder: Any) -> Iterator[tuple[Any, Any]]:
    """The items of a module, list, tuple or dictionary, in order."""
    if isinstance(holder, Node):
        return iter(sorted(_draft.attributes_of(holder).items()))
    if isinstance(holder, Mapping):
        return ((key, holder[key]) for key in _sorted(holder))
    return iter(enumerate(list(holder)))


def _sorted(keys: Any) -> list[Any]:
    try:
        return sorted(keys)
    except TypeError:  # keys of several types
        return sorted(keys, key=lambda key: (type(key).__name__, str(key)))


def is_container(value: Any) -> bool:
    return isinstance(value, CONTAINERS)


def walk(target: Any) -> Tree:
    """Everything below ``target``, a module or a container of modules."""
    tree = Tree()
    seen = {id(target)}
    # A frame: path, holder, its items still to see, the node they belong to.
    frames: list[tuple[Path, Any, Iterator[tuple[Any, Any]], Any]] = []

    def enter(path: Path, holder: Any, owner: Any) -> None:
        if isinstance(holder, (list, dict)):
            tree.containers.append(holder)
        frames.append((path, holder, children(holder), owner))

    enter((), target, target if isinstance(target, Node) else None)
    while frames:
        path, holder, items, owner = frames[-1]
        for key, value in items:
            if id(value) in seen:
                continue
            if isinstance(value, State):
                seen.add(id(value))
                tree.states[*path, key] = value
                if owner is not None:
                    tree.own.setdefault(id(owner), []).append(value)
            elif isinstance(value, Node):
                seen.add(id(value))
                enter((*path, key), value, value)
                break
            elif is_container(value):
                seen.add(id(value))
                enter((*path, key), value, owner)
                break
        else:
            frames.pop()
            if isinstance(holder, Node):
                tree.nodes[path] = holder
    return tree


def own_states(node: Node) -> list[State]:
    """The states of one node itself, its lists and dictionaries included, each once."""
    found: dict[int, State] = {}
    seen = {id(node)}
    pending = [children(node)]
    while pending:
        for _, value in pending[-1]:
            if isinstance(value, State):
                found.setdefault(id(value), value)
            elif is_container(value) and id(value) not in seen:
                seen.add(id(value))
                pending.append(children(value))
                break
        else:
            pending.pop()
    return list(found.values())


def check_target(target: Any) -> None:
    """Whether ``target`` is something to walk.

    Raises:
        TypeError: it is not a module or a list, tuple or dict of modules.
    """
    accepted = "a seedbed.nn.Module, or a list, tuple or dict of modules"
    if isinstance(target, Node):
        return
    if (adapter := _adapter_for(target)) is not None:
        raise TypeError(
            f"`target` must be {accepted}; got a {type(target).__name__} of another framework: "
            f"make its ensemble with seedbed.adapters.{adapter}.ensemble"
        )
    if not is_container(target):
        raise TypeError(
            f"`target` must be {accepted}; got {target!r} of type {type(target).__name__}"
        )
    for key, value in children(target):
        if not isinstance(value, Node) and not is_container(value):
            raise TypeError(
                f"`target` must be {accepted}; its item {key!r} is {value!r} of type "
                f"{type(value).__name__}"
            )


# Packages whose modules have an adapter, and its name.
_ADAPTERS = {
    "equinox": "equinox",
    "flax.linen": "linen",
    "flax.nnx": "nnx",
    "haiku": "haiku",
}


def _adapter_for(target: Any) -> str | None:
    """The adapter for a model of another framework, which is not imported for that."""
    for entry in (target, *(target if isinstance(target, (list, tuple)) else ())):
        for kind in (*type(entry).__mro__, *(entry.__mro__ if isinstance(entry, type) else ())):
            for package, name in _ADAPTERS.items():
                if f"{kind.__module__}.".startswith(f"{package}."):
                    return name
    return None


def replace(target: Any, replacements: Mapping[int, Any]) -> None:
    """Puts other objects in the place of some states, by identity, wherever the tree has them."""
    tree = walk(target)
    holders = [*tree.nodes.values(), *tree.containers]
    for holder in holders:
        for key, value in list(children(holder)):
            new = _replaced(value, replacements)
            if new is value:
                continue
            if isinstance(holder, Node):
                setattr(holder, key, new)
            else:
                holder[key] = new


def _replaced(value: Any, replacements: Mapping[int, Any]) -> Any:
    """``value``, or what replaces it; tuples are made anew when an item is replaced."""
    if id(value) in replacements:
        return replacements[id(value)]
    if type(value) is tuple:
        items = tuple(_replaced(item, replacements) for item in value)
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    return value


# --- names ------------------------------------------------------------------------------


def dotted(path: Path) -> str:
    """A path as one string: ``"layers.0.weight"``."""
    return ".".join(map(str, path))


def dotted_paths(paths: Any) -> dict[str, Path]:
    """Paths by their dotted names.

    Raises:
        ValueError: two paths have the same name.
    """
    names: dict[str, Path] = {}
    for path in paths:
        other = names.setdefault(dotted(path), path)
        if other != path:
            raise ValueError(
                f"the paths {other} and {path} are both written {dotted(path)!r}; rename the "
                "attribute or dictionary key that contains a dot"
            )
    return names


def path_words(path: Path) -> tuple[int, int]:
    """The 64 bits that a node's key is derived with, as two words, high first.

    A blake2b hash of an encoding that is the same in every process and version.

    Raises:
        TypeError: a dictionary key on the path is of a type without such an encoding.
    """
    digest = hashlib.blake2b(b"".join(map(_encoded, path)), digest_size=8).digest()
    return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")


def _encoded(element: Any) -> bytes:
    if isinstance(element, bool):
        return b"b1" if element else b"b0"
    if isinstance(element, str):
        return _sized(b"s", element.encode("utf-8", "surrogatepass"))
    if isinstance(element, int):
        return _sized(b"i", str(int(element)).encode())
    if isinstance(element, bytes):
        return _sized(b"y", element)
    if type(element) is tuple:
        return b"t" + len(element).to_bytes(8, "big") + b"".join(map(_encoded, element))
    raise TypeError(
        f"the dictionary key {element!r} of type {type(element).__name__} is on the path of a "
        "module, and random keys are derived from paths; use keys of type str, int, bool, bytes "
        "or tuples of these"
    )


def _sized(kind: bytes, data: bytes) -> bytes:
    return kind + len(data).to_bytes(8, "big") + data


def predicate(filter: Any) -> Any:
    """The filter as a predicate; a module in it is a slip, since modules can be called.

    Raises:
        TypeError: the filter is not one.
    """
    for part in filters.walk(filter):
        if isinstance(part, Node):
            raise TypeError(
                f"Invalid collection filter: the module {type(part).__name__} itself; use its "
                "path, filters.PathContains('name'), or lambda path, node: node is module"
            )
    return filters.to_predicate(filter)
