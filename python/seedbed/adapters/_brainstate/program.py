"""Traced programs of a call: what all members share, what each has, and checks that pass."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import jax

from ..._jax import compat
from ..._trace import cut


class NotNative(Exception):
    """The call has to be brainstate's own, and why."""


_showing = threading.local()  # .lists: for each block of this thread, what was made into text
_swapping = threading.Lock()
_blocks: set[object] = set()
_Tracer: Any = jax.core.Tracer
_TEXTS = ("__repr__", "__str__", "__format__", "repr_in_unit", "display_in_unit")
_own_repr: Callable[[Any], str] = _Tracer.__repr__


def _noted_repr(tracer: Any) -> str:
    lists = getattr(_showing, "lists", ())
    if lists and _is_wanted(sys._getframe(1)):
        for texts in lists:
            texts.append(tracer)
    return _own_repr(tracer)


def _is_wanted(frame: Any) -> bool:
    """Operators of quantities write an error message each time, to throw it away."""
    name = "__repr__"
    while frame is not None and frame.f_globals.get("__name__", "").startswith("saiunit."):
        name = frame.f_code.co_name
        frame = frame.f_back
    return name in _TEXTS


@contextlib.contextmanager
def shown() -> Iterator[list[Any]]:
    """The traced values of which this thread makes text inside; outside, jax is as it was."""
    texts: list[Any] = []
    lists = vars(_showing).setdefault("lists", [])
    before, block = list(lists), object()
    try:  # an interrupt may come between any two lines, also of what ends the block
        try:
            with _swapping:
                _blocks.add(block)
                _Tracer.__repr__ = _noted_repr
            lists.append(texts)
            yield texts
        finally:
            _end(block, lists, before)
    finally:
        _end(block, lists, before)


def _end(block: object, lists: list[Any], before: list[Any]) -> None:
    lists[:] = before
    with _swapping:
        _blocks.discard(block)
        if not _blocks:
            _Tracer.__repr__ = _own_repr


def parts(closed: Any, once: list[int], loose: list[int]) -> tuple[Callable[[], Any], Any]:
    """The program of what all members share, evaluated when called, and that of the members."""
    drop = set(loose) - set(once)
    outvars = [atom for i, atom in enumerate(closed.jaxpr.outvars) if i not in drop]
    left = [i for i in range(len(closed.jaxpr.outvars)) if i not in drop]
    closed = closed.replace(jaxpr=closed.jaxpr.replace(outvars=outvars))
    positions = {left.index(i) for i in once}
    single, members, needed, _ = cut.split(closed, (), (), positions)
    assert not needed

    # Nothing in it reads the key, of which there is none here.
    alone = single.jaxpr.replace(invars=[])

    def evaluate() -> Any:
        return jax.core.eval_jaxpr(alone, single.consts)

    return evaluate, members


def without_checks(closed: Any) -> Any:
    """The program without checks that pass whatever a member's key is.

    brainstate's initialisers check their arguments by a callback in a branch that is not taken.
    """
    if not closed.jaxpr.effects:
        return closed
    jaxpr = closed.jaxpr
    checks = [eqn for eqn in jaxpr.eqns if eqn.effects]
    quiet = [eqn for eqn in jaxpr.eqns if not eqn.effects]
    if any(eqn.primitive.name != "cond" or eqn.outvars for eqn in checks):
        raise NotNative("it has side effects (a print or a callback)")
    chosen = jaxpr.replace(
        eqns=quiet, outvars=[eqn.invars[0] for eqn in checks], effects=frozenset()
    )
    if cut.dependent(chosen, range(len(chosen.invars))):
        raise NotNative("it has side effects that depend on random numbers")
    evaluate, _ = parts(closed.replace(jaxpr=chosen), list(range(len(checks))), [])
    with compat.compile_time_eval():
        indices = [int(index) for index in evaluate()]
    for eqn, index in zip(checks, indices, strict=True):
        if any(inner.effects for inner in eqn.params["branches"][index].jaxpr.eqns):
            raise NotNative("a check of an argument fails")
    return closed.replace(jaxpr=jaxpr.replace(eqns=quiet, effects=frozenset()))


def leaks_allowed() -> contextlib.AbstractContextManager[None]:
    """Without `jax.checking_leaks`, for traces that leave values behind on purpose."""
    setting: Any = getattr(jax.checking_leaks, "func", None)
    return contextlib.nullcontext() if setting is None else setting(False)


def kept(value: Any) -> Any:
    # A literal of a traced program is a number with a type of its own.
    return value if isinstance(value, jax.Array) else jax.numpy.asarray(value)


def moved(leaf: Any, axis: int) -> Any:
    return leaf if axis == 0 else jax.numpy.moveaxis(leaf, 0, axis)
