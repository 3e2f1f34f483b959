"""Which parts of a program XLA:CPU rounds by the loop that it compiles around them.

It compiles each loop over elements by itself. Where LLVM unrolls the innermost dimension, it
packs the terms of neighbouring elements into vectors as the whole body of the loop suggests, and
then fuses some of the multiplications with additions and others not. So polynomials (``exp``,
``log1p``, ``tanh``, ``erf_inv``) have one set of bits for each body that they stand in, and only
a body that is jax's from the random words on has jax's bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._jax import ask_xla, compat, jaxprs
from .._trace import Atom, Const, Graph
from .meaning import Keys, KeyWords, Meaning

if TYPE_CHECKING:
    from .._jax.types import Eqn

# One rounding by IEEE 754 or none, or a library's routine: no loop changes the result.
_EXACT = frozenset(
    "abs neg sign max min clamp select_n eq ne lt le gt ge and or xor not floor ceil round sqrt "
    "is_finite real imag complex conj copy copy_p stop_gradient name iota convert_element_type "
    "bitcast_convert_type reshape broadcast_in_dim squeeze expand_dims transpose rev slice pad "
    "concatenate split unstack gather dynamic_slice dynamic_update_slice scatter sort argmax "
    "argmin reduce_max reduce_min reduce_and reduce_or qr geqrf householder_product jit pjit "
    "closed_call custom_jvp_call custom_vjp_call cond while scan shift_left shift_right_logical "
    "shift_right_arithmetic nextafter".split()
)
# Exact each by itself; a product and a sum may become one operation.
_PRODUCTS = frozenset("mul div integer_pow square".split())
_SUMS = frozenset("add sub add_any".split())
# Of many terms, which no two programs of XLA need add up in one order.
_REDUCTIONS = frozenset("reduce_sum reduce_prod dot_general cumsum cumprod cumlogsumexp".split())
_LOGARITHMS = frozenset(["log", "log1p"])
# What is one operation on real numbers and several on complex ones.
_COMPLEX = frozenset("abs sign sqrt".split())


def short(shape: Sequence[Any]) -> bool:
    """Whether members' arrays of this shape are numbers, or have rows that LLVM unrolls."""
    length = ask_xla.row(shape)
    return isinstance(length, int) and length <= ask_xla.UNROLLED  # it may be symbolic


def packed(units: Iterable[Any]) -> bool:
    """Whether XLA may round some equations by where an element stands, in a row of any length.

    An element that its loop makes alone (behind the last whole vector of a row) has nothing beside
    it to be packed with but what is alike in its own body. Of two logarithms, neither of the other,
    as in `jax.random.logistic`, LLVM then makes one vector, and from jaxlib 0.11 on it rounds one
    of them in another way.

    Args:
        units: equations in order, each with its ``eqn``, ``inputs`` and ``outputs``.
    """
    count = 0
    behind: dict[Any, frozenset[int]] = {}  # the logarithms that a value comes from
    for unit in units:
        names = [str(one.primitive.name) for one in jaxprs.equations(unit.eqn)]
        logarithms = sum(name in _LOGARITHMS for name in names)
        found = frozenset[int]().union(*(behind.get(atom, frozenset()) for atom in unit.inputs))
        if logarithms > 1 or (logarithms and len(found) < count):
            return True
        if logarithms:
            found |= {count}
            count += 1
        behind.update(dict.fromkeys(unit.outputs, found))
    return False


def reduces(eqn: Eqn) -> bool:
    """Whether an equation adds up many terms, in whatever order."""
    return str(eqn.primitive.name) in _REDUCTIONS


def by_loop(eqns: Iterable[Any]) -> bool:
    """Whether XLA may round some of these equations, which feed one another, by their loop."""
    found = {kind for eqn in eqns for one in jaxprs.equations(eqn) for kind in _kinds(one)}
    if "scalar" in found and "reduction" not in found:
        return True
    return "loop" in found or {"product", "sum"} <= found


def _kinds(eqn: Eqn) -> Iterable[str]:
    """What the results of an equation depend on besides its operands."""
    name = str(eqn.primitive.name)
    if name in _REDUCTIONS:
        yield "reduction"
        return
    for variable in eqn.outvars:
        dtype = getattr(variable.aval, "dtype", np.dtype(bool))
        is_complex = isinstance(dtype, np.dtype) and dtype.kind == "c"
        if not (is_complex or compat.is_float(dtype)):
            continue
        single = ask_xla.row(variable.aval.shape) == 0
        unrolled = short(variable.aval.shape) and not single
        if name in _PRODUCTS or name in _SUMS:
            if unrolled:
                yield "product" if name in _PRODUCTS else "sum"
        elif is_complex and (name in _COMPLEX or name not in _EXACT):
            yield "loop"
        elif name not in _EXACT and (unrolled or single):
            # Members are the only dimension of a scalar; one of a large array is not worth it.
            yield "loop" if unrolled else "scalar"


class Parts:
    """The parts of a graph that share no computed value but keys."""

    def __init__(self, graph: Graph, meanings: Mapping[int, Meaning]) -> None:
        self._parent = list(range(len(graph.avals)))
        apart = {*graph.key_inputs, *graph.arg_inputs, *graph.captured}
        apart |= {n for n, one in meanings.items() if isinstance(one, (Keys, KeyWords))}
        for equation in graph.equations:
            numbers = (*equation.outputs, *_numbers(equation.inputs))
            self._join([number for number in numbers if number not in apart])

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
