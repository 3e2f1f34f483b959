"""One peer in one process: it imports, waits to be asked, and answers with measurements.

Peers in processes of their own share no allocator, no compilation cache and no thread pool, so
none of them warms or slows another. The parent asks one process at a time, so that the one
that is measured has the machine to itself.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
import os
import sys
import time
import traceback
from multiprocessing.connection import Connection
from typing import Any

from .case import Case
from .peers import PEERS, Call, Peer, Unavailable

_STATUS, _CLEAR_REFS = "/proc/self/status", "/proc/self/clear_refs"
_MEMORY_CALLS = 2
# Of a process among several: the address of the first, how many there are, and its number.
Place = tuple[str, int, int]


def serve(connection: Connection, peer: str, place: Place | None = None) -> None:
    """Answers ``(method, *arguments)`` requests with ``("ok", result)`` until it is told to stop.

    Other answers are ``("skip", reason)`` and ``("error", traceback)``.
    """
    worker = None
    while True:
        try:
            method, *arguments = connection.recv()
        except EOFError:
            return
        try:
            worker = worker or Worker(peer, place)
            connection.send(("ok", getattr(worker, method)(*arguments)))
        except (Unavailable, ImportError) as error:
            connection.send(("skip", str(error)))
        except Exception:
            connection.send(("error", traceback.format_exc()))


class Worker:
    """The measurements of one peer."""

    def __init__(self, peer: str, place: Place | None = None) -> None:
        self.peer = PEERS[peer]
        _confine(self.peer)
        for module in self.peer.requires:
            importlib.import_module(module)
        module, name = self.peer.factory.split(":")
        self.factory = getattr(importlib.import_module(f"{__package__}.peers.{module}"), name)
        if place is not None:
            import jax

            jax.distributed.initialize(*place)
        self.call: Call
        self.calls = 1

    def ready(self) -> None:
        """Answers once everything is imported, which is when a process gets its worker."""

    def prepare(self, case: Case) -> None:
        """Builds the case's callable, without running it."""
        self.call = self.factory(case, **self.peer.options)
        self.calls = case.calls

    def cold(self, case: Case) -> dict[str, float]:
        """One call in a process that has imported its libraries and done nothing else."""
        seed = None

        def everything() -> Any:
            nonlocal seed
            self.prepare(case)
            seed = self.call.seed(0)
            return self.call.run(seed)

        return _timed(everything)

    def warm(self, number: int) -> dict[str, float]:
        """One call, with a key of its own, in a process that has made this ensemble before.

        Or the mean of some calls one after another, where the case wants them.
        """
        seeds = [self.call.seed(number * self.calls + i) for i in range(self.calls)]
        if self.calls == 1:
            return _timed(lambda: self.call.run(seeds[0]))

        def run() -> None:
            for seed in seeds:
                self.call.run(seed)

        return {clock: seconds / self.calls for clock, seconds in _timed(run).items()}

    def facts(self) -> dict[str, Any]:
        return self.call.facts()

    def output(self) -> dict[str, Any]:
        """Number of values and bytes of the result, and a digest of all its bits.

        And what this process holds of it, where it is in parts: all parts on its devices.
        """
        result = self.call.run(self.call.seed(0))
        held, leaves = _held(result), _leaves(result)
        digest = hashlib.blake2b(digest_size=16)
        for leaf in leaves:
            digest.update(leaf.data)
        return {
            "values": sum(leaf.size for leaf in leaves),
            "bytes": sum(leaf.nbytes for leaf in leaves),
            "digest": digest.hexdigest(),
        } | ({"held": held} if held else {})

    def memory(self) -> list[int] | None:
        """Peak growth of resident memory over some warm calls, in bytes; None if unknown here.

        What the process holds before a call (libraries, compiled programs) does not count, and
        freed blocks are given back first, so that they cannot hide what the call takes.
        """
        seeds = [self.call.seed(number) for number in range(_MEMORY_CALLS + 1)]
        gc.collect()
        if not _give_back_at_once():
            return None
        self.call.run(seeds[0])
        samples = []
        for seed in seeds[1:]:
            # XLA's threads may free the buffers of the last call a little after it returned.
            time.sleep(0.1)
            ctypes.CDLL(None).malloc_trim(0)
            with open(_CLEAR_REFS, "w") as file:
                file.write("5")  # the peak starts again at what is resident now
            before = _status("VmRSS")
            result = self.call.run(seed)
            samples.append(_status("VmHWM") - before)
            del result
        return samples


def _confine(peer: Peer) -> None:
    """Takes from this process what its peer shall do without. Before any library starts threads.

    Raises:
        Unavailable: this system cannot take it.
    """
    if peer.one_thread:
        if not hasattr(os, "sched_setaffinity"):
            raise Unavailable("this system gives a process no choice of processors")
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    if not peer.huge_pages:
        disable = 41  # PR_SET_THP_DISABLE of linux/prctl.h
        if not sys.platform.startswith("linux") or ctypes.CDLL(None).prctl(disable, 1, 0, 0, 0):
            raise Unavailable("this system cannot keep huge pages from a process")


def _give_back_at_once() -> bool:
    """Tells glibc to keep no freed memory from here on; False where that cannot be had.

    Otherwise small blocks come from memory that earlier calls left behind. It is done after all
    timing, since it makes every allocation slower.
    """
    if not os.access(_CLEAR_REFS, os.W_OK):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "malloc_trim"):
        return False
    trim_threshold, mmap_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of malloc.h
    libc.mallopt(trim_threshold, 0)
    libc.mallopt(mmap_threshold, 1 << 16)
    libc.malloc_trim(0)
    return True


def _timed(run: Any) -> dict[str, float]:
    """Wall and CPU seconds of ``run()``; the CPU time is of all threads of the process."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    result = run()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    del result
    return {"wall": wall, "cpu": cpu}


def _status(name: str) -> int:
    with open(_STATUS) as file:
        line = next(line for line in file if line.startswith(name + ":"))
    return int(line.split()[1]) << 10


def _leaves(result: Any) -> list[Any]:
    """The arrays of a result as contiguous numpy arrays, in the order of their names."""
    import numpy as np

    if isinstance(result, dict) and "jax" not in sys.modules:
        values = [result[name] for name in sorted(result)]
    else:
        import jax

        values = [_whole(value) for value in jax.tree.leaves(result)]
    return [np.ascontiguousarray(value) for value in values]


def _whole(value: Any) -> Any:
    """An array as one of numpy."""
    import jax
    import numpy as np

    if not isinstance(value, jax.Array):
        return value
    if not value.is_fully_addressable:
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(value, tiled=True)
    if len(value.sharding.device_set) > 1:
        return np.asarray(value)
    # By dlpack: an array keeps what `asarray` made of it, and then cannot be donated.
    return np.from_dlpack(value)


def _held(result: Any) -> int:
    """Bytes of the parts of a result on this process's devices; 0 where it is not in parts."""
    if "jax" not in sys.modules:
        return 0
    import jax

    arrays = [leaf for leaf in jax.tree.leaves(result) if isinstance(leaf, jax.Array)]
    if all(len(array.sharding.device_set) == 1 for array in arrays):
        return 0
    return sum(part.data.nbytes for array in arrays for part in array.addressable_shards)
