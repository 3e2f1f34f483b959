"""Plan: which draws a backend makes, which equations stay, where each output comes from.

A plan is inert: frozen, hashable and printable. It is the key of the compile cache and
what `Plan.explain` prints. Planning imports no backend; what a backend can do comes in as
a set of kernel names.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _compat
from ._draw import Draw, KeyPath, Kind, Shape, root
from ._fold import Atom, Const
from ._meaning import Keys, Lookup, Meaning, Real
from ._record import Record
from ._steps import Computation, Literal, Operand, Source, Splat, Step, constant
from ._trace import Graph

ALL_KERNELS = frozenset(
    ["bits", "uniform32", "uniform64", "normal32", "bernoulli32", "bernoulli64"]
)


# What a result of the custom call may be; others (float8, int4) stay with XLA.
_NATIVE_DTYPES = frozenset(
    ["bool", "float16", "bfloat16", "float32", "float64"]
    + [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
)


class Output(Record):
    """One leaf of the result: its name, its type, its source and the reason for it."""

    path: str
    shape: Shape
    dtype: str
    source: Source
    why: str = ""
    weak: bool = False

    @property
    def nbytes(self) -> int:
        # Typed keys count as the words behind them.
        itemsize = 8 if self.dtype.startswith("key<") else np.dtype(self.dtype).itemsize
        return math.prod(self.shape) * itemsize


class Plan(Record, apart=("out_tree", "streams", "args", "captures")):
    """What one member's initialisation consists of.

    Attributes:
        draws: arrays the backend makes, one result of the custom call each.
        steps: residual equations, evaluated by XLA under `jax.vmap`.
        outputs: the leaves of the result, in order.
        out_tree: structure of the result.
        reference: why nothing is native, or None.
        streams: names of the member's keys, where it has several.
        args, captures: positions of the argument leaves and of the captured arrays that are
            read. Plans that differ in these alone are equal: the program gets only what it
            reads.
    """

    draws: tuple[Draw, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Output, ...]
    # Not compared: programs give leaves, and the metadata of modules need not be comparable.
    out_tree: Any
    reference: str | None = None
    streams: tuple[str, ...] = ("",)
    args: tuple[int, ...] = ()
    captures: tuple[int, ...] = ()

    @property
    def member_bytes(self) -> int:
        """Bytes of one member's result."""
        return sum(output.nbytes for output in self.outputs)

    @property
    def total_bytes(self) -> int:
        """Bytes of one member's result and of the draws that only feed residual equations."""
        direct = self._direct()
        feeding = sum(draw.nbytes for i, draw in enumerate(self.draws) if i not in direct)
        return self.member_bytes + feeding

    @property
    def native(self) -> tuple[Output, ...]:
        """The output leaves that the custom call writes directly."""
        return tuple(
            output
            for output in self.outputs
            if isinstance(output.source, Operand) and output.source.kind in ("draw", "key")
        )

    @property
    def fills(self) -> dict[int, Draw]:
        """The outputs, by position, that the custom call fills with a constant, as draws."""
        if not self.draws:
            return {}
        key = KeyPath(node=root(self.draws[0].key.stream))
        return {
            position: _fill(output.source, key)
            for position, output in enumerate(self.outputs)
            if isinstance(output.source, Splat) and _can_fill(output.source)
        }

    def explain(self) -> str:
        """A table of the output leaves: what each is, where its key comes from, who makes it."""
        rows: list[tuple[str, ...]] = [("output", "draw", "shape", "dtype", "key path", "made by")]
        rows += [self._row(output) for output in self.outputs]
        direct = self._direct()
        rows += [
            (
                f"(draw {index})",
                str(draw),
                str(draw.shape),
                draw.dtype,
                draw.key.named(self.streams),
                "native, feeds XLA",
            )
            for index, draw in enumerate(self.draws)
            if index not in direct
        ]
        widths = [max(len(row[column]) for row in rows) for column in range(6)]
        lines = [
            "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        lines.insert(1, "  ".join("-" * w for w in widths))
        return "\n".join([*lines, "", self.summary()])

    def summary(self) -> str:
        """One line: how much is native."""
        if self.reference is not None:
            return f"reference: {self.reference}"
        made = len(self.native) + len(self.fills)
        calls = len({draw.key.stream for draw in self.draws})
        where = "one custom call" if calls < 2 else f"{calls} custom calls, one for each key"
        return (
            f"{len(self.draws)} draws in {where}; {made} of {len(self.outputs)} outputs "
            f"written by it, {len(self.steps)} equations left to XLA; "
            f"{self.member_bytes:,} bytes a member"
        )

    def _direct(self) -> set[int]:
        return {output.source.index for output in self.native}  # type: ignore[union-attr]

    def _row(self, output: Output) -> tuple[str, ...]:
        kind, path, made_by = "", "", output.why
        if isinstance(output.source, Operand) and output.source.kind in ("draw", "key"):
            draw = self.draws[output.source.index]
            kind, path = str(draw), draw.key.named(self.streams)
        elif isinstance(output.source, (Splat, Literal)):
            kind = "constant"
        return (output.path, kind, str(output.shape), output.dtype, path, made_by)


def reference_plan(graph: Graph, reason: str) -> Plan:
    """A plan that leaves everything to the reference backend, and says why."""
    outputs = [
        Output(path, *_type(aval), Operand("value", -1), f"reference: {reason}", aval.weak_type)
        for path, aval in zip(graph.paths, graph.closed.out_avals, strict=True)
    ]
    return Plan((), (), tuple(outputs), graph.out_tree, reason)


def build(
    graph: Graph, meanings: Mapping[int, Meaning], kernels: frozenset[str] = ALL_KERNELS
) -> Plan:
    """Chooses draws and residual equations, starting from the outputs.

    Args:
        graph: the traced function.
        meanings: what `match` found.
        kernels: names of the kernels that the backend may use (`Draw.needs`).
    """
    return _Builder(graph, meanings, kernels).plan()


# Results of a step that nothing reads.
_UNUSED = -1


class Unit(Record):
    """What becomes one step: an equation, or a call that stays shut."""

    eqn: Any
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        name = str(self.eqn.primitive.name)
        if name not in ("jit", "pjit"):
            return name
        called = self.eqn.params.get("name")
        return f"{name} {called}" if called else name


class _Builder:
    def __init__(
        self, graph: Graph, meanings: Mapping[int, Meaning], kernels: frozenset[str]
    ) -> None:
        self.graph = graph
        self.meanings = meanings
        self.kernels = kernels
        self.draws: dict[Draw, int] = {}
        self.args = {number: leaf for leaf, number in enumerate(graph.arg_inputs)}
        self.captures = {number: slot for slot, number in enumerate(graph.captured)}
        self.producer = {
            number: position
            for position, equation in enumerate(graph.equations)
            for number in equation.outputs
        }
        # The arguments and captured arrays that are read, renumbered in order of appearance, as
        # values are: plans of two traces of one function are equal.
        self.args_read: dict[int, int] = {}
        self.captures_read: dict[int, int] = {}
        # What residual equations read, and what outputs are that need none.
        self.sources: dict[int, Source] = {}
        self.written: dict[int, Source] = {}
        # Calls in which nothing was recognised: they stay calls, since XLA may round the
        # opened body another way.
        recognised = {
            call
            for equation in graph.equations
            if any(number in meanings for number in equation.outputs)
            for call in equation.calls
        }
        self.shut = set(range(len(graph.calls))) - recognised
        self.kept: dict[int, Unit] = {}
        self.units: dict[int, tuple[int, Unit]] = {}
        # By the ids of equations and of constants, which calls of one sampler share.
        self.computations: dict[int, Computation] = {}
        self.constants: dict[int, Source] = {}
        self.random: dict[int, bool] = {}
        # Numbers of the values in the plan.
        self.values: dict[int, int] = {}

    def plan(self) -> Plan:
        for atom in self.graph.outputs:
            source = None if isinstance(atom, Const) else self.given(atom)
            if source is not None:
                self.written[atom] = source  # type: ignore[index]
            else:
                self.require(atom)
        steps = tuple(self.step(unit) for _, unit in sorted(self.kept.items()))
        outputs = tuple(
            Output(path, *_type(aval), self.result(atom), self.reason(atom), aval.weak_type)
            for path, aval, atom in zip(
                self.graph.paths, self.graph.closed.out_avals, self.graph.outputs, strict=True
            )
        )
        return Plan(
            tuple(self.draws),
            steps,
            outputs,
            self.graph.out_tree,
            streams=self.graph.streams,
            args=tuple(self.args_read),
            captures=tuple(self.captures_read),
        )

    def step(self, unit: Unit) -> Step:
        """The step of a unit, after the steps before it; its results get the next numbers."""
        inputs = tuple(self.source(operand) for operand in unit.inputs)
        outputs = []
        for number in unit.outputs:
            if number != _UNUSED and number not in self.values:
                self.values[number] = len(self.values)
            outputs.append(self.values.get(number, _UNUSED))
        made = self.computations.get(id(unit.eqn))
        if made is None:
            made = self.computations[id(unit.eqn)] = Computation(unit.eqn)
        return Step(made, inputs, tuple(outputs))

    def require(self, atom: Atom) -> None:
        """Finds a source for a residual value, and for everything it needs (iteratively).

        XLA multiplies constants together, fuses multiplications with additions, and so rounds
        a chain of them as a whole: draws that feed it therefore end before such a chain.
        """
        pending = [atom]
        while pending:
            number = pending.pop()
            if isinstance(number, Const) or number in self.sources:
                continue
            source = self.given(number) if self.closed(number) else None
            if source is None:
                position, unit = self.unit(number)
                self.kept[position] = unit
                for output in unit.outputs:
                    self.sources.setdefault(output, Operand("value", output))
                pending.extend(unit.inputs)
            else:
                self.sources[number] = source

    def unit(self, number: int) -> tuple[int, Unit]:
        """The equation or shut call that a value comes from, and its place in the order."""
        position = self.producer[number]
        found = self.units.get(position)
        if found is None:
            found = self.units[position] = self.found(position)
        return found

    def found(self, position: int) -> tuple[int, Unit]:
        equation = self.graph.equations[position]
        outer = next((call for call in equation.calls if call in self.shut), None)
        if outer is None:
            return position, Unit(equation.eqn, equation.inputs, equation.outputs)
        call = self.graph.calls[outer]
        while position and outer in self.graph.equations[position - 1].calls:
            position -= 1
        inside = tuple(
            output if isinstance(output, int) and self.within(output, outer) else _UNUSED
            for output in call.outputs
        )
        return position, Unit(call.eqn, call.inputs, inside)

    def within(self, number: int, call: int) -> bool:
        position = self.producer.get(number)
        return position is not None and call in self.graph.equations[position].calls

    def given(self, number: int) -> Source | None:
        """A source that needs no residual equation."""
        if number in self.args:
            leaf = self.args[number]
            return Operand("arg", self.args_read.setdefault(leaf, len(self.args_read)))
        if number in self.captures:
            slot = self.captures[number]
            index = self.captures_read.setdefault(slot, len(self.captures_read))
            return Operand("capture", index)
        meaning = self.meanings.get(number)
        draw = meaning.draw() if meaning is not None else None
        if draw is None or draw.needs not in self.kernels or draw.dtype not in _NATIVE_DTYPES:
            return None
        index = self.draws.setdefault(draw, len(self.draws))
        if isinstance(meaning, Keys):
            return Operand("key", index, _compat.key_impl(self.graph.avals[number].dtype))
        return Operand("draw", index)

    def closed(self, number: int) -> bool:
        meaning = self.meanings.get(number)
        return not isinstance(meaning, (Real, Lookup)) or meaning.closed

    def result(self, atom: Atom) -> Source:
        if isinstance(atom, int) and atom in self.written:
            return self.written[atom]
        return self.source(atom)

    def source(self, atom: Atom) -> Source:
        if isinstance(atom, Const):
            made = self.constants.get(id(atom))
            if made is None:
                made = self.constants[id(atom)] = constant(atom.value)
            return made
        source = self.sources[atom]
        if isinstance(source, Operand) and source.kind == "value":
            return Operand("value", self.values[source.index], None)
        return source

    def reason(self, atom: Atom) -> str:
        source = self.result(atom)
        if isinstance(atom, Const):
            filled = isinstance(source, Splat) and self.draws and _can_fill(source)
            return "native: constant" if filled else "XLA: constant"
        assert isinstance(source, Operand)
        if source.kind in ("draw", "key"):
            return "native"
        if source.kind != "value":
            return "XLA: an argument" if source.kind == "arg" else "XLA: a captured array"
        feeds, random = self.upstream(atom)
        text = f"XLA: {self.unit(atom)[1].name}"
        if feeds:
            text += " of draw " + ", ".join(map(str, feeds[:4])) + (", ..." if feeds[4:] else "")
        if random:
            text += f" (reference: {', '.join(random)} not recognised)"
        return text

    def upstream(self, atom: int) -> tuple[list[int], list[str]]:
        """Draws that a residual value depends on, and random primitives left in XLA."""
        feeds: set[int] = set()
        random: set[str] = set()
        seen: set[int] = set()
        pending: list[int] = [atom]
        while pending:
            number = pending.pop()
            source = self.sources[number]
            assert isinstance(source, Operand)
            if source.kind in ("draw", "key"):
                feeds.add(source.index)
            if source.kind != "value":
                continue
            position, unit = self.unit(number)
            if position in seen:
                continue
            seen.add(position)
            if self.is_random(unit):
                random.add(unit.name)
            pending.extend(operand for operand in unit.inputs if isinstance(operand, int))
        return sorted(feeds), sorted(random)

    def is_random(self, unit: Unit) -> bool:
        found = self.random.get(id(unit.eqn))
        if found is None:
            found = self.random[id(unit.eqn)] = _is_random(unit)
        return found


def _is_random(unit: Unit) -> bool:
    keys = any(
        _compat.is_key(getattr(variable.aval, "dtype", np.dtype(bool)))
        for variable in unit.eqn.invars
    )
    return keys or unit.name.startswith(("random_", "rng_", "threefry"))


def _can_fill(splat: Splat) -> bool:
    """Whether a custom call that runs anyway may write this output too."""
    return splat.dtype in _NATIVE_DTYPES and 0 not in splat.shape


def _fill(splat: Splat, key: KeyPath) -> Draw:
    """A constant as a draw that reads no random words."""
    bits = 8 * len(splat.data)
    params = (int.from_bytes(splat.data, "little"),)
    count = math.prod(splat.shape)
    return Draw(Kind.CONSTANT, key, count, bits, splat.dtype, splat.shape, params)


def _type(aval: Any) -> tuple[Shape, str]:
    return tuple(aval.shape), str(aval.dtype)


def largest(plan: Plan, count: int = 3) -> Sequence[Output]:
    """The biggest output leaves, for error messages."""
    return sorted(plan.outputs, key=lambda output: -output.nbytes)[:count]


__all__ = ["ALL_KERNELS", "Draw", "Kind", "Operand", "Plan", "build", "largest", "reference_plan"]
