"""Arguments of functions that run over members: which leaves are mapped, and which are not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..._ensemble import check
from .._tree import walk


@dataclass(frozen=True, slots=True)
class Arguments:
    """Positional arguments, taken apart.

    Attributes:
        leaves, axes: arrays and numbers, and the mapped axis of each, or None.
        rebuild: makes the arguments from those leaves; other leaves stay what they are.
        modules: modules among the arguments.
        sizes: lengths of the mapped axes, with the name of each leaf.
    """

    leaves: list[Any]
    axes: list[int | None]
    rebuild: Callable[[list[Any]], tuple[Any, ...]]
    modules: list[Any]
    sizes: list[tuple[str, int]]


NO_ARGUMENTS = Arguments([], [], tuple, [], [])


def take_apart(args: tuple[Any, ...], in_axes: Any) -> Arguments:
    """Splits arguments into what is mapped or traced, and everything else.

    Raises:
        TypeError, ValueError: ``in_axes`` does not fit the arguments.
    """
    every, tree = jax.tree_util.tree_flatten_with_path(check.finite(args, "args"))
    if isinstance(in_axes, (tuple, list)) and len(in_axes) != len(args):
        raise ValueError(
            f"`in_axes` has {len(in_axes)} entries for {len(args)} positional arguments; give one "
            "entry for each"
        )
    spread = check.spread(in_axes, args)
    leaves: list[Any] = []
    axes: list[int | None] = []
    sizes: list[tuple[str, int]] = []
    places: list[int] = []
    for place, ((path, leaf), axis) in enumerate(zip(every, spread, strict=True)):
        if not check.array_like(leaf):
            continue
        if axis is None and isinstance(leaf, (bool, int, float, complex)):
            continue  # stays a number of Python, as jax.vmap has it
        name = f"args{jax.tree_util.keystr(path)}"
        axis = check.axis(axis, name, leaf)
        if axis is not None:
            sizes.append((name, np.shape(leaf)[axis]))
        leaves.append(leaf)
        axes.append(axis)
        places.append(place)
    fixed = [leaf for _, leaf in every]

    def rebuild(values: list[Any]) -> tuple[Any, ...]:
        filled = list(fixed)
        for place, value in zip(places, values, strict=True):
            filled[place] = value
        rebuilt: tuple[Any, ...] = jax.tree_util.tree_unflatten(tree, filled)
        return rebuilt

    modules = [leaf for leaf in fixed if isinstance(leaf, walk.Node)]
    return Arguments(leaves, axes, rebuild, modules, sizes)


def agreed(sizes: list[tuple[str, int]], name: str, modules: bool = False) -> int:
    """The one number of members that everything has.

    Raises:
        ValueError: there is none, or two disagree.
    """
    if not sizes:
        way = "give `axis_size`"
        if modules:
            way = "initialise the module with vmap_init_all_states(module, axis_size=...) first"
        raise ValueError(
            f"{name} finds no number of members: no state and no argument is mapped; {way}"
        )
    first, size = sizes[0]
    for other, found in sizes[1:]:
        if found != size:
            raise ValueError(
                f"{name} needs one number of members; {first} has {size}, {other} has {found}"
            )
    return size
