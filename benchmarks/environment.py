"""What a result has to say about the machine and the software it was measured on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

PACKAGES = (
    *("seedbed", "jax", "jaxlib", "numpy", "torch"),
    *("equinox", "flax", "dm-haiku", "brainstate"),
    *("orbax-checkpoint", "tensorstore", "zarr"),
)
# Variables that change what is measured.
_VARIABLES = ("XLA_FLAGS", "GLIBC_TUNABLES", "OMP_NUM_THREADS", "MALLOC_ARENA_MAX")
_PREFIXES = ("JAX_", "SEEDBED_")
_FLAGS = ("sse2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "asimd")


def describe() -> dict[str, Any]:
    """The environment now, as plain data."""
    cpu = _cpu()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": cpu["model"],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "isa": cpu["flags"],
        "memory_gib": _memory_gib(),
        "huge_pages": _huge_pages(),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "variables": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in _VARIABLES or name.startswith(_PREFIXES)
        },
        "load": load(),
    }


def load() -> float | None:
    """Mean number of processes that wanted to run over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> dict[str, Any]:
    lines = _read("/proc/cpuinfo").splitlines()
    table = {name.strip(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    flags = table.get("flags", table.get("Features", "")).split()
    model = table.get("model name") or platform.processor() or platform.machine()
    return {"model": model, "flags": [flag for flag in _FLAGS if flag in flags]}


def _memory_gib() -> float | None:
    line = _read("/proc/meminfo").partition("\n")[0].split()
    return round(int(line[1]) / (1 << 20), 1) if len(line) > 1 else None


def _huge_pages() -> str | None:
    """The chosen one of ``always [madvise] never``."""
    return _read("/sys/kernel/mm/transparent_hugepage/enabled").partition("[")[2].partition("]")[0]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
