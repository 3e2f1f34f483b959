"""Excluded states: one traced call becomes a program for them and one for the members.

An excluded state gets the value that a single model's initialisation gives it, and every
member reads that value, not one of its own. Which states are excluded is known only once
the call is over (a filter may ask for a path). So each value written is passed through a
``tap``, an identity that marks where readers branch off; afterwards the taps of excluded
states become inputs of the members' program, and all others disappear.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any

import jax
from jax.interpreters import batching

from .. import _compat

_tap: Any = _compat.core.Primitive("seedbed_tap")
_tap.def_abstract_eval(lambda value, *, number: value)


def _batched(values: Any, axes: Any, *, number: int) -> Any:
    """For the taps of a call that runs over members inside of another one."""
    return _tap.bind(values[0], number=number), axes[0]


batching.primitive_batchers[_tap] = _batched
# No two taps have the same number, whichever call they belong to.
_numbers = itertools.count()


def fresh() -> int:
    return next(_numbers)


def tap(value: Any, number: int) -> Any:
    """The value, marked with ``number`` where it is traced."""
    return jax.tree.map(
        lambda leaf: _tap.bind(leaf, number=number) if _compat.is_tracer(leaf) else leaf, value
    )


def split(
    closed: Any, own: Collection[int], shared: Collection[int], excluded: Collection[int]
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
    taps = [eqn for eqn in jaxpr.eqns if eqn.primitive is _tap and eqn.params["number"] in mine]
    eqns = [
        eqn for eqn in jaxpr.eqns if eqn.primitive is not _tap or eqn.params["number"] not in mine
    ]
    source = {eqn.outvars[0]: eqn.invars[0] for eqn in taps}
    branches = [eqn.outvars[0] for eqn in taps if eqn.params["number"] in shared]

    def read(variable: Any, stops: Collection[Any]) -> Any:
        """Where a value comes from, looking through all taps but those in ``stops``."""
        while _is_variable(variable) and variable in source and variable not in stops:
            variable = source[variable]
        return variable

    def through(stops: Collection[Any]) -> tuple[list[Any], list[Any]]:
        body = [eqn.replace(invars=[read(atom, stops) for atom in eqn.invars]) for eqn in eqns]
        return body, [read(atom, stops) for atom in jaxpr.outvars]

    body, outs = through(set(branches))
    outs = [out for i, out in enumerate(outs) if i not in excluded]
    body, used = _used(body, outs, effects=True)
    branches = [variable for variable in branches if variable in used]
    members = jaxpr.replace(eqns=body, invars=[*jaxpr.invars, *branches], outvars=outs)

    body, outs = through(())
    outs = [out for i, out in enumerate(outs) if i in excluded]
    outs += [read(variable, ()) for variable in branches]
    # What has side effects runs once for every member, not once more here.
    body, used = _used(body, outs, effects=False)
    key, *inputs = jaxpr.invars
    needed = tuple(i for i, variable in enumerate(inputs) if variable in used)
    # The others may read inputs that this program does not have.
    body = [eqn for eqn in body if any(variable in used for variable in eqn.outvars)]
    single = jaxpr.replace(eqns=body, invars=[key, *(inputs[i] for i in needed)], outvars=outs)
    return (
        _compat.ClosedJaxpr(single, closed.consts),
        _compat.ClosedJaxpr(members, closed.consts),
        needed,
        tuple(variable.aval for variable in branches),
    )


def _is_variable(atom: Any) -> bool:
    return not hasattr(atom, "val")  # literals have one


def _used(eqns: Sequence[Any], outputs: Sequence[Any], effects: bool) -> tuple[list[Any], set[Any]]:
    """The equations and variables that the outputs, and the effects if asked for, depend on."""
    used = {variable for variable in outputs if _is_variable(variable)}
    kept = []
    for eqn in reversed(eqns):
        if (effects and eqn.effects) or any(variable in used for variable in eqn.outvars):
            kept.append(eqn)
            used.update(variable for variable in eqn.invars if _is_variable(variable))
    return kept[::-1], used


def dependent(jaxpr: Any, inputs: Sequence[int]) -> set[int]:
    """Positions of the outputs that depend on any of the inputs at the given positions."""
    reached = {jaxpr.invars[i] for i in inputs}
    for eqn in jaxpr.eqns:
        if any(_is_variable(atom) and atom in reached for atom in eqn.invars):
            reached.update(eqn.outvars)
    return {i for i, atom in enumerate(jaxpr.outvars) if _is_variable(atom) and atom in reached}
