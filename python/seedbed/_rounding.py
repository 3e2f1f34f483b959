"""Which parts of a program XLA:CPU rounds by the loop that it compiles around them.

It compiles each loop over elements by itself. Where LLVM unrolls the innermost dimension, it
packs the terms of neighbouring elements into vectors as the whole body of the loop suggests, and
then fuses some of the multiplications with additions and others not. So polynomials (``exp``,
``log1p``, ``tanh``, ``erf_inv``) have one set of bits for each body that they stand in, and only
a body that is jax's from the random words on has jax's bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from . import _compat
from ._draw import Shape
from ._fold import Atom, Const
from ._meaning import Keys, KeyWords, Meaning
from ._trace import Graph

# The longest innermost dimension that LLVM unrolls (seen from jaxlib 0.10.2 on).
_UNROLLED = 8

# One rounding by IEEE 754 or none, or a library's routine: no loop changes the result.
_EXACT = frozenset(
    "abs neg sign max min clamp select_n eq ne lt le gt ge and or xor not floor ceil round sqrt "
    "is_finite real imag complex conj copy copy_p stop_gradient name iota convert_element_type "
    "bitcast_convert_type reshape broadcast_in_dim squeeze expand_dims transpose rev slice pad "
    "concatenate split unstack gather dynamic_slice dynamic_update_slice scatter sort argmax "
    "argmin reduce_max reduce_min reduce_and reduce_or qr geqrf householder_product jit pjit "
    "closed_call custom_jvp_call custom_vjp_call cond while scan shift_left shift_right_logical shift_right_arithmetic nextafter".split()
)
# Exact each by itself; a product and a sum may become one operation.
_PRODUCTS = frozenset("mul div integer_pow square".split())
_SUMS = frozenset("add sub add_any".split())
# What is one operation on real numbers and several on complex ones.
_COMPLEX = frozenset("abs sign sqrt".split())


def short(shape: Shape) -> bool:
    """Whether the innermost loop over an array of this shape for each member may be unrolled."""
    lengths = [length for length in shape if length != 1]
    return not lengths or lengths[-1] <= _UNROLLED


def by_loop(eqns: Iterable[Any]) -> bool:
    """Whether XLA may round some of these equations, which feed one another, by their loop."""
    products = sums = False
    for eqn in eqns:
        for one in (eqn, *_compat.nested_equations(eqn)):
            kinds = {_kind(one, variable) for variable in one.outvars}
            if "loop" in kinds:
                return True
            products |= "product" in kinds
            sums |= "sum" in kinds
    return products and sums


def _kind(eqn: Any, variable: Any) -> str:
    dtype = getattr(variable.aval, "dtype", None)
    if dtype is None or not (_compat.is_float(dtype) or np.dtype(dtype).kind == "c"):
        return "exact"
    name, is_complex = str(eqn.primitive.name), np.dtype(dtype).kind == "c"
    is_short = short(variable.aval.shape)
    if name in _PRODUCTS:
        return "product" if is_short else "exact"
    if name in _SUMS:
        return "sum" if is_short else "exact"
    if name in _EXACT and not (is_complex and name in _COMPLEX):
        return "exact"
    return "loop" if is_short or is_complex else "exact"


class Parts:
    """The parts of a graph that share no computed value but keys."""

    def __init__(self, graph: Graph, meanings: dict[int, Meaning]) -> None:
        self._parent = list(range(len(graph.avals)))
        apart = {*graph.key_inputs, *graph.arg_inputs, *graph.captured}
        apart |= {n for n, one in meanings.items() if isinstance(one, (Keys, KeyWords))}
        for equation in graph.equations:
            self._join(
                [n for n in (*equation.outputs, *_numbers(equation.inputs)) if n not in apart]
            )

    def _join(self, numbers: Sequence[int]) -> None:
        for number in numbers[1:]:
            self._parent[self.of(number)] = self.of(numbers[0])

    def of(self, number: int) -> int:
        """The part that a value belongs to, as the number of one of its values."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number


def _numbers(atoms: Iterable[Atom]) -> list[int]:
    return [atom for atom in atoms if not isinstance(atom, Const)]
