"""The roofline alone, printed: ``python -m benchmarks.roofline`` from the repository root."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import environment
from . import bounds
from .page import page


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the tables, and writes the figures as JSON where asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.roofline", description=(bounds.__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    parser.add_argument("--rounds", type=int, default=300, help="samples of each loop and kernel")
    parser.add_argument("--megabytes", type=int, default=176, help="size of the memory tests")
    options = parser.parse_args(arguments)
    described = environment.describe()
    try:
        run = bounds.measure(options.rounds, options.megabytes)
    except (OSError, RuntimeError) as error:
        print(f"roofline: {error}", file=sys.stderr)
        return 2
    print(page(run))
    if options.json:
        run["environment"] = described | {"load_after": environment.load()}
        options.json.write_text(json.dumps(run, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
