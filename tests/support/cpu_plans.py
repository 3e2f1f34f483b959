"""Plans run by the native CPU extension, and held to what they must produce."""

from __future__ import annotations

import importlib.util
import os

import numpy as np
import pytest

import plan_reference as ref

if importlib.util.find_spec("seedbed._cpu") is None:
    if os.environ.get("SEEDBED_REQUIRE_NATIVE") != "1":
        pytest.skip("the native extension is not built", allow_module_level=True)
from seedbed import _cpu

ISAS = _cpu.isas()
CANARY = 0xA5


def run(
    draws,
    size,
    keys,
    members=None,
    *,
    mode=ref.MEMBER_KEYS,
    isa=None,
    threads=1,
    shift=1,
    counts=(),
    numbers=None,
):
    """Runs a plan into misaligned, poisoned memory; checks that nothing around it is touched."""
    keys = np.ascontiguousarray(keys, np.uint32)
    groups = keys.size // 2 // (size if mode == ref.MEMBER_KEYS else 1) if keys.size else 0
    members = np.zeros((groups, 2), np.uint32) if members is None else members
    arenas, outputs = [], []
    for d in draws:
        count = groups * size * d.batch * d.row_items
        arena = np.full(count * d.itemsize + 256, CANARY, np.uint8)
        inside = arena[128 + shift : 128 + shift + count * d.itemsize]
        arenas.append(arena)
        outputs.append(inside.view(f"u{d.itemsize}"))
    words = ref.encode(draws, counts)
    _cpu.run_plan(words, mode, size, keys, members, outputs, isa, threads, numbers)
    for arena, output in zip(arenas, outputs, strict=True):
        assert (arena[: 128 + shift] == CANARY).all(), "written before the buffer"
        assert (arena[128 + shift + output.nbytes :] == CANARY).all(), "written after the buffer"
    return [
        output.copy().reshape(groups * size * d.batch, d.row_items)
        for d, output in zip(draws, outputs, strict=True)
    ]


def check(draws, size, keys, members=None, *, mode=ref.MEMBER_KEYS, isas=ISAS, **kwargs):
    """Every instruction set against the reference; normals and the like among themselves."""
    blank = np.zeros(2, np.uint32)
    member = ref.member_keys(mode, size, keys, blank if members is None else members)
    results = [run(draws, size, keys, members, mode=mode, isa=isa, **kwargs) for isa in isas]
    for index, d in enumerate(draws):
        expected = results[0][index]
        if d.kind not in (ref.NORMAL, *ref.SAMPLERS):
            block = ref.placed(d, kwargs.get("numbers", ()))
            expected = ref.sample(block, ref.row_keys(block, member))
        for isa, result in zip(isas, results, strict=True):
            np.testing.assert_array_equal(result[index], expected, f"draw {index}: {d} on {isa}")
