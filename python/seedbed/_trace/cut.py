"""Cut: what part of a traced program something depends on, and that part as a program."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jax.interpreters import partial_eval

from .._base.record import Record
from .._jax import compat, jaxprs
from . import fingerprint, tap

if TYPE_CHECKING:
    from .._jax.types import ClosedJaxpr, Jaxpr


def live(eqns: Sequence[Any], outputs: Sequence[Any], effects: bool) -> tuple[list[Any], set[Any]]:
    """The equations and variables that the outputs, and the effects if asked for, depend on."""
    used = {variable for variable in outputs if not jaxprs.is_literal(variable)}
    kept = []
    for eqn in reversed(eqns):
        if (effects and eqn.effects) or any(variable in used for variable in eqn.outvars):
            kept.append(eqn)
            used.update(variable for variable in eqn.invars if not jaxprs.is_literal(variable))
    return kept[::-1], used


def dependent(jaxpr: Jaxpr, inputs: Sequence[int]) -> set[int]:
    """Positions of the outputs that depend on any of the inputs at the given positions."""
    reached = {jaxpr.invars[i] for i in inputs}
    for eqn in jaxpr.eqns:
        if any(not jaxprs.is_literal(atom) and atom in reached for atom in eqn.invars):
            reached.update(eqn.outvars)
    return {
        i for i, atom in enumerate(jaxpr.outvars) if not jaxprs.is_literal(atom) and atom in reached
    }


def inputs_used(closed: ClosedJaxpr) -> list[bool]:
    """Which inputs the outputs depend on, also through loops and jitted functions."""
    _, used = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
    return list(used)


def split(
    closed: ClosedJaxpr, own: Collection[int], shared: Collection[int], excluded: Collection[int]
) -> tuple[Any, Any, tuple[int, ...], tuple[Any, ...]]:
    """The traced call as two programs.

    Args:
        closed: the traced call.
        own: numbers of the taps of this call; others belong to one around it, and stay.
        shared: those of them of excluded states.
        excluded: positions of the outputs that are values of excluded states.

    Returns:
        The program of the excluded states, whose outputs are theirs and then one for each tap
        that the members read; the program of the members, which takes the latter as further
        inputs; the inputs after the key that the former takes, by position; and the types of
        the further inputs of the latter.
    """
    jaxpr = closed.jaxpr
    mine = set(own)
    taps = [
        eqn for eqn in jaxpr.eqns if eqn.primitive is tap.primitive and eqn.params["number"] in mine
    ]
    eqns = [
        eqn
        for eqn in jaxpr.eqns
        if eqn.primitive is not tap.primitive or eqn.params["number"] not in mine
    ]
    source = {eqn.outvars[0]: eqn.invars[0] for eqn in taps}
    branches = [eqn.outvars[0] for eqn in taps if eqn.params["number"] in shared]

    def read(variable: Any, stops: Collection[Any]) -> Any:
        """Where a value comes from, looking through all taps but those in ``stops``."""
        while not jaxprs.is_literal(variable) and variable in source and variable not in stops:
            variable = source[variable]
        return variable

    def through(stops: Collection[Any]) -> tuple[list[Any], list[Any]]:
        body = [eqn.replace(invars=[read(atom, stops) for atom in eqn.invars]) for eqn in eqns]
        return body, [read(atom, stops) for atom in jaxpr.outvars]

    body, outs = through(set(branches))
    outs = [out for i, out in enumerate(outs) if i not in excluded]
    body, used = live(body, outs, effects=True)
    branches = [variable for variable in branches if variable in used]
    members = jaxpr.replace(eqns=body, invars=[*jaxpr.invars, *branches], outvars=outs)

    body, outs = through(())
    outs = [out for i, out in enumerate(outs) if i in excluded]
    outs += [read(variable, ()) for variable in branches]
    # What has side effects runs once for every member, not once more here.
    body, used = live(body, outs, effects=False)
    key, *inputs = jaxpr.invars
    needed = tuple(i for i, variable in enumerate(inputs) if variable in used)
    # The others may read inputs that this program does not have.
    body = [eqn for eqn in body if any(variable in used for variable in eqn.outvars)]
    single = jaxpr.replace(eqns=body, invars=[key, *(inputs[i] for i in needed)], outvars=outs)
    return (
        jaxprs.ClosedJaxpr(single, closed.consts),
        jaxprs.ClosedJaxpr(members, closed.consts),
        needed,
        tuple(variable.aval for variable in branches),
    )


class Trimmed(Record):
    """A closed jaxpr without what neither its results nor its effects depend on.

    Compared by structure. Its inputs are the keys, the captured arrays and the arguments that
    are read, in this order.
    """

    inputs: tuple[Any, ...]
    constants: tuple[tuple[Any, Any], ...]
    eqns: tuple[Any, ...]
    outvars: tuple[Any, ...]

    @functools.cached_property
    def token(self) -> fingerprint.Fingerprint:
        return fingerprint.token_of_parts(*self.fields())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trimmed):
            return NotImplemented
        return self is other or self.token == other.token

    def __hash__(self) -> int:
        return hash(self.token)

    def evaluate(self, *inputs: Any) -> list[Any]:
        """The results for one member."""
        values = dict(self.constants)
        values.update(zip(self.inputs, inputs, strict=True))

        def read(variable: Any) -> Any:
            return variable.val if jaxprs.is_literal(variable) else values[variable]

        for eqn in self.eqns:
            results = jaxprs.bind_equation(eqn, [read(variable) for variable in eqn.invars])
            values.update(zip(eqn.outvars, results, strict=True))
        return [read(variable) for variable in self.outvars]


def trim(closed: ClosedJaxpr, keys: int = 1) -> tuple[Trimmed, tuple[Any, ...], tuple[int, ...]]:
    """The part of a traced ``init(key, *args)`` that matters; ``key`` are the first inputs.

    Returns:
        the trimmed jaxpr, the captured arrays it takes, and the positions of the argument
        leaves it reads.
    """
    jaxpr = closed.jaxpr
    eqns, needed = live(jaxpr.eqns, jaxpr.outvars, effects=True)
    constants, captured, captures = [], [], []
    for variable, value in zip(jaxpr.constvars, closed.consts, strict=True):
        if variable in needed:
            if is_constant(value):
                constants.append((variable, value))
            else:
                captured.append(variable)
                captures.append(value)
    args = jaxpr.invars[keys:]
    read = tuple(position for position, variable in enumerate(args) if variable in needed)
    inputs = (*jaxpr.invars[:keys], *captured, *(args[position] for position in read))
    trimmed = Trimmed(inputs, tuple(constants), tuple(eqns), tuple(jaxpr.outvars))
    return trimmed, tuple(captures), read


def is_constant(value: Any) -> bool:
    """Whether a captured value is part of the program: numbers and small arrays of indices.

    Others are operands, so that a program does not depend on what is in them.
    """
    if compat.is_tracer(value) or not hasattr(value, "dtype"):
        return False
    if compat.is_key(value.dtype):
        return False
    if value.size > (1024 if value.dtype.kind in "iu" else 1):
        return False
    return isinstance(value, (np.ndarray, np.generic)) or bool(value.is_fully_addressable)
