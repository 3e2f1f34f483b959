"""The fixed cases of the self-check: draws for every kernel, and what XLA computes for them."""

from __future__ import annotations

import math

import numpy as np

from .._plan import Draw, KeyPath, Kind, node, words

COUNT = 4096  # values of each case

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


def _draw(index: int, kind: Kind, word_bits: int, dtype: str, *params: int) -> Draw:
    path = KeyPath(node=node(index))
    return Draw(kind, path, COUNT, word_bits, dtype, (COUNT,), params)


def _floats(word_bits: int, *values: float) -> tuple[int, ...]:
    return words(values, np.float64 if word_bits == 64 else np.float32)


def _cases() -> tuple[Draw, ...]:
    """One draw or more for each kernel; a draw's key is the root key folded with its position."""
    infinity, below_one = math.inf, float(np.nextafter(np.float32(-1), np.float32(0)))
    root_two = float(np.float32(math.sqrt(2.0)))
    truncated = (1.9089994430541992, -0.9544997215270996, root_two, -1.9999998807907104)
    f32, f64 = np.dtype(np.float32).name, np.dtype(np.float64).name
    made: list[Draw] = []

    def add(kind: Kind, bits: int, dtype: str, params: tuple[int, ...] = ()) -> None:
        made.append(_draw(len(made), kind, bits, dtype, *params))

    for bits in (8, 16, 32, 64):
        add(Kind.BITS, bits, f"uint{bits}")
    # randint [-7, 1000): span, 2^32 mod span, first value as a 32-bit word.
    add(Kind.RANDINT, 32, "int32", (1007, (1 << 32) % 1007, (1 << 32) - 7))
    add(Kind.UNIFORM, 32, f32, _floats(32, 1.0, 0.0, 1.0, -0.0))
    add(Kind.UNIFORM, 32, f32, _floats(32, 15.0, -3.7, 1.0, -0.0))
    add(Kind.UNIFORM, 32, f32, _floats(32, 2.0, -1.0, 0.17, 0.3))
    add(Kind.NORMAL, 32, f32, _floats(32, 2.0, below_one, 1.0, -infinity, infinity, root_two, -0.0))
    add(Kind.NORMAL, 32, f32, _floats(32, *truncated, -truncated[3], 0.17, -0.0))
    add(Kind.NORMAL, 32, f32, _floats(32, *truncated, -truncated[3], 0.17, 0.3))
    add(Kind.BERNOULLI, 32, "bool", _floats(32, 1.0, 0.0, 0.3))
    add(Kind.UNIFORM, 64, f64, _floats(64, 1.0, 0.0, 1.0, -0.0))
    add(Kind.UNIFORM, 64, f64, _floats(64, 15.0, -3.7, 1.0, -0.0))
    add(Kind.UNIFORM, 64, f64, _floats(64, 2.0, -1.0, 0.17, 0.3))
    add(Kind.BERNOULLI, 64, "bool", _floats(64, 1.0, 0.0, 0.3))
    below_one, root_two = math.nextafter(-1, 0), math.sqrt(2.0)
    truncated = (1.9089994722071, -0.95449973610364, root_two, math.nextafter(-2, 0))
    add(Kind.NORMAL, 64, f64, _floats(64, 2.0, below_one, 1.0, -infinity, infinity, root_two, -0.0))
    add(Kind.NORMAL, 64, f64, _floats(64, *truncated, -truncated[3], 0.17, -0.0))
    add(Kind.NORMAL, 64, f64, _floats(64, *truncated, -truncated[3], 0.17, 0.3))
    # Near -1 all take the last two of the three polynomials.
    add(Kind.NORMAL, 64, f64, _floats(64, 1e-6, -1.0, 1.0, -infinity, infinity, root_two, -0.0))
    return tuple(made)


CASES = _cases()
