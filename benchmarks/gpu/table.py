"""What a run on a GPU found, as Markdown."""

from __future__ import annotations

import statistics
from typing import Any

from ..report import markdown


def table(run: dict[str, Any]) -> str:
    """Device, raw draws and ensembles as Markdown."""
    device = run["device"]
    smi = device.get("nvidia_smi", {})
    lines = [f"{device['name']}, driver {smi.get('driver_version', 'unknown')}", ""]
    if run["raw"]:
        baselines = ("jax", "jax_kernel", "jax_rbg", "torch", "curand_philox", "curand_xorwow")
        header = ["draw", "ms", "G/s", "of write bound", "of issue bound"]
        header += [f"x {name}" for name in baselines] + ["differ from jax"]
        rows = [_raw_row(found, baselines) for found in run["raw"]]
        lines += [markdown.table(header, rows, "l"), ""]
    if run["ensembles"]:
        baselines = ("jax", "jax_kernel", "jax_rbg", "nnx", "equinox", "torch", "zeros")
        header = ["ensemble, warm / cold", "seedbed", "donate", "peak", "jax's peak", "bits"]
        header += [f"x {name}" for name in baselines]
        rows = [_ensemble_row(found, baselines) for found in run["ensembles"]]
        lines += [markdown.table(header, rows, "l"), ""]
    lines.append(
        "x: times faster, medians of the ratios within a round; bounds: least time / time."
    )
    if "note" in run["ops"]:
        lines.append(f"Issue bound: {run['ops']['note']}.")
    return "\n".join(lines)


def _ratio(ours: list[float], theirs: list[float]) -> str:
    pairs = [b / a for a, b in zip(ours, theirs, strict=False)]
    return f"{statistics.median(pairs):.2f}" if pairs else ""


def _raw_row(found: dict[str, Any], baselines: tuple[str, ...]) -> list[str]:
    peers = found["peers"]
    title = f"{found['kind']} 2^{found['elements'].bit_length() - 1}"
    ours = peers["seedbed"].get("seconds") or []
    if not ours:
        return [title, peers["seedbed"].get("missing", ""), *[""] * (4 + len(baselines))]
    median = statistics.median(ours)
    share = [f"{least / median:.0%}" if least else "" for least in found["bounds"].values()]
    issue, write = share
    cells = [title, f"{median * 1e3:.3f}", f"{found['elements'] / median / 1e9:.1f}", write, issue]
    cells += [_ratio(ours, peers.get(name, {}).get("seconds") or []) for name in baselines]
    same = found["identity"]
    return [*cells, f"{same['differing']:,} ({same['max_ulp']} ulp)" if same else ""]


def _ensemble_row(found: dict[str, Any], baselines: tuple[str, ...]) -> list[str]:
    peers = found["peers"]
    title = f"{found['title']}, {found['members']:,} members, {found['bytes'] / 1e9:.2f} GB"
    ours = peers["seedbed"]
    if "cold" not in ours:
        return [title, ours.get("missing", ""), *[""] * (4 + len(baselines))]

    def times(name: str) -> str:
        result = peers.get(name, {})
        if "cold" not in result:
            return ""
        warm = f"{statistics.median(result['warm']) * 1e3:.2f} ms" if result["warm"] else "-"
        return f"{warm} / {result['cold']:.2f} s"

    def peak(name: str) -> str:
        result = peers.get(name, {})
        return f"{result['peak'] / result['bytes']:.2f}" if result.get("peak") else ""

    def ratio(name: str) -> str:
        result = peers.get(name, {})
        if "cold" not in result:
            return result.get("missing", "")[:24]
        return f"{_ratio(ours['warm'], result['warm'])} / {result['cold'] / ours['cold']:.1f}"

    same = {True: "same", False: "differ", None: ""}[found["same_bits"]]
    cells = [title, times("seedbed"), times("seedbed_donate"), peak("seedbed"), peak("jax"), same]
    return cells + [ratio(name) for name in baselines]
