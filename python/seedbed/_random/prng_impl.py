"""A type of keys with threefry's numbers, whose random words the native cipher makes.

``jax.random.key(seed, impl=sb.prng.impl)`` is a key for every function of `jax.random`. It gives
what a threefry2x32 key of the same seed gives: random words bit for bit, and numbers as XLA rounds
them (docs/keys.md names the one place where that is seen).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax

from .._jax import compat, generators, lowering
from . import cipher

__all__ = ["from_threefry", "impl", "to_threefry"]

impl: Any = compat.define_prng_impl(
    key_shape=(2,),
    seed=compat.threefry_prng_impl.seed,
    split=cipher.split,
    random_bits=cipher.random_bits,
    fold_in=cipher.fold_in,
    name="seedbed",
    tag="sb",
)
generators.register(compat.key_impl(impl))


def _lower_gamma(
    jaxs: Callable[..., Any], context: Any, keys: Any, alpha: Any, *, log_space: bool
) -> Any:
    """Gamma variates, of which jax makes all at once from keys of its own threefry, and one after
    the other from any other keys: by other code, with other last bits."""
    if compat.key_impl(context.avals_in[0].dtype) != compat.key_impl(impl):
        return jaxs(context, keys, alpha, log_space=log_space)
    return lowering.lower(_gamma, context, (keys, alpha), {"log_space": log_space})


def _gamma(keys: Any, alpha: Any, *, log_space: bool) -> Any:
    each = math.prod(alpha.shape[keys.ndim :])
    split: Any = jax.vmap(lambda key: jax.random.split(key, each))
    draw: Any = jax.vmap(lambda key, alpha: lowering.gamma_one(key, alpha, log_space))
    return draw(split(keys.flatten()).flatten(), alpha.flatten()).reshape(alpha.shape)


if lowering.random_gamma is not None:
    lowering.extend_lowerings(lowering.random_gamma, _lower_gamma)


def from_threefry(key: Any) -> Any:
    """The same keys as keys of `impl`.

    Args:
        key: threefry2x32 keys of any shape: typed, or legacy words ``uint32[..., 2]``.

    Returns:
        Typed keys of that shape, with the same words; to jax's check for keys used twice they are
        new ones, as of `jax.random.wrap_key_data`.

    Raises:
        TypeError: ``key`` is not an array of threefry2x32 keys.

    Example:
        >>> import jax, seedbed as sb
        >>> key = sb.prng.from_threefry(jax.random.key(0))
        >>> bool(jax.random.bits(key) == jax.random.bits(jax.random.key(0)))
        True
    """
    return _convert(key, compat.threefry_prng_impl, impl)


def to_threefry(key: Any) -> Any:
    """The same keys as threefry2x32 keys; the inverse of `from_threefry`.

    Args:
        key: keys of `impl`, of any shape.

    Returns:
        Typed keys of that shape, with the same words; to jax's check for keys used twice they are
        new ones, as of `jax.random.wrap_key_data`.

    Raises:
        TypeError: ``key`` is not an array of keys of `impl`.

    Example:
        >>> import jax, seedbed as sb
        >>> key = jax.random.key(0, impl=sb.prng.impl)
        >>> counts = jax.random.poisson(sb.prng.to_threefry(key), 3.0)  # jax wants such a key here
    """
    return _convert(key, compat.key_impl(impl), compat.threefry_prng_impl)


def _convert(key: Any, source: Any, target: Any) -> Any:
    dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", ())
    jaxs = source is compat.threefry_prng_impl
    if dtype is not None and compat.is_key(dtype):
        given = compat.key_impl(dtype)
        if generators.same(given, source):
            return jax.random.wrap_key_data(jax.random.key_data(key), impl=target)
        found = f"keys of type {generators.shown(given)}"
    else:
        legacy = jaxs and shape[-1:] == (2,)
        if legacy and dtype == "uint32":
            return jax.random.wrap_key_data(jax.numpy.asarray(key), impl=target)
        found = type(key).__name__ if dtype is None else f"{dtype}{list(shape)}"
    accepted = f"typed keys of type {source.name!r}"
    if jaxs:
        accepted += " or legacy words uint32[..., 2]"
    raise TypeError(f"`key` must be {accepted}, got {found}")
