"""One peer of an ensemble on a GPU, in a process of its own, which answers on its standard input.

    python -m benchmarks.gpu.worker PEER

Requests and answers are lines of JSON. A process shares no allocator and no cache of compiled
programs with another, so its first call is a cold one and its peak of memory its own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from ..case import Case
from ..tables import models

CASES = {
    "mlp": ("MLP 64-128-128-128-10", models.mlp(64, 128, 128, 128, 10)),
    "transformer": (
        "transformer, width 128, 4 layers",
        models.transformer(128, 4, vocabulary=256, length=64),
    ),
    "many-leaves": ("200 leaves of (16, 16)", models.many_leaves(200)),
    "tiny": ("MLP 4-8-2", models.mlp(4, 8, 2)),
}
_MODULES = {"nnx": "flax.nnx", "equinox": "equinox"}


def make_case(name: str, members: int) -> Case:
    title, leaves = CASES[name]
    return Case(name, title, "gpu", leaves, members, (), ())


class Worker:
    """The measurements of one peer."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.call: Any = None
        self.on_gpu = False
        if peer == "torch":
            import torch

            self.on_gpu = torch.cuda.is_available() and os.environ.get("JAX_PLATFORMS") != "cpu"
            if self.on_gpu:
                torch.set_default_device("cuda")
            torch.zeros(1)
            return
        import importlib

        import jax
        import numpy as np

        if peer in _MODULES:
            importlib.import_module(_MODULES[peer])
        if peer.startswith("seedbed"):
            importlib.import_module("seedbed")
        if peer == "jax_kernel":
            if jax.default_backend() == "cpu":
                raise RuntimeError("jax's kernel of threefry is for GPUs")
            jax.config.update("jax_threefry_gpu_kernel_lowering", True)
        self.on_gpu = jax.default_backend() != "cpu"
        jax.device_put(np.zeros(1, np.float32)).block_until_ready()

    def ready(self) -> dict[str, Any]:
        return {"on_gpu": self.on_gpu}

    def cold(self, case: str, members: int) -> dict[str, Any]:
        """The first call, from the model's function to ready arrays; then what it took."""
        started = time.perf_counter()
        self.call = self._build(make_case(case, members))
        result = self._run(0)
        seconds = time.perf_counter() - started
        found = {"seconds": seconds, "bytes": self._bytes(result)}
        del result
        peak = self._peak()
        if peak is not None:
            found["peak"] = peak
        try:
            found["facts"] = {k: str(v) for k, v in self.call.facts().items()}
        except Exception as error:  # facts are for the reader alone
            found["facts"] = {"error": str(error)}
        return found

    def warm(self, number: int, calls: int) -> dict[str, float]:
        """Mean seconds of some calls, each of which is waited for."""
        self._run(number)
        started = time.perf_counter()
        for i in range(calls):
            self._run(number + 1 + i)
        return {"seconds": (time.perf_counter() - started) / calls}

    def sums(self) -> dict[str, list[int]]:
        """A number for each leaf that changes with any of its bits."""
        import jax
        import jax.numpy as jnp

        @jax.jit
        def weighted(leaf: Any) -> Any:
            bits = jax.lax.bitcast_convert_type(leaf, jnp.uint32).ravel()
            return (bits * (2 * jnp.arange(bits.size, dtype=jnp.uint32) + 1)).sum()

        leaves = jax.tree.leaves(self._run(0))
        return {"sums": [int(weighted(leaf)) for leaf in leaves]}

    def _build(self, case: Case) -> Any:
        if self.peer == "torch":
            from ..peers import arrays

            return arrays.torch(case)
        from ..peers import on_jax, variants

        if self.peer == "seedbed_donate":
            return variants.donating(case)
        if self.peer == "jax_rbg":
            return on_jax.raw(case, impl="rbg")
        name = {"jax_kernel": "raw", "jax": "raw"}.get(self.peer, self.peer)
        return getattr(on_jax, name)(case)

    def _run(self, number: int) -> Any:
        result = self.call.run(self.call.seed(number))
        if self.peer == "torch" and self.on_gpu:
            import torch

            torch.cuda.synchronize()
        return result

    def _bytes(self, result: Any) -> int:
        if self.peer == "torch":
            return sum(x.element_size() * x.nelement() for x in result.values())
        import jax

        return sum(leaf.nbytes for leaf in jax.tree.leaves(result))

    def _peak(self) -> int | None:
        if self.peer == "torch":
            import torch

            return torch.cuda.max_memory_allocated() if self.on_gpu else None
        import jax

        return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def main() -> None:
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(value: dict[str, Any]) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    worker = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            worker = worker or Worker(sys.argv[1])
            answer(getattr(worker, request.pop("do"))(**request))
        except Exception as error:
            answer({"error": f"{type(error).__name__}: {error}"[:600]})


if __name__ == "__main__":
    main()
