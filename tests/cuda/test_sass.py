"""What tools/sass.py sees in machine code, and that its checks can fail."""

from __future__ import annotations

import pytest

from helpers import load_tool

pytestmark = pytest.mark.end("newest")

sass = load_tool("sass")

GOOD = {"sm_90": {"registers": 64, "memory": 0}}
STORE = "STG.E.128 desc[UR4][R2.64], R8 ;"


def code(*instructions: str) -> str:
    """Lines as cuobjdump prints them, 16 bytes an instruction from address 0x10 on."""
    lines = [
        f"        /*{16 * i:04x}*/                   {text}" for i, text in enumerate(instructions)
    ]
    return "\n".join(lines)


def loop(rounds: int, floats: int = 0, *others: str) -> str:
    body = ["SHF.L.W.U32.HI R1, R2, 0xd, R2 ;", "LOP3.LUT R1, R1, R3, RZ, 0x3c, !PT ;"] * rounds
    body += ["FADD R1, R1, -1 ;"] * floats
    return code("MOV R0, RZ ;", *body, *others, STORE, "@!P0 BRA 0x10 ;", "EXIT ;")


def test_what_a_loop_costs():
    assert sass.main_loops(loop(80)) == {
        "bits": {"alu": 40.0, "imad": 0.0, "fma": 0.0, "issue": 40.5}
    }
    assert sass.main_loops(loop(80, 4)) == {
        "uniform": {"alu": 40.0, "imad": 0.0, "fma": 1.0, "issue": 41.5}
    }
    assert set(sass.main_loops(loop(80, 50, "MUFU.SQRT R1, R1 ;"))) == {"normal"}
    assert sass.main_loops(loop(80, 50)) == {}  # another sampler
    assert sass.main_loops(loop(40)) == {}  # of two ciphers: not four elements


def test_outer_loops_are_none():
    inner = loop(80).rsplit("\n", 1)[0]
    end = 16 * (inner.count("\n") + 1)
    both = f"{inner}\n    /*{end:04x}*/      BRA 0x0 ;"
    assert [one["at"] for one in sass.loops(both)] == [16]


def test_good_code():
    assert sass.problems(GOOD, {"sm_90": loop(80)}) == []


@pytest.mark.parametrize(
    ("resources", "codes", "problem"),
    [
        (
            {"sm_90": {"registers": 65, "memory": 0}},
            {"sm_90": loop(80)},
            "65 registers, not 64 at most",
        ),
        (
            {"sm_90": {"registers": 60, "memory": 16}},
            {"sm_90": loop(80)},
            "16 bytes of registers or arrays in memory",
        ),
        (GOOD, {"sm_90": loop(80) + "\n" + code("STL [R1], R2 ;")}, "kept in memory"),
        (GOOD, {"sm_90": loop(80).replace("STG.E.128", "STG.E")}, "no stores of 16 bytes"),
        ({}, {"sm_90": loop(80)}, "no resource usage"),
        (GOOD, {}, "no machine code"),
    ],
)
def test_bad_code(resources, codes, problem):
    assert any(problem in wrong for wrong in sass.problems(resources, codes))


def test_what_cuobjdump_prints():
    text = """
Fatbin elf code:
================
arch = sm_80

Resource usage:
 Common:
  GLOBAL:0
 Function fill:
  REG:64 STACK:8 SHARED:20536 LOCAL:0 CONSTANT[0]:38848 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
    assert sass.usage(text) == {"sm_80": {"registers": 64, "memory": 8}}
    parts = sass.split_by_architecture("x\n\tarch = sm_80\nA\n arch = sm_90\nB\n")
    assert {arch: part.strip() for arch, part in parts.items()} == {"sm_80": "A", "sm_90": "B"}
