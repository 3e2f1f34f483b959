"""`split` and `merge`: a module as a definition and pytrees of values, and back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from . import draft, walk
from . import module as _module
from .content import UNSET
from .draft import LOCK
from .state import State


@jax.tree_util.register_static
@dataclass(frozen=True, eq=False, repr=False)
class Definition:
    """A module without the values of its states; equal to itself only, so keep the one you have.

    Made by `split`, used by `merge`. It may be passed through `jax.jit` and in pytrees, where
    it has no leaves.
    """

    skeleton: Any
    paths: dict[str, tuple[Any, ...]]

    def __repr__(self) -> str:
        return f"Definition({type(self.skeleton).__name__}, {len(self.paths)} states)"


def split(module: Any, *filter: Any) -> tuple[Any, ...]:
    """A module as a definition and the values of its states, pytrees that jax works on.

    Args:
        module: a module, or a list, tuple or dict of modules.
        *filter: each selects the states of one dictionary, of those that none before selected;
            ``...`` selects all that are left. Without any, one dictionary holds all.

    Returns:
        ``(definition, values, ...)``: a `Definition`, then a dictionary from dotted path
        (``"layers.0.weight"``) to value for each filter. Declared states are drawn if they were
        not yet.

    Raises:
        ValueError: no filter selects some state, or two paths have the same dotted form.
        TypeError: a filter or ``module`` is of the wrong type.

    Example:
        >>> import jax, jax.numpy as jnp, seedbed as sb
        >>> net = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5)
        >>> definition, params, others = sb.nn.split(net, sb.nn.ParamState, ...)
        >>> sorted(params), others
        (['bias', 'weight'], {})
        >>> @jax.jit
        ... def loss(params, x):
        ...     net = sb.nn.merge(definition, params, others)
        ...     return jnp.sum(sb.nn.vmap(net, in_axes=None)(x) ** 2)
        >>> jax.grad(loss)(params, jnp.ones(3))["weight"].shape
        (5, 2, 3)
    """
    predicates = [walk.predicate(one) for one in filter or (...,)]
    walk.check_target(module)
    with LOCK:
        names, groups = _grouped(module, predicates)
        skeleton = _clone(module, _emptied)
    return (Definition(skeleton, names), *groups)


def _grouped(module: Any, predicates: list[Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    states = walk.walk(module).states
    names = walk.dotted_paths(states)
    groups: list[dict[str, Any]] = [{} for _ in predicates]
    for name, path in names.items():
        state = states[path]
        group = next((i for i, keep in enumerate(predicates) if keep(path, state)), None)
        if group is None:
            raise ValueError(
                f"no filter selects the state {name!r}; end with ... to have a dictionary of "
                "all that are left"
            )
        groups[group][name] = state.value
    return names, groups


def merge(definition: Definition, *values: Mapping[str, Any]) -> Any:
    """The module of a definition, made anew, with the given values in its states.

    Args:
        definition: from `split`.
        *values: dictionaries from dotted path to value, together one for every state.

    Raises:
        TypeError: ``definition`` is not one, or a dictionary of values is not one.
        ValueError: a state has no value or two, or a value is of other members or of another
            shape than was declared.
    """
    if not isinstance(definition, Definition):
        raise TypeError(
            f"`definition` must be what seedbed.nn.split returned first; got {definition!r} of "
            f"type {type(definition).__name__}"
        )
    together: dict[str, Any] = {}
    for one in values:
        if not isinstance(one, Mapping):
            raise TypeError(
                f"`values` must be dictionaries from dotted paths to values; got {one!r} of type "
                f"{type(one).__name__}"
            )
        twice = together.keys() & one.keys()
        if twice:
            raise ValueError(f"`values` has two values for {sorted(twice)}")
        together.update(one)
    missing = sorted(definition.paths.keys() - together.keys())
    unexpected = sorted(together.keys() - definition.paths.keys())
    if missing or unexpected:
        raise ValueError(
            f"`values` must have one value for every state of {definition!r}; missing are "
            f"{missing}, unexpected are {unexpected}"
        )
    module = _clone(definition.skeleton, copy.copy)
    states = walk.walk(module).states
    for name, path in definition.paths.items():
        _check_shape(name, states[path], together[name])
        states[path].value = together[name]
    return module


def _check_shape(name: str, state: State, value: Any) -> None:
    """A value of other members than the definition's would run as one broadcast."""
    content = draft.content_of(state)
    if not hasattr(value, "shape"):
        return
    rest = list(value.shape)
    for size, axis in content.mapped:
        if not -len(rest) <= axis < len(rest) or rest[axis] != size:
            raise ValueError(
                f"`values` has a value of shape {tuple(value.shape)} for {name!r}, and the "
                f"definition has {size} members along axis {axis} of it"
            )
        del rest[axis]
    if content.declared is not None and tuple(rest) != content.declared.shape:
        members = f" and {content.mapped[0].size} members" if content.mapped else " and no members"
        raise ValueError(
            f"`values` has a value of shape {tuple(value.shape)} for {name!r}, whose definition "
            f"has the shape {content.declared.shape}{members}"
        )


def _emptied(state: State) -> State:
    emptied: State = state._bare(draft.content_of(state)._replace(value=UNSET))
    return emptied


def _clone(module: Any, copied: Any) -> Any:
    memo: dict[int, Any] = {}
    return _module.clone(module, memo, copied)
