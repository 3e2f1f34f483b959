"""Flatten: a traced function as one list of equations, calls opened and constants folded."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._jax import jaxprs
from . import bodies, cut, openers
from .fold import ROUNDED_BY_PLACE, Atom, Const, Unsettled, fold
from .graph import Equation, Graph, OpenedCall

if TYPE_CHECKING:
    from .._jax.types import Aval, Eqn

# Constants of at most this many elements are told apart by value.
_SMALL = 64


def flatten(graph: Graph, sealed: bool = False) -> None:
    """Fills a graph with what its ``closed`` computes.

    Args:
        graph: what was traced, empty.
        sealed: leave a call that draws as one equation where it was opened before.
    """
    try:
        _Flattening(graph, sealed).run()
    except openers.Loops:
        # What a loop carries is mostly of no use to what is asked for.
        graph.program = jaxprs.without_dead_code(graph.closed)
        again(graph, sealed)


def again(graph: Graph, sealed: bool = False) -> None:
    """Flattens once more, with less of its loops hoisted (`Graph.computed`)."""
    graph.clear()
    _Flattening(graph, sealed).run()


class _Frame:
    """A body that is being gone through, and what the graph held before it."""

    __slots__ = ("body", "call", "calls", "key", "mark", "operands", "position", "scope")

    def __init__(self, body: Any, scope: dict[Any, Atom]) -> None:
        self.body = body
        self.scope = scope
        self.position = 0
        # Of a call: the positions of the calls it stands in and its own, its name among the
        # blocks, its operands, and the lengths of the graph's lists.
        self.calls: tuple[int, ...] = ()
        self.key: Any = None
        self.operands: tuple[Atom, ...] = ()
        self.mark = (0, 0, 0)


class Block:
    """What opening a call added to the graph, to be added again for an equal call.

    Attributes:
        operands: of the call, which the block can be told apart from.
        made: those of its values that it results in.
    """

    __slots__ = (
        *("avals", "calls", "captured", "depth", "equations", "fixed", "made", "mark", "operands"),
        *("results", "simple"),
    )

    def __init__(
        self, frame: _Frame, graph: Graph, fixed: set[int], results: tuple[Atom, ...]
    ) -> None:
        self.mark = equations, calls, avals = frame.mark
        self.depth = len(frame.calls) - 1
        self.operands = frame.operands
        self.equations = graph.equations[equations:]
        self.calls = graph.calls[calls:]
        self.avals = graph.avals[avals:]
        self.fixed = [n for n in range(avals, len(graph.avals)) if n in fixed]
        self.captured = [(n, graph.captured[n]) for n in graph.captured if n >= avals]
        self.results = results
        made = [atom for atom in results if not isinstance(atom, Const) and atom >= avals]
        self.made = tuple(dict.fromkeys(made))
        # What a sealed call would hide is not asked for by anybody but the matcher.
        random = any(
            equation.block is not None or equation.name.startswith("random_")
            for equation in self.equations
        )
        self.simple = random and not self.fixed and not self.captured


class _Flattening:
    """Opens calls in place and folds constants, iteratively over the open calls.

    A model calls the same few samplers thousands of times, and jax traces each once. So does this:
    what a body comes to depends on it, on its constant operands, and on which others are one.
    """

    def __init__(self, graph: Graph, sealed: bool) -> None:
        self.graph = graph
        self.sealed = sealed
        # Values computed from constants alone, if not by us.
        self.fixed: set[int] = set()
        self.literals: dict[int, Const] = {}
        self.small: dict[Any, Const] = {}
        # Calls that were opened; None for one that has to stay whole.
        self.blocks: dict[Any, Block | None] = {}
        self.folds: dict[Any, Const | None] = {}
        self.kept: list[Any] = []  # what these know by its id
        self.openers = openers.of(graph)

    def run(self) -> None:
        graph = self.graph
        jaxpr = graph.program.jaxpr
        env: dict[Any, Atom] = {}
        self.bind_consts(env, jaxpr.constvars, graph.program.consts)
        inputs = [self.new(variable.aval) for variable in jaxpr.invars]
        env.update(zip(jaxpr.invars, inputs, strict=True))
        keys = len(graph.streams)
        graph.key_inputs, graph.arg_inputs = tuple(inputs[:keys]), tuple(inputs[keys:])
        frames = [_Frame(jaxpr, env)]
        while frames:
            frame = frames[-1]
            if frame.position == len(frame.body.eqns):
                frames.pop()
                results = tuple([self.read(frame.scope, v) for v in frame.body.outvars])
                if frames:
                    self.close(frame, frames[-1], results)
                else:
                    graph.outputs = results
                continue
            eqn = frame.body.eqns[frame.position]
            operands = tuple([self.read(frame.scope, variable) for variable in eqn.invars])
            inner = self.openers.get(eqn.primitive.name, openers.closed)(eqn, operands)
            if inner is not None and (not jaxprs.is_remat(eqn) or bodies.draws(inner.jaxpr)):
                key = self.key(inner, operands)
                block = self.blocks.get(key)
                if block is not None:
                    again = self.seal if self.sealed and block.simple else self.add
                    results = again(block, eqn, operands, frame.calls)
                    frame.scope.update(zip(eqn.outvars, results, strict=True))
                    frame.position += 1
                    continue
                if key not in self.blocks:
                    frames.append(self.open(inner, eqn, operands, key, frame.calls))
                    continue
            try:
                self.equation(eqn, operands, frame)
            except Unsettled:
                frames.pop()
                self.keep_whole(frame)
                continue
            frame.position += 1

    def equation(self, eqn: Eqn, operands: tuple[Atom, ...], frame: _Frame) -> None:
        """Folds an equation, or puts it into the graph.

        Raises:
            Unsettled: the call it stands in has to stay whole.
        """
        folded = self.folded(eqn, operands, nested=bool(frame.calls))
        if folded is not None:
            frame.scope[eqn.outvars[0]] = folded
            return
        known = all(isinstance(operand, Const) or operand in self.fixed for operand in operands)
        if known and frame.calls and eqn.primitive.name in ROUNDED_BY_PLACE:
            raise Unsettled
        outputs = tuple([self.new(variable.aval) for variable in eqn.outvars])
        if known:
            self.fixed.update(outputs)
        frame.scope.update(zip(eqn.outvars, outputs, strict=True))
        self.graph.equations.append(Equation(eqn, operands, outputs, frame.calls))

    def folded(self, eqn: Eqn, operands: tuple[Atom, ...], nested: bool) -> Const | None:
        """`fold`, once for equal equations: layers fill their biases with the same numbers."""
        if not all([isinstance(operand, Const) for operand in operands]):
            return None
        key = (eqn.primitive, nested, *eqn.params.items(), None, *map(id, operands))
        try:
            if key in self.folds:
                return self.folds[key]
        except TypeError:  # parameters that do not hash
            return fold(eqn, operands, nested)
        result = fold(eqn, operands, nested)
        self.kept.append(operands)
        self.folds[key] = None if result is None else self.shared(result)
        return self.folds[key]

    # --- values ---

    def new(self, aval: Aval) -> int:
        self.graph.avals.append(aval)
        return len(self.graph.avals) - 1

    def bind_consts(
        self, scope: dict[Any, Atom], variables: Sequence[Any], values: Sequence[Any]
    ) -> None:
        for variable, value in zip(variables, values, strict=True):
            if cut.is_constant(value):
                scope[variable] = self.shared(Const(np.asarray(value)))
            else:
                number = self.new(variable.aval)
                self.graph.captured[number] = value
                scope[variable] = number

    def read(self, scope: dict[Any, Atom], variable: Any) -> Atom:
        if not jaxprs.is_literal(variable):
            return scope[variable]
        literal = self.literals.get(id(variable))
        if literal is None:
            value = np.asarray(variable.val, dtype=variable.aval.dtype)
            literal = self.literals[id(variable)] = self.shared(Const(value))
        return literal

    def shared(self, constant: Const) -> Const:
        """Equal small constants are one object."""
        value = constant.value
        if value.size > _SMALL or value.dtype.hasobject:
            return constant
        return self.small.setdefault((value.dtype, value.shape, value.tobytes()), constant)

    # --- calls ---

    def key(self, inner: Any, operands: tuple[Atom, ...]) -> Any:
        """What decides how the body of a call comes out."""
        seen: dict[Atom, Any] = {}
        marks: list[Any] = []
        for operand in operands:
            if isinstance(operand, Const):
                marks.append(id(operand))
            else:
                marks.append(seen.setdefault(operand, (len(seen), operand in self.fixed)))
        return (id(inner.jaxpr), *map(id, inner.consts), None, *marks)

    def open(
        self, inner: Any, eqn: Eqn, operands: tuple[Atom, ...], key: Any, calls: tuple[int, ...]
    ) -> _Frame:
        graph = self.graph
        self.kept.append((inner, operands))
        mark = (len(graph.equations), len(graph.calls), len(graph.avals))
        scope: dict[Any, Atom] = {}
        self.bind_consts(scope, inner.jaxpr.constvars, inner.consts)
        scope.update(zip(inner.jaxpr.invars, operands, strict=True))
        frame = _Frame(inner.jaxpr, scope)
        frame.calls = (*calls, len(graph.calls))
        frame.key, frame.operands, frame.mark = key, operands, mark
        graph.calls.append(OpenedCall(eqn, operands))
        return frame

    def close(self, frame: _Frame, caller: _Frame, results: tuple[Atom, ...]) -> None:
        call = self.graph.calls[frame.calls[-1]]
        call.outputs = results
        caller.scope.update(zip(call.eqn.outvars, results, strict=True))
        caller.position += 1
        self.blocks[frame.key] = Block(frame, self.graph, self.fixed, results)

    def keep_whole(self, frame: _Frame) -> None:
        """Takes back what was done since a call was opened, which has to stay whole."""
        graph = self.graph
        equations, calls, avals = frame.mark
        for number in range(avals, len(graph.avals)):
            graph.captured.pop(number, None)
            self.fixed.discard(number)
        del graph.equations[equations:], graph.calls[calls:], graph.avals[avals:]
        # Calls that were first opened in it are to be opened again.
        self.blocks = {
            key: block
            for key, block in self.blocks.items()
            if block is None or block.mark[2] < avals
        }
        self.blocks[frame.key] = None

    def seal(
        self, block: Block, eqn: Eqn, operands: tuple[Atom, ...], calls: tuple[int, ...]
    ) -> tuple[Atom, ...]:
        """Adds a call that was opened before as one equation; returns its results."""
        first = block.mark[2]
        number: dict[Atom, Atom] = dict(zip(block.operands, operands, strict=True))
        outputs = tuple([self.new(block.avals[atom - first]) for atom in block.made])
        number.update(zip(block.made, outputs, strict=True))
        self.graph.equations.append(Equation(eqn, operands, outputs, calls, block))
        return tuple([atom if isinstance(atom, Const) else number[atom] for atom in block.results])

    def add(
        self, block: Block, eqn: Eqn, operands: tuple[Atom, ...], calls: tuple[int, ...]
    ) -> tuple[Atom, ...]:
        """Adds an opened call once more, for other operands; returns its results."""
        graph, first = self.graph, block.mark[2]
        shift = len(graph.avals) - first
        number = dict(zip(block.operands, operands, strict=True))
        call = len(graph.calls)
        graph.equations += _again(graph, block, eqn, number, calls)
        self.fixed.update([fixed + shift for fixed in block.fixed])
        graph.captured.update((captured + shift, value) for captured, value in block.captured)
        return graph.calls[call].outputs


def unseal(graph: Graph, positions: Collection[int]) -> None:
    """Opens sealed calls, in place.

    Args:
        graph: a flat function.
        positions: of the equations that are sealed calls to open.
    """
    equations: list[Equation] = []
    for position, equation in enumerate(graph.equations):
        if position not in positions:
            equations.append(equation)
            continue
        block = equation.block
        assert block is not None
        number = dict(zip(block.operands, equation.inputs, strict=True))
        number.update(zip(block.made, equation.outputs, strict=True))
        equations += _again(graph, block, equation.eqn, number, equation.calls)
    graph.equations = equations


def _again(
    graph: Graph,
    block: Block,
    eqn: Eqn,
    number: Mapping[Atom, Atom],
    calls: tuple[int, ...],
) -> list[Equation]:
    """The equations of a call that was opened before, for other operands.

    Args:
        graph: gets its values and the calls in it.
        block: what opening it added the first time.
        eqn: the call.
        number: what its operands, and results that are known already, are now.
        calls: the calls that it stands in.
    """
    _, first_call, first = block.mark
    shift, call_shift = len(graph.avals) - first, len(graph.calls) - first_call

    def renamed(atoms: tuple[Atom, ...]) -> tuple[Atom, ...]:
        return tuple(
            [atom if isinstance(atom, Const) else number.get(atom, atom + shift) for atom in atoms]
        )

    inside: dict[tuple[int, ...], tuple[int, ...]] = {}
    made = []
    for old in block.equations:
        chain = inside.get(old.calls)
        if chain is None:
            own = [call + call_shift for call in old.calls[block.depth :]]
            chain = inside[old.calls] = (*calls, *own)
        outputs: Any = renamed(old.outputs)
        made.append(Equation(old.eqn, renamed(old.inputs), outputs, chain, old.block))
    for call in block.calls:
        graph.calls.append(OpenedCall(call.eqn, renamed(call.inputs), renamed(call.outputs)))
    graph.calls[first_call + call_shift].eqn = eqn
    graph.avals.extend(block.avals)
    return made
