"""Equations that can be opened: calls, loops that draw, and branches that a constant chooses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from .._jax import jaxprs
from . import bodies, loops
from .fold import Atom, Const

if TYPE_CHECKING:
    from .._jax.types import Eqn
    from .graph import Graph

Opener = Callable[["Eqn", tuple[Atom, ...]], Any]


class Loops(Exception):
    """The function has loops that draw."""


def of(graph: Graph) -> dict[str, Opener]:
    """What opens the equations of some primitives, while a function is flattened once."""
    found: dict[str, Opener] = dict.fromkeys(jaxprs.calls(), _called)
    return {**found, "scan": partial(_loop, graph), "cond": partial(_branch, {})}


def closed(eqn: Eqn, operands: tuple[Atom, ...]) -> None:
    """What opens all others."""


def _called(eqn: Eqn, operands: tuple[Atom, ...]) -> Any:
    return jaxprs.inner_jaxpr(eqn)


def _loop(graph: Graph, eqn: Eqn, operands: tuple[Atom, ...]) -> Any:
    """A loop that draws, as a call (`loops`)."""
    if eqn.effects or not bodies.draws(eqn):
        return None
    if graph.program is graph.closed:
        raise Loops
    scan = jaxprs.scan_of(eqn)
    types = tuple(variable.aval for variable in eqn.invars)
    body, consts = jaxprs.opened(scan.body)
    if id(body) in graph.left:
        return None
    key = (id(body), *map(id, consts), *scan[:2], *scan[3:], types)
    found = graph.loops.get(key)
    if found is None:
        found = graph.loops[key] = loops.Loop(eqn)
    program = found.program(graph.computed.get(found, frozenset()))
    # What became of it has loops of its own.
    for rest in [eqn] if program is None else program.jaxpr.eqns:
        if rest.primitive.name == "scan":
            graph.left[id(jaxprs.opened(jaxprs.scan_of(rest).body)[0])] = found.reason
    return program


def _branch(branches: dict[Any, Any], eqn: Eqn, operands: tuple[Atom, ...]) -> Any:
    """The branch that a constant chooses, as a call."""
    chosen = operands[0]
    if eqn.effects or not isinstance(chosen, Const):
        return None
    among = eqn.params["branches"]
    branch = among[min(max(int(chosen.value), 0), len(among) - 1)]
    if id(branch) not in branches:
        branches[id(branch)] = (branch, jaxprs.with_unused_input(branch, eqn))
    return branches[id(branch)][1]
