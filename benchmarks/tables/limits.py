"""What is measured against limits: scaling, instruction sets, depth, old buffers, latency.

Data only; imported without jax.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..case import Case, Leaf
from ..peers import GROUPS, ISAS
from .comparisons import CASES as COMPARISONS
from .models import many_leaves, mlp

JAX = ("jax", "jax_unrolled")
_MLP = mlp(64, 128, 128, 128, 10)
_SMALL_MLP = {"title": "MLP 64-128-10, {members} members", "leaves": mlp(64, 128, 10)}
_SAMPLERS = {
    "bits": "random bits",
    "uniform": "uniform",
    "normal": "normal",
    "truncated_normal": "normal truncated to (-2, 2)",
}


def _normals(count: int) -> tuple[Leaf, ...]:
    return (Leaf("draw", "normal", (count,)),)


_SCALING = (
    Case(
        name="scaling-members",
        title="normal, {draws} float32 in all, by number of members",
        table="scaling",
        # By as many members as the first of the group has.
        leaves=_normals((1 << 24) // GROUPS[0]),
        members=GROUPS[0],
        peers=(*(f"seedbed_by_{members}" for members in GROUPS), "jax_unrolled"),
        baselines=(f"seedbed_by_{GROUPS[0]}",),
        ours=f"seedbed_by_{GROUPS[0]}",
        cold_starts=1,
        quick={"leaves": _normals((1 << 20) // GROUPS[0])},
    ),
    Case(
        name="scaling-leaves",
        title="{leaves} leaves of (16, 16), {members} members, and as much in one leaf",
        table="scaling",
        leaves=many_leaves(200),
        members=512,
        peers=("seedbed_one_leaf", "seedbed", "zeros_one_leaf", "zeros"),
        baselines=("seedbed_one_leaf",),
        ours="seedbed_one_leaf",
        cold_starts=1,
        quick={"leaves": many_leaves(6), "members": 16},
    ),
    *(
        Case(
            name=f"scaling-threads-{name}",
            title=title,
            table="scaling",
            leaves=leaves,
            members=members,
            peers=(
                *("seedbed_one_thread", "seedbed", "jax_unrolled_one_thread", "jax_unrolled"),
                *("zeros_one_thread", "zeros"),
            ),
            baselines=("seedbed_one_thread",),
            ours="seedbed_one_thread",
            cold_starts=1,
            quick=quick,
        )
        for name, title, leaves, members, quick in (
            (
                "recycled",
                "normal, {draws} float32, into memory that is used again",
                _normals(1 << 18),
                16,
                {"leaves": _normals(1 << 16)},
            ),
            (
                "mlp",
                "MLP 64-128-128-128-10, {members} members, into fresh memory",
                _MLP,
                1024,
                _SMALL_MLP | {"members": 128},
            ),
        )
    ),
)

_ISA = tuple(
    Case(
        name=f"isa-{sampler.replace('_', '-')}",
        title=f"{words}, {{draws}} values of 4 bytes",
        table="isa",
        # 16 MB, which glibc hands out again: no page faults, and too much for the L2 cache.
        leaves=(Leaf("draw", sampler, (1 << 18,)),),
        members=16,
        peers=(
            *(f"seedbed_{isa}_{threads}" for isa in ISAS for threads in ("one", "all")),
            "jax_unrolled",
        ),
        baselines=("jax_unrolled",),
        ours=f"seedbed_{ISAS[0]}_all",
        cold_starts=1,
        quick={"leaves": (Leaf("draw", sampler, (1 << 14,)),)},
    )
    for sampler, words in _SAMPLERS.items()
)


def _cold(name: str, title: str, leaves: tuple[Leaf, ...], members: int, **more: Any) -> Case:
    settings: dict[str, Any] = {"peers": ("seedbed", *JAX, "zeros"), "baselines": (*JAX, "zeros")}
    return Case(
        name=f"cold-{name}",
        title=title,
        table="cold",
        leaves=leaves,
        members=members,
        cap=150.0,
        **{"rounds": 0} | settings | more,
    )


_COLD = (
    *(
        _cold(
            f"depth-{layers}",
            f"MLP of {layers} layers, width 64, {{members}} members",
            mlp(*[64] * (layers + 1)),
            64,
            quick={
                "title": f"MLP of {few} layers, width 64, {{members}} members",
                "leaves": mlp(*[64] * (few + 1)),
                "members": 4,
            },
        )
        for layers, few in ((4, 1), (16, 2), (64, 3), (256, 4))
    ),
    *(
        _cold(
            f"leaves-{count}",
            "{leaves} leaves of (16, 16), {members} members",
            many_leaves(count),
            64,
            quick={"leaves": many_leaves(count // 100 or 1), "members": 4},
            **(
                {
                    "peers": ("seedbed", "zeros"),
                    "baselines": ("zeros",),
                    "note": "jax would take longer than any patience.",
                }
                if count > 200
                else {}
            ),
        )
        for count in (50, 200, 800)
    ),
    *(
        _cold(
            f"members-{members}",
            "MLP 64-128-128-128-10, {members} members",
            _MLP,
            members,
            rounds=3,
            cold_starts=2,
            quick=_SMALL_MLP | {"members": members // 8},
        )
        for members in (8, 128, 1024, 4096)
    ),
)

_DONATE = Case(
    name="donate-mlp",
    title="MLP 64-128-128-128-10, {members} members, again",
    table="donate",
    leaves=_MLP,
    members=1024,
    peers=(
        *("seedbed_donate", "seedbed", "seedbed_small_pages"),
        *("jax_donate", "jax_unrolled_donate", "jax_unrolled", "torch_in_place", "torch"),
        *("zeros_donate", "zeros_huge_pages", "zeros"),
    ),
    baselines=("seedbed", "jax_donate", "jax_unrolled_donate", "torch_in_place", "zeros"),
    ours="seedbed_donate",
    cold_starts=1,
    note="The cold start of those that write into old memory is that of the first ensemble.",
    quick=_SMALL_MLP | {"members": 128},
)

# The other ensembles that are measured into fresh memory.
_DONATE_MORE = tuple(
    replace(
        case,
        name=f"donate-{case.name}",
        title=f"{case.title}, again",
        table="donate",
        peers=("seedbed_donate", "seedbed", "zeros_donate", "zeros"),
        baselines=("seedbed", "zeros"),
        ours="seedbed_donate",
        cold_starts=1,
        note="",
        quick={
            name: f"{value}, again" if name == "title" else value
            for name, value in case.quick.items()
            if name != "peers"
        },
    )
    for case in COMPARISONS
    if case.table == "ensembles" and case.name != "mlp"
)

_LATENCY = tuple(
    Case(
        name=f"latency-{name}",
        title=title,
        table="latency",
        leaves=leaves,
        members=members,
        peers=("seedbed_typed", "empty_typed", "jax_typed", "seedbed", "empty"),
        baselines=("empty_typed", "jax_typed"),
        ours="seedbed_typed",
        calls=300,
        cold_starts=1,
        quick={"calls": 10},
    )
    for name, title, leaves, members in (
        (
            "tiny",
            "two leaves, (3, 2) and (2,), {members} member",
            (Leaf("w", "normal", (3, 2)), Leaf("b", "uniform", (2,))),
            1,
        ),
        ("mlp-1", "MLP 64-128-128-128-10, {members} member", _MLP, 1),
        ("mlp-8", "MLP 64-128-128-128-10, {members} members", _MLP, 8),
    )
)

CASES = (*_SCALING, *_ISA, *_COLD, _DONATE, *_DONATE_MORE, *_LATENCY)
