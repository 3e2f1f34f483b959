"""Leaves of a store on several devices, each of which gets its own part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from .._jax import places
from .._run import layout
from .format import Leaf
from .leaves import as_key, exact, type_of
from .read import Reader

if TYPE_CHECKING:
    from .._jax.types import Tree


def placed(reader: Reader, leaves: Sequence[int], tree: Tree, sharding: Any) -> list[Any]:
    """All members of these leaves; see `saved.Saved.to`."""
    entries = layout.spread(sharding, tree, "sharding")
    whole = layout.whole(entries)
    resolved = [_resolved(whole if one is None else one, sharding) for one in entries]
    for place, one in zip(leaves, resolved, strict=True):
        exact(reader.manifest.leaves[place])
        _fits(reader.manifest.leaves[place], reader.manifest.size, one)
    return [_laid(reader, *one) for one in zip(leaves, resolved, strict=True)]


def _laid(reader: Reader, place: int, sharding: Any) -> Any:
    leaf = reader.manifest.leaves[place]
    stored = (reader.manifest.size, *leaf.shape)
    wanted = [
        ([slice(*one.indices(n)) for one, n in zip(index, stored, strict=True)], device)
        for device, index in sharding.addressable_devices_indices_map(stored).items()
    ]
    # Devices that have the same part one after the other, so that it is read once.
    wanted.sort(key=lambda one: [(part.start, part.stop) for part in one[0]])
    arrays: list[Any] = []
    last, part = None, np.empty(0)
    for index, device in wanted:
        if index != last:
            last, part = index, reader.part(place, tuple(index))
        there = SingleDeviceSharding(device, memory_kind=sharding.memory_kind)
        arrays.append(jax.device_put(part, there))
    return as_key(leaf, jax.make_array_from_single_device_arrays(stored, sharding, arrays))


def _resolved(entry: Any, given: Any) -> Any:
    """A sharding, of what stands for one leaf."""
    if isinstance(entry, jax.sharding.Sharding):
        return entry
    if not isinstance(entry, PartitionSpec):
        raise TypeError(
            "`sharding` must consist of shardings, PartitionSpecs and None (whole on every "
            f"device), and not of None alone; got {entry!r} of type {type(entry).__name__} in "
            f"{given!r}"
        )
    mesh = places.ambient_mesh()
    if mesh is None:
        raise ValueError(
            f"`sharding` has {entry!r}, a PartitionSpec, and no mesh is set that it could be of: "
            "use jax.set_mesh, or give a NamedSharding"
        )
    return NamedSharding(mesh, entry)


def _fits(leaf: Leaf, members: int, sharding: Any) -> None:
    try:
        if len(getattr(sharding, "spec", ())) > 1 + len(type_of(leaf).shape):
            raise ValueError("it has more entries than the leaf has dimensions")
        sharding.shard_shape((members, *leaf.shape))
    except ValueError as error:
        raise ValueError(
            f"`sharding` gives {sharding!r} for the leaf {leaf.path} of shape "
            f"{(members, *type_of(leaf).shape)}: {error}"
        ) from None
