"""The end of a call: what it made becomes what the modules hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..._jax import compat
from .._tree import Content, Draft, MemberAxis, State, active, as_tags, content_of, walk
from .trace import Traced


def check_axes(traced: Traced, axes: Mapping[int, int]) -> None:
    """Whether the values of the states that hold members have the axes asked for."""
    for output in traced.outputs:
        axis = axes.get(id(output.state), 0)
        for leaf in () if output.excluded else output.types:
            if not -leaf.ndim - 1 <= axis <= leaf.ndim:
                name = walk.dotted(output.path) or type(output.state).__name__
                raise ValueError(
                    f"`out_states` puts the members of the state {name!r} at axis {axis}; with "
                    f"them, a value of shape {leaf.shape} has {leaf.ndim + 1} axes"
                )


def publish_members(
    draft: Draft,
    traced: Traced,
    values: Sequence[Any],
    axes: Mapping[int, int],
    target: Any,
    state_tag: Any = None,
) -> None:
    """Gives every written state its value for all members, and publishes the call.

    Args:
        draft: of the call.
        traced: the call.
        values: of its outputs, members first.
        axes: where states hold the members, by identity; in front otherwise.
        target: the tree.
        state_tag: tag for the states that the call made.
    """
    tags, size = as_tags(state_tag), traced.inputs.size
    contents: list[tuple[State, Content]] = []
    for output, value in zip(traced.outputs, values, strict=True):
        state, content = output.state, draft.with_tags(output.state, output.content)
        if not output.excluded:
            axis = axes.get(id(state), 0)
            value = _moved(value, axis)
            content = content._replace(mapped=(MemberAxis(size, axis), *content.mapped))
        if draft.initialises or draft.made(state):
            content = content._replace(tags=content.tags | tags)
        contents.append((state, content._replace(value=value)))
    written = {id(output.state) for output in traced.outputs}
    for state, axis in traced.inputs.own:
        content = content_of(state)
        if id(state) not in written and not content.mapped:
            # From now on it holds members, also for `vmap` and `__call__`.
            contents.append((state, content._replace(mapped=(MemberAxis(size, axis),))))
    publish_contents(draft, contents, target)


def publish_contents(draft: Draft, contents: Sequence[tuple[State, Content]], target: Any) -> None:
    """Publishes a call after which states hold this, and not what was traced for one member."""
    _wait(contents)
    draft.rewrite(contents)
    publish(draft, target)


def publish(draft: Draft, target: Any) -> None:
    """Publishes a call; one that initialises keeps the `State` objects that were there."""
    draft.lock()
    if draft.initialises:
        _keep_objects(draft, target)
    draft.publish()


def _keep_objects(draft: Draft, target: Any) -> None:
    """Puts what a call made at the path of an old state of the same class into the old state."""
    old = walk.walk(target).states
    with active(draft):
        new = walk.walk(target).states
        kept = {id(state) for state in new.values()}
        replacements: dict[int, State] = {}
        replaced: list[tuple[State, State]] = []
        for path, state in new.items():
            before = old.get(path)
            if not draft.made(state) or before is None or id(before) in kept:
                continue
            if type(before) is not type(state):
                continue
            replacements[id(state)] = before
            replaced.append((state, before))
            kept.add(id(before))
        if not replacements:
            return
        walk.replace(target, replacements)
    for state, before in replaced:
        draft.replace(state, before)


def _moved(value: Any, axis: int) -> Any:
    if axis == 0:
        return value
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, axis), value)


def _wait(contents: Sequence[tuple[State, Content]]) -> None:
    """Until the values exist: an allocation that fails must fail before anything changes."""
    leaves = [leaf for _, content in contents for leaf in jax.tree.leaves(content.value)]
    if not compat.under_trace(leaves):
        jax.block_until_ready(leaves)  # type: ignore[no-untyped-call]
