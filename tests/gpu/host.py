"""The text of the CUDA kernel, compiled for the host (tests/native/cuda_host.cc)."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
_SOURCES = (
    "tests/native/cuda_host.cc",
    *(f"csrc/cuda/{name}.cc" for name in ("folds", "scheduler", "task")),
    *("csrc/call.cc", "csrc/plan.cc"),
)


def library(folder: Path) -> ctypes.CDLL:
    """Compiled into `folder`.

    Raises:
        OSError, subprocess.CalledProcessError: there is no compiler, or it fails.
    """
    to = folder / "cuda_host.so"
    compiler = os.environ.get("CXX", "c++")
    flags = "-std=c++17 -O2 -ffp-contract=off -shared -fPIC -w -Icsrc".split()
    subprocess.run([compiler, *flags, *_SOURCES, "-o", str(to)], cwd=ROOT, check=True)
    return ctypes.CDLL(str(to))


def transform(library: ctypes.CDLL, params, words: np.ndarray) -> np.ndarray:
    """The float32 normals of some words."""
    params = np.array(params, np.uint32).view(np.float32)
    words = np.ascontiguousarray(words, np.uint32)
    out = np.zeros(words.size, np.float32)
    pointers = [ctypes.c_void_p(x.ctypes.data) for x in (params, words, out)]
    library.cuda_host_transform(pointers[0], ctypes.c_uint64(words.size), *pointers[1:])
    return out
