"""Plain text for a terminal: numbers read, tables, and a progress bar that leaves no trace."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from types import TracebackType


def positive(text: str) -> int:
    """An argument that counts something."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive integer")
    return number


def positives(text: str) -> list[int]:
    """An argument that counts several things: ``16,128,1024``."""
    return [positive(one) for one in text.split(",")]


def table(rows: Sequence[Sequence[str]], indent: str = "  ") -> str:
    """Rows under a ruled header; the first column is text, the others are numbers."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(indent + line for line in lines)


def fields(pairs: Sequence[tuple[str, str]], indent: str = "  ") -> str:
    """Names and values in two columns."""
    width = max(len(name) for name, _ in pairs)
    lines = []
    for name, value in pairs:
        first, *more = value.splitlines() or [""]
        lines.append(f"{indent}{name.ljust(width)}  {first}".rstrip())
        lines += [f"{indent}{' ' * width}  {line}" for line in more]
    return "\n".join(lines)


def seconds(value: float) -> str:
    """A duration with three digits: ``42.1 ms``, ``1.53 s``."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} us"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"


def count(things: Sequence[object], word: str) -> str:
    """How many there are: ``1 array``, ``3 arrays``."""
    return f"{len(things):,} {word}{'s' * (len(things) != 1)}"


def size(value: float) -> str:
    """A number of bytes with three digits, in powers of 1000: ``1.27 kB``, ``175 MB``."""
    for unit in ("bytes", "kB", "MB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} GB" if value < 999.5 else f"{value:,.0f} GB"


class Progress:
    """A bar on stderr while the block runs, if stderr is a terminal.

    Args:
        total: the amount of work, in the units of `advance`.
    """

    _BAR = 28

    def __init__(self, total: int) -> None:
        self.total = max(total, 1)
        self.done = 0
        self.visible = sys.stderr.isatty()
        self._shown: tuple[int, str] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.visible:
            self._write("")
            sys.stderr.write("\r")
            sys.stderr.flush()

    def advance(self, amount: int, label: str) -> None:
        """Counts work that is done and says what is being done."""
        self.done += amount
        if not self.visible:
            return
        share = min(self.done / self.total, 1.0)
        if self._shown == (shown := (int(share * 100), label)):
            return
        self._shown = shown
        filled = int(share * self._BAR)
        self._write(f"[{'#' * filled}{'.' * (self._BAR - filled)}] {share:4.0%}  {label}")

    def _write(self, text: str) -> None:
        width = max(shutil.get_terminal_size().columns - 1, 20)
        sys.stderr.write("\r" + text[:width].ljust(width))
        sys.stderr.flush()
