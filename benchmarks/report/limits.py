"""Markdown of the tables of `tables.limits`, each of which answers a question of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..peers import PEERS
from ..roofline.page import page
from ..store.page import page as stored
from .markdown import milliseconds, number, pair, seconds, table
from .summary import Row, ours, output, ratio, rows


def _state(row: Row, text: str) -> str:
    return text if row.status == "ok" else row.reason if row.status == "over" else row.status


def _percent(case: dict[str, Any], name: str, clock: str) -> float | None:
    times = ratio(case, name, ours(case), clock)
    return 100 / times if times else None


def scaling(run: dict[str, Any]) -> str:
    """For each case, the throughput of every peer as a percentage of the first one's."""
    parts = []
    for case in run["cases"]:
        values, _ = output(case)
        header = [case["heading"], "wall", "CPU", "G values/s", "throughput, wall / CPU"]
        lines = []
        for row in rows(case):
            wall, cpu = (_percent(case, row.name, clock) for clock in ("wall", "cpu"))
            lines.append(
                [
                    PEERS[row.name].label,
                    _state(row, milliseconds(row.wall)),
                    milliseconds(row.cpu),
                    number(row.wall and values / row.wall / 1e9, ".3f"),
                    "" if wall is None or cpu is None else f"{wall:.0f} % / {cpu:.0f} %",
                ]
            )
        parts.append(table(header, lines, "l"))
    return "\n\n".join([*parts, "Throughput: relative to the first row of its table."])


def isa(run: dict[str, Any]) -> str:
    """One row for each instruction set and number of threads, a column for each sampler."""
    names = list(dict.fromkeys(name for case in run["cases"] for name in case["peers"]))
    header = ["G values/s", *(case["heading"].split(", 2^")[0] for case in run["cases"])]
    tables = [{row.name: row for row in rows(case)} for case in run["cases"]]
    lines = []
    for name in names:
        cells = [PEERS[name].label]
        for case, of in zip(run["cases"], tables, strict=True):
            row = of.get(name)
            speed = output(case)[0] / row.wall / 1e9 if row and row.wall else None
            cells.append(_state(row, number(speed, ".3f")) if row else "")
        lines.append(cells)
    return table(header, lines, "l") + "\n\nBy wall time, 2^22 values into memory used before."


def cold(run: dict[str, Any]) -> str:
    """Seconds from the call to ready arrays, and how many times as long as seedbed takes."""
    names = list(dict.fromkeys(name for case in run["cases"] for name in case["peers"]))
    header = ["cold", *(PEERS[name].label for name in names)]
    lines, warm = [], []
    for case in run["cases"]:
        of = {row.name: row for row in rows(case)}
        cells, warm_cells = [case["heading"]], [case["heading"]]
        for name in names:
            row = of.get(name)
            text = seconds(row.cold) if row else ""
            if row and row.cold is not None and row.faster_cold and name != ours(case):
                text += f" ({row.faster_cold:.3g} x)"
            cells.append(_state(row, text) if row else "")
            warm_cells.append(milliseconds(row.wall) if row else "")
        lines.append(cells)
        if any(row.wall for row in of.values()):
            warm.append(warm_cells)
    parts = [table(header, lines, "l")]
    if warm:
        parts.append(table(["warm, wall", *header[1:]], warm, "l"))
    return "\n\n".join(parts)


def donate(run: dict[str, Any]) -> str:
    """Every peer beside fresh zeros, and what huge pages and kernels contribute."""
    parts = []
    for case in run["cases"]:
        header = [case["heading"], "wall", "CPU", "times jnp.zeros", "peak memory / output"]
        of = {row.name: row for row in rows(case)}
        lines = [
            [
                PEERS[name].label,
                _state(row, milliseconds(row.wall)),
                milliseconds(row.cpu),
                pair(ratio(case, name, "zeros", "wall"), ratio(case, name, "zeros", "cpu")),
                number(row.peak, ".2f"),
            ]
            for name, row in of.items()
        ]
        parts += [table(header, lines, "l"), _shares(of)]
    return "\n\n".join(part for part in parts if part)


def _shares(of: dict[str, Row]) -> str:
    """How much of what seedbed saves is huge pages, and how much is the kernel, by CPU time."""
    names = ("jax_unrolled", "seedbed_small_pages", "seedbed")
    times = [of[name].cpu if name in of else None for name in names]
    if None in times:
        return ""
    jax, small, huge = (1e3 * time for time in times if time is not None)
    text = (
        f"Into fresh memory seedbed takes {huge:.0f} ms of CPU time, without huge pages "
        f"{small:.0f} ms, jax with unrolled threefry {jax:.0f} ms"
    )
    if not huge < small < jax:
        return text + "."
    pages = 100 * (small - huge) / (jax - huge)
    return f"{text}: of the gain, {pages:.0f} % is huge pages and {100 - pages:.0f} % the kernels."


def latency(run: dict[str, Any]) -> str:
    """Wall time of one eager call, and that of an empty function beside it."""
    names = list(dict.fromkeys(name for case in run["cases"] for name in case["peers"]))
    header = ["one call, wall", *(PEERS[name].label for name in names), "seedbed / empty"]
    lines = []
    for case in run["cases"]:
        of = {row.name: row for row in rows(case)}
        cells = [
            _state(of[name], milliseconds(of[name].wall)) if name in of else "" for name in names
        ]
        times = [
            ratio(case, own, floor, "wall")
            for own, floor in (("seedbed_typed", "empty_typed"), ("seedbed", "empty"))
        ]
        cells.append(" / ".join(number(time, ".2f") for time in times if time is not None))
        lines.append([case["heading"], *cells])
    note = "Last column: with a typed key / with a legacy one, each beside an empty function of it."
    return table(header, lines, "l") + "\n\n" + note


def scale(run: dict[str, Any]) -> str:
    """Every peer's cold start and call, and what it needs besides its parts of the result."""
    parts = []
    for case in run["cases"]:
        header = [
            *(case["heading"], "cold CPU", "wall", "run CPU", "wall"),
            *("temporary a device", "peak a process / its parts", "collectives", "bits"),
        ]
        of = {row.name: row for row in rows(case)}
        lines = [
            [
                PEERS[row.name].label,
                _state(row, seconds(row.cold_cpu)),
                seconds(row.cold),
                milliseconds(row.cpu),
                milliseconds(row.wall),
                _bytes(row.facts.get("temporary")),
                number(row.peak, ".2f"),
                number(row.facts.get("collectives"), "d"),
                _as_one_device(case, row),
            ]
            for row in of.values()
        ]
        parts += [table(header, lines, "lrrrrrrrc"), _times_colder(of)]
    return "\n\n".join(part for part in parts if part)


def _bytes(count: int | None) -> str:
    if count is None:
        return ""
    return f"{count} B" if count < 1 << 20 else f"{count / 1e6:.1f} MB"


def _as_one_device(case: dict[str, Any], row: Row) -> str:
    """Whether a result has the bits of `jax.jit` on one device; blank for another key chain."""
    if row.same_bits is False:
        return "**DIFFERENT**"
    digests = [case["peers"].get(name, {}).get("digest") for name in (row.name, "jit_1")]
    if None in digests or row.name.startswith("create_sharded"):
        return ""
    return "same" if digests[0] == digests[1] else "other"


def _times_colder(of: dict[str, Row]) -> str:
    """How many times the CPU time of a cold start is jax's, on as many devices."""
    said = []
    for name, row in of.items():
        way, _, devices = name.rpartition("_")
        mine = of.get(f"single_{devices}") or of.get(f"sharded_{devices}")
        if way in ("jit", "create_sharded") and mine and row.cold_cpu and mine.cold_cpu:
            said.append(f"{row.cold_cpu / mine.cold_cpu:.1f} x for {PEERS[name].label}")
    return f"Cold, CPU time beside seedbed's on as many devices: {'; '.join(said)}." if said else ""


def lazy(run: dict[str, Any]) -> str:
    """Every peer's call, and what a loop needs besides its result."""
    parts = []
    for case in run["cases"]:
        header = [case["heading"], "cold", "warm wall", "warm CPU", "temporary", "bits"]
        lines = [
            [
                PEERS[row.name].label,
                _state(row, seconds(row.cold)),
                milliseconds(row.wall),
                milliseconds(row.cpu),
                _bytes(row.facts.get("temporary")),
                {True: "same", False: "**DIFFERENT**"}.get(row.same_bits, ""),
            ]
            for row in rows(case)
        ]
        parts.append(table(header, lines, "lrrrrc"))
    return "\n\n".join(parts)


def bounds(run: dict[str, Any]) -> str:
    """The bounds of this machine, and every kernel as a fraction of its own."""
    return page(run["measured"])


OVERVIEWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "scaling": scaling,
    "isa": isa,
    "cold": cold,
    "donate": donate,
    "latency": latency,
    "scale": scale,
    "lazy": lazy,
    "roofline": bounds,
    "store": lambda run: stored(run["measured"]),
}
