"""A PRNG implementation with the bits of threefry2x32, made by the native cipher."""

from ._random.prng_impl import from_threefry as from_threefry
from ._random.prng_impl import impl as impl
from ._random.prng_impl import to_threefry as to_threefry

__all__ = ["from_threefry", "impl", "to_threefry"]


def __dir__() -> list[str]:
    return list(__all__)
