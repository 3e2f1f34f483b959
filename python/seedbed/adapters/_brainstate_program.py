"""Traced programs of a call: what all members share, what each has, and checks that pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .. import _compat
from ..nn import _tap


class NotNative(Exception):
    """The call has to be brainstate's own, and why."""


def parts(closed: Any, once: list[int], loose: list[int]) -> tuple[Callable[[], Any], Any]:
    """The program of what all members share, evaluated when called, and that of the members."""
    drop = set(loose) - set(once)
    outvars = [atom for i, atom in enumerate(closed.jaxpr.outvars) if i not in drop]
    left = [i for i in range(len(closed.jaxpr.outvars)) if i not in drop]
    closed = closed.replace(jaxpr=closed.jaxpr.replace(outvars=outvars))
    positions = {left.index(i) for i in once}
    single, members, needed, _ = _tap.split(closed, (), (), positions)
    assert not needed

    def evaluate() -> Any:
        return jax.core.eval_jaxpr(single.jaxpr, single.consts, None)

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
    if _tap.dependent(chosen, range(len(chosen.invars))):
        raise NotNative("it has side effects that depend on random numbers")
    evaluate, _ = parts(closed.replace(jaxpr=chosen), list(range(len(checks))), [])
    with _compat.compile_time_eval():
        indices = [int(index) for index in evaluate()]
    for eqn, index in zip(checks, indices, strict=True):
        if any(inner.effects for inner in eqn.params["branches"][index].jaxpr.eqns):
            raise NotNative("a check of an argument fails")
    return closed.replace(jaxpr=jaxpr.replace(eqns=quiet, effects=frozenset()))


def kept(value: Any) -> Any:
    # A literal of a traced program is a number with a type of its own.
    return value if isinstance(value, jax.Array) else jax.numpy.asarray(value)


def moved(leaf: Any, axis: int) -> Any:
    return leaf if axis == 0 else jax.numpy.moveaxis(leaf, 0, axis)
