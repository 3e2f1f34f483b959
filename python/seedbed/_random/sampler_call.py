"""Calls of the functions of `jax.random`: their arrays apart from all else, which is by value."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import jax
import numpy as np

from .._jax import compat
from .._jax import places as _places
from .._trust import backends

ARRAYS = (jax.Array, np.ndarray)


class SamplerCall(NamedTuple):
    """A call, its operands, their places among its arguments, and all else by value."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    operands: list[Any]
    places: list[int | str]
    token: Hashable

    def widened(self) -> SamplerCall:
        """The same call with its numbers as operands."""
        call = read(self.function, self.args, self.kwargs, numbers=True)
        assert call is not None
        return call

    def emptied(self) -> SamplerCall:
        """The call as a program may keep it: without its operands, which may be being traced."""
        args = tuple(None if i in self.places else arg for i, arg in enumerate(self.args))
        kwargs = {name: None if name in self.places else self.kwargs[name] for name in self.kwargs}
        return self._replace(args=args, kwargs=kwargs, operands=[])

    def of(self, *operands: Any) -> Any:
        """The result for other operands."""
        given = dict(zip(self.places, operands, strict=True))
        args = [given.get(place, value) for place, value in enumerate(self.args)]
        kwargs = {name: given.get(name, value) for name, value in self.kwargs.items()}
        return self.function(*args, **kwargs)


def read(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    numbers: bool = False,
) -> SamplerCall | None:
    """A call with its arrays as operands, with ``numbers`` its numbers too; None if it is jax's.

    The first operand is the key.
    """
    config: Any = jax.config
    if not isinstance(args[0] if args else kwargs.get("key"), ARRAYS) or config.jax_disable_jit:
        return None
    if not args:
        kwargs = {"key": kwargs["key"], **kwargs}
    if _places.mapped_over():
        return None
    operands: list[Any] = []
    places: list[int | str] = []
    rest: list[Hashable] = []
    given: tuple[tuple[int | str, Any], ...] = (*enumerate(args), *kwargs.items())
    for place, value in given:
        if isinstance(value, ARRAYS):
            if _places.sharding_of(value) is not None:
                return None
            operands.append(value)
            places.append(place)
            rest.append((place, value.shape, value.dtype, getattr(value, "weak_type", False)))
        elif numbers and _is_number(value):
            operands.append(value)
            places.append(place)
            rest.append((place, type(value)))
        else:
            token = _token(value)
            if token is None:
                return None
            rest.append((place, token))
    token = (
        tuple(rest),
        compat.trace_context(),
        backends.requested(),
        config.jax_legacy_prng_key,
        config.jax_debug_key_reuse,
    )
    return SamplerCall(function, args, kwargs, operands, places, token)


# What cannot change after a program was made for it. (Also the types of numbers: dtypes.)
_CONSTANT = (int, str, type(None), type, np.dtype)


def _token(value: Any) -> Hashable:
    """A value for comparison, None if it may change, as an object that stands for an array may.

    1, 1.0 and True differ, and so do 0.0 and -0.0.
    """
    kind = type(value)
    if kind is tuple or kind is list:
        tokens = tuple(map(_token, value))
        return None if None in tokens else (kind, tokens)
    if isinstance(value, (float, complex, np.generic)):
        return (kind, repr(value))
    return (kind, value) if isinstance(value, _CONSTANT) else None


def _is_number(value: Any) -> bool:
    """Whether a number may be an operand; an integer that int32 does not hold may not."""
    if type(value) is int:
        return -(1 << 31) <= value < 1 << 31
    return type(value) is float or (isinstance(value, np.generic) and value.dtype.kind in "iuf")
