"""One result beside an older one: what became slower, apart from the machine itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

from ..peers import PEERS
from .markdown import milliseconds, table

# A loss that is reported: slower by more than a tenth.
ALLOWED = 1.10
CLOCKS = {"warm_wall": "warm wall", "warm_cpu": "warm CPU", "cold_wall": "cold"}


@dataclass(frozen=True)
class Change:
    """One peer of one case by one clock.

    Attributes:
        before, after: medians, in seconds.
        machine: how much longer the peers that are not seedbed took in the same case, which is
            what another machine, or another hour, makes of everything.
        ratio: after / before / machine; above 1 is slower.
        lost: whether this is seedbed and more than `ALLOWED` slower, by the medians and by the
            least of the samples, which a busy machine disturbs less.
    """

    case: str
    peer: str
    clock: str
    before: float
    after: float
    machine: float
    ratio: float
    lost: bool


def compare(base: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Every peer that ran in both results, case by case.

    Args:
        base, new: results of one table, as the runner stores them.

    Raises:
        ValueError: the results are of different tables or sizes, or share no case.
    """
    if base["table"] != new["table"]:
        raise ValueError(f"the results are of {base['table']!r} and of {new['table']!r}")
    old = {case["name"]: case for case in base["cases"]}
    shared = [(old[case["name"]], case) for case in new["cases"] if case["name"] in old]
    if not shared:
        raise ValueError(f"the results of {base['table']!r} share no case")
    changes = []
    for before, after in shared:
        if before["heading"] != after["heading"]:
            raise ValueError(f"{before['name']} is {before['heading']!r} and {after['heading']!r}")
        for clock in CLOCKS:
            changes += _changes(before, after, clock)
    return changes


def _changes(before: dict[str, Any], after: dict[str, Any], clock: str) -> list[Change]:
    samples: dict[str, tuple[list[float], list[float]]] = {}
    for name, peer in after["peers"].items():
        both = before["peers"].get(name, {}).get(clock), peer.get(clock)
        if name in PEERS and all(both):
            samples[name] = both
    machine, ratios = _ratios(samples, median)
    _, least = _ratios(samples, min)
    changes = []
    for name, (old, new) in samples.items():
        lost = PEERS[name].is_seedbed and min(ratios[name], least[name]) > ALLOWED
        times = (median(old), median(new), machine, ratios[name])
        changes.append(Change(after["heading"], name, clock, *times, lost))
    return changes


def _ratios(
    samples: dict[str, tuple[list[float], list[float]]], of: Callable[[list[float]], float]
) -> tuple[float, dict[str, float]]:
    """What the machine makes of every time, and each peer's own share of its change."""
    times = {name: of(new) / of(old) for name, (old, new) in samples.items()}
    others = [time for name, time in times.items() if not PEERS[name].is_seedbed]
    machine = median(others) if others else 1.0
    return machine, {name: time / machine for name, time in times.items()}


def report(changes: list[Change]) -> str:
    """All ratios, and below them the losses."""
    lines = [
        [
            change.case,
            PEERS[change.peer].label,
            CLOCKS[change.clock],
            milliseconds(change.before),
            milliseconds(change.after),
            f"{change.machine:.2f}",
            f"{change.ratio:.2f}",
            "**slower**" if change.lost else "",
        ]
        for change in changes
    ]
    header = ["case", "peer", "clock", "before", "after", "machine", "ratio", ""]
    lost = sum(change.lost for change in changes)
    parts = [table(header, lines, "lllrrrrl")]
    parts.append(
        "machine: how many times longer the peers that are not seedbed took in this case. "
        "ratio: after / before / machine; above 1 is slower. A loss counts if the least of the "
        "samples says the same."
    )
    parts.append(f"{lost} of {len(changes)} more than {ALLOWED - 1:.0%} slower.")
    return "\n\n".join(parts)
