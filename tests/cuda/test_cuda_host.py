"""The CUDA kernel on the host: its scheduler, its tiles and its arithmetic, without a GPU."""

from __future__ import annotations

import hashlib

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import cuda_host
import plan_reference as ref
from plan_reference import Draw
from plans import (
    COUNTED,
    EMPTY,
    KEYED,
    KEYS,
    NORMAL,
    OF_WORD,
    ROWS,
    TRUNCATED,
    VARIANTS,
    WIDE_NORMALS,
    beyond,
    in_rows,
    in_sizes,
    keys_of,
    known_answers,
    normals,
    of_word,
    random_blocks,
    random_draws,
)

pytestmark = pytest.mark.end("newest")


def check(draws, size, keys, members=None, *, mode=ref.MEMBER_KEYS, **options):
    """Every element against the reference; that each is written once is checked by the run."""
    blank = np.zeros(2, np.uint32)
    member = ref.member_keys(mode, size, keys, blank if members is None else members)
    made, launches = cuda_host.run(draws, size, keys, members, mode=mode, **options)
    for index, (d, result) in enumerate(zip(draws, made, strict=True)):
        block = ref.placed(d, options.get("numbers", ()))
        expected = cuda_host.sample(block, ref.row_keys(block, member))
        np.testing.assert_array_equal(result, expected, f"draw {index}: {d}")
    return launches


def test_known_answers():
    keys, counters, expected = known_answers()
    np.testing.assert_array_equal(cuda_host.threefry(keys, counters), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name):
    assert check(in_sizes(name), 3, keys_of(3), seed=1) == 1


@pytest.mark.parametrize("params", [NORMAL, TRUNCATED], ids=["normal", "truncated"])
def test_normals(params):
    check(normals(params), 3, keys_of(3))


def test_float64_normals_are_refused():
    draw = Draw(ref.NORMAL, 64, 8, 5, params=WIDE_NORMALS["normal"])
    with pytest.raises(ValueError, match="cannot be made on a GPU: float64 normals have no kernel"):
        cuda_host.run([draw], 3, keys_of(3))


def test_every_normal_is_that_of_xla_on_a_gpu():
    """All 2^23 mantissas, with a square root that is rounded correctly in both."""
    words = np.arange(1 << 23, dtype=np.uint32) << np.uint32(9)
    made = cuda_host.transform(NORMAL, words)
    params = np.array(NORMAL, np.uint32).view(np.float32)
    for part in np.array_split(np.arange(words.size), 16):
        np.testing.assert_array_equal(
            made[part].view(np.uint32), cuda_host.normal(params, words[part]).view(np.uint32)
        )
    # Of the numbers that XLA's own PTX gives: that of jax 0.12.0.1 for `jax.random.normal` on an
    # H100, interpreted instruction by instruction (tools/xla_ptx.py).
    digest = hashlib.blake2b(made.tobytes(), digest_size=16).hexdigest()
    assert digest == "a59984eb2387f4fbcd121b84d7b1a23a"


@pytest.mark.parametrize("params", OF_WORD.values(), ids=OF_WORD)
@pytest.mark.parametrize("kind", ref.SAMPLERS)
def test_samplers_of_a_word(kind, params):
    check(of_word(kind, params), 3, keys_of(3))


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (ref.EXPONENTIAL, "dff9fa2d89a711d3e904df2ef5122f3f"),
        (ref.GUMBEL, "8580f7bad34e7d274e56ed829582281c"),
        (ref.LAPLACE, "774411108fec2fc941b553cce621b02b"),
    ],
)
def test_every_number_of_a_sampler_is_that_of_xla_on_a_gpu(kind, expected):
    """All 2^23 mantissas: the digest of what XLA's PTX gives, as for normals."""
    words = np.arange(1 << 23, dtype=np.uint32) << np.uint32(9)
    made = cuda_host.of_word(kind, OF_WORD["plain"], words)
    assert hashlib.blake2b(made.tobytes(), digest_size=16).hexdigest() == expected


def test_bounds_that_are_zeros_or_no_numbers():
    """The zeros and NaN of IEEE minimum and maximum, as NumPy has no -0 < +0."""
    words = np.arange(0, 1 << 23, 4099, dtype=np.uint32) << np.uint32(9)
    for low, high, expected in [(0.0, 5.0, 0), (-5.0, -0.0, 1 << 31)]:
        made = cuda_host.transform(ref.float_bits(2.0, -1.0, 1.0, low, high, 1.0, -0.0), words)
        assert (made.view(np.uint32)[made == 0] == expected).all() and (made == 0).any()
    for bounds in [(np.nan, 1.0), (-1.0, np.nan)]:
        draw = Draw(ref.NORMAL, 32, 4, 50, params=ref.float_bits(2.0, -1.0, 1.0, *bounds, 1.0, 0.0))
        (made,), _ = cuda_host.run([draw], 1, keys_of(1))
        assert np.isnan(made.view(np.float32)).all()
    # max(+0, -0 + 0 * u) is +0 where the span is negative.
    draw = Draw(ref.UNIFORM, 32, 4, 50, params=ref.float_bits(-3.0, 0.0, 1.0, -0.0))
    (made,), _ = cuda_host.run([draw], 1, keys_of(1))
    assert (made == 0).all()


def test_rows_of_a_batch():
    for size in (1, 5, 33):
        check(ROWS, size, keys_of(size), seed=size)


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_with_counters_of_their_own(name):
    check(in_rows(VARIANTS[name]), 3, keys_of(3), seed=1)


@pytest.mark.parametrize("blocks", [1, 5000])
def test_large_blocks(blocks):
    """Rows that are cut into tiles, and tiles of many rows, some of which cross 2^32."""
    parts = ((0, 0, 1, 3), (1, 1, 2, 5))
    options = {"counters": (2**28 + 5,), "levels": ((3, (2,)),), "parts": parts}
    draws = [
        Draw(ref.BITS, 32, 4, 5000, dims=(20,), **options),
        Draw(ref.BITS, 32, 4, 70_000, parts=((0, 1, 1, 10),)),
        Draw(ref.BITS, 64, 8, 33, dims=(1700,), counters=(40,), parts=parts),
        Draw(**VARIANTS["randint32_7_2"], inner=12, dims=(700,), **options),
        Draw(ref.NORMAL, 32, 4, 16, params=NORMAL, dims=(900,), counters=(1024,), parts=parts),
        Draw(ref.KEY, 32, 4, dims=(900,), levels=((0, (1,)),), parts=parts[:1]),
        Draw(ref.CONSTANT, 16, 2, 80_001, params=(77,)),
    ]
    for size, numbers in [(1, (2, 9)), (3, (0, 4))]:
        numbers = np.array(numbers, np.uint32)
        check(draws, size, keys_of(size), blocks=blocks, seed=size, counts=(3, 10), numbers=numbers)


@pytest.mark.parametrize("blocks", [1, 100, 5000])
def test_draws_larger_than_a_tile(blocks):
    draws = [
        Draw(ref.BITS, 32, 4, 100_003, levels=((3, ()),)),
        Draw(ref.BITS, 32, 4, 5000, dims=(7,), levels=((3, (2,)),)),
        Draw(ref.BITS, 64, 8, 33, dims=(1700,), levels=((3, (2,)),)),
        Draw(**VARIANTS["randint32_7_2"], inner=70_001),
        Draw(ref.KEY, 32, 4, dims=(5000,), levels=((0, (1,)),)),
        Draw(ref.CONSTANT, 16, 2, 80_001, params=(77,)),
        Draw(ref.BITS, 8, 1, 3),
    ]
    for size in (1, 3):
        assert check(draws, size, keys_of(size), blocks=blocks, seed=size) == 1


@pytest.mark.parametrize("shift", [1, 2, 3])
def test_outputs_that_are_not_aligned(shift):
    inner = (1, 5, 16, 4096, 70_000)
    names = ("bits8", "bits16", "bits32", "bits64")
    draws = [Draw(**VARIANTS[name], inner=n) for name in names for n in inner]
    check([*draws, Draw(ref.KEY, 32, 4)], 3, keys_of(3), shift=shift)


def test_range_and_indices():
    for keys in KEYS:
        check(KEYED, **keys)


@pytest.mark.parametrize("name", COUNTED)
def test_counters_beyond_32_bits(name):
    lengths = (1, 5, 40) if name != "bits32" else (1, 5, 40, 70_000)
    check(beyond(name, lengths), 4, keys_of(4))


def test_units_longer_than_their_draw():
    """A small draw beside a large one: no keys are read of rows that it has not."""
    draws = [
        Draw(**VARIANTS["randint32_7_4"], inner=4, prefix=(1,)),
        Draw(ref.BITS, 32, 4, 992, prefix=(2,)),
        Draw(ref.KEY, 32, 4, prefix=(3,)),
    ]
    for size in (100, 700):
        check(draws, size, keys_of(size), blocks=1)


def test_nothing_to_do():
    assert check(EMPTY, 3, keys_of(3)) == 1
    assert check([], 3, keys_of(3)) == 0
    assert check(KEYED, 0, keys_of(2), np.zeros((2, 2), np.uint32), mode=ref.RANGE) == 0


def test_chains_of_keys():
    """``key, sub = split(key)`` again and again: what leads up to a launch is one fold there."""
    draws = [Draw(ref.BITS, 32, 4, 16, prefix=(0,) * i, levels=((1, ()),)) for i in range(500)]
    for blocks in (1, 1000):
        made, launches = cuda_host.run(draws, 20, keys_of(20), blocks=blocks, seed=3)
        assert launches > 1
        key = keys_of(20)
        for draw, result in zip(draws, made, strict=True):
            np.testing.assert_array_equal(result, ref.sample(draw, ref.fold(key, 1)))
            key = ref.fold(key, 0)
    deep = [Draw(ref.KEY, 32, 4, prefix=(0,) * 3000), Draw(ref.KEY, 32, 4, prefix=(0,) * 2999)]
    assert check(deep, 2, keys_of(2)) == 1


def test_trees_of_keys():
    """Many keys at once, several used by others and by draws themselves."""
    paths = [(i % 3, i % 5, i) for i in range(100)] + [(i % 3,) for i in range(6)]
    draws = [Draw(ref.BITS, 32, 4, 3 + i % 7, prefix=path) for i, path in enumerate(paths)]
    for size in (1, 70):
        check(draws, size, keys_of(size), seed=size)


def test_large_plans_are_several_launches():
    draws = [Draw(ref.BITS, 32, 4, 8, prefix=(i,)) for i in range(2000)]
    assert 2 < check(draws, 3, keys_of(3)) < 20


def test_huge_plans():
    """Of numbers that 32 bits do not hold; the scheduler allocates nothing for them."""
    long = Draw(ref.BITS, 8, 1, 2**40)
    rows = Draw(ref.BITS, 8, 1, 8, dims=(2**31,), levels=((0, (1,)),))
    assert cuda_host.launches([long, rows, Draw(ref.BITS, 8, 1, 3)], 2**20) == 1


def test_tables_are_shared_and_kept_apart():
    tables = [np.random.default_rng(i).bytes(256) for i in range(30)]
    options = dict(kind=ref.TABLE, word_bits=8, itemsize=2, params=(1,), inner=40)
    draws = [Draw(**options, table=tables[i % 30], prefix=(i,)) for i in range(90)]
    check(draws, 9, keys_of(9))


def test_what_cannot_be_made():
    long = Draw(ref.BITS, 32, 4, 3, prefix=tuple(range(4000)))
    with pytest.raises(ValueError, match="plan draw 0 cannot be made on a GPU: its key path"):
        cuda_host.run([long], 1, keys_of(1))
    rows = Draw(ref.BITS, 8, 1, 1, dims=(2**20, 2**12), levels=((0, (1, 1)),))
    with pytest.raises(ValueError, match="it has 4294967296 rows a member, more than 2"):
        cuda_host.launches([rows], 1)
    table = Draw(ref.TABLE, 16, 4, 3, params=(4,), table=bytes(4 << 12))
    message = "plan draw 1 cannot be made on a GPU: its lookup table has 16384 bytes, a block holds"
    with pytest.raises(ValueError, match=message):
        cuda_host.run([Draw(ref.BITS, 32, 4, 3), table], 1, keys_of(1))


def test_numbers_of_blocks_that_there_are_not():
    """The host cannot see them: the device makes one of the blocks that there are."""
    draw = Draw(ref.BITS, 32, 4, 20, dims=(7,), counters=(80,), parts=((1, 0, 1, 4),))
    for number in (3, 4, 2**32 - 1):
        (got,), _ = cuda_host.run([draw], 2, keys_of(2), counts=(4,), numbers=np.uint32([number]))
        block = ref.placed(draw, (number % 4,))
        np.testing.assert_array_equal(got, ref.sample(block, ref.row_keys(block, keys_of(2))))


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    random_blocks(), st.integers(0, 40), st.sampled_from([1, 7, 500]), st.integers(0, 2)
)
def test_random_blocks(cut, size, blocks, seed):
    draws, counts, numbers = cut
    options = {"counts": counts, "numbers": numbers}
    check(draws, size, keys_of(size), blocks=blocks, seed=seed, **options)


def test_the_check_of_writes_can_fail():
    draws = [Draw(ref.BITS, 32, 4, 3), Draw(ref.BITS, 32, 4, 3)]
    with pytest.raises(ValueError, match="byte 0 of an output was written 2 times"):
        cuda_host.run(draws, 2, keys_of(2), shared=True)


@hypothesis.settings(max_examples=60)
@hypothesis.given(
    random_draws(), st.integers(0, 40), st.sampled_from([1, 7, 500]), st.integers(0, 2)
)
def test_random_plans(draws, size, blocks, seed):
    check(draws, size, keys_of(size), blocks=blocks, seed=seed)
