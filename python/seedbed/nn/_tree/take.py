"""`take`: some members of a module, as a module of their own."""

from __future__ import annotations

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..._ensemble import check
from . import draft, walk
from . import module as _module
from .content import UNSET, MemberAxis
from .state import State


def take(module: Any, index: Any) -> Any:
    """Some members of a module, as a new module.

    Args:
        module: a module, or a list, tuple or dict of modules, of several members.
        index: an integer for one member, which becomes a single model; a slice or a
            one-dimensional array of integers for several.

    Returns:
        A copy of the modules, of the members asked for. States that all members share are
        copied as they are.

    Raises:
        ValueError: the module holds no members, or different numbers of them.
        TypeError, IndexError: ``index`` is of another type, or out of range.

    Example:
        >>> import jax.numpy as jnp, seedbed as sb
        >>> net = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5)
        >>> sb.nn.take(net, 4)(jnp.ones(3)).shape
        (2,)
        >>> sb.nn.take(net, jnp.array([0, 2])).weight.shape
        (2, 2, 3)
    """
    walk.check_target(module)
    size = members_of(module, "module")
    single = isinstance(index, (int, np.integer)) and not isinstance(index, (bool, np.bool_))
    if single:
        check.member(index, size, "index")
        rows: Any = operator.index(index)
    else:
        # Sent explicitly, which jax.transfer_guard("disallow") allows.
        rows = jax.device_put(check.members(index, size).indices())

    def copied(state: State) -> State:
        content = draft.content_of(state)
        if content.value is UNSET or not content.mapped:
            return state.__deepcopy__({})  # type: ignore[no-any-return]
        axis = content.mapped[0].axis

        def part(leaf: Any) -> Any:
            if single:
                return jax.lax.index_in_dim(leaf, rows, axis, keepdims=False)
            return jnp.take(leaf, rows, axis=axis)

        mapped = content.mapped[1:]
        if not single:
            mapped = (MemberAxis(len(rows), axis), *mapped)
        value = jax.tree.map(part, content.value)
        twin: State = state._twin(content._replace(value=value, mapped=mapped))
        return twin

    return _module.clone(module, {}, copied)


def members_of(target: Any, name: str) -> int:
    """The one number of members that the states of a tree hold, beside those without members.

    Raises:
        ValueError: there is none, or there are several.
    """
    sizes = {state.members for state in walk.walk(target).states.values()} - {None}
    if len(sizes) != 1:
        raise ValueError(f"`{name}` must hold one number of members; its states hold {sizes or 0}")
    size: Any = sizes.pop()
    return int(size)
