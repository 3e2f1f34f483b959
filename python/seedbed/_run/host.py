"""Host: the parts of one model, made by this machine's processor and sent to their devices.

One compiled program makes any part; nothing is compiled for the devices that get them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from .._plan import KeyMode, Plan
from .layout import Axes, Layout
from .members import Wanted
from .programs import NativeProgram, Program
from .sharded import Part


def run(program: Program, layout: Layout, keys: Sequence[Any], read: Sequence[Any]) -> list[Any]:
    """The leaves of one model, laid out.

    Args:
        program: what makes it.
        layout: where the leaves lie; its devices are known.
        keys: of the model, as those of one member.
        read: the leaves of the arguments that the program takes.
    """
    shardings = layout.shardings(True)
    assert shardings is not None
    if not isinstance(program, NativeProgram):
        bound = program.bind(Wanted(1, None, (True,) * len(keys), True, None, False))
        whole = bound.run(bound.given, None, list(keys), *read)
        return [_cut(leaf, place) for leaf, place in zip(whole, shardings, strict=True)]
    make = _program(program.plan, len(keys), program.axes, layout)
    parts: list[list[Any]] = [[] for _ in shardings]
    known: dict[tuple[int, ...], list[Any]] = {}
    split = {name for spec in layout.specs for axes in spec for name in axes}
    for place, device in np.ndenumerate(layout.mesh.devices):
        if device.process_index != jax.process_index():
            continue
        # Devices that hold the same parts get copies of what is made once.
        named = zip(layout.mesh.axis_names, place, strict=True)
        numbers = tuple([number if name in split else 0 for name, number in named])
        made = known.get(numbers)
        if made is None:
            coordinates = jax.device_put(np.array(numbers, np.uint32))
            made = known[numbers] = make(coordinates, list(keys), program.captures, list(read))
        for part, leaf in zip(parts, made, strict=True):
            part.append(jax.device_put(leaf, device))
    return [
        jax.make_array_from_single_device_arrays(output.shape, place, part)
        for output, place, part in zip(program.plan.outputs, shardings, parts, strict=True)
    ]


def _cut(leaf: Any, place: Any) -> Any:
    """A leaf that was made whole, laid out."""
    return jax.make_array_from_callback(leaf.shape, place, lambda index: leaf[index])


@functools.lru_cache(maxsize=64)
def _program(plan: Plan, keys: int, axes: tuple[int | None, ...], layout: Layout) -> Any:
    """The jitted program ``(coordinates of a device, keys, captures, args) -> its parts``."""
    positions = tuple(range(len(plan.outputs)))
    modes = (KeyMode.MEMBER_KEYS,) * keys

    def seedbed_part(coordinates: Any, keys: Any, captures: Any, args: Any) -> list[Any]:
        def index(names: Axes) -> Any:
            number: Any = np.uint32(0)
            for name in names:
                at = coordinates[layout.mesh.axis_names.index(name)]
                number = number * np.uint32(layout.mesh.shape[name]) + at
            return number

        part = Part(plan, positions, 1, modes, axes, (), True, layout, index)
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            return part.make(keys, [], captures, args)

    return jax.jit(seedbed_part)
