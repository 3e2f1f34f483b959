"""Trace: an init function becomes a flat list of equations on one member.

``init(key, *args)`` is traced abstractly (no arithmetic is done), the bodies of jitted
helpers are opened in place, and equations on constants are evaluated here, so that the
next stage sees the numbers a sampler was called with: nnx counts its streams with traced
constants, and the bounds of a truncated normal are ``erf``, ``div`` and ``nextafter`` of
constants (`_fold`).
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from . import _compat, _same
from ._fold import ROUNDED_BY_PLACE, Atom, Const, Unsettled, fold


@dataclass(frozen=True, slots=True)
class Equation:
    """One primitive application; ``eqn`` keeps its parameters and context."""

    eqn: Any
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]
    # The opened calls it stands in, outermost first (positions in `Graph.calls`).
    calls: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        return str(self.eqn.primitive.name)

    @property
    def params(self) -> dict[str, Any]:
        return dict(self.eqn.params)


@dataclass(slots=True)
class Call:
    """A call that was opened: its operands and results as values of the flat program."""

    eqn: Any
    inputs: tuple[Atom, ...]
    outputs: tuple[Atom, ...] = ()


@dataclass(slots=True)
class Graph:
    """A traced init function, flat.

    Attributes:
        closed: the jaxpr as traced, which the reference backend evaluates.
        out_tree: structure of the result.
        paths: name of each output leaf, as `jax.tree_util.keystr` writes it.
        streams: name of each key, empty where there is only one.
        key_inputs, arg_inputs: value numbers of the keys and of the argument leaves.
        captured: arrays the function closed over, by value number.
        equations, outputs: the program.
        calls: the calls that were opened on the way.
        avals: abstract value of every value number.
        effects: whether the function has side effects (printing, callbacks).
    """

    closed: Any
    out_tree: Any
    paths: tuple[str, ...]
    streams: tuple[str, ...] = ("",)
    key_inputs: tuple[int, ...] = ()
    arg_inputs: tuple[int, ...] = ()
    captured: dict[int, Any] = field(default_factory=dict)
    equations: list[Equation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: tuple[Atom, ...] = ()
    avals: list[Any] = field(default_factory=list)
    effects: bool = False


@dataclass(frozen=True)
class Recorded:
    """A traced init function, as jax wrote it down.

    It is itself an init function ``(key, *leaves)``: of the argument leaves, for the types
    it was traced with.

    Attributes:
        closed: the jaxpr of one member.
        out_tree: structure of the result.
        paths: name of each output leaf, as `jax.tree_util.keystr` writes it.
        streams: name of each key.
    """

    closed: Any
    out_tree: Any
    paths: tuple[str, ...]
    streams: tuple[str, ...] = ("",)

    def __call__(self, key: Any, *leaves: Any) -> Any:
        keys = jax.tree_util.tree_leaves(key)
        out = jax.core.eval_jaxpr(self.closed.jaxpr, self.closed.consts, *keys, *leaves)
        return jax.tree_util.tree_unflatten(self.out_tree, out)


def record(init: Callable[..., Any], key: Any, args: tuple[Any, ...]) -> Recorded:
    """Traces ``init(key, *args)`` for one member. A recorded function is returned as it is.

    Args:
        init: the user's function.
        key: abstract member key (`jax.ShapeDtypeStruct`), or a pytree of several.
        args: pytree of abstract arguments, as one member sees them.

    Raises:
        TypeError: ``init`` returned something that is not an array, could not be called
            with these arguments, or stored a traced value outside itself.
    """
    if isinstance(init, Recorded):
        _check_types(init, (*jax.tree_util.tree_leaves(key), *args))
        return init
    traces: list[weakref.ref[Any]] = []

    def traced(key: Any, args: tuple[Any, ...]) -> Any:
        for leaf in jax.tree_util.tree_leaves((key, args)):
            owner = _compat.trace_of(leaf)
            if owner is not None:
                traces.append(weakref.ref(owner))
        out = init(key, *args)
        _check_outputs(out)
        return out

    closed, shapes = jax.make_jaxpr(traced, return_shape=True)(key, args)
    # A derivative rule may close over traced values, and the jaxpr keeps the rule.
    if not _has_rules(closed.jaxpr):
        _check_leaks(traces)
    leaves, out_tree = jax.tree_util.tree_flatten_with_path(shapes)
    paths = tuple(jax.tree_util.keystr(path) or "result" for path, _ in leaves)
    keys = jax.tree_util.tree_leaves_with_path(key)
    return Recorded(closed, out_tree, paths, tuple(jax.tree_util.keystr(path) for path, _ in keys))


def flatten(recorded: Recorded) -> Graph:
    """Opens the calls in a traced function and folds its constants."""
    closed = recorded.closed
    shut: list[Any] = []
    while True:
        graph = Graph(closed, recorded.out_tree, recorded.paths, recorded.streams)
        graph.effects = bool(closed.jaxpr.effects)
        call = _flatten(graph, shut)
        if call is None:
            return graph
        shut.append(call)


def trace(init: Callable[..., Any], key: Any, args: tuple[Any, ...]) -> Graph:
    """`record`, then `flatten`."""
    return flatten(record(init, key, args))


def _check_types(recorded: Recorded, types: Sequence[Any]) -> None:
    want = [(aval.shape, aval.dtype) for aval in recorded.closed.in_avals]
    came = [(leaf.shape, leaf.dtype) for leaf in types]
    if want != came:
        raise TypeError(f"this function was traced for arguments of types {want}; got {came}")


def _check_outputs(out: Any) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(out):
        if isinstance(leaf, (int, float, complex, bool, np.generic, np.ndarray, jax.Array)):
            if not isinstance(leaf, (np.generic, np.ndarray)) or leaf.dtype.kind in "biufcV":
                continue
        where = jax.tree_util.keystr(path) or "the result itself"
        raise TypeError(
            f"`init` must return a pytree of arrays; {where} is {leaf!r} of type "
            f"{type(leaf).__name__}. Return arrays and Python numbers only, and keep other "
            "things (functions, strings) out of the result, for example with "
            "`equinox.filter` or by closing over them."
        )


def _check_leaks(traces: Sequence[weakref.ref[Any]]) -> None:
    """A traced value that outlives tracing was stored somewhere, and means nothing there.

    The trace itself may live on in the jaxpr (the derivative rule of a custom_jvp function
    holds it), so what counts is whether one of its values does.
    """
    if not any(_values(ref()) for ref in traces):
        return
    gc.collect()
    if any(_values(ref()) for ref in traces):
        raise TypeError(
            "`init` stored a traced value outside itself (in a global, an attribute or a "
            "container that outlives the call, or `jax.jit` of a method keeps what it read of "
            "its object). It runs once, on abstract values, for all members; return what you "
            "want to keep instead of storing it."
        )


def _has_rules(jaxpr: Any) -> bool:
    """Whether a function with a derivative rule of its own is called anywhere inside."""
    return any(str(eqn.primitive.name).startswith("custom_") for eqn in _compat.equations(jaxpr))


def _values(trace: Any | None) -> bool:
    if trace is None:
        return False
    return any(_compat.is_tracer(holder) for holder in gc.get_referrers(trace))


def _flatten(graph: Graph, shut: Sequence[Any]) -> Any | None:
    """Opens calls in place and folds constants, iteratively over the open calls.

    Returns:
        The call that has to stay shut, with those of ``shut``, if one is found; or None.
    """
    jaxpr = graph.closed.jaxpr
    env: dict[Any, Atom] = {}

    def new(aval: Any) -> int:
        graph.avals.append(aval)
        return len(graph.avals) - 1

    def bind_consts(
        scope: dict[Any, Atom], variables: Sequence[Any], values: Sequence[Any]
    ) -> None:
        for variable, value in zip(variables, values, strict=True):
            if _same.is_constant(value):
                scope[variable] = Const(np.asarray(value))
            else:
                number = new(variable.aval)
                graph.captured[number] = value
                scope[variable] = number

    bind_consts(env, jaxpr.constvars, graph.closed.consts)
    inputs = [new(variable.aval) for variable in jaxpr.invars]
    env.update(zip(jaxpr.invars, inputs, strict=True))
    keys = len(graph.streams)
    graph.key_inputs, graph.arg_inputs = tuple(inputs[:keys]), tuple(inputs[keys:])

    def read(scope: dict[Any, Atom], variable: Any) -> Atom:
        if hasattr(variable, "val"):  # a literal
            return Const(np.asarray(variable.val, dtype=variable.aval.dtype))
        return scope[variable]

    # A frame is (jaxpr, its scope, position, its caller's scope, the calls it stands in).
    fixed: set[int] = set()
    frames: list[list[Any]] = [[jaxpr, env, 0, None, ()]]
    while frames:
        frame = frames[-1]
        body, scope, position = frame[0], frame[1], frame[2]
        if position == len(body.eqns):
            results = [read(scope, variable) for variable in body.outvars]
            frames.pop()
            if frame[3] is None:
                graph.outputs = tuple(results)
            else:
                call = graph.calls[frame[4][-1]]
                call.outputs = tuple(results)
                frame[3].update(zip(call.eqn.outvars, results, strict=True))
            continue
        frame[2] += 1
        eqn = body.eqns[position]
        operands = tuple(read(scope, variable) for variable in eqn.invars)
        inner = _compat.inner_jaxpr(eqn)
        if any(eqn is call for call in shut):
            inner = None
        if inner is not None and (not _compat.is_remat(eqn) or _draws(inner.jaxpr)):
            callee: dict[Any, Atom] = {}
            bind_consts(callee, inner.jaxpr.constvars, inner.consts)
            callee.update(zip(inner.jaxpr.invars, operands, strict=True))
            frames.append([inner.jaxpr, callee, 0, scope, (*frame[4], len(graph.calls))])
            graph.calls.append(Call(eqn, operands))
            continue
        try:
            folded = fold(eqn, operands, nested=bool(frame[4]))
        except Unsettled:
            return graph.calls[frame[4][-1]].eqn
        if folded is not None:
            scope[eqn.outvars[0]] = folded
            continue
        # Computed from constants alone, if not by us.
        known = all(isinstance(operand, Const) or operand in fixed for operand in operands)
        if known and frame[4] and eqn.primitive.name in ROUNDED_BY_PLACE:
            return graph.calls[frame[4][-1]].eqn
        outputs = tuple(new(variable.aval) for variable in eqn.outvars)
        if known:
            fixed.update(outputs)
        scope.update(zip(eqn.outvars, outputs, strict=True))
        graph.equations.append(Equation(eqn, operands, outputs, frame[4]))
    return None


def _draws(jaxpr: Any) -> bool:
    """Whether random numbers are made anywhere inside."""
    open_bodies = [jaxpr]
    while open_bodies:
        body = open_bodies.pop()
        for eqn in body.eqns:
            if str(eqn.primitive.name).startswith("random_"):
                return True
            inner = _compat.inner_jaxpr(eqn)
            if inner is not None:
                open_bodies.append(inner.jaxpr)
    return False
