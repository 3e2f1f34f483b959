"""The values of a draw in jax's own operations: what XLA is given, where the kernels are not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._plan import Draw, Kind


def chain(draw: Draw) -> Callable[[jax.Array], jax.Array]:
    """The values of a float draw from its random words, in the operations that XLA gets.

    Args:
        draw: of kind ``UNIFORM``, ``NORMAL`` or ``BERNOULLI``.

    Returns:
        A function of ``uint32`` or ``uint64`` words, of any shape, to be jitted.
    """
    real: Any = np.float64 if draw.word_bits == 64 else np.float32
    unsigned: Any = np.uint64 if draw.word_bits == 64 else np.uint32
    drop, one = (12, 0x3FF0000000000000) if draw.word_bits == 64 else (9, 0x3F800000)
    span, low, *rest = (real(value) for value in draw.floats())

    def values(word: jax.Array) -> jax.Array:
        mantissa = jax.lax.shift_right_logical(word, jnp.full_like(word, drop))
        unit = jax.lax.bitcast_convert_type(mantissa | unsigned(one), real) - real(1)
        value = jnp.maximum(low, unit * span + low)
        if draw.kind is Kind.BERNOULLI:
            return jnp.less(value, rest[0])
        if draw.kind is Kind.NORMAL:
            factor, clip_low, clip_high = rest[:3]
            value = jax.lax.erf_inv(value)
            value = value if factor == 1 else value * factor
            if not math.isinf(clip_low):
                value = jnp.clip(value, clip_low, clip_high)
        scale, shift = rest[-2:]
        value = value if scale == 1 else value * scale
        return value if shift == 0 else jnp.add(value, shift)

    return values
