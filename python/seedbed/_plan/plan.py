"""Plan: which draws a backend makes, which equations stay, where each output comes from.

A plan is inert: frozen, hashable and printable. It is the key of the compile cache and
what `Plan.explain` prints. `_match.choose` makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from .._base import pickling
from .._base.record import Record
from .draw import RECORDS, Draw, KeyPath, Kind, Shape, kernel_of, params, root
from .residual import Drawn, Literal, Source, Splat, Stacked, Step

if TYPE_CHECKING:
    from .._jax.types import Tree

ALL_KERNELS = frozenset(
    kernel_of(kind, bits) for kind, record in RECORDS.items() for bits, _ in record.forms
)
CUDA_KERNELS = ALL_KERNELS - {
    kernel_of(kind, bits) for kind, record in RECORDS.items() for bits in record.cpu_only
}


# What a result of the custom call may be; others (float8, int4) stay with XLA.
NATIVE_DTYPES = frozenset(
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

    A plan that was pickled can be read as before, and not run: of its steps it has the text.

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
    out_tree: Tree
    reference: str | None = None
    streams: tuple[str, ...] = ("",)
    args: tuple[int, ...] = ()
    captures: tuple[int, ...] = ()

    def __copy__(self) -> Plan:
        return self  # immutable

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        return self

    def __reduce__(self) -> Any:
        # The metadata of modules in it may need some help.
        fields = {name: getattr(self, name) for name in self._names if name != "out_tree"}
        return _restored, (fields, pickling.Packed(self.out_tree))

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
        """The output leaves that the custom call makes."""
        made = (*Drawn, Stacked)
        return tuple(output for output in self.outputs if isinstance(output.source, made))

    @property
    def fills(self) -> dict[int, Draw]:
        """The outputs, by position, that the custom call fills with a constant, as draws."""
        if not self.draws:
            return {}
        key = KeyPath(node=root(self.draws[0].key.stream))
        return {
            position: _fill(output.source, key)
            for position, output in enumerate(self.outputs)
            if can_fill(output.source)
        }

    @property
    def by_stream(self) -> dict[int, list[int]]:
        """Which draws, and after them fills, start from each of the member's keys."""
        found: dict[int, list[int]] = {}
        for i, draw in enumerate((*self.draws, *self.fills.values())):
            found.setdefault(draw.key.stream, []).append(i)
        return found

    def explain(self) -> str:
        """A table of the output leaves: what each is, where its key comes from, who makes it."""
        rows: list[tuple[str, ...]] = [("output", "draw", "shape", "dtype", "key path", "made by")]
        rows += [self._row(output) for output in self.outputs]
        direct = self._direct().union(*(o.source.draws for o in self._stacked()))
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
        return {o.source.index for o in self.outputs if isinstance(o.source, Drawn)}

    def _stacked(self) -> list[Any]:
        return [output for output in self.outputs if isinstance(output.source, Stacked)]

    def _row(self, output: Output) -> tuple[str, ...]:
        kind, path, made_by = "", "", output.why
        if isinstance(output.source, Drawn):
            draw = self.draws[output.source.index]
            kind, path = str(draw), draw.key.named(self.streams)
        elif isinstance(output.source, Stacked):
            draws = [self.draws[index] for index in output.source.draws]
            kind, path = str(draws[0]), draws[0].key.named(self.streams)
            path += f" and {len(draws) - 1} more"
        elif isinstance(output.source, (Splat, Literal)):
            kind = "constant"
        return (output.path, kind, str(output.shape), output.dtype, path, made_by)


def _restored(fields: dict[str, Any], out_tree: pickling.Packed) -> Plan:
    return Plan(**fields, out_tree=out_tree.value)


def can_fill(source: Source) -> TypeGuard[Splat]:
    """Whether a custom call that runs anyway may write this output too."""
    return isinstance(source, Splat) and source.dtype in NATIVE_DTYPES and 0 not in source.shape


def _fill(splat: Splat, key: KeyPath) -> Draw:
    """A constant as a draw that reads no random words."""
    bits = 8 * len(splat.data)
    value = params(Kind.CONSTANT, value=int.from_bytes(splat.data, "little"))
    count = math.prod(splat.shape)
    return Draw(Kind.CONSTANT, key, count, bits, splat.dtype, splat.shape, value)


def largest(plan: Plan, count: int = 3) -> Sequence[Output]:
    """The biggest output leaves, for error messages."""
    return sorted(plan.outputs, key=lambda output: -output.nbytes)[:count]
