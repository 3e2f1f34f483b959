"""The benchmark of GPUs: ``python -m benchmarks.gpu [--quick] [--out DIR]`` from the root.

Raw draws beside XLA's generators, cuRAND and torch, with what bounds them; ensembles beside jax's
own and frameworks' ways, cold and warm, with their peaks of memory. ``--dry-run`` goes through all
of it with tiny sizes on the CPU. The table comes last; every sample is in ``gpu.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any

# One folder deeper than the runs that report.py reads.
RESULTS = Path(__file__).parent / "results" / "gpu"
PEERS = (
    *("seedbed", "seedbed_donate", "jax", "jax_kernel", "jax_rbg"),
    *("nnx", "equinox", "torch", "zeros"),
)
FEW = ("seedbed", "jax", "torch", "zeros")
KINDS = ("bits", "uniform", "normal", "normal_bf16")
# Case, members and peers; the smaller ones first, since time may run out.
_FULL = (
    ("mlp", 8192, PEERS),
    ("transformer", 512, PEERS),
    ("many-leaves", 4096, PEERS),
    ("mlp", 128, FEW),
    ("mlp", 65536, FEW),
    ("many-leaves", 65536, ("seedbed", "zeros")),
    ("transformer", 4096, ("seedbed", "jax", "zeros")),
)
_QUICK = (("mlp", 8192, (*FEW, "jax_kernel")), ("many-leaves", 4096, ("seedbed", "zeros")))
_DRY = (("tiny", 3, PEERS),)
_SHARE = 0.55  # of the time, for the ensembles
_COUNTED_FROM = (
    "73 integer operations an element, from the definition of the cipher; --ops gives those of the "
    "machine code"
)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    if options.dry_run:
        os.environ["JAX_PLATFORMS"] = "cpu"
    # Several libraries share the device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    from . import environment, gpu_device

    device = jax.devices()[0]
    if device.platform == "cpu" and not options.dry_run:
        print("jax has no GPU here; --dry-run tries the runner on the CPU", file=sys.stderr)
        return 2
    described = gpu_device.describe(device)
    out = options.out or RESULTS / re.sub(r"[^\w.-]+", "-", described["name"]).strip("-")
    out.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    ops = json.loads(options.ops.read_text()) if options.ops else {}
    # Of tools/sass.py, which counts for each architecture.
    ops = ops.get(f"sm_{described['compute_capability']}".replace(".", ""), ops)
    run: dict[str, Any] = {
        "environment": environment.describe() | {"packages_gpu": _versions()},
        "device": described,
        "settings": {"quick": options.quick, "dry_run": options.dry_run, "budget": options.budget},
        "ops": {"by_kind": ops, "default": gpu_device.DEFAULT_OPS, "rates": gpu_device.RATES}
        | ({} if ops else {"note": _COUNTED_FROM}),
        "raw": [],
        "ensembles": [],
    }
    path = out / "gpu.json"
    # The ensembles first: what raw draws leave in this process's pools of memory stays there.
    both = len(set(options.parts)) == 2
    for part, share in ((_ensembles, _SHARE if both else 1.0), (_raw, 1.0)):
        for found in part(options, started + share * options.budget, ops, described):
            run["raw" if part is _raw else "ensembles"].append(found)
            path.write_text(_json(run))  # a run that is cut off keeps what it has
    print(report(run), flush=True)
    _log(f"wrote {path}")
    return 0 if run["raw"] or run["ensembles"] else 1


def _raw(options: argparse.Namespace, deadline: float, ops: Any, described: dict[str, Any]) -> Any:
    from . import gpu_raw

    if "raw" not in options.parts:
        return
    sizes = (10, 12) if options.dry_run else (24, 28) if options.quick else (24, 26, 28)
    rounds = options.rounds or (3 if options.dry_run else 7 if options.quick else 15)
    for power in reversed(sizes):
        for kind in KINDS:
            if time.monotonic() > deadline:
                _log(f"! no time for {kind} 2^{power}")
                continue
            found = gpu_raw.measure(kind, 1 << power, rounds, _log)
            found["bounds"] = gpu_raw.bounds(found, ops, described["processors"])
            yield found


def _ensembles(
    options: argparse.Namespace, deadline: float, ops: Any, described: dict[str, Any]
) -> Any:
    from . import gpu_ensembles

    if "ensembles" not in options.parts:
        return
    rounds = options.rounds or (2 if options.dry_run else 5 if options.quick else 9)
    cap = options.cap or (45.0 if options.quick else 120.0)
    platforms = "cpu" if options.dry_run else "cuda,cpu"
    for name, members, peers in _DRY if options.dry_run else _QUICK if options.quick else _FULL:
        if time.monotonic() > deadline - 15:
            _log(f"! no time for {name}, {members:,} members")
            continue
        yield gpu_ensembles.measure(name, members, peers, rounds, deadline, cap, platforms, _log)


# --- the table -----------------------------------------------------------------------------


def report(run: dict[str, Any]) -> str:
    from . import markdown

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


def _versions() -> dict[str, str]:
    import importlib.metadata

    packages = {}
    for name in (
        *("jax-cuda13-plugin", "jax-cuda13-pjrt", "jax-cuda12-plugin", "nvidia-curand"),
        *("cupy-cuda13x", "cupy-cuda12x", "nvidia-cuda-runtime"),
    ):
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return packages


def _json(run: dict[str, Any]) -> str:
    """Indented, but with lists of numbers on one line."""
    text = json.dumps(run, indent=1)
    return re.sub(r"\[([-+.\de,\s]+)\]", lambda m: f"[{' '.join(m[1].split())}]", text) + "\n"


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("--quick", action="store_true", help="fewer sizes, peers and rounds")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes, on the CPU")
    parser.add_argument("--out", type=Path, help="folder of gpu.json")
    parser.add_argument("--rounds", type=int, help="timed rounds")
    parser.add_argument("--cap", type=float, help="seconds after which a cold start is given up")
    parser.add_argument(
        "--budget", type=float, default=3600.0, help="seconds after which nothing more is started"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=("raw", "ensembles"), default=["raw", "ensembles"]
    )
    parser.add_argument(
        "--ops",
        type=Path,
        help='operations an element by draw and pipe, as JSON: {"bits": {"alu": 73, "fma": 0, '
        '"issue": 80}}',
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
