"""One way of making one ensemble, in a process that holds nothing else; asked through pipes.

    python -m seedbed.cli._worker

reads pickled requests from its standard input, each with a name of a method of `Worker` and its
arguments, and writes ``("ok", answer)`` or ``("failed", why)`` to its standard output.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from .._base.pickling import Packed
from . import _measure, _target
from ._oracle import Oracle, bits

# What is set in one process and has to be so in the others, for the same numbers.
SETTINGS = (
    "jax_enable_x64",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
)


@dataclass(frozen=True, slots=True)
class Job:
    """An ensemble: what `seedbed.ensemble` and its call are given."""

    init: Packed
    members: int
    args: tuple[Any, ...]
    in_axes: Any
    seed: int
    settings: dict[str, Any]


class Worker:
    """One way of making the ensemble of a job. The first call is the cold one."""

    def __init__(self, job: Job, way: str) -> None:
        self.job = job
        given = (job.init.value, job.members, job.args, job.in_axes, job.seed)
        self._make: Callable[[], Any] = _measure.make_call(way, *given)
        self._output = 0

    def call(self) -> float:
        """Seconds of one call, until all arrays are there."""
        started = time.perf_counter()
        out = self._make()
        seconds = time.perf_counter() - started
        self._output = sum(leaf.nbytes for leaf in jax.tree.leaves(out))
        return seconds

    def memory(self) -> tuple[int, int | None]:
        """Bytes of the result, and those that a call takes at its peak; None for results too small
        to be seen. To be asked of the second call: later ones take what the allocator kept."""
        seen = self._output >= _measure.VISIBLE
        return self._output, _measure.extra_memory(self._make) if seen else None

    def digest(self) -> list[str]:
        """A digest of each leaf's bits."""
        leaves = jax.tree.leaves(self._make())
        return [hashlib.blake2b(bits(leaf), digest_size=16).hexdigest() for leaf in leaves]

    def differing(self) -> tuple[int, int]:
        """Values and bits that neither jitted nor unjitted jax has."""
        job = self.job
        keys = jax.random.split(jax.random.key(job.seed), job.members)
        in_axes = _measure.vmapped(job.in_axes, job.args)
        oracle = Oracle(job.init.value, keys, args=job.args, in_axes=in_axes)
        return oracle.differing(enumerate(jax.tree.leaves(self._make())))


def why(error: BaseException) -> str:
    """What was raised, in one line."""
    text = str(error).strip().splitlines()
    if isinstance(error, NotImplementedError) and text:
        return text[0]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def serve(requests: Any, answers: Any) -> None:
    """Answers until there are no more requests."""
    worker: Worker | None = None
    while True:
        try:
            name, given = pickle.load(requests)
        except EOFError:
            return
        try:
            if name == "start":
                job, way = pickle.loads(given[0]), given[1]
                set_up: Any = jax.config.update
                for setting, value in job.settings.items():
                    set_up(setting, value)
                # What an earlier process compiled is not cold.
                set_up("jax_enable_compilation_cache", False)
                worker, answer = Worker(job, way), None
            else:
                answer = getattr(worker, name)(*given)
            pickle.dump(("ok", answer), answers)
        except Exception as error:
            said = _target.told(error) if _target.of_user(error) else why(error)
            pickle.dump(("failed", said.splitlines()[-1]), answers)
        answers.flush()


if __name__ == "__main__":
    # What the user's code prints does not get between the answers.
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        serve(sys.stdin.buffer, out)
