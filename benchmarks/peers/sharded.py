"""The peers of the scale table: results that lie in parts on the devices of a mesh.

Each function takes a case and the number of devices of its process, and returns a `Call`. The
devices are virtual ones of this processor; with several processes the mesh is over all of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from ..case import Case, Leaf
from . import on_jax
from .roster import Call

_AXIS = "x"
# Matrices that write into what runs through the layers: split by rows, the others by columns.
_BY_ROWS = ("out", "down")
_COLLECTIVE = re.compile(
    r"\b(?:all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\("
)


def single(case: Case, devices: int) -> Call:
    mesh = _mesh(devices)
    import seedbed as sb

    return _of_seedbed(sb.single(_model(case), out_shardings=_places(case, mesh)))


def ensemble(case: Case, devices: int) -> Call:
    mesh = _mesh(devices)
    import seedbed as sb

    return _of_seedbed(sb.ensemble(on_jax.init(case), case.members, out_shardings=_members(mesh)))


def partitioned(case: Case, devices: int) -> Call:
    """An ensemble that is told nothing, in a program whose results XLA spreads over devices."""
    mesh = _mesh(devices)
    import seedbed as sb

    make = sb.ensemble(on_jax.init(case), case.members)
    return _compiled(jax.jit(make, out_shardings=_members(mesh)))


def jitted(case: Case, devices: int) -> Call:
    mesh = _mesh(devices)
    if case.layers:
        return _compiled(jax.jit(_model(case), out_shardings=_places(case, mesh)))
    return _compiled(jax.jit(on_jax.vmapped(case), out_shardings=_members(mesh)))


def nnx(case: Case, devices: int) -> Call:
    """A model whose parameters carry their specs, constrained to them inside of `nnx.jit`."""
    from flax import nnx

    mesh = _mesh(devices)

    class Layer(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            for leaf in case.leaves:
                key = None if leaf.sampler in on_jax.CONSTANTS else rngs.params()
                make = nnx.with_partitioning(on_jax.SAMPLERS[leaf.sampler], _spec(leaf))
                setattr(self, leaf.name, nnx.Param(make(key, leaf.shape)))

    class Unrolled(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            for number in range(case.layers):
                setattr(self, f"layer{number}", Layer(rngs))

    @nnx.split_rngs(splits=case.layers)
    @nnx.vmap(transform_metadata={nnx.PARTITION_NAME: None})
    def vmapped(rngs: Any) -> Any:
        return Layer(rngs)

    make = {"unrolled": Unrolled, "vmapped": vmapped}[case.form]

    @nnx.jit
    def create_sharded(key: Any) -> Any:
        model = make(nnx.Rngs(params=jax.random.wrap_key_data(key)))
        state = nnx.state(model)
        specs = nnx.get_partition_spec(state)
        nnx.update(model, jax.lax.with_sharding_constraint(state, specs))
        return model

    return _compiled(create_sharded, mesh, nnx.state)


def _mesh(devices: int) -> Any:
    """All devices of all processes; before any program runs, which fixes their number."""
    jax.config.update("jax_num_cpu_devices", devices)
    return jax.make_mesh((len(jax.devices()),), (_AXIS,), axis_types=(AxisType.Auto,))


def _model(case: Case) -> Callable[[Any], Any]:
    """All layers as a plain function of a key, the same numbers in every form."""
    layer = on_jax.init(case)

    def unrolled(key: Any) -> Any:
        keys = jax.random.split(key, case.layers)
        return {f"layer{number}": layer(keys[number]) for number in range(case.layers)}

    def vmapped(key: Any) -> Any:
        return jax.vmap(layer)(jax.random.split(key, case.layers))

    def scanned(key: Any) -> Any:
        keys = jax.random.split(key, case.layers)
        return jax.lax.scan(lambda none, key: (none, layer(key)), None, keys)[1]

    return {"unrolled": unrolled, "vmapped": vmapped, "scanned": scanned}[case.form]


def _places(case: Case, mesh: Any) -> Any:
    """Shardings in the structure of the model, written down without a trace of it."""
    stacked = case.form != "unrolled"
    layer = {
        leaf.name: NamedSharding(mesh, P(*(None,) * stacked, *_spec(leaf))) for leaf in case.leaves
    }
    return layer if stacked else {f"layer{number}": layer for number in range(case.layers)}


def _spec(leaf: Leaf) -> tuple[str | None, ...]:
    if len(leaf.shape) < 2:
        return ()
    return (_AXIS, None) if leaf.name in _BY_ROWS else (None, _AXIS)


def _members(mesh: Any) -> Any:
    return NamedSharding(mesh, P(_AXIS))


def _of_seedbed(make: Any) -> Call:
    def facts() -> dict[str, Any]:
        # What runs eagerly, compiled once more for a look at it.
        program = jax.jit(make).lower(on_jax.key(0)).compile()
        return on_jax.plan_facts(make.plan(on_jax.key(0))) | _told(program)

    return Call(on_jax.key, on_jax.ready(make), facts)


def _compiled(make: Any, mesh: Any = None, shown: Callable[[Any], Any] = lambda made: made) -> Call:
    """A jitted function, compiled by its first call and kept, so that it can be looked at."""
    programs: list[Any] = []

    def run(key: Any) -> Any:
        if not programs:
            if mesh is None:
                programs.append(make.lower(key).compile())
            else:
                with jax.set_mesh(mesh):
                    programs.append(make.lower(key).compile())
        return jax.block_until_ready(shown(programs[0](key)))

    return Call(on_jax.key, run, lambda: on_jax.lowering() | _told(programs[0]))


def _told(program: Any) -> dict[str, Any]:
    """What a compiled program needs besides its results, on each device."""
    return {
        "temporary": program.memory_analysis().temp_size_in_bytes,
        "collectives": len(_COLLECTIVE.findall(program.as_text())),
    }
