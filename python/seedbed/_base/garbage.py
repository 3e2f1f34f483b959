"""The cyclic garbage collector, kept away from what need not be gone through."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Iterator
from typing import ClassVar


@contextlib.contextmanager
def collections_paused() -> Iterator[None]:
    """Without the cyclic garbage collector, which goes through every live object again and again
    while many are made and none become garbage."""
    if not gc.isenabled():
        yield
        return
    try:
        gc.disable()  # not before: an interrupt may come right after it
        yield
    finally:
        gc.enable()


class _NewGarbage:
    """Which calls, in all threads, are within `only_new_garbage`."""

    lock = threading.Lock()
    calls: ClassVar[set[object]] = set()
    frozen = False


@contextlib.contextmanager
def only_new_garbage() -> Iterator[None]:
    """Collections within it, our own too, go through what was made within it and nothing older:
    they cost what a trace made, not what the process holds."""
    state, call = _NewGarbage, object()
    try:  # an interrupt may come between any two lines, also of what ends the block
        try:
            with state.lock:
                # What the user froze stays so, for good.
                if not state.calls and not gc.get_freeze_count():
                    state.frozen = True
                    gc.freeze()
                state.calls.add(call)
            yield
        finally:
            _old_garbage_too(call)
    finally:
        _old_garbage_too(call)


def _old_garbage_too(call: object) -> None:
    state = _NewGarbage
    with state.lock:
        state.calls.discard(call)
        if state.frozen and not state.calls:
            gc.unfreeze()  # first: more than once is the same as once
            state.frozen = False
