"""What one measurement is about: a model and a number of members. Data only; no jax.

A case is a model, given as its list of leaves, and a number of members. A plain draw is a
model with one leaf, so draws and models run through the same code. Every case names the peers
that run beside seedbed in the same rounds, and the baselines that ratios are given against.
"""

from __future__ import annotations

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
    # Copies of the leaves in one model, each from a key of its own, and how these are written:
    # "unrolled", "vmapped" or "scanned"; none: the leaves are those of a member.
    layers: int = 0
    form: str = ""
    # Why this case is in the table, or what to know when reading it.
    note: str = ""
    # Rounds for this case alone, where the table's number would take too long; none: only cold.
    rounds: int | None = None
    # Calls in one sample of a warm time, where one call is too short for the clock.
    calls: int = 1
    # Fresh processes for this case alone.
    cold_starts: int | None = None
    # Seconds after which a cold start of this case is given up.
    cap: float | None = None
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

    def regrouped(self, members: int) -> Case:
        """As many values in all, by another number of members: each leaf becomes a flat one."""
        leaves = tuple(
            replace(leaf, shape=(prod(leaf.shape) * self.members // members,))
            for leaf in self.leaves
        )
        return replace(self, leaves=leaves, members=members)

    def in_one_leaf(self) -> Case:
        """As many values in all, in one leaf of one member; the leaves are alike."""
        first = self.leaves[0]
        *rows, columns = first.shape
        shape = (*rows, columns * len(self.leaves) * self.members)
        return replace(self, leaves=(replace(first, shape=shape),), members=1)
