"""Trace: an init function becomes a flat list of equations on one member.

``init(key, *args)`` is traced abstractly (no arithmetic is done), the bodies of jitted
helpers are opened in place, and equations on constants are evaluated here, so that the
next stage sees the numbers a sampler was called with: nnx counts its streams with traced
constants, and the bounds of a truncated normal are ``erf``, ``div`` and ``nextafter`` of
constants.

Constant folding must give the bits that XLA's own constant folding gives inside
``jax.jit``; `_FOLD` therefore has only operations that IEEE 754 defines exactly, plus
``erf``, which XLA folds with the C library's function, as Python's `math.erf` is.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from . import _compat

Array = np.ndarray[Any, Any]

# Constants above this many elements stay equations (a splat costs nothing at any size).
_FOLD_LIMIT = 4096


@dataclass(frozen=True, slots=True)
class Const:
    """A constant operand."""

    value: Array


# An operand: the number of a value computed by an equation or given as input, or a constant.
Atom = int | Const


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
        key_inputs, arg_inputs: value numbers of the key and of the argument leaves.
        captured: arrays the function closed over, by value number.
        equations, outputs: the program.
        calls: the calls that were opened on the way.
        avals: abstract value of every value number.
        effects: whether the function has side effects (printing, callbacks).
    """

    closed: Any
    out_tree: Any
    paths: tuple[str, ...]
    key_input: int = -1
    arg_inputs: tuple[int, ...] = ()
    captured: dict[int, Any] = field(default_factory=dict)
    equations: list[Equation] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: tuple[Atom, ...] = ()
    avals: list[Any] = field(default_factory=list)
    effects: bool = False


def trace(init: Callable[..., Any], key: Any, args: tuple[Any, ...]) -> Graph:
    """Traces ``init(key, *args)`` for one member.

    Args:
        init: the user's function.
        key: abstract member key (`jax.ShapeDtypeStruct`).
        args: pytree of abstract arguments, as one member sees them.

    Raises:
        TypeError: ``init`` returned something that is not an array, could not be called
            with these arguments, or stored a traced value outside itself.
    """
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
    _check_leaks(traces)
    leaves, out_tree = jax.tree_util.tree_flatten_with_path(shapes)
    paths = tuple(jax.tree_util.keystr(path) or "result" for path, _ in leaves)
    graph = Graph(closed, out_tree, paths, effects=bool(closed.jaxpr.effects))
    _flatten(graph)
    return graph


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
            "container that outlives the call). It runs once, on abstract values, for all "
            "members; return what you want to keep instead of storing it."
        )


def _values(trace: Any | None) -> bool:
    if trace is None:
        return False
    return any(_compat.is_tracer(holder) for holder in gc.get_referrers(trace))


def _flatten(graph: Graph) -> None:
    """Opens calls in place and folds constants, iteratively over the open calls."""
    jaxpr = graph.closed.jaxpr
    env: dict[Any, Atom] = {}

    def new(aval: Any) -> int:
        graph.avals.append(aval)
        return len(graph.avals) - 1

    def bind_consts(
        scope: dict[Any, Atom], variables: Sequence[Any], values: Sequence[Any]
    ) -> None:
        for variable, value in zip(variables, values, strict=True):
            if _foldable_capture(value):
                scope[variable] = Const(np.asarray(value))
            else:
                number = new(variable.aval)
                graph.captured[number] = value
                scope[variable] = number

    bind_consts(env, jaxpr.constvars, graph.closed.consts)
    inputs = [new(variable.aval) for variable in jaxpr.invars]
    env.update(zip(jaxpr.invars, inputs, strict=True))
    graph.key_input, graph.arg_inputs = inputs[0], tuple(inputs[1:])

    def read(scope: dict[Any, Atom], variable: Any) -> Atom:
        if hasattr(variable, "val"):  # a literal
            return Const(np.asarray(variable.val, dtype=variable.aval.dtype))
        return scope[variable]

    # A frame is (jaxpr, its scope, position, its caller's scope, the calls it stands in).
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
        if inner is not None and (not _compat.is_remat(eqn) or _draws(inner.jaxpr)):
            callee: dict[Any, Atom] = {}
            bind_consts(callee, inner.jaxpr.constvars, inner.consts)
            callee.update(zip(inner.jaxpr.invars, operands, strict=True))
            frames.append([inner.jaxpr, callee, 0, scope, (*frame[4], len(graph.calls))])
            graph.calls.append(Call(eqn, operands))
            continue
        folded = fold(eqn, operands)
        if folded is not None:
            scope[eqn.outvars[0]] = folded
            continue
        outputs = tuple(new(variable.aval) for variable in eqn.outvars)
        scope.update(zip(eqn.outvars, outputs, strict=True))
        graph.equations.append(Equation(eqn, operands, outputs, frame[4]))


def _foldable_capture(value: Any) -> bool:
    """Captured scalars and index arrays are constants; others stay operands of the program."""
    if _compat.is_tracer(value) or not hasattr(value, "dtype"):
        return False
    if _compat.is_key(value.dtype):
        return False
    if value.size > (1024 if value.dtype.kind in "iu" else 1):
        return False
    return isinstance(value, (np.ndarray, np.generic)) or bool(value.is_fully_addressable)


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


# --- constant folding -------------------------------------------------------------------


def splat(value: Array) -> Any | None:
    """The one number an array consists of, or None. Reads one element of a broadcast view."""
    if value.size == 1:
        return value.reshape(())[()]
    if value.size and all(
        stride == 0 or dim == 1 for stride, dim in zip(value.strides, value.shape, strict=True)
    ):
        return value[(0,) * value.ndim]
    if 0 < value.size <= _FOLD_LIMIT:
        # Compared by bits: 0.0 and -0.0 are not one number here.
        rows = np.ascontiguousarray(value).reshape(-1, 1).view(np.uint8)
        if (rows == rows[0]).all():
            return value.flat[0]
    return None


def fold(eqn: Any, operands: Sequence[Atom]) -> Const | None:
    """Value of an equation whose operands are all constants, or None to keep it."""
    rule = _FOLD.get(eqn.primitive.name)
    if rule is None or len(eqn.outvars) != 1:
        return None
    values = []
    for operand in operands:
        if not isinstance(operand, Const):
            return None
        values.append(operand.value)
    aval = eqn.outvars[0].aval
    if _compat.is_key(aval.dtype):
        return None
    large = math.prod(aval.shape) > _FOLD_LIMIT or any(v.size > _FOLD_LIMIT for v in values)
    if large and eqn.primitive.name not in _VIEWS:
        # Work on one element and broadcast, so that no array is ever filled here.
        numbers = [splat(value) for value in values]
        if any(n is None for n in numbers) or eqn.primitive.name not in _ELEMENTWISE:
            return None
        values = [np.asarray(n) for n in numbers]
    with np.errstate(all="ignore"):
        result = rule(eqn.params, *values)
    if result is None:
        return None
    result = np.asarray(result)
    if result.dtype != aval.dtype:
        result = result.astype(aval.dtype)
    return Const(np.broadcast_to(result, aval.shape))


def _integer_only(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(params: Any, *values: Array) -> Any:
        return function(*values) if values[0].dtype.kind in "iub" else None

    return rule


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, *values: function(*values)


def _is_float(dtype: Any) -> bool:
    return _compat.is_float(dtype)


def _erf(params: Any, x: Array) -> Any:
    if x.size > 64:
        return None
    wide = np.float64 if x.dtype == np.float64 else np.float32
    values = [math.erf(v) for v in x.astype(np.float64).ravel().tolist()]
    return np.array(values, np.float64).astype(wide).reshape(x.shape)


def _shift_right_logical(x: Array, n: Array) -> Any:
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    shifted = x.view(unsigned) >> n.astype(unsigned)
    return np.where(n < 8 * x.dtype.itemsize, shifted, unsigned.type(0)).view(x.dtype)


def _rem(x: Array, y: Array) -> Any:
    if x.dtype.kind not in "iu" or not y.all():
        return None
    return np.fmod(x, y)


def _div(x: Array, y: Array) -> Any:
    if _is_float(x.dtype):
        return x / y
    if x.dtype.kind not in "iu" or not y.all():
        return None
    return (x - np.fmod(x, y)) // y


def _convert(params: Any, x: Array) -> Any:
    new = np.dtype(params["new_dtype"])
    if _is_float(x.dtype) and new.kind in "iu":
        return None  # out of range values are XLA's to define
    return x.astype(new)


def _broadcast_in_dim(params: Any, x: Array, *dynamic: Array) -> Any:
    if dynamic:
        return None
    shape = [1] * len(params["shape"])
    for source, target in enumerate(params["broadcast_dimensions"]):
        shape[target] = x.shape[source]
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _reshape(params: Any, x: Array, *dynamic: Array) -> Any:
    number = splat(x)
    if number is not None and not dynamic:
        return np.broadcast_to(np.asarray(number, x.dtype), params["new_sizes"])
    return None if dynamic or x.size > _FOLD_LIMIT else x.reshape(params["new_sizes"])


def _slice(params: Any, x: Array) -> Any:
    steps = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return x[tuple(slice(*bound) for bound in bounds)]


def _iota(params: Any, *dynamic: Array) -> Any:
    if dynamic or math.prod(params["shape"]) > _FOLD_LIMIT:
        return None
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = -1
    line = np.arange(params["shape"][params["dimension"]]).astype(params["dtype"])
    return np.broadcast_to(line.reshape(shape), params["shape"])


def _select_n(which: Array, *cases: Array) -> Any:
    if which.dtype == bool:
        return np.where(which, cases[1], cases[0])
    return np.choose(which, cases) if which.dtype.kind in "iu" else None


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": _plain(np.add),
    "sub": _plain(np.subtract),
    "mul": _plain(np.multiply),
    "div": _plain(_div),
    "rem": _plain(_rem),
    "max": _plain(np.maximum),
    "min": _plain(np.minimum),
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "sqrt": _plain(np.sqrt),
    "erf": _erf,
    "nextafter": _plain(np.nextafter),
    "clamp": _plain(lambda low, x, high: np.minimum(np.maximum(x, low), high)),
    "select_n": _plain(_select_n),
    "eq": _plain(np.equal),
    "ne": _plain(np.not_equal),
    "lt": _plain(np.less),
    "le": _plain(np.less_equal),
    "gt": _plain(np.greater),
    "ge": _plain(np.greater_equal),
    "and": _integer_only(np.bitwise_and),
    "or": _integer_only(np.bitwise_or),
    "xor": _integer_only(np.bitwise_xor),
    "not": _integer_only(np.invert),
    "shift_right_logical": _integer_only(_shift_right_logical),
    "convert_element_type": _convert,
    "stop_gradient": _plain(lambda x: x),
    "copy": _plain(lambda x: x),
    "copy_p": _plain(lambda x: x),
}
# Results that are views of their operand, so that their size does not matter.
_VIEWS = ("broadcast_in_dim", "reshape", "squeeze", "slice", "stop_gradient", "copy", "copy_p")
_FOLD: dict[str, Callable[..., Any]] = {
    **_ELEMENTWISE,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": lambda params, x: np.squeeze(x, params["dimensions"]),
    "slice": _slice,
    "transpose": lambda params, x: np.transpose(x, params["permutation"]),
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "iota": _iota,
}
