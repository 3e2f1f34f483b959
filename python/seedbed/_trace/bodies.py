"""Bodies of loops: what is in them, and parts of them evaluated."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._jax import ask_xla, compat, jaxprs
from . import cut

if TYPE_CHECKING:
    from .._jax.types import Aval, ClosedJaxpr, Eqn, Jaxpr

# Floats in a vector of the widest instruction set.
_VECTOR = 16


def draws(program: Any) -> bool:
    """Whether random numbers are made anywhere inside of an equation or a jaxpr."""
    return any(str(eqn.primitive.name).startswith("random_") for eqn in jaxprs.equations(program))


def reached(
    body: Jaxpr, first: Iterable[Any], starts: Callable[[Any], bool] = lambda eqn: False
) -> set[Any]:
    """The variables that depend on one of ``first`` or on an equation that starts."""
    found = set(first)
    for eqn in body.eqns:
        if any(not jaxprs.is_literal(v) and v in found for v in eqn.invars) or starts(eqn):
            found.update(eqn.outvars)
    return found


def with_calls_opened(closed: ClosedJaxpr) -> Any:
    """The body of a loop with the calls in it opened that draw."""
    body, consts = jaxprs.opened(closed)
    if not any(_called(eqn) for eqn in body.eqns):
        return closed

    def run(jaxpr: Any, consts: Sequence[Any], operands: Sequence[Any]) -> list[Any]:
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *operands), strict=True))
        for eqn in jaxpr.eqns:
            inner, given = _called(eqn), [_read(values, variable) for variable in eqn.invars]
            if inner is None:
                found = jaxprs.bind_equation(eqn, given)
            else:
                found = run(inner.jaxpr, inner.consts, given)
            values.update(zip(eqn.outvars, found, strict=True))
        return [_read(values, variable) for variable in jaxpr.outvars]

    types = [abstract(variable.aval) for variable in body.invars]
    return jax.make_jaxpr(lambda *operands: run(body, consts, operands))(*types)


def _called(eqn: Eqn) -> Any | None:
    """What an equation calls, if it draws there."""
    inner = jaxprs.inner_jaxpr(eqn)
    return inner if inner is not None and draws(inner.jaxpr) else None


def evaluate(
    body: Jaxpr, consts: Sequence[Any], known: dict[Any, Any], variables: Sequence[Any]
) -> list[Any]:
    """Values of a body, of others that are known."""
    values = {**dict(zip(body.constvars, consts, strict=True)), **known}
    eqns, _ = cut.live(without_known(body.eqns, known), variables, effects=False)
    for eqn in eqns:
        found = jaxprs.bind_equation(eqn, [_read(values, variable) for variable in eqn.invars])
        new = zip(eqn.outvars, found, strict=True)
        values.update((variable, value) for variable, value in new if variable not in known)
    return [_read(values, variable) for variable in variables]


def _read(values: dict[Any, Any], variable: Any) -> Any:
    if not jaxprs.is_literal(variable):
        return values[variable]
    return np.asarray(variable.val, variable.aval.dtype)


def without_known(eqns: Sequence[Any], known: Collection[Any]) -> list[Any]:
    """Equations without those all of whose results are known."""
    return [eqn for eqn in eqns if not all(v in known for v in eqn.outvars)]


def may_be_key(aval: Aval) -> bool:
    """Whether a value is keys, or may be the words of some."""
    dtype = getattr(aval, "dtype", None)
    if dtype is None or compat.is_key(dtype):
        return dtype is not None
    return bool(dtype == np.uint32 and aval.shape[-1:] == (2,))


def nbytes(variable: Any) -> int:
    aval = variable.aval
    itemsize = 8 if compat.is_key(aval.dtype) else np.dtype(aval.dtype).itemsize
    return int(math.prod(aval.shape) * itemsize)


def abstract(aval: Any) -> Any:
    return compat.abstract(aval.shape, aval.dtype, aval.weak_type)


def narrow(variable: Any) -> bool:
    """Whether a value is of floats in rows that are shorter than a vector.

    Of rows of 9 and 12, XLA rounds normals as the loop around them has it where something else is
    made of them, too (jaxlib 0.12; of 16, 33, 40, 64 and 128 it does not).
    """
    aval = variable.aval
    if jaxprs.is_literal(variable) or not compat.is_float(aval.dtype):
        return False
    return bool(ask_xla.row(aval.shape) < _VECTOR)
