"""One job in a process of its own: ``python -m benchmarks.store.worker``, told by JSON on stdin."""

from __future__ import annotations

import importlib
import json
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

_MEMBERS_READ = 20


def main() -> int:
    told = json.loads(sys.stdin.read())
    if told["limit"]:
        resource.setrlimit(resource.RLIMIT_AS, (told["limit"],) * 2)
    from . import ways

    for module in ways.NEEDS.get(told["way"], ()):
        importlib.import_module(module)
    folder = Path(told["folder"])
    print("\n" + json.dumps(JOBS[told["job"]](ways, told["way"], folder, told["members"])))
    return 0


def write(ways: Any, way: str, folder: Path, members: int) -> dict[str, float]:
    """Seconds from the call to what is on the disk, and what memory that took."""
    if way.startswith("raw"):
        ways.buffer()
    before = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    ways.WRITERS[way](folder, members)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {"wall": wall, "cpu": cpu, "peak": _peak() - before}


def read(ways: Any, way: str, folder: Path, members: int) -> dict[str, Any]:
    """Seconds of one member and of the whole, from files that are not in the system's cache."""
    _forget(folder)
    started = time.perf_counter()
    one, pieces = ways.READERS[way](folder)
    one(members // 3)
    first = time.perf_counter() - started
    taken = []
    # What takes seconds for one member takes as long for the next.
    for number in range(_MEMBERS_READ if first < 1 else 1):
        _forget(folder)
        started = time.perf_counter()
        one((number + 1) * 7919 % members)
        taken.append(time.perf_counter() - started)
    _forget(folder)
    started = time.perf_counter()
    for piece in pieces():
        del piece
    whole = time.perf_counter() - started
    digest = ways.digest(pieces())
    return {"first": first, "one": statistics.median(taken), "all": whole, "digest": digest}


def made(ways: Any, way: str, folder: Path, members: int) -> dict[str, str]:
    """What the members are, that were never on the disk."""
    stream = ways.make(members).stream(ways.key(), chunk_size=min(members, 512))
    return {"digest": ways.digest(map(ways.named, stream))}


JOBS = {"write": write, "read": read, "made": made}


def _forget(folder: Path) -> None:
    """The system's copies of files, which are on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    sys.exit(main())
