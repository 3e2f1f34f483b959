"""The custom call on plans of every kind, into poisoned memory, beside the CPU kernels."""

from __future__ import annotations

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import plan_reference as ref
from gpu import device
from plan_reference import Draw
from plans import (
    COUNTED,
    KEYED,
    KEYS,
    NORMAL,
    SIZES,
    TRUNCATED,
    VARIANTS,
    beyond,
    in_rows,
    keys_of,
    random_draws,
)

VARIANTS = VARIANTS | {
    "key": dict(kind=ref.KEY, word_bits=32, itemsize=4),
    "normal": dict(kind=ref.NORMAL, word_bits=32, itemsize=4, params=NORMAL),
    "truncated": dict(kind=ref.NORMAL, word_bits=32, itemsize=4, params=TRUNCATED),
}
CUTS = ("bits8", "bits16", "bits32", "bits64", "normal", "uniform64", "randint32_7_4", "table8_2")


def made(name: str, **options) -> Draw:
    if name == "key":
        options.pop("inner", None)
    return Draw(**VARIANTS[name], **options)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name):
    """Short rows with keys of members and of their own, and rows that are cut into tiles."""
    draws = [made(name, inner=n) for n in SIZES]
    draws += [
        made(name, inner=n, dims=(3, 2), levels=((1, (2, 1)),), prefix=(4,)) for n in (1, 4, 37)
    ]
    device.check(
        [*draws, made(name, inner=70_001), made(name, inner=5, dims=(1100,))], 3, keys_of(3)
    )


@pytest.mark.parametrize("name", CUTS)
@pytest.mark.parametrize("members", [1, 2, 17, 1000])
def test_cuts(name, members):
    """Sizes around those of vectors, warps, blocks and tiles, for few and for many members."""
    inners = (1, 2, 3, 4, 31, 127, 128, 129, 1023, 2048, 2049) if members < 1000 else (1, 3, 129)
    draws = [made(name, inner=n, prefix=(i,)) for i, n in enumerate(inners)]
    device.check(draws, members, keys_of(members))


@pytest.mark.parametrize("inner", [65_535, 65_536, 65_537, 1_048_583])
def test_long_rows(inner):
    draws = [made(name, inner=inner, prefix=(3,)) for name in ("bits8", "bits32", "normal")]
    device.check(draws, 2, keys_of(2))


@pytest.mark.parametrize("rows", [2, 511, 512, 513, 4099])
def test_many_rows(rows):
    levels = ((7, (0,)), (0, (1,)))
    names = ("key", "bits32", "bits8", "randint64_1_8", "normal")
    draws = [made(name, inner=3, dims=(rows,), levels=levels) for name in names]
    device.check([*draws, made("bits32", inner=4, dims=(rows,), levels=levels)], 5, keys_of(5))


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_with_counters_of_their_own(name):
    draws = [made(name, inner=1)] if name == "key" else in_rows(VARIANTS[name])
    device.check(draws, 3, keys_of(3))


@pytest.mark.parametrize("numbers", [(0, 0), (2, 9)])
def test_blocks(numbers):
    """Long rows and narrow ones of blocks whose numbers only the device knows."""
    parts = ((0, 0, 1, 3), (1, 1, 2, 5))
    options = {"counters": (2**28 + 5,), "levels": ((3, (2,)),), "parts": parts}
    draws = [
        made("bits32", inner=5000, dims=(20,), **options),
        made("bits32", inner=70_000, parts=((0, 1, 1, 10),)),
        made("bits64", inner=33, dims=(1700,), counters=(40,), parts=parts),
        made("randint32_7_2", inner=12, dims=(700,), **options),
        made("normal", inner=16, dims=(900,), counters=(1024,), parts=parts),
        made("key", dims=(900,), levels=((0, (1,)),), parts=parts[:1]),
    ]
    for size in (1, 40):
        device.check(
            draws, size, keys_of(size), counts=(3, 10), numbers=np.array(numbers, np.uint32)
        )


def test_range_and_indices():
    for keys in KEYS:
        device.check([*KEYED, made("normal", inner=130)], **keys)


@pytest.mark.parametrize("name", COUNTED)
def test_counters_beyond_32_bits(name):
    device.check(beyond(name), 4, keys_of(4))


def test_deep_chain_of_keys():
    chain, draws = (), []
    for i in range(1500):
        if i % 50 == 0:
            draws.append(made("bits32", inner=2, prefix=chain, levels=((1, ()),)))
        chain = (*chain, i % 3)
    draws += [made("key", prefix=chain), made("key", levels=tuple((i, ()) for i in chain[:300]))]
    device.check(draws, 20, keys_of(20))


def test_nothing_to_do():
    empty = [made("bits32", inner=0), made("bits32", inner=3), made("bits32", inner=3, dims=(0, 9))]
    device.check(empty, 3, keys_of(3))
    for mode in (ref.MEMBER_KEYS, ref.RANGE, ref.INDICES, ref.ALL):
        none = np.zeros((0, 2), np.uint32)
        device.check([made("bits32", inner=3)], 0, none, none, mode=mode)


@pytest.mark.parametrize("members", [1, 40])
def test_many_launches(cuda, members):
    """2,000 draws of all variants, more than one launch's parameter holds."""
    names = sorted(VARIANTS)
    draws = [
        made(names[i % len(names)], inner=1 + i * 37 % 300, prefix=(i // 100, i))
        for i in range(2000)
    ]
    assert cuda.launches(ref.encode(draws), members) > 1
    device.check(draws, members, keys_of(members))


@hypothesis.settings(max_examples=60)
@hypothesis.given(random_draws(), st.integers(0, 5))
def test_random_plans(draws, size):
    device.check(draws, size, keys_of(size))
