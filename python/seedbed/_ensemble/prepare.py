"""Prepare: a traced function, for keys of known implementations, becomes what is to be run.

Here a backend is chosen: a plan for the native kernels, or the reference and the reason why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .. import _trace
from .._base import garbage
from .._jax import generators
from .._match import choose, interpret
from .._plan import Plan
from .._trust import backends


@dataclass(frozen=True, slots=True)
class Prepared:
    """What one signature of the arguments compiles to.

    ``reads`` are the positions of the argument leaves that the program takes, ``axes`` their
    mapped axes; ``trimmed`` is what the reference evaluates, where it is asked to.
    """

    plan: Plan
    captures: tuple[Any, ...]
    reads: tuple[int, ...]
    axes: tuple[int | None, ...]
    member_bytes: int
    # Structure of the arguments, and what the program takes of key and arguments, as a
    # dictionary key.
    tree: Any
    types: Any
    drawing: generators.Drawing
    trimmed: _trace.Trimmed | None = None
    programs: dict[Any, Any] = field(default_factory=dict)


@garbage.collections_paused()
def prepare(
    recorded: _trace.Recorded,
    impls: list[Any],
    axes: tuple[int | None, ...],
    signature: Any,
    reason: str | None,
) -> Prepared:
    """Plans a traced function.

    Args:
        recorded: the function, traced for one member.
        impls: the implementation of each key.
        axes: mapped axis, or None, of every argument leaf.
        signature: of the call (`Ensemble._prepare`).
        reason: why the native backend may not make its draws, if that is known already.
    """
    graph = _trace.flatten(recorded, sealed=True)
    drawing = generators.drawing(recorded.closed.jaxpr, impls)
    reason = (
        backends.why_reference(drawing.foreign, graph.effects)
        or reason
        or backends.why_elsewhere(signature[-1])
        or backends.why_watched()
    )
    if reason is None:
        graph, plan = planned(recorded, graph, backends.kernels())
        reason = backends.why_unscheduled(plan)
    if reason is None:
        captured = tuple(graph.captured.values())
        captures = tuple(captured[position] for position in plan.captures)
        reads, trimmed = plan.args, None
    else:
        plan = choose.reference_plan(graph, reason)
        trimmed, captures, reads = _trace.trim(recorded.closed, len(impls))
    read_axes = tuple(axes[position] for position in reads)
    key_tree, keys, tree, _, args, *settings = signature
    types = (key_tree, keys, tuple(args[position] for position in reads), *settings)
    size = plan.total_bytes
    return Prepared(plan, captures, reads, read_axes, size, tree, types, drawing, trimmed)


def planned(
    recorded: _trace.Recorded, graph: _trace.Graph, kernels: frozenset[str]
) -> tuple[_trace.Graph, Plan]:
    """The plan of a graph, which is made again, whole, where too much of it is sealed."""
    try:
        return graph, choose.build(graph, interpret.match(graph), kernels)
    except choose.Sealed:
        graph = _trace.flatten(recorded)
        return graph, choose.build(graph, interpret.match(graph), kernels)
