"""Excluded states: one traced call becomes a program for them and one for the members.

An excluded state gets the value that a single model's initialisation gives it, and every
member reads that value, not one of its own. Which states are excluded is known only once
the call is over (a filter may ask for a path). So each value written is passed through a
``tap``, an identity that marks where readers branch off; afterwards the taps of excluded
states become inputs of the members' program, and all others disappear.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
from jax.interpreters import batching

from .._jax import compat

primitive: Any = compat.core.Primitive("seedbed_tap")
primitive.def_abstract_eval(lambda value, *, number: value)


def _batched(values: Any, axes: Any, *, number: int) -> Any:
    """For the taps of a call that runs over members inside of another one."""
    return primitive.bind(values[0], number=number), axes[0]


batching.primitive_batchers[primitive] = _batched
# No two taps have the same number, whichever call they belong to.
_numbers = itertools.count()


def fresh() -> int:
    return next(_numbers)


def tap(value: Any, number: int) -> Any:
    """The value, marked with ``number`` where it is traced."""
    return jax.tree.map(
        lambda leaf: primitive.bind(leaf, number=number) if compat.is_tracer(leaf) else leaf, value
    )
