"""One way of initialising the ensemble, timed in a process of its own.

    python -m seedbed.cli._measure seedbed '{"size": 1024, "layers": [64, 10], ...}'

A cold start can be seen only once in a process, and so can its memory. Prints JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from .._ensemble import ensemble
from . import _model

WAYS = ("seedbed", "jit(vmap)")
_VISIBLE = 8_000_000  # bytes


def make_call(way: str, init: Callable[[Any], Any], size: int) -> Callable[[], Any]:
    """A function without arguments that makes the ensemble in one of the `WAYS`."""
    make: Callable[[Any], Any] = ensemble.ensemble(init, size)
    if way != "seedbed":
        make = jax.jit(lambda key: jax.vmap(init)(jax.random.split(key, size)))
    ready: Any = jax.block_until_ready
    return lambda: ready(make(jax.random.key(0)))


def in_fresh_process(way: str, size: int, layers: list[int], library: str) -> dict[str, Any]:
    """Runs `measure` in a new interpreter.

    Raises:
        RuntimeError: that process failed; the message ends with what it wrote.
    """
    config = json.dumps({"size": size, "layers": layers, "library": library})
    command = [sys.executable, "-m", __name__, way, config]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"measuring {way} failed:\n{done.stderr.strip()[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(way: str, size: int, layers: list[int], library: str) -> dict[str, Any]:
    """Seconds from finished imports to ready arrays, and the peak of extra memory in bytes.

    The memory is that of a second call, so it contains no compiler: the highest resident size
    during the call less that before it. It is None where the system does not tell, and for
    results so small that they hide among the allocator's pages.
    """
    call = make_call(way, _model.make_init(layers, library), size)
    started = time.perf_counter()
    out = call()
    cold = time.perf_counter() - started
    output = sum(leaf.nbytes for leaf in jax.tree.leaves(out))
    del out
    extra = _extra_memory(call) if output >= _VISIBLE else None
    return {"cold": cold, "output": output, "extra": extra}


def _extra_memory(call: Callable[[], Any]) -> int | None:
    try:
        before = _settled_memory()
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
        out = call()
        peak = _status("VmHWM")
        del out
    except (OSError, KeyError):
        return None
    return peak - before


def _settled_memory() -> int:
    """The resident size, once what was freed is given back: the call would take it unseen."""
    last = _status("VmRSS")
    for _ in range(20):
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).malloc_trim(0)
        time.sleep(0.05)  # XLA's threads free some buffers a little later
        size = _status("VmRSS")
        if abs(size - last) < 1 << 18:
            return size
        last = size
    return last


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[field].split()[0]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], **json.loads(sys.argv[2]))))
