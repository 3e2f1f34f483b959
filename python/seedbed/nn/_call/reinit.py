"""Some members of a module tree initialised again."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ... import _trace
from ..._ensemble import check, renew, within
from ..._ensemble import donate as donation
from ..._jax import compat
from .._tree import UNSET, Content, Draft, State, content_of, members_of, transacted, walk
from . import members
from .calls import trace_members
from .keys import call_key
from .methods import Methods, methods
from .publish import publish_contents
from .trace import Output, Traced

T = TypeVar("T")


def vmap_reinit_members(
    target: T,
    index: Any,
    *init_args: Any,
    node_to_exclude: Any = None,
    state_to_exclude: Any = None,
    in_states: Any = None,
    donate: bool = False,
    **init_kwargs: Any,
) -> T:
    """Initialises some members of a module tree again; the others stay as they are, bit for bit.

    Calls ``init_state`` as `vmap_init_all_states` does, and like it consumes one key of the
    random stream: a chosen member gets the numbers that it would get there. States that all
    members share stay as they are.

    Args:
        target: a module, or a list, tuple or dict of modules, that holds members.
        index: which of them: an integer, a slice, an array of integers, or a mask of one bool for
            each, as for `seedbed.Ensemble.reinit`.
        *init_args, **init_kwargs: arguments of every ``init_state``.
        node_to_exclude: filter of the nodes to leave out (their children are not).
        state_to_exclude: filter of the states to leave as they are.
        in_states: states that do not hold members, whose values every member reads its own part
            of, as for `vmap_init_all_states`.
        donate: write into the memory of the members that the states hold, as for
            `vmap_init_all_states`: arrays that others keep are gone, too.

    Returns:
        ``target``.

    Raises:
        ValueError: the states hold no members, or different numbers of them; a state that is to be
            written has no value yet, or one of another structure, shape or dtype; or a mask is not
            of one value for each member.
        TypeError: ``index``, a filter or ``target`` is of the wrong type, or ``donate`` not a bool.
        IndexError: an index is out of range.

    Example:
        >>> import jax.numpy as jnp, seedbed as sb
        >>> net = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5)
        >>> before = net.weight.value
        >>> net = sb.nn.vmap_reinit_members(net, [1, 4])
        >>> (net.weight.value == before).all(axis=(1, 2)).tolist()
        [True, False, True, True, False]
    """
    donate = check.flag(donate, "donate")
    found = methods(target, "init_state", init_args, init_kwargs, node_to_exclude)
    size = members_of(target, "target")
    chosen = renew.choice(index, size)
    draft = Draft(for_member=True, initialises=True)

    def run() -> None:
        _run(found, draft, size, chosen, state_to_exclude, in_states, donate)

    transacted(draft, run)
    return target


def _run(
    found: Methods,
    draft: Draft,
    size: int,
    chosen: renew.Choice,
    state_to_exclude: Any,
    in_states: Any,
    reused: bool,
) -> None:
    before = walk.walk(found.target).states
    held = {path: content_of(state) for path, state in before.items()}
    named = None if state_to_exclude is None else walk.predicate(state_to_exclude)

    def kept(path: walk.Path, state: Any) -> bool:
        shared = path in held and held[path].value is not UNSET and not held[path].mapped
        return shared or (named is not None and named(path, state))

    traced, _, _ = trace_members(found, draft, call_key(), size, kept, in_states, None)
    drawn = [output for output in traced.outputs if not output.excluded]
    old = [_old(output, held.get(output.path), size) for output in drawn]
    way: members.Way = functools.partial(_some, chosen, draft.nested)
    made: list[Any] = []
    if not chosen.empty:
        _, values = members.run(traced, way)
        made = [
            value
            for output, value in zip(traced.outputs, values, strict=True)
            if not output.excluded
        ]
    leaves, tree = jax.tree.flatten([content.value for content in old])
    if made:
        axes = [content.mapped[0].axis for content in old for _ in jax.tree.leaves(content.value)]
        axes = [axis % leaf.ndim for axis, leaf in zip(axes, leaves, strict=True)]
        new = jax.tree.leaves(made)
        # Inside of another call the old values may yet be wanted back.
        reused = reused and draft.outermost and compat.at_top()
        if reused:
            leaves = _given_up(leaves, new, traced, held)
        leaves = renew.put(leaves, new, chosen, reused, axes)
    renewed = iter(zip(old, jax.tree.unflatten(tree, leaves), strict=True))
    contents: list[tuple[State, Content]] = []
    for output in traced.outputs:
        if output.excluded:
            content = held.get(output.path)
            if content is None:
                raise _missing(output)
        else:
            content, value = next(renewed)
            content = content._replace(value=value)
        draft.with_tags(output.state, content)  # it keeps those that it has
        contents.append((output.state, content))
    publish_contents(draft, contents, found.target)


def _some(
    chosen: renew.Choice,
    nested: bool,
    program: _trace.Recorded,
    size: int,
    axes: members.Axes,
    key: Any,
    leaves: list[Any],
) -> Sequence[Any]:
    """Those members that are chosen; all of them where a traced mask will take some."""
    if chosen.chosen is None:
        way = members.nested if nested else members.fused
        return way(program, size, axes, key, leaves)
    if nested:
        return members.nested_some(chosen.chosen, program, size, axes, key, leaves)
    make = within.for_modules(program, size, axes)
    out: Sequence[Any] = make.members(key, chosen.chosen.indices(), *leaves)
    return out


def _old(output: Output, content: Content | None, size: int) -> Content:
    """What the state of an output holds, which has to be of the same kind for all members."""
    if content is None or content.value is UNSET:
        raise _missing(output)
    name = walk.dotted(output.path)
    leaves, tree = jax.tree.flatten(content.value)
    axis = content.mapped[0].axis
    if tree != output.tree:
        raise ValueError(f"the state {name!r} holds {tree}, and init_state makes {output.tree}")
    for leaf, one in zip(leaves, output.types, strict=True):
        place = axis % (one.ndim + 1)
        shape = (*one.shape[:place], size, *one.shape[place:])
        if (np.shape(leaf), leaf.dtype) != (shape, one.dtype):
            raise ValueError(
                f"the state {name!r} holds {leaf.dtype} of shape {np.shape(leaf)}, and init_state "
                f"makes {one.dtype} of shape {shape} for {size} members"
            )
    return content


def _missing(output: Output) -> ValueError:
    name = walk.dotted(output.path) or output.state._name()
    return ValueError(
        f"init_state writes the state {name!r}, which has no value yet; initialise all members "
        "with vmap_init_all_states first"
    )


def _given_up(
    leaves: list[Any], made: list[Any], traced: Traced, held: Mapping[walk.Path, Content]
) -> list[Any]:
    """Arrays that may be overwritten, with copies of those that somebody else holds."""
    written = {output.path for output in traced.outputs if not output.excluded}
    others = [content.value for path, content in held.items() if path not in written]
    own = {id(leaf) for leaf in leaves}
    read = [leaf for leaf in traced.inputs.leaves if id(leaf) not in own]
    free = {id(leaf) for leaf in donation.free(leaves, jax.tree.leaves([others, read, made]))}
    return [leaf if id(leaf) in free else jnp.array(leaf) for leaf in leaves]
