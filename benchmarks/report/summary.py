"""From raw samples to the numbers that tables and figures show."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

# The peers of these prefixes draw nothing.
FLOOR = ("zeros", "empty")


@dataclass(frozen=True)
class Row:
    """One peer of one case. Times in seconds; None where it was not measured.

    Attributes:
        wall, cpu: medians of the warm calls.
        spread: first and third quartile of the warm wall times.
        cold, cold_cpu: median wall and CPU time of a cold start.
        peak: largest growth of resident memory during a call, as a multiple of the output, or of
            what the process holds of it.
        faster_wall, faster_cpu: median over rounds of this peer's time divided by the time of
            `ours` in the same round, so that a machine that slows down cancels out.
        faster_cold: this peer's median cold start divided by that of `ours`.
    """

    name: str
    status: str
    reason: str
    wall: float | None
    cpu: float | None
    spread: tuple[float, float] | None
    cold: float | None
    cold_cpu: float | None
    peak: float | None
    faster_wall: float | None
    faster_cpu: float | None
    faster_cold: float | None
    same_bits: bool | None
    facts: dict[str, Any]


def rows(case: dict[str, Any]) -> list[Row]:
    """One row for each peer of a case, in the order of the case."""
    peers = case["peers"]
    own = peers.get(ours(case), {})
    return [_row(name, peer, own) for name, peer in peers.items()]


def ours(case: dict[str, Any]) -> str:
    """Name of the peer that the case's ratios are of."""
    return str(case.get("ours", "seedbed"))


def ratio(case: dict[str, Any], name: str, other: str, clock: str) -> float | None:
    """Median over rounds of one peer's warm time over another's; ``clock``: ``wall`` or ``cpu``."""
    samples = [case["peers"].get(one, {}).get(f"warm_{clock}") for one in (name, other)]
    return _paired(*samples)


def output(case: dict[str, Any]) -> tuple[int, int]:
    """Number of values and bytes that every peer of the case makes; zeros if none ran."""
    made: dict[str, Any] = next((peer for peer in case["peers"].values() if "bytes" in peer), {})
    return made.get("values", 0), made.get("bytes", 0)


def _row(name: str, peer: dict[str, Any], own: dict[str, Any]) -> Row:
    wall, cold = peer.get("warm_wall"), peer.get("cold_wall")
    own_cold = own.get("cold_wall")
    growth, made = peer.get("peak_growth"), peer.get("held", peer.get("bytes"))
    return Row(
        name=name,
        status=peer["status"],
        reason=peer.get("reason", ""),
        wall=_median(wall),
        cpu=_median(peer.get("warm_cpu")),
        spread=_quartiles(wall),
        cold=_median(cold),
        cold_cpu=_median(peer.get("cold_cpu")),
        peak=max(growth) / made if growth and made else None,
        faster_wall=_paired(wall, own.get("warm_wall")),
        faster_cpu=_paired(peer.get("warm_cpu"), own.get("warm_cpu")),
        faster_cold=median(cold) / median(own_cold) if cold and own_cold else None,
        same_bits=peer.get("same_bits"),
        facts=peer.get("facts") or {},
    )


def _median(samples: list[float] | None) -> float | None:
    return median(samples) if samples else None


def _quartiles(samples: list[float] | None) -> tuple[float, float] | None:
    if not samples or len(samples) < 2:
        return None
    first, _, third = quantiles(samples, n=4, method="inclusive")
    return first, third


def _paired(theirs: list[float] | None, ours: list[float] | None) -> float | None:
    if not theirs or not ours or len(theirs) != len(ours):
        return None
    return median(a / b for a, b in zip(theirs, ours, strict=True) if b > 0)
