"""Where results lie: the axes of a mesh of devices that each of their dimensions is split over."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from .._base.record import Record
from .._jax import places
from .._plan import Plan, Shape

if TYPE_CHECKING:
    from .._jax.types import Tree

# The axes of a mesh that one dimension is split over, the slowest first; () for none.
Axes = tuple[str, ...]


class Layout(Record):
    """How the results of an ensemble lie on the devices of a mesh.

    Attributes:
        mesh: the devices; an abstract mesh in programs that are traced before these are known.
        specs: for each output leaf and each of its dimensions, members first, the axes of the
            mesh that it is split over. A single model has no members: its first dimension is of
            length one, and stays whole.
        entries: of how many entries each `PartitionSpec` is: the rest of its leaf's dimensions are
            whole.
        memory_kinds: the kind of memory that each leaf lies in, None for the usual one.
    """

    mesh: Any
    specs: tuple[tuple[Axes, ...], ...]
    entries: tuple[int, ...]
    memory_kinds: tuple[str | None, ...]

    def blocks(self, axes: Axes) -> int:
        """Into how many parts these axes split a dimension."""
        return math.prod(self.mesh.shape[name] for name in axes)

    def spec(self, position: int, single: bool) -> Any:
        """What jax calls this: the `PartitionSpec` of one output leaf."""
        axes = self.specs[position][1 if single else 0 : self.entries[position]]
        spec: Any = PartitionSpec
        return spec(*[names or None for names in axes])

    def tile(self, position: int, shape: Shape) -> Shape:
        """The part of a member's leaf of this shape that one device has."""
        split = self.specs[position][1:]
        return tuple([n // self.blocks(axes) for n, axes in zip(shape, split, strict=True)])

    @functools.cached_property
    def member_blocks(self) -> int:
        """What the number of members must be a multiple of."""
        return math.lcm(*[self.blocks(spec[0]) for spec in self.specs])

    def member_bytes(self, plan: Plan) -> int:
        """What a member takes on the devices of this process, on average over the members."""
        devices = self.mesh.size if self.abstract else len(self.mesh.local_devices)
        total = 0.0
        for output, spec in zip(plan.outputs, self.specs, strict=True):
            total += output.nbytes * devices / math.prod(map(self.blocks, spec))
        return math.ceil(total)

    @property
    def abstract(self) -> bool:
        """Whether the devices are not known yet."""
        return isinstance(self.mesh, jax.sharding.AbstractMesh)

    def place(self, leaf: Any, position: int) -> Any:
        """An output leaf that jax lays out, in a program whose devices are not known yet."""
        return places.put(leaf, self.mesh, self.spec(position, False))

    def placed(self, result: Any, single: bool, size: int) -> Any:
        """A finished result, of fewer members or of ``size``, laid out so."""
        leaves, tree = jax.tree_util.tree_flatten(result)

        def laid(leaves: list[Any]) -> list[Any]:
            return leaves if single else [padded(leaf, 0, size) for leaf in leaves]

        out = jax.jit(laid, out_shardings=self.shardings(single))(leaves)
        return jax.tree_util.tree_unflatten(tree, out)

    def shardings(self, single: bool) -> list[Any] | None:
        """What `jax.jit` is told of the results; nothing where their devices are not known yet."""
        if self.abstract:
            return None
        return [
            NamedSharding(self.mesh, self.spec(i, single), memory_kind=kind)
            for i, kind in enumerate(self.memory_kinds)
        ]


def padded(array: Any, axis: int | None, size: int) -> Any:
    """What ``size`` members take, of fewer: the last one again and again. Without an axis over
    members, all take the same."""
    if axis is None or array.shape[axis] == size:
        return array
    count = array.shape[axis]
    return jnp.take(array, np.minimum(np.arange(size), count - 1), axis=axis)


def named(spec: Sequence[Any], rank: int) -> tuple[Axes, ...]:
    """The entries of a `PartitionSpec`, one for each dimension."""
    axes = [() if one is None else (one,) if isinstance(one, str) else tuple(one) for one in spec]
    return (*axes, *[()] * (rank - len(axes)))


# --- what users give --------------------------------------------------------------------


def is_leaf(value: Any) -> bool:
    """Whether a value says where a leaf lies, or leaves it whole."""
    return value is None or isinstance(value, (Sharding, PartitionSpec))


def whole(entries: Iterable[Any]) -> Any:
    """Whole on every device of the mesh that some entries are of; None if they are of none."""
    spec: Any = PartitionSpec
    for one in entries:
        if isinstance(one, NamedSharding):
            return NamedSharding(one.mesh, spec())
        if isinstance(one, PartitionSpec):
            return spec()
        if isinstance(one, SingleDeviceSharding):
            return one
    return None


def spread(value: Any, tree: Tree, name: str = "out_shardings") -> list[Any]:
    """One entry for every leaf of the result.

    Raises:
        ValueError: ``value`` is not like it.
    """
    # A single leaf, or entries for parts of the result.
    try:
        lists = jax.tree_util.tree_map(
            lambda one, part: [one] * len(jax.tree_util.tree_leaves(part)),
            value,
            jax.tree_util.tree_unflatten(tree, [0] * tree.num_leaves),
            is_leaf=is_leaf,
        )
    except ValueError as error:
        raise ValueError(
            f"`{name}` must be a sharding, a PartitionSpec, None, or a pytree of these whose "
            f"structure is a prefix of the result's; got {value!r}: {error}"
        ) from None
    return jax.tree_util.tree_leaves(lists, is_leaf=is_leaf)
