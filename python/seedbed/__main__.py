"""``python -m seedbed``, also installed as the script ``seedbed``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from . import __version__
from .cli import USAGE, bench, demo, doctor, explain, info, init, show, verify

_COMMANDS = {
    "info": (info, "show versions, the native extension, and what is in force here"),
    "doctor": (doctor, "check every native kernel against this machine's XLA, exhaustively"),
    "demo": (demo, "initialise a large ensemble, check it, time it, and draw a picture"),
    "bench": (bench, "measure an init function of yours beside jax's own ways"),
    "explain": (explain, "what an init function becomes: draws, keys, and who makes each array"),
    "init": (init, "initialise an ensemble into a folder, larger than memory if it has to be"),
    "show": (show, "what is in such a folder, and statistics of some members, also as a picture"),
    "verify": (verify, "read every byte of such a folder and compare it with its checksum"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand and returns the exit code (see `seedbed.cli`)."""
    parser = argparse.ArgumentParser(
        prog="seedbed",
        description="Very large ensembles of JAX models, initialised in one fused native call.",
    )
    parser.add_argument("--version", action="version", version=f"seedbed {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    for name, (command, help_text) in _COMMANDS.items():
        subparser = commands.add_parser(name, help=help_text, description=command.__doc__)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    try:
        return int(args.run(args))
    except ValueError as error:
        # Only values from outside are reported so; a ValueError of the package is a bug.
        if "SEEDBED_" not in str(error):
            raise
        print(f"seedbed: {error}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main())
