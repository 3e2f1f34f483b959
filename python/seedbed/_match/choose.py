"""Build: from the meanings of values to a plan, starting from what is asked for.

Planning imports no backend; what a backend can do comes in as a set of kernel names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._base.record import Record
from .._jax import compat
from .._plan import (
    ALL_KERNELS,
    NATIVE_DTYPES,
    Computation,
    Draw,
    Drawn,
    FromArgument,
    FromCapture,
    FromDraw,
    FromKeys,
    FromStep,
    FromWords,
    Kind,
    Output,
    Plan,
    Shape,
    Source,
    Stacked,
    Step,
    can_fill,
    constant,
)
from .._trace import Atom, Const, Graph, Loop
from . import hoisted, rounding
from .meaning import Keys, KeyWords, Lookup, Meaning, Real, Stack, Word

if TYPE_CHECKING:
    from .._jax.types import Aval, Eqn


def reference_plan(graph: Graph, reason: str) -> Plan:
    """A plan that leaves everything to the reference backend, and says why."""
    outputs = [
        Output(path, *_type(aval), FromStep(-1), f"reference: {reason}", aval.weak_type)
        for path, aval in zip(graph.paths, graph.closed.out_avals, strict=True)
    ]
    return Plan((), (), tuple(outputs), graph.out_tree, reason)


def build(
    graph: Graph, meanings: Mapping[int, Meaning], kernels: frozenset[str] = ALL_KERNELS
) -> Plan | frozenset[int] | dict[Loop, frozenset[int]]:
    """Chooses draws and residual equations, starting from the outputs.

    Args:
        graph: the traced function.
        meanings: what `match` found.
        kernels: names of the kernels that the backend may use (`Draw.needs`).

    Returns:
        the plan; or the positions of sealed calls whose equations it needs; or what of some loops
        would have to be computed in their hoisted part.
    """
    builder = Builder(graph, meanings, kernels)
    found = builder.plan()
    if isinstance(found, Plan) and (bare := builder.rounded_by_loop()):
        found = Builder(graph, meanings, kernels, bare).plan()
    return found


# Results of a step that nothing reads.
_UNUSED = -1


class Unit(Record):
    """What becomes one step: an equation, or a call that stays whole."""

    eqn: Eqn
    inputs: tuple[Atom, ...]
    outputs: tuple[int, ...]

    @property
    def name(self) -> str:
        name = str(self.eqn.primitive.name)
        if name not in ("jit", "pjit"):
            return name
        called = self.eqn.params.get("name")
        return f"{name} {called}" if called else name


class Builder:
    def __init__(
        self,
        graph: Graph,
        meanings: Mapping[int, Meaning],
        kernels: frozenset[str],
        bare: frozenset[int] = frozenset(),
    ) -> None:
        self.graph = graph
        # Values whose loops have to be jax's own: of their draws only the words are native.
        self.bare = bare
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
        # opened body another way. What a sealed one hides may have been.
        recognised = {
            call
            for equation in graph.equations
            if equation.block is not None or any(number in meanings for number in equation.outputs)
            for call in equation.calls
        }
        self.whole = set(range(len(graph.calls))) - recognised
        self.kept: dict[int, Unit] = {}
        self.units: dict[int, tuple[int, Unit]] = {}
        # By the ids of equations and of constants, which calls of one sampler share.
        self.computations: dict[int, Computation] = {}
        self.constants: dict[int, Source] = {}
        self.random: dict[int, bool] = {}
        # Sealed calls whose results have to be computed: they have to be opened first.
        self.sealed: set[int] = set()
        # The hoisted parts of loops, by call, and the loops of which more was hoisted than draws.
        self.hoisted = hoisted.parts(graph)
        self.computed: set[Loop] = set()
        # Numbers of the values in the plan.
        self.values: dict[int, int] = {}

    def plan(self) -> Plan | frozenset[int] | dict[Loop, frozenset[int]]:
        for atom in self.graph.outputs:
            source = None if isinstance(atom, Const) else self.given(atom, result=True)
            if source is not None:
                self.written[atom] = source  # type: ignore[index]
            else:
                self.require(atom)
        if self.sealed or self.computed:
            return frozenset(self.sealed) if self.sealed else hoisted.computed(self)
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
                    self.sources.setdefault(output, FromStep(output))
                pending.extend(unit.inputs)
            else:
                self.sources[number] = source

    def words(self, meaning: Word) -> Source | None:
        """Random bits as jax has them: the two words of the cipher, xor-ed in the loop itself.

        LLVM sees the operands and the xor in what it makes of the loop. So there are two here,
        neither known to XLA: the bits, and zeros.
        """
        bits = meaning.draw()
        if bits is None or bits.needs not in self.kernels:
            return None
        if meaning.bits == 64:
            return FromWords(self.drawn(bits), bits.dtype)
        # Narrower ones are cut off where the loop has them.
        wide = bits.replace(word_bits=32, dtype="uint32")
        zeros = wide.replace(kind=Kind.CONSTANT, params=(0,))
        return FromWords(self.drawn(wide), bits.dtype, self.drawn(zeros))

    def drawn(self, draw: Draw) -> int:
        return self.draws.setdefault(draw, len(self.draws))

    def rounded_by_loop(self) -> frozenset[int]:
        """What XLA has to make by itself, from the words on, for its loops to be jax's."""
        units = [unit for _, unit in sorted(self.kept.items())]
        equations = [unit.eqn for unit in units]
        if compat.platform() == "cuda":
            return frozenset()
        if not (rounding.by_loop(equations) or rounding.packed(units)):
            return frozenset()
        parts = rounding.Parts(self.graph, self.meanings)
        inside: dict[int, list[Unit]] = {}
        for unit in units:
            made = next(output for output in unit.outputs if output != _UNUSED)
            inside.setdefault(parts.of(made), []).append(unit)
        # In rows that LLVM unrolls, or in any.
        short = {part for part, of in inside.items() if rounding.by_loop(u.eqn for u in of)}
        whole = {part for part, of in inside.items() if rounding.packed(of)}
        bare = {
            number
            for number, aval in enumerate(self.graph.avals)
            if (part := parts.of(number)) in whole or (part in short and rounding.short(aval.shape))
        }
        rounded = [unit for part in whole for unit in inside[part]]
        for unit in (unit for part in short - whole for unit in inside[part]):
            shapes = [variable.aval.shape for variable in unit.eqn.outvars]
            if any(map(rounding.short, shapes)) or rounding.by_loop([unit.eqn]):
                rounded.append(unit)
        return frozenset(bare | self.behind(rounded))

    def behind(self, units: Sequence[Unit]) -> set[int]:
        """All values but keys that lead to those of units; sums hide what is behind them."""
        found: set[int] = set()
        pending = [atom for unit in units if not rounding.reduces(unit.eqn) for atom in unit.inputs]
        while pending:
            number = pending.pop()
            if isinstance(number, Const) or number in found:
                continue
            if isinstance(self.meanings.get(number), (Keys, KeyWords)):
                continue
            found.add(number)
            position = self.producer.get(number)
            if position is not None and not rounding.reduces(self.graph.equations[position].eqn):
                pending.extend(self.graph.equations[position].inputs)
        return found

    def unit(self, number: int) -> tuple[int, Unit]:
        """The equation or whole call that a value comes from, and its place in the order."""
        position = self.producer[number]
        found = self.units.get(position)
        if found is None:
            found = self.units[position] = self.found(position)
        return found

    def found(self, position: int) -> tuple[int, Unit]:
        equation = self.graph.equations[position]
        if equation.block is not None or self.hoisted:
            hoisted.note(self, position)
        outer = next((call for call in equation.calls if call in self.whole), None)
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

    def given(self, number: int, result: bool = False) -> Source | None:
        """A source that needs no residual equation; ``result`` says that it is an output's."""
        if number in self.args:
            leaf = self.args[number]
            return FromArgument(self.args_read.setdefault(leaf, len(self.args_read)))
        if number in self.captures:
            slot = self.captures[number]
            index = self.captures_read.setdefault(slot, len(self.captures_read))
            return FromCapture(index)
        meaning = self.meanings.get(number)
        if number in self.bare and not isinstance(meaning, (Keys, KeyWords)):
            # An output that no loop rounds is a draw of its own, whatever else is made of it.
            rounded = isinstance(meaning, Real) and rounding.short(meaning.shape)
            if rounded or not result:
                return self.words(meaning) if isinstance(meaning, Word) else None
        draw = meaning.draw() if meaning is not None else None
        if draw is None or draw.needs not in self.kernels or draw.dtype not in NATIVE_DTYPES:
            return hoisted.stacked(self, meaning) if isinstance(meaning, Stack) else None
        index = self.drawn(draw)
        if isinstance(meaning, Keys):
            return FromKeys(index, compat.key_impl(self.graph.avals[number].dtype))
        return FromDraw(index)

    def closed(self, number: int) -> bool:
        meaning = self.meanings.get(number)
        return not isinstance(meaning, (Real, Lookup, Stack)) or meaning.closed

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
        if isinstance(source, FromStep):
            return FromStep(self.values[source.number])
        return source

    def reason(self, atom: Atom) -> str:
        source = self.result(atom)
        if isinstance(atom, Const):
            return "native: constant" if self.draws and can_fill(source) else "XLA: constant"
        if isinstance(source, (*Drawn, Stacked)):
            return "native" if isinstance(source, Drawn) else "native, stacked by XLA"
        if not isinstance(source, FromStep):
            what = "an argument" if isinstance(source, FromArgument) else "a captured array"
            return f"XLA: {what}"
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
            if isinstance(source, (FromDraw, FromKeys, FromWords, Stacked)):
                feeds.update(source.draws if isinstance(source, Stacked) else [source.index])
            if not isinstance(source, FromStep):
                continue
            position, unit = self.unit(number)
            if position in seen:
                continue
            seen.add(position)
            if self.is_random(unit):
                random.add(unit.name + hoisted.why_left(self.graph, unit.eqn))
            pending.extend(operand for operand in unit.inputs if isinstance(operand, int))
        return sorted(feeds), sorted(random)

    def is_random(self, unit: Unit) -> bool:
        found = self.random.get(id(unit.eqn))
        if found is None:
            found = self.random[id(unit.eqn)] = _is_random(unit)
        return found


def _is_random(unit: Unit) -> bool:
    dtypes = [getattr(variable.aval, "dtype", np.dtype(bool)) for variable in unit.eqn.invars]
    return any(map(compat.is_key, dtypes)) or unit.name.startswith(("random_", "rng_", "threefry"))


def _type(aval: Aval) -> tuple[Shape, str]:
    return tuple(aval.shape), str(aval.dtype)
