"""One call of brainstate's `vmap_new_states`, with its mapped pass made by seedbed.

The call stays brainstate's own: its function runs with `jax.vmap` replaced. It finds the random
states that the user's function touches (a first pass), splits their keys, catches the states
that are made in a second pass, and writes their values. Here the first pass is abstract and
costs no arithmetic, and the second is traced for one member and run as an ensemble.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import jax
from brainstate._state import TRACE_CONTEXT, catch_new_states
from brainstate.random import RandomState

from ... import _trace
from ..._base import garbage
from ..._ensemble import check
from ..._jax import compat, generators
from ..._trace import cut
from ...nn._call import dummy_key
from .keys import split_key
from .places import Way
from .program import NotNative, kept, leaks_allowed, moved, parts, shown, without_checks
from .roots import Place, Snapshot, flatten, tracers, walk

_here = threading.local()  # .depth: how many calls are being traced for one member


class Planned(Exception):
    """Ends a call that only asks for its plan."""

    def __init__(self, plan: Any) -> None:
        self.plan = plan


def rebound(function: Any, **names: Any) -> Any:
    """A copy of a function that finds other objects under some of its global names."""
    made = types.FunctionType(
        function.__code__,
        {**function.__globals__, **names},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def watched(fun: Callable[..., Any], snapshot: Snapshot) -> Callable[..., Any]:
    """The function; afterwards the snapshot knows the states that it touched."""

    def run(*args: Any) -> Any:
        try:
            return fun(*args)
        finally:
            snapshot.note_trace(TRACE_CONTEXT.state_stack[-1])

    return run


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """States made inside are not seen by catchers outside: what they hold is of no use there."""
    catchers = TRACE_CONTEXT.new_state_catcher
    outer = list(catchers)
    try:
        try:
            catchers.clear()
            yield
        finally:
            catchers[:] = outer
    finally:  # after a second interrupt
        catchers[:] = outer


class MappedCall:
    """A call of ``fun`` for all members: ``call.fun`` and ``call.jax`` stand in for two names.

    Args:
        fun: the user's function.
        roots: objects it can reach.
        snapshot: is told what the states held that the function touches.
        only_plan: stop with `Planned` before anything is computed.
        way: how the members are made.
    """

    def __init__(
        self,
        fun: Callable[..., Any],
        roots: list[Any],
        snapshot: Snapshot,
        only_plan: bool,
        way: Way,
    ) -> None:
        self.way = way
        self.user = fun
        self.roots = roots
        self.snapshot = snapshot
        self.only_plan = only_plan
        self.random: list[Any] = []
        self.made: list[Any] = []
        self.kinds: list[type] | None = None
        self.first_run: Any = None
        self.first: dict[int, int] = {}
        self.touched: list[Any] = []
        self.traces: list[weakref.ref[Any]] = []
        self.loose = False

    @property
    def jax(self) -> Any:
        call = self

        class Jax:
            vmap = staticmethod(call.vmap)

            def __getattr__(self, name: str) -> Any:
                return getattr(jax, name)

        return Jax()

    def run(self, own: Any, options: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The call.

        Raises:
            NotNative: brainstate has to run it; what changed is for the snapshot to undo.
        """
        transform = rebound(own, jax=self.jax)
        with garbage.only_new_garbage(), leaks_allowed():
            try:
                out = transform(self.fun, **options)(*args, **kwargs)
            finally:
                self.finish()
            # A traced value that nothing here knows of would be an error when it is used.
            leaked = not self.loose and _trace.outlived(self.traces)
        if leaked and _trace.outlived(self.traces):
            raise NotNative("it keeps an array where only Python can find it")
        return out

    # --- the two passes -----------------------------------------------------------------

    def fun(self, *args: Any) -> Any:
        if self.kinds is None:
            return self._probe(args)
        with catch_new_states() as caught:
            out = self._user(args)
        self.made = list(caught.get_states())
        self.touched = list(TRACE_CONTEXT.state_stack[-1].states)
        if [type(state) for state in self.made] != self.kinds:
            raise NotNative("the function makes other states when it runs a second time")
        self._forget_first_run()
        return out

    def _user(self, args: tuple[Any, ...]) -> Any:
        try:
            with shown() as texts:
                out = watched(self.user, self.snapshot)(*args)
            if any(map(self._is_traced, texts)):
                # brainpy names what it builds after its parameters.
                raise NotNative("it makes text of an array, which has no value when traced")
            return out
        except NotNative:
            raise
        except Exception as error:
            # Brainstate computes at once what is not random, and so may get further.
            raise NotNative(f"it raises {type(error).__name__} when traced: {error}") from error

    def _is_traced(self, tracer: Any) -> bool:
        return any(_of(tracer, trace) for trace in self.traces)

    def _probe(self, args: tuple[Any, ...]) -> None:
        def traced(token: Any) -> list[Any]:
            self._remember(token)
            with _trace.released_on_failure([token]), _alone(), catch_new_states() as caught:
                self._user(args)
            self.kinds = [type(state) for state in caught.get_states()]
            found = [leaf for place in walk(self.roots) for _, leaf in tracers(place)]
            self.first = {id(leaf): i for i, leaf in enumerate(found)}
            return found

        with _trace.global_numbers_noticed(self.user, self.roots):
            self.first_run = jax.make_jaxpr(traced)(0)
        for state in TRACE_CONTEXT.state_stack[-1].states:
            if isinstance(state, RandomState):
                self.random.append(state)
                if not getattr(_here, "depth", 0):  # else the call around it recognises jax's own
                    vars(state)["split_key"] = functools.partial(split_key, state)

    def _forget_first_run(self) -> None:
        """Gives what the first run left behind a value, or marks it as brainstate does."""
        for place in walk(self.roots):
            found = [leaf for _, leaf in tracers(place) if _of(leaf, self.traces[0])]
            if not found:
                continue
            if place.state is not None:
                # A state of the same kind was made in its place.
                place.state._invalidate_trace_value()
                continue
            if any(id(leaf) not in self.first for leaf in found):
                raise NotNative("it keeps a value of its first run")
            evaluate, _ = parts(self.first_run, [self.first[id(leaf)] for leaf in found], [])
            values = dict(zip(map(id, found), evaluate(), strict=True))
            old, tree = flatten(place)
            place.value = jax.tree.unflatten(tree, [values.get(id(one), one) for _, one in old])

    def finish(self) -> None:
        """Random states draw as ever again."""
        for state in self.random:
            vars(state).pop("split_key", None)

    def _remember(self, tracer: Any) -> None:
        owner = compat.trace_of(tracer)
        if owner is not None:
            self.traces.append(weakref.ref(owner))

    # --- the mapped pass ----------------------------------------------------------------

    def vmap(
        self,
        fun: Callable[..., Any],
        in_axes: Any = 0,
        out_axes: Any = 0,
        axis_name: Any = None,
        axis_size: Any = None,
        spmd_axis_name: Any = None,
    ) -> Callable[..., Any]:
        """In place of `jax.vmap`, for the one function that brainstate maps."""
        if axis_name is not None or spmd_axis_name is not None:
            raise NotNative("members have a named axis, which only jax.vmap has")

        def run(*operands: Any) -> Any:
            self.finish()
            if getattr(_here, "depth", 0):
                # The call around it will find the draws.
                mapped: Any = jax.vmap(fun, in_axes, out_axes, axis_size=axis_size)
                return mapped(*operands)
            return self._run(fun, operands, in_axes, out_axes, axis_size)

        return run

    def _run(
        self, fun: Any, operands: tuple[Any, ...], in_axes: Any, out_axes: Any, size: Any
    ) -> Any:
        given, tree = jax.tree.flatten(operands)
        axes = check.spread(in_axes, operands)
        keyed = [
            i for i, (leaf, axis) in enumerate(zip(given, axes, strict=True))
            if axis == 0 and isinstance(leaf, jax.Array) and compat.is_key(leaf.dtype)
            and leaf.ndim == 1
        ]  # fmt: skip
        mapped = [i for i, axis in enumerate(axes) if axis is not None and i not in keyed]
        if size is None:
            position = next(i for i, axis in enumerate(axes) if axis is not None)
            size = given[position].shape[axes[position]]
        keys = [given[i] for i in keyed] or [dummy_key()]
        types = [check.member_key_type(key) for key in keys]
        types += [check.member_type(given[i], axes[i]) for i in mapped]
        member = _Member(self, fun, given, tree, keyed, mapped)
        try:
            _here.depth = 1
            closed = jax.make_jaxpr(member.released)(*types)
        finally:
            _here.depth = 0
        closed = without_checks(closed)
        out_tree, outs = member.out_tree, member.outs
        places = check.spread(out_axes, jax.tree.unflatten(out_tree, [0] * outs), "out_axes")
        dependent = cut.dependent(closed.jaxpr, range(len(types)))
        shared = {i for i, axis in enumerate(places) if axis is None}
        if shared & dependent:
            raise NotNative("a value that all members share would differ between them")
        loose = set(range(outs, len(closed.out_avals)))
        self.loose = bool(loose & dependent)
        once, members = parts(closed, sorted(shared | loose - dependent), sorted(loose))
        recorded = _trace.Recorded(
            members,
            jax.tree.structure([0] * len(members.out_avals)),
            tuple(name for i, name in enumerate(member.names) if i not in shared),
            tuple(f"[{i}]" for i in range(len(keys))),
        )
        varying_states = [one for i, one in enumerate(member.states) if i not in shared]
        make = self.way.make(recorded, size, [axes[i] for i in mapped], varying_states)
        arrays = [given[i] for i in mapped]
        if self.only_plan:
            raise Planned(make.plan(keys, *arrays))
        if generators.keys_watched():
            # brainstate's own first pass, of which only the states are kept, has drawn from them.
            keys = [generators.unused(key) for key in keys]
        varying = iter(make(keys, *arrays))
        alike = map(self.way.shared, once())
        fixed = dict(zip(sorted(shared | loose - dependent), alike, strict=True))
        result = [
            kept(fixed[i]) if axis is None else moved(next(varying), axis)
            for i, axis in enumerate(places)
        ]
        member.settle(fixed, dependent)
        return jax.tree.unflatten(out_tree, result)


class _Member:
    """What is traced for one member: brainstate's function, then what it left behind."""

    def __init__(
        self,
        call: MappedCall,
        fun: Any,
        given: list[Any],
        tree: Any,
        keyed: list[int],
        mapped: list[int],
    ) -> None:
        self.call = call
        self.fun = fun
        self.given = given
        self.tree = tree
        first: list[Any] = [*keyed] or [None]
        self.inputs = [*first, *mapped]
        self.names: list[str] = []
        self.states: list[Any] = []
        self.left: list[tuple[Place, list[int]]] = []

    def released(self, *traced: Any) -> list[Any]:
        with _trace.released_on_failure(traced):
            return self(*traced)

    def __call__(self, *traced: Any) -> list[Any]:
        call = self.call
        call._remember(traced[0])
        values = list(self.given)
        for position, value in zip(self.inputs, traced, strict=True):
            if position is not None:
                values[position] = value
        result = self.fun(*jax.tree.unflatten(self.tree, values))
        outs, self.out_tree = jax.tree.flatten(result)
        self.outs = len(outs)
        written = {id(leaf) for leaf in outs}
        random = {id(state) for state in call.random}
        names: dict[int, str] = {}
        states: dict[int, Any] = {}
        places: dict[int, int] = {}
        extra: list[Any] = []
        for place in walk([*call.roots, *call.made, *call.touched]):
            if id(place.state) in random:
                continue
            found = tracers(place)
            for path, leaf in found:
                names.setdefault(id(leaf), path)
                states.setdefault(id(leaf), place.state)
            if place.state is not None and all(id(leaf) in written for _, leaf in found):
                continue
            for _, leaf in found:
                if id(leaf) not in places:
                    places[id(leaf)] = len(outs) + len(extra)
                    extra.append(leaf)
            if found:
                here = [places.get(id(leaf), -1) for _, leaf in flatten(place)[0]]
                self.left.append((place, here))
        self.states = [states.get(id(leaf)) for leaf in outs]
        self.names = [names.get(id(leaf)) or f"result[{i}]" for i, leaf in enumerate(outs)]
        del values, result
        return [*outs, *extra]

    def settle(self, fixed: dict[int, Any], dependent: set[int]) -> None:
        """Writes what all members share where the function left it, and forgets traced values."""
        for place, positions in self.left:
            if any(i in dependent for i in positions):
                continue
            old, tree = flatten(place)
            new = [fixed.get(i, leaf) for i, (_, leaf) in zip(positions, old, strict=True)]
            place.value = jax.tree.unflatten(tree, new)
        self.left = []


def _of(tracer: Any, trace: weakref.ref[Any]) -> bool:
    owner = compat.trace_of(tracer)
    return owner is not None and owner is trace()
