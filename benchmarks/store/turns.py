"""All ways in turns: who writes, who reads what, and whether the bytes are those that were made."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import ways

# Ways that take several times as long are asked in this many rounds.
_ROUNDS_OF_SLOW = 2
_FAST = ("seedbed", "raw", "raw_direct")
# Ways that hold the whole in memory are left out beyond this many bytes.
_WHOLE = 4 << 30


def measure(
    size: int,
    rounds: int,
    limit: int = 0,
    folder: Path | None = None,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Writes about ``size`` bytes by every way in each round, and reads them.

    Args:
        size: bytes of the ensemble.
        rounds: how often; each begins with another way.
        limit: bytes of address space that seedbed's process may have; 0: no limit.
        folder: on the disk that is measured; by default the system's for temporary files.
        log: is told what is going on.
    """
    members = max(1, size // ways.MEMBER)
    place = Path(tempfile.mkdtemp(prefix="seedbed-store-", dir=folder))
    names = [name for name in ways.WRITERS if name in _FAST or size <= _WHOLE]
    if not hasattr(os, "O_DIRECT"):
        names.remove("raw_direct")
    found: dict[str, Any] = {
        "members": members,
        "bytes": members * ways.MEMBER,
        "limit": limit,
        "writes": {name: [] for name in names},
        "reads": {},
    }
    try:
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                if name in _FAST or number < _ROUNDS_OF_SLOW:
                    shutil.rmtree(place / name, ignore_errors=True)
                    asked = ask("write", name, place / name, members, limit * (name == "seedbed"))
                    found["writes"][name].append(asked)
                    log(f"  round {number + 1}, {name}: {_told(asked, found['bytes'])}")
                    if name not in ("seedbed", "npy"):
                        shutil.rmtree(place / name, ignore_errors=True)
        made = ask("made", "seedbed", place, members)
        for name in ways.READERS:
            # Others read what seedbed wrote, but for files that it does not write.
            store = place / ("npy" if name == "npy" else "seedbed")
            if store.exists():
                read = ask("read", name, store, members)
                if digest := read.pop("digest", None):
                    read["same_bytes"] = digest == made.get("digest")
                found["reads"][name] = read
                log(f"  read by {name}: {read}")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return found


def _told(asked: dict[str, Any], size: int) -> str:
    if "wall" not in asked:
        return str(asked)
    return f"{size / asked['wall'] / 1e6:.0f} MB/s, {asked['cpu']:.1f} CPU s"


def ask(job: str, way: str, folder: Path, members: int, limit: int = 0) -> dict[str, Any]:
    told = {"job": job, "way": way, "folder": str(folder), "members": members, "limit": limit}
    # Not what an earlier process left in memory to be written.
    os.sync()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.store.worker"],
        input=json.dumps(told),
        env={"JAX_PLATFORMS": "cpu", **os.environ},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        *_, last = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        return {"failed": last[:300]}
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer
