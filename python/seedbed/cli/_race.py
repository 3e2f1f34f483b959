"""`seedbed.bench`: a function of the user's, made into ensembles in every way that there is."""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from .._base.pickling import Packed
from .._ensemble import check, ensemble
from .._plan import Plan
from . import _measure, _target, _text
from ._benchmark import Benchmark
from ._worker import SETTINGS, Job, Worker, why

# A cold start that took longer is not repeated.
_LONG = 8.0
# Thread pools spin for a while after their work; they go to sleep meanwhile.
_PAUSE = 0.01


class Dropped(Exception):
    """A way that cannot go on, and why."""


class Process:
    """A fresh interpreter with one `Worker`."""

    def __init__(self, job: bytes, way: str, limit: float) -> None:
        self.limit = limit
        self._errors = tempfile.TemporaryFile()
        places = [place or os.getcwd() for place in sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "seedbed.cli._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
        )
        try:
            self.ask("start", job, way, limit=max(limit, 60.0))  # imports are not what is measured
        except BaseException:
            self.close()
            raise

    def ask(self, name: str, *given: Any, limit: float | None = None) -> Any:
        limit = limit or self.limit
        sent, read = self._process.stdin, self._process.stdout
        assert sent is not None and read is not None
        with contextlib.suppress(BrokenPipeError):
            pickle.dump((name, given), sent)
            sent.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(read, selectors.EVENT_READ)
            if not selector.select(limit):
                raise Dropped(f"> {limit:.0f} s")
        try:
            status, answer = pickle.load(read)
        except (EOFError, pickle.UnpicklingError):  # it ended, perhaps while it wrote
            raise Dropped(self._ended()) from None
        if status != "ok":
            raise Dropped(answer)
        return answer

    def _ended(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        return f"its process ended with status {code}{f': {said[-1]}' if said else ''}"

    def close(self) -> None:
        """Ends the process at once: it holds nothing that anyone needs."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                if pipe is not None:
                    pipe.close()


class Here:
    """A `Worker` in this process, for functions that no other one can have."""

    def __init__(self, job: Job, way: str) -> None:
        try:
            self._worker = Worker(job, way)
        except NotImplementedError as error:
            raise Dropped(why(error)) from None

    def ask(self, name: str, *given: Any) -> Any:
        try:
            return getattr(self._worker, name)(*given)
        except (NotImplementedError, MemoryError) as error:
            raise Dropped(why(error)) from None

    def close(self) -> None:
        pass


Start = Callable[[str], Any]


def bench(
    init: Any,
    n: int | Sequence[int],
    *args: Any,
    in_axes: Any = None,
    seed: int = 0,
    rounds: int = 7,
    starts: int = 1,
    limit: float = 120.0,
    progress: bool = True,
) -> Benchmark:
    """Measures an init function in ensembles of ``n`` members, beside jax's own ways.

    Each way runs in a fresh process: `seedbed.ensemble`; ``jax.jit(jax.vmap(init))``; the same
    with threefry unrolled, a faster lowering that jax has and does not use on CPUs; and
    writing zeros. Print the result, or look at its `Benchmark.plot`.

    Args:
        init: the function ``init(key, *args)`` of one member, a `seedbed.nn` module, or an
            ensemble made by an adapter, of which the members' own arrays are measured. A function
            that other processes cannot import (of a notebook, or a local one) needs cloudpickle
            for them; without it all is measured in this process, and cold starts are not.
        n: number of members, or several of them.
        *args: further arguments, as for the ensemble's call.
        in_axes: as for `seedbed.ensemble`.
        seed: the key is ``jax.random.key(seed)``.
        rounds: timed warm calls of each way; the ways take turns.
        starts: fresh processes that measure a cold start of each way.
        limit: seconds after which a way is given up.
        progress: show a bar on stderr, if that is a terminal.

    Raises:
        TypeError: ``init`` is no function of a key, or ``n`` is not an integer.
        ValueError: ``n``, ``rounds``, ``starts`` or ``limit`` is not positive.
    """
    name = getattr(init, "__qualname__", "") or f"{init!r:.60}".splitlines()[0]
    sizes = [check.size(size, "n") for size in ([n] if isinstance(n, int) else [*n])]
    if not sizes:
        raise ValueError("`n` must be a number of members, or several; got none")
    rounds, starts = check.size(rounds, "rounds"), check.size(starts, "starts")
    if not limit > 0:
        raise ValueError(f"`limit` must be a positive number of seconds; got {limit!r}")
    try:
        init, args = _target.init_of(init, "`init`", args)
    except _target.Unusable as error:
        raise TypeError(str(error)) from None
    # What does not work is told here, by its own traceback.
    plan = ensemble.ensemble(init, sizes[0], in_axes=in_axes).plan(jax.random.key(seed), *args)
    settings = {name: getattr(jax.config, name) for name in SETTINGS}
    jobs = [Job(Packed(init), size, args, in_axes, seed, settings) for size in sizes]
    steps = len(sizes) * len(_measure.MORE_WAYS) * (starts + rounds + 2)
    results, separate = [], True
    with _text.Progress(steps if progress else 0) as bar:
        bar.visible = bar.visible and progress
        for job in jobs:
            packed = _sent(job)
            separate = packed is not None
            results.append(_measured(job, packed, rounds, starts, limit, bar))
    return Benchmark(name, results, _facts(plan, rounds, starts, separate))


def _facts(plan: Plan, rounds: int, starts: int, separate: bool) -> dict[str, Any]:
    from .. import __version__

    return {
        "seedbed": __version__,
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "cores": os.cpu_count(),
        "plan": plan.summary(),
        "reference": plan.reference,
        "member_bytes": plan.member_bytes,
        "rounds": rounds,
        "starts": starts,
        "separate": separate,
    }


def _sent(job: Job) -> bytes | None:
    """A job as bytes that mean the same in another process; None if there are none."""
    with contextlib.suppress(Exception):
        data = pickle.dumps(job)
        pickle.loads(data)
        if b"__main__" not in data:  # which is another module there
            return data
    with contextlib.suppress(Exception):
        return bytes(importlib.import_module("cloudpickle").dumps(job))
    return None


def _measured(
    job: Job, packed: bytes | None, rounds: int, starts: int, limit: float, bar: _text.Progress
) -> dict[str, Any]:
    """Everything about one number of members: raw samples of each way, in seconds and bytes."""
    if packed is None:
        race = _Race(lambda way: Here(job, way), bar)
    else:
        race = _Race(lambda way: Process(packed, way, limit), bar)
    with contextlib.closing(race):
        for way in _measure.MORE_WAYS:
            race.start(way)
            first = race.ask(way, "call")
            if first is not None and packed is not None:
                race.found[way]["cold"].append(first)
            if (told := race.ask(way, "memory")) is not None:
                race.found[way]["output"], race.found[way]["extra"] = told
        for number in range(rounds):
            names = [*race.running]
            turn = number % max(len(names), 1)
            for way in names[turn:] + names[:turn]:
                time.sleep(_PAUSE)
                if (seconds := race.ask(way, "call")) is not None:
                    race.found[way]["warm"].append(seconds)
        for way in _measure.MORE_WAYS:
            race.found[way]["digest"] = race.ask(way, "digest")
        _compared(race)
    if packed is not None:
        for _ in range(starts - 1):
            _again(race, packed, limit)
    for values in race.found.values():
        values.pop("digest", None)
    return {"members": job.members, "ways": race.found}


def _compared(race: _Race) -> None:
    """Whether each way has jax's bits: a digest says so, or else every value is looked at."""
    of_jax = race.found[_measure.WAYS[1]]["digest"] or race.found["unrolled"]["digest"]
    for way in _measure.MORE_WAYS[:-1]:
        found = race.found[way]
        if found["digest"] is None:
            continue
        if of_jax is None:
            found["differing"] = None
        elif found["digest"] == of_jax:
            found["differing"] = 0
        elif (told := race.ask(way, "differing")) is not None:
            found["differing"], found["either"] = told[1], True


def _again(race: _Race, packed: bytes, limit: float) -> None:
    """One more cold start of each way that does not take long."""
    for way, found in race.found.items():
        if found["cold"] and found["cold"][0] < _LONG and not found["reason"]:
            with (
                contextlib.suppress(Dropped),
                contextlib.closing(Process(packed, way, limit)) as it,
            ):
                found["cold"].append(it.ask("call"))
                race.bar.advance(1, f"cold start of {way}")


class _Race:
    """The ways of one ensemble. One that drops out is asked no more."""

    def __init__(self, start: Start, bar: _text.Progress) -> None:
        self._start = start
        self.bar = bar
        self.running: dict[str, Any] = {}
        self.found: dict[str, dict[str, Any]] = {
            way: {"cold": [], "warm": [], "output": None, "extra": None, "reason": ""}
            for way in _measure.MORE_WAYS
        }

    def start(self, way: str) -> None:
        with self._told(way):
            self.running[way] = self._start(way)

    def ask(self, way: str, name: str, *given: Any) -> Any:
        """An answer, or None if the way has dropped out, now or before."""
        answer = None
        if way in self.running:
            with self._told(way):
                answer = self.running[way].ask(name, *given)
            self.bar.advance(name != "differing", f"{name} of {way}")
        return answer

    @contextlib.contextmanager
    def _told(self, way: str) -> Iterator[None]:
        try:
            yield
        except Dropped as dropped:
            self.found[way]["reason"] = str(dropped)
            if way in self.running:
                self.running.pop(way).close()

    def close(self) -> None:
        for process in self.running.values():
            process.close()
