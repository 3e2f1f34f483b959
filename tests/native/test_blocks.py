"""Blocks of draws in the native kernels: rows that start with counters of their own, and parts."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import plan_reference as ref
from cpu_plans import check, run
from plan_reference import Draw
from plans import (
    COUNTED,
    KEYS,
    NORMAL,
    TRUNCATED,
    VARIANTS,
    WIDE_NORMALS,
    in_rows,
    keys_of,
    random_blocks,
)
from seedbed import _cpu


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_with_counters_of_their_own(name):
    check(in_rows(VARIANTS[name]), 2, keys_of(2))


@pytest.mark.parametrize("name", ["bits32", "bits64", "bits8", "table8_2", "randint32_7_4"])
def test_rows_of_every_length(name):
    check(in_rows(VARIANTS[name], (*range(1, 101), 127, 128, 129)), 1, keys_of(1))


def test_normals_in_rows_are_those_of_their_words():
    for params, width in [(NORMAL, 32), (TRUNCATED, 32), (WIDE_NORMALS["truncated"], 64)]:
        word, real = f"u{width // 8}", f"f{width // 8}"
        bits = in_rows(VARIANTS[f"bits{width}"], (1, 3, 16, 17, 40, 64, 100, 200))
        draws = [replace(d, kind=ref.NORMAL, params=params) for d in bits]
        check(draws, 2, keys_of(2))
        values = np.array(params, word).view(real)
        for made, drawn in zip(run(draws, 2, keys_of(2)), run(bits, 2, keys_of(2)), strict=True):
            expected = np.zeros(drawn.size, real)
            _cpu.transform(values, drawn.ravel(), expected)
            np.testing.assert_array_equal(made.ravel(), expected.view(word))


@pytest.mark.parametrize("name", COUNTED)
def test_rows_whose_counters_grow_out_of_32_bits(name):
    """One row of many, or the step from one to the next."""
    draws = [
        Draw(**VARIANTS[name], inner=n, offset=offset, dims=(50,), counters=(stride,))
        for n in (1, 5, 16, 20, 40, 300)
        for offset, stride in [(2**32 - 1000, 40), (2**32 - 5, 0), (7, 2**32), (0, 2**28 + 1)]
    ]
    check(draws, 2, keys_of(2))


@hypothesis.settings(max_examples=60)
@hypothesis.given(random_blocks(), st.integers(0, 5), st.integers(1, 3))
def test_random_blocks(blocks, size, threads):
    draws, counts, numbers = blocks
    check(draws, size, keys_of(size), threads=threads, counts=counts, numbers=numbers)


def test_blocks_in_every_mode():
    options = {"dims": (4, 33), "counters": (2000, 20), "levels": ((1, (0, 0)), (3, (5, 0)))}
    parts = ((0, 0, 1, 3), (1, 1, 2, 5), (2, 1, 1, 2))
    draws = [
        Draw(**VARIANTS["bits32"], inner=20, parts=parts, **options),
        Draw(**VARIANTS["randint32_7_4"], inner=20, parts=parts, **options),
        Draw(ref.KEY, 32, 4, parts=parts[:2], **options),
    ]
    numbers = np.array([2, 9], np.uint32)
    for keys in KEYS:
        check(draws, **keys, counts=(3, 10), numbers=numbers, threads=2)


CUT = Draw(ref.BITS, 32, 4, 3, dims=(5,), counters=(7,), parts=((0, 1, 2, 4), (1, 0, 1, 9)))


def test_plans_of_blocks_that_are_refused():
    plan, out = ref.encode([CUT], (9, 8)), [np.zeros((2, 15), np.uint32)]

    def attempt(words, numbers=(8, 7)):
        numbers = None if numbers is None else np.array(numbers, np.uint32)
        _cpu.run_plan(words, 0, 2, keys_of(2), np.zeros(2, np.uint32), out, blocks=numbers)

    attempt(plan)
    out[0][:] = 0
    for numbers, message in [
        (None, "blocks must have 2 elements, got 0"),
        ((8,), "blocks must have 2 elements, got 1"),
        ((9, 0), r"blocks\[0\] must be below 9, got 9"),
        ((0, 2**32 - 1), r"blocks\[1\] must be below 8, got 4294967295"),
    ]:
        with pytest.raises(ValueError, match=message):
            attempt(plan, numbers)
    for counts in [(0, 8), (2**31 + 1, 8), (-1, 8)]:
        with pytest.raises(ValueError, match=f"plan has {counts[0]} blocks in place 0, accepted"):
            attempt(ref.encode([CUT], counts))
    claims = plan.copy()
    claims[4] = 2**40
    with pytest.raises(ValueError, match="plan claims 1099511627776 numbers of blocks"):
        attempt(claims)
    for changes, message in [
        ({"parts": ((2, 0, 1, 1),)}, "dims of parts must ascend and exist, got 2"),
        ({"parts": ((1, 0, 1, 1), (1, 0, 1, 1))}, "dims of parts must ascend and exist, got 1"),
        ({"parts": ((-1, 0, 1, 1),)}, "dims of parts must ascend and exist, got -1"),
        ({"parts": ((0, 2, 1, 1),)}, "block out of range: 2"),
        ({"parts": ((0, -1, 1, 1),)}, "block out of range: -1"),
        ({"parts": ((0, 0, 0, 1),)}, r"in 1 \.\.\. 2\^31, got 0"),
        ({"parts": ((0, 0, 1, 2**31 + 1),)}, r"in 1 \.\.\. 2\^31, got 2147483649"),
        ({"counters": (-1,)}, "counter stride must be >= 0, got -1"),
        ({"counters": (2**62,)}, "counters overflow"),
        ({"offset": 2**63 - 20, "parts": ()}, "counters overflow"),
        ({"dims": (2**40,), "parts": ((0, 0, 1, 2**31),)}, "extent of all blocks overflow"),
    ]:
        with pytest.raises(ValueError, match=message):
            attempt(ref.encode([replace(CUT, **changes)], (9, 8)))
    assert not out[0].any()


@hypothesis.settings(max_examples=200)
@hypothesis.given(st.data())
def test_fuzzed_plans_of_blocks(data):
    words, out = ref.encode([CUT], (9, 8)), [np.zeros((2, 15), np.uint32)]
    extreme = st.sampled_from([-(2**63), -1, 0, 1, 2, 4, 8, 2**31, 2**32, 2**61, 2**63 - 1])
    for _ in range(data.draw(st.integers(1, 3))):
        words[data.draw(st.integers(3, len(words) - 1))] = data.draw(extreme)
    numbers = np.array(data.draw(st.tuples(*[st.integers(0, 2**32 - 1)] * 2)), np.uint32)
    with contextlib.suppress(ValueError):
        _cpu.run_plan(words, 0, 2, keys_of(2), np.zeros(2, np.uint32), out, blocks=numbers)
