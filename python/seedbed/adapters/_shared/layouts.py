"""Where the arrays of a framework's models lie: what a user says of a model, for each array."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec

from ..._ensemble import check, shardings
from ..._plan import Plan
from .parts import Parts

_spec: Any = PartitionSpec
# A place, and the array of a model that it is for.
Pair = tuple[Any, Any]


def by_prefix(given: Any, model: Any) -> list[Pair]:
    """The pairs that a pytree prefix of the model stands for."""
    leaves, tree = jax.tree_util.tree_flatten(model)
    return list(zip(shardings.spread(given, tree), leaves, strict=True))


@dataclass(frozen=True, slots=True)
class Framework:
    """How a framework speaks of places. All of it has to pickle.

    Attributes:
        metadata: ``metadata(model)``: what the model itself says, as PartitionSpecs of the axes of
            a mesh, in one of the forms that users give; None where models say nothing.
        names: what that depends on besides the model: how names of axes are translated.
        pairs: ``pairs(given, model)``: which array each part of what a user gave is for. What it
            leaves out is whole on every device.
        checked: refuses what can be seen to be wrong without a model.
    """

    metadata: Callable[[Any], Any] | None = None
    names: Callable[[], Hashable] | None = None
    pairs: Callable[[Any, Any], list[Pair]] = by_prefix
    checked: Callable[[Any], Any] = shardings.checked


class _Spot:
    """Stands for an array in a model."""

    shape = ()


@dataclass(frozen=True, slots=True)
class Places:
    """`out_shardings` of models, as a user gave it."""

    given: Any
    framework: Framework
    together: Callable[[Any], Any]

    def __post_init__(self) -> None:
        if not (isinstance(self.given, Mesh) and self.framework.metadata is not None):
            self.framework.checked(self.given)

    def __deepcopy__(self, memo: dict[int, Any]) -> Places:
        return self  # devices cannot be copied

    @property
    def names(self) -> Hashable:
        """What another call may read otherwise."""
        names = self.framework.names
        return names() if isinstance(self.given, Mesh) and names is not None else None

    def of(self, *parts: str, members: bool) -> PlacesOf:
        """The same for a program that makes some of a model's `Parts`."""
        return PlacesOf(self, parts, members)


@dataclass(frozen=True, slots=True)
class PlacesOf(shardings.Entries):
    """`Places` for one program.

    Attributes:
        parts: names of fields of `Parts`, in the order of the program's results.
        members: whether a model's own arrays have a dimension for members in front.
    """

    places: Places
    parts: tuple[str, ...]
    members: bool

    @property
    def mesh(self) -> Mesh | None:
        return self.places.given if isinstance(self.places.given, Mesh) else None

    def of(self, plan: Plan) -> list[Any]:
        made = jax.tree_util.tree_unflatten(plan.out_tree, range(len(plan.outputs)))
        spots = made.rest.map(lambda tree: [_Spot() for _ in range(tree.num_leaves)])
        model = self.places.together(made.rest.model(spots))
        entries = self._entries(spots, model)
        leaves = [leaf for part in self.parts for leaf in getattr(spots, part)]
        whole = shardings.whole(entries.values())
        return [whole if (one := entries.get(id(leaf))) is None else one for leaf in leaves]

    def _entries(self, spots: Parts, model: Any) -> dict[int, Any]:
        """What there is said of arrays, by the identity of what stands for them."""
        given, framework = self.places.given, self.places.framework
        if isinstance(given, Mesh):
            assert framework.metadata is not None
            members = [None] if self.members else []
            first = {id(spot): members for spot in spots.own}
            return {
                id(leaf): _spec(*first.get(id(leaf), []), *(spec or ()))
                for spec, leaf in framework.pairs(framework.metadata(model), model)
            }
        if shardings.is_leaf(given):
            # Of arrays of members; what they share has no dimension for them.
            everywhere = shardings.whole([given]) if self.members else given
            own = {id(spot): given for spot in spots.own}
            return {**{id(spot): everywhere for spot in spots.common}, **own}
        # Frameworks have leaves that are no arrays.
        return {
            id(leaf): shardings.checked(one)
            for one, leaf in framework.pairs(given, model)
            if isinstance(leaf, _Spot)
        }


def checked_pad(pad: Any, out_shardings: Any) -> bool:
    """Whether members are padded.

    Raises:
        TypeError: ``pad`` is not a bool.
        ValueError: nothing is laid out that would need it.
    """
    padded: bool = check.flag(pad, "pad")
    if padded and out_shardings is None:
        raise ValueError("`pad` is for `out_shardings`, which is not given")
    return padded
