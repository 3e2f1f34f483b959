"""The end of a traced call: what is left to draw, and what must not be left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ..._jax import compat
from .._tree import Draft, State, leaves, walk
from .inputs import Start
from .keys import Keys


def draw_rest(draft: Draft, start: Start, keys: Keys, returned: Sequence[Any] = ()) -> None:
    """Draws what an initialisation has left to its end.

    That is the declared states of the nodes initialised that their ``init_state`` has not drawn (an
    override without ``super().init_state()``, or states that an earlier initialisation made),
    and those that were made during the call.
    """
    undrawn = [state for state in draft.made_states() if not draft.wrote(state)]
    if not undrawn and not start.initialised:
        return
    if start.target is None:
        with keys.using(None):
            for state in undrawn:
                if draft.outlives(state):
                    state.redraw()
        return
    pending = set(map(id, undrawn))
    before, tree = start.tree.nodes, walk.walk(start.target)
    kept = set(map(id, tree.nodes.values()))
    for path, node in tree.nodes.items():
        if draft.made(node) and path in before and id(before[path]) not in kept:
            # The module that was here has drawn, and is dropped: its numbers must not shift
            # those of the one that every call makes here.
            keys.restart(path)
        with keys.using(path):
            for state in tree.own.get(id(node), []):
                left = id(node) in start.initialised and state.declared
                if (left and not draft.wrote(state)) or id(state) in pending:
                    state.redraw()
    with keys.using(None):
        for state in walk.walk(returned).states.values():
            if id(state) in pending and not draft.wrote(state):
                state.redraw()


def check_attributes(draft: Draft) -> None:
    for owner, name, value in draft.assignments():
        for leaf in leaves(value):
            if compat.is_tracer(leaf) and compat.trace_of(leaf) is not None:
                module = type(owner).__name__
                raise TypeError(
                    f"the attribute {name!r} of {module} was set to a value that is traced for "
                    "all members; put it into a State: "
                    f"self.{name} = seedbed.nn.State(value)"
                )
    for value in draft.added():
        if compat.under_trace(list(leaves(value))):
            raise TypeError(
                f"a list, dictionary or cached property of a module was given {value!r}, which "
                "is traced for all members; put it into a State"
            )


def check_leaves(path: walk.Path, state: State, value: Any) -> None:
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
