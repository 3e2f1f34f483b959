"""Prepare: an init function, for calls of one signature, becomes what is to be run.

Here a backend is chosen: a plan for the native kernels, or the reference and the reason why.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import _match, _trace
from .._base import garbage, log
from .._base.record import Record
from .._jax import compat, generators, places
from .._plan import Plan
from .._run.programs import NativeProgram, Program, ReferenceProgram
from .._trust import backends
from . import check
from .call import Call, Signature

if TYPE_CHECKING:
    from .._jax.types import Tree
    from .._run.layout import Layout

# What jax raises where a program needs the value of something that is being traced.
_OF_TRACED = (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError)


class Prepared(Record):
    """What calls of one signature run.

    Attributes:
        plan: what is made natively, and what is not.
        program: what makes it.
        member_bytes: what one member takes.
        tree: structure of the arguments.
        types: what the program takes of key and arguments, as a dictionary key.
        drawing: how the function draws.
        lasting: whether it serves other calls too.
        layout: where the results lie, None if that is left to jax.
    """

    plan: Plan
    program: Program
    member_bytes: int
    tree: Tree
    types: Any
    drawing: generators.Drawing
    lasting: bool
    layout: Layout | None = None


def prepare(
    init: Callable[..., Any],
    call: Call,
    signature: Signature,
    out_shardings: Any = None,
    size: int | None = None,
    moved: bool = False,
) -> Prepared:
    """Traces and plans an init function for a call and others like it.

    Args:
        out_shardings: where the results are to lie, None if that is left to jax.
        size: see `shardings.resolve`.
        moved: whether results are made elsewhere than on the devices that they come to lie on.

    Raises:
        TypeError: ``init`` cannot be called this way, or its result is not one of arrays.
        RuntimeError: ``SEEDBED_BACKEND=native`` and the extension cannot be used.
    """
    started = time.perf_counter()
    check.init_call(init, call.args)
    # Results that are laid out as asked for do not lie where arguments do.
    placed = out_shardings is None
    key, args = call.member_types(placed)
    try:
        recorded = _trace.record(init, key, args)
    except (TypeError, ValueError) as error:
        for note in (*_as_shapes(error, call), *_as_members(call, size)):
            error.add_note(f"seedbed: {note}")
        raise
    prepared = _laid_out(recorded, call, signature, out_shardings, size, moved)
    if log.heard():
        took = time.perf_counter() - started
        _say(log.name_of(init), prepared.plan, took, _as_members(call, size))
    return prepared


def _say(name: str, plan: Plan, took: float, hints: list[str]) -> None:
    log.LOGGER.info(
        "planned %s in %.3f s: %d draw(s) for %d leaves, %s bytes a member",
        *(name, took, len(plan.draws), len(plan.outputs), f"{plan.total_bytes:,}"),
    )
    if plan.reference:
        log.LOGGER.info("%s runs on the reference backend: %s", name, plan.reference)
    for hint in hints:
        log.LOGGER.info("%s", hint)
    log.LOGGER.debug("%s", plan.explain())


def _laid_out(
    recorded: _trace.Recorded,
    call: Call,
    signature: Signature,
    out_shardings: Any,
    size: int | None,
    moved: bool,
) -> Prepared:
    """What a traced function becomes, its results laid out as asked for."""
    placed = out_shardings is None
    given = (*call.keys, *call.leaves) if placed else ()
    reason = places.why_jaxs(given, recorded.closed)
    impls = [generators.of(one) for one in call.keys]
    if out_shardings is None or not recorded.paths:
        return _planned(recorded, impls, signature, reason)
    from . import shardings  # of no use to most

    if reason is None:
        recorded = _trace.unlaid(recorded)
    prepared = _planned(recorded, impls, signature, reason)
    layout = shardings.resolve(out_shardings, prepared.plan, size)
    if not moved and (platform := compat.elsewhere_on(layout.mesh)) is not None:
        prepared = _planned(recorded, impls, signature.replace(elsewhere=platform), reason)
    plan = shardings.explained(prepared.plan, layout)
    if isinstance(prepared.program, NativeProgram):
        prepared.program.plan = plan
    return prepared.replace(plan=plan, layout=layout, member_bytes=layout.member_bytes(plan))


def _as_shapes(error: Exception, call: Call) -> list[str]:
    """What an error of the traced function has to do with Python integers among its arguments."""
    shape = isinstance(error, TypeError) and "concrete values" in str(error)
    if not (shape or isinstance(error, _OF_TRACED)):
        return []
    return [
        f"{name} = {leaf!r} is traced, as every argument of `init` is, and what is traced "
        "cannot be (part of) a shape, a range or a condition. Bind it instead: "
        "functools.partial(init, name=value)"
        for name, leaf, _ in _arguments(call)
        if isinstance(leaf, (int, np.integer))
    ]


def _as_members(call: Call, size: int | None) -> list[str]:
    """Which arguments may have been meant to be mapped."""
    return [
        f"{name} has shape {np.shape(leaf)} and goes to every member whole; if its {size} "
        "entries are the members', say so: in_axes=0"
        for name, leaf, axis in _arguments(call)
        if axis is None and size not in (None, 1) and np.shape(leaf)[:1] == (size,)
    ]


def _arguments(call: Call) -> list[tuple[str, Any, int | None]]:
    paths = jax.tree_util.tree_leaves_with_path(call.args)
    return [
        (f"args{jax.tree_util.keystr(path)}", leaf, axis)
        for (path, leaf), axis in zip(paths, call.axes, strict=True)
    ]


@garbage.collections_paused()
def _planned(
    recorded: _trace.Recorded, impls: list[Any], signature: Signature, reason: str | None
) -> Prepared:
    """What a traced function becomes.

    Args:
        recorded: the function, traced for one member.
        impls: the implementation of each key.
        signature: of the call.
        reason: why the native backend may not make its draws, if that is known already.
    """
    graph = _trace.flatten(recorded, sealed=True)
    drawing = generators.drawing(recorded.closed.jaxpr, impls)
    reason = (
        backends.why_reference(drawing.foreign, graph.effects)
        or reason
        or backends.why_elsewhere(signature.elsewhere)
        or backends.why_watched()
    )
    if reason is None:
        plan = _match.planned(graph, backends.kernels())
        reason = backends.why_unscheduled(plan)
    if reason is None:
        captured = tuple(graph.captured.values())
        captures = tuple(captured[position] for position in plan.captures)
        axes = tuple(signature.axes[position] for position in plan.args)
        program: Program = NativeProgram(plan, captures, plan.args, axes)
    else:
        plan = _match.reference_plan(graph, reason)
        trimmed, captures, reads = _trace.trim(recorded.closed, len(impls))
        axes = tuple(signature.axes[position] for position in reads)
        program = ReferenceProgram(trimmed, captures, reads, axes, drawing.folds)
    read = tuple(signature.args[position] for position in program.reads)
    settings = (signature.backend, signature.context, signature.places, signature.elsewhere)
    types = (signature.key_tree, signature.keys, read, *settings)
    # A function that closes over values being traced means something else next time.
    lasting = not compat.under_trace(recorded.closed.consts)
    return Prepared(plan, program, plan.total_bytes, signature.tree, types, drawing, lasting)
