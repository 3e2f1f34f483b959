"""The functions of `jax.random`, drawn natively, and the ambient random stream.

Everything public of `jax.random` is here too, with the same signatures, types, errors and bits:
``from seedbed import random`` in place of ``from jax import random`` (see `_random.samplers`).

The ambient stream is where calls that take no key get theirs from. There is one stream for the
process, which `seed` replaces, and ``with stream(key):`` puts another in front of it, for the
current thread or task only. `next_key` hands out the next key of the innermost stream, for any
function here or in `jax.random`.
"""

from __future__ import annotations

import operator
import os
import threading
import types
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ._base.undo import Log, Step, make, run, setting
from ._jax import compat, generators
from ._random import samplers
from ._random.stream import (
    Stream,
    StreamLike,
    StreamState,
    _call,
    _current,
    check_key,
    check_state,
    is_typed,
)

if TYPE_CHECKING:
    from jax.random import *  # noqa: F403
else:
    globals().update(samplers.DROP_INS)

__all__ = ["Stream", "StreamState", "get_state", "next_key", "seed", "set_state", "stream"]
__all__ += list(samplers.DROP_INS)


def __dir__() -> list[str]:
    return list(__all__)


_process: Any = types.SimpleNamespace(stream=None)
_process_lock = threading.Lock()


def seed(n: Any) -> None:
    """Starts the process-wide stream anew. Streams that `stream` opened are left alone.

    Until the first call, that stream starts from the operating system's entropy. Inside a call on
    a module (in its ``init_state``, say) the seed takes effect when the call has succeeded.

    Args:
        n: an integer, taken as ``jax.random.key(n)``; or a key, typed or legacy.

    Raises:
        TypeError: ``n`` is neither an integer nor a key (a bool is none), or is being traced.
        ValueError: ``n`` is an array of several keys.
        OverflowError: ``n`` does not fit in 64 bits with a sign, the most that jax takes.

    Warns:
        UserWarning: ``n`` is above 32 bits and 64-bit types are off: jax then drops the high
            bits, and seeds that differ only in these are one.

    Example:
        >>> import jax, seedbed as sb
        >>> sb.random.seed(0)
        >>> key = sb.random.next_key()
        >>> bool(key == jax.random.fold_in(jax.random.key(0), 0))
        True
    """
    if isinstance(n, (jax.Array, np.ndarray)) and (is_typed(n) or n.ndim):
        check_key(n, "n")
        if compat.is_tracer(n):
            raise TypeError(
                "`n` must not be a key that is being traced: the process-wide stream outlives the "
                "function. Inside it, open `with seedbed.random.stream(key):` instead"
            )
        fresh = _top_stream(n)
    else:
        number = _integer(n)
        with jax.ensure_compile_time_eval():
            # Sent explicitly, for jax's transfer guard.
            fresh = _top_stream(jax.random.key(jax.device_put(np.int64(number))))
    log, begin = _call.get(), setting(_process, "stream", fresh)
    make([begin] if log is None else [Step(log.later.append, begin)])


def stream(key: Any) -> Stream:
    """A stream that is the innermost one inside of a ``with`` block.

    It is seen in the block only, and by this thread or asynchronous task only. Blocks nest, and
    a stream may be opened again: it goes on where it was. Inside a function that jax traces,
    ``key`` may be traced too; that is how such a function gets random numbers.

    Args:
        key: one key, typed or legacy. Nothing else should be drawn from it.

    Returns:
        The `Stream`, also what ``with ... as`` gives.

    Raises:
        TypeError: ``key`` is not a key.
        ValueError: ``key`` is an array of several keys.

    Example:
        >>> import jax, seedbed as sb
        >>> @jax.jit
        ... def noisy(key, x):
        ...     with sb.random.stream(key):
        ...         return x + jax.random.normal(sb.random.next_key(), x.shape)
        >>> noisy(jax.random.key(0), jax.numpy.zeros(3)).shape
        (3,)
    """
    return Stream(key)


def next_key() -> Any:
    """The next key of the innermost stream: of `stream`, or else the process-wide one.

    Returns:
        A key of shape ``()``; a legacy one if the stream was made from a legacy key.

    Raises:
        RuntimeError: jax is tracing a function and the stream was made outside of it.
        OverflowError: all 2**32 keys of the stream were handed out.

    Example:
        >>> import jax, seedbed as sb
        >>> with sb.random.stream(jax.random.key(0)):
        ...     first, second = sb.random.next_key(), sb.random.next_key()
        >>> bool(first == second)
        False
    """
    return _innermost().next_key()


def get_state() -> StreamState:
    """Where the innermost stream is, for a checkpoint; it can be pickled.

    Keys that a failed call gave back while others were already in use are not part of it.

    Raises:
        RuntimeError: the stream was made inside a function that jax is tracing.
        ValueError: its keys are of an implementation that jax does not find by its name.

    Example:
        >>> import seedbed as sb
        >>> sb.random.seed(0)
        >>> state = sb.random.get_state()
        >>> first = sb.random.next_key()
        >>> sb.random.set_state(state)
        >>> bool(sb.random.next_key() == first)
        True
    """
    return _with_state("get_state")._get_state()


def set_state(s: StreamState) -> None:
    """Puts the innermost stream to where `get_state` found one.

    Args:
        s: what `get_state` returned.

    Raises:
        TypeError: ``s`` is not a `StreamState`, or its fields have other types.
        ValueError: a field of ``s`` has a value that no stream has.
        RuntimeError: the stream was made inside a function that jax is tracing.
    """
    _with_state("set_state")._set_state(*check_state(s))


class _using:
    """Makes any object with a `next_key` method the innermost stream.

    No generator: one that an interrupt leaves open would end at some later time.
    """

    def __init__(self, stream_like: StreamLike) -> None:
        self._stream = stream_like
        self._before = _current.get()

    def __enter__(self) -> None:
        _current.set((*self._before, self._stream))

    def __exit__(self, *exc: object) -> None:
        _current.set(self._before)


def _spend(use: Callable[[Any], list[Step[Any]]]) -> None:
    """Makes the changes that ``use`` made of the next key; if it fails, the key goes back."""
    log, current = Log(), _innermost()
    try:
        try:
            key = current._take(log)[1] if isinstance(current, Stream) else current.next_key()
            make([*use(key), *log.settled(_call.get())])
        finally:
            run(log.back)
    finally:
        run(log.back)


def _innermost() -> StreamLike:
    opened = _current.get()
    if opened:
        return opened[-1]
    with _process_lock:
        if _process.stream is None:
            _process.stream = _top_stream(_entropy())
        process: Stream = _process.stream
    return process


def _with_state(caller: str) -> Stream:
    current = _innermost()
    if not isinstance(current, Stream):
        raise RuntimeError(
            f"{caller} was called in `init_state` or another function whose keys come from the "
            "module's node; only the stream outside of it has a state"
        )
    return current


def _top_stream(key: Any) -> Stream:
    made = Stream(key)
    made._home = compat.top_trace_state()
    return made


def _entropy() -> Any:
    data = np.frombuffer(os.urandom(4 * generators.legacy_words()), np.uint32)
    with jax.ensure_compile_time_eval():
        return jax.random.wrap_key_data(jax.device_put(data))


def _integer(n: Any) -> int:
    accepted = "`n` must be an integer or a key"
    if isinstance(n, (bool, np.bool_)):
        raise TypeError(f"{accepted}; got {n!r} of type {type(n).__name__}")
    try:
        number = operator.index(n)
    except TypeError as error:
        raise TypeError(f"{accepted}; got {n!r} of type {type(n).__name__}") from error
    if not -(2**63) <= number < 2**63:
        raise OverflowError(
            f"`n` must be at least -2**63 and below 2**63, which is what jax.random.key takes; "
            f"got {number}"
        )
    config: Any = jax.config
    if not config.jax_enable_x64 and not -(2**31) <= number < 2**32:
        warnings.warn(
            f"`n` is {number}, but without 64-bit types (jax_enable_x64) jax.random.key keeps the "
            f"low 32 bits only: this is the seed {number % 2**32}. Pass a key to use all bits of "
            "one",
            UserWarning,
            stacklevel=3,
        )
    return number
