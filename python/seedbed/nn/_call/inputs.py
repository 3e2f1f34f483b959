"""`in_states` and `out_states`: which states hold members, and along which axis."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from .._tree import UNSET, Draft, MemberAxis, Path, Refused, State, walk
from .._tree import draft as _draft
from .members import Input


def states_by_axis(given: Any, name: str) -> list[tuple[State, int]]:
    """States with their member axes, from any of the accepted forms.

    Raises:
        TypeError: ``given`` is none of them.
        ValueError: a state is given twice.
    """
    accepted = "a State, several (a list, or what Module.states returns), or {axis: states}"
    pairs: list[tuple[State, int]] = []
    seen: set[int] = set()

    def add(state: State, axis: int) -> None:
        # At once: an iterator may repeat one state for ever.
        if id(state) in seen:
            raise ValueError(f"`{name}` has {state._name()} twice")
        seen.add(id(state))
        pairs.append((state, axis))

    def refuse(what: Any) -> TypeError:
        return TypeError(f"`{name}` must be {accepted}; got {what!r} of type {type(what).__name__}")

    def several(states: Any, axis: int) -> None:
        if isinstance(states, State):
            add(states, axis)
        elif isinstance(states, walk.Node):
            for state in walk.walk(states).states.values():
                add(state, axis)
        elif isinstance(states, Mapping):
            several(list(states.values()), axis)
        elif isinstance(states, Iterable) and not isinstance(states, (str, bytes)):
            for state in states:
                if not isinstance(state, (State, walk.Node)):
                    raise refuse(state)
                several(state, axis)
        else:
            raise refuse(states)

    if isinstance(given, Mapping) and all(_is_axis(key) for key in given):
        for axis, states in given.items():
            several(states, operator.index(axis))
    elif given is not None:
        several(given, 0)
    return pairs


def _is_axis(key: Any) -> bool:
    return isinstance(key, (int, np.integer)) and not isinstance(key, (bool, np.bool_))


def inputs_of(
    draft: Draft,
    states: Iterable[State],
    given: list[tuple[State, int]],
    size: int,
    paths: Mapping[int, Path],
    renews: bool,
) -> list[Input]:
    """The states of which every member reads its own value.

    Those given, and those of the tree that already hold ``size`` members. A state that holds
    another number of members is refused when it is read, and, unless the call initialises
    (``renews``), when it is written.

    Raises:
        ValueError: a given state has no value, or not ``size`` parts along its axis.
    """

    def named(state: State) -> str:
        path = paths.get(id(state))
        return repr(walk.dotted(path)) if path else state._name()

    inputs = []
    for state, axis in given:
        content = _draft.content(state)
        if content.value is UNSET:
            raise ValueError(f"`in_states` has the state {named(state)}, which has no value yet")
        for leaf in jax.tree.leaves(content.value):
            shape = np.shape(leaf)
            if not -len(shape) <= axis < len(shape) or shape[axis] != size:
                held = f"{shape[axis]}" if -len(shape) <= axis < len(shape) else "no"
                raise ValueError(
                    f"`in_states` maps axis {axis} of the state {named(state)}, of shape {shape} "
                    f"and so {held} members, and axis_size is {size}; the two must agree"
                )
        if content.mapped and content.mapped[0] != MemberAxis(size, axis):
            level = content.mapped[0]
            raise ValueError(
                f"`in_states` maps axis {axis} of the state {named(state)}, which holds "
                f"{level.size} members along axis {level.axis}"
            )
        inputs.append(_input(state, content._replace(mapped=content.mapped[1:]), axis))
    taken = {id(state) for state, _ in given}
    for state in states:
        content = _draft.content(state)
        if id(state) in taken or not content.mapped:
            continue
        level = content.mapped[0]
        if level.size == size:
            content = content._replace(mapped=content.mapped[1:])
            inputs.append(_input(state, content, level.axis))
        else:
            why = (
                f"the state {named(state)} holds {level.size} members, and axis_size is {size}; "
                "the two must agree where it is read"
            )
            draft.contents[id(state)] = content._replace(value=Refused(why, renews), mapped=())
    return inputs


def _input(state: State, content: Any, axis: int) -> Input:
    leaves, tree = jax.tree.flatten(content.value)
    return Input(state, content._replace(value=UNSET), leaves, axis, tree)


def shared_of(states: Iterable[State]) -> list[Input]:
    """The states that hold arrays and no members, as arguments of a call."""
    shared = []
    for state in states:
        content = _draft.content(state)
        if content.mapped or content.value is UNSET or isinstance(content.value, Refused):
            continue
        item = _input(state, content, 0)
        if all(isinstance(leaf, jax.Array) for leaf in item.leaves):
            shared.append(item)
    return shared
