"""Reads every byte of a folder that `seedbed init` or `make.save` made, and compares it with its
checksum."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from .._store import format as formats
from .._store import saved
from . import INTERRUPTED, OK, WRONG, _text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder")
    parser.add_argument("--no-progress", action="store_true", help="show no bar")


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    try:
        store = saved.load(args.folder)
        store.verify(progress=not args.no_progress)
    except (formats.StoreError, OSError, ImportError) as error:
        print(f"seedbed verify: {error}", file=sys.stderr)
        return WRONG
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was found wrong until here", file=sys.stderr)
        return INTERRUPTED
    seconds = time.perf_counter() - started
    print(
        f"all {store.size:,} members of {args.folder} are as they were written: "
        f"{_text.size(store.nbytes)} read in {_text.seconds(seconds)}"
    )
    return OK
