"""A cost model on paper: time and bytes for many members and for large models, on many hosts.

    python tools/scale_cost.py [benchmarks/results/jax-0.12.0.1]

Prints the tables of ``docs/scaling.md`` from stored results. Nothing is measured: all hosts are
taken to be like the machine of the results, and to start at once.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MEMBERS = range(3, 10)  # powers of ten
PARAMETERS = (1, 7, 70)
HOSTS = (1, 8, 64, 512, 4096)
# What is stored is float32.
BYTES = 4


def main(folder: Path) -> None:
    runs = [json.loads((folder / f"{name}.json").read_text()) for name in ("ensembles", "cold")]
    cases = {case["name"]: case for run in runs for case in run["cases"]}
    made = {name: case["peers"]["seedbed"] for name, case in cases.items()}
    about = runs[0]["environment"]
    memory = about["memory_gib"] * 2**30
    print(f"{about['cores']} cores, {about['memory_gib']} GiB; jax {about['packages']['jax']}\n")
    mlp, leaf, leaves = (cases[name] for name in ("mlp", "huge-leaf", "cold-leaves-800"))
    member = made["mlp"]["values"] / mlp["members"]
    rows = [(f"10^{power}", 10**power * member) for power in MEMBERS]
    start = median(made["mlp"]["cold_wall"]) - median(made["mlp"]["warm_wall"])
    print(f"members of {member:,.0f} values, as in {mlp['heading']}")
    _table("members", rows, _rate(made["mlp"]), start, memory)
    rows = [(f"{n} B", n * 1e9) for n in PARAMETERS]
    start = median(made["cold-leaves-800"]["cold_wall"])
    print(f"values as in {leaf['heading']}; start of {leaves['heading']}")
    _table("parameters", rows, _rate(made["huge-leaf"]), start, memory)


def _rate(peer: dict[str, Any]) -> float:
    """Values a second of a host, of a warm call into fresh memory."""
    values: int = peer["values"]
    return values / median(peer["warm_wall"])


def _table(
    name: str, rows: list[tuple[str, float]], rate: float, start: float, memory: float
) -> None:
    """Times of fresh processes; a star where the result does not fit into the hosts' memory."""
    print(f"{rate / 1e9:.3f} G values/s a host, and {start:.2f} s to start")
    print(f"| {name} | bytes | hosts that hold it |", *(f"{n:,} |" for n in HOSTS))
    print("|" + " ---: |" * (3 + len(HOSTS)))
    for label, values in rows:
        size = values * BYTES
        needed = max(-(-size // memory), 1)
        times = [
            f"{_seconds(start + values / rate / hosts)}{'' if hosts >= needed else ' *'} |"
            for hosts in HOSTS
        ]
        print(f"| {label} | {_bytes(size)} | {needed:,.0f} |", *times)
    print()


def _seconds(value: float) -> str:
    if value < 100:
        return f"{value:.2g} s"
    return f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.0f} h"


def _bytes(value: float) -> str:
    for unit in ("MB", "GB", "TB"):
        value /= 1e6 if unit == "MB" else 1e3
        if value < 1000:
            break
    return f"{value:.3g} {unit}"


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks/results/jax-0.12.0.1")
