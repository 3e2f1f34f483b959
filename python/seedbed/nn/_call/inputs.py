"""What goes into a call: the tree as it was, and the states of which each member reads its own.

`in_states` and `out_states` say so of states that do not hold members yet.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from .._tree import UNSET, Content, Draft, MemberAxis, Refused, State, content_of, walk
from .arguments import NO_ARGUMENTS, Arguments


@dataclass(frozen=True, eq=False, slots=True)
class Start:
    """The tree that a call works on, as it was before.

    Attributes:
        target: the tree, or None.
        tree: what was in it.
        initialised: nodes that the call initialises, by identity.
    """

    target: Any
    tree: walk.Tree
    initialised: frozenset[int] = frozenset()


def start_of(draft: Draft, target: Any, initialised: Iterable[walk.Path]) -> Start:
    """The start of a call that initialises the nodes at some paths, noted for if it fails."""
    tree = walk.walk(target)
    draft.remember(tree.containers, tree.nodes.values())
    return Start(target, tree, frozenset(id(tree.nodes[path]) for path in initialised))


@dataclass(frozen=True, eq=False, slots=True)
class Input:
    """A state that is an argument of the traced call.

    Attributes:
        content: as one member sees it; the value is put in under the trace.
        leaves, tree: of the value.
        axis: the one of the members in the leaves, or None for one value that all read.
    """

    state: State
    content: Content
    leaves: list[Any]
    tree: Any
    axis: int | None


@dataclass(frozen=True, eq=False, slots=True)
class Inputs:
    """All that a traced call is given besides its key.

    Attributes:
        size: number of members.
        states: those that it reads.
        rebuild: makes the further arguments from their leaves.
        leaves, axes: those of the states and of the further arguments, and the mapped axis of
            each, or None.
    """

    size: int
    states: tuple[Input, ...]
    rebuild: Callable[[list[Any]], tuple[Any, ...]]
    leaves: tuple[Any, ...]
    axes: tuple[int | None, ...]

    @property
    def own(self) -> list[tuple[State, int]]:
        """The states of which every member reads its own value, with the axis of the members."""
        return [(item.state, item.axis) for item in self.states if item.axis is not None]


def gathered(size: int, states: list[Input], arguments: Arguments = NO_ARGUMENTS) -> Inputs:
    """The inputs of a call: states, then the leaves of further arguments."""
    leaves = [leaf for item in states for leaf in item.leaves]
    axes = [
        None if item.axis is None else item.axis % np.ndim(leaf)
        for item in states
        for leaf in item.leaves
    ]
    return Inputs(
        size,
        tuple(states),
        arguments.rebuild,
        (*leaves, *arguments.leaves),
        (*axes, *arguments.axes),
    )


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


def own_inputs(
    draft: Draft, tree: walk.Tree, given: Sequence[tuple[State, int]], size: int
) -> list[Input]:
    """The states of which every member reads its own value.

    Those given, and those of the tree that already hold ``size`` members. A state that holds
    another number of members is refused when it is read, and, unless the call initialises, when
    it is written.

    Raises:
        ValueError: a given state has no value, or not ``size`` parts along its axis.
    """

    def named(state: State) -> str:
        path = tree.paths.get(id(state))
        return repr(walk.dotted(path)) if path else state._name()

    inputs = []
    for state, axis in given:
        content = content_of(state)
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
    for state in tree.states.values():
        content = content_of(state)
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
            refused = Refused(why, writable=draft.initialises)
            draft.show(state, content._replace(value=refused, mapped=()))
    return inputs


def _input(state: State, content: Content, axis: int | None) -> Input:
    leaves, tree = jax.tree.flatten(content.value)
    return Input(state, content._replace(value=UNSET), leaves, tree, axis)


def common_inputs(states: Iterable[State]) -> list[Input]:
    """The states that hold arrays and no members, of which all members read the one value.

    They are arguments, and not constants of the program, which then serves whatever they hold.
    """
    common = []
    for state in states:
        content = content_of(state)
        if content.mapped or content.value is UNSET or isinstance(content.value, Refused):
            continue
        item = _input(state, content, None)
        if all(isinstance(leaf, jax.Array) for leaf in item.leaves):
            common.append(item)
    return common


def refuse_members(draft: Draft, tree: walk.Tree) -> None:
    """Refuses states that hold members when an initialisation of a single model reads them."""
    for path, state in tree.states.items():
        content = content_of(state)
        if content.mapped:
            why = (
                f"the state {walk.dotted(path)!r} holds {content.mapped[0].size} members, and is "
                "read while a single model is initialised"
            )
            draft.show(state, content._replace(value=Refused(why, writable=True)))
