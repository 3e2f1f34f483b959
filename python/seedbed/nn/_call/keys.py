"""Keys inside a call: every node draws from its own stream, derived from the node's path."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from ... import random
from ..._base import undo
from ..._jax import compat
from ..._random import stream
from .._tree import walk


class KeyStream:
    """Keys ``fold_in(key, 0), fold_in(key, 1), ...`` of one node of one member.

    Args:
        key: the member's key, or the exception that asking for a key raises.
        path: of the node, folded into the member's key; None for the member's key as it is.
    """

    def __init__(self, key: Any, path: walk.Path | None) -> None:
        self.key = key
        self.path = path
        # How many were handed out; apart, for `Log`s to hold without the traced key.
        self._count = [0]
        self._call = stream._call.get()
        self._home = compat.trace_state()
        self._base: Any = None

    def next_key(self) -> Any:
        if isinstance(self.key, BaseException):
            raise self.key
        if compat.trace_state() != self._home:
            raise RuntimeError(
                "next_key() was called inside of a function that jax traces on its own (jit, vmap, "
                "scan, ...), which would use one and the same key wherever it runs. Take the keys "
                "outside of it and pass them in, or open `with seedbed.random.stream(key):` inside"
            )
        if self._base is None:
            self._base = self.key if self.path is None else _folded(self.key, self.path)
        (number,) = self._count
        key = stream._fold_in(self._base, number)
        take = undo.Step(self._count.__setitem__, 0, number + 1)
        call = stream._call.get()
        if call is None or call is self._call:
            undo.make([take])
        else:  # a call inside of the one that this stream ends with
            call.change(take, undo.Step(self._count.__setitem__, 0, number))
        return key


def _folded(key: Any, path: walk.Path) -> Any:
    high, low = walk.path_words(path)
    return stream._fold_in(stream._fold_in(key, high), low)


class Keys:
    """The streams of one member, by node."""

    def __init__(self, key: Any) -> None:
        self.key = key
        self._streams: dict[walk.Path | None, KeyStream] = {}

    def of(self, path: walk.Path | None) -> KeyStream:
        """The stream of a node, which goes on where it was left."""
        if path not in self._streams:
            self._streams[path] = KeyStream(self.key, path)
        return self._streams[path]

    def restart(self, path: walk.Path) -> None:
        """Starts the stream of a node anew, for a module that took the place of another."""
        self._streams.pop(path, None)

    def using(self, path: walk.Path | None) -> random._using:
        """Makes a node's stream the ambient one."""
        return random._using(self.of(path))


def call_key() -> Any:
    """The one key of a collective call, which the ambient stream gets back if the call fails.

    In a function that jax traces and that started no stream of its own there is no such key;
    a call without random numbers runs there all the same. It gets the exception, to be raised
    when a key is asked for.
    """
    try:
        return random.next_key()
    except RuntimeError as refusal:
        return refusal


def dummy_key() -> Any:
    """A key for calls that draw nothing."""
    return jax.random.wrap_key_data(jax.device_put(np.zeros(2, np.uint32)), impl="threefry2x32")
