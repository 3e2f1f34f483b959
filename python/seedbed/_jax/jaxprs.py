"""jaxprs: what an equation does, what it calls, and how it is evaluated."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import make_jaxpr

from .compat import abstract, core

JaxprEqn = Any

_REMAT = ("checkpoint", "remat", "remat2")
# Primitives that merely call the jaxpr among their parameters.
_calls = {"jit", "pjit", "closed_call", "core_call", "core_closed_call", *_REMAT}


def register_call(name: str) -> None:
    """Makes known that a primitive with this name merely calls its parameter ``jaxpr``."""
    _calls.add(name)


def calls() -> frozenset[str]:
    """The names of these primitives."""
    return frozenset(_calls)


# Makes operands vary over the same devices of `jax.shard_map`.
alike_in_shard_map: Any = getattr(core, "auto_insert_reshard", None) or getattr(
    core, "standard_insert_pvary", None
)
# These do that for themselves, as the types of what they carry demand.
_TYPED = ("scan", "while", "cond")


def bind_equation(eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Evaluates one jaxpr equation on ``values``, in the context it was traced in."""
    params = eqn.primitive.get_bind_params(eqn.params)
    # Jax's functions see to this before they bind, and here it may be another context than theirs.
    if len(values) > 1 and eqn.primitive.name not in _TYPED:
        values = alike_in_shard_map(*values)
    with eqn.ctx.manager:
        out = eqn.primitive.bind(*values, **params)
    return list(out) if eqn.primitive.multiple_results else [out]


def inner_jaxpr(eqn: JaxprEqn) -> Any | None:
    """The closed jaxpr that an equation merely calls, or None if it does more than call.

    A custom derivative rule is more than a call: opening it would change what gradients
    of the result mean.
    """
    if eqn.primitive.name not in _calls:
        return None
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if inner is not None and not hasattr(inner, "consts"):
        return ClosedJaxpr(inner, ())
    return inner


def bodies(*jaxprs: Any) -> Iterator[Any]:
    """Jaxprs and those inside of their equations, each once."""
    pending, seen = [*jaxprs], {*map(id, jaxprs)}
    while pending:
        body = pending.pop()
        yield body
        for eqn in body.eqns:
            for inner in core.jaxprs_in_params(eqn.params):
                if id(inner) not in seen:
                    seen.add(id(inner))
                    pending.append(inner)


def equations(program: Any) -> Iterator[JaxprEqn]:
    """Every equation of a jaxpr, or one equation, and those inside of them, each jaxpr once."""
    inside = [program]
    if not hasattr(program, "eqns"):
        yield program
        inside = [*core.jaxprs_in_params(program.params)]
    for body in bodies(*inside):
        yield from body.eqns


class Scan(NamedTuple):
    """What a scan consists of: its operands are constants, what it carries, and what it reads."""

    consts: int
    carried: int
    body: Any
    length: int
    reverse: bool
    unroll: Any


def scan_of(eqn: JaxprEqn) -> Scan:
    """The parts of a scan."""
    params = eqn.params
    if "num_carry" in params:
        consts, carried = params["num_consts"], params["num_carry"]
    else:  # newer releases: the operands' places in a tree
        consts, carried = (len(part) for part in params["ft_in"].unpack()[:2])
    rest = (params["jaxpr"], params["length"], params["reverse"], params["unroll"])
    return Scan(consts, carried, *rest)


def with_unused_input(closed: Any, eqn: JaxprEqn) -> Any:
    """A branch as a function of all operands of its equation, the first of which chose it."""
    jaxpr, consts = opened(closed)
    types = [abstract(v.aval.shape, v.aval.dtype, v.aval.weak_type) for v in eqn.invars]
    with eqn.ctx.manager:
        return make_jaxpr(lambda _, *operands: core.eval_jaxpr(jaxpr, consts, *operands))(*types)


def without_dead_code(closed: Any) -> Any:
    """A closed jaxpr without what its results do not depend on, also through loops and calls."""
    from jax.interpreters import partial_eval  # of no use before

    live = [True] * len(closed.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, live, instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


# The types of jaxprs, open and closed (one type in newer releases).
ClosedJaxpr: Any = getattr(core, "ClosedJaxpr", core.Jaxpr)
JAXPRS = (core.Jaxpr, ClosedJaxpr)


def opened(program: Any) -> tuple[Any, Sequence[Any]]:
    """The jaxpr and the constants of a jaxpr, closed or not."""
    return getattr(program, "jaxpr", program), getattr(program, "consts", ())


def context_fields(eqn: JaxprEqn) -> tuple[tuple[str, Any], ...]:
    """The settings that an equation was traced under and is evaluated under, by name."""
    context = eqn.ctx
    names = [name for kind in type(context).__mro__ for name in getattr(kind, "__slots__", ())]
    names += getattr(context, "__dict__", ())
    if not {"compute_type", "threefry_partitionable"} <= set(names):
        return (("context", context),)  # of a jax that keeps them some other way
    return tuple((name, getattr(context, name, None)) for name in names if name != "__weakref__")


NO_MESH: Any = jax.sharding.AbstractMesh((), ())
NO_DEVICES: Any = jax.sharding.Mesh(np.empty((), object), ())


def on_mesh(mesh: Any) -> Any:
    """A context in which what is made, in a trace, is on a mesh (or on none)."""
    use: Any = jax.sharding.use_abstract_mesh
    return use(mesh)


def has_mesh(eqn: JaxprEqn) -> bool:
    """Whether an equation was traced while a mesh was set."""
    mesh = getattr(eqn.ctx, "cur_abstract_mesh", None)
    return mesh is not None and not mesh.empty


def off_mesh(variable: Any) -> Any:
    """A new variable, or literal, for one whose type names a mesh, of a type that does not; else
    the same."""
    aval = variable.aval
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    if mesh is None or mesh.empty:
        return variable
    plain = core.ShapedArray(aval.shape, aval.dtype, weak_type=aval.weak_type)
    value = (variable.val,) if is_literal(variable) else ()
    return type(variable)(*value, plain)


@functools.lru_cache(maxsize=64)
def moved(context: Any, mesh: Any) -> Any:
    """The context of an equation, as if it had been traced while this mesh was set."""
    kind: Any = type(context)
    with context.manager, on_mesh(mesh):
        try:
            return kind()
        except TypeError:  # of a jax before 0.12
            values = context.compute_type, context.threefry_partitionable, context.xla_metadata
            return kind(*values)


def is_remat(eqn: JaxprEqn) -> bool:
    """Whether opening this call would lose a rematerialisation boundary."""
    return eqn.primitive.name in _REMAT


def is_literal(atom: Any) -> bool:
    """Whether an operand or a result of a jaxpr's equation is a number, not a variable."""
    return hasattr(atom, "val")
