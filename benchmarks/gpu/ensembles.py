"""Ensembles on a GPU: every peer in a process of its own, asked in turn."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import device
from .worker import make_case

ROOT = Path(__file__).resolve().parents[2]
# A peer holds its results, those of the call before, and what it needs besides.
_HELD = 4
_FLOAT = 4


class Dropped(Exception):
    """This peer cannot go on; the message says why."""


class Process:
    """The parent's end of one peer's process."""

    def __init__(self, peer: str, platforms: str) -> None:
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        environment["JAX_PLATFORMS"] = platforms
        # Neither what another run compiled nor the cache on disk may warm a cold start.
        environment["JAX_ENABLE_COMPILATION_CACHE"] = "false"
        environment["CUDA_CACHE_DISABLE"] = "1"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.gpu.worker", peer],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def send(self, **request: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except OSError:  # it is dead, as `answer` will find
            pass

    def answer(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(timeout, 0.1))
        except queue.Empty:
            raise Dropped(f"> {timeout:.0f} s") from None
        if not line:
            raise Dropped(f"its process ended with status {self.process.wait()}")
        found = json.loads(line)
        if "error" in found:
            raise Dropped(found["error"])
        return found

    def close(self) -> None:
        self.process.kill()
        self.process.wait()


class Race:
    """The processes of some peers; one that fails drops out, and the others go on."""

    def __init__(self, names: tuple[str, ...], platforms: str, results: dict[str, Any]) -> None:
        self.results = results
        self.processes = {name: Process(name, platforms) for name in names}
        for process in self.processes.values():  # what they import overlaps, and is not measured
            process.send(do="ready")
        for name in names:
            self._guard(name, lambda process: process.answer(120.0))

    def ask(self, name: str, timeout: float, **request: Any) -> dict[str, Any] | None:
        def talk(process: Process) -> dict[str, Any]:
            process.send(**request)
            return process.answer(timeout)

        return self._guard(name, talk)

    def _guard(self, name: str, talk: Callable[[Process], dict[str, Any]]) -> dict[str, Any] | None:
        if name not in self.processes:
            return None
        try:
            return talk(self.processes[name])
        except Dropped as dropped:
            self.results[name]["missing"] = str(dropped)
            self.processes.pop(name).close()
            return None

    def close(self) -> None:
        for process in self.processes.values():
            process.close()


def measure(
    name: str,
    members: int,
    peers: tuple[str, ...],
    rounds: int,
    deadline: float,
    cap: float,
    platforms: str,
    log: Callable[[str], None],
) -> dict[str, Any]:
    """Cold and warm times in seconds, and peaks of memory, of every peer.

    Args:
        deadline: of `time.monotonic`, by which no more is started.
        cap: seconds after which a cold start is given up.
        platforms: what `JAX_PLATFORMS` is for the peers.
    """
    case = make_case(name, members)
    size = members * sum(_count(leaf.shape) for leaf in case.leaves) * _FLOAT
    results: dict[str, Any] = {peer: {"warm": []} for peer in peers}
    # All at once, in interleaved rounds, where the device holds what all of them keep.
    together = size * _HELD * len(peers) < 0.9 * device.memory_bytes()
    for group in [peers] if together else [(peer,) for peer in peers]:
        if time.monotonic() > deadline:
            for peer in group:
                results[peer]["missing"] = "no time was left"
            continue
        race = Race(group, platforms, results)
        try:
            _group(race, name, members, rounds, deadline, cap)
        finally:
            race.close()
    sums = [results[peer].pop("sums", None) for peer in ("seedbed", "jax") if peer in results]
    same = sums[0] == sums[1] if len(sums) == 2 and all(sums) else None
    log(f"{name}, {members:,} members: " + ", ".join(_line(p, results[p]) for p in peers))
    return {
        **{"case": name, "title": case.title, "members": members, "leaves": len(case.leaves)},
        **{"bytes": size, "together": together, "same_bits": same, "peers": results},
    }


def _group(race: Race, name: str, members: int, rounds: int, deadline: float, cap: float) -> None:
    for peer in list(race.processes):
        left = min(cap, max(deadline - time.monotonic(), 5.0))
        cold = race.ask(peer, left, do="cold", case=name, members=members)
        if cold is not None:
            race.results[peer].update(cold=cold.pop("seconds"), **cold)
    for peer in ("seedbed", "jax"):
        found = race.ask(peer, 120.0, do="sums")
        if found is not None:
            race.results[peer] |= found
    calls: dict[str, int] = {}
    for number in range(rounds + 1):
        names = list(race.processes)
        first = number % max(len(names), 1)
        for peer in names[first:] + names[:first]:
            count = calls.get(peer, 1)
            sample = race.ask(peer, 60.0, do="warm", number=number * 64 + 1, calls=count)
            if sample is None:
                continue
            if number == 0:  # warms up, and says how many calls make a sample
                calls[peer] = max(1, min(20, int(0.02 / sample["seconds"])))
            else:
                race.results[peer]["warm"].append(sample["seconds"])
        if time.monotonic() > deadline + 20:
            return


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


def _line(peer: str, result: dict[str, Any]) -> str:
    if "cold" not in result:
        return f"{peer} {result.get('missing', '?')}"
    warm = sorted(result["warm"])
    shown = f"{warm[len(warm) // 2] * 1e3:.2f} ms" if warm else "-"
    return f"{peer} {result['cold']:.2f} s / {shown}"
