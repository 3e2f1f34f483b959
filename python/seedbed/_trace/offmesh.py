"""A traced function without what it says of where its values lie: where all of them are laid out
otherwise, that would contradict it. It changes no number."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from .._jax import jaxprs, places

if TYPE_CHECKING:
    from .._jax.types import Eqn
    from .recorded import Recorded

# What only says where a value lies. Functions that split values over an explicit mesh, where types
# say it too, do not come here.
_PLACES = ("sharding_constraint", "reshard")


def unlaid(recorded: Recorded) -> Recorded:
    """The same function, without its sharding constraints and as if no mesh had been set."""
    if not any(
        eqn.primitive.name in _PLACES or jaxprs.has_mesh(eqn)
        for eqn in jaxprs.equations(recorded.closed)
    ):
        return recorded
    with jaxprs.on_mesh(jaxprs.NO_MESH):  # which new types are of
        closed = _program(recorded.closed, jaxprs.NO_MESH)
    return dataclasses.replace(recorded, closed=closed)


def moved(eqn: Eqn, mesh: Any) -> Eqn:
    """An equation of such a function as if it, and what it calls, had been traced on a mesh."""
    params = {name: _parameter(value, mesh) for name, value in eqn.params.items()}
    if "ctx_mesh" in params:  # of calls of jitted functions
        params["ctx_mesh"] = jaxprs.NO_DEVICES
    return eqn.replace(params=params, ctx=jaxprs.moved(eqn.ctx, mesh))


def _program(program: Any, mesh: Any) -> Any:
    """A jaxpr, open or closed, without constraints and on another mesh."""
    inner, consts = jaxprs.opened(program)
    same: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return jaxprs.off_mesh(atom) if jaxprs.is_literal(atom) else same[atom]

    def write(variables: Any) -> list[Any]:
        made = [jaxprs.off_mesh(variable) for variable in variables]
        same.update(zip(variables, made, strict=True))
        return made

    taken = {"constvars": write(inner.constvars), "invars": write(inner.invars)}
    eqns = []
    for eqn in inner.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name in _PLACES:
            same[eqn.outvars[0]] = inputs[0]
        else:
            outputs = write(eqn.outvars)
            eqns.append(moved(eqn, mesh).replace(invars=inputs, outvars=outputs))
    results = [read(atom) for atom in inner.outvars]
    consts = [places.off_mesh(value) for value in consts]
    made = inner.replace(**taken, eqns=eqns, outvars=results)
    return jaxprs.ClosedJaxpr(made, consts) if consts or inner is not program else made


def _parameter(value: Any, mesh: Any) -> Any:
    if type(value) in (tuple, list):
        return type(value)([_parameter(one, mesh) for one in value])
    return _program(value, mesh) if isinstance(value, jaxprs.JAXPRS) else value
