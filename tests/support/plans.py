"""Draws of every variant, random plans and known answers, for the tests of each backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hypothesis.strategies as st
import numpy as np

import plan_reference as ref
from plan_reference import Draw

KAT = Path(__file__).parent / "kat" / "threefry2x32_20.txt"

UNIFORM32 = ref.float_bits(3.0, -1.25, 1.0, -0.0)
BELOW = float(np.nextafter(np.float32(-1), np.float32(0)))
NORMAL = ref.float_bits(2.0, BELOW, 2**0.5, -np.inf, np.inf, 1.0, -0.0)
TRUNCATED = ref.float_bits(1.9089994, -0.9544997, 2**0.5, -1.9999999, 1.9999999, 0.02, 0.5)
WIDE_NORMALS = {
    "normal": ref.double_bits(2.0, -1.0, 2**0.5, -np.inf, np.inf, 1.0, -0.0, -0.2929),
    "truncated": ref.double_bits(1.9, -0.95, 2**0.5, -1.9999999, 1.9999999, 0.02, 0.5, -0.4142),
}


# Of the samplers that are made of a word alone: scale and shift.
OF_WORD = {"plain": ref.float_bits(1.0, -0.0), "affine": ref.float_bits(-0.7, 0.3)}


def table(entries: int, itemsize: int) -> bytes:
    return np.random.default_rng(entries).bytes(entries * itemsize)


# name -> a draw of each variant; `inner` and the rest are filled in by the tests.
VARIANTS = {
    "bits8": dict(kind=ref.BITS, word_bits=8, itemsize=1),
    "bits16": dict(kind=ref.BITS, word_bits=16, itemsize=2),
    "bits32": dict(kind=ref.BITS, word_bits=32, itemsize=4),
    "bits64": dict(kind=ref.BITS, word_bits=64, itemsize=8),
    "uniform32": dict(kind=ref.UNIFORM, word_bits=32, itemsize=4, params=UNIFORM32),
    "uniform32_affine": dict(
        kind=ref.UNIFORM, word_bits=32, itemsize=4, params=ref.float_bits(0.1, 0.7, -1.3, 0.2)
    ),
    "uniform64": dict(
        kind=ref.UNIFORM, word_bits=64, itemsize=8, params=ref.double_bits(0.3, -0.1, 1.0, -0.0)
    ),
    "uniform64_affine": dict(
        kind=ref.UNIFORM, word_bits=64, itemsize=8, params=ref.double_bits(0.3, -0.1, 1.7, 0.4)
    ),
    "bernoulli32": dict(
        kind=ref.BERNOULLI, word_bits=32, itemsize=1, params=ref.float_bits(1.0, 0.0, 0.3)
    ),
    "bernoulli64": dict(
        kind=ref.BERNOULLI, word_bits=64, itemsize=1, params=ref.double_bits(1.0, 0.0, 0.7)
    ),
    "table8_1": dict(kind=ref.TABLE, word_bits=8, itemsize=1, params=(0,), table=table(256, 1)),
    "table8_2": dict(kind=ref.TABLE, word_bits=8, itemsize=2, params=(1,), table=table(128, 2)),
    "table8_4": dict(kind=ref.TABLE, word_bits=8, itemsize=4, params=(8,), table=table(1, 4)),
    "table16_2": dict(kind=ref.TABLE, word_bits=16, itemsize=2, params=(5,), table=table(2048, 2)),
    "constant_0": dict(kind=ref.CONSTANT, word_bits=32, itemsize=4, params=(0,)),
}
for _item in (1, 2, 4, 8):
    VARIANTS[f"constant{_item}"] = dict(
        kind=ref.CONSTANT, word_bits=8 * _item, itemsize=_item, params=(0x8123456789ABCDEF,)
    )
SPANS = {32: (0, 1, 7, 2**16, 2**31 + 1, 2**32 - 1), 64: (0, 1, 2**33 + 5, 2**64 - 1)}
for _bits in SPANS:
    for _span in SPANS[_bits]:
        for _item in (1, 2, 4, 8)[: 3 + _bits // 64]:
            _mult = 2 ** (_bits // 2) % _span if _span else 1
            _params = (_span, _mult**2 % _span if _span else 1, 2**_bits - 3)
            VARIANTS[f"randint{_bits}_{_span}_{_item}"] = dict(
                kind=ref.RANDINT, word_bits=_bits, itemsize=_item, params=_params
            )
SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 100)


def keys_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**32, (n, 2), np.uint32)


def known_answers(count: int | None = None) -> tuple[np.ndarray, ...]:
    """Keys, counters and what the cipher makes of them, two words each."""
    rows = [line.split() for line in KAT.read_text().splitlines() if line[0] != "#"]
    words = np.array([[int(word, 16) for word in row] for row in rows[:count]], np.uint32)
    words = words.reshape(-1, 3, 2)
    return tuple(np.ascontiguousarray(words[:, i]) for i in range(3))


# --- plans that every backend is held to --------------------------------------------------


def in_sizes(name: str) -> list[Draw]:
    """A variant in lengths around those of vectors and blocks."""
    return [Draw(**VARIANTS[name], inner=n) for n in SIZES]


def normals(params: tuple[int, ...], width: int = 32) -> list[Draw]:
    sizes = (*SIZES, 1023, 4099)
    return [Draw(ref.NORMAL, width, width // 8, n, params=params) for n in sizes]


def of_word(kind: int, params: tuple[int, ...]) -> list[Draw]:
    return [Draw(kind, 32, 4, n, params=params) for n in (*SIZES, 1023, 4099)]


COUNTED = ["bits32", "bits64", "bits8", "randint32_7_4", "uniform32"]


def beyond(name: str, lengths: tuple[int, ...] = (1, 5, 40)) -> list[Draw]:
    """A variant at counters that 32 bits do not hold, or that grow out of them."""
    offsets = (2**32 - 20, 2**32 - 1, 2**32, 5 * 2**32 - 33, 2**62 + 2**32 - 2)
    return [Draw(**VARIANTS[name], inner=n, offset=o) for o in offsets for n in lengths]


def in_rows(variant: dict, sizes: tuple[int, ...] = (0, 1, 2, 5, 16, 17, 40, 65)) -> list[Draw]:
    """A variant in rows with first counters of their own: of one key, of a few keys, of as many."""
    draws = []
    for n in sizes:
        for dims, strides in [((2, 20), (0, 0)), ((2, 33), (3, 0)), ((3, 7), (1, 4))]:
            levels = ((9, strides),) if any(strides) else ()
            options = {"dims": dims, "levels": levels, "counters": (40 * n + 3, n)}
            draws.append(Draw(**variant, inner=n, **options))
    return draws


_LEVELS = ((5, (0, 0)), (2**40, (2**33, -1)), (9, (0, 0)), (1, (0, 3)))
ROWS = [
    Draw(ref.KEY, 32, 4, dims=(3, 5), levels=_LEVELS),
    Draw(ref.BITS, 32, 4, 7, dims=(3, 5), levels=_LEVELS),
    Draw(**VARIANTS["randint32_7_4"], inner=9, dims=(4, 1), levels=((0, (1, 0)),)),
    Draw(ref.NORMAL, 32, 4, 21, params=NORMAL, dims=(2, 3, 2), levels=((0, (6, 2, 1)),)),
    Draw(ref.BITS, 8, 1, 1, dims=(700,), levels=((0, (1,)),)),
    Draw(ref.BITS, 16, 2, 2, dims=(300,)),  # rows that share one key
]
EMPTY = [
    Draw(ref.BITS, 32, 4, 0),
    Draw(ref.BITS, 32, 4, 3),
    Draw(ref.BITS, 32, 4, 3, dims=(0, 2**40)),
]
KEYED = [Draw(ref.KEY, 32, 4), Draw(ref.BITS, 32, 4, 3, levels=((7, ()),))]
# Every way to say which keys the members have.
KEYS = [
    dict(
        size=300,
        keys=keys_of(2),
        members=np.array([[0, 2**32 - 5], [2**32 - 1, 2**32 - 9]], np.uint32),  # crosses 2^32
        mode=ref.RANGE,
    ),
    dict(
        size=37,
        keys=keys_of(2),
        members=np.random.default_rng(1).integers(0, 2**32, (2, 37, 2), np.uint32),
        mode=ref.INDICES,
    ),
    dict(size=300, keys=keys_of(2), mode=ref.ALL),
    dict(size=5, keys=keys_of(15)),
]


@st.composite
def random_blocks(draw):
    """Blocks of draws, how many there are by word of that operand, and which are made."""
    counts = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 64, 2**31]), min_size=1, max_size=4)))
    numbers = [draw(st.integers(0, count - 1)) for count in counts]
    draws = []
    for one in draw(random_draws()):
        stride, places = st.sampled_from([0, 1, 40, 2**31 - 3, 2**32, 2**33 + 1]), len(one.dims) + 1
        chosen = sorted(draw(st.sets(st.integers(0, places - 1))))
        block = st.integers(0, len(counts) - 1)
        parts = [
            (dim, draw(block), draw(st.sampled_from([1, 2, 5])), draw(st.sampled_from([1, 2, 7])))
            for dim in chosen
        ]
        counters = tuple(draw(stride) for _ in one.dims)
        draws.append(replace(one, counters=counters, parts=tuple(parts)))
    return draws, counts, np.array(numbers, np.uint32)


@st.composite
def random_draws(draw):
    names = sorted(VARIANTS)
    index = st.integers(-(2**63), 2**63 - 1)
    draws = []
    for _ in range(draw(st.integers(1, 4))):
        dims = tuple(draw(st.lists(st.integers(0, 4), max_size=2)))
        levels = tuple(
            (draw(index), tuple(draw(st.sampled_from([0, 1, 3, 2**35])) for _ in dims))
            for _ in range(draw(st.integers(0, 3)))
        )
        variant = draw(st.sampled_from([*names, "normal", "sampler", "key"]))
        options = VARIANTS.get(variant, {})
        if variant == "normal":
            options = dict(kind=ref.NORMAL, word_bits=32, itemsize=4, params=TRUNCATED)
        if variant == "sampler":
            kind, params = draw(st.sampled_from(ref.SAMPLERS)), OF_WORD["affine"]
            options = dict(kind=kind, word_bits=32, itemsize=4, params=params)
        if variant == "key":
            draws.append(Draw(ref.KEY, 32, 4, dims=dims, levels=levels))
            continue
        inner, offset = draw(st.integers(0, 40)), draw(st.sampled_from([0, 0, 2**32 - 7]))
        draws.append(Draw(**options, inner=inner, offset=offset, dims=dims, levels=levels))
    return draws
