"""Counts the instructions of the CPU kernels under valgrind and holds them to stored counts.

    python tools/instructions.py            compare; status 1 if a kernel needs over 3 % more
    python tools/instructions.py --update   store this compiler's counts

Times are noise on a shared machine; counts are the same on every run. They depend on the compiler,
so ``tests/support/data/instructions.json`` has a set for each; a compiler without one is compared
with the nearest set and may differ by 25 %. The kernels are compiled with the flags of
CMakeLists.txt, for the instruction sets that valgrind knows (not AVX-512, whose source is the
same). Without valgrind or a compiler nothing is counted, which is said, and the status is 0.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.roofline import kernel_flags  # noqa: E402

STORED = ROOT / "tests/support/data/instructions.json"
DRAWS = 1 << 14  # of every call in instructions.cc
SAME, OTHER = 1.03, 1.25  # what is allowed beside counts of the same compiler, and of another

# {instruction set: {kernel: instructions a draw}}
Counts = dict[str, dict[str, float]]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="store the counts of this compiler")
    options = parser.parse_args(arguments)
    compiler = kernel_flags.compiler()
    missing = [name for name in ("valgrind", compiler[0]) if shutil.which(name) is None]
    if missing:
        print(f"instructions: not counted, there is no {' and no '.join(missing)} here")
        return 0
    name = compiler_name(compiler)
    stored = json.loads(STORED.read_text()) if STORED.exists() else {}
    try:
        counts = measure(compiler)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        detail = getattr(error, "stderr", None) or error
        print(f"instructions: cannot be counted: {str(detail).strip()}", file=sys.stderr)
        return 1
    if options.update:
        stored[name] = counts
        STORED.parent.mkdir(exist_ok=True)
        STORED.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n")
        print(f"instructions: stored those of {name} in {STORED.relative_to(ROOT)}")
        return 0
    lines, good = compare(counts, stored, name)
    print("\n".join(lines))
    return 0 if good else 1


def compare(counts: Counts, stored: dict[str, Counts], name: str) -> tuple[list[str], bool]:
    """A line for each kernel beside its stored count, and whether all are within bounds.

    Args:
        counts: as measured with the compiler `name`.
        stored: counts by compiler.
    """
    other = nearest(name, stored)
    if other is None:
        return [f"instructions: there are no stored counts for {name}; --update stores some"], True
    allowed = SAME if other == name else OTHER
    lines = []
    if other != name:
        lines.append(
            f"instructions: there is no stored count for {name}, so {allowed - 1:.0%} beside "
            f"{other} is allowed; --update stores one"
        )
    over = 0
    for isa, kernels in counts.items():
        for kernel, count in kernels.items():
            before = stored[other].get(isa, {}).get(kernel)
            if before is None:
                lines.append(f"{isa:9} {kernel:20} {count:8.3f}   not stored")
                over += other == name
                continue
            change = count / before
            verdict = "TOO MANY" if change > allowed else ""
            over += change > allowed
            text = f"{isa:9} {kernel:20} {count:8.3f}   stored {before:8.3f}   {change - 1:+7.1%}"
            lines.append(f"{text}   {verdict}".rstrip())
    if over:
        lines.append(
            f"instructions: {over} beyond {allowed - 1:.0%} of those of {other}, or new. If that "
            "is meant, and times are better for it: python tools/instructions.py --update"
        )
    return lines, not over


def nearest(name: str, stored: Iterable[str]) -> str | None:
    """The stored compiler to compare with: this one, else this one's next version, else any.

    Names are ``compiler version machine``; counts of another machine say nothing.
    """
    compiler, version, machine = name.split()
    near = []
    for other in stored:
        its_compiler, its_version, its_machine = other.split()
        if its_machine == machine:
            near.append((its_compiler != compiler, abs(int(its_version) - int(version)), other))
    return min(near)[2] if near else None


def compiler_name(compiler: list[str]) -> str:
    """Compiler, major version and machine, as in ``gcc 12 x86_64``."""
    macros = kernel_flags.macros(compiler)
    family = "clang" if "__clang__" in macros else "gcc"
    major = macros["__clang_major__" if family == "clang" else "__GNUC__"]
    return f"{family} {major} {platform.machine()}"


def measure(compiler: list[str]) -> Counts:
    """Compiles and counts, for every instruction set that valgrind can run."""
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for isa, flags in kernel_flags.by_isa(compiler).items():
            if isa == "avx512":
                continue
            program = Path(folder) / isa
            sources = [ROOT / "csrc" / "cpu" / "kernels.cc", ROOT / "tools" / "instructions.cc"]
            options = [*flags, "-w", f"-I{ROOT / 'csrc'}"]
            _run([*compiler, *options, *map(str, sources), "-o", str(program)])
            counts[isa] = dict(_count(program))
    return counts


def _count(program: Path) -> Iterator[tuple[str, float]]:
    """Kernels and their instructions a draw."""
    out = program.with_suffix(".out")
    _run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", str(program)])
    for path in sorted(out.parent.glob(f"{out.name}.*"), key=lambda path: int(path.suffix[1:])):
        text = path.read_text()
        name = re.search(r"^desc: Trigger: Client Request: (.*)$", text, re.MULTILINE)
        total = re.search(r"^(?:summary|totals): (\d+)$", text, re.MULTILINE)
        if name and total:
            yield name[1], round(int(total[1]) / DRAWS, 4)


def _run(command: list[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
