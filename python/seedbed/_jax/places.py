"""Where arrays lie, as far as it is part of their types: meshes with axes of type ``Explicit``.

`jax.make_mesh` makes such meshes. jax works out from the operands how each result is laid out over
their devices, and asks that what is mapped together is laid out alike; a native call of all
members says nothing of that. So what is laid out over several devices is left to jax.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from . import compat, jaxprs

if TYPE_CHECKING:
    from .types import ClosedJaxpr


def sharding_of(value: Any) -> Any | None:
    """A value's sharding (or a type's), if that is part of its type; else None."""
    aval = value if isinstance(value, jax.core.AbstractValue) else getattr(value, "aval", None)
    sharding = getattr(aval, "sharding", None)
    mesh = getattr(sharding, "mesh", None)
    if mesh is None or mesh.empty:
        return None
    return sharding if is_explicit(mesh) else None


def laid_out(value: Any) -> Any | None:
    """Such a sharding, if it lays the value out over axes of the mesh; None if every device has
    all of the value."""
    sharding = sharding_of(value)
    whole = sharding is None or all(axes is None for axes in sharding.spec)
    return None if whole else sharding


def member(value: Any, axis: int | None) -> Any | None:
    """How one member's part of a value is laid out, if that is part of its type.

    Args:
        value: of all members, or its type.
        axis: the axis over members, None if all have the whole.
    """
    sharding = sharding_of(value)
    if sharding is None or axis is None:
        return sharding
    spec = [*sharding.spec]
    del spec[axis : axis + 1]
    return sharding.update(spec=spec)


def unplaced(aval: Any) -> Any:
    """The type without where its values lie."""
    return compat.abstract(aval.shape, aval.dtype, getattr(aval, "weak_type", False))


def gathered(value: Any, axis: int) -> Any:
    """The value with all of this axis on every device, so that any of it may be picked."""
    sharding = laid_out(value)
    if sharding is None or axis >= len(sharding.spec) or sharding.spec[axis] is None:
        return value
    spec = [None if d == axis else axes for d, axes in enumerate(sharding.spec)]
    reshard: Any = jax.sharding.reshard
    return reshard(value, sharding.update(spec=spec))


def mapped_alike(keys: Sequence[Any], args: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """Members' keys, laid out as what is mapped with them, as `jax.vmap` demands."""
    for value, axis in zip(args, axes, strict=True):
        sharding = None if axis is None else laid_out(value)
        if sharding is not None and sharding.spec[axis] is not None:
            reshard: Any = jax.sharding.reshard
            place = sharding.update(spec=[sharding.spec[axis]])
            return [key if laid_out(key) is not None else reshard(key, place) for key in keys]
    return list(keys)


def beside(keys: Sequence[Any], args: Sequence[Any], axes: Sequence[int | None]) -> list[Any]:
    """Keys on the mesh that arguments are mapped over, whole on every device of it.

    jax's types tell what is on a mesh from what is not, and one traced member is mapped over the
    mesh only if its key is there. No mesh need be set: the argument has one.
    """
    for value, axis in zip(args, axes, strict=True):
        sharding = None if axis is None else laid_out(value)
        if sharding is not None and sharding.spec[axis] is not None:
            return [key if sharding_of(key) is not None else _moved(key, value) for key in keys]
    return list(keys)


# The value is an operand for its devices; in a trace, or in a derivative, it is all that has them.
@functools.partial(jax.jit, keep_unused=True)
def _moved(key: Any, value: Any) -> Any:
    mesh = jax.typeof(value).sharding.mesh
    reshard: Any = jax.sharding.reshard
    with jax.sharding.use_abstract_mesh(mesh):
        return reshard(key, jax.typeof(value).sharding.update(spec=()))


def ambient_mesh() -> Any | None:
    """The mesh that was set for the program (`jax.set_mesh`, or a mesh as a context), or None.

    Its devices are not known yet in what is being traced.
    """
    mesh: Any = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        mesh = compat.mesh_as_context()
        return None if mesh is None or mesh.empty else mesh
    if compat.at_top():
        concrete: Any = jax.sharding.get_mesh()
        return mesh if concrete.empty else concrete
    return mesh


@contextlib.contextmanager
def on_one(device: Any) -> Iterator[None]:
    """Runs what is jitted on one device, whatever mesh is set."""
    with contextlib.ExitStack() as stack:
        if ambient_mesh() is not None:
            stack.enter_context(jax.set_mesh(jaxprs.NO_DEVICES))
        stack.enter_context(jax.default_device(device))
        yield


def off_mesh(value: Any) -> Any:
    """A constant that is on a mesh's devices for no reason but that one was set, as plain data."""
    if not isinstance(value, jax.Array) or compat.is_tracer(value) or compat.is_key(value.dtype):
        return value
    replicated = value.sharding.num_devices > 1 and value.is_fully_replicated
    return np.asarray(value) if replicated else value


def put(value: Any, mesh: Any, spec: Any) -> Any:
    """A value, in a program that is being traced, laid out over a mesh's devices."""
    sharding = jax.sharding.NamedSharding(mesh, spec)
    reshard: Any = jax.sharding.reshard
    return (reshard if is_explicit(mesh) else jax.lax.with_sharding_constraint)(value, sharding)


def is_explicit(mesh: Any) -> bool:
    """Whether shardings over some axis of a mesh are part of types."""
    return any(kind == jax.sharding.AxisType.Explicit for kind in mesh.axis_types or ())


def mesh_to_map(mesh: Any) -> tuple[Any, set[str]]:
    """What `jax.shard_map` is told, here, of a mesh: the mesh, and its axes that are not being
    mapped over already."""
    ambient: Any = jax.sharding.get_abstract_mesh()
    manual = set(getattr(ambient, "manual_axes", ()))
    return (ambient if manual else mesh), set(mesh.axis_names) - manual


def of(values: Iterable[Any]) -> Hashable:
    """Where values lie, as a dictionary key; None if the types of none of them say."""
    found = tuple(map(sharding_of, values))
    return found if any(found) else None


def explicit_mesh() -> bool:
    """Whether shardings are part of the types of what is being traced now."""
    return is_explicit(jax.sharding.get_abstract_mesh())


def mapped_over() -> bool:
    """Whether what is traced now is inside of `jax.vmap` over an axis that lies on a mesh."""
    environment = compat.core.get_axis_env()
    return bool(getattr(environment, "explicit_mesh_axis_names", ()))


def why_jaxs(values: Iterable[Any], closed: ClosedJaxpr) -> str | None:
    """Why jax has to lay out the results of a traced function over devices, or None.

    Args:
        values: the keys and arguments of all members.
        closed: the jaxpr of one member.
    """
    if mapped_over():
        return "it is mapped over an axis that lies on the devices of a mesh"
    values = [*values, *closed.consts]
    if any(laid_out(value) is not None for value in values):
        return "keys, arguments or captured arrays are sharded over the devices of an explicit mesh"
    if not jax.sharding.get_abstract_mesh().empty or any(map(sharding_of, values)):
        made = (v.aval for eqn in jaxprs.equations(closed.jaxpr) for v in eqn.outvars)
        if any(laid_out(aval) is not None for aval in made):
            return "init shards arrays over the devices of an explicit mesh"
    return None
