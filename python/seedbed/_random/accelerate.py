"""`accelerate`: jax's own threefry keys run on the native cipher, in programs left as they are."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from typing import Any

import jax

from .._jax import compat, lowering
from .._trust import backends
from . import cipher

_RULES: dict[str, Callable[..., Any]] = {
    "bits": cipher.lower_bits,
    "split": cipher.lower_split,
    "fold_in": cipher.lower_fold_in,
    "cipher": cipher.lower_cipher,
}

_lock = threading.Lock()
_active: set[object] = set()  # tokens of the calls in force
_undo: list[Callable[[], None]] = []


class accelerate:
    """Makes jax compile its threefry random numbers for the CPU into native code; same bits.

    Takes effect at once, for the whole process and all its threads, until `undo` or the end of a
    ``with`` block. Keys and programs stay as they are. What jax has compiled already keeps its
    code, and what it compiles meanwhile keeps the native code; ``clear_caches`` makes jax compile
    everything anew, also what `jax.random` compiled for itself. Calls nest: jax is as it was when
    each is undone. Starts jax, if it has not started, so platforms must be chosen before.

    Native code makes what runs on one CPU device, or inside `jax.shard_map`. Jax's own cipher
    stays in force for keys of other types, for ``jax_threefry_partitionable=False``, for other
    platforms, for arrays that jax splits over several devices, and for `jax.export`.

    Where native code cannot be used at all, jax stays as it is: with a warning, without one if
    ``SEEDBED_BACKEND=reference`` asks for it.

    Args:
        clear_caches: call `jax.clear_caches` first.

    Raises:
        RuntimeError: ``SEEDBED_BACKEND=native`` and native code cannot be used.
        ValueError: ``SEEDBED_BACKEND`` has an unknown value.

    Warns:
        RuntimeWarning: native code cannot be used.

    Example:
        >>> import jax, seedbed as sb
        >>> draw = lambda key: jax.random.normal(key, (1000,))
        >>> plain = jax.jit(lambda key: draw(key))(jax.random.key(0))
        >>> with sb.accelerate():
        ...     fast = jax.jit(lambda key: draw(key))(jax.random.key(0))
        >>> bool((fast == plain).all())
        True
    """

    def __init__(self, *, clear_caches: bool = False) -> None:
        self._lock = threading.Lock()
        self._undone = False
        self._token = object()
        reason = cipher.why_not()
        if reason is not None:
            _refuse(reason)
            return
        if clear_caches:
            jax.clear_caches()  # type: ignore[no-untyped-call]
        try:  # an interrupt may come between any two lines, also of what undoes them
            try:
                _enter(self._token)
            except BaseException:
                _leave(self._token)
                raise
        except BaseException:
            _leave(self._token)
            raise

    def undo(self) -> None:
        """Ends this call's effect. More than once is the same as once."""
        with self._lock:
            self._undone = True
            _leave(self._token)

    @staticmethod
    def is_active() -> bool:
        """Whether jax compiles threefry into native code now."""
        return bool(_active)

    def __enter__(self) -> accelerate:
        if self._undone:
            raise RuntimeError("this accelerate() was undone already; call sb.accelerate() again")
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self.undo()
        finally:
            self.undo()


def _refuse(reason: str) -> None:
    choice = backends.requested()
    if choice == "native":
        raise RuntimeError(
            f"SEEDBED_BACKEND=native, but accelerate() cannot be used: {reason}. Remove the cause, "
            "or set SEEDBED_BACKEND=auto."
        )
    if choice == "auto":
        warnings.warn(
            f"accelerate() leaves jax as it is: {reason}. Numbers are the same.",
            RuntimeWarning,
            stacklevel=3,
        )


def _enter(token: object) -> None:
    with _lock:
        if not _active:
            _swap()
        _active.add(token)


def _leave(token: object) -> None:
    with _lock:
        _active.discard(token)
        _put_back()


# Not in the blocks that hold the lock: an interrupt at the end of a loop's round may find that
# Python counts this jump to no block, and the lock would stay taken.
def _swap() -> None:
    for name, primitive in compat.random_primitives.items():
        lowering.swap_cpu_lowering(primitive, _RULES[name], _undo)


def _put_back() -> None:
    while not _active and _undo:
        _undo[-1]()
        _undo.pop()
