"""Stores alone, printed: ``python -m benchmarks.store`` from the repository root."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import environment
from . import turns
from .page import page


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, and writes the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.store", description=(turns.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--bytes", type=float, default=1.5e9, help="of the ensemble (1.5e9)")
    parser.add_argument("--rounds", type=int, default=5, help="writes by every way (5)")
    parser.add_argument(
        "--limit", type=float, default=0, help="bytes of address space for seedbed's process"
    )
    parser.add_argument("--folder", type=Path, help="on the disk to be measured")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    options = parser.parse_args(arguments)
    described = environment.describe()
    run = turns.measure(
        int(options.bytes),
        options.rounds,
        int(options.limit),
        options.folder,
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(page(run))
    if options.json:
        run["environment"] = described | {"load_after": environment.load()}
        options.json.write_text(json.dumps(run, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
