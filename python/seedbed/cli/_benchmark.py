"""What `seedbed.bench` found: as a table, as JSON, as a picture."""

from __future__ import annotations

import html
import json
import statistics
from pathlib import Path
from typing import Any

from . import _measure, _text

LABELS = {
    "seedbed": "seedbed",
    "jit(vmap)": "jax: jit(vmap(init))",
    "unrolled": "jax, threefry unrolled",
    "zeros": "writing zeros",
}
OURS, THEIRS = _measure.WAYS


class Benchmark:
    """The result of `seedbed.bench`; it prints as a table.

    Attributes:
        name: what was measured.
        results: by number of members, ``{"members": n, "ways": {way: ...}}`` with raw samples:
            ``cold`` and ``warm`` in seconds; ``output`` and ``extra``, the bytes of the result and
            those that a call takes at its peak; ``differing``, bits that are not jax's; and
            ``reason``, why the way has no figures.
        facts: versions, the plan in a line, and how was measured.
    """

    def __init__(self, name: str, results: list[dict[str, Any]], facts: dict[str, Any]) -> None:
        self.name = name
        self.results = results
        self.facts = facts

    def __repr__(self) -> str:
        parts = [self._head()]
        for result in self.results:
            parts.append(f"{self._size(result)}\n{_text.table(_rows(result))}")
            parts[-1] += "".join(f"\n  {line}" for line in _remarks(result))
        return "\n\n".join([*parts, "\n".join(self._notes())])

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(self._head())}</p>"]
        for result in self.results:
            first, *rest = _rows(result)
            rows = [_html_row("th", first), *[_html_row("td", row) for row in rest]]
            parts.append(f"<p><b>{html.escape(self._size(result))}</b></p>")
            parts.append(f"<table>{''.join(rows)}</table>")
            parts += [f"<p>{html.escape(line)}</p>" for line in _remarks(result)]
        return "".join([*parts, *[f"<p>{html.escape(line)}</p>" for line in self._notes()]])

    @property
    def same_bits(self) -> bool | None:
        """Whether all bits are those of jitted or unjitted jax; None where jax made none."""
        told = [result["ways"][OURS].get("differing") for result in self.results]
        if any(told):
            return False
        return None if None in told else True

    def json(self, indent: int | None = 2) -> str:
        """All that was measured, as JSON."""
        found = {"name": self.name, "facts": self.facts, "results": self.results}
        return json.dumps(found, indent=indent)

    def plot(self, path: Any) -> None:
        """Draws cold start, warm call and memory over the number of members, as a PNG.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from . import _curves

        _curves.draw(Path(path), self)

    def _head(self) -> str:
        facts = self.facts
        return (
            f"{self.name}: {facts['plan']}\n"
            f"seedbed {facts['seedbed']}, jax {facts['jax']}, {facts['platform']}, "
            f"{facts['cores']} cores"
        )

    def _size(self, result: dict[str, Any]) -> str:
        members = result["members"]
        size = _text.size(members * self.facts["member_bytes"])
        return f"{members:,} member{'s' * (members != 1)}, {size}"

    def _notes(self) -> list[str]:
        facts, lines = self.facts, []
        if facts["separate"]:
            starts = facts["starts"]
            first = f"median of {starts} first calls" if starts > 1 else "first call"
            lines.append(f"cold: {first} in a fresh process, compilation included")
        else:
            lines.append(
                "cold starts were not measured: no other process can import this function; put it "
                "into a module, or install cloudpickle"
            )
        lines.append(
            f"warm: median of {facts['rounds']}, the ways taking turns; peak: memory of a call at "
            f"its highest, in results, from {_text.size(_measure.VISIBLE)} on"
        )
        if facts["reference"] is not None:
            lines.append("the native backend is NOT in use: `seedbed` above is jax as well")
        return lines


def figure(found: dict[str, Any], what: str) -> float | None:
    """The median of some samples; for ``peak``, in results."""
    if what == "peak":
        return None if found["extra"] is None else found["extra"] / found["output"]
    return statistics.median(found[what]) if found[what] else None


def _rows(result: dict[str, Any]) -> list[list[str]]:
    ours = result["ways"][OURS]
    rows = [["", "cold", "seedbed is", "warm", "seedbed is", "peak", "bits"]]
    for way, found in result["ways"].items():
        row = [LABELS[way]]
        for what in ("cold", "warm"):
            value, mine = figure(found, what), figure(ours, what)
            row.append("-" if value is None else _text.seconds(value))
            row.append(_gain(value, mine) if way != OURS else "")
        peak = figure(found, "peak")
        rows.append([*row, "-" if peak is None else f"{peak:.2f} x", _bits(way, found)])
    return rows


def _gain(theirs: float | None, ours: float | None) -> str:
    if theirs is None or ours is None:
        return ""
    return f"{theirs / ours:.1f} x faster" if theirs >= ours else f"{ours / theirs:.1f} x slower"


def _bits(way: str, found: dict[str, Any]) -> str:
    if way == THEIRS or "differing" not in found:
        return ""
    if found["differing"] is None:
        return "not compared"
    if found["differing"]:
        return f"{found['differing']:,} bits differ"
    return "as jit or eager" if found.get("either") else "the same"


def _remarks(result: dict[str, Any]) -> list[str]:
    return [
        f"{LABELS[way]}: {found['reason']}"
        for way, found in result["ways"].items()
        if found["reason"]
    ]


def _html_row(tag: str, cells: list[str]) -> str:
    first, *rest = cells
    right = "".join(
        f'<{tag} style="text-align: right">{html.escape(cell)}</{tag}>' for cell in rest
    )
    return f'<tr><{tag} style="text-align: left">{html.escape(first)}</{tag}>{right}</tr>'
