"""The native kernels, decoder and scheduler, without JAX in between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

import plan_reference as ref
from cpu_plans import ISAS, check, run
from helpers import run_python
from plan_reference import Draw
from plans import (
    COUNTED,
    EMPTY,
    KEYED,
    KEYS,
    NORMAL,
    OF_WORD,
    ROWS,
    SIZES,
    TRUNCATED,
    VARIANTS,
    WIDE_NORMALS,
    beyond,
    in_sizes,
    keys_of,
    known_answers,
    normals,
    of_word,
    random_draws,
)
from seedbed import _cpu
from seedbed._plan import Kind

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("n", [0, 1, 2, 15, 16, 17, 31, 33, 100, 200])
def test_threefry_known_answers(isa, n):
    keys, counters, expected = known_answers(n)
    out = np.zeros((n, 2), np.uint32)
    _cpu.threefry(keys, counters, out, isa)
    np.testing.assert_array_equal(out, expected)


def test_reference_known_answers():
    keys, counters, expected = known_answers()
    a, b = ref.threefry(*keys.T, *counters.T)
    np.testing.assert_array_equal(np.stack([a, b], axis=1), expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name, isa):
    check(in_sizes(name), 3, keys_of(3), isas=[isa])


@pytest.mark.parametrize("width", [32, 64])
@pytest.mark.parametrize("name", ["normal", "truncated"])
def test_normals_are_alike_on_every_isa(name, width):
    params = {"normal": NORMAL, "truncated": TRUNCATED} if width == 32 else WIDE_NORMALS
    word, real, item = f"u{width // 8}", f"f{width // 8}", width // 8
    draws = normals(params[name], width)
    check(draws, 3, keys_of(3))
    words = [Draw(ref.BITS, width, item, d.inner) for d in draws]
    values = np.array(params[name], word).view(real)
    for normal, bits in zip(run(draws, 3, keys_of(3)), run(words, 3, keys_of(3)), strict=True):
        expected = np.zeros(bits.size, real)
        _cpu.transform(values, bits.ravel(), expected)
        np.testing.assert_array_equal(normal.ravel(), expected.view(word))


@pytest.mark.parametrize("name", OF_WORD)
@pytest.mark.parametrize("kind", ref.SAMPLERS)
def test_samplers_of_a_word_are_alike_on_every_isa(kind, name):
    draws = of_word(kind, OF_WORD[name])
    check(draws, 3, keys_of(3))
    values = np.array(OF_WORD[name], np.uint32).view(np.float32)
    words = [Draw(ref.BITS, 32, 4, d.inner) for d in draws]
    for made, bits in zip(run(draws, 3, keys_of(3)), run(words, 3, keys_of(3)), strict=True):
        expected = np.zeros(bits.size, np.float32)
        _cpu.transform(values, bits.ravel(), expected, kind=kind)
        np.testing.assert_array_equal(made.ravel(), expected.view(np.uint32))


@pytest.mark.parametrize("isa", ISAS)
def test_ends_of_the_samplers_of_a_word(isa):
    """The sign of a zero, the numbers that are named in samplers.h, and one rounding at the end."""
    words = np.array([0, 1, 1 << 22, (1 << 23) - 1], np.uint32) << np.uint32(9)
    unit = (words >> np.uint32(9)) / 2.0**23
    centred = np.maximum(unit * 2 - 1 + 2.0**-24, -1 + 2.0**-24)
    expected = {
        ref.EXPONENTIAL: -np.log1p(-unit),
        ref.GUMBEL: -np.log(-np.log(np.maximum(unit, 2.0**-126))),
        ref.LAPLACE: np.sign(centred) * np.log1p(-abs(centred)),
    }
    for kind, numbers in expected.items():
        plain, affine = np.zeros((2, 4), np.float32)
        _cpu.transform(np.array([1.0, -0.0], np.float32), words, plain, isa, kind)
        np.testing.assert_allclose(plain, numbers, rtol=3e-7)
        assert not np.signbit(plain[plain == 0]).any()
        _cpu.transform(np.array([3.0, 0.1], np.float32), words, affine, isa, kind)
        once = plain.astype(np.float64) * 3.0 + np.float64(np.float32(0.1))
        np.testing.assert_array_equal(affine, once.astype(np.float32))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("uniform")])
def test_given_words_become_what_drawn_ones_do(name, isa):
    variant = VARIANTS[name]
    item, kind = variant["itemsize"], variant["kind"]
    params = np.array(variant["params"], f"u{item}").view(f"f{item}")
    for n in SIZES:
        draws = [Draw(**variant, inner=n), Draw(ref.BITS, 8 * item, item, n)]
        drawn, bits = run(draws, 3, keys_of(3), isa=isa)
        made = np.zeros(bits.size, f"f{item}")
        _cpu.transform(params, bits.ravel(), made, isa, kind)
        np.testing.assert_array_equal(made.view(f"u{item}"), drawn.ravel())


@pytest.mark.parametrize("kind", [-1, len(Kind), ref.KEY, ref.BERNOULLI, ref.RANDINT, ref.CONSTANT])
def test_kinds_that_make_no_floats_are_refused(kind):
    out = np.zeros(3, np.float32)
    with pytest.raises(ValueError, match="kind"):
        _cpu.transform(np.zeros(0, np.float32), np.zeros(3, np.uint32), out, kind=kind)


def test_rows_of_a_batch():
    check(ROWS, 5, keys_of(5))


def test_deep_chain_of_keys():
    chain, draws = (), []
    for i in range(1500):  # key, sub = split(key): 2 nodes a draw, not 1500
        draws.append(Draw(ref.BITS, 32, 4, 2, prefix=chain, levels=((1, ()),)))
        chain = (*chain, 0)
        if i % 300:
            draws.pop()
    draws.append(Draw(ref.KEY, 32, 4, prefix=chain))
    draws.append(Draw(ref.KEY, 32, 4, levels=tuple((index, ()) for index in chain)))
    check(draws, 20, keys_of(20), isas=ISAS[:1])


def test_range_and_indices():
    for keys in KEYS:
        check(KEYED, **keys)


@pytest.mark.parametrize("name", COUNTED)
def test_counters_beyond_32_bits(name):
    check(beyond(name), 4, keys_of(4))


def test_nothing_to_do():
    check(EMPTY, 3, keys_of(3))
    check([], 3, keys_of(3))
    for mode in (ref.MEMBER_KEYS, ref.RANGE, ref.INDICES):
        check(KEYED, 0, np.zeros((0, 2), np.uint32), np.zeros((0, 2), np.uint32), mode=mode)
    check(KEYED, 0, keys_of(2), np.zeros((2, 2), np.uint32), mode=ref.RANGE)


def test_threads_agree():
    draws = [
        Draw(ref.NORMAL, 32, 4, 70_001, params=NORMAL, levels=((1, ()), (2, ()))),
        Draw(ref.BITS, 8, 1, 1_000_003, levels=((1, ()), (3, ()))),
        Draw(ref.BITS, 64, 8, 11, dims=(1000,), levels=((0, (1,)),)),
        Draw(ref.KEY, 32, 4),
        Draw(**VARIANTS["randint64_1_8"], inner=999),
    ]
    one = run(draws, 9, keys_of(9))
    for threads in (2, 3, 8):
        for a, b in zip(one, run(draws, 9, keys_of(9), threads=threads, shift=0), strict=True):
            np.testing.assert_array_equal(a, b)


@hypothesis.given(random_draws(), st.integers(0, 5), st.integers(1, 3))
def test_random_plans(draws, size, threads):
    check(draws, size, keys_of(size), threads=threads)


# Malformed input: always ValueError, never a crash, nothing written.

GOOD = [
    Draw(ref.BITS, 32, 4, 3, levels=((1, ()),)),
    Draw(**VARIANTS["table8_2"], inner=3, dims=(2,), levels=((0, (1,)),)),
    Draw(ref.NORMAL, 32, 4, 5, params=NORMAL, prefix=(3, 2**40)),
]


def attempt(words, size=2):
    """Runs what may be malformed; whether it was accepted."""
    outputs = [np.zeros(size * d.batch * d.row_items, f"u{d.itemsize}") for d in GOOD]
    try:
        _cpu.run_plan(words, 0, size, keys_of(size), np.zeros(2, np.uint32), outputs)
    except ValueError as error:
        assert str(error)
        assert not any(output.any() for output in outputs)
        return False
    return True


def test_truncated_plans():
    words = ref.encode(GOOD)
    assert attempt(words)
    for n in range(len(words)):
        assert not attempt(words[:n])
    assert not attempt(np.append(words, 0))


def test_mutated_plans():
    words = ref.encode(GOOD)
    for position in range(20):  # the header, the nodes, and the first draw's
        for value in (-(2**63), -1, 0, 1, 2, 3, 7, 8, 63, 64, 65, 2**31, 2**32, 2**40, 2**63 - 1):
            mutated = words.copy()
            mutated[position] = value
            # The counter of the first element, the nodes' indices, another node that exists.
            harmless = position == 13 and 0 <= value <= 2**63 - 4
            harmless |= position in (6, 8) or (position in (7, 14) and value in (0, 1, 2))
            if value != words[position] and not harmless:
                assert not attempt(mutated), (position, value)


@hypothesis.settings(max_examples=300)
@hypothesis.given(st.data())
def test_fuzzed_plans(data):
    words = ref.encode(GOOD)
    extreme = st.sampled_from([-(2**63), -1, 0, 1, 2, 8, 2**31, 2**32, 2**61, 2**62, 2**63 - 1])
    for _ in range(data.draw(st.integers(1, 3))):
        position = data.draw(st.integers(0, len(words) - 1))
        words[position] = data.draw(st.one_of(extreme, st.integers(-(2**63), 2**63 - 1)))
    attempt(words)
    prefix = [ref.MAGIC, ref.VERSION, 0, 1, 0]
    attempt(np.array(prefix + data.draw(st.lists(st.integers(0, 9), max_size=20)), np.int64))


def test_messages_name_what_is_wrong():
    words, keys, none = ref.encode(GOOD[:1]), keys_of(2), np.zeros(2, np.uint32)
    out = [np.zeros((2, 3), np.uint32)]
    wide = [np.zeros((2, 3), np.uint64)]
    cases = {
        "magic number": (words + (np.arange(len(words)) == 0), 0, 2, keys, none, out),
        "version 6": (words + (np.arange(len(words)) == 1), 0, 2, keys, none, out),
        "mode must be .* got 4": (words, 4, 2, keys, none, out),
        "size must be >= 0, got -1": (words, 0, -1, keys, none, out),
        "keys must have 6 elements, got 4": (words, 0, 3, keys, none, out),
        "members must have 4 elements, got 2": (words, 1, 2, keys, none, out),
        r"outputs\[0\] must have 6 elements, got 3": (words, 0, 2, keys, none, [out[0][0]]),
        r"outputs\[0\] must have items of 4 bytes": (words, 0, 2, keys, none, wide),
        "outputs must have 1 elements, got 0": (words, 0, 2, keys, none, []),
        "one-dimensional": (words.reshape(1, -1), 0, 2, keys, none, out),
    }
    for message, arguments in cases.items():
        with pytest.raises(ValueError, match=message):
            _cpu.run_plan(*arguments)
    with pytest.raises(ValueError, match="blocks must have 0 elements, got 2"):
        _cpu.run_plan(words, 0, 2, keys, none, out, blocks=none)
    for bad in (0, -1, 2000):
        with pytest.raises(ValueError, match=f"threads must be in .* got {bad}"):
            _cpu.run_plan(words, 0, 2, keys, none, out, threads=bad)
    read_only = out[0].copy()
    read_only.flags.writeable = False
    for wrong in (read_only, np.zeros((3, 2), np.uint32).T):
        with pytest.raises(TypeError):
            _cpu.run_plan(words, 0, 2, keys, none, [wrong])


def test_isa_by_name():
    assert _cpu.isa() in ISAS
    out = np.zeros((1, 2), np.uint32)
    with pytest.raises(ValueError, match="isa is 'sse9', but this machine runs only '"):
        _cpu.threefry(out, out, out, "sse9")
    code = "from seedbed import _cpu\ntry: print(_cpu.isa())\nexcept ValueError as e: print(e)"
    for isa in ISAS:
        assert run_python(code, SEEDBED_ISA=isa).strip() == isa
    assert "SEEDBED_ISA is 'AVX2', but" in run_python(code, SEEDBED_ISA="AVX2")


def test_build():
    path = Path(_cpu.__file__)
    if sys.version_info >= (3, 12):
        assert path.name.endswith(".abi3.so")
    assert _cpu.plan_version() == ref.VERSION


def test_kernel_objects_export_one_symbol():
    # Anything else shared could make the linker pick code that this machine cannot run.
    roots = [os.environ.get("SEEDBED_BUILD_DIR"), ROOT / "build"]
    objects = [p for root in roots if root for p in Path(root).rglob("kernels_*.dir/**/*.o")]
    if not objects:
        pytest.skip("no kernel objects in build/ or $SEEDBED_BUILD_DIR")
    for path in objects:
        command = ["nm", "--defined-only", "--extern-only", str(path)]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        symbols = [line.split()[-1] for line in lines.splitlines() if line]
        assert len(symbols) == 1 and symbols[0].endswith("5tableE"), (path, symbols)
