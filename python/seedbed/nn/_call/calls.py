"""Collective calls as they run: for a single model, and for all members of an ensemble.

For all members: the key (`keys`), what goes in (`inputs`), the program of one member (`trace`,
which ends as `finish` says), that program run for all (`members`), and what comes of it
(`publish`).
"""

from __future__ import annotations

import functools
from typing import Any

from .._tree import Draft, State, active, as_tags, transacted, walk
from . import finish, members
from .inputs import gathered, own_inputs, refuse_members, start_of, states_by_axis
from .keys import Keys, call_key
from .methods import Methods
from .places import Places
from .publish import check_axes, publish, publish_members
from .trace import Traced, trace_call
from .unmatched import Asked


def call_once(found: Methods, key: Any = None) -> dict[walk.Path, Any]:
    """Calls the methods for a single model; returns the values written, by path.

    With a key nothing is published; without, it is one of the ambient stream.
    """
    draft = Draft(initialises=found.initialises)

    def run() -> dict[walk.Path, Any]:
        start = start_of(draft, found.target, found.initialised)
        if found.initialises:
            refuse_members(draft, start.tree)
        keys = Keys(call_key() if key is None else key)
        with active(draft):
            found(keys)
            finish.draw_rest(draft, start, keys)
            after = walk.walk(found.target).states
            written = {path: state.value for path, state in after.items() if draft.wrote(state)}
        if key is None:
            publish(draft, found.target)
        return written

    return transacted(draft, run)


def call_members(
    found: Methods,
    size: int,
    state_to_exclude: Any = None,
    state_tag: Any = None,
    in_states: Any = None,
    out_states: Any = None,
    donate: bool = False,
    out_shardings: Any = None,
) -> None:
    """Calls the methods for ``size`` members; arguments as of `vmap_init_all_states`."""
    as_tags(state_tag)  # refused before anything runs
    places = None if out_shardings is None else Places(out_shardings)
    draft = Draft(for_member=True, initialises=found.initialises)

    def run() -> None:
        traced, axes, before = trace_members(
            found, draft, call_key(), size, state_to_exclude, in_states, out_states
        )
        check_axes(traced, axes)
        way: members.Way = members.nested if draft.nested else members.fused
        options: dict[str, Any] = {}
        # Inside of another call the old values may yet be wanted back.
        if donate and draft.outermost:
            options["old"] = members.overwritten(traced, before, places is not None)
        if places is not None:
            if draft.nested:
                raise ValueError(
                    "`out_shardings` lays out the states of a call that is not inside of another "
                    "one, whose members are being traced"
                )
            options["out_shardings"] = places.of(draft, traced, axes)
        if options:
            way = functools.partial(members.fused, **options)
        _, values = members.run(traced, way, places)
        publish_members(draft, traced, values, axes, found.target, state_tag)

    transacted(draft, run)


def trace_members(
    found: Methods,
    draft: Draft,
    key: Any,
    size: int,
    state_to_exclude: Any,
    in_states: Any,
    out_states: Any,
) -> tuple[Traced, dict[int, int], dict[walk.Path, State]]:
    """The call's trace, where states hold the members, and the states that were in the tree."""
    exclude = None
    if state_to_exclude is not None:
        exclude = Asked(walk.predicate(state_to_exclude), state_to_exclude, "state_to_exclude")
    given = states_by_axis(in_states, "in_states")
    listed = [*given, *states_by_axis(out_states, "out_states")]
    start = start_of(draft, found.target, found.initialised)
    inputs = gathered(size, own_inputs(draft, start.tree, given, size))
    traced = trace_call(found, draft, start, inputs, key, exclude=exclude)
    if exclude is not None:
        exclude.warn_if_unmatched()
    _check_within(draft, {*start.tree.paths, *(id(state) for state, _ in listed)})
    if found.initialises:
        _check_left(draft, start.target, start.initialised, size)
    # A value made anew has its members in front.
    kept = [] if found.initialises else inputs.own
    axes = {id(state): axis for state, axis in (*kept, *listed)}
    for output in traced.outputs:
        before = start.tree.states.get(output.path)
        if id(before) in axes:  # what was made takes the place of a state that was given
            axes.setdefault(id(output.state), axes[id(before)])
    return traced, axes, start.tree.states


def _check_within(draft: Draft, known: set[int]) -> None:
    """States of somebody else must not be given members on the way."""
    for state in draft.unexpected(known):
        raise ValueError(
            f"{state._name()} is not part of `target`, was there before, and is written by the "
            "call; list it in `out_states` if it is to hold the members"
        )


def _check_left(draft: Draft, target: Any, initialised: frozenset[int], size: int) -> None:
    """An initialised node must not keep a state of another number of members."""
    with active(draft):
        tree = walk.walk(target)
        for path, state in tree.states.items():
            mapped = state.mapped
            if draft.wrote(state) or not mapped or mapped[0].size == size:
                continue
            if any(state in tree.own.get(number, []) for number in initialised):
                raise ValueError(
                    f"the state {walk.dotted(path)!r} holds {mapped[0].size} members, and "
                    f"init_state, called for axis_size {size}, does not write it"
                )
