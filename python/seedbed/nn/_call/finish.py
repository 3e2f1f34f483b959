"""The end of a traced call: what is left to draw, and what must not be left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..._jax import compat
from .._tree import Draft, Path, State, walk
from .._tree import draft as _draft
from .keys import Keys


def draw_created(draft: Draft, target: Any, keys: Keys, returned: Sequence[Any] = ()) -> None:
    """Draws what an initialisation has left to its end.

    That is the declared states of the nodes called that their ``init_state`` has not drawn (an
    override without ``super().init_state()``, or states that an earlier initialisation made),
    and those that were made during the call.
    """
    if not draft.created and not draft.called:
        return
    pending = {number for number in draft.created if number not in draft.written}
    if target is None:
        with keys.using(None):
            for number in [number for number in draft.created if number in pending]:
                if draft.created[number]._home == draft.home:
                    draft.created[number].redraw()
        return
    tree = walk.walk(target)
    kept = {id(node) for node in tree.nodes.values()}
    for path, node in tree.nodes.items():
        if id(node) in draft.made and path in draft.before and id(draft.before[path]) not in kept:
            # The module that was here has drawn, and is dropped: its numbers must not shift
            # those of the one that every call makes here.
            keys.restart(path)
        with keys.using(path):
            for state in tree.own.get(id(node), []):
                left = id(node) in draft.called and state.declared
                if (left and id(state) not in draft.written) or id(state) in pending:
                    state.redraw()
    with keys.using(None):
        for state in walk.walk(returned).states.values():
            if id(state) in pending and id(state) not in draft.written:
                state.redraw()


def check_attributes(draft: Draft) -> None:
    for owner, name, value in draft.assignments():
        for leaf in _draft.leaves(value):
            if compat.is_tracer(leaf) and compat.trace_of(leaf) is not None:
                module = type(owner).__name__
                raise TypeError(
                    f"the attribute {name!r} of {module} was set to a value that is traced for "
                    "all members; put it into a State: "
                    f"self.{name} = seedbed.nn.State(value)"
                )
    for holder, before in [*draft.containers, *draft.nodes]:
        known = {id(value) for value in (before.values() if isinstance(before, dict) else before)}
        for value in list(holder.values() if isinstance(holder, dict) else holder):
            if id(value) not in known and compat.under_trace(list(_draft.leaves(value))):
                raise TypeError(
                    f"a list, dictionary or cached property of a module was given {value!r}, which "
                    "is traced for all members; put it into a State"
                )


def check_leaves(path: Path, state: State, value: Any) -> None:
    for place, leaf in jax.tree_util.tree_leaves_with_path(value):
        fine = isinstance(leaf, (bool, int, float, complex, jax.Array))
        if isinstance(leaf, (np.ndarray, np.generic)):
            fine = leaf.dtype.kind not in "OSUMmT"
        if not fine:
            name = walk.dotted(path) or type(state).__name__
            raise TypeError(
                f"the state {name!r} was given {leaf!r} of type {type(leaf).__name__} at "
                f"value{jax.tree_util.keystr(place)}; members are stacked, so a state of a call on "
                "all members holds arrays and numbers"
            )
