"""What only XLA itself can say: narrow tables, how it treats constants, logarithms and rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import compat, known, lowering

_tables: dict[Any, bytes] = {}


def table(bits: int, drop: int, steps: tuple[Any, ...]) -> bytes:
    """All values of a chain, by ``word >> drop``, as XLA computes them."""
    key = (compat.platform(), bits, drop, steps)
    try:
        cached = _tables.get(key)
    except TypeError:  # a parameter that cannot be hashed
        cached = None
    if cached is not None:
        return cached
    table = _evaluate_chain(bits, drop, steps)
    try:
        _tables[key] = table
    except TypeError:
        pass
    return table


def _evaluate_chain(bits: int, drop: int, steps: tuple[Any, ...]) -> bytes:
    primitives = {name: getattr(jax.lax, f"{name}_p") for name, *_ in steps}

    def chain(word: Any) -> Any:
        value = word
        for name, params, position, constants in steps:
            operands = [
                value
                if constant is None
                else np.broadcast_to(
                    np.frombuffer(constant[1], np.dtype(constant[0]))[0], value.shape
                )
                for constant in constants
            ]
            assert operands[position] is value
            value = primitives[name].bind(*operands, **dict(params))
        return value

    words = (np.arange(1 << (bits - drop), dtype=np.uint32) << drop).astype(f"uint{bits}")
    with lowering.xla_on(_asked_platform()):
        return np.asarray(jax.jit(chain)(words)).tobytes()


def _asked_platform() -> str:
    """Whose XLA is asked: the one that makes everything else."""
    return "cuda" if compat.platform() == "cuda" else "cpu"


def _asked(function: Any, x: Any) -> Any:
    """A function of numbers or arrays as XLA compiles it."""
    with lowering.xla_on(_asked_platform()):
        return np.asarray(jax.jit(function)(x))


def _once(question: Callable[..., bool]) -> Callable[..., bool]:
    """Asked once for each platform and the same operands."""
    cached = functools.lru_cache(None, typed=True)(lambda platform, *operands: question(*operands))
    return functools.wraps(question)(lambda *operands: cached(compat.platform(), *operands))


@_once
def merges_factors() -> bool:
    """Whether XLA turns ``(x * a) * b`` into ``x * (a * b)``, which rounds differently.

    jaxlib 0.10 does, jaxlib 0.12 does not.
    """
    found = known.merges_factors() if compat.platform() == "cpu" else None
    if found is not None:
        return found
    x, a, b = np.float32(0.7), np.float32(0.3), np.float32(1.1)
    return bool(_asked(lambda x: (x * a) * b, x) == x * (a * b))


@_once
def divides_by_reciprocals() -> bool:
    """Whether XLA turns ``x / a`` into ``x * (1 / a)``, which rounds differently."""
    x, a = np.float32(0.9), np.float32(3.0)
    return bool(_asked(lambda x: x / a, x) == x * (np.float32(1.0) / a))


# The longest innermost dimension that LLVM unrolls (seen in jaxlib 0.12).
UNROLLED = 8


def row(shape: Sequence[Any]) -> Any:
    """The length of the innermost loop over an array of this shape; 0 for a single number."""
    lengths = [length for length in shape if not (isinstance(length, int) and length == 1)]
    return lengths[-1] if lengths else 0


# Innermost dimensions in which some XLA rounds float32 normals in its own way.
SHORT_ROWS = (3, 4, 5)


# The same for logarithms of float32 uniforms.
UNROLLED_ROWS = range(2, UNROLLED + 1)


def flat_logs() -> bool:
    """Whether XLA:CPU is known to round logarithms in rows of 2 to 8 as it does in any others.

    The releases that do are those of `flat_rows`. Others are not asked: which rows differ depends
    on their number and on that of the cores.
    """
    return compat.platform() == "cpu" and bool(known.flat_rows())


@_once
def flat_rows() -> bool:
    """Whether XLA:CPU rounds float32 normals in rows of 3, 4 and 5 as it does in any others.

    jaxlib 0.10 and 0.11 do. In 0.12, which products and sums become one operation depends on the
    number of rows and of the machine's cores (docs/short-rows.md).
    """
    if compat.platform() != "cpu":
        return False
    found = known.flat_rows()
    return rows_as_flat() if found is None else found


def rows_as_flat() -> bool:
    """`flat_rows`, found out by comparing many and few rows with one row of as many normals."""
    low, root_two = np.nextafter(np.float32(-1), np.float32(0)), np.sqrt(np.float32(2))

    def normal(words: Any) -> Any:
        # jax's loop starts with the cipher's two words; LLVM packs what follows accordingly.
        mantissa = jax.lax.shift_right_logical(words[0] ^ words[1], np.uint32(9))
        one_two = jax.lax.bitcast_convert_type(mantissa | np.uint32(0x3F800000), np.float32)
        unit = one_two - np.float32(1)
        uniform = jax.lax.max(low, unit * np.float32(2) + low)
        return jax.lax.erf_inv(uniform) * root_two

    first = np.arange(15360, dtype=np.uint32) * np.uint32(0x9E3779B1)
    second = np.zeros_like(first)
    expected = _asked(normal, (first, second))
    for length in SHORT_ROWS:
        for rows in (first.size // length, 64):
            count = rows * length
            given = tuple(words[:count].reshape(rows, length) for words in (first, second))
            if (_asked(normal, given).ravel() != expected[:count]).any():
                return False
    return True


# 1 - sqrt(2) and sqrt(1/2) - 1, as XLA writes them.
_NEAR, _NEARER = -0.41421356237309503, -0.2928932188134525


@functools.cache
def log1p_near() -> float:
    """The bound above which XLA:CPU takes a rational function for the float64 ``log1p`` of
    -1 <= y <= 0, and not the C library's ``log(1 + y)``.

    jaxlib does for ``abs(y) < sqrt(2) - 1``, and from 0.11.1 on for ``y >= sqrt(1/2) - 1``.
    """
    found = known.log1p_near()
    return log1p_bound() if found is None else found


def log1p_bound() -> float:
    """`log1p_near`, found out by comparing both where they differ in the last bit."""
    y = np.linspace(-0.41, -0.3, 256)
    with lowering.xla_on("cpu"):
        one, other = jax.jit(lambda y: (jnp.log1p(y), jnp.log(1 + y)))(y)
        by_library = bool(np.array_equal(one, other))
    return math.nextafter(_NEARER, -1) if by_library else _NEAR


# float32 bits of +-2 / sqrt(2), the bounds of nearly every truncated normal: settled, as the
# tests show on every jax they run with.
_SETTLED = (0x3FB504F3, 0xBFB504F3)


@_once
def erf_is_settled(x: Any) -> bool:
    """Whether XLA has one value for ``erf`` of a constant, however it comes by it.

    It folds ``erf`` with the C library's function, or expands it to a polynomial first and
    folds that, or evaluates the polynomial at run time.
    """
    if not isinstance(x, (np.float32, np.float64)):
        return True
    if isinstance(x, np.float32) and int(x.view(np.uint32)) in _SETTLED:
        return True
    return bool(_asked(jax.lax.erf, x) == type(x)(math.erf(float(x))))
