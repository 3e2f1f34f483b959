"""Collective calls as they run: for one model, and for all members of an ensemble."""

from __future__ import annotations

import functools
from typing import Any

from .._tree import Draft, Path, Refused, State, as_tags, walk
from .._tree import draft as _draft
from . import finish
from . import members as _members
from .inputs import inputs_of, states_by_axis
from .keys import Keys, call_key
from .methods import Methods
from .publish import check_axes, commit, settle


def call_once(found: Methods, key: Any = None) -> dict[Path, Any]:
    """Calls the methods for a single model; returns the values written, by path.

    With a key nothing is published; without, it is one of the ambient stream.
    """
    outer = _draft.current()
    members = outer is not None and outer.members
    draft = Draft(members, renews=found.initialises)

    def run() -> dict[Path, Any]:
        tree = _start(draft, found)
        if found.initialises:
            for path, state in tree.states.items():
                content = _draft.content(state)
                if content.mapped:
                    why = (
                        f"the state {walk.dotted(path)!r} holds {content.mapped[0].size} "
                        "members, and is read while a single model is initialised"
                    )
                    draft.contents[id(state)] = content._replace(value=Refused(why, True))
        keys = Keys(call_key() if key is None else key)
        with _draft.active(draft):
            found(keys)
            finish.draw_created(draft, found.target, keys)
            after = walk.walk(found.target).states
            written = {
                path: state.value for path, state in after.items() if id(state) in draft.written
            }
        if key is None:
            settle(draft, found.target, found.initialises)
        return written

    return _draft.transacted(draft, run)


def _start(draft: Draft, found: Methods) -> walk.Tree:
    tree = walk.walk(found.target)
    draft.before = tree.nodes
    if found.initialises:
        draft.called = {id(tree.nodes[path]) for path, _ in found.calls}
    draft.remember(tree.containers, tree.nodes.values())
    return tree


def call_members(
    found: Methods,
    size: int,
    state_to_exclude: Any = None,
    state_tag: Any = None,
    in_states: Any = None,
    out_states: Any = None,
    donate: bool = False,
) -> None:
    as_tags(state_tag)  # refused before anything runs
    draft = Draft(members=True, renews=found.initialises)

    def run() -> None:
        key = call_key()
        job, axes, before = record_members(
            found, draft, key, size, state_to_exclude, in_states, out_states
        )
        check_axes(job, axes)
        way: _members.Runner = _members.nested if _nested(draft) else _members.fused
        # Inside of another call the old values may yet be wanted back.
        if donate and draft.outer is None:
            way = functools.partial(_members.fused, old=job.replaced(before))
        _, values = job.run(key, way)
        commit(job, values, axes, found.target, found.initialises, state_tag)

    _draft.transacted(draft, run)


def _nested(draft: Draft) -> bool:
    return draft.outer is not None and draft.outer.members


def record_members(
    found: Methods,
    draft: Draft,
    key: Any,
    size: int,
    state_to_exclude: Any,
    in_states: Any,
    out_states: Any,
) -> tuple[_members.Members, dict[int, int], dict[Path, State]]:
    """The call's trace, where states hold the members, and the states that were in the tree."""
    exclude = None if state_to_exclude is None else walk.predicate(state_to_exclude)
    inputs_given = states_by_axis(in_states, "in_states")
    outputs_given = states_by_axis(out_states, "out_states")
    tree = _start(draft, found)
    paths = {id(state): path for path, state in tree.states.items()}
    inputs = inputs_of(draft, tree.states.values(), inputs_given, size, paths, found.initialises)
    job = _members.Members(draft, size, inputs)
    job.record(found, key, target=found.target, exclude=exclude)
    _check_within(draft, {*paths, *(id(state) for state, _ in (*inputs_given, *outputs_given))})
    if found.initialises:
        _check_left(draft, found.target, size)
    axes: dict[int, int] = {}
    if not found.initialises:  # a value made anew has its members in front
        axes = {id(item.state): item.axis for item in inputs}
    axes |= {id(state): axis for state, axis in (*inputs_given, *outputs_given)}
    for output in job.outputs:
        before = tree.states.get(output.path)
        if id(before) in axes:  # what was made takes the place of a state that was given
            axes.setdefault(id(output.state), axes[id(before)])
    return job, axes, tree.states


def _check_within(draft: Draft, known: set[int]) -> None:
    """States of somebody else must not be given members on the way."""
    for state in draft.foreign(known):
        raise ValueError(
            f"{state._name()} is not part of `target`, was there before, and is written by the "
            "call; list it in `out_states` if it is to hold the members"
        )


def _check_left(draft: Draft, target: Any, size: int) -> None:
    """An initialised node must not keep a state of another number of members."""
    with _draft.active(draft):
        tree = walk.walk(target)
        for path, state in tree.states.items():
            mapped = state.mapped
            if id(state) in draft.written or not mapped or mapped[0].size == size:
                continue
            if any(state in tree.own.get(number, []) for number in draft.called):
                raise ValueError(
                    f"the state {walk.dotted(path)!r} holds {mapped[0].size} members, and "
                    f"init_state, called for axis_size {size}, does not write it"
                )
