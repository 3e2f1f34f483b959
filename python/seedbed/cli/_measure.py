"""The ways of initialising an ensemble, and one of the demo's, timed in a process of its own.

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
import jax.numpy as jnp

from .._ensemble import ensemble
from .._jax import compat, lowering
from . import _model

WAYS = ("seedbed", "jit(vmap)")
# What a function of the user's is measured beside, too: the same in jax's unrolled lowering of
# threefry, and what no way of filling that memory is much faster than.
MORE_WAYS = (*WAYS, "unrolled", "zeros")
VISIBLE = 8_000_000  # bytes


def make_call(
    way: str,
    init: Callable[..., Any],
    size: int,
    args: tuple[Any, ...] = (),
    in_axes: Any = None,
    seed: int = 0,
) -> Callable[[], Any]:
    """A function without arguments that makes the ensemble in one of the `MORE_WAYS`.

    Raises:
        NotImplementedError: this jax, on this platform, has no such way.
    """
    key = jax.random.key(seed)
    ready: Any = jax.block_until_ready
    if way == "seedbed":
        made = ensemble.ensemble(init, size, in_axes=in_axes)
        return lambda: ready(made(key, *args))
    mapped = jax.vmap(init, in_axes=vmapped(in_axes, args))
    jitted: Any = jax.jit(lambda key, *args: mapped(jax.random.split(key, size), *args))
    if way == "zeros":
        shapes = jax.eval_shape(jitted, key, *args)
        jitted = jax.jit(lambda *_: jax.tree.map(_zeros, shapes))
    elif way == "unrolled":
        if jax.default_backend() != "cpu":
            raise NotImplementedError("jax has one lowering of threefry on this platform")
        compiled: list[Any] = []

        def unrolled() -> Any:
            with lowering.jax_alone():
                if not compiled:
                    with lowering.unrolled_threefry():
                        compiled.append(jitted.lower(key, *args).compile())
                return ready(compiled[0](key, *args))

        return unrolled

    def alone() -> Any:
        with lowering.jax_alone():
            return ready(jitted(key, *args))

    return alone


def vmapped(in_axes: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `seedbed.ensemble` takes as ``in_axes``, as `jax.vmap` does for the keys as well."""
    if isinstance(in_axes, (tuple, list)):
        return (0, *in_axes)
    return (0, *[in_axes] * len(args))


def _zeros(leaf: Any) -> Any:
    if compat.is_key(leaf.dtype):
        return jnp.zeros((*leaf.shape, 2), jnp.uint32)  # keys are their words
    return jnp.zeros(leaf.shape, leaf.dtype)


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
    """Seconds of the first call, from a key to ready arrays, and the peak of extra memory in bytes.

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
    extra = extra_memory(call) if output >= VISIBLE else None
    return {"cold": cold, "output": output, "extra": extra}


def extra_memory(call: Callable[[], Any]) -> int | None:
    """The highest resident size during a call less that before it; None where that is not told."""
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
