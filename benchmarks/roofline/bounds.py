"""The limits of this machine, and every CPU kernel as a fraction of its own.

``python -m benchmarks roofline`` compiles ``csrc/cpu/kernels.cc`` and the programs in this folder
with the system's compiler and CMakeLists.txt's flags, runs them, and makes tables (``python -m
benchmarks.roofline`` only prints them). Bounds and kernels are timed in turns, round by round, in
thread CPU time; the least of many short samples counts. Cycles are the time of one of a long chain
of dependent additions (one cycle each on every core built so far), so they do not depend on the
clock of the day. On all threads, everything runs on every core at once and the figures are those of
one core.

**Bounds in registers.** Each is a loop that does a kernel's arithmetic on a running counter, xors
what it makes into one register, and neither loads nor stores anything but constants. It runs one
vector after the other, and with two and four of them interleaved; the fastest counts:

====================  ===============================================================
kernel                bound
====================  ===============================================================
bits, 32              cipher (one word of two is kept: partitionable threefry)
bits, 64; split       cipher and two shuffles; cipher with a key in each lane
uniform, bernoulli    cipher and conversion; and comparison
randint               two ciphers and three remainders
table                 cipher and index (the look-ups are loads)
normals               cipher + transform: both need the same ports, so times add
====================  ===============================================================

**By counting.** threefry2x32-20 makes one draw with 20 rounds of (add, rotate, xor) = 60, ten
additions of key words, two of the counter and its key, and the xor of both words:

    60 + 10 + 2 + 1 = 73 vector operations.

With AVX-512, two ports and 16 lanes, that is 73 / 2 / 16 = 2.28 cycles; rotations run on one of the
ports, 20 < 73 / 2. AVX2 has no rotation: 16 of the 20 take three operations and 4 one shuffle, so
73 + 32 = 105, and with three ports and 8 lanes 105 / 3 / 8 = 4.38 cycles; SSE2 has no such shuffle
either: 73 + 40 = 113, and 113 / 3 / 4 = 9.42. `split` uses both words and has a key in each lane:
73 - 1 + 6 operations of its key schedule = 78.

The transform of a normal is 5 operations to a uniform, 19 for log1p, 25 for log (both, and one is
selected: XLA's rule), 12 for erf_inv's central polynomial, 2 for the scale and the test for tails,
2 for a division in the shadow of the rest: 65, as the compiled loop has. That is 65 / 2 / 16 = 2.03
cycles with AVX-512. AVX2's multiply-adds, products and shifts have two ports, too: 65 / 2 / 8 =
4.06 with all on them; the others have a third, so a little less is possible. The tail of erf_inv, 1
lane of 300, is not in the loop: the kernel has that, the stores, and the change from one loop to
the other every 2,048 draws on top. SSE2 has no multiply-add: each takes some 25 operations in
double precision, and so the transform there is counted by its loop alone.

**Memory.** A buffer that was written before, by plain stores and by stores past the caches; a fresh
one from the system, in pages of 4 KiB, in huge pages (``MADV_HUGEPAGE``), and in huge pages that
``MADV_POPULATE_WRITE`` asks for at once. Nanoseconds a float32, first touch included.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from . import kernel_flags

ROOT = Path(__file__).resolve().parents[2]
# By kernel: the loops whose times add up to its bound.
BOUNDS = {
    "bits, 32": ("cipher",),
    "bits, 64": ("cipher, 64-bit words",),
    "split": ("cipher, a key a lane",),
    "uniform": ("cipher, uniform",),
    "normal": ("cipher", "transform"),
    "scaled normal": ("cipher", "transform, scaled"),
    "truncated normal": ("cipher", "transform, clipped and scaled"),
    "bernoulli": ("cipher, bernoulli",),
    "randint": ("two ciphers, randint",),
    "table": ("cipher, table index",),
}
# Vector operations, ports that take them and lanes, for the loops that the docstring counts.
COUNTED = {
    ("avx512", "cipher"): (73, 2, 16),
    ("avx512", "cipher, a key a lane"): (78, 2, 16),
    ("avx512", "transform"): (65, 2, 16),
    ("avx2", "cipher"): (105, 3, 8),
    ("avx2", "cipher, a key a lane"): (110, 3, 8),
    ("avx2", "transform"): (65, 2, 8),
    ("baseline", "cipher"): (113, 3, 4),
    ("baseline", "cipher, a key a lane"): (118, 3, 4),
}


def measure(rounds: int, megabytes: int) -> dict[str, Any]:
    """Compiles and runs the programs; the figures.

    Args:
        rounds: samples of each loop and kernel; the memory tests take a twentieth of them.
        megabytes: MiB that each memory test writes, over all threads.

    Raises:
        RuntimeError: the compiler or the program failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        program = _build(Path(folder))
        samples = json.loads(_output([str(program), str(rounds), str(megabytes)]))
    return {
        "settings": {"rounds": rounds, "megabytes": megabytes},
        "arithmetic": _arithmetic(samples),
        "memory": [
            {name: sample[name] for name in ("name", "threads", "least", "median")}
            for sample in samples
            if sample["what"] == "memory"
        ],
    }


def _build(folder: Path) -> Path:
    compiler = kernel_flags.compiler()
    sources = ROOT / "benchmarks" / "roofline"
    common = [*compiler, "-w", "-pthread", f"-I{ROOT / 'csrc'}", f"-I{sources}"]
    objects = []
    jobs = []
    for isa, flags in kernel_flags.by_isa(compiler).items():
        for source in (ROOT / "csrc" / "cpu" / "kernels.cc", sources / "bounds.cc"):
            objects.append(str(folder / f"{source.stem}_{isa}.o"))
            jobs.append([*common, *flags, "-c", str(source), "-o", objects[-1]])
    for source in (ROOT / "csrc" / "cpu" / "dispatch.cc", sources / "main.cc"):
        objects.append(str(folder / f"{source.stem}.o"))
        jobs.append([*common, "-std=c++17", "-O3", "-c", str(source), "-o", objects[-1]])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(_output, jobs))
    program = folder / "roofline"
    _output([*common, *objects, "-o", str(program)])
    return program


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    return done.stdout


def _arithmetic(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each kernel, instruction set and number of threads; cycles a draw."""
    least: dict[tuple[int, str, str], float] = {}
    for sample in samples:
        key = (sample["threads"], sample["isa"], sample["name"])
        least[key] = min(least.get(key, float("inf")), sample["least"])
    rows = []
    for (threads, isa, kernel), nanoseconds in least.items():
        if kernel not in BOUNDS:
            continue
        cycle = least[threads, "", "add"]
        loops = [least[threads, isa, f"bound: {name}"] / cycle for name in BOUNDS[kernel]]
        counts = [COUNTED.get((isa, name)) for name in BOUNDS[kernel]]
        known = [ops / ports / lanes for ops, ports, lanes in filter(None, counts)]
        rows.append(
            {
                "isa": isa,
                "threads": threads,
                "kernel": kernel,
                "ghz": 1 / cycle,
                "counted": sum(known) if len(known) == len(counts) else None,
                "loops": loops,
                "cycles": nanoseconds / cycle,
                "fraction": sum(loops) * cycle / nanoseconds,
            }
        )
    return rows
