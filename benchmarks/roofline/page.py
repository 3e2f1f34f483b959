"""The figures of the roofline as Markdown."""

from __future__ import annotations

from typing import Any


def page(run: dict[str, Any]) -> str:
    """The tables as Markdown."""
    lines = []
    groups = dict.fromkeys((row["threads"], row["isa"]) for row in run["arithmetic"])
    for threads, isa in groups:
        rows = [r for r in run["arithmetic"] if (r["threads"], r["isa"]) == (threads, isa)]
        of = f"{threads} thread" + "s" * (threads > 1)
        lines += [
            f"**{isa}, {of}, {rows[0]['ghz']:.2f} GHz** (cycles a draw, one core)",
            "",
            "| kernel | by counting | bound | kernel | of the bound | G draws/s |",
            "| --- | ---: | ---: | ---: | ---: | ---: |",
        ]
        for row in rows:
            counted = "" if row["counted"] is None else f"{row['counted']:.2f}"
            lines.append(
                f"| {row['kernel']} | {counted} | {' + '.join(f'{x:.2f}' for x in row['loops'])} "
                f"| {row['cycles']:.2f} | {row['fraction']:.0%} "
                f"| {row['ghz'] / row['cycles']:.3f} |"
            )
        lines.append("")
    counts = list(dict.fromkeys(row["threads"] for row in run["memory"]))
    each = {(row["name"], row["threads"]): row["least"] for row in run["memory"]}
    heads = [f"{n} thread{'s' * (n > 1)}" for n in counts]
    lines += [
        f"**Memory**, {run['settings']['megabytes']} MiB (ns a float32; G float32/s of all)",
        "",
        "| buffer | " + " | ".join(f"{head} | G/s" for head in heads) + " |",
        "| --- |" + " ---: | ---: |" * len(counts),
    ]
    for name in dict.fromkeys(row["name"] for row in run["memory"]):
        cells = [f"{each[name, n]:.2f} | {n / each[name, n]:.2f}" for n in counts]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
