"""Peers that are one way under other conditions, or into old memory; see `tables.limits`.

Each function takes a case and returns a `Call`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..case import Case
from . import on_jax
from . import unrolled as unrolled_lowering
from .roster import Call, Unavailable


def regrouped(case: Case, members: int) -> Call:
    return on_jax.seedbed(case.regrouped(members))


def one_leaf(case: Case, of: str) -> Call:
    factory: Callable[[Case], Call] = getattr(on_jax, of)
    return factory(case.in_one_leaf())


def on_isa(case: Case) -> Call:
    """Seedbed with the instruction set that the process's environment names."""
    import os

    from seedbed import _cpu

    wanted = os.environ["SEEDBED_ISA"]
    if wanted not in _cpu.isas():
        raise Unavailable(f"this machine runs only {', '.join(_cpu.isas())}, not {wanted}")
    return on_jax.seedbed(case)


def _again(first: Callable[[Any], Any], again: Callable[[Any, Any], Any]) -> Callable[[Any], Any]:
    """Makes an ensemble, and from then on a new one in its place."""
    old: list[Any] = []

    def run(key: Any) -> Any:
        made = jax.block_until_ready(again(key, old.pop()) if old else first(key))
        old.append(made)
        return made

    return run


def donating(case: Case) -> Call:
    import seedbed as sb

    init = on_jax.init(case)
    fresh = sb.ensemble(init, case.members)
    make: Any = sb.ensemble(init, case.members, donate=True)

    def facts() -> dict[str, Any]:
        return on_jax.plan_facts(fresh.plan(on_jax.key(0)))

    return Call(on_jax.key, _again(fresh, make), facts)


def jax_donating(case: Case, unrolled: bool = False) -> Call:
    if unrolled:
        unrolled_lowering.install()
    ensemble = on_jax.vmapped(case)
    # Kept although the function does not read it: an argument that is dropped is not donated.
    again = jax.jit(lambda key, old: ensemble(key), donate_argnums=1, keep_unused=True)
    return Call(on_jax.key, _again(jax.jit(ensemble), again), on_jax.lowering)


def zeros_donating(case: Case) -> Call:
    shapes = _shapes(case)
    again = jax.jit(lambda key, old: _zeros(shapes), donate_argnums=1, keep_unused=True)
    return Call(on_jax.key, _again(jax.jit(lambda key: _zeros(shapes)), again))


def empty(case: Case, typed: bool = False) -> Call:
    """A compiled call that takes a key and draws nothing: what no eager call can undercut."""
    shapes = _shapes(case)
    make = jax.jit(lambda key: _zeros(shapes), keep_unused=True)
    return Call(on_jax.typed_key if typed else on_jax.key, on_jax.ready(make))


def _shapes(case: Case) -> Any:
    return jax.eval_shape(on_jax.vmapped(case), on_jax.key(0))


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
