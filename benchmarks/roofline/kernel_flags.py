"""How CMakeLists.txt compiles the kernels, for programs that compile them on their own.

Imports nothing but the standard library: `tools/instructions.py` runs without an environment.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

_CMAKE = Path(__file__).resolve().parents[2] / "CMakeLists.txt"
_ARM = ("aarch64", "arm64")


def compiler() -> list[str]:
    """The C++ compiler's command: ``CXX``, or ``c++``."""
    return shlex.split(os.environ.get("CXX", "c++"))


def macros(command: list[str]) -> dict[str, str]:
    """What a compiler defines, from which its name and version can be read."""
    preprocess = [*command, "-dM", "-E", "-x", "c++", os.devnull]
    done = subprocess.run(preprocess, check=True, capture_output=True, text=True)
    return dict(re.findall(r"#define (\S+) (.*)", done.stdout))


def by_isa(command: list[str], text: str | None = None) -> dict[str, list[str]]:
    """The kernels' flags for this compiler, by instruction set of this machine's architecture.

    Args:
        command: the compiler.
        text: of CMakeLists.txt, if not the repository's.

    Raises:
        RuntimeError: CMakeLists.txt is not written as expected any more.
    """
    text = _CMAKE.read_text(encoding="utf-8") if text is None else text
    every = re.search(r"^set\(kernel_flags ([^)]*)\)", text, re.MULTILINE)
    only_gnu = re.search(r"^set\(kernel_flags_gnu ([^)]*)\)", text, re.MULTILINE)
    hardening = re.search(r"^set\(hardening_flags ([^)]*)\)", text, re.MULTILINE)
    on_x86 = re.search(r"^set\(hardening_flags_x86 ([^)]*)\)", text, re.MULTILINE)
    isas = re.findall(r"^ *seedbed_add_kernels\((\w+)([^)]*)\)", text, re.MULTILINE)
    if None in (every, only_gnu, hardening, on_x86) or not isas:
        raise RuntimeError("the flags of the kernels are not found in CMakeLists.txt")
    gnu = only_gnu[1].split() if "__clang__" not in macros(command) else []
    arm = platform.machine() in _ARM
    hard = [*hardening[1].split(), *([] if arm else on_x86[1].split())]
    common = ["-std=c++17", "-fPIC", "-DNDEBUG", *hard, *every[1].split(), *gnu]
    return {
        isa: [*common, *more.split(), f"-DSEEDBED_ISA={isa}"]
        for isa, more in isas
        if (isa == "neon") == arm
    }
