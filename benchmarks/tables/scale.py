"""What is measured past one device: single models and an ensemble, on meshes. Data only."""

from __future__ import annotations

from typing import Any

from ..case import Case
from .models import block, mlp

_FORMS = {
    "unrolled": "each layer written out",
    "vmapped": "layers by jax.vmap",
    "scanned": "layers by jax.lax.scan",
}
# Layers, and their width: as many bytes either way. And those of --quick.
_SIZES = ((12, 512), (48, 256))
_QUICK_LAYERS, _QUICK_WIDTH = {12: 2, 48: 4}, 32


def _all(way: str, *which: Any) -> tuple[str, ...]:
    return tuple(f"{way}_{one}" for one in which)


def _peers(form: str, layers: int) -> tuple[str, ...]:
    if form == "unrolled":
        # What takes minutes to compile is measured on one device and on most.
        devices = (1, 2, 4, 8) if layers == 12 else (1, 8)
        return (
            *_all("single", 1, 2, 4, 8, "by_2", "by_4"),
            *_all("jit", *devices),
            *_all("create_sharded", 1, 8)[layers == 48 :],
        )
    nnx = _all("create_sharded", 8) if form == "vmapped" else ()
    return (*_all("single", 1, 8, "by_2"), *_all("jit", 1, 8), *nnx)


def _single(form: str, layers: int, width: int) -> Case:
    quick = ("single_1", "jit_1")
    if form == "unrolled" and layers == 12:
        quick = ("single_1", "single_2", "single_by_2", "jit_1", "create_sharded_2")
    return Case(
        name=f"scale-{form}-{layers}",
        title=f"one transformer of {layers} layers, width {width}, {_FORMS[form]}",
        table="scale",
        leaves=block(width),
        members=1,
        layers=layers,
        form=form,
        peers=_peers(form, layers),
        baselines=("jit_1",),
        ours="single_1",
        rounds=5,
        cold_starts=2,
        quick={
            "title": f"one transformer of {_QUICK_LAYERS[layers]} layers, width {_QUICK_WIDTH}, "
            f"{_FORMS[form]}",
            "leaves": block(_QUICK_WIDTH),
            "layers": _QUICK_LAYERS[layers],
            "peers": quick,
        },
    )


CASES = (
    *(_single(form, layers, width) for form in _FORMS for layers, width in _SIZES),
    Case(
        name="scale-ensemble",
        title="MLP 64-128-128-128-10, {members} members",
        table="scale",
        leaves=mlp(64, 128, 128, 128, 10),
        members=1024,
        peers=(
            *_all("sharded", 1, 2, 4, 8, "by_2", "by_4"),
            *_all("partitioned", 2, 8),
            *_all("jit", 1, 2, 4, 8),
        ),
        baselines=("jit_1",),
        ours="sharded_1",
        rounds=5,
        cold_starts=2,
        quick={
            "title": "MLP 64-128-10, {members} members",
            "leaves": mlp(64, 128, 10),
            "members": 16,
            "peers": ("sharded_1", "sharded_2", "sharded_by_2", "partitioned_2", "jit_1"),
        },
    ),
)
