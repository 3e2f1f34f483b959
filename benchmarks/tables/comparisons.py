"""What is measured beside other ways: draws, ensembles, modules, frameworks. Data only."""

from __future__ import annotations

from typing import Any

from ..case import Case, Leaf
from .models import linears, many_leaves, mlp, transformer

JAX = ("seedbed", "jax", "jax_unrolled")
FRAMEWORKS = ("equinox", "nnx", "linen")
ARRAYS = ("numpy", "torch")
GENERATORS = ("jax_philox", "jax_rbg")
HUGE_PAGES = ("jax_unrolled_huge_pages", "zeros_huge_pages")
_MEMBERS = 16


def _draw(
    sampler: str,
    title: str,
    *peers: str,
    note: str = "",
    more: tuple[str, ...] = (),
    rounds: int | None = None,
) -> Case:
    # 2**24 words of 4 bytes; a key and a float64 are two words.
    count = 1 << 19 if sampler in ("split", "normal_float64") else 1 << 20
    return Case(
        name=f"draw-{sampler.replace('_', '-')}",
        title=title,
        table="draws",
        leaves=(Leaf("draw", sampler, (count,)),),
        members=_MEMBERS,
        rounds=rounds,
        cold_starts=1,
        peers=(*JAX, *peers, "zeros", *more),
        baselines=("jax", "jax_unrolled", *peers, "zeros"),
        note=note,
        quick={"leaves": (Leaf("draw", sampler, (count >> 3,)),)},
    )


def _framework(name: str, *others: str) -> tuple[Case, ...]:
    """A framework's own ways, and seedbed's adapter for it."""
    ours, baselines = f"{name}_adapter", tuple(f"{name}_{way}" for way in ("own", *others))

    def case(model: str, title: str, leaves: tuple[Leaf, ...], members: int, **more: Any) -> Case:
        return Case(
            name=f"{name}-{model}",
            title=f"{name}, {title}, {{members}} members",
            table="frameworks",
            leaves=leaves,
            members=members,
            peers=(ours, *baselines),
            baselines=baselines,
            ours=ours,
            cold_starts=2,
            **more,
        )

    return (
        *(
            case(
                f"mlp-{members}",
                "MLP 64-128-128-128-10",
                mlp(64, 128, 128, 128, 10),
                members,
                rounds=7,
                quick={
                    "title": f"{name}, MLP 64-128-10, {{members}} members",
                    "leaves": mlp(64, 128, 10),
                    "members": min(members, 16),
                },
            )
            for members in (8, 128, 1024)
        ),
        case(
            "many-leaves",
            "{leaves} leaves of (16, 16)",
            many_leaves(200),
            128,
            rounds=5,
            cap=25.0,
            note="What counts here is the cold start.",
            quick={"leaves": many_leaves(6), "members": 16},
        ),
    )


CASES = (
    _draw("bits", "random bits, {draws} uint32", *ARRAYS, more=GENERATORS),
    _draw("uniform", "uniform, {draws} float32", *ARRAYS, more=GENERATORS),
    _draw("normal", "normal, {draws} float32", *ARRAYS, more=(*GENERATORS, *HUGE_PAGES), rounds=7),
    _draw("normal_float64", "normal, {draws} float64", *ARRAYS, rounds=7),
    _draw(
        "truncated_normal",
        "normal truncated to (-2, 2), {draws} float32",
        "torch",
        note="numpy has no truncated normal.",
        rounds=7,
    ),
    _draw(
        "split",
        "split, {draws} keys",
        note="numpy and torch have no operation that splits a key.",
    ),
    Case(
        name="mlp",
        title="MLP 64-128-128-128-10, {members} members",
        table="ensembles",
        leaves=mlp(64, 128, 128, 128, 10),
        members=1024,
        peers=(*JAX, "jax_philox", *FRAMEWORKS, "torch", "zeros", *HUGE_PAGES),
        baselines=("jax", "jax_unrolled", "torch", "zeros"),
        note="he_normal and lecun_normal draw truncated normals; torch draws plain ones.",
        quick={
            "title": "MLP 64-128-10, {members} members",
            "leaves": mlp(64, 128, 10),
            "members": 128,
        },
    ),
    Case(
        name="transformer",
        title="transformer, width 128, 4 layers, {leaves} leaves, {members} members",
        table="ensembles",
        leaves=transformer(128, 4, vocabulary=256, length=64),
        members=64,
        peers=(*JAX, *FRAMEWORKS, "torch", "zeros"),
        baselines=("jax", "jax_unrolled", "torch", "zeros"),
        rounds=7,
        quick={
            "title": "transformer, width 32, 1 layer, {leaves} leaves, {members} members",
            "leaves": transformer(32, 1, vocabulary=64, length=16),
            "members": 4,
            "peers": (*JAX, "torch", "zeros"),
        },
    ),
    Case(
        name="many-leaves",
        title="{leaves} leaves of (16, 16), {members} members",
        table="ensembles",
        leaves=many_leaves(200),
        members=512,
        peers=(*JAX, "torch", "zeros"),
        baselines=("jax", "jax_unrolled", "torch", "zeros"),
        note="The frameworks compile the same program as jax and would take as long again.",
        quick={"leaves": many_leaves(6), "members": 16},
    ),
    Case(
        name="huge-leaf",
        title="one leaf of (4096, 4096), {members} members",
        table="ensembles",
        leaves=(Leaf("weight", "lecun_normal", (4096, 4096)),),
        members=2,
        peers=(*JAX, *FRAMEWORKS, "torch", "zeros"),
        baselines=("jax", "jax_unrolled", "torch", "zeros"),
        rounds=7,
        quick={
            "title": "one leaf of (512, 512), {members} members",
            "leaves": (Leaf("weight", "lecun_normal", (512, 512)),),
            "peers": (*JAX, "zeros"),
        },
    ),
    Case(
        name="module-mlp",
        title="module MLP 64-128-128-128-10, {members} members",
        table="modules",
        leaves=linears(64, 128, 128, 128, 10),
        members=1024,
        peers=("nn", "nn_ensemble", "nn_jax", "brainstate"),
        baselines=("nn_ensemble", "nn_jax", "brainstate"),
        ours="nn",
        note="Every call makes a new module and initialises it for all members.",
        quick={
            "title": "module MLP 64-128-10, {members} members",
            "leaves": linears(64, 128, 10),
            "members": 128,
        },
    ),
    *_framework("nnx", "jitted"),
    *_framework("linen"),
    *_framework("equinox"),
    *_framework("haiku"),
    *_framework("brainstate"),
)
