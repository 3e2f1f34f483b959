"""The end of a call on all members: what it made becomes what the modules hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._jax import compat
from .._tree import LOCK, Content, Draft, MemberAxis, State, as_tags, walk
from .._tree import draft as _draft
from .members import Members


def commit(
    job: Members,
    values: Sequence[Any],
    axes: Mapping[int, int],
    target: Any,
    initialises: bool,
    state_tag: Any,
) -> None:
    """Gives every written state its value for all members, and publishes the call.

    Args:
        job: the call.
        values: of its outputs, members first.
        axes: where states hold the members, by identity; in front otherwise.
        target: the tree.
        initialises: whether new states take the place of those that were at their paths.
        state_tag: tag for the states that the call made.
    """
    draft, tags = job.draft, as_tags(state_tag)
    contents: dict[int, Content] = {}
    for output, value in zip(job.outputs, values, strict=True):
        state, content = output.state, output.content
        number = id(state)
        if not output.excluded:
            axis = axes.get(number, 0)
            value = _moved(value, axis)
            level = MemberAxis(job.size, axis)
            content = content._replace(mapped=(level, *content.mapped))
        if number in draft.retagged:
            content = content._replace(tags=draft.retagged.pop(number)[1])
        if initialises or number in draft.created:
            content = content._replace(tags=content.tags | tags)
        contents[number] = content._replace(value=value)
    _wait(contents.values())
    for item in job.inputs:
        number = id(item.state)
        real = _draft.content(item.state)
        if number not in contents and not real.mapped:
            # From now on it holds members, also for `vmap` and `__call__`.
            level = MemberAxis(job.size, item.axis)
            contents[number] = real._replace(mapped=(level,))
            draft.written[number] = item.state
    draft.written = {number: state for number, state in draft.written.items() if number in contents}
    draft.contents = contents
    draft.untapped.clear()
    settle(draft, target, initialises)


def settle(draft: Draft, target: Any, initialises: bool) -> None:
    """Publishes a call; one that initialises keeps the `State` objects that were there."""
    draft.log.hold(LOCK)
    if initialises:
        _keep_objects(draft, target)
        draft.renewed |= set(draft.written)
    draft.publish()


def _keep_objects(draft: Draft, target: Any) -> None:
    """Puts what a call made at the path of an old state of the same class into the old state."""
    old = walk.walk(target).states
    with _draft.active(draft):
        new = walk.walk(target).states
        kept = {id(state) for state in new.values()}
        replacements: dict[int, State] = {}
        for path, state in new.items():
            before = old.get(path)
            if id(state) not in draft.created or before is None or id(before) in kept:
                continue
            if type(before) is not type(state):
                continue
            replacements[id(state)] = before
            kept.add(id(before))
        if not replacements:
            return
        walk.replace(target, replacements)
    for number, before in replacements.items():
        del draft.created[number]
        if number in draft.contents:
            value = draft.value(draft.written.pop(number))
            draft.contents[id(before)] = draft.contents.pop(number)._replace(value=value)
            draft.untapped.pop(id(before), None)
            draft.written[id(before)] = before
        outer = draft.outer
        while outer is not None:
            for tap, state in outer.tapped.items():
                if id(state) == number:
                    outer.tapped[tap] = before
            outer = outer.outer


def check_axes(job: Members, axes: Mapping[int, int]) -> None:
    """Whether the values of the states that hold members have the axes asked for."""
    for output in job.outputs:
        axis = axes.get(id(output.state), 0)
        for leaf in () if output.excluded else output.types:
            if not -leaf.ndim - 1 <= axis <= leaf.ndim:
                name = walk.dotted(output.path) or type(output.state).__name__
                raise ValueError(
                    f"`out_states` puts the members of the state {name!r} at axis {axis}; with "
                    f"them, a value of shape {leaf.shape} has {leaf.ndim + 1} axes"
                )


def _moved(value: Any, axis: int) -> Any:
    if axis == 0:
        return value
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, axis), value)


def _wait(contents: Any) -> None:
    """Until the values exist: an allocation that fails must fail before anything changes."""
    leaves = [leaf for content in contents for leaf in jax.tree.leaves(content.value)]
    if not compat.under_trace(leaves):
        jax.block_until_ready(leaves)  # type: ignore[no-untyped-call]
