"""Runs the peers of a case against each other, round by round, one process at a time."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .case import Case
from .peers import FRAMEWORKS, PEERS
from .worker import Place, serve

Log = Callable[[str], None]

# The peers whose numbers are to be had; the first that ran counts.
ORACLES = (
    *("jax", "jax_unrolled", "jax_typed", "nn_jax", "jit_1", "jax_map", "jax_member"),
    *(f"{name}_own" for name in FRAMEWORKS),
)


@dataclass(frozen=True)
class Settings:
    """How long to measure.

    Attributes:
        rounds: timed warm calls of every peer.
        cold_starts: fresh processes that measure a cold start of every peer.
        cap: seconds after which a cold start is given up and reported as longer.
        repeat_below: a cold start that took longer than this is measured once only.
    """

    rounds: int = 11
    cold_starts: int = 3
    cap: float = 300.0
    repeat_below: float = 8.0
    quick: bool = False

    def shrink(self, case: Case) -> Case:
        """The case as it runs under these settings."""
        if not self.quick:
            return case
        return replace(case, **case.quick)


QUICK = Settings(rounds=3, cold_starts=1, cap=30.0, quick=True)


class Dropped(Exception):
    """This peer cannot go on; the arguments are its status and why."""


class Process:
    """The parent's end of one peer's process, or of one of them."""

    def __init__(self, name: str, place: Place | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        self.process = context.Process(target=serve, args=(other, name, place), daemon=True)
        with _environment(PEERS[name].env):
            self.process.start()
        other.close()

    def ask(self, *request: Any, timeout: float = 600.0) -> Any:
        self.send(*request)
        return self.answer(timeout)

    def send(self, *request: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is dead, as `answer` will find
            self.connection.send(request)

    def answer(self, timeout: float = 600.0) -> Any:
        if not self.connection.poll(timeout):
            raise Dropped("over", f"> {timeout:.0f} s")
        try:
            status, value = self.connection.recv()
        except EOFError:
            self.process.join()
            raise Dropped(
                "error", f"its process ended with status {self.process.exitcode}"
            ) from None
        if status != "ok":
            raise Dropped(status, value)
        return value

    def close(self) -> None:
        """Ends the process at once: it holds nothing that anyone needs."""
        self.process.kill()
        self.process.join()
        self.connection.close()


class Team:
    """The processes of a peer that runs in several, asked as one."""

    def __init__(self, name: str, count: int) -> None:
        with socket.socket() as bound:
            bound.bind(("localhost", 0))
            address = f"localhost:{bound.getsockname()[1]}"
        self.processes = [Process(name, (address, count, number)) for number in range(count)]

    def ask(self, *request: Any, timeout: float = 600.0) -> Any:
        self.send(*request)
        return self.answer(timeout)

    def send(self, *request: Any) -> None:
        for process in self.processes:
            process.send(*request)

    def answer(self, timeout: float = 600.0) -> Any:
        """One answer of all: the longest wall, the CPU seconds of all, every process's peaks."""
        answers = [process.answer(timeout) for process in self.processes]
        first = answers[0]
        if isinstance(first, list):
            return [sample for answer in answers for sample in answer]
        if isinstance(first, dict) and "wall" in first:
            walls, cpus = ([answer[clock] for answer in answers] for clock in ("wall", "cpu"))
            return {"wall": max(walls), "cpu": sum(cpus)}
        return first

    def close(self) -> None:
        # The first one last: the others would say at length that it has gone.
        for process in reversed(self.processes):
            process.close()


def _start(name: str) -> Process | Team:
    count = PEERS[name].processes
    return Process(name) if count == 1 else Team(name, count)


class Race:
    """The processes of some peers, started together and then asked one at a time."""

    def __init__(self, names: tuple[str, ...], log: Log) -> None:
        self.log = log
        self.results: dict[str, dict[str, Any]] = {name: {"status": "ok"} for name in names}
        self.processes = {name: _start(name) for name in names}
        # Imports are not measured and may overlap; nothing is timed until all are done.
        for process in self.processes.values():
            process.send("ready")
        for name in names:
            self._guard(name, lambda process: process.answer())

    def ask(self, name: str, *request: Any, timeout: float = 600.0) -> Any:
        """One peer's answer, or None if it has dropped out, now or before."""
        return self._guard(name, lambda process: process.ask(*request, timeout=timeout))

    def _guard(self, name: str, talk: Callable[[Process | Team], Any]) -> Any:
        if name not in self.processes:
            return None
        try:
            return talk(self.processes[name])
        except Dropped as dropped:
            status, reason = dropped.args
            self.results[name] |= {"status": status, "reason": reason.strip().splitlines()[-1]}
            self.log(f"  ! {PEERS[name].label}: {status}: {reason.strip()}")
            self.processes.pop(name).close()
            return None

    def close(self) -> None:
        for process in self.processes.values():
            process.close()


def measure(case: Case, settings: Settings, log: Log) -> dict[str, Any]:
    """Everything about one case, as plain data: raw samples of every peer, in seconds and bytes."""
    case = settings.shrink(case)
    log(f"{case.name}: {case.heading}")
    with contextlib.closing(Race(case.peers, log)) as race:
        results = race.results
        cap = min(settings.cap, case.cap or settings.cap)
        for name in case.peers:
            cold = race.ask(name, "cold", case, timeout=cap)
            if cold is not None:
                _add(results[name], "cold", cold)
                results[name] |= race.ask(name, "output") or {}
                results[name]["facts"] = race.ask(name, "facts")
                log(f"  {PEERS[name].label}: cold {cold['wall']:.2f} s")
        _compare(results, log)
        rounds = settings.rounds if case.rounds is None else min(settings.rounds, case.rounds)
        if rounds:
            _rounds(race, rounds)
            for name in case.peers:
                growth = race.ask(name, "memory")
                if growth is not None:
                    results[name]["peak_growth"] = growth
    _cold_again(case, settings, results, log)
    kept = ("name", "heading", "table", "members", "note", "baselines", "ours")
    return {key: getattr(case, key) for key in kept} | {"peers": results}


def _rounds(race: Race, rounds: int) -> None:
    """Warm calls: all peers in every round, each round with new keys and another first peer."""
    names = list(race.processes)
    for number in range(rounds + 1):
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            # Thread pools spin for a while after their work; let the last one go to sleep.
            time.sleep(0.01)
            sample = race.ask(name, "warm", number + 1)
            if sample is not None and number > 0:  # round 0 warms up
                _add(race.results[name], "warm", sample)


def _cold_again(
    case: Case, settings: Settings, results: dict[str, dict[str, Any]], log: Log
) -> None:
    """More cold starts, each in another fresh process, of the peers that do not take long."""
    names = tuple(
        name
        for name in case.peers
        if results[name]["status"] == "ok" and results[name]["cold_wall"][0] < settings.repeat_below
    )
    starts = min(settings.cold_starts, case.cold_starts or settings.cold_starts)
    for _ in range(starts - 1):
        with contextlib.closing(Race(names, log)) as race:
            for name in names:
                cold = race.ask(name, "cold", case)
                if cold is not None:
                    _add(results[name], "cold", cold)


def _add(result: dict[str, Any], what: str, sample: dict[str, float]) -> None:
    """Appends the wall and CPU seconds of one call to the lists ``{what}_wall``, ``{what}_cpu``."""
    for clock, seconds in sample.items():
        result.setdefault(f"{what}_{clock}", []).append(round(seconds, 8))


def _compare(results: dict[str, dict[str, Any]], log: Log) -> None:
    """Holds the peers that promise jax's or a framework's numbers to them, bit for bit."""
    digests = [results.get(name, {}).get("digest") for name in ORACLES]
    oracle = next(filter(None, digests), None)
    for name, result in results.items():
        if PEERS[name].same_bits and oracle and "digest" in result:
            result["same_bits"] = result["digest"] == oracle
            if not result["same_bits"]:
                log(f"  ! {PEERS[name].label}: ITS BITS DIFFER FROM JAX'S")


@contextlib.contextmanager
def _environment(extra: dict[str, str]) -> Iterator[None]:
    """Sets variables for a process that is started inside."""
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
