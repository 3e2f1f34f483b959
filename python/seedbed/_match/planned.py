"""A traced function becomes a plan."""

from __future__ import annotations

from .._plan import ALL_KERNELS, Plan
from .._trace import Graph, again, unseal
from . import choose, interpret


def planned(graph: Graph, kernels: frozenset[str] = ALL_KERNELS) -> Plan:
    """The plan of a flat function, of which sealed calls are opened where they have to be.

    Args:
        graph: the traced function; sealed calls in it may be opened.
        kernels: names of the kernels that the backend may use (`Draw.needs`).
    """
    while True:
        found = choose.build(graph, interpret.match(graph), kernels)
        if isinstance(found, Plan):
            return found
        if isinstance(found, dict):
            graph.computed.update(found)
            again(graph, sealed=True)
        else:
            unseal(graph, found)
