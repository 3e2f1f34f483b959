"""The custom call `seedbed_threefry_v1`: broadcasting, threads, and what it refuses."""

from __future__ import annotations

import concurrent.futures

import jax
import numpy as np
import pytest

import plan_reference as ref
from helpers import ROOT, assert_same_bits
from seedbed._run import native

if native.load()[0] is None:
    pytest.skip(native.load()[1], allow_module_level=True)
pytestmark = pytest.mark.usefixtures("native")


def cipher(*operands, results=None):
    shape = np.broadcast_shapes(*(np.shape(operand) for operand in operands))
    results = results or [jax.ShapeDtypeStruct(shape, np.uint32)] * 2
    return jax.jit(jax.ffi.ffi_call(native.CIPHER_TARGET, results))(*operands)


def operands_of(*shapes, seed=0):
    random = np.random.default_rng(seed)
    return [random.integers(0, 2**32, shape, np.uint32) for shape in shapes]


def check(*operands):
    expected = ref.threefry(*np.broadcast_arrays(*operands))
    assert_same_bits(cipher(*operands), [np.asarray(x) for x in expected])


def test_known_answers():
    lines = (ROOT / "tests/support/kat/threefry2x32_20.txt").read_text().splitlines()
    rows = [[int(word, 16) for word in line.split()] for line in lines if line[0] != "#"]
    k0, k1, c0, c1, first, second = np.array(rows, np.uint32).T
    assert_same_bits(cipher(k0, k1, c0, c1), [first, second])


SHAPES = [
    ((), (), (), ()),
    ((1,), (), (1,), (1,)),
    ((), (), (33,), (33,)),
    ((33,), (33,), (), ()),
    ((1,), (1,), (2049,), ()),
    ((5, 1), (5, 1), (1, 7), (1, 7)),
    ((5, 7), (), (1, 7), (5, 1)),
    ((1, 3, 1, 4), (2, 1, 5, 1), (2, 3, 5, 4), (1, 1, 1, 1)),
    ((600, 1), (600, 1), (1, 3), (1, 3)),
    ((2, 1, 700), (2, 1, 700), (1, 3, 1), (2, 3, 700)),
    ((0,), (), (1,), (0,)),
    ((3, 0), (3, 1), (1, 1), ()),
]


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
def test_broadcasting(shapes):
    check(*operands_of(*shapes))


@pytest.mark.parametrize("n", [1, 7, 15, 16, 17, 31, 33, 1023, 1024, 1025, 32769])
def test_sizes(n):
    check(*operands_of((), (), (n,), (n,), seed=n))


def test_many_threads_and_concurrent_calls():
    operands = operands_of((300, 1), (300, 1), (1, 2000), (300, 2000))
    expected = [np.asarray(x) for x in ref.threefry(*np.broadcast_arrays(*operands))]
    results = [jax.ShapeDtypeStruct(got.shape, np.uint32) for got in expected]
    call = jax.jit(jax.ffi.ffi_call(native.CIPHER_TARGET, results))  # one program, many calls
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda _: call(*operands), range(8)):
            assert_same_bits(got, expected)


WORDS = jax.ShapeDtypeStruct((6,), np.uint32)
BAD = {
    r"operand `k1` must be of type U32, got S32\[6\]": dict(k1=np.zeros(6, np.int32)),
    r"operand `c0` must have no dims or 1, got 2": dict(c0=np.zeros((1, 6), np.uint32)),
    r"dim 0 of operand `c1` must be 1 or 6, got 3": dict(c1=np.zeros(3, np.uint32)),
    r"dim 0 of operand `k0` must be 1 or 6, got 0": dict(k0=np.zeros(0, np.uint32)),
    r"result 0 must be of type U32, got F32\[6\]": dict(
        results=[jax.ShapeDtypeStruct((6,), np.float32), WORDS]
    ),
    r"must have one shape, got U32\[6\] and U32\[6,1\]": dict(
        results=[WORDS, jax.ShapeDtypeStruct((6, 1), np.uint32)]
    ),
    "Wrong number of results": dict(results=[WORDS]),
    "Wrong number of arguments": dict(extra=np.zeros(6, np.uint32)),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_calls(message):
    bad = dict(BAD[message])
    results = bad.pop("results", [WORDS, WORDS])
    operands = {name: np.zeros(6, np.uint32) for name in ("k0", "k1", "c0", "c1")} | bad
    call = jax.jit(jax.ffi.ffi_call(native.CIPHER_TARGET, results))
    with pytest.raises(jax.errors.JaxRuntimeError, match=f"INVALID_ARGUMENT(.|\n)*{message}"):
        jax.block_until_ready(call(*operands.values()))
