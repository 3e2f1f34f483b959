"""`Module`: a tree of states and modules, with Python attributes as its branches."""

from __future__ import annotations

import copy
import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..._base.pickling import is_wrapped
from . import draft as _draft
from . import walk
from .content import DELETED
from .draft import LOCK
from .held import leaves
from .pickle import pack_attribute, unpack_attribute
from .state import State
from .walk import Path


class Module(walk.Node):
    """Base class of modules: attributes hold states, other modules, and lists or dicts of them.

    Subclasses write ``__init__`` (calling that of Module is not needed), usually ``__call__``,
    and, when declared states do not say everything, ``init_state`` and ``reset_state``.

    Example:
        >>> import jax, seedbed as sb
        >>> class Affine(sb.nn.Module):
        ...     def __init__(self, n):
        ...         self.scale = sb.nn.ParamState(init=jax.nn.initializers.normal(), shape=(n,))
        ...         self.shift = sb.nn.ParamState(init=jax.nn.initializers.zeros, shape=(n,))
        ...     def __call__(self, x):
        ...         return x * self.scale.value + self.shift.value
        >>> net = sb.nn.vmap_init_all_states(Affine(3), axis_size=8)
        >>> net.scale.shape
        (8, 3)
        >>> sb.nn.vmap(net, in_axes=None)(jax.numpy.ones(3)).shape
        (8, 3)
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        call = cls.__dict__.get("__call__")
        if callable(call) and not isinstance(call, type):
            cls.__call__ = _checked(call)  # type: ignore[method-assign]

    # --- initialisation -----------------------------------------------------------------

    def init_state(self, *args: Any, **kwargs: Any) -> None:
        """Draws the declared states of this node, not those of its child modules.

        Overrides make further states, and call this for the declared ones. Arguments are those
        given to the collective call; this default ignores them.
        """
        del args, kwargs
        draft = _draft.current()
        for state in walk.own_states(self):
            if not state.declared:
                continue
            if draft is not None and state._late and not draft.made_within(state):
                continue  # drawn at the end of the call (`_call.finish.draw_rest`)
            if draft is not None and not draft.drawn_by(state, self):
                continue  # shared with a node that has drawn it in this call
            state.redraw()

    def reset_state(self, *args: Any, **kwargs: Any) -> None:
        """Brings states back to where a run starts; overrides say how. The default does nothing."""

    # --- what is in the tree ------------------------------------------------------------

    def states(self, filter: Any = ...) -> dict[Path, State]:
        """States of the whole tree that a filter selects, by path, in traversal order."""
        keep = walk.predicate(filter)
        found = walk.walk(self).states
        return {path: state for path, state in found.items() if keep(path, state)}

    def nodes(self, filter: Any = ...) -> dict[Path, Module]:
        """Modules of the tree that a filter selects, by path: children first, this one last."""
        keep = walk.predicate(filter)
        found: Any = walk.walk(self).nodes
        return {path: node for path, node in found.items() if keep(path, node)}

    @property
    def members(self) -> int | None:
        """How many members the tree holds, or None for a single model.

        Raises:
            ValueError: its states hold different numbers of members.
        """
        sizes: dict[int, Path] = {}
        for path, state in walk.walk(self).states.items():
            if state.members is not None:
                sizes.setdefault(state.members, path)
        if len(sizes) > 1:
            raise ValueError(f"the states of the module hold different numbers of members: {sizes}")
        return next(iter(sizes), None)

    # --- attributes ---------------------------------------------------------------------

    # During a call, what is set waits in the call's draft, where only this thread sees it.

    def __getattribute__(self, name: str) -> Any:
        if _draft.drafts():
            return _draft.attribute_of(self, name)
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _RESERVED:
            raise AttributeError(
                f"{name!r} is the name of what every module has; give the attribute of "
                f"{type(self).__name__} another"
            )
        if isinstance(value, (jax.Array, np.ndarray)):
            state = _draft.attributes_of(self).get(name)
            if isinstance(state, State):
                raise TypeError(
                    f"{name!r} of {type(self).__name__} is a {type(state).__name__}; set its "
                    f"value, self.{name}.value = ..."
                )
        draft = _draft.current()
        if draft is None or _sets_itself(type(self), name):
            object.__setattr__(self, name, value)
        else:
            draft.set_attribute(self, name, value)

    def __delattr__(self, name: str) -> None:
        draft = _draft.current()
        if draft is None:
            object.__delattr__(self, name)
            return
        getattr(self, name)  # an AttributeError, if there is none
        draft.set_attribute(self, name, DELETED)

    # --- copies and text ----------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return clone(self, memo, lambda state: copy.deepcopy(state, memo))

    def __getstate__(self) -> dict[str, Any]:
        kept = _draft.attributes_of(self)
        return {name: pack_attribute(value) for name, value in kept.items()}

    def __setstate__(self, kept: dict[str, Any]) -> None:
        unpacked = {name: unpack_attribute(value) for name, value in kept.items()}
        self.__dict__.update(unpacked)

    def __repr__(self) -> str:
        return _picture(self)


_RESERVED = ("members", "nodes", "states")


def _sets_itself(kind: type, name: str) -> bool:
    """Whether setting an attribute runs code of a property or another descriptor."""
    attribute = getattr(kind, name, None)
    slot = isinstance(attribute, types.MemberDescriptorType)
    return hasattr(type(attribute), "__set__") and not slot


def _checked(call: Callable[..., Any]) -> Callable[..., Any]:
    """``__call__`` that refuses to take a module of many members for one."""

    @functools.wraps(call)
    def checked(self: Module, *args: Any, **kwargs: Any) -> Any:
        for state in walk.own_states(self):
            if state.members is not None:
                raise ValueError(
                    f"{type(self).__name__} holds {state.members} members, and calling it runs a "
                    "single one; run all of them with seedbed.nn.vmap(module)(...). A function of "
                    "modules takes them as arguments: vmap(function)(module, ...)"
                )
        return call(self, *args, **kwargs)

    return checked


def clone(module: Any, memo: dict[int, Any], copied: Callable[[State], State]) -> Any:
    """A copy of a tree: new modules and containers, states as ``copied`` makes them.

    Other attributes are copied by `copy.deepcopy`. Iterative over modules, so that depth does
    not matter; ``memo`` is deepcopy's, by identity of the original.
    """
    with LOCK:
        _copy_tree(module, memo, copied)
    return copy.deepcopy(module, memo)  # in the memo by now, unless it is a container


def _copy_tree(module: Any, memo: dict[int, Any], copied: Callable[[State], State]) -> None:
    tree = walk.walk(module)
    twins: list[tuple[Any, Any]] = []
    for node in tree.nodes.values():
        if id(node) not in memo:
            twin = type(node).__new__(type(node))
            memo[id(node)] = twin
            twins.append((node, twin))
    for state in tree.states.values():
        if id(state) not in memo:
            memo[id(state)] = copied(state)
    for node, twin in twins:
        for name, value in _draft.attributes_of(node).items():
            # Copies of jitted functions would be compiled on their own.
            memo.update((id(f), f) for f in leaves(value) if is_wrapped(f))
            twin.__dict__[name] = copy.deepcopy(value, memo)


def _picture(module: Module) -> str:
    """The tree as text: a line for each state and child module."""
    lines: list[str] = []
    seen: dict[int, str] = {}
    # A frame: indentation, what to print before the name, the object.
    pending: list[tuple[int, str, Any]] = [(0, "", module)]
    while pending:
        depth, name, value = pending.pop()
        start = "  " * depth + (f"{name}: " if name else "")
        if isinstance(value, State):
            shared = f"  (shared: {seen[id(value)]})" if id(value) in seen else ""
            seen.setdefault(id(value), name)
            lines.append(start + repr(value) + shared)
        elif isinstance(value, Module):
            if id(value) in seen:
                lines.append(
                    f"{start}{type(value).__name__}  (shared: {seen[id(value)] or 'root'})"
                )
                continue
            seen[id(value)] = name
            lines.append(start + _header(value, root=depth == 0))
            pending += [(depth + 1, str(key), item) for key, item in _shown(value)][::-1]
        else:
            lines.append(start + _plain(value))
    return "\n".join(lines)


def _header(module: Module, root: bool) -> str:
    name = type(module).__name__
    if not root:
        return name
    states = walk.walk(module).states.values()
    members = sorted({state.members for state in states if state.members is not None})
    return f"{name}  ({', '.join(map(str, members))} members)" if members else name


def _shown(module: Module) -> list[tuple[str, Any]]:
    """Attributes to print, the items of containers with modules or states one by one."""
    rows: list[tuple[str, Any]] = []
    seen: set[int] = set()
    pending = [(str(name), value) for name, value in walk.children(module)][::-1]
    while pending:
        name, value = pending.pop()
        if walk.is_container(value) and id(value) not in seen and _holds_nodes(value):
            seen.add(id(value))
            pending += [(f"{name}.{key}", item) for key, item in walk.children(value)][::-1]
        elif not name.startswith("_") or isinstance(value, (State, Module)):
            rows.append((name, value))
    return rows


def _holds_nodes(container: Any) -> bool:
    tree = walk.walk(container)
    return bool(tree.nodes or tree.states)


def _plain(value: Any) -> str:
    if callable(value):  # classes too, whose `shape` may be a property
        return getattr(value, "__qualname__", type(value).__name__)
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{type(value).__name__}(shape={tuple(value.shape)}, dtype={value.dtype})"
    text = repr(value)
    return text if len(text) < 60 else text[:56] + " ..."
