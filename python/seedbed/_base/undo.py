"""Changes that an interrupt finds made or not begun, and how a call that fails takes them back.

Ctrl-C raises `KeyboardInterrupt` wherever Python is: between two lines, where a function or an
``except`` block begins, at the end of a ``with`` block, and again while the first is handled. It
never does so within a function written in C. So a change is written down as steps, each a C
function with its arguments, and one C loop goes through all of them. Holding signals back would
be no answer: they are the program's, and other threads can raise here too.
"""

from __future__ import annotations

import functools
import operator
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

# A function of C and its arguments; nothing of Python must run in it.
Step = functools.partial

# Calls nothing of Python before the first step: for `finally`, where a function of Python could
# be interrupted before its first line.
run: functools.partial[deque[Any]] = functools.partial(deque, maxlen=0)


def make(steps: Iterable[Step[Any]]) -> None:
    """Makes all of a change, or none of it if an interrupt comes before."""
    run(map(operator.call, tuple(steps)))


def setting(owner: Any, name: str, value: Any) -> Step[None]:
    """Sets an attribute, whatever the class of ``owner`` would do."""
    return Step(object.__setattr__, owner, name, value)


def deleting(owner: Any, name: str) -> Step[None]:
    return Step(object.__delattr__, owner, name)


def refilling(container: Any) -> list[Step[Any]]:
    """What gives a list or dictionary the items again that it has now."""
    if isinstance(container, list):
        return [Step(list.__setitem__, container, slice(None), list.copy(container))]
    kind: Any = OrderedDict if isinstance(container, OrderedDict) else dict
    # A copy keeps the hashes, which pairs of items would ask the keys for.
    items = list(OrderedDict.items(container)) if kind is OrderedDict else dict.copy(container)
    return [Step(kind.clear, container), Step(kind.update, container, items)]


class Log:
    """How to take back what a call has changed so far.

    A call that may fail is ``try: ... finally: run(log.back)``, and ends its ``try`` with
    `settled`. One ``finally`` in another bears a second interrupt, on the first one's line.

    Attributes:
        steps: take changes back, the newest first.
        later: steps of changes that wait for the call's success.
        closing: what ends the call whether it fails or not.
        back: goes once through ``steps`` and ``closing``, with what is added to them until then.
    """

    __slots__ = ("back", "closing", "later", "steps")

    def __init__(self, closing: Iterable[Step[Any]] = ()) -> None:
        self.steps: list[Step[Any]] = []
        self.later: list[Step[Any]] = []
        self.closing = list(closing)
        self.back: Iterator[Any] = map(operator.call, chain(self.steps, self.closing))

    def hold(self, lock: Any) -> None:
        """Takes a lock until the end of the call."""
        make((Step(lock.acquire), Step(self.closing.insert, 0, Step(lock.release))))

    def change(self, do: Step[Any], undo: Step[Any]) -> None:
        """Makes a change, and knows how to take it back, as one."""
        make((do, Step(self.steps.insert, 0, undo)))

    def settled(self, outer: Log | None) -> list[Step[Any]]:
        """Last steps of a call: what it changed stays, or is for ``outer`` to take back."""
        done: list[Step[Any]] = [Step(self.steps.clear), Step(self.later.clear)]
        if outer is None:
            return [*self.later, *done]
        newer = Step(outer.steps.__setitem__, slice(0, 0), tuple(self.steps))
        return [newer, Step(outer.later.extend, tuple(self.later)), *done]
