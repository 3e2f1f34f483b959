"""Streams of random keys: what the ambient stream of `seedbed.random` is made of."""

from __future__ import annotations

import functools
import operator
import threading
from contextvars import ContextVar
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from .._base.undo import Log, Step, make, run, setting
from .._jax import compat, generators

_KEY = "one key (jax.random.key(0), or a legacy jax.random.PRNGKey(0))"


class StreamState(NamedTuple):
    """Where a stream is, as plain data for a checkpoint.

    Attributes:
        key_data: the words of the stream's key, a ``uint32`` array.
        impl: name of the key's implementation; None for a legacy key.
        count: how many keys were handed out.
    """

    key_data: np.ndarray[Any, np.dtype[np.uint32]]
    impl: str | None
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody calls here


class _Position:
    """Where a stream is; `Stream._set_state` gives it another one.

    Attributes:
        key: the stream's key.
        count: above the numbers of all keys in use.
        free: numbers below ``count`` that were given back, in any order.
    """

    __slots__ = ("count", "free", "key")

    def __init__(self, key: Any, count: int) -> None:
        self.key = key
        self.count = count
        self.free: list[int] = []

    def in_use(self) -> tuple[int, list[int]]:
        """The number after the last key in use, and those below it that are free."""
        count, free = self.count, set(self.free)
        while count - 1 in free:
            count -= 1
        return count, sorted(number for number in free if number < count)


class StreamLike(Protocol):
    """Whatever hands out keys: a `Stream`, or the keys of one node of a module."""

    def next_key(self) -> Any: ...


class Stream:
    """A sequence of keys: the n-th one is ``jax.random.fold_in(key, n)``, n = 0, 1, ...

    Made by `stream`. Threads may share a stream: no key is handed out twice. It belongs to the
    function in which it was made: another one that jax traces (`jit`, `vmap`, `grad`, `scan`,
    ...) is refused, because there the key would be a constant.
    """

    def __init__(self, key: Any) -> None:
        check_key(key, "key")
        if isinstance(key, np.ndarray):
            # The caller may write to it later.
            with jax.ensure_compile_time_eval():
                key = jax.device_put(np.array(key))
        self._home = compat.trace_state()
        self._lock = threading.Lock()
        self._at = _Position(key, 0)

    @property
    def key(self) -> Any:
        """The key that all others are derived from."""
        return self._at.key

    @property
    def count(self) -> int:
        """How many keys were handed out."""
        with self._lock:
            return self._at.in_use()[0]

    def next_key(self) -> Any:
        """The next key of this stream, of the kind (typed or legacy) of the stream's own.

        Raises:
            RuntimeError: jax is tracing a function in which this stream was not made.
            OverflowError: all 2**32 keys were handed out.
        """
        return self._take(_call.get())[1]

    def _take(self, outer: Log | None) -> tuple[int, Any]:
        """The next key and its number, which ``outer`` gives back so that the next taker has it."""
        if compat.trace_state() != self._home:
            raise RuntimeError(
                "the ambient random stream was made outside of the function that jax is tracing "
                "(jit, vmap, grad, scan, ...), so its key would be a constant of the compiled "
                "program, the same at every call. Give the function a key as an argument, and "
                "inside it open `with seedbed.random.stream(key):`"
            )
        log = Log()
        try:
            try:
                key, number = self._next(log)
                key = _fold_in(key, number)
                make(log.settled(outer))
                return number, key
            finally:
                run(log.back)
        finally:
            run(log.back)

    def _next(self, outer: Log) -> tuple[Any, int]:
        """The stream's key and the next number."""
        log = Log()
        try:
            log.hold(self._lock)
            at = self._at
            if at.free:
                number = min(at.free)
                take = Step(at.free.remove, number)
            else:
                number = at.count
                take = setting(at, "count", number + 1)
            outer.change(take, Step(at.free.append, number))
            return at.key, number
        finally:
            run(log.back)

    def _at_top(self) -> None:
        if self._home != compat.top_trace_state():
            raise RuntimeError(
                "the innermost random stream was made inside a function that jax is tracing; "
                "only one that was made outside has a state to save or set"
            )

    def _get_state(self) -> StreamState:
        self._at_top()
        with self._lock:
            key, (count, _) = self._at.key, self._at.in_use()
        impl = compat.key_impl(key.dtype) if is_typed(key) else None
        # By its name alone a state would come back as a stream of another generator.
        if impl is not None and generators.address(impl) is impl:
            raise ValueError(
                "the keys of the random stream are of an implementation that jax does not find by "
                f"its name, {impl.name!r}, so that no state of the stream could be set again"
            )
        with jax.ensure_compile_time_eval():
            words = np.array(jax.random.key_data(key) if is_typed(key) else key, np.uint32)
        return StreamState(words, None if impl is None else impl.name, count)

    def _set_state(self, key: Any, count: int) -> None:
        self._at_top()
        log = _call.get() or Log()
        with self._lock:
            log.change(setting(self, "_at", _Position(key, count)), setting(self, "_at", self._at))

    def __enter__(self) -> Stream:
        _current.set((*_current.get(), self))
        return self

    def __exit__(self, *exc: object) -> None:
        _current.set(_current.get()[:-1])

    def __repr__(self) -> str:
        return f"Stream({self.key!r}, count={self.count})"


# The streams that are open here, the innermost last. A tuple and not tokens of `ContextVar`:
# one stream may be open several times, and in several threads.
_current: ContextVar[tuple[StreamLike, ...]] = ContextVar("seedbed_streams", default=())

# How the innermost call here that is all or nothing takes back what it did to streams.
_call: ContextVar[Log | None] = ContextVar("seedbed_call", default=None)


def _fold_in(key: Any, number: int) -> Any:
    """``jax.random.fold_in(key, number)``, without a compile where that is possible.

    At a cold start that compile would take as long as everything else that a collective call
    does, so threefry's one block is computed here. A key that was put on a device by name, or
    is being traced, goes through jax.
    """
    concrete = compat.trace_state() == compat.top_trace_state() and not compat.is_tracer(key)
    typed = is_typed(key)
    impl = generators.of(key)
    if concrete and generators.is_threefry(impl) and number < 2**32:
        data = jax.random.key_data(key) if typed else key
        if not data.committed:
            first, second = (int(word) for word in jax.device_get(data))
            words = jax.device_put(np.array(_threefry2x32(first, second, number), np.uint32))
            return jax.random.wrap_key_data(words, impl=impl) if typed else words
    return jax.random.fold_in(key, _on_device(number, key))


def _threefry2x32(first: int, second: int, count: int) -> tuple[int, int]:
    """The block of counter ``(0, count)`` under a key of two words (Salmon et al. 2011)."""
    words = (first, second, first ^ second ^ 0x1BD11BDA)
    x, y = first, (count + second) % 2**32
    for group in range(5):
        for rotation in ((13, 15, 26, 6), (17, 29, 16, 24))[group % 2]:
            x = (x + y) % 2**32
            y = (y << rotation | y >> (32 - rotation)) % 2**32 ^ x
        x = (x + words[(group + 1) % 3]) % 2**32
        y = (y + words[(group + 2) % 3] + group + 1) % 2**32
    return x, y


def _on_device(number: int, key: Any) -> Any:
    """``number`` as an argument of `fold_in`; put there explicitly, for jax's transfer guard."""
    if number >= 2**32:
        raise OverflowError("all 2**32 keys of the random stream were handed out; seed it anew")
    value = np.uint32(number)
    return value if compat.is_tracer(key) else jax.device_put(value)


def _seeded(number: Any, impl: str) -> Any:
    return jax.random.key_data(jax.random.key(number, impl=impl))


# --- checks -----------------------------------------------------------------------------


def is_typed(key: Any) -> bool:
    """Whether an array holds typed keys."""
    return compat.is_key(key.dtype)


def check_key(key: Any, name: str) -> None:
    """Refuses what is not one key, typed or legacy; ``name`` is the argument's."""
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise TypeError(f"`{name}` must be {_KEY}; got {key!r} of type {type(key).__name__}")
    shape = key.shape
    if not is_typed(key):
        words = generators.legacy_words()
        if key.dtype != np.uint32 or not shape or shape[-1] != words:
            raise TypeError(
                f"`{name}` must be {_KEY}; got an array of dtype {key.dtype} and shape {shape}, "
                f"and {generators.legacy_form()}"
            )
        shape = shape[:-1]
    if shape:
        raise ValueError(f"`{name}` must be {_KEY}; got keys of shape {shape}")


def check_state(s: StreamState) -> tuple[Any, int]:
    """The key and the count of a state, both checked."""
    if not isinstance(s, StreamState):
        raise TypeError(f"`s` must be a StreamState of get_state(); got {type(s).__name__}")
    data, impl, count = s
    if not isinstance(data, (np.ndarray, jax.Array)) or data.dtype != np.uint32:
        raise TypeError(f"`s.key_data` must be a uint32 array; got {data!r}")
    if not (impl is None or isinstance(impl, str)):
        raise TypeError(
            f"`s.impl` must be the name of a key's implementation or None; got {impl!r}"
        )
    if isinstance(count, bool) or not hasattr(count, "__index__"):
        raise TypeError(f"`s.count` must be an integer; got {count!r} of {type(count).__name__}")
    count = operator.index(count)
    if not 0 <= count <= 2**32:
        raise ValueError(f"`s.count` must be at least 0 and at most 2**32; got {count}")
    with jax.ensure_compile_time_eval():
        if impl is None:
            words, default = generators.legacy_words(), generators.legacy_setting()
        else:
            default = ""
            try:
                seeded = functools.partial(_seeded, impl=impl)
                (words,) = jax.eval_shape(seeded, np.uint32(0)).shape
            except (TypeError, ValueError) as error:
                raise ValueError(f"`s.impl` names no implementation of keys: {impl!r}") from error
        if data.shape != (words,):
            raise ValueError(f"`s.key_data` must be of shape ({words},){default}; got {data.shape}")
        key = jax.device_put(np.array(data))
        return (key if impl is None else jax.random.wrap_key_data(key, impl=impl)), count
