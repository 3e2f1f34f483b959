"""Where states lie: `out_shardings` of a call for all members."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jax.sharding import NamedSharding, PartitionSpec

from ..._ensemble import shardings
from ..._plan import Plan
from .._tree import Draft, active, walk
from .trace import Traced


class Places:
    """What a user said.

    Raises:
        TypeError: it is neither a sharding, nor a PartitionSpec, nor a mapping from filters to
            these.
    """

    def __init__(self, given: Any) -> None:
        rules = given if isinstance(given, Mapping) else {...: given}
        self.rules = [(walk.predicate(one), shardings.checked(s)) for one, s in rules.items()]
        for _, sharding in self.rules:
            if not shardings.is_leaf(sharding):
                raise TypeError(
                    "`out_shardings` must be a sharding, a PartitionSpec, or a mapping from "
                    f"filters of states to these; got {given!r} of type {type(given).__name__}"
                )
        self.whole = shardings.whole(sharding for _, sharding in self.rules)

    def of(self, draft: Draft, traced: Traced, axes: Mapping[int, int]) -> Listed:
        """An entry for every array that is made of the members.

        Args:
            axes: where states hold the members, by identity; in front otherwise.
        """
        entries: list[Any] = [self.whole] * traced.result.count(None)
        with active(draft):
            for output in traced.outputs:
                if output.excluded:
                    continue
                state, path = output.state, output.path
                found = [sharding for keep, sharding in self.rules if keep(path, state)]
                one = self.whole if not found or found[0] is None else found[0]
                axis = axes.get(id(state), 0)
                entries += [_members_first(one, axis, leaf.ndim + 1) for leaf in output.types]
        return Listed(entries)

    def shared(self, count: int) -> Listed:
        """The same for what members share."""
        return Listed([self.whole] * count)


class Listed(shardings.Entries):
    """Shardings of a program's results, in their order."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries

    def of(self, plan: Plan) -> list[Any]:
        return self.entries


def _members_first(place: Any, axis: int, rank: int) -> Any:
    """Where an array lies that has the axis of members moved to the front."""
    spec = getattr(place, "spec", place)
    if not isinstance(spec, PartitionSpec) or axis == 0 or len(spec) > rank:
        return place
    names = [*spec, *[None] * (rank - len(spec))]
    names.insert(0, names.pop(axis))
    moved: Any = PartitionSpec
    if isinstance(place, NamedSharding):
        return NamedSharding(place.mesh, moved(*names), memory_kind=place.memory_kind)
    return moved(*names)
