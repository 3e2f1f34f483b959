"""Trace: an init function becomes a flat list of equations on one member.

``init(key, *args)`` is traced abstractly (no arithmetic is done), the bodies of jitted
helpers are opened in place, and equations on constants are evaluated here, so that the
next stage sees the numbers a sampler was called with: nnx counts its streams with traced
constants, and the bounds of a truncated normal are ``erf``, ``div`` and ``nextafter`` of
constants (`_trace.fold`).
"""

from __future__ import annotations

import contextlib
import gc
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base import garbage
from .._jax import compat, jaxprs
from .depth import finite

if TYPE_CHECKING:
    from .._jax.types import ClosedJaxpr, Jaxpr, Tree
    from .graph import Graph


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

    closed: ClosedJaxpr
    out_tree: Tree
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
        leaves = jax.tree_util.tree_leaves((key, args))
        for leaf in leaves:
            owner = compat.trace_of(leaf)
            if owner is not None:
                traces.append(weakref.ref(owner))
        with released_on_failure(leaves):
            out = finite(init(key, *args), "the result of `init`")
            check_outputs(out)
        return out

    with garbage.only_new_garbage(), global_numbers_noticed(init):
        closed, shapes = jax.make_jaxpr(traced, return_shape=True)(key, args)
        # A derivative rule may close over traced values, and the jaxpr keeps the rule.
        leaked = not _has_rules(closed.jaxpr) and outlived(traces)
    if leaked and outlived(traces):
        raise TypeError(
            "`init` stored a traced value outside itself (in a global, an attribute or a "
            "container that outlives the call, or `jax.jit` of a method keeps what it read of "
            "its object). It runs once, on abstract values, for all members; return what you "
            "want to keep instead of storing it."
        )
    leaves, out_tree = jax.tree_util.tree_flatten_with_path(shapes)
    paths = tuple(jax.tree_util.keystr(path) or "result" for path, _ in leaves)
    keys = jax.tree_util.tree_leaves_with_path(key)
    return Recorded(closed, out_tree, paths, tuple(jax.tree_util.keystr(path) for path, _ in keys))


def flatten(recorded: Recorded, sealed: bool = False) -> Graph:
    """Opens the calls in a traced function and folds its constants.

    With ``sealed``, a call that draws is opened only where it is met first. That is enough for
    most functions, and a fraction of the work for one of many equal layers.
    """
    from . import graph as graphs  # of no use before a plan is made
    from . import inline

    graph = graphs.Graph(recorded.closed, recorded.out_tree, recorded.paths, recorded.streams)
    inline.flatten(graph, sealed)
    return graph


def trace(init: Callable[..., Any], key: Any, args: tuple[Any, ...]) -> Graph:
    """`record`, then `flatten`."""
    return flatten(record(init, key, args))


def _check_types(recorded: Recorded, types: Sequence[Any]) -> None:
    want = [(aval.shape, aval.dtype) for aval in recorded.closed.in_avals]
    came = [(leaf.shape, leaf.dtype) for leaf in types]
    if want != came:
        raise TypeError(f"this function was traced for arguments of types {want}; got {came}")


def check_outputs(out: Any) -> None:
    """Whether all leaves of what a traced function returns are arrays or numbers."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(out):
        if isinstance(leaf, (int, float, complex, bool, np.generic, np.ndarray, jax.Array)):
            if not isinstance(leaf, (np.generic, np.ndarray)) or _is_number(leaf.dtype):
                continue
        where = jax.tree_util.keystr(path) or "the result itself"
        raise TypeError(
            f"`init` must return a pytree of arrays; {where} is {leaf!r} of type "
            f"{type(leaf).__name__}. Return arrays and Python numbers only, and keep other "
            "things (functions, strings) out of the result, for example with "
            "`equinox.filter` or by closing over them."
        )


def _is_number(dtype: Any) -> bool:
    # bfloat16 and its like are of the kind V, as are records, which jax does not have.
    return dtype.kind in "biufc" or (dtype.kind == "V" and jnp.issubdtype(dtype, np.number))


@contextlib.contextmanager
def released_on_failure(leaves: Sequence[Any]) -> Iterator[None]:
    """For the body of a function that is traced with these values.

    jax lets go of a trace when it is done. One that fails after it has captured an array is kept
    alive by the array's finalizer, which waits for the trace.
    """
    try:
        yield
    except BaseException:
        for leaf in leaves:
            invalidate = getattr(compat.trace_of(leaf), "invalidate", None)
            if invalidate is not None:
                invalidate()
        raise


@contextlib.contextmanager
def global_numbers_noticed(*roots: Any) -> Iterator[None]:
    """Warns if what is traced draws from the random state of `random` or of `numpy.random`.

    Args:
        roots: what is traced, to find the line in.
    """
    before = _global_numbers()
    yield
    moved = [name for name, state in _global_numbers().items() if before.get(name, state) != state]
    if moved:
        from . import ambient  # of no use to most

        ambient.warn(moved, roots)


def _global_numbers() -> dict[str, Any]:
    """The random states of a process, as far as they are there."""
    found: dict[str, Any] = {}
    if "numpy.random" in sys.modules:
        # The new form, which there is of every generator that may have been put there.
        state: Any = np.random.get_state(legacy=False)
        words = state["state"].get("key")
        place = repr(state["state"]) if words is None else (words.tobytes(), state["state"]["pos"])
        found["numpy.random"] = (place, state.get("has_gauss"))
    if "random" in sys.modules:
        found["random"] = sys.modules["random"].getstate()
    return found


def outlived(traces: Sequence[weakref.ref[Any]]) -> bool:
    """Whether a traced value outlives tracing: it was stored somewhere, and means nothing there.

    The trace itself may live on in the jaxpr (the derivative rule of a custom_jvp function
    holds it), so what counts is whether one of its values does.
    """
    if not any(_values(ref()) for ref in traces):
        return False
    gc.collect()
    return any(_values(ref()) for ref in traces)


def _has_rules(jaxpr: Jaxpr) -> bool:
    """Whether a function with a derivative rule of its own is called anywhere inside."""
    return any(str(eqn.primitive.name).startswith("custom_") for eqn in jaxprs.equations(jaxpr))


def _values(trace: Any | None) -> bool:
    if trace is None:
        return False
    return any(compat.is_tracer(holder) for holder in gc.get_referrers(trace))
