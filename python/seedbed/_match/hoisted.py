"""What of loops is drawn, and so may be taken out of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .._jax import jaxprs
from .._plan import NATIVE_DTYPES, FromDraw, FromStep, Stacked
from .._trace import Atom, Const, Graph, Loop, hoisted
from .meaning import Meaning, Stack

if TYPE_CHECKING:
    from .._jax.types import Eqn
    from .choose import Builder


def parts(graph: Graph) -> dict[int, Loop]:
    """The hoisted parts of loops, by the position of the call."""
    if not graph.loops:
        return {}
    calls = enumerate(graph.calls)
    return {n: call.eqn.params["loop"] for n, call in calls if call.eqn.primitive is hoisted}


def note(builder: Builder, position: int) -> None:
    """Takes note of an equation that may not be computed where it is."""
    equation = builder.graph.equations[position]
    if equation.block is not None:
        builder.sealed.add(position)
    loops = [builder.hoisted[call] for call in equation.calls if call in builder.hoisted]
    builder.computed.update(loops)


def computed(builder: Builder) -> dict[Loop, frozenset[int]]:
    """What would be computed in hoisted parts of which something is, in any of their places."""
    graph = builder.graph
    found: dict[Loop, frozenset[int]] = {}
    for call, loop in builder.hoisted.items():
        if loop in builder.computed:
            atoms = graph.calls[call].outputs
            left = frozenset(range(len(atoms))) - _drawn(builder, atoms, len(loop.results))
            found[loop] = left | found.get(loop, graph.computed.get(loop, frozenset()))
    return found


def _drawn(builder: Builder, atoms: Sequence[Atom], results: int) -> frozenset[int]:
    """Which results of a hoisted part are given; those behind the first few inside of a loop."""
    found = []
    for place, atom in enumerate(atoms):
        if isinstance(atom, Const):
            found.append(place)
        elif isinstance(builder.sources.get(atom), FromStep):
            continue  # computed, although some other part of the program might not
        elif place < results or (builder.closed(atom) and atom not in builder.bare):
            if builder.given(atom, result=place < results) is not None:
                found.append(place)
    return frozenset(found)


def stacked(builder: Builder, meaning: Stack) -> Stacked | None:
    """The draws of a loop's steps, if all of them can be made."""
    pending: list[Meaning] = [meaning]
    while pending:
        one = pending.pop()
        if isinstance(one, Stack):
            pending.extend(one.pieces)
            continue
        draw = one.draw()
        if draw is None or draw.needs not in builder.kernels or draw.dtype not in NATIVE_DTYPES:
            return None
    return _rows(builder, meaning)


def _rows(builder: Builder, meaning: Stack) -> Stacked:
    made: list[FromDraw | Stacked] = []
    for piece in meaning.pieces:
        draw = piece.draw()
        if isinstance(piece, Stack):
            made.append(_rows(builder, piece))
        elif draw is not None:
            made.append(FromDraw(builder.drawn(draw)))
    return Stacked(tuple(made), meaning.axis)


def why_left(graph: Graph, eqn: Eqn) -> str:
    """Why a loop that stays draws by itself, as the end of its name; empty for others."""
    if str(eqn.primitive.name) != "scan":
        return ""
    body, _ = jaxprs.opened(jaxprs.scan_of(eqn).body)
    reason = graph.left.get(id(body))
    return f", {reason}," if reason else ""
