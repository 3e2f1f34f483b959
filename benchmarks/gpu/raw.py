"""Raw draws on a GPU: seedbed, XLA's generators, cuRAND and torch, and writing zeros.

All peers of a draw run in one process, in rounds whose order rotates. A sample is the mean of so
many calls, one after another without waiting, that starting them is hidden behind their work.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from . import device

SAMPLERS: dict[str, Callable[[Any, int], Any]] = {
    "bits": lambda key, n: jax.random.bits(key, (n,)),
    "uniform": lambda key, n: jax.random.uniform(key, (n,)),
    "normal": lambda key, n: jax.random.normal(key, (n,)),
    "normal_bf16": lambda key, n: jax.random.normal(key, (n,), jnp.bfloat16),
}
ZEROS = ("zeros", "torch_zero", "cupy_zero")
_SEEDS = 64


class Missing(Exception):
    """This peer cannot run here; the message says why."""


@dataclass(frozen=True)
class Raw:
    """``run(seed)`` starts one draw, ``wait(result)`` returns when the last one is done."""

    run: Callable[[int], Any]
    wait: Callable[[Any], Any] = jax.block_until_ready
    facts: str = ""


def _keys(words: int = 2) -> list[Any]:
    """On the device, so that making them is not measured."""
    data = [[0x5EED] * (words - 1) + [seed] for seed in range(_SEEDS)]
    return [jax.device_put(np.array(one, np.uint32)) for one in data]


def _seedbed(kind: str, n: int) -> Raw:
    import seedbed as sb

    # An ensemble of one member, given that member's own key: jax's numbers for this key.
    make = sb.ensemble(lambda key: SAMPLERS[kind](key, n), 1)
    keys = [key[None] for key in _keys()]
    plan = make.plan(keys[0])
    if plan.reference is not None:
        raise Missing(f"not native: {plan.reference}")
    return Raw(lambda seed: make(keys[seed % _SEEDS]), facts=str(plan.summary()))


def _jax(kind: str, n: int) -> Raw:
    make, keys = jax.jit(lambda key: SAMPLERS[kind](key, n)), _keys()
    return Raw(lambda seed: make(keys[seed % _SEEDS]))


def _jax_kernel(kind: str, n: int) -> Raw:
    """With jax's own CUDA kernel of threefry, which is not its default."""
    name = "jax_threefry_gpu_kernel_lowering"
    if jax.default_backend() == "cpu" or not hasattr(jax.config, name):
        raise Missing("this jax has no kernel of threefry for this device")
    keys, before = _keys(), getattr(jax.config, name)
    jax.config.update(name, True)
    try:
        make = jax.jit(lambda key: SAMPLERS[kind](key, n)).lower(keys[0]).compile()
    finally:
        jax.config.update(name, before)
    return Raw(lambda seed: make(keys[seed % _SEEDS]))


def _jax_rbg(kind: str, n: int) -> Raw:
    """Another stream of numbers: XLA's own generator."""
    make = jax.jit(lambda key: SAMPLERS[kind](jax.random.wrap_key_data(key, impl="rbg"), n))
    keys = _keys(4)
    return Raw(lambda seed: make(keys[seed % _SEEDS]))


def _zeros(kind: str, n: int) -> Raw:
    dtype = jax.eval_shape(lambda: SAMPLERS[kind](jax.random.key(0), n)).dtype
    make = jax.jit(lambda: jnp.zeros(n, dtype))
    return Raw(lambda seed: make())


def _torch_tensor(kind: str, n: int) -> tuple[Any, Any, Callable[[Any], Any]]:
    import torch

    on_gpu = jax.default_backend() != "cpu"
    if on_gpu and not torch.cuda.is_available():
        raise Missing("torch sees no GPU")
    dtype = {"bits": torch.int32, "normal_bf16": torch.bfloat16}.get(kind, torch.float32)
    device = "cuda" if on_gpu else "cpu"

    def wait(_: Any) -> None:
        if on_gpu:
            torch.cuda.synchronize()

    return torch, lambda: torch.empty(n, dtype=dtype, device=device), wait


def _torch(kind: str, n: int) -> Raw:
    _, empty, wait = _torch_tensor(kind, n)
    draw = {
        "bits": lambda: empty().random_(-(1 << 31), 1 << 31),
        "uniform": lambda: empty().uniform_(),
    }.get(kind, lambda: empty().normal_())
    return Raw(lambda seed: draw(), wait)


def _torch_zero(kind: str, n: int) -> Raw:
    _, empty, wait = _torch_tensor(kind, n)
    return Raw(lambda seed: empty().zero_(), wait)


def _cupy() -> Any:
    if jax.default_backend() == "cpu":
        raise Missing("CuPy needs a GPU")
    import cupy

    return cupy


def _curand(kind: str, n: int, generator: str) -> Raw:
    """cuRAND's host interface, into memory that is used again."""
    if kind == "normal_bf16":
        raise Missing("cuRAND makes no bfloat16")
    cupy = _cupy()
    from cupy_backends.cuda.libs import curand

    handle = curand.createGenerator(getattr(curand, f"CURAND_RNG_PSEUDO_{generator}"))
    curand.setPseudoRandomGeneratorSeed(handle, 0x5EED)
    out = cupy.empty(n, cupy.uint32 if kind == "bits" else cupy.float32)
    draw = {
        "bits": lambda: curand.generate(handle, out.data.ptr, n),
        "uniform": lambda: curand.generateUniform(handle, out.data.ptr, n),
        "normal": lambda: curand.generateNormal(handle, out.data.ptr, n, 0.0, 1.0),
    }[kind]
    return Raw(lambda seed: draw(), lambda _: cupy.cuda.runtime.deviceSynchronize())


def _cupy_zero(kind: str, n: int) -> Raw:
    cupy = _cupy()
    out = cupy.empty(n, cupy.uint16 if kind == "normal_bf16" else cupy.uint32)
    return Raw(
        lambda seed: out.data.memset_async(0, out.nbytes),
        lambda _: cupy.cuda.runtime.deviceSynchronize(),
    )


PEERS: dict[str, Callable[[str, int], Raw]] = {
    "seedbed": _seedbed,
    "jax": _jax,
    "jax_kernel": _jax_kernel,
    "jax_rbg": _jax_rbg,
    "torch": _torch,
    "curand_philox": lambda kind, n: _curand(kind, n, "PHILOX4_32_10"),
    "curand_xorwow": lambda kind, n: _curand(kind, n, "XORWOW"),
    "zeros": _zeros,
    "torch_zero": _torch_zero,
    "cupy_zero": _cupy_zero,
}


@jax.jit
def _apart(one: Any, two: Any) -> tuple[Any, Any]:
    """How many items differ, and by how many units in the last place at most."""
    signed = jnp.int16 if one.dtype.itemsize == 2 else jnp.int32
    least = jnp.iinfo(signed).min

    def ordered(x: Any) -> Any:
        bits = lax.bitcast_convert_type(x, signed)
        return jnp.where(bits < 0, least - bits, bits)

    a, b = (x if jnp.issubdtype(x.dtype, jnp.integer) else ordered(x) for x in (one, two))
    return (a != b).sum(), jnp.where(a > b, a - b, b - a).max()


def identity(peers: dict[str, Raw]) -> dict[str, Any] | None:
    if not {"seedbed", "jax"} <= set(peers):
        return None
    differing, ulps = _apart(peers["seedbed"].run(1)[0], peers["jax"].run(1))
    return {"differing": int(differing), "max_ulp": int(ulps)}


def _timed(peer: Raw, calls: int, number: int) -> float:
    last = None
    started = time.perf_counter()
    for i in range(calls):
        last = peer.run(number * calls + i)
    peer.wait(last)
    return (time.perf_counter() - started) / calls


def measure(kind: str, n: int, rounds: int, log: Callable[[str], None]) -> dict[str, Any]:
    """All peers of one draw: raw samples in seconds, as plain data."""
    results: dict[str, dict[str, Any]] = {}
    peers: dict[str, Raw] = {}
    calls: dict[str, int] = {}
    for name, factory in PEERS.items():
        try:
            started = time.perf_counter()
            peers[name] = factory(kind, n)
            _timed(peers[name], 1, 0)
            results[name] = {"first": time.perf_counter() - started, "seconds": []}
            if peers[name].facts:
                results[name]["facts"] = peers[name].facts
            once = min(_timed(peers[name], 2, number) for number in (1, 2))
            calls[name] = max(1, min(50, int(0.01 / once)))
        except Exception as error:  # a peer's trouble is its own
            peers.pop(name, None)
            why = "not installed" if isinstance(error, ImportError) else str(error)
            results[name] = {"missing": f"{type(error).__name__}: {why}"[:300]}
    same = identity(peers)
    names = list(peers)
    gc.collect()
    with device.Clock() as clock:
        for number in range(rounds):
            first = number % len(names)
            for name in names[first:] + names[:first]:
                results[name]["seconds"].append(_timed(peers[name], calls[name], number + 3))
    itemsize = 2 if kind == "normal_bf16" else 4
    found = {
        **{"kind": kind, "elements": n, "bytes": n * itemsize, "identity": same},
        **{"sm_mhz": clock.median(), "sm_mhz_samples": clock.samples, "calls": calls},
        "peers": results,
    }
    log(f"{kind} 2^{n.bit_length() - 1}: " + ", ".join(f"{x} {_ms(results[x])}" for x in results))
    return found


def _ms(result: dict[str, Any]) -> str:
    seconds = result.get("seconds")
    return f"{statistics.median(seconds) * 1e3:.3f} ms" if seconds else result["missing"]


def bounds(
    found: dict[str, Any], ops: dict[str, dict[str, float]], processors: int | None
) -> dict[str, float | None]:
    """The least time by the operations that must be issued, and by the bytes that are written."""
    mine = ops.get(found["kind"], device.DEFAULT_OPS)
    zeros = [
        statistics.median(found["peers"][name]["seconds"])
        for name in ZEROS
        if found["peers"].get(name, {}).get("seconds")
    ]
    return {
        "issue": device.issue_seconds(found["elements"], mine, processors, found["sm_mhz"]),
        "write": min(zeros, default=None),
    }
