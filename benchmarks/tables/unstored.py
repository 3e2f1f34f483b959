"""What is measured of ensembles that are never stored. Data only."""

from __future__ import annotations

from ..case import Case
from .models import mlp

CASES = (
    Case(
        name="lazy-map",
        title="MLP 2-8-1, a function of each of {members} members",
        table="lazy",
        leaves=mlp(2, 8, 1),
        members=1_000_000,
        peers=("lazy_map", "whole_map", "jax_map"),
        baselines=("jax_map",),
        ours="lazy_map",
        rounds=7,
        cold_starts=2,
        quick={"members": 5000},
    ),
    Case(
        name="lazy-member",
        title="MLP 64-128-128-128-10, one member of {members}",
        table="lazy",
        leaves=mlp(64, 128, 128, 128, 10),
        members=1 << 40,
        peers=("lazy_member", "jax_member"),
        baselines=("jax_member",),
        ours="lazy_member",
        rounds=15,
        calls=10,
        cold_starts=2,
        quick={"leaves": mlp(8, 8)},
    ),
)
