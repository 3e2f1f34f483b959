"""What makes the members of one function: a plan natively, or the traced function by `jax.vmap`.

Both kinds of program have one method, `bind`, and are compiled for what is wanted of them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from .._base import log
from .._base.record import Record
from .._plan import KeyMode, Plan
from .._trace import Trimmed
from . import execute
from .members import Chosen, Wanted


class Bound(Record):
    """A compiled program: ``run(given, old, key, *leaves)`` is the leaves of the result."""

    run: Callable[..., Any]
    given: Any


class NativeProgram:
    """A plan whose draws the extension makes.

    Attributes:
        captures: arrays that the function closes over.
        reads: positions of the argument leaves that it takes.
        axes: mapped axis, or None, of each of these.
    """

    def __init__(
        self,
        plan: Plan,
        captures: tuple[Any, ...],
        reads: tuple[int, ...],
        axes: tuple[int | None, ...],
    ) -> None:
        self.plan = plan
        self.captures = captures
        self.reads = reads
        self.axes = axes
        self._compiled: dict[Hashable, Any] = {}

    def bind(self, wanted: Wanted) -> Bound:
        """The compiled program for what is wanted."""
        modes, members = _modes(wanted.chosen, wanted.stacked)
        # Found by a small key: the plan itself takes time to hash when it has many draws.
        size, single, donate, layout = wanted.size, wanted.single, wanted.donate, wanted.layout
        key = (size, modes, single, wanted.types is None, donate, layout)
        run = self._compiled.get(key)
        if run is None:
            rest = (self.plan, size, modes, self.axes, single)
            if layout is None:
                run = execute.program(*rest, wanted.types, donate)
            else:
                from . import sharded  # of no use before

                run = sharded.program(*rest, layout, donate)
            run = self._compiled[key] = log.first_run(run, f"{size} member(s), native")
        return Bound(run, (self.captures, members))


class ReferenceProgram:
    """A traced function that jax maps over members.

    Attributes:
        captures, reads, axes: as of `NativeProgram`.
    """

    def __init__(
        self,
        trimmed: Trimmed,
        captures: tuple[Any, ...],
        reads: tuple[int, ...],
        axes: tuple[int | None, ...],
        folds: tuple[bool, ...],
    ) -> None:
        """
        Args:
            folds: for each key, whether ``fold_in(key, i)`` is member ``i``'s
                (`reference.member_keys`).
        """
        self.trimmed = trimmed
        self.captures = captures
        self.reads = reads
        self.axes = axes
        self.folds = folds
        self._compiled: dict[Hashable, Any] = {}

    def bind(self, wanted: Wanted) -> Bound:
        """The compiled program for what is wanted."""
        chosen, split = wanted.chosen, tuple(not each for each in wanted.stacked)
        rest = (self.folds, self.axes, wanted.single, wanted.types, wanted.donate, wanted.layout)
        total = wanted.total if chosen is not None else wanted.size
        key = (wanted.size, total, chosen is None, split, *rest)
        run = self._compiled.get(key)
        if run is None:
            run = execute.reference_program(self.trimmed, *key)
            run = self._compiled[key] = log.first_run(run, f"{wanted.size} member(s), reference")
        members = [
            _listed(chosen, by_fold) if parted else None
            for by_fold, parted in zip(self.folds, split, strict=True)
        ]
        return Bound(run, (self.captures, members))


Program = NativeProgram | ReferenceProgram


def _modes(chosen: Chosen | None, stacked: tuple[bool, ...]) -> tuple[tuple[KeyMode, ...], Any]:
    """The custom call's mode for each key and its operand of member indices (high, low words).

    No indices mean all members: then nothing has to be sent to the device.
    """
    if chosen is None:
        return tuple([KeyMode.MEMBER_KEYS if each else KeyMode.ALL for each in stacked]), None
    consecutive = chosen.start is not None
    mode = KeyMode.RANGE if consecutive else KeyMode.INDICES
    modes = tuple([KeyMode.MEMBER_KEYS if each else mode for each in stacked])
    if all(stacked):
        return modes, None
    return modes, chosen.first_words() if consecutive else chosen.words()


def _listed(chosen: Chosen | None, fold: bool) -> Any:
    """Which members of a key that is split the reference makes; see `reference.member_keys`."""
    if chosen is None:
        return None
    return chosen.words() if fold else chosen.indices()
