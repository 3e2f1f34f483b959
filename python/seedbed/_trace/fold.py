"""Constant folding with the bits that XLA's own constant folding gives inside ``jax.jit``.

`_FOLD` therefore has only operations that IEEE 754 defines exactly, plus ``erf`` of a number,
which XLA folds with the C library's function, as Python's `math.erf` is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._jax import ask_xla, compat

if TYPE_CHECKING:
    from .._jax.types import Eqn

Array = np.ndarray[Any, Any]

# Constants above this many elements stay equations (a splat costs nothing at any size).
_FOLD_LIMIT = 4096


class Const:
    """A constant operand."""

    __slots__ = ("value",)

    def __init__(self, value: Array) -> None:
        self.value = value


# An operand: the number of a value computed by an equation or given as input, or a constant.
Atom = int | Const


class Unsettled(Exception):
    """What XLA makes of a constant depends on where it stands."""


def splat(value: Array) -> Any | None:
    """The one number an array consists of, or None. Reads one element of a broadcast view."""
    if value.size == 1:
        return value.reshape(())[()]
    if value.size and all(
        stride == 0 or dim == 1 for stride, dim in zip(value.strides, value.shape, strict=True)
    ):
        return value[(0,) * value.ndim]
    if 0 < value.size <= _FOLD_LIMIT:
        # Compared by bits: 0.0 and -0.0 are not one number here.
        rows = np.ascontiguousarray(value).reshape(-1, 1).view(np.uint8)
        if (rows == rows[0]).all():
            return value.flat[0]
    return None


# Functions that XLA rounds as the place has it: folded by the C library, expanded to a
# polynomial and then folded, or evaluated at run time.
ROUNDED_BY_PLACE = frozenset(
    "erf erfc erf_inv exp exp2 expm1 log log1p pow tan sin cos tanh sinh cosh asin acos atan atan2 "
    "asinh acosh atanh logistic cbrt rsqrt lgamma digamma".split()
)


def fold(eqn: Eqn, operands: Sequence[Atom], nested: bool = False) -> Const | None:
    """Value of an equation whose operands are all constants, or None to keep it.

    Raises:
        Unsettled: the equation stands in a jitted function that the traced one calls
            (``nested``), where XLA rounds it in another way than in the open.
    """
    if len(eqn.outvars) != 1 or not all(isinstance(operand, Const) for operand in operands):
        return None
    values = [operand.value for operand in operands if isinstance(operand, Const)]
    result = _folded(eqn, values)
    settled = not any(
        _subnormal(value) for value in (*values, *([] if result is None else [result]))
    )
    if nested and eqn.primitive.name in ROUNDED_BY_PLACE:
        settled &= result is not None and ask_xla.erf_is_settled(splat(values[0]))
    if settled:
        return None if result is None else Const(result)
    if nested:
        raise Unsettled
    return None


def _folded(eqn: Eqn, values: list[Array]) -> Array | None:
    """The value by the rule for the primitive, if there is one and it applies."""
    rule, aval = _FOLD.get(eqn.primitive.name), eqn.outvars[0].aval
    if rule is None or compat.is_key(aval.dtype):
        return None
    name = str(eqn.primitive.name)
    if name in ("add", "sub", "mul", "div", "sqrt"):
        # Complex ones take several operations. Arrays XLA computes at run time, where it fuses
        # multiplications with additions.
        if any(v.dtype.kind == "c" for v in values) and name not in ("add", "sub"):
            return None
        if any(_is_float(v.dtype) and v.size > 1 and splat(v) is None for v in values):
            return None
    large = math.prod(aval.shape) > _FOLD_LIMIT or any(v.size > _FOLD_LIMIT for v in values)
    if large and eqn.primitive.name not in _VIEWS:
        # Work on one element and broadcast, so that no array is ever filled here.
        numbers = [splat(value) for value in values]
        if any(n is None for n in numbers) or eqn.primitive.name not in _ELEMENTWISE:
            return None
        values = [np.asarray(n) for n in numbers]
    try:
        with np.errstate(all="ignore"):
            result = rule(eqn.params, *values)
    except (IndexError, TypeError, ValueError):  # not for this rule
        return None
    if result is None:
        return None
    return np.broadcast_to(np.asarray(result).astype(aval.dtype, copy=False), aval.shape)


def _integer_only(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(params: Any, *values: Array) -> Any:
        return function(*values) if values[0].dtype.kind in "iub" else None

    return rule


def _plain(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda params, *values: function(*values)


def _is_float(dtype: Any) -> bool:
    return compat.is_float(dtype)


def _subnormal(value: Any) -> bool:
    """XLA computes with these as zeros, and not everywhere."""
    value = np.asarray(value)
    tiny = _tiny(value.dtype)
    if tiny is None or value.size > _FOLD_LIMIT:
        return False
    if value.size == 1:
        return 0 < abs(float(value.reshape(())[()])) < tiny
    size = np.abs(value.astype(np.float64))
    return bool(((size > 0) & (size < tiny)).any())


@functools.cache
def _tiny(dtype: Any) -> float | None:
    """The smallest normal number of a floating-point dtype, None for others."""
    return compat.tiny(dtype) if _is_float(dtype) else None


def _erf(params: Any, x: Array) -> Any:
    if x.size != 1:
        return None
    wide = np.float64 if x.dtype == np.float64 else np.float32
    values = [math.erf(v) for v in x.astype(np.float64).ravel().tolist()]
    return np.array(values, np.float64).astype(wide).reshape(x.shape)


def _shift_right_logical(x: Array, n: Array) -> Any:
    unsigned = np.dtype(f"u{x.dtype.itemsize}")
    shifted = x.view(unsigned) >> n.astype(unsigned)
    return np.where(n < 8 * x.dtype.itemsize, shifted, unsigned.type(0)).view(x.dtype)


def _rem(x: Array, y: Array) -> Any:
    if x.dtype.kind not in "iu" or not y.all():
        return None
    return np.fmod(x, y)


def _div(x: Array, y: Array) -> Any:
    if _is_float(x.dtype):
        return x / y
    if x.dtype.kind not in "iu" or not y.all():
        return None
    return (x - np.fmod(x, y)) // y


def _convert(params: Any, x: Array) -> Any:
    new = np.dtype(params["new_dtype"])
    if _is_float(x.dtype) and new.kind in "iu":
        return None  # out of range values are XLA's to define
    return x.astype(new)


def _broadcast_in_dim(params: Any, x: Array, *dynamic: Array) -> Any:
    if dynamic:
        return None
    shape = [1] * len(params["shape"])
    for source, target in enumerate(params["broadcast_dimensions"]):
        shape[target] = x.shape[source]
    return np.broadcast_to(x.reshape(shape), params["shape"])


def _reshape(params: Any, x: Array, *dynamic: Array) -> Any:
    number = splat(x)
    if number is not None and not dynamic:
        return np.broadcast_to(np.asarray(number, x.dtype), params["new_sizes"])
    return None if dynamic or x.size > _FOLD_LIMIT else x.reshape(params["new_sizes"])


def _slice(params: Any, x: Array) -> Any:
    steps = params["strides"] or (1,) * x.ndim
    bounds = zip(params["start_indices"], params["limit_indices"], steps, strict=True)
    return x[tuple(slice(*bound) for bound in bounds)]


def _iota(params: Any, *dynamic: Array) -> Any:
    if dynamic or math.prod(params["shape"]) > _FOLD_LIMIT:
        return None
    shape = [1] * len(params["shape"])
    shape[params["dimension"]] = -1
    line = np.arange(params["shape"][params["dimension"]]).astype(params["dtype"])
    return np.broadcast_to(line.reshape(shape), params["shape"])


def _select_n(which: Array, *cases: Array) -> Any:
    if which.dtype == bool and len(cases) == 2:
        return np.where(which, cases[1], cases[0])
    if which.dtype.kind in "iu" and len(cases) <= 32 and (which >= 0).all():
        return np.choose(which, cases)  # out of range: an error, and the equation stays
    return None


def _extremum(function: Callable[..., Any]) -> Callable[..., Any]:
    def rule(params: Any, *values: Array) -> Any:
        for value in values:
            if _is_float(value.dtype) and (np.signbit(value) & (value == 0)).any():
                return None  # which of two zeros is larger is XLA's to say
        return function(*values)

    return rule


_ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "add": _plain(np.add),
    "sub": _plain(np.subtract),
    "mul": _plain(np.multiply),
    "div": _plain(_div),
    "rem": _plain(_rem),
    "max": _extremum(np.maximum),
    "min": _extremum(np.minimum),
    "neg": _plain(np.negative),
    "abs": _plain(np.abs),
    "sqrt": _plain(np.sqrt),
    "erf": _erf,
    "nextafter": _plain(np.nextafter),
    "clamp": _extremum(lambda low, x, high: np.minimum(np.maximum(x, low), high)),
    "select_n": _plain(_select_n),
    "eq": _plain(np.equal),
    "ne": _plain(np.not_equal),
    "lt": _plain(np.less),
    "le": _plain(np.less_equal),
    "gt": _plain(np.greater),
    "ge": _plain(np.greater_equal),
    "and": _integer_only(np.bitwise_and),
    "or": _integer_only(np.bitwise_or),
    "xor": _integer_only(np.bitwise_xor),
    "not": _integer_only(np.invert),
    "shift_right_logical": _integer_only(_shift_right_logical),
    "convert_element_type": _convert,
    "stop_gradient": _plain(lambda x: x),
    "seedbed_rows": lambda params, *steps: steps[0] if params["whole"] else None,
    "copy": _plain(lambda x: x),
    "copy_p": _plain(lambda x: x),
}
# Results that are views of their operand, so that their size does not matter.
_VIEWS = frozenset(
    "broadcast_in_dim reshape squeeze slice stop_gradient copy copy_p seedbed_rows".split()
)
_FOLD: dict[str, Callable[..., Any]] = {
    **_ELEMENTWISE,
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": lambda params, x: np.squeeze(x, params["dimensions"]),
    "slice": _slice,
    "transpose": lambda params, x: np.transpose(x, params["permutation"]),
    "concatenate": lambda params, *xs: np.concatenate(xs, params["dimension"]),
    "rev": lambda params, x: np.flip(x, params["dimensions"]),
    "iota": _iota,
}
