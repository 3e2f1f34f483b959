"""Execute: a plan and a size become one compiled program.

One custom call makes every draw; the residual equations run under `jax.vmap` on its
results. Programs are cached by plan, size and where the member keys come from, so two
ensembles with equal plans share one, and a function that is traced anew finds its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._jax import compat, jaxprs, places
from .._plan import (
    Computed,
    Draw,
    Drawn,
    FromArgument,
    FromCapture,
    FromDraw,
    FromKeys,
    FromStep,
    FromWords,
    KeyMode,
    Literal,
    Output,
    Plan,
    Shape,
    Source,
    Splat,
    Stacked,
    Step,
)
from .._trace import Trimmed
from . import fill as _fill
from .layout import Layout, padded


class Unplanned(Exception):
    """A program was called with other types than those it was planned for."""


@functools.lru_cache(maxsize=256)
def program(
    plan: Plan,
    size: int,
    modes: tuple[KeyMode, ...],
    axes: tuple[int | None, ...],
    single: bool,
    types: Hashable = None,
    donate: bool = False,
) -> Any:
    """The jitted program ``((captures, members), old, key, *leaves) -> output leaves``.

    Args:
        plan: what to make for each member; ``captures`` are the values that it closes over.
        size: how many members.
        modes: how each leaf of ``key`` gives the members' keys, with ``members`` where it is
            not the members' own (`_run.fill.call`).
        axes: mapped axis, or None, of every argument leaf that the plan reads (`Plan.args`);
            ``leaves`` are those.
        single: drop the member axis of the results (``size`` is 1).
        types: what the program is planned for, if it is to refuse calls of other types than
            those of its first call (with `Unplanned`).
        donate: give up the arrays of ``old``, whose memory results of the same type reuse.
    """

    def fill(keys: Sequence[Any], members: Any, captures: Any, args: Sequence[Any]) -> Any:
        draws, filled = _draws(plan, modes, size, keys, members)
        return _outputs(plan, size, draws, filled, captures, args, axes)

    return jitted("seedbed_fill", fill, single, types, donate)


@functools.lru_cache(maxsize=256)
def reference_program(
    trimmed: Trimmed,
    size: int,
    total: int,
    whole: bool,
    split: tuple[bool, ...],
    fold: tuple[bool, ...],
    axes: tuple[int | None, ...],
    single: bool,
    types: Hashable = None,
    donate: bool = False,
    layout: Layout | None = None,
) -> Any:
    """The jitted reference ``((captures, members), old, key, *leaves) -> output leaves``.

    Args:
        trimmed: the traced init function.
        size, total: members asked for, and members of the whole ensemble.
        whole: all members, in order.
        split: for each leaf of ``key``, whether it is one key to split; else it holds the
            members' own keys.
        fold: for each, see `_run.reference.member_keys`; ``members`` has the operand for each.
        axes: mapped axis, or None, of every argument leaf that is read.
        single, types, donate: see `program`.
        layout: where the results lie, None if that is left to jax.
    """
    from . import reference

    def fill(keys: Sequence[Any], members: Any, captures: Any, args: Sequence[Any]) -> Any:
        given = [
            reference.member_keys(key, total, None if whole else chosen, by_fold) if parted else key
            for key, chosen, parted, by_fold in zip(keys, members, split, fold, strict=True)
        ]
        args = [padded(arg, axis, size) for arg, axis in zip(args, axes, strict=True)]
        given = [padded(key, 0, size) for key in given]
        out = reference.evaluate(trimmed, size, given, captures, args, axes)
        if layout is None or single or not layout.abstract:
            return out
        return [layout.place(leaf, i) for i, leaf in enumerate(out)]

    shardings = None if layout is None else layout.shardings(single)
    return jitted("seedbed_reference", fill, single, types, donate, shardings)


def jitted(
    name: str,
    fill: Callable[..., Any],
    single: bool,
    types: Hashable,
    donate: bool,
    shardings: list[Any] | None = None,
) -> Any:
    """A function of the leaves of what a call takes, jitted.

    jax calls it again only for what it has not seen. So the types of the first call, which are
    those that it was planned for, are enough to refuse all others.
    """
    first: list[Hashable] = []

    def called(given: Any, old: Any, key: Any, *leaves: Any) -> Any:
        if types is not None:
            seen = _types(key, leaves)
            if not first:
                first.append(seen)
            if seen != first[0]:
                raise Unplanned
        captures, members = given
        out = fill(jax.tree_util.tree_leaves(key), members, captures, leaves)
        return [leaf[0] for leaf in out] if single else out

    called.__name__ = name
    # Of `old` only the memory is of use, and jax would drop arguments that are not read.
    places: Any = {} if shardings is None else {"out_shardings": shardings}
    return jax.jit(called, donate_argnums=1, keep_unused=donate, **places)


def _types(*values: Any) -> Hashable:
    """Structure and types of what is being traced, and the settings that it is traced under."""
    leaves, tree = jax.tree_util.tree_flatten(values)
    types = [jax.typeof(leaf) for leaf in leaves]
    seen = tuple((one.shape, one.dtype, one.weak_type) for one in types)
    return tree, seen, places.of(types), compat.trace_context()


def _draws(
    plan: Plan, modes: Sequence[KeyMode], size: int, keys: Sequence[Any], members: Any
) -> tuple[list[Any], dict[int, Any]]:
    """Every draw, and the constant outputs by position."""
    fills = plan.fills
    wanted = (*plan.draws, *fills.values())
    results = made(wanted, modes, size, keys, [members] * len(keys))
    count = len(plan.draws)
    return results[:count], dict(zip(fills, results[count:], strict=True))


def made(
    draws: Sequence[Draw],
    modes: Sequence[KeyMode],
    size: int,
    keys: Sequence[Any],
    members: Sequence[Any],
    tiles: Sequence[Shape | None] = (),
    blocks: Sequence[Sequence[Any]] = (),
) -> list[Any]:
    """Draws of ``size`` members: one custom call for all that start from the same key of a member.

    Args:
        draws: what to make.
        modes, keys, members: see `fill.call`; one for each key of a member.
        tiles: see `fill.call`, or () for whole draws.
        blocks: for each draw that has a tile its block's number along each dimension, as scalars
            of ``uint32``; for others ().
    """
    results: list[Any] = [None] * len(draws)
    for stream, (key, mode, own) in enumerate(zip(keys, modes, members, strict=True)):
        chosen = [i for i, draw in enumerate(draws) if draw.key.stream == stream]
        if not chosen:
            continue
        read = own if mode in (KeyMode.RANGE, KeyMode.INDICES) else None
        wanted = tuple([draws[i] for i in chosen])
        parts = tuple([tiles[i] for i in chosen]) if tiles else ()
        if all(part is None for part in parts):
            rest: tuple[Any, ...] = ()
        else:
            rest = (parts, jnp.stack([number for i in chosen for number in blocks[i]]))
        filled = _fill.call(wanted, mode, size, compat.key_words(key), read, *rest)
        for i, one in zip(chosen, filled, strict=True):
            results[i] = one
    return results


def _outputs(
    plan: Plan,
    size: int,
    draws: Sequence[Any],
    filled: Mapping[int, Any],
    captures: Sequence[Any],
    args: Sequence[Any],
    axes: tuple[int | None, ...],
) -> list[Any]:
    residual = computed(
        plan.steps, plan.outputs, size, dict(enumerate(draws)), captures, args, axes
    )
    leaves = []
    for position, output in enumerate(plan.outputs):
        source = output.source
        if position in filled:
            leaf: Any = filled[position]
        elif isinstance(source, (Splat, Literal)):
            leaf = jnp.broadcast_to(source.value(), (size, *output.shape))
        elif isinstance(source, Drawn):
            leaf = drawn(source, draws)
        elif isinstance(source, Stacked):
            leaf = stacked(source, draws, 1)
        else:
            leaf = next(residual)
        leaves.append(compat.with_weak_type(leaf, output.weak))
    return leaves


def computed(
    steps: Sequence[Step],
    outputs: Sequence[Output],
    size: int,
    draws: Mapping[int, Any],
    captures: Sequence[Any],
    args: Sequence[Any],
    axes: tuple[int | None, ...],
) -> Iterator[Any]:
    """Those of the outputs that are left to XLA, for all members.

    Args:
        steps: the residual equations that they need.
        outputs: of a plan.
        draws: the draws that are read, by number.
        captures, args, axes: see `program`.
    """
    residual = [output.source for output in outputs if isinstance(output.source, Computed)]

    def member(draws: Mapping[int, Any], args: Sequence[Any]) -> list[Any]:
        values: dict[int, Any] = {}

        def read(source: Source) -> Any:
            if isinstance(source, (Splat, Literal)):
                return source.value()
            if isinstance(source, FromStep):
                return values[source.number]
            if isinstance(source, FromArgument):
                return args[source.index]
            if isinstance(source, FromCapture):
                return captures[source.index]
            return _MADE[type(source)](source, draws)

        for step in steps:
            results = jaxprs.bind_equation(step.eqn, [read(source) for source in step.inputs])
            values.update(zip(step.outputs, results, strict=True))
        return [read(source) for source in residual]

    if not residual:
        return iter(())
    mapped: Any = jax.vmap(member, in_axes=(0, list(axes)), out_axes=0, axis_size=size)
    return iter(mapped(dict(draws), list(args)))


def _words(source: FromWords, draws: Mapping[int, Any]) -> Any:
    """Random bits as jax's loops make them, from the two words of the cipher."""
    made = draws[source.index]
    if source.zeros >= 0:
        return jax.lax.convert_element_type(made ^ draws[source.zeros], source.dtype)
    high = jax.lax.shift_right_logical(made, np.uint64(32)).astype(np.uint32)
    # Behind the barrier XLA does not see that the words were one.
    barrier: Any = jax.lax.optimization_barrier
    high, low = barrier((high, made.astype(np.uint32)))
    return (high.astype(np.uint64) << np.uint64(32)) | low.astype(np.uint64)


def drawn(source: FromDraw | FromKeys, draws: Mapping[int, Any] | Sequence[Any]) -> Any:
    """A draw as the value that it is."""
    array = draws[source.index]
    if isinstance(source, FromKeys):
        return jax.random.wrap_key_data(array, impl=source.impl)
    return array


def stacked(source: Stacked, draws: Mapping[int, Any] | Sequence[Any], axes: int = 0) -> Any:
    """Draws as rows; ``axes`` leading ones are of members."""
    rows = [
        stacked(row, draws, axes) if isinstance(row, Stacked) else draws[row.index]
        for row in source.rows
    ]
    return jnp.stack(rows, axis=source.axis + axes)


_MADE: dict[type[Source], Any] = {
    FromDraw: drawn,
    FromKeys: drawn,
    FromWords: _words,
    Stacked: stacked,
}
