"""Drop-ins for the functions of `jax.random`: the same calls, the same bits, drawn natively.

A call is planned once for its arguments that are not arrays, as the init function of one member
whose key is the caller's. Where its whole result is one draw, a custom call makes it. Where XLA
has more to do, `jax.random`'s own function runs on the same key in the guise of `prng.impl`: its
random words are native, and every rounding is jax's. What fits neither (other generators,
arguments that jax refuses) goes to `jax.random` as it came.
"""

from __future__ import annotations

import functools
import inspect
import math
import threading
import warnings
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from .. import _match, _trace
from .._jax import compat, generators, jaxprs, places
from .._plan import Draw, FromDraw
from .._trust import backends
from . import cipher, prng_impl
from .sampler_call import ARRAYS, SamplerCall, read

if TYPE_CHECKING:
    from .._jax.types import ClosedJaxpr, Jaxpr

# Programs kept for one function, and calls whose numbers are counted.
_KEPT = 1024
# In calls outside of any trace, so many numbers get a draw of their own in which they are
# constants; from then on they are operands of one program, as they are for jax.
_CONSTANTS = 8

# A custom call costs about a microsecond: inside of a program, where it may be in a loop, XLA makes
# draws of fewer numbers sooner. Alone they are native: the program is compiled sooner.
_FEW = 256


class _Program(NamedTuple):
    """What runs for calls that differ in their operands only, and what makes the result."""

    run: Callable[..., Any] | None
    made_by: str


_JAX = _Program(None, "jax")
# Numbers among the arguments are to be operands too.
_OPERANDS = _Program(None, "")


class Programs:
    """The programs of one function of `jax.random` whose first argument is a key."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._made: dict[Hashable, _Program] = {}
        self._numbers: dict[Hashable, int] = {}
        self._lock = threading.Lock()

    def call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        program, operands = self._find(args, kwargs)
        return self.function(*args, **kwargs) if program.run is None else program.run(*operands)

    def made_by(self, *args: Any, **kwargs: Any) -> str:
        """What makes the result of a call: a draw, ``words`` (jax on native words), or ``jax``."""
        return self._find(args, kwargs)[0].made_by

    def _find(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[_Program, list[Any]]:
        """A call's program and operands."""
        call = read(self.function, args, kwargs)
        if call is None:
            return _JAX, []
        program, wide = self._made.get(call.token), None
        if program is None:
            wide = call.widened()
            program = self._first(call, wide)
        if program is not _OPERANDS:
            return program, call.operands
        wide = wide or call.widened()
        program = self._made.get(wide.token) or self._keep(wide, _composed(wide))
        if program is not _JAX:
            return program, wide.operands
        # jax has to know these numbers, as it does the length of an axis.
        return self._keep(call, _composed(call)), call.operands

    def _first(self, call: SamplerCall, wide: SamplerCall) -> _Program:
        """The program of a call that was not seen before, ``wide`` with its numbers as operands."""
        if not _native_key(call.operands[0]):
            return self._keep(call, _JAX)
        numbers = len(wide.operands) > len(call.operands)
        if len(call.operands) > 1:
            return _OPERANDS if numbers else self._keep(call, _composed(call))
        if numbers and not compat.under_trace(call.operands):
            if self._count(wide.token) > _CONSTANTS:
                return _OPERANDS
        closed = _traced(
            lambda words: call.of(_key(words)), compat.abstract((2,), np.dtype(np.uint32))
        )
        if closed is None:
            return self._keep(call, _JAX)
        drawn = _drawn(closed)
        if drawn is not None:
            return self._keep(call, drawn)
        return self._keep(call, _OPERANDS if numbers else _composed(call))

    def _count(self, token: Hashable) -> int:
        with self._lock:
            count = self._numbers[token] = self._numbers.get(token, 0) + 1
            _trim(self._numbers)
        return count

    def _keep(self, call: SamplerCall, program: _Program) -> _Program:
        with self._lock:
            self._made[call.token] = program
            _trim(self._made)
        return program


def _trim(table: dict[Hashable, Any]) -> None:
    """Drops the oldest entries beyond `_KEPT`."""
    while len(table) > _KEPT:
        del table[next(iter(table))]


# --- planning ---------------------------------------------------------------------------


def _native_key(key: Any) -> bool:
    """Whether the native cipher may draw from a key, and jax has nothing to say about it."""
    config: Any = jax.config
    if compat.is_key(key.dtype):
        single = key.ndim == 0
    else:
        single = key.shape == (2,) and key.dtype == np.uint32
        if config.jax_enable_custom_prng or config.jax_legacy_prng_key != "allow":
            return False
    if not single or not generators.is_threefry(generators.of(key)):
        return False
    return backends.why_watched() is None and backends.why_jaxs_cipher() is None


def _drawn(closed: ClosedJaxpr) -> _Program | None:
    """A program of one native draw, if that is the result of a function of a key's words."""
    # Such a draw says nothing of how its result is laid out over devices.
    if places.explicit_mesh():
        return None
    tree = jax.tree_util.tree_structure(0)
    graph = _trace.flatten(_trace.Recorded(closed, tree, ("result",)))
    plan = _match.planned(graph, backends.kernels())
    output = plan.outputs[0]
    if not isinstance(output.source, FromDraw):
        return None
    draw = plan.draws[output.source.index]

    def seedbed_draw(key: Any, few: int) -> Any:
        made = _draw_p.bind(compat.key_words(key), draw=draw, jaxpr=closed, few=few)
        return compat.with_weak_type(made, output.weak)

    alone = jax.jit(functools.partial(seedbed_draw, few=0))
    within = jax.jit(functools.partial(seedbed_draw, few=_FEW))
    return _Program(
        lambda key: within(key) if compat.is_tracer(key) else alone(key),
        str(draw),
    )


def _composed(call: SamplerCall) -> _Program:
    """jax's own function on native random words, or as it is."""
    of = call.emptied().of

    def seedbed_random(key: Any, *operands: Any) -> Any:
        made = of(jax.random.wrap_key_data(compat.key_words(key), impl=prng_impl.impl), *operands)
        if not compat.is_key(made.dtype):
            return made
        words = jax.random.key_data(made)
        if not compat.is_key(key.dtype):
            return words
        return jax.random.wrap_key_data(words, impl=compat.key_impl(key.dtype))

    closed = _traced(seedbed_random, *call.operands)
    if closed is None or _draws_one_by_one(closed.jaxpr):
        return _JAX
    made_by = "key" if call.function.__name__ in ("split", "fold_in") else "words"
    return _Program(jax.jit(seedbed_random), made_by)


_warnings_lock = threading.RLock()


def _traced(function: Callable[..., Any], *operands: Any) -> Any:
    """The jaxpr of a function; None where jax has something to say on every call."""
    # Two threads that change the process's filters at once would not leave them as they were.
    with _warnings_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            closed = jax.make_jaxpr(function)(*operands)
        except Exception:  # which jax raises again
            return None
    return None if caught else closed


def _draws_one_by_one(jaxpr: Jaxpr) -> bool:
    """Whether there are gamma variates, with a loop of their own: left to jax."""
    return any(eqn.primitive.name == "random_gamma" for eqn in jaxprs.equations(jaxpr))


def _key(words: Any) -> Any:
    return jax.random.wrap_key_data(words, impl="threefry2x32")


# --- the primitive ----------------------------------------------------------------------


def _native_draw(words: Any, *, draw: Draw, **params: Any) -> Any:
    return cipher.fill(draw, words, (*words.shape[:-1], *draw.shape))


def _jaxs_draw(words: Any, *, jaxpr: ClosedJaxpr, **params: Any) -> Any:
    def one(words: Any) -> Any:
        return jax.core.eval_jaxpr(jaxpr.jaxpr, jaxpr.consts, words)[0]

    return cipher.mapped(one, words)(words)


def _pays(result: tuple[int, ...], /, *, few: int, **params: Any) -> bool:
    return math.prod(result) >= max(few, 1)


# ``draw`` for every key ``uint32[..., 2]``; ``jaxpr`` is jax's own program for one key, which runs
# where fewer than ``few`` numbers are made.
_draw_p = cipher.primitive(
    "seedbed_draw",
    lambda words, draw, jaxpr, few: ((*words.shape[:-1], *draw.shape), draw.dtype),
    _native_draw,
    _jaxs_draw,
    _pays,
)
jaxprs.register_call("seedbed_draw")


# --- the drop-ins -----------------------------------------------------------------------


def _drop_in(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    programs = Programs(function)

    @functools.wraps(function)
    def drop_in(*args: Any, **kwargs: Any) -> Any:
        return programs.call(args, kwargs)

    @functools.wraps(function)
    def fold_in(*args: Any, **kwargs: Any) -> Any:
        # Another number each time: an operand.
        data = args[1] if len(args) > 1 else kwargs.get("data")
        if not isinstance(data, ARRAYS):
            if len(args) != 2 or type(data) is not int or not 0 <= data < 1 << 32:
                return function(*args, **kwargs)
            args = (args[0], np.array(data, np.uint32))
        return programs.call(args, kwargs)

    made: Any = fold_in if name == "fold_in" else drop_in
    made.__module__ = "seedbed.random"
    made.__doc__ = (
        f"`jax.random.{name}`, drawn natively: the same arguments, types, errors and bits.\n\n"
        f"The documentation of `jax.random.{name}` describes the arguments and the result."
    )
    made.programs = programs
    return made  # type: ignore[no-any-return]


def _drop_ins() -> dict[str, Any]:
    """Everything public of `jax.random`: drop-ins for what draws, the rest as it is."""
    found: dict[str, Any] = {}
    for name in dir(jax.random):
        value = getattr(jax.random, name)
        if name.startswith("_") or not callable(value):
            continue
        first = next(iter(inspect.signature(value).parameters), None)
        draws = first == "key" and name != "clone"
        found[name] = _drop_in(name, value) if draws else value
    return found


DROP_INS = _drop_ins()
