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
import sys
import time
from pathlib import Path
from typing import Any

# One folder deeper than the runs that the page shows.
RESULTS = Path(__file__).parents[1] / "results" / "gpu"
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

    from .. import environment, result
    from .device import DEFAULT_OPS, RATES, describe
    from .table import table

    device = jax.devices()[0]
    if device.platform == "cpu" and not options.dry_run:
        print("jax has no GPU here; --dry-run tries the runner on the CPU", file=sys.stderr)
        return 2
    described = describe(device)
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
        "ops": {"by_kind": ops, "default": DEFAULT_OPS, "rates": RATES}
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
            path.write_text(result.text(run))  # a run that is cut off keeps what it has
    print(table(run), flush=True)
    _log(f"wrote {path}")
    return 0 if run["raw"] or run["ensembles"] else 1


def _raw(options: argparse.Namespace, deadline: float, ops: Any, described: dict[str, Any]) -> Any:
    from . import raw

    if "raw" not in options.parts:
        return
    sizes = (10, 12) if options.dry_run else (24, 28) if options.quick else (24, 26, 28)
    rounds = options.rounds or (3 if options.dry_run else 7 if options.quick else 15)
    for power in reversed(sizes):
        for kind in KINDS:
            if time.monotonic() > deadline:
                _log(f"! no time for {kind} 2^{power}")
                continue
            found = raw.measure(kind, 1 << power, rounds, _log)
            found["bounds"] = raw.bounds(found, ops, described["processors"])
            yield found


def _ensembles(
    options: argparse.Namespace, deadline: float, ops: Any, described: dict[str, Any]
) -> Any:
    from . import ensembles

    if "ensembles" not in options.parts:
        return
    rounds = options.rounds or (2 if options.dry_run else 5 if options.quick else 9)
    cap = options.cap or (45.0 if options.quick else 120.0)
    platforms = "cpu" if options.dry_run else "cuda,cpu"
    for name, members, peers in _DRY if options.dry_run else _QUICK if options.quick else _FULL:
        if time.monotonic() > deadline - 15:
            _log(f"! no time for {name}, {members:,} members")
            continue
        yield ensembles.measure(name, members, peers, rounds, deadline, cap, platforms, _log)


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
