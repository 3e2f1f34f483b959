"""The program of one member run for all of them, and that of excluded states once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ... import _trace
from ..._ensemble import donate, single, within
from ..._ensemble.check import Chosen
from ..._jax import compat
from .._tree import State, content_of, walk
from .excluded import parted
from .keys import dummy_key
from .places import Places
from .trace import Traced

Axes = tuple[int | None, ...]
# How to go over the members: ``way(program, size, axes, key, leaves)``.
Way = Callable[[_trace.Recorded, int, Axes, Any, list[Any]], Sequence[Any]]


def run(traced: Traced, way: Way, places: Places | None = None) -> tuple[list[Any], list[Any]]:
    """Leaves of the result and values of the output states, members first.

    Values of excluded states have no member axis.

    Args:
        places: where what ``way`` lays out over devices lies.
    """
    parts = parted(traced)
    excluded: Sequence[Any] = ()
    read: Sequence[Any] = ()
    if parts.single is not None:
        inputs = [traced.inputs.leaves[i] for i in parts.needed]
        once = _evaluated if way is nested else _single
        if places is not None:
            once = functools.partial(_laid_out, places)
        made = once(parts.single, traced.key, inputs)
        excluded, read = made[: parts.excluded], made[parts.excluded :]
    leaves, axes = _operands(traced, read)
    out = iter(way(parts.members, traced.inputs.size, axes, traced.key, leaves))
    result = [next(out) if fixed is None else fixed for fixed in traced.result]
    alone = iter(excluded)
    values = [
        output.tree.unflatten(
            [next(alone if output.excluded else out) for _ in range(output.tree.num_leaves)]
        )
        for output in traced.outputs
    ]
    return result, values


def _operands(traced: Traced, read: Sequence[Any]) -> tuple[list[Any], Axes]:
    inputs = traced.inputs
    return [*inputs.leaves, *read], (*inputs.axes, *[None] * len(read))


# --- by `jax.vmap` -----------------------------------------------------------------------


def nested(
    program: _trace.Recorded, size: int, axes: Axes, key: Any, leaves: list[Any]
) -> Sequence[Any]:
    """For a call within one that is being traced for its members and will find the draws."""
    return _vmapped({}, program, size, axes, key, leaves)


def nested_some(
    chosen: Chosen, program: _trace.Recorded, size: int, axes: Axes, key: Any, leaves: list[Any]
) -> Sequence[Any]:
    """The same for some of them."""

    def member(key: Any, *leaves: Any) -> Any:
        return _evaluated(program, key, leaves)

    keys = chosen.take(jax.random.split(key, size), 0)
    parts = [
        leaf if axis is None else chosen.take(leaf, axis)
        for leaf, axis in zip(leaves, axes, strict=True)
    ]
    out: Sequence[Any] = jax.vmap(member, in_axes=(0, *axes))(keys, *parts)
    return out


def _vmapped(
    options: dict[str, Any],
    program: _trace.Recorded,
    size: int,
    axes: Axes,
    key: Any,
    leaves: list[Any],
) -> Sequence[Any]:
    def member(key: Any, *leaves: Any) -> Any:
        return _evaluated(program, key, leaves)

    mapped: Any = jax.vmap(member, in_axes=(0, *axes), axis_size=size, **options)
    out: Sequence[Any] = mapped(jax.random.split(key, size), *leaves)
    return out


def _evaluated(program: _trace.Recorded, key: Any, leaves: Sequence[Any]) -> Sequence[Any]:
    out: Sequence[Any] = jax.core.eval_jaxpr(
        program.closed.jaxpr, program.closed.consts, key, *leaves
    )
    return out


def named_axis(axis_name: Any, spmd_axis_name: Any) -> Way | None:
    """For a call with collectives over a named axis of members, which only `jax.vmap` has."""
    if axis_name is None and spmd_axis_name is None:
        return None
    names: Any = {"axis_name": axis_name} if axis_name is not None else {}
    return functools.partial(_vmapped, {**names, "spmd_axis_name": spmd_axis_name})


# --- by an ensemble ---------------------------------------------------------------------


def fused(
    program: _trace.Recorded,
    size: int,
    axes: Axes,
    key: Any,
    leaves: list[Any],
    old: list[Any] | None = None,
    out_shardings: Any = None,
) -> Sequence[Any]:
    """All members at once, the draws in one custom call; arrays of ``old`` are given up."""
    make = within.for_modules(program, size, axes, out_shardings=out_shardings)
    given = (key, *leaves)
    out: Sequence[Any] = make(*given) if old is None else within.into(make, old, *given)
    return out


def _single(program: _trace.Recorded, key: Any, leaves: list[Any]) -> Sequence[Any]:
    """The same for a single model."""
    out: Sequence[Any] = within.alone(within.for_modules(program, 1), key, *leaves)
    return out


def _laid_out(
    places: Places, program: _trace.Recorded, key: Any, leaves: Sequence[Any]
) -> Sequence[Any]:
    """And over devices."""
    lie = places.shared(len(program.paths))
    out: Sequence[Any] = single.single(program, out_shardings=lie)(key, *leaves)
    return out


def plan(traced: Traced) -> Any:
    """What would run for all members, as a `seedbed.Plan`."""
    parts = parted(traced)
    leaves, axes = _operands(traced, [_blank(aval) for aval in parts.read])
    make = within.for_modules(parts.members, traced.inputs.size, axes)
    return make.plan(traced.key, *leaves)


def _blank(aval: Any) -> Any:
    if compat.is_key(aval.dtype):
        return jnp.broadcast_to(dummy_key(), aval.shape)
    return jnp.zeros(aval.shape, aval.dtype)


def overwritten(
    traced: Traced, before: Mapping[walk.Path, State], laid_out: bool = False
) -> list[Any]:
    """Arrays that hold members of the states that the call writes, of the same types.

    Args:
        before: the states that were in the tree, by path.
        laid_out: whether the new ones lie on several devices.
    """
    fits = donate.usable if laid_out else donate.alone
    values = {id(state): content_of(state).value for state in before.values()}
    found: list[Any] = []
    for output in traced.outputs:
        state = before.get(output.path)
        value = None if state is None else values.pop(id(state), None)
        types = [((traced.inputs.size, *one.shape), one.dtype) for one in output.types]
        for leaf in () if output.excluded else jax.tree.leaves(value):
            if fits(leaf) and (leaf.shape, leaf.dtype) in types:
                types.remove((leaf.shape, leaf.dtype))
                found.append(leaf)
    # What is left are the values of states that the call does not write.
    return donate.free(found, jax.tree.leaves(values))
