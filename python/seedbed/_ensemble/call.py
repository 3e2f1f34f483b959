"""A call of an ensemble as a record: what was passed in, checked, and which members are wanted."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import jax

from .._base.record import Record
from .._jax import compat, generators, places
from .._plan import Plan
from .._run.members import Chosen
from .._trust import backends
from . import check

if TYPE_CHECKING:
    from .._jax.types import Tree

# Says which arrays a call may overwrite, once it is known what it makes: a plan, and the dimensions
# in front of a member's.
GiveUp = Callable[[Plan, tuple[int, ...]], list[Any]]


class Signature(Record):
    """All that decides what a call compiles to: calls of one ensemble with equal ones share it.

    Attributes:
        key_tree, tree: structures of the key and of the arguments.
        keys, args: types of their leaves, as one member sees them.
        axes: mapped axis, or None, of each leaf of the arguments.
        backend: the backend asked for.
        context: jax's settings.
        places: where keys and arguments lie, as far as it is part of their types.
        elsewhere: the platform of a device that keys or arguments are bound to, or that results
            are laid out on, if it is not the one that jax computes on.
        mesh: that `PartitionSpec`s of the results are of, if they are laid out over devices.
    """

    key_tree: Any
    keys: tuple[Hashable, ...]
    tree: Tree
    axes: tuple[int | None, ...]
    args: tuple[Hashable, ...]
    backend: str
    context: Hashable
    places: Hashable
    elsewhere: str | None
    mesh: Hashable = None


class Call(Record):
    """What nobody after `checked` has to look at again.

    Attributes:
        key: a pytree of keys as they are used, whose leaves are ``keys``.
        args: pytree of the further arguments, whose leaves are ``leaves``.
        axes: mapped axis, or None, of each leaf of the arguments.
        chosen: the members wanted, None for all.
        single: without the member axis; one member is wanted.
        give_up: which arrays may be overwritten.
    """

    key: Any
    keys: list[Any]
    args: tuple[Any, ...]
    leaves: list[Any]
    axes: tuple[int | None, ...]
    chosen: Chosen | None = None
    single: bool = False
    give_up: GiveUp | None = None

    def whole(self) -> Call:
        """The same call for all members."""
        return self.replace(chosen=None, single=False)

    def with_keys(self, keys: list[Any]) -> Call:
        """The same call with other keys in the same places."""
        tree = jax.tree_util.tree_structure(self.key)
        return self.replace(key=jax.tree_util.tree_unflatten(tree, keys), keys=keys)

    @property
    def stacked(self) -> tuple[bool, ...]:
        """For each key, whether it holds the members' own keys."""
        return tuple([check.is_stack(one) for one in self.keys])

    def of_members(self, read: list[Any], axes: tuple[int | None, ...]) -> tuple[Any, list[Any]]:
        """The key and some leaves of the arguments, of the members that are wanted."""
        if self.chosen is None:
            return self.key, read
        take, key = self.chosen.take, self.key
        if any(self.stacked):
            key = jax.tree_util.tree_map(
                lambda one: take(one, 0) if check.is_stack(one) else one, key
            )
        return key, [
            leaf if axis is None else take(leaf, axis)
            for leaf, axis in zip(read, axes, strict=True)
        ]

    def member_types(self, placed: bool = True) -> tuple[Any, tuple[Any, ...]]:
        """What ``init`` takes for one member, as types: its key and its arguments.

        Args:
            placed: whether where they lie is part of the types, where jax has it there.
        """
        keys: list[Any] = [check.member_key_type(one) for one in self.keys]
        args: list[Any] = [*map(check.member_type, self.leaves, self.axes)]
        if not placed:
            keys, args = [*map(places.unplaced, keys)], [*map(places.unplaced, args)]
        return (
            jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(self.key), keys),
            jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(self.args), args),
        )

    def signature(self, laid_out: bool = False) -> Signature:
        """What decides what the call compiles to; ``laid_out``: over devices."""
        keys = map(check.member_key_type, self.keys)
        args = map(check.member_type, self.leaves, self.axes)
        given = (*self.keys, *self.leaves)
        return Signature(
            jax.tree_util.tree_structure(self.key),
            tuple([(one.shape, one.dtype) for one in keys]),
            jax.tree_util.tree_structure(self.args),
            self.axes,
            tuple([(leaf.shape, leaf.dtype, leaf.weak_type) for leaf in args]),
            backends.requested(),
            compat.trace_context(),
            (places.of(given), places.mapped_over()),
            compat.elsewhere(given),
            places.ambient_mesh() if laid_out else None,
        )


def checked(
    key: Any,
    args: tuple[Any, ...],
    in_axes: Any,
    size: int,
    chosen: Chosen | None = None,
    single: bool = False,
    give_up: GiveUp | None = None,
) -> Call:
    """The record of a call.

    Raises:
        TypeError, ValueError: the key or an argument is not what it has to be.
    """
    keys = check.keys(key, size)
    axes = check.axes(in_axes, args, size)
    leaves = jax.tree_util.tree_leaves(args)
    placed = places.beside(keys, leaves, axes)
    call = Call(key, keys, args, leaves, axes, chosen, single, give_up)
    if any(one is not given for one, given in zip(placed, keys, strict=True)):
        call = call.with_keys(placed)
    return call


def unused(call: Call) -> Call:
    """The same call with its keys as jax's check for keys used twice sees new ones."""
    return call.with_keys([generators.unused(key) for key in call.keys])
