"""The figures of stores as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

_LABELS = {
    "seedbed": "seedbed: `make.save`",
    "raw": "raw write + fsync, one buffer again and again",
    "raw_direct": "the same past the system's cache (`O_DIRECT`)",
    "orbax": "Orbax alone: `StandardCheckpointer.save(make(key))`",
    "zarr": "zarr-python, from `make.stream`, then fsync",
    "npy": "`np.save` of each leaf of `make(key)`, then fsync",
}
_READERS = {
    "seedbed": "seedbed: `sb.load`",
    "zarr": "zarr-python, of seedbed's store",
    "orbax": "Orbax alone, of seedbed's store",
    "npy": "`np.load` of its own files, mapped",
}


def page(run: dict[str, Any]) -> str:
    """The tables as Markdown."""
    size = run["bytes"]
    limit = f", seedbed's process limited to {run['limit'] / 1e9:.2g} GB" if run["limit"] else ""
    lines = [
        f"**Writing** {run['members']:,} members, {size / 1e9:.3g} GB{limit}",
        "",
        "| | MB/s | CPU s | peak memory | beside raw, by rounds |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name, label in _LABELS.items():
        rounds = run["writes"].get(name)
        if rounds:
            lines.append(f"| {label} | {' | '.join(_written(run, name, rounds))} |")
    lines += [
        "",
        "Medians of the rounds. From the call to what is on the disk, members made within it, but "
        "for raw writes. Peak memory is what the process grew by.",
        "",
        "**Reading** from the disk, not from the system's cache",
        "",
        "| | first member, with opening | another member | all, MB/s | bytes |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name, label in _READERS.items():
        if name in run["reads"]:
            lines.append(f"| {label} | {' | '.join(_read(run['reads'][name], size))} |")
    return "\n".join(lines)


def _written(run: dict[str, Any], name: str, rounds: list[dict[str, Any]]) -> list[str]:
    done = [one for one in rounds if "wall" in one]
    if not done:
        return [rounds[0]["failed"], "", "", ""]
    shares = [
        f"{raw['wall'] / one['wall']:.2f}"
        for one, raw in zip(rounds, run["writes"]["raw"], strict=False)
        if "wall" in one and "wall" in raw
    ]
    return [
        f"{run['bytes'] / statistics.median(one['wall'] for one in done) / 1e6:.0f}",
        f"{statistics.median(one['cpu'] for one in done):.1f}",
        f"{statistics.median(one['peak'] for one in done) / 1e6:,.0f} MB",
        " ".join(shares) if name != "raw" else "",
    ]


def _read(read: dict[str, Any], size: int) -> list[str]:
    if "failed" in read:
        return [read["failed"], "", "", ""]
    same = {True: "as made", False: "**DIFFERENT**", None: "not compared"}[read.get("same_bytes")]
    times = [f"{read[name] * 1e3:,.1f} ms" for name in ("first", "one")]
    return [*times, f"{size / read['all'] / 1e6:.0f}", same]
