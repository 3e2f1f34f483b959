"""How fast narrow blocks of a draw are made, beside as many elements in one row.

    python tools/narrow_tiles.py [--columns 16 20 ...] [--isas avx512 avx2] [--rounds 60]

One thread makes a block of a matrix, by columns; each cell is the rate of such a block by that of
one long row, and the long row's own rate stands last. Times are of the thread's CPU, taken in
turns, and the least of all rounds counts, so that a busy machine changes little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from seedbed import _cpu
from seedbed._plan import Draw, KeyMode, KeyPath, Kind, Level, float_params, key_path, make_draw
from seedbed._plan import params as integers
from seedbed._run import native

ELEMENTS = 1 << 17
WIDTH = 1 << 12  # of the matrix, in blocks
_NORMAL = float_params(Kind.NORMAL, 32, span=2.0, low=-0.99999994, factor=2**0.5)
_RANDINT = integers(Kind.RANDINT, span=1000, multiplier=296, first=5)


def draw_of(name: str, path: KeyPath, shape: tuple[int, ...]) -> Draw:
    if name == "normal":
        return make_draw(Kind.NORMAL, path, 32, "float32", shape, _NORMAL)
    if name == "randint":
        return make_draw(Kind.RANDINT, path, 32, "int32", shape, _RANDINT)
    width = int(name.removeprefix("bits"))
    return make_draw(Kind.BITS, path, width, f"uint{width}", shape)


def maker(draw: Draw, tile: tuple[int, ...] | None, isa: str) -> Callable[[], None]:
    """A function that makes a draw, or the last but one of its blocks."""
    out = np.zeros(tile or draw.shape, draw.dtype)
    keys = np.array([[1, 2]], np.uint32)
    given: dict[str, Any] = {"blocks": np.array([0, WIDTH - 2], np.uint32)} if tile else {}
    plan, mode = native.encode((draw,), (tile,) if tile else ()), KeyMode.MEMBER_KEYS
    return lambda: _cpu.run_plan(plan, mode, 1, keys, keys, [out], isa, 1, **given)


def least(makers: list[Callable[[], None]], rounds: int) -> list[float]:
    """Seconds of the thread for a call of each, in turns; the first rounds, at whatever clock the
    machine had before, do not count."""
    found = [float("inf")] * len(makers)
    for turn in range(-rounds // 4, rounds):
        for i, make in enumerate(makers):
            start = time.thread_time()
            make()
            if turn >= 0:
                found[i] = min(found[i], time.thread_time() - start)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    columns = [1, 2, 3, 4, 5, 8, 12, 15, 16, 17, 20, 24, 31, 32, 40, 48, 64, 80, 100, 128, 200, 300]
    parser.add_argument("--columns", type=int, nargs="*", default=columns)
    parser.add_argument("--isas", nargs="*", default=_cpu.isas())
    parser.add_argument("--names", nargs="*", default=["bits32", "normal", "bits64", "randint"])
    parser.add_argument("--keyed", action="store_true", help="every row has a key of its own")
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    for isa in args.isas:
        print(f"{isa:16}", *(f"{n:5}" for n in args.columns), "  G/s")
        for name in args.names:
            makers = [maker(draw_of(name, KeyPath(), (ELEMENTS,)), None, isa)]
            for n in args.columns:
                rows = ELEMENTS // n
                path = key_path((rows,) if args.keyed else (), KeyPath().node, _levels(args.keyed))
                makers.append(maker(draw_of(name, path, (rows, n * WIDTH)), (rows, n), isa))
            full, *narrow = least(makers, args.rounds)
            rates = [full / ELEMENTS * (ELEMENTS // n * n) for n in args.columns]
            ratios = [rate / one for rate, one in zip(rates, narrow, strict=True)]
            print(f"{name:16}", *(f"{x:5.2f}" for x in ratios), f"{ELEMENTS / full / 1e9:5.2f}")


def _levels(keyed: bool) -> list[Level]:
    return [Level(0, (1,))] if keyed else []


if __name__ == "__main__":
    main()
