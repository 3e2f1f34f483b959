"""Looks at the machine code of the CUDA kernel: registers, spills, stores, what the loops cost.

    python tools/sass.py PATH/_cuda*.so [--json FILE] [--cuobjdump PROGRAM]

Fails if any architecture's code has more than 64 registers (four blocks of a multiprocessor would
no longer fit), keeps registers in memory, or does not store 16 bytes at a time. For each of the
main loops, prints the instructions of an element by pipe: `alu` is that of integer logic, shifts
and comparisons, `imad` that of integer multiplications, which does additions too, `fma` all of
floating point and `imad` with it, `issue` everything. benchmarks/gpu/device.py has their rates.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections import Counter
from typing import Any

MAX_REGISTERS = 64
# Pipes by opcode; what is not here issues but occupies neither.
_ALU = (
    "LOP3 SHF IADD3 IADD VIADD ISETP SEL PRMT LEA "
    "FSETP FSEL FMNMX VIADDMNMX VIMNMX PLOP3 IMNMX".split()
)
_FMA = "IMAD FFMA FMUL FADD MOV".split()


def loops(sass: str) -> list[dict[str, Any]]:
    """The innermost loops of one function that store to global memory, in order."""
    code = [
        (int(at, 16), text.strip())
        for at, text in re.findall(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?);", sass, re.MULTILINE)
    ]
    ends = []
    for at, text in code:
        jump = re.search(r"\bBRA\b.*?(0x[0-9a-f]+)", text)
        if jump and int(jump[1], 16) < at:
            ends.append((int(jump[1], 16), at))
    innermost = [
        (first, last)
        for first, last in ends
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in ends)
    ]
    found = []
    for first, last in sorted(innermost):
        body = [text for at, text in code if first <= at <= last]
        stores = [op for text in body if (op := _opcode(text)).startswith("STG")]
        if stores:
            found.append({"at": first, "stores": stores, **_cost(body)})
    return found


def _opcode(text: str) -> str:
    words = [word for word in text.split() if not word.startswith("@")]
    return words[0]


def _cost(body: list[str]) -> dict[str, Any]:
    names = Counter(_opcode(text).split(".")[0] for text in body)
    return {
        "instructions": len(body),
        "ciphers": names["LOP3"] // 20,  # every round has one exclusive or
        "alu": sum(names[name] for name in _ALU),
        "imad": names["IMAD"],
        "fma": sum(names[name] for name in _FMA),
        "float": sum(names[name] for name in ("FADD", "FMUL", "FFMA")),
        "roots": names["MUFU"],
        "double": sum(names[name] for name in ("DADD", "DMUL", "DFMA")),
    }


def _wide_elements(loop: dict[str, Any]) -> int:
    """Elements of 4 bytes that a round of the loop stores 16 bytes at a time."""
    return 4 * sum(store.startswith("STG.E.128") for store in loop["stores"])


def main_loops(sass: str) -> dict[str, dict[str, float]]:
    """Costs of an element of float32 and 32-bit draws: those that store 4 elements at a time."""
    wide = [
        loop
        for loop in loops(sass)
        if (elements := _wide_elements(loop)) <= loop["ciphers"] < 2 * elements
        and not loop["double"]
    ]
    wide.sort(key=lambda loop: (loop["float"], loop["instructions"]))
    named = {}
    for loop in wide:
        elements, floats = _wide_elements(loop), loop["float"]
        kind = "bits" if not floats else "uniform" if floats <= elements else None
        # Other samplers take no square root.
        kind = kind or ("normal" if floats > 10 * elements and loop["roots"] else None)
        if kind and kind not in named:
            named[kind] = {
                "alu": loop["alu"] / elements,
                "imad": loop["imad"] / elements,
                "fma": loop["fma"] / elements,
                "issue": loop["instructions"] / elements,
            }
    return named


def usage(text: str) -> dict[str, dict[str, int]]:
    """Registers and bytes of stack by architecture, from cuobjdump's resource usage."""
    found, arch = {}, ""
    for line in text.splitlines():
        if match := re.search(r"arch = (sm_\w+)", line):
            arch = match[1]
        if match := re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", line):
            found[arch] = {"registers": int(match[1]), "memory": int(match[2]) + int(match[3])}
    return found


def problems(resources: dict[str, dict[str, int]], codes: dict[str, str]) -> list[str]:
    """What is wrong with the code of each architecture, in sentences."""
    wrong = []
    for arch, used in resources.items():
        if used["registers"] > MAX_REGISTERS:
            wrong.append(f"{arch}: {used['registers']} registers, not {MAX_REGISTERS} at most")
        if used["memory"]:
            wrong.append(f"{arch}: {used['memory']} bytes of registers or arrays in memory")
    for arch, code in codes.items():
        if re.search(r"\b(LDL|STL)\b", code):
            wrong.append(f"{arch}: registers are kept in memory (LDL, STL)")
        if "STG.E.128" not in code:
            wrong.append(f"{arch}: no stores of 16 bytes")
        if arch not in resources:
            wrong.append(f"{arch}: no resource usage was found")
    return wrong or ([] if codes else ["no machine code was found"])


def split_by_architecture(sass: str) -> dict[str, str]:
    parts = re.split(r"^\s*arch = (sm_\w+)\s*$", sass, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library")
    parser.add_argument("--json", help="write the costs of the main loops, by architecture")
    parser.add_argument("--cuobjdump", default="cuobjdump")
    args = parser.parse_args()

    def run(option: str) -> str:
        command = [args.cuobjdump, option, args.library]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    resources, codes = usage(run("-res-usage")), split_by_architecture(run("-sass"))
    costs = {arch: main_loops(code) for arch, code in codes.items()}
    for arch, used in resources.items():
        print(f"{arch}: {used['registers']} registers, {used['memory']} bytes in memory")
        for name, cost in costs.get(arch, {}).items():
            print(f"  {name}: {', '.join(f'{pipe} {n:.1f}' for pipe, n in cost.items())}")
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(costs, file, indent=1)
    wrong = problems(resources, codes)
    for problem in wrong:
        print(f"WRONG: {problem}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
