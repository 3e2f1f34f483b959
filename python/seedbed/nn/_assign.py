"""`assign_state_values`: states from a dictionary of values, by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from . import _draft, _traverse
from ._draft import UNSET, Draft


def assign_state_values(
    target: Any, *state_by_abs_path: Mapping[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """Sets the values of states by path, all or nothing.

    Args:
        target: a module, or a list, tuple or dict of modules.
        *state_by_abs_path: mappings from path to value; later ones win. A path is a tuple, as
            `Module.states` has it, or its dotted form, ``"layers.0.weight"``.

    Returns:
        The paths given that the tree does not have, and those of the tree that were not given,
        both written as the given ones are.

    Raises:
        TypeError: a mapping is of another type.
        ValueError: a value has another structure or other shapes than the state's.
    """
    _traverse.check_target(target)
    given: dict[Any, Any] = {}
    for mapping in state_by_abs_path:
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"`state_by_abs_path` must be mappings from paths to values; got {mapping!r} of "
                f"type {type(mapping).__name__}"
            )
        given.update(mapping)
    draft = Draft(members=False)
    outer = _draft.current()
    draft.members = outer is not None and outer.members
    with _draft.transaction(draft):
        states = _traverse.walk(target).states
        names = _traverse.dotted_paths(states)
        by_tuple = any(isinstance(path, tuple) for path in given)
        unexpected, assigned = [], set()
        with _draft.active(draft):
            for path, value in given.items():
                known = path if isinstance(path, tuple) else names.get(path)
                if known not in states:
                    unexpected.append(path)
                    continue
                _check_same(known, states[known], value)
                states[known].value = value
                assigned.add(known)
        draft.publish()
    missing = [path for path in states if path not in assigned]
    return unexpected, missing if by_tuple else [_traverse.dotted(path) for path in missing]


def _check_same(path: Any, state: Any, value: Any) -> None:
    def shapes(tree: Any) -> tuple[Any, list[Any]]:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [np.shape(leaf) for leaf in leaves]

    content = _draft.content(state)
    has = content.value
    if has is UNSET:
        expected: Any = (jax.tree.structure(0), [state.shape])
    else:
        expected = shapes(has)
    if shapes(value) != expected:
        raise ValueError(
            f"`state_by_abs_path` has a value of structure and shapes {shapes(value)} for "
            f"{_traverse.dotted(path)!r}, whose own are {expected}"
        )
