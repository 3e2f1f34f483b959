"""Saves that are interrupted, and what is on disk when the same call is repeated.

    PYTHONPATH=python python tools/store_faults.py FOLDER [--kills 50] [--small FOLDER]

In FOLDER, which must not exist, ensembles are saved by processes that are killed at random moments,
by one whose function raises in the k-th chunk for all k, by four at once of which one is killed,
and, given a folder on a small file system (20 MB), onto a full disk. Each is then repeated, and all
files must be, byte for byte, those of a save that nothing interrupted. Fails where they are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import seedbed as sb

SIZE, CHUNK = 230, 10
CHUNKS = -(-SIZE // CHUNK)
# In which chunk the function raises, counted from the start of a call; None for none.
fuse: list[int | None] = [None]


class Burnt(Exception):
    """What the function raises."""


def _check(x: Any) -> Any:
    if fuse[0] is not None:
        if fuse[0] == 0:
            raise Burnt
        fuse[0] -= 1
    return x


def init(key: Any) -> Any:
    """Several leaves of several types, 6.5 KB a member."""
    w, v, k = jax.random.split(key, 3)
    return {
        "layers": [{"w": jax.random.normal(w, (40, 40)), "b": jnp.zeros(3, jnp.bfloat16)}],
        "scale": jax.random.uniform(v),
        "key": k,
    }


def checked(key: Any) -> Any:
    """The same, with a call back into Python for each chunk."""
    made = init(key)
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    made["scale"] = jax.pure_callback(_check, shape, made["scale"], vmap_method="broadcast_all")
    return made


def save(path: Path, function: Any = init, **options: Any) -> Any:
    make = sb.ensemble(function, SIZE)
    return make.save(path, jax.random.key(7), chunk_size=CHUNK, progress=False, **options)


def tree(path: Path) -> dict[str, str]:
    """All that is in a folder: names, and digests of files."""
    return {
        str(one.relative_to(path)): hashlib.sha256(one.read_bytes()).hexdigest()
        if one.is_file()
        else "folder"
        for one in sorted(path.rglob("*"))
    }


def same(path: Path, want: dict[str, str]) -> None:
    """Whether a store is as it must be, and nothing is left beside it.

    Raises:
        AssertionError: no.
    """
    got = tree(path)
    differ = [name for name in {*want, *got} if want.get(name) != got.get(name)]
    left = [one.name for one in path.parent.iterdir() if path.name in one.name and one != path]
    if differ or left:
        raise AssertionError(f"{path}: {differ} differ, {left} are left")


class Worker:
    """A process that saves when told to."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, path: Path, part: tuple[int, int] | None = None) -> None:
        self.process.stdin.write(json.dumps([str(path), part]) + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        """What became of it: a name of what `save` returned or raised, or nothing."""
        return self.process.stdout.readline().strip()

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait(60)

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def serve() -> None:
    # A process that was started in the background would ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for line in sys.stdin:
        path, part = json.loads(line)
        try:
            saved = save(Path(path), part=part and tuple(part))
            print("nothing" if saved is None else "saved", flush=True)
        except Exception as error:
            print(f"{type(error).__name__}: {error}", flush=True)


def kills(folder: Path, count: int, want: dict[str, str], seed: int = 0, number: int = 9) -> str:
    """Kills saves at random moments, and has the next process finish each.

    Every second moment is one after the first chunk was begun: before it, most time is spent.

    Returns:
        In how many of them nothing, some or all of the chunks were there.
    """
    rng = random.Random(seed)
    before: Path | None = None
    found = [0, 0, 0]
    took: tuple[float, float] | None = None
    for i in range(count + 1):
        with Worker() as worker:
            # What a process does first, it also compiles, so it is first told to do something else.
            first = before or folder / "first"
            worker.begin(first)
            if worker.answer() != "saved":
                raise AssertionError(f"{first} was not resumed")
            same(first, want)
            if i == count:
                break
            if not took:
                took = _timed(worker, folder / "timed")
            before = folder / f"killed{i}"
            grown = before.with_name(before.name + ".partial")
            worker.begin(before)
            while i % 2 and not grown.exists():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 1.1 * took[i % 2]))
            worker.kill(number)
        chunks = len([*grown.glob("scale/c.*[0-9]")]) if grown.exists() else 0
        found[2 if before.exists() else int(chunks > 0)] += 1
    return f"{count} kills: {found[0]} before a chunk was there, {found[1]} after, {found[2]} late"


def _timed(worker: Worker, path: Path) -> tuple[float, float]:
    """How long a save takes: all of it, and from when its folder is there."""
    start = time.monotonic()
    worker.begin(path)
    while not (grown := path.with_name(path.name + ".partial")).exists():
        time.sleep(0.001)
    begun = time.monotonic()
    worker.answer()
    assert not grown.exists()
    return time.monotonic() - start, time.monotonic() - begun


def exceptions(folder: Path, chunks: range, want: dict[str, str]) -> str:
    """Raises in the k-th chunk that a call makes, for some k, and repeats the call."""
    logging.getLogger("jax._src.callback").setLevel(logging.CRITICAL)
    for k in chunks:
        path = folder / f"raised{k}"
        fuse[0] = k
        try:
            save(path, checked)
        except Exception as error:
            if "Burnt" not in f"{error!r}":
                raise
        else:
            raise AssertionError(f"nothing was raised in chunk {k}")
        finally:
            fuse[0] = None
        if path.exists():
            raise AssertionError(f"{path} is there, and not whole")
        there = [*path.with_name(path.name + ".partial").glob("scale/c.*")]
        if len(there) < k - 1:
            raise AssertionError(f"of {k} chunks made, {len(there)} are there")
        save(path, checked)
        same(path, want)
    return f"an exception in each of {len(chunks)} chunks"


def full(small: Path, want: dict[str, str]) -> str:
    """Fills the disk, sees the save fail, frees it and repeats the call."""
    ballast, path = small / "ballast", small / "full"
    states = []
    space = os.statvfs(small)
    free = space.f_bavail * space.f_frsize
    whole = SIZE * 6500
    for share in (0.0, 0.3, 0.6, 0.9):
        ballast.write_bytes(b"1" * (free - int(share * whole) - (200 << 10)))
        try:
            save(path)
        except OSError as error:
            states.append(f"{error.errno}")
        else:
            raise AssertionError("the disk was not full")
        if path.exists():
            raise AssertionError(f"{path} is there, and not whole")
        ballast.unlink()
    save(path)
    same(path, want)
    return f"a full disk, at {len(states)} times: errors {', '.join(states)}"


def writers(folder: Path, count: int, want: dict[str, str], seed: int = 0) -> str:
    """Several processes write parts of one store; one is killed and started again."""
    rng = random.Random(seed)
    path = folder / "parts"
    workers = [Worker() for _ in range(count)]
    answers = []
    for i, worker in enumerate(workers):  # so that all are up, and begin at once
        worker.begin(folder / f"up{i}")
    for worker in workers:
        worker.answer()
    for i, worker in enumerate(workers):
        worker.begin(path, (i, count))
    time.sleep(rng.uniform(0, 0.2))
    workers[-1].kill()
    answers = [worker.answer() for worker in workers[:-1]]
    for worker in workers:
        worker.__exit__()
    if any(answer != "nothing" for answer in answers) and not path.exists():
        raise AssertionError(f"the others said {answers}")
    with Worker() as again:
        again.begin(path, (count - 1, count))
        answers.append(again.answer())
    if answers[-1] != "saved":
        raise AssertionError(f"the one that was killed, started again, said {answers}")
    same(path, want)
    return f"{count} writers, one killed: they said {', '.join(answers)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve()
        return
    args.folder.mkdir(parents=True)
    save(args.folder / "whole")
    save(args.folder / "checked", checked)
    want = tree(args.folder / "whole")
    print(kills(args.folder, args.kills, want), flush=True)
    print(exceptions(args.folder, range(CHUNKS), tree(args.folder / "checked")), flush=True)
    print(writers(args.folder, 4, want), flush=True)
    if args.small is not None:
        print(full(args.small, want), flush=True)
    print("all files as of saves that nothing interrupted")


if __name__ == "__main__":
    main()
