"""Shardings: what `out_shardings` says of a result's leaves, checked before any work is done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from .._jax import compat, places
from .._plan import Drawn, Literal, Output, Plan, Splat, can_tile
from .._run.layout import Axes, Layout, named
from .._run.layout import is_leaf as is_leaf
from .._run.layout import spread as spread
from .._run.layout import whole as whole

if TYPE_CHECKING:
    from .call import Call


class Entries:
    """An `out_shardings` that is worked out of a plan, by those who know the names of its leaves.

    Attributes:
        mesh: that PartitionSpecs are of; None for the one that is set.
    """

    @property
    def mesh(self) -> Mesh | None:
        return None

    def of(self, plan: Plan) -> list[Any]:
        """A sharding, a PartitionSpec or None for every leaf of the result."""
        raise NotImplementedError


def checked(value: Any) -> Any:
    """What a user gave, if it consists of shardings.

    Raises:
        TypeError: it does not.
    """
    if isinstance(value, Entries):
        return value
    for path, leaf in jax.tree_util.tree_leaves_with_path(value, is_leaf=is_leaf):
        if not isinstance(leaf, (NamedSharding, SingleDeviceSharding, PartitionSpec, type(None))):
            raise TypeError(
                "`out_shardings` must consist of NamedShardings, SingleDeviceShardings, "
                "PartitionSpecs and None (whole on every device); got "
                f"{leaf!r} of type {type(leaf).__name__}"
                + (f" at {jax.tree_util.keystr(path)}" if path else "")
            )
    return value


def of_mesh(value: Any, mesh: Any) -> Any:
    """The same with all PartitionSpecs as those of a mesh, if there is one."""

    def named(leaf: Any) -> Any:
        known = mesh is None or not isinstance(leaf, PartitionSpec)
        return leaf if known else NamedSharding(mesh, leaf)

    return jax.tree_util.tree_map(named, value, is_leaf=is_leaf)


def resolve(value: Any, plan: Plan, size: int | None) -> Layout:
    """Where the leaves of a result lie.

    Args:
        value: what `checked` let pass.
        plan: of one member.
        size: the number of members; None for a single model, whose leaves have no dimension for
            members.

    Raises:
        ValueError: it is not like the result, or a leaf cannot be laid out as it says.
    """
    if isinstance(value, Entries):
        shardings, own = value.of(plan), value.mesh
    else:
        shardings, own = spread(value, plan.out_tree), None
    mesh = _mesh(shardings, own)
    given = [_given(sharding) for sharding in shardings]
    specs = tuple(
        _spec(output, spec, mesh, size) for output, spec in zip(plan.outputs, given, strict=True)
    )
    entries = tuple(len(spec) + (1 if size is None else 0) for spec in given)
    kinds = tuple(getattr(sharding, "memory_kind", None) for sharding in shardings)
    return Layout(mesh, specs, entries, kinds)


def _mesh(shardings: Sequence[Any], own: Mesh | None) -> Any:
    """The one mesh that all of them are of; PartitionSpecs of their own, or of the one set."""
    found: Any = None
    for sharding in shardings:
        if sharding is None:
            continue
        if isinstance(sharding, PartitionSpec):
            mesh = places.ambient_mesh() if own is None else own
            if mesh is None:
                raise ValueError(
                    f"`out_shardings` has {sharding!r}, a PartitionSpec, and no mesh is set that "
                    "it could be of: use jax.set_mesh, or give a NamedSharding"
                )
        elif isinstance(sharding, SingleDeviceSharding):
            (device,) = sharding.device_set
            mesh = Mesh([device], ("device",))
        else:
            mesh = sharding.mesh
        if found is not None and mesh != found:
            raise ValueError(
                f"`out_shardings` must be of one mesh; got {_shown(found)} and {_shown(mesh)}"
            )
        found = mesh
    if found is None:
        raise ValueError("`out_shardings` consists of None alone; leave it out instead")
    return found


def _given(sharding: Any) -> Any:
    """What a sharding says of dimensions."""
    whole = sharding is None or isinstance(sharding, SingleDeviceSharding)
    return () if whole else getattr(sharding, "spec", sharding)


def _spec(output: Output, spec: Any, mesh: Any, size: int | None) -> tuple[Axes, ...]:
    """The axes of each dimension of a leaf, the one of members first."""
    shape = output.shape if size is None else (size, *output.shape)

    def refuse(why: str) -> ValueError:
        name = "the result" if output.path == "result" else f"the leaf {output.path}"
        return ValueError(
            f"`out_shardings` gives {spec!r} for {name} of shape {shape}, on {_shown(mesh)}: {why}"
        )

    if len(spec) > len(shape):
        raise refuse(f"it has {len(spec)} entries for {len(shape)} dimensions")
    if any(entry is PartitionSpec.UNCONSTRAINED for entry in spec):
        raise refuse("a dimension that is left open has no size on a device")
    axes = named(spec, len(shape))
    seen: set[str] = set()
    for name in (name for entry in axes for name in entry):
        if name not in mesh.axis_names:
            raise refuse(f"the mesh has no axis {name!r}")
        if name in seen:
            raise refuse(f"two dimensions cannot be split over the same axis {name!r}")
        seen.add(name)
    first = 0 if size is None else 1
    for dimension, (entry, extent) in enumerate(zip(axes, shape, strict=True)):
        parts = math.prod(mesh.shape[name] for name in entry)
        if dimension >= first and extent % parts:
            raise refuse(f"dimension {dimension} of length {extent} does not divide into {parts}")
    return axes if first else ((), *axes)


def padded(layout: Layout, count: int, pad: bool, name: str) -> int:
    """How many members are made where ``count`` are asked for.

    Raises:
        ValueError: they do not divide, and are not to be padded.
    """
    parts = layout.member_blocks
    if count % parts == 0:
        return count
    if not pad:
        raise ValueError(
            f"`{name}` is {count} members, which `out_shardings` splits into {parts} parts of "
            f"{_shown(layout.mesh)}; that does not divide. Choose a multiple, or pass pad=True: "
            f"{-(-count // parts) * parts} members are made then, the first {count} of them the "
            "same"
        )
    return -(-count // parts) * parts


def explained(plan: Plan, layout: Layout) -> Plan:
    """The plan, with a word for each leaf that a device makes whole before it keeps its part."""
    if plan.reference is not None:
        return plan  # as jax makes it
    outputs = []
    for position, output in enumerate(plan.outputs):
        split = layout.specs[position][1:]
        if any(split) and not _in_parts(plan, position, split, layout):
            output = output.replace(why=f"{output.why}; made whole, then cut")
        outputs.append(output)
    return plan.replace(outputs=tuple(outputs))


def _in_parts(plan: Plan, position: int, split: tuple[Axes, ...], layout: Layout) -> bool:
    source = plan.outputs[position].source
    if isinstance(source, Drawn):
        draw = plan.draws[source.index]
        rest = draw.shape[len(split) :]
        return can_tile(draw, (*layout.tile(position, draw.shape[: len(split)]), *rest))
    return isinstance(source, Splat) and not isinstance(source, Literal)


def committed(call: Call, mesh: Any) -> None:
    """Refuses keys and arguments that are bound to other devices than those of the mesh.

    Raises:
        ValueError: one is.
    """
    if not isinstance(mesh, Mesh):
        return
    devices = set(mesh.devices.flat)
    for where, tree in (("key", call.key), ("args", call.args)):
        for path, value in jax.tree_util.tree_leaves_with_path(tree):
            array = getattr(value, "_base_array", value)
            if not isinstance(array, jax.Array) or compat.is_tracer(array):
                continue
            if getattr(array, "committed", False) and array.sharding.device_set != devices:
                raise ValueError(
                    f"`{where}{jax.tree_util.keystr(path)}` is bound to {_devices(array)}, and "
                    f"`out_shardings` is of {_shown(mesh)}, {mesh.size} devices: put it there "
                    "first, by jax.device_put(value, NamedSharding(mesh, PartitionSpec()))"
                )


def _devices(array: Any) -> str:
    found = sorted(map(str, array.sharding.device_set))
    return found[0] if len(found) == 1 else f"{len(found)} devices ({found[0]}, ...)"


def _shown(mesh: Any) -> str:
    axes = ", ".join(f"{name}: {length}" for name, length in mesh.shape.items())
    return f"a mesh of ({axes})"
