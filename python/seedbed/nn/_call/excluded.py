"""Excluded states: one value for all members, computed once and read by every member.

Which states those are is known only once the call was traced (a filter may ask for a path). So the
values written went through taps (`trace.Taps`), and the traced call is cut into two programs there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ... import _trace
from ..._trace import cut
from .._tree import NonBatchState, walk
from .trace import Output, Traced


@dataclass(frozen=True, slots=True)
class Parts:
    """A traced call in two programs.

    Attributes:
        single: of the excluded states, for a single model, or None without any; further results
            are what members read of such states.
        members: of one member, with what it reads of excluded states as last inputs.
        needed: inputs of ``single``, by position.
        excluded: how many results are values of excluded states.
        read: types of what members read of such states.
    """

    single: _trace.Recorded | None
    members: _trace.Recorded
    needed: tuple[int, ...] = ()
    excluded: int = 0
    read: tuple[Any, ...] = ()


def parted(traced: Traced) -> Parts:
    """The program of the excluded states, if there are any, and that of the members.

    Raises:
        ValueError: an excluded state is computed from what each member has its own of.
    """
    program = traced.program
    excluded = [(output, results) for output, results in traced.positions() if output.excluded]
    positions = {i for _, results in excluded for i in results}
    if not traced.taps and not positions:
        return Parts(None, program)
    states = {id(output.state) for output, _ in excluded}
    common = {number for number, state in traced.taps.items() if id(state) in states}
    single, members, needed, read = cut.split(program.closed, traced.taps, common, positions)
    if any(traced.inputs.axes[i] is not None for i in needed):
        raise _mixed(output for output, _ in excluded)
    kept = [path for i, path in enumerate(program.paths) if i not in positions]
    alone = None
    if positions:
        alone = _program(single, [f"excluded {i}" for i in range(len(single.out_avals))])
    return Parts(alone, _program(members, kept), needed, len(positions), read)


def _program(closed: Any, paths: Sequence[str]) -> _trace.Recorded:
    tree = jax.tree.structure([0] * len(closed.out_avals))
    return _trace.Recorded(closed, tree, tuple(paths))


def refuse_draws(traced: Traced) -> None:
    """For a call in which states without members are not drawn once for all.

    Raises:
        ValueError: one of them would depend on the keys of the members.
    """
    keyed = cut.dependent(traced.program.closed.jaxpr, [0])
    for output, results in traced.positions():
        if output.excluded and not isinstance(output.state, NonBatchState):
            if not keyed.isdisjoint(results):
                raise _mixed([output])


def _mixed(outputs: Iterable[Output]) -> ValueError:
    names = [walk.dotted(output.path) for output in outputs]
    return ValueError(
        f"the states {names} are shared by all members, but would be computed from values that "
        "each member has its own of; to have a value per member, do not exclude them, and list "
        "existing ones in `out_states`"
    )
