"""The native cipher inside jax's programs: words, splits and folds of arrays of keys.

`random_bits`, `split` and `fold_in` are primitives of their own on keys as words,
``uint32[..., 2]``. Their numbers are those of jax's threefry functions. What makes them is decided
where a program is lowered, as only there the platform and the devices are known: on one CPU device
the fill kernels, elsewhere jax's functions. `lower_bits`, `lower_split`, `lower_fold_in` and
`lower_cipher` do the same for jax's own primitives; see `_random.accelerate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._jax import ask_xla, compat, generators, lowering, places
from .._plan import MEMBER, Draw, KeyMode, KeyPath, Kind, Level, Shape, key_path
from .._run import native as _native
from .._trust import backends

# --- native, while a program is lowered ---------------------------------------------------


def _native_bits(words: Any, *, bit_width: int, shape: Shape) -> Any:
    bits = Draw(Kind.BITS, KeyPath(), math.prod(shape), bit_width, f"uint{bit_width}", shape)
    shape = (*words.shape[:-1], *shape)
    if bit_width != 32 or not 1 < ask_xla.row(bits.shape) <= ask_xla.UNROLLED:
        return fill(bits, words, shape)
    # Where a loop is unrolled, XLA's rounding of what follows depends on what the loop starts
    # with. That is the xor of two arrays in jax's cipher: so it is here, one of them being zeros.
    zeros = bits.replace(kind=Kind.CONSTANT, params=(0,))
    first, second = _filled((bits, zeros), words, shape)
    return first ^ second


def _native_split(words: Any, *, shape: Shape) -> Any:
    count, batch = math.prod(shape), words.shape[:-1]
    path = key_path((count,), MEMBER, (Level(0, (1,)),))
    draw = Draw(Kind.KEY, path, 1, 32, "uint32", (count, 2))
    return fill(draw, words, (*batch, *shape, 2))


def _native_fold_in(words: Any, data: Any) -> Any:
    zero = np.zeros((), np.uint32)
    return jnp.stack(_native_cipher(words[..., 0], words[..., 1], zero, data), -1)


def _native_cipher(*operands: Any) -> list[Any]:
    shape = jnp.broadcast_shapes(*(operand.shape for operand in operands))
    results = [compat.abstract(shape, np.uint32)] * 2
    return list(jax.ffi.ffi_call(_native.CIPHER_TARGET, results)(*operands))


def fill(draw: Draw, words: Any, shape: Shape) -> Any:
    """One draw for every key of ``words``, by a native call; shape ``shape``, not empty."""
    (out,) = _filled((draw,), words, shape)
    return out


def _filled(draws: tuple[Draw, ...], words: Any, shape: Shape) -> list[Any]:
    keys = math.prod(words.shape[:-1])
    made = _native.call(draws, KeyMode.MEMBER_KEYS, keys, words.reshape(keys, 2))
    return [out.reshape(shape) for out in made]


# --- when ---------------------------------------------------------------------------------


def why_not() -> str | None:
    """Why jax's own cipher runs, or None. Raises where the native one was demanded."""
    return backends.why_jaxs_cipher()


# A call costs about a microsecond: fewer words are made sooner inside of XLA's loops.
MIN_WORDS = 512


def _enough(shape: Shape) -> bool:
    """Whether a call pays that runs the cipher once for each element of ``shape``."""
    return _static(shape) and math.prod(shape) >= max(MIN_WORDS, 1)


def _usable(context: Any) -> bool:
    """Whether an equation that is being lowered may become a native call."""
    return (
        not lowering.paused()
        # The partitioner of XLA would give every device the whole of a custom call.
        and lowering.runs_whole(context)
        # An exported program must run where seedbed is not installed.
        and not lowering.for_export(context)
        and why_not() is None
    )


def _native_here(context: Any, shape: Shape) -> bool:
    return _enough(shape) and _usable(context)


# --- primitives ---------------------------------------------------------------------------


def mapped(function: Callable[..., Any], words: Any) -> Callable[..., Any]:
    """A function of one key for every key of ``words``."""
    for _ in range(words.ndim - 1):
        function = jax.vmap(function)
    return function


def _reference_bits(words: Any, *, bit_width: int, shape: Shape) -> Any:
    return mapped(lambda key: compat.threefry_prng_impl.random_bits(key, bit_width, shape), words)(
        words
    )


def _reference_split(words: Any, *, shape: Shape) -> Any:
    return mapped(lambda key: compat.threefry_prng_impl.split(key, shape), words)(words)


def _reference_fold_in(words: Any, data: Any) -> Any:
    shape = jnp.broadcast_shapes(words.shape[:-1], data.shape)
    words, data = jnp.broadcast_to(words, (*shape, 2)), jnp.broadcast_to(data, shape)
    return mapped(compat.threefry_prng_impl.fold_in, words)(words, data)


def primitive(
    name: str,
    abstract: Callable[..., Any],
    native: Callable[..., Any],
    reference: Callable[..., Any],
    pays: Callable[..., bool],
) -> Any:
    """A primitive on keys as words that is lowered in two ways.

    Args:
        name: of the primitive.
        abstract: ``(*operands, **params) -> (shape, dtype)`` of the result.
        native: function of the operands that makes a native call; where one may be made.
        reference: the same by jax alone; elsewhere.
        pays: ``pays(shape, /, **params)``, whether a native call is worth it for such a result.
    """
    made = lowering.new_primitive(name, abstract)

    def batch(operands: Any, axes: Any, **params: Any) -> Any:
        # Results broadcast operands, so that an axis of length 1 serves all.
        front = [
            lax.expand_dims(x, [0]) if axis is None else jnp.moveaxis(x, axis, 0)
            for x, axis in zip(operands, axes, strict=True)
        ]
        return made.bind(*front, **params), 0

    def lower(context: Any, *operands: Any, **params: Any) -> Any:
        wanted = pays(context.avals_out[0].shape, **params) and _usable(context)
        return lowering.lower(native if wanted else reference, context, operands, params)

    def lower_elsewhere(context: Any, *operands: Any, **params: Any) -> Any:
        return lowering.lower(reference, context, operands, params)

    lowering.set_rules(made, batch, {"cpu": lower, None: lower_elsewhere})
    return made


def _enough_words(result: Shape, /, **params: Any) -> bool:
    return _enough(result)


def _enough_keys(result: Shape, /, **params: Any) -> bool:
    return _enough(result[:-1])  # without the two words of a key


_bits_p = primitive(
    "seedbed_random_bits",
    lambda words, bit_width, shape: ((*words.shape[:-1], *shape), f"uint{bit_width}"),
    _native_bits,
    _reference_bits,
    _enough_words,
)
_split_p = primitive(
    "seedbed_random_split",
    lambda words, shape: ((*words.shape[:-1], *shape, 2), "uint32"),
    _native_split,
    _reference_split,
    _enough_keys,
)
_fold_in_p = primitive(
    "seedbed_random_fold_in",
    lambda words, data: (
        (*jnp.broadcast_shapes(words.shape[:-1], data.shape), 2),
        "uint32",
    ),
    _native_fold_in,
    _reference_fold_in,
    _enough_keys,
)


def random_bits(words: Any, bit_width: int, shape: Shape) -> Any:
    """``uint<bit_width>[*shape]`` for one key ``uint32[2]``."""
    if _for_jax(shape, words) or _narrowed(bit_width):
        return compat.threefry_prng_impl.random_bits(words, bit_width, shape)
    return _bits_p.bind(words, bit_width=bit_width, shape=tuple(shape))


def split(words: Any, shape: Shape) -> Any:
    """``uint32[*shape, 2]`` for one key ``uint32[2]``."""
    if _for_jax(shape, words):
        return compat.threefry_prng_impl.split(words, shape)
    return _split_p.bind(words, shape=tuple(shape))


def fold_in(words: Any, data: Any) -> Any:
    """The key ``uint32[2]`` that one key ``uint32[2]`` and a 32-bit number give."""
    if _for_jax((), words, data):
        return compat.threefry_prng_impl.fold_in(words, data)
    return _fold_in_p.bind(words, jnp.asarray(data, dtype="uint32"))


def _narrowed(bit_width: int) -> bool:
    """Whether jax makes narrower words than it was asked for: a case for jax alone."""
    return bit_width == 64 and not jax.config.jax_enable_x64


def _for_jax(shape: Shape, *operands: Any) -> bool:
    """Whether jax's functions are traced themselves: symbolic sizes, shardings as types."""
    if not _static(shape) or places.explicit_mesh() or places.mapped_over():
        return True
    return any(places.sharding_of(one) is not None for one in operands)


def _static(shape: Shape) -> bool:
    """Whether no dimension is symbolic (`jax.export`)."""
    return all(isinstance(dim, int) for dim in shape)


# --- the same for jax's own primitives ----------------------------------------------------

# Takes the place of a rule ``(context, *operands, **params)``: gets that rule in front.
Rule = Callable[..., Any]


def lower_bits(jaxs: Rule, context: Any, keys: Any, *, bit_width: int, shape: Shape) -> Any:
    params = {"bit_width": bit_width, "shape": shape}
    if _narrowed(bit_width):
        return jaxs(context, keys, **params)
    return _lower_keys(_native_bits, jaxs, context, (keys,), params)


def lower_split(jaxs: Rule, context: Any, keys: Any, *, shape: Shape) -> Any:
    return _lower_keys(_native_split, jaxs, context, (keys,), {"shape": shape})


def lower_fold_in(jaxs: Rule, context: Any, keys: Any, data: Any) -> Any:
    return _lower_keys(
        lambda words, data: _native_fold_in(words, data.astype(np.uint32)),
        jaxs,
        context,
        (keys, data),
        {},
    )


def lower_cipher(jaxs: Rule, context: Any, *operands: Any) -> Any:
    if not _native_here(context, context.avals_out[0].shape):
        return jaxs(context, *operands)
    return lowering.lower(_native_cipher, context, operands, {}, multiple_results=True)


def _lower_keys(
    native: Callable[..., Any], jaxs: Rule, context: Any, operands: Any, params: dict[str, Any]
) -> Any:
    threefry = generators.is_threefry(compat.key_impl(context.avals_in[0].dtype))
    if threefry and _native_here(context, context.avals_out[0].shape):
        return lowering.lower(native, lowering.physical(context), operands, params)
    return jaxs(context, *operands, **params)
