"""A draw as text, as `Plan.explain` shows it."""

from __future__ import annotations

import math

from .draw import RECORDS, Draw, Kind


def text(draw: Draw) -> str:
    """What a draw is, in a few words: its kind, and parameters that are not neutral."""
    if draw.kind in _SHOWN:
        return _SHOWN[draw.kind](draw)
    name = draw.kind.name.lower()
    if "scale" not in RECORDS[draw.kind].params:
        return name
    p = draw.floats()
    return name + _affine(p["scale"], p["shift"])


def _bits(draw: Draw) -> str:
    return f"bits{draw.word_bits}"


def _uniform(draw: Draw) -> str:
    p = draw.floats()
    return f"uniform {_range(p)}" + _affine(p["scale"], p["shift"])


def _normal(draw: Draw) -> str:
    p = draw.floats()
    low, factor, scale, shift = p["low"], p["factor"], p["scale"], p["shift"]
    clip_low, clip_high = p["clip_low"], p["clip_high"]
    bounds = f"[{clip_low:.6g}, {clip_high:.6g}]"
    whole = low < -0.9999999 and low + p["span"] > 0.9999999
    if math.isinf(clip_low) and math.isinf(clip_high):
        if not whole:
            return f"erf_inv of uniform {_range(p)}" + _affine(scale * factor, shift)
        return "normal" + _affine(scale * factor / math.sqrt(2.0), shift)
    name = f"normal clipped to {bounds}" if whole else f"truncated_normal {bounds}"
    return name + _affine(scale, shift)


def _bernoulli(draw: Draw) -> str:
    return f"bernoulli p={draw.floats()['p']:.6g}"


def _randint(draw: Draw) -> str:
    p = draw.integers()
    first = p["first"] - ((p["first"] >> (draw.word_bits - 1)) << draw.word_bits)
    return f"randint [{first}, {first + p['span']})"


def _table(draw: Draw) -> str:
    return f"table of {len(draw.table) // draw.itemsize} values"


def _range(p: dict[str, float]) -> str:
    return f"[{p['low']:.6g}, {p['low'] + p['span']:.6g})"


def _affine(scale: float, shift: float) -> str:
    text = "" if abs(scale - 1.0) < 1e-6 else f" * {scale:.6g}"
    return text if shift == 0.0 else f"{text} + {shift:.6g}"


_SHOWN = {
    Kind.BITS: _bits,
    Kind.UNIFORM: _uniform,
    Kind.NORMAL: _normal,
    Kind.BERNOULLI: _bernoulli,
    Kind.RANDINT: _randint,
    Kind.TABLE: _table,
}
