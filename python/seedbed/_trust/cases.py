"""The fixed cases of the self-check: draws for every kernel, and what XLA computes for them."""

from __future__ import annotations

import math

import numpy as np

from .._plan import Draw, KeyPath, Kind, float_params, node, params

COUNT = 4096  # values of a case
_NINES = (2048, 9)  # or their shape

# Key, counter and result of threefry2x32 with 20 rounds, made with Random123's own C header.
KNOWN_ANSWERS = (
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x5EEDBED0, 0x9E3779B9), (0x00000000, 0x00000001), (0xBE3296C4, 0x38817100)),
    ((0x5EEDBED0, 0x9E3779B9), (0x00000001, 0x00000000), (0x189D6BF1, 0x40C1066E)),
    ((0x00000000, 0x00000001), (0x00000000, 0xFFFFFFFF), (0x45ECD01C, 0xEFFC9CBD)),
    ((0x00000001, 0x00000000), (0x80000000, 0x00000000), (0xE443B1C0, 0x35A872CF)),
    ((0x01234567, 0x89ABCDEF), (0xFEDCBA98, 0x76543210), (0x8EC29833, 0x0526F298)),
    ((0x7FFFFFFF, 0x80000001), (0x00000003, 0x00000005), (0xEB275ACC, 0x74E9D01E)),
)


def _cases() -> tuple[Draw, ...]:
    """One draw or more for each kernel; a draw's key is the root key folded with its position."""
    made: list[Draw] = []

    def add(kind: Kind, bits: int, dtype: str, values: tuple[int, ...] = ()) -> None:
        path = KeyPath(node=node(len(made)))
        made.append(Draw(kind, path, COUNT, bits, dtype, (COUNT,), values))

    def floats(kind: Kind, bits: int, **values: float) -> None:
        dtype = "bool" if kind is Kind.BERNOULLI else f"float{bits}"
        add(kind, bits, dtype, float_params(kind, bits, **values))

    for bits in (8, 16, 32, 64):
        add(Kind.BITS, bits, f"uint{bits}")
    # randint [-7, 1000): the first value is a 32-bit word.
    span, first = 1007, (1 << 32) - 7
    integers = params(Kind.RANDINT, span=span, multiplier=(1 << 32) % span, first=first)
    add(Kind.RANDINT, 32, "int32", integers)
    normal = {"span": 2.0, "low": float(np.nextafter(np.float32(-1), np.float32(0)))}
    root_two, edge = float(np.float32(math.sqrt(2.0))), 1.9999998807907104
    truncated = {"span": 1.9089994430541992, "low": -0.9544997215270996, "factor": root_two}
    truncated |= {"clip_low": -edge, "clip_high": edge}
    floats(Kind.UNIFORM, 32, span=1.0, low=0.0)
    floats(Kind.UNIFORM, 32, span=15.0, low=-3.7)
    floats(Kind.UNIFORM, 32, span=2.0, low=-1.0, scale=0.17, shift=0.3)
    floats(Kind.NORMAL, 32, **normal, scale=root_two)
    floats(Kind.NORMAL, 32, **truncated, scale=0.17)
    floats(Kind.NORMAL, 32, **truncated, scale=0.17, shift=0.3)
    floats(Kind.BERNOULLI, 32, span=1.0, low=0.0, p=0.3)
    floats(Kind.UNIFORM, 64, span=1.0, low=0.0)
    floats(Kind.UNIFORM, 64, span=15.0, low=-3.7)
    floats(Kind.UNIFORM, 64, span=2.0, low=-1.0, scale=0.17, shift=0.3)
    floats(Kind.BERNOULLI, 64, span=1.0, low=0.0, p=0.3)
    root_two, edge = math.sqrt(2.0), -math.nextafter(-2, 0)
    truncated = {"span": 1.9089994722071, "low": -0.95449973610364, "factor": root_two}
    truncated |= {"clip_low": -edge, "clip_high": edge}
    floats(Kind.NORMAL, 64, span=2.0, low=math.nextafter(-1, 0), scale=root_two)
    floats(Kind.NORMAL, 64, **truncated, scale=0.17)
    floats(Kind.NORMAL, 64, **truncated, scale=0.17, shift=0.3)
    # Near -1 all take the last two of the three polynomials.
    floats(Kind.NORMAL, 64, span=1e-6, low=-1.0, scale=root_two)
    for kind in (Kind.EXPONENTIAL, Kind.GUMBEL, Kind.LAPLACE):
        floats(kind, 32)
        floats(kind, 32, scale=0.17, shift=0.3)
        # Each ninth is left over by vectors, and might be rounded in its own way.
        floats(kind, 32)
        made[-1] = made[-1].replace(inner=math.prod(_NINES), shape=_NINES)
    return tuple(made)


CASES = _cases()
