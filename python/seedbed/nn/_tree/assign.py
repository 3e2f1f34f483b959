"""`assign_state_values`: states from a dictionary of values, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._ensemble import check
from ..._jax import compat
from . import draft as _draft
from . import walk
from .content import UNSET
from .draft import Draft


def assign_state_values(
    target: Any, *state_by_abs_path: Mapping[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """Sets the values of states by path, all or nothing.

    Args:
        target: a module, or a list, tuple or dict of modules.
        *state_by_abs_path: mappings from path to value; later ones win. A path is a tuple, as
            `Module.states` has it, or its dotted form, ``"layers.0.weight"``. NumPy arrays are
            copied to jax arrays.

    Returns:
        The paths given that the tree does not have, and those of the tree that were not given,
        both written as the given ones are.

    Raises:
        TypeError: a mapping is of another type.
        ValueError: a value has another structure, or another shape or dtype than the state's.

    Example:
        >>> import numpy as np, seedbed as sb
        >>> net = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5)
        >>> saved = {"weight": np.ones((5, 2, 3), np.float32), "wieght": 0}
        >>> sb.nn.assign_state_values(net, saved)
        (['wieght'], ['bias'])
    """
    walk.check_target(target)
    given: dict[Any, Any] = {}
    for mapping in state_by_abs_path:
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"`state_by_abs_path` must be mappings from paths to values; got {mapping!r} of "
                f"type {type(mapping).__name__}"
            )
        given.update(mapping)
    draft = Draft()
    unexpected: list[Any] = []
    assigned: set[Any] = set()
    states: dict[Any, Any] = {}

    def assign() -> None:
        states.update(walk.walk(target).states)
        names = walk.dotted_paths(states)
        with _draft.active(draft):
            for path, value in given.items():
                known = path if isinstance(path, tuple) else names.get(path)
                if known not in states:
                    unexpected.append(path)
                    continue
                value = jax.tree.map(_array, check.finite(value, f"state_by_abs_path[{path!r}]"))
                _check_same(known, states[known], value)
                states[known].value = value
                assigned.add(known)
        draft.publish()

    _draft.transacted(draft, assign)
    by_tuple = any(isinstance(path, tuple) for path in given)
    missing = [path for path in states if path not in assigned]
    return unexpected, missing if by_tuple else [walk.dotted(path) for path in missing]


def _array(leaf: Any) -> Any:
    # A copy: what is done to the given array later must not change the state.
    return jnp.array(leaf) if isinstance(leaf, (np.ndarray, np.generic)) else leaf


def _check_same(path: Any, state: Any, value: Any) -> None:
    has = _draft.content_of(state).value
    if has is UNSET:
        has = compat.abstract(state.shape, state.dtype)
    name = f"`state_by_abs_path` has for {walk.dotted(path)!r}"
    ours: Any = jax.tree.structure(has)
    theirs: Any = jax.tree.structure(value)
    if ours != theirs:
        raise ValueError(f"{name} a value of structure {theirs}; the state has {ours}")
    for own, given in zip(jax.tree.leaves(has), jax.tree.leaves(value), strict=True):
        expected, shape = tuple(np.shape(own)), tuple(np.shape(given))
        if shape != expected:
            hint = ""
            if state.members is None and shape and shape[1:] == expected:
                hint = f". Initialise {shape[0]} members first, with vmap_init_all_states"
            raise ValueError(f"{name} a value of shape {shape}; the state has {expected}{hint}")
        kinds = [getattr(leaf, "dtype", None) for leaf in (own, given)]
        if None not in kinds and kinds[0] != kinds[1]:
            raise ValueError(f"{name} a value of dtype {kinds[1]}; the state has {kinds[0]}")
