"""Repeated calls: straight to the program of the last one, which finds out whether it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._base.record import Record
from .._jax import compat
from .._run.execute import Unplanned
from .._trust import backends
from . import check

if TYPE_CHECKING:
    from .._run.programs import Bound
    from .prepare import Prepared


class _Last(Record):
    """How the last call ran."""

    bound: Bound
    key_type: type
    backend: str
    prepared: Prepared
    size: int
    size_name: str


class Direct:
    """The way of calls that are like the last one."""

    __slots__ = ("_last", "_tries")

    def __init__(self) -> None:
        self._last: _Last | None = None
        # How often a call may turn out to be unlike the last one before that is no longer tried.
        self._tries = 8

    def run(self, key: Any, args: tuple[Any, ...]) -> Any:
        """The result of a call for all members; `NotImplemented` if it is unlike the last one."""
        last = self._last
        if (
            last is None
            or type(key) is not last.key_type
            # To jax a NumPy array of wider integers is one of uint32.
            or (last.key_type is np.ndarray and getattr(key, "dtype", None) != np.uint32)
            or backends.requested() != last.backend
        ):
            return NotImplemented
        prepared, bound = last.prepared, last.bound
        plan = prepared.plan
        leaves, tree = jax.tree_util.tree_flatten(args)
        concrete = not compat.under_trace(leaves)
        check.memory(plan, prepared.member_bytes, last.size, concrete, last.size_name)
        try:
            if tree == prepared.tree and compat.elsewhere((key, *leaves)) is None:
                read = [leaves[position] for position in prepared.program.reads]
                out = bound.run(bound.given, None, key, *read)
                return jax.tree_util.tree_unflatten(plan.out_tree, out)
        except (Unplanned, TypeError):  # says what is wrong, or prepares for it
            self._tries -= 1
            self._last = None
        return NotImplemented

    def keep(self, bound: Bound, key: Any, prepared: Prepared, size: int, size_name: str) -> None:
        """Remembers how a call ran that read all of its arguments, in order."""
        if self._tries and isinstance(key, (jax.Array, np.ndarray)):
            backend = backends.requested()
            self._last = _Last(bound, type(key), backend, prepared, size, size_name)
