"""The values of a draw in jax's own operations: what XLA is given, where the kernels are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._plan import RECORDS, Draw, Kind

# Parameters by name, as numbers of the draw's width.
Params = dict[str, Any]


def chain(draw: Draw) -> Callable[[jax.Array], jax.Array]:
    """The values of a float draw from its random words, in the operations that XLA gets.

    Args:
        draw: of one of the kinds in `OPERATIONS`.

    Returns:
        A function of ``uint32`` or ``uint64`` words, of any shape, to be jitted.
    """
    real: Any = np.float64 if draw.word_bits == 64 else np.float32
    unsigned: Any = np.uint64 if draw.word_bits == 64 else np.uint32
    drop, one = (12, 0x3FF0000000000000) if draw.word_bits == 64 else (9, 0x3F800000)
    p = {name: real(value) for name, value in draw.floats().items()}
    over = RECORDS[draw.kind].over
    span, low = map(real, over or (p["span"], p["low"]))
    operations = OPERATIONS[draw.kind]

    def values(word: jax.Array) -> jax.Array:
        mantissa = jax.lax.shift_right_logical(word, jnp.full_like(word, drop))
        unit = jax.lax.bitcast_convert_type(mantissa | unsigned(one), real) - real(1)
        return operations(jnp.maximum(low, unit * span + low), p)

    return values


def _normal(ranged: jax.Array, p: Params) -> jax.Array:
    value = jax.lax.erf_inv(ranged)
    value = value if p["factor"] == 1 else value * p["factor"]
    if not math.isinf(p["clip_low"]):
        value = jnp.clip(value, p["clip_low"], p["clip_high"])
    return _affine(value, p)


def _bernoulli(ranged: jax.Array, p: Params) -> jax.Array:
    return jnp.less(ranged, p["p"])


def _exponential(ranged: jax.Array, p: Params) -> jax.Array:
    return _affine(-jax.lax.log1p(-ranged), p)


def _gumbel(ranged: jax.Array, p: Params) -> jax.Array:
    return _affine(-jax.lax.log(-jax.lax.log(ranged)), p)


def _laplace(ranged: jax.Array, p: Params) -> jax.Array:
    return _affine(jax.lax.sign(ranged) * jax.lax.log1p(-jax.lax.abs(ranged)), p)


def _affine(value: jax.Array, p: Params) -> jax.Array:
    value = value if p["scale"] == 1 else value * p["scale"]
    return value if p["shift"] == 0 else jnp.add(value, p["shift"])


# What becomes of ``max(low, unit * span + low)``: `KindRecord.formula`.
OPERATIONS: dict[Kind, Callable[[jax.Array, Params], jax.Array]] = {
    Kind.UNIFORM: _affine,
    Kind.NORMAL: _normal,
    Kind.BERNOULLI: _bernoulli,
    Kind.EXPONENTIAL: _exponential,
    Kind.GUMBEL: _gumbel,
    Kind.LAPLACE: _laplace,
}
