"""Sharded: the same program where each device of a mesh makes its own part of every result.

A member's draw is a function of the member's number and of a counter, so no device needs anything
of another. Draws that are results are made in parts; what XLA computes is made whole, of the
members that a device has, and cut.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._jax import compat, places
from .._plan import (
    Computation,
    Computed,
    Draw,
    Drawn,
    FromDraw,
    FromKeys,
    FromStep,
    FromWords,
    KeyMode,
    Literal,
    Output,
    Plan,
    Shape,
    Source,
    Splat,
    Stacked,
    Step,
    can_tile,
)
from .._trace import moved
from . import execute
from .layout import Axes, Layout, padded
from .members import plus


@functools.lru_cache(maxsize=256)
def program(
    plan: Plan,
    size: int,
    modes: tuple[KeyMode, ...],
    axes: tuple[int | None, ...],
    single: bool,
    layout: Layout,
    donate: bool = False,
) -> Any:
    """The jitted program ``((captures, members), old, key, *leaves) -> output leaves``.

    Args:
        plan, size, modes, axes, single, donate: see `execute.program`. ``size`` is a multiple of
            what ``layout`` splits members into; operands of fewer members are padded with their
            last one.
        layout: where the results lie.
    """
    groups: dict[Axes, list[int]] = {}
    for position, spec in enumerate(layout.specs):
        groups.setdefault(() if single else spec[0], []).append(position)

    def fill(keys: Sequence[Any], members: Any, captures: Any, args: Sequence[Any]) -> Any:
        # What a user set for the whole program says nothing of these operations.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return mapped(keys, members, captures, args)

    def mapped(keys: Sequence[Any], members: Any, captures: Any, args: Sequence[Any]) -> Any:
        stacked = [mode == KeyMode.MEMBER_KEYS for mode in modes]
        keys = [
            padded(key, 0, size) if own else key for key, own in zip(keys, stacked, strict=True)
        ]
        args = [padded(arg, axis, size) for arg, axis in zip(args, axes, strict=True)]
        listed = KeyMode.INDICES in modes
        if listed:
            members = padded(members, 0, size)
        mesh, manual = places.mesh_to_map(layout.mesh)
        leaves: dict[int, Any] = {}
        for names, positions in groups.items():
            spec: Any = jax.sharding.PartitionSpec
            along = spec(names or None)
            part = Part(plan, tuple(positions), size, modes, axes, names, single, layout)
            specs = (
                [along if own else spec() for own in stacked],
                [] if members is None else [along if listed else spec()],
                [spec()] * len(captures),
                [spec() if axis is None else spec(*[None] * axis, names or None) for axis in axes],
            )
            operands = (keys, [] if members is None else [members], [*captures], args)
            if places.is_explicit(mesh):
                operands = jax.tree_util.tree_map(
                    lambda one, where: places.put(one, mesh, where), operands, specs
                )
            made: Any = jax.shard_map(
                part.make,
                mesh=mesh,
                in_specs=specs,
                out_specs=[layout.spec(i, single) for i in positions],
                axis_names=manual,
                check_vma=False,
            )
            leaves.update(zip(positions, made(*operands), strict=True))
        return [leaves[i] for i in range(len(plan.outputs))]

    return execute.jitted("seedbed_sharded", fill, False, None, donate, layout.shardings(single))


class Part:
    """What one device makes of those results whose members are split over the same axes."""

    def __init__(
        self,
        plan: Plan,
        positions: tuple[int, ...],
        size: int,
        modes: tuple[KeyMode, ...],
        axes: tuple[int | None, ...],
        names: Axes,
        single: bool,
        layout: Layout,
        index: Callable[[Axes], Any] = jax.lax.axis_index,
    ) -> None:
        """
        Args:
            plan, size, modes, axes, single, layout: see `program`.
            positions: of the results.
            names: the axes of the mesh that their members are split over.
            index: the number of the device along some axes of the mesh, the slowest first.
        """
        self.outputs = {position: plan.outputs[position] for position in positions}
        self.steps, read = needed(plan.steps, [*self.outputs.values()])
        self.size = size // layout.blocks(names)
        self.modes = modes
        self.axes = axes
        self.names = names
        self.single = single
        self.layout = layout
        self.index = index
        # What is drawn, each with its tile or None: first what residual equations read.
        self.wanted: dict[tuple[Draw, tuple[Axes, ...] | None], int] = {}
        self.read = {index: self.number(plan.draws[index], None) for index in sorted(read)}
        self.direct: dict[int, int] = {}
        self.fills = plan.fills
        self.cut: set[int] = set()
        for position, output in self.outputs.items():
            self.add(plan, position, output)

    def add(self, plan: Plan, position: int, output: Output) -> None:
        split = self.layout.specs[position][1:]
        source = output.source
        if position in self.fills:
            # All blocks of a constant are alike.
            fill = self.fills[position]
            shape = self.layout.tile(position, output.shape)
            part = fill.replace(inner=math.prod(shape), shape=shape)
            self.direct[position] = self.number(part, None)
        elif isinstance(source, Drawn):
            draw = plan.draws[source.index]
            whole = (*split, ()) if isinstance(source, FromKeys) else split
            tiled = any(split) and can_tile(draw, self.tile(draw, whole))
            self.direct[position] = self.number(draw, whole if tiled else None)
            if any(split) and not tiled:
                self.cut.add(position)
        elif any(split) and not isinstance(source, Splat):
            self.cut.add(position)

    def number(self, draw: Draw, split: tuple[Axes, ...] | None) -> int:
        return self.wanted.setdefault((draw, split), len(self.wanted))

    def tile(self, draw: Draw, split: Sequence[Axes]) -> Shape:
        blocks = map(self.layout.blocks, split)
        return tuple([n // count for n, count in zip(draw.shape, blocks, strict=True)])

    def make(self, keys: Any, members: Any, captures: Any, args: Any) -> list[Any]:
        """The results, in the order of their positions, on one device."""
        modes, own = self.members(*members) if members else self.members(None)
        draws, tiles, blocks = [], [], []
        for draw, split in self.wanted:
            draws.append(draw)
            tiles.append(None if split is None else self.tile(draw, split))
            blocks.append([] if split is None else [self.number_along(names) for names in split])
        made = execute.made(draws, modes, self.size, keys, own, tiles, blocks)
        read = {index: made[number] for index, number in self.read.items()}
        rest = (self.size, read, captures, args, self.axes)
        residual = execute.computed(_here(self.steps), [*self.outputs.values()], *rest)
        leaves = []
        for position, output in self.outputs.items():
            source = output.source
            if position in self.direct:
                leaf = made[self.direct[position]]
                if isinstance(source, Drawn):
                    leaf = execute.drawn(source, {source.index: leaf})
            elif isinstance(source, Splat):
                shape = self.layout.tile(position, output.shape)
                leaf = jnp.broadcast_to(source.replace(shape=()).value(), (self.size, *shape))
            elif isinstance(source, Stacked):
                leaf = execute.stacked(source, read, 1)
            elif isinstance(source, Literal):
                leaf = jnp.broadcast_to(source.value(), (self.size, *output.shape))
            else:
                leaf = next(residual)
            if position in self.cut:
                leaf = self.block(leaf, position)
            leaf = compat.with_weak_type(leaf, output.weak)
            leaves.append(jnp.squeeze(leaf, 0) if self.single else leaf)
        return leaves

    def members(self, given: Any) -> tuple[tuple[KeyMode, ...], list[Any]]:
        """The mode of each key, and its operand of members, on one device."""
        if not self.names:
            return self.modes, [given] * len(self.modes)
        first = np.arange(self.layout.blocks(self.names), dtype=np.uint64) * np.uint64(self.size)
        words = np.stack([first >> np.uint64(32), first & np.uint64(0xFFFFFFFF)], axis=-1)
        start = jnp.asarray(words.astype(np.uint32))[self.index(self.names)]
        modes, operands = [], []
        for mode in self.modes:
            if mode == KeyMode.RANGE:
                operands.append(plus(start, given))
            elif mode == KeyMode.ALL:
                operands.append(start)
            else:
                operands.append(given)
            modes.append(KeyMode.RANGE if mode == KeyMode.ALL else mode)
        return tuple(modes), operands

    def number_along(self, names: Axes) -> Any:
        """Which part this device has of a dimension that is split over some axes."""
        return self.index(names).astype(np.uint32) if names else jnp.uint32(0)

    def block(self, leaf: Any, position: int) -> Any:
        """This device's part of what was made whole."""
        split = self.layout.specs[position][1:]
        tile = self.layout.tile(position, leaf.shape[1:])
        starts = [
            self.number_along(names) * np.uint32(n) for names, n in zip(split, tile, strict=True)
        ]
        return jax.lax.dynamic_slice(leaf, (np.uint32(0), *starts), (self.size, *tile))


def _here(steps: tuple[Step, ...]) -> list[Step]:
    """Residual equations as if traced where they are evaluated: mapped over a mesh."""
    mesh: Any = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return list(steps)
    return [step.replace(computation=Computation(moved(step.eqn, mesh))) for step in steps]


def needed(steps: Sequence[Step], outputs: Sequence[Output]) -> tuple[tuple[Step, ...], set[int]]:
    """The residual equations that some outputs depend on, and the draws that are read for them."""
    read = (*Computed, Stacked)
    sources: list[Source] = [output.source for output in outputs if isinstance(output.source, read)]
    values: set[int] = set()
    draws: set[int] = set()

    def note(source: Source) -> None:
        if isinstance(source, FromStep):
            values.add(source.number)
        elif isinstance(source, Stacked):
            draws.update(source.draws)
        elif isinstance(source, (FromDraw, FromKeys, FromWords)):
            draws.add(source.index)
        if isinstance(source, FromWords) and source.zeros >= 0:
            draws.add(source.zeros)

    for source in sources:
        note(source)
    kept = []
    for step in reversed(steps):
        if values.intersection(step.outputs):
            kept.append(step)
            for source in step.inputs:
                note(source)
    return tuple(reversed(kept)), draws
