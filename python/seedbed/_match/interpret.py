"""Match: an abstract interpreter that follows keys and random words through a graph.

Every value gets a meaning (`_match.meaning`) where one is recognised. The rules for keys are in
`_match.keys`, those for draws in `_match.draws`, narrow words in `_match.narrow`. They look
at primitives and their parameters, never at the names of jitted helpers, and what no rule
recognises stays a residual equation, so correctness never depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .._jax import compat
from .._plan import KeyPath, root
from .._trace import Block, Const, Equation, Graph
from . import draws, narrow
from . import keys as _match_keys
from . import rows as rows
from .meaning import Keys, KeyWords, Meaning, Operand, Real, Stage, restarted


def match(graph: Graph) -> dict[int, Meaning]:
    """The meaning of every value of ``graph`` that has one."""
    meanings: dict[int, Meaning] = {}
    for stream, number in enumerate(graph.key_inputs):
        path = KeyPath(node=root(stream))
        typed = compat.is_key(graph.avals[number].dtype)
        meanings[number] = Keys(path) if typed else KeyWords(path)
    for equation in graph.equations:
        if equation.block is not None:
            meanings.update(_again(equation.block, equation, meanings))
            continue
        operands: list[Operand] = []
        found, keys = False, False
        for atom in equation.inputs:
            operand = atom if isinstance(atom, Const) else meanings.get(atom)
            operands.append(operand)
            if operand is not None and operand is not atom:
                found = True
                keys = keys or isinstance(operand, (Keys, KeyWords))
        if not found:
            continue
        for result, meaning in zip(
            equation.outputs, _apply(graph, equation, operands, keys), strict=True
        ):
            if meaning is not None:
                meanings[result] = meaning
    # What did not become a sampler after all is nobody's: a call of it stays whole.
    return {number: one for number, one in meanings.items() if not _on_the_way(one)}


def _on_the_way(meaning: Meaning) -> bool:
    return isinstance(meaning, Real) and meaning.stage is Stage.PART


def _again(
    block: Block, equation: Equation, meanings: Mapping[int, Meaning]
) -> Iterator[tuple[int, Meaning]]:
    """What a sealed call results in: what it did at first, by way of another key.

    To a rule the key of an operand is a place to start from. So where one key is all that is
    known of the operands, what followed from it then follows from it now.
    """
    known: list[tuple[Meaning | None, Meaning | None]] = []
    for then, now in zip(block.operands, equation.inputs, strict=True):
        if isinstance(then, Const) or isinstance(now, Const):
            continue
        pair = meanings.get(then), meanings.get(now)
        if pair != (None, None) and pair not in known:
            known.append(pair)
    moved = [pair for pair in known if pair[0] != pair[1]]
    if moved and len(known) > 1:
        return
    for made, result in zip(block.made, equation.outputs, strict=True):
        meaning = meanings.get(made)
        if meaning is not None and moved:
            meaning = restarted(meaning, *moved[0])
        if meaning is not None:
            yield result, meaning


def _apply(
    graph: Graph, equation: Equation, operands: list[Operand], keys: bool
) -> Sequence[Meaning | None]:
    """What the results of an equation are, of which some operands (``keys``: keys) are known."""
    name = equation.name
    if name == "unstack":
        return _match_keys.unstack(equation, operands[0])
    if len(equation.outputs) != 1:
        return (None,) * len(equation.outputs)
    shape = tuple(graph.avals[equation.outputs[0]].shape)
    if not keys and name not in draws.REARRANGES:
        # jax lets a scalar stand beside an array: one number for all, not one for each.
        for operand in operands:
            if operand is not None and not isinstance(operand, Const):
                if getattr(operand, "shape", shape) != shape:
                    return (None,)
    rule = (_match_keys if keys else draws).RULES.get(name)
    meaning = rule(equation, shape, operands) if rule is not None else None
    if meaning is None and not keys:
        meaning = narrow.step(equation, shape, operands)
    return (meaning,)
