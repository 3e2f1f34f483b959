"""Cells and tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str = "") -> str:
    """A table; ``align`` has a letter for each column: l, r or c, and r for those that it omits.

    Example:
        >>> print(table(["case", "time"], [["mlp", "3 s"]], "l"))
        | case | time |
        | --- | ---: |
        | mlp | 3 s |
    """
    rules = {"l": "---", "r": "---:", "c": ":---:"}
    marks = [rules[mark] for mark in align.ljust(len(header), "r")]
    return "\n".join([line(header), line(marks), *(line(row) for row in rows)])


def number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s"


def milliseconds(value: float | None) -> str:
    """A time given in seconds, in the unit in which it is read most easily.

    Example:
        >>> milliseconds(0.0213), milliseconds(21.3e-6)
        ('21.3 ms', '21.3 µs')
    """
    if value is None:
        return ""
    return f"{value * 1e6:.1f} µs" if value < 1e-3 else f"{value * 1e3:.1f} ms"


def pair(wall: float | None, cpu: float | None, form: str = ".2f") -> str:
    """By wall time / by CPU time."""
    return "" if wall is None or cpu is None else f"{wall:{form}} / {cpu:{form}}"
