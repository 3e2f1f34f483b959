"""Match: an abstract interpreter that follows keys and random words through a graph.

Every value gets a meaning (`_meaning`) where one is recognised. The rules for keys are in
`_match_keys`, those for draws in `_match_draws`, narrow words in `_match_table`. They look
at primitives and their parameters, never at the names of jitted helpers, and what no rule
recognises stays a residual equation, so correctness never depends on them.
"""

from __future__ import annotations

from . import _compat, _match_draws, _match_keys, _match_table
from ._draw import KeyPath, root
from ._fold import Const
from ._meaning import Keys, KeyWords, Meaning, Operand
from ._trace import Equation, Graph


def match(graph: Graph) -> dict[int, Meaning]:
    """The meaning of every value of ``graph`` that has one."""
    meanings: dict[int, Meaning] = {}
    for stream, number in enumerate(graph.key_inputs):
        path = KeyPath(node=root(stream))
        typed = _compat.is_key(graph.avals[number].dtype)
        meanings[number] = Keys(path) if typed else KeyWords(path)
    for equation in graph.equations:
        operands: list[Operand] = [
            operand if isinstance(operand, Const) else meanings.get(operand)
            for operand in equation.inputs
        ]
        found = _apply(graph, equation, operands)
        for result, meaning in zip(equation.outputs, found, strict=True):
            if meaning is not None:
                meanings[result] = meaning
    return meanings


def _apply(graph: Graph, equation: Equation, operands: list[Operand]) -> list[Meaning | None]:
    nothing: list[Meaning | None] = [None] * len(equation.outputs)
    known = [operand for operand in operands if operand is not None]
    if all(isinstance(operand, Const) for operand in known):
        return nothing
    if equation.name == "unstack":
        return _match_keys.unstack(equation, operands[0])
    if len(equation.outputs) != 1:
        return nothing
    shape = tuple(graph.avals[equation.outputs[0]].shape)
    keys = any(isinstance(operand, (Keys, KeyWords)) for operand in known)
    if not keys and equation.name not in _match_draws.RESHAPES:
        # jax lets a scalar stand beside an array: one number for all, not one for each.
        if any(
            getattr(operand, "shape", shape) != shape
            for operand in known
            if not isinstance(operand, Const)
        ):
            return nothing
    rule = (_match_keys if keys else _match_draws).RULES.get(equation.name)
    meaning = rule(equation, shape, operands) if rule is not None else None
    if meaning is None and not keys:
        meaning = _match_table.step(equation, shape, operands)
    return [meaning]
