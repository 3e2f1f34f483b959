"""What is measured: tables of cases. Data only; imported without jax.

A case is a model, given as its list of leaves, and a number of members. A plain draw is a
model with one leaf, so draws and models run through the same code. Every case names the peers
that run beside seedbed in the same rounds, and the baselines that ratios are given against.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any


@dataclass(frozen=True)
class Leaf:
    """One array of a model: how it is drawn, and its shape for one member."""

    name: str
    sampler: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Case:
    """A model, its number of members, and who makes it."""

    name: str
    title: str
    table: str
    leaves: tuple[Leaf, ...]
    members: int
    peers: tuple[str, ...]
    baselines: tuple[str, ...]
    # The peer that ratios are of.
    ours: str = "seedbed"
    # Why this case is in the table, or what to know when reading it.
    note: str = ""
    # Rounds for this case alone, where the table's number would take too long.
    rounds: int | None = None
    # What --quick replaces.
    quick: dict[str, Any] = field(default_factory=dict)

    @property
    def heading(self) -> str:
        """The title with its numbers filled in."""
        draws = self.members * sum(prod(leaf.shape) for leaf in self.leaves)
        return self.title.format(
            members=f"{self.members:,}",
            leaves=len(self.leaves),
            draws=f"2^{draws.bit_length() - 1}" if draws.bit_count() == 1 else f"{draws:,}",
        )


# --- models -----------------------------------------------------------------------------


def mlp(*widths: int) -> tuple[Leaf, ...]:
    """Dense layers with zero biases: he_normal, and lecun_normal for the last."""
    leaves = []
    for layer, shape in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        sampler = "lecun_normal" if layer == len(widths) - 2 else "he_normal"
        leaves += [
            Leaf(f"weight{layer}", sampler, shape),
            Leaf(f"bias{layer}", "zeros", shape[1:]),
        ]
    return tuple(leaves)


def transformer(width: int, layers: int, vocabulary: int, length: int) -> tuple[Leaf, ...]:
    """A decoder: token and position embeddings, pre-norm blocks, an output head."""
    leaves = [
        Leaf("tokens", "embedding", (vocabulary, width)),
        Leaf("positions", "embedding", (length, width)),
    ]
    for layer in range(layers):
        block = [
            *(
                Leaf(name, "lecun_normal", (width, width))
                for name in ("query", "key", "value", "out")
            ),
            Leaf("up", "he_normal", (width, 4 * width)),
            Leaf("up_bias", "zeros", (4 * width,)),
            Leaf("down", "lecun_normal", (4 * width, width)),
            Leaf("down_bias", "zeros", (width,)),
            *(Leaf(f"norm{i}_scale", "ones", (width,)) for i in range(2)),
            *(Leaf(f"norm{i}_bias", "zeros", (width,)) for i in range(2)),
        ]
        leaves += [replace(leaf, name=f"block{layer}_{leaf.name}") for leaf in block]
    return (*leaves, Leaf("head", "lecun_normal", (width, vocabulary)))


def linears(*widths: int) -> tuple[Leaf, ...]:
    """The states of `seedbed.nn.Sequential` of `Linear` layers, by path."""
    leaves = []
    for layer, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        leaves += [
            Leaf(f"layers.{layer}.weight", "linear", (outputs, inputs)),
            Leaf(f"layers.{layer}.bias", "zeros", (outputs,)),
        ]
    return tuple(leaves)


def many_leaves(count: int) -> tuple[Leaf, ...]:
    """Many small layers: compile time is nearly all of what users wait for."""
    return tuple(Leaf(f"weight{i}", "lecun_normal", (16, 16)) for i in range(count))


# --- the tables -------------------------------------------------------------------------

JAX = ("seedbed", "jax", "jax_unrolled")
FRAMEWORKS = ("equinox", "nnx", "linen")
ARRAYS = ("numpy", "torch")
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
    # 2**24 words of 4 bytes; a key is two words.
    count = 1 << 19 if sampler == "split" else 1 << 20
    return Case(
        name=f"draw-{sampler.replace('_', '-')}",
        title=title,
        table="draws",
        leaves=(Leaf("draw", sampler, (count,)),),
        members=_MEMBERS,
        rounds=rounds,
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
            note="What counts here is the cold start.",
            quick={"leaves": many_leaves(6), "members": 16},
        ),
    )


CASES = (
    _draw("bits", "random bits, {draws} uint32", *ARRAYS),
    _draw("uniform", "uniform, {draws} float32", *ARRAYS),
    _draw("normal", "normal, {draws} float32", *ARRAYS, more=HUGE_PAGES),
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
        peers=(*JAX, *FRAMEWORKS, "torch", "zeros", *HUGE_PAGES),
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
TABLES = tuple(dict.fromkeys(case.table for case in CASES))


def select(patterns: list[str], peers: list[str] | None = None) -> tuple[Case, ...]:
    """The cases whose name or table matches any of the patterns, with some of their peers.

    No pattern means all cases, and no peers mean all peers.

    Raises:
        ValueError: a pattern matches nothing, or no case has such a peer.
    """
    chosen = []
    for pattern in patterns or ["*"]:
        matching = [
            case
            for case in CASES
            if pattern == case.table or fnmatch.fnmatchcase(case.name, pattern)
        ]
        if not matching:
            known = ", ".join([*TABLES, *(case.name for case in CASES)])
            raise ValueError(f"--case {pattern!r} matches no case; there are {known}")
        chosen += matching
    known_peers = {peer for case in CASES for peer in case.peers}
    for peer in peers or []:
        if peer not in known_peers:
            raise ValueError(f"--peer {peer!r} is in no case; there are {sorted(known_peers)}")
    kept = [_only(case, peers) if peers else case for case in CASES if case in chosen]
    return tuple(case for case in kept if case.peers)


def _only(case: Case, peers: list[str]) -> Case:
    """The case with these peers alone, also under --quick."""
    kept = tuple(peer for peer in case.peers if peer in peers)
    quick = dict(case.quick)
    if "peers" in quick:
        quick["peers"] = tuple(peer for peer in quick["peers"] if peer in peers)
    return replace(case, peers=kept, quick=quick)
