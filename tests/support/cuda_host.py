"""The CUDA kernel compiled for the host (tests/native/cuda_host.cc), and how GPUs round floats."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest

import plan_reference as ref
from plan_reference import Draw

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    "tests/native/cuda_host.cc",
    *("csrc/plan.cc", "csrc/call.cc"),
    *(f"csrc/cuda/{name}.cc" for name in ("device_draw", "folds", "schedule")),
)


@functools.cache
def library() -> ctypes.CDLL:
    """The library, compiled once a process; skips the test where there is no compiler."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        if os.environ.get("SEEDBED_REQUIRE_NATIVE") == "1":
            pytest.fail("SEEDBED_REQUIRE_NATIVE=1, but there is no C++ compiler")
        pytest.skip("needs a C++ compiler")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cuda_host.so"
        flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-fPIC", "-shared", "-w", "-Icsrc"]
        subprocess.run([compiler, *flags, *SOURCES, "-o", str(path)], cwd=ROOT, check=True)
        loaded = ctypes.CDLL(str(path))
    loaded.cuda_host_of_word.restype = ctypes.c_bool
    loaded.cuda_host_run.restype = loaded.cuda_host_launches.restype = ctypes.c_int64
    return loaded


def _pointer(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def run(
    draws: list[Draw],
    size: int,
    keys: np.ndarray,
    members: np.ndarray | None = None,
    *,
    mode: int = ref.MEMBER_KEYS,
    blocks: int = 8,
    seed: int = 0,
    shift: int = 0,
    shared: bool = False,
    counts: tuple[int, ...] = (),
    numbers: np.ndarray | None = None,
) -> tuple[list[np.ndarray], int]:
    """The draws of all members, and the number of launches; a ValueError says what failed.

    Args:
        blocks: that the device is to run at a time.
        seed: orders the tiles, and the items of each phase of one; 0 leaves them in order.
        shift: items by which the outputs miss an aligned address.
        shared: all draws get one buffer, so that it is written more than once.
        counts, numbers: how many blocks there are by word of that operand, and the operand.
    """
    keys = np.ascontiguousarray(keys, np.uint32)
    groups = keys.size // 2 // (size if mode == ref.MEMBER_KEYS else 1) if keys.size else 0
    members = np.zeros((groups, 2), np.uint32) if members is None else members
    members = np.ascontiguousarray(members, np.uint32)
    arenas, outputs = [], []
    for d in draws:
        count = groups * size * d.batch * d.row_items
        arena = np.full(count * d.itemsize + 64, 0xA5, np.uint8)
        start = -arena.ctypes.data % 16 + shift * d.itemsize * (2 if d.kind == ref.KEY else 1)
        arenas.append(arena)
        outputs.append(arena[start : start + count * d.itemsize])
    places = [outputs[0] if shared else output for output in outputs]
    pointers = (ctypes.c_void_p * (len(draws) + 1))(*[place.ctypes.data for place in places])
    numbers = np.zeros(len(counts), np.uint32) if numbers is None else numbers
    words, message = ref.encode(draws, counts), ctypes.create_string_buffer(500)
    launches = library().cuda_host_run(
        *(_pointer(words), ctypes.c_uint64(len(words)), ctypes.c_int64(mode)),
        *(ctypes.c_uint64(groups), ctypes.c_uint64(size), _pointer(keys), _pointer(members)),
        *(_pointer(numbers), pointers, ctypes.c_uint64(blocks), ctypes.c_uint64(seed)),
        *(message, ctypes.c_uint64(len(message))),
    )
    if launches < 0:
        raise ValueError(message.value.decode())
    return [
        output.view(f"u{d.itemsize}").reshape(groups * size * d.batch, d.row_items)
        for d, output in zip(draws, outputs, strict=True)
    ], launches


def launches(draws: list[Draw], size: int) -> int:
    """How many launches make the draws; nothing is allocated."""
    words, message = ref.encode(draws), ctypes.create_string_buffer(500)
    found = library().cuda_host_launches(
        *(_pointer(words), ctypes.c_uint64(len(words)), ctypes.c_uint64(size)),
        *(message, ctypes.c_uint64(len(message))),
    )
    if found < 0:
        raise ValueError(message.value.decode())
    return found


def threefry(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    out = np.zeros_like(keys)
    library().cuda_host_threefry(
        ctypes.c_uint64(len(keys)), _pointer(keys), _pointer(counters), _pointer(out)
    )
    return out


def transform(params: tuple[int, ...], words: np.ndarray) -> np.ndarray:
    """The normals that the kernel makes of given words."""
    values, out = np.array(params, np.uint32), np.zeros(words.size, np.float32)
    library().cuda_host_transform(
        _pointer(values), ctypes.c_uint64(words.size), _pointer(words), _pointer(out)
    )
    return out


def of_word(kind: int, params: tuple[int, ...], words: np.ndarray) -> np.ndarray:
    """What the kernel makes of given words, for a sampler that is made of a word alone."""
    values, out = np.array(params, np.uint32), np.zeros(words.size, np.float32)
    made = library().cuda_host_of_word(
        *(ctypes.c_int64(kind), _pointer(values), ctypes.c_uint64(words.size)),
        *(_pointer(words), _pointer(out)),
    )
    assert made
    return out


# --- what XLA computes on a GPU: a * b + c is rounded twice there ---------------------------------


def sample(draw: Draw, keys: np.ndarray) -> np.ndarray:
    """One draw's output, as unsigned integers [rows, row_items]."""
    if draw.kind not in (ref.UNIFORM, ref.NORMAL, ref.BERNOULLI, *ref.SAMPLERS):
        return ref.sample(draw, keys)
    words = ref.integers(draw, keys)
    return floats(draw, words if draw.word_bits == 64 else words.astype(np.uint32))


def floats(draw: Draw, words: np.ndarray) -> np.ndarray:
    """What a draw of floats, or one that compares them, makes of its words; as `sample`."""
    params = np.array(draw.params, words.dtype).view(f"f{words.itemsize}")
    if draw.kind == ref.NORMAL:
        return normal(params, words).view(np.uint32)
    if draw.kind in ref.SAMPLERS:
        return (_OF_WORD[draw.kind](words) * params[0] + params[1]).view(np.uint32)
    made = uniform(params, words)
    if draw.kind == ref.BERNOULLI:
        return (made < params[2]).astype(np.uint8)
    return (made * params[2] + params[3]).view(f"u{draw.itemsize}")


def uniform(params: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Numbers from lo to lo + span for words of the same width; ``params`` starts with the two."""
    if words.dtype == np.uint64:
        unit = ((words >> np.uint64(12)) | np.uint64(0x3FF0000000000000)).view(np.float64) - 1.0
    else:
        unit = ((words >> np.uint32(9)) | np.uint32(0x3F800000)).view(np.float32) - np.float32(1)
    return np.maximum(unit * params[0] + params[1], params[1])


def normal(params: np.ndarray, words: np.ndarray) -> np.ndarray:
    """``params``: span, lo, factor, bounds of the clip, factor and summand after it."""
    made = erf_inv(uniform(params, words)) * params[2]
    made = np.minimum(np.maximum(made, params[3]), params[4])
    return made * params[5] + params[6]


_CENTRE = (
    *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087),
    *(-0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAIL = (
    *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773),
    *(-0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)
_LOG1P = (
    *(-0.0453486145, 0.105468884, -0.132297039, 0.144914463, -0.166415647),
    *(0.199888676, -0.250001967, 0.333335102, -0.5),
)
_LOG = (
    *(-0.130188569, 0.140846103, -0.121486276, 0.139806107, -0.166842356),
    *(0.200122997, -0.249996692, 0.333331823, -0.5),
)


def erf_inv(x: np.ndarray) -> np.ndarray:
    """XLA's sequence on GPUs, one rounding an operation; the square root is rounded correctly here,
    where a GPU has one of its own."""
    f32 = np.float32
    with np.errstate(all="ignore"):
        log = log1p(-(x * x))
        central = log > f32(-5)
        t = np.where(central, f32(-2.5) - log, np.sqrt(-log) - f32(3))
        p = np.where(central, f32(_CENTRE[0]), f32(_TAIL[0]))
        for centre, tail in zip(_CENTRE[1:], _TAIL[1:], strict=True):
            p = p * t + np.where(central, f32(centre), f32(tail))
        return x * np.where(np.abs(x) == 1, f32(np.inf), p)


def log1p(x: np.ndarray) -> np.ndarray:
    """log(1 + x) for -1 < x <= 0 as CUDA's libdevice computes it."""
    f32 = np.float32
    one = _toward_zero(x.astype(np.float64) + 1.0)  # exact but for bits that do not matter
    shift = (one.view(np.uint32) - np.uint32(0x3F400000)) & np.uint32(0xFF800000)
    power = (np.uint32(0x40800000) - shift).view(f32)
    m = _fused(f32(0.25), power, f32(-1)) + (x.view(np.uint32) - shift).view(f32)
    e = shift.view(np.int32).astype(f32) * f32(2.0**-23)
    p = np.full_like(m, _LOG1P[0])
    for coefficient in _LOG1P[1:]:
        p = _fused(p, m, f32(coefficient))
    return _fused(e, f32(0.693147182), _fused(m * p, m, m))


def log(x: np.ndarray) -> np.ndarray:
    """log(x) for positive normal x as CUDA's libdevice computes it."""
    f32 = np.float32
    shift = (x.view(np.uint32) - np.uint32(0x3F2AAAAB)) & np.uint32(0xFF800000)
    m = (x.view(np.uint32) - shift).view(f32) - f32(1)
    e = shift.view(np.int32).astype(f32) * f32(2.0**-23)
    p = np.full_like(m, _LOG[0])
    for coefficient in _LOG[1:]:
        p = _fused(p, m, f32(coefficient))
    return _fused(e, f32(0.693147182), _fused(m * p, m, m))


def exponential(words: np.ndarray) -> np.ndarray:
    return np.float32(0) - log1p(-uniform(_UNIT, words))


def gumbel(words: np.ndarray) -> np.ndarray:
    tiny = np.float32(2.0**-126)
    return -log(-log(np.maximum(uniform(_UNIT, words), tiny)))


def laplace(words: np.ndarray) -> np.ndarray:
    x = uniform(np.float32([2.0, 2.0**-24 - 1]), words)
    return np.sign(x) * log1p(-np.abs(x))


_UNIT = np.float32([1.0, 0.0])
_OF_WORD = {ref.EXPONENTIAL: exponential, ref.GUMBEL: gumbel, ref.LAPLACE: laplace}


def _toward_zero(x: np.ndarray) -> np.ndarray:
    near = x.astype(np.float32)
    return np.where(np.abs(near) > np.abs(x), np.nextafter(near, np.float32(0)), near)


def _fused(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a * b + c with one rounding: the sum is first rounded to odd in double precision."""
    product, c = a.astype(np.float64) * b, np.asarray(c, np.float64)
    total = product + c
    back = total - product
    error = (product - (total - back)) + (c - back)
    even = (total.view(np.uint64) & np.uint64(1)) == 0
    toward = np.where(error > 0, np.inf, -np.inf)
    return np.where((error != 0) & even, np.nextafter(total, toward), total).astype(np.float32)
