"""Members that are in memory, for a store to write: values, and where in them members are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._jax import compat, paths
from . import saving

if TYPE_CHECKING:
    from .._store.saved import Saved


def save(order: saving.Order, values: Any, axes: Any, size: int, name: str) -> Saved | None:
    """Writes values as `Ensemble.save` writes what it makes.

    Args:
        values: a pytree of arrays.
        axes: the dimension of members in each of them, in the same structure.
        size: number of members.
        name: of what the values are of.

    Raises:
        TypeError: a function is being traced.
        ValueError: an array lies on devices of several processes.
    """
    from .._store import write
    from .._trace import digest

    leaves = jax.tree.leaves(values)
    saving.check_outside(leaves)
    for (_, word), leaf in zip(paths.names(values), leaves, strict=True):
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            raise ValueError(
                f"{word!r} lies on devices of several processes, of which each sees a part alone: "
                "gather it first (jax.experimental.multihost_utils.process_allgather)"
            )
    pairs = zip(jax.tree.leaves(axes), leaves, strict=True)
    places = [axis % np.ndim(leaf) for axis, leaf in pairs]

    def member(leaf: Any, axis: int) -> Any:
        of: Any = jax.ShapeDtypeStruct
        shape, axis = np.shape(leaf), axis % np.ndim(leaf)
        return of((*shape[:axis], *shape[axis + 1 :]), leaf.dtype)

    def made_from(chunk: int) -> dict[str, str]:
        content = digest.of_arrays([*leaves, np.array(places)])
        return {"values": f"of {name}, {content}", "size": str(size), "chunk_size": str(chunk)}

    def made(start: int, count: int, spare: Any) -> write.Chunk:
        del spare
        return write.Chunk(
            [
                _piece(compat.key_words(leaf), place, start, count)
                for leaf, place in zip(leaves, places, strict=True)
            ],
            None,
        )

    tree = jax.tree.map(member, values, axes)
    return saving.written(order, saving.planned(order, size, tree, made_from), made)


def _piece(leaf: Any, axis: int, start: int, count: int) -> Any:
    """Some members of an array, in front, in this process's memory."""
    if not isinstance(leaf, jax.Array):  # which may be wider than jax would make it
        members = np.asarray(leaf)[(slice(None),) * axis + (slice(start, start + count),)]
        return np.ascontiguousarray(np.moveaxis(members, axis, 0))
    if len(leaf.sharding.device_set) == 1:
        # Compiled once for all pieces of a length.
        part = jax.lax.dynamic_slice_in_dim(leaf, start, count, axis)
        return compat.in_memory(jnp.moveaxis(part, axis, 0) if axis else part)
    # Each device's part by itself: such slices are not for every layout to be had of jax.
    shape = (*leaf.shape[:axis], count, *leaf.shape[axis + 1 :])
    found = np.empty(shape, leaf.dtype)
    for shard in leaf.addressable_shards:
        low, high, _ = shard.index[axis].indices(leaf.shape[axis])
        begin, end = max(low, start), min(high, start + count)
        if shard.replica_id == 0 and begin < end:
            at = list(shard.index)
            at[axis] = slice(begin - start, end - start)
            part = jax.lax.slice_in_dim(shard.data, begin - low, end - low, axis=axis)
            found[tuple(at)] = np.asarray(part)
    return np.ascontiguousarray(np.moveaxis(found, axis, 0))
