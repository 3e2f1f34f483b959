"""Ensembles of brainstate modules: building, taking apart, running and resetting members."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from brainstate import graph, transform
from brainstate._state import NonBatchState
from brainstate.nn import Module, reset_all_states
from brainstate.random import DEFAULT, RandomState
from brainstate.transform._mapping_core import INIT_NO_BATCHING
from brainstate.util.filter import to_predicate

from ... import filters
from ..._base import pickling
from ..._ensemble import check
from ..._jax import compat, generators
from ..._plan import Plan
from .._shared.checks import check_arguments
from .._shared.stacking import listed, stacked
from .._shared.variables import row
from .keys import split_key
from .places import Way

_ACCEPTED = "a seed, a key, or an array of a key for each member"


class _Modules:
    """Modules of one make, built for several keys at once.

    Args:
        new_states: ``new_states(way)``: brainstate's `vmap_new_states`, run in a way.
    """

    def __init__(
        self,
        make: Any,
        way: Way,
        new_states: Callable[[Way], Any],
        plan_of: Callable[..., Plan],
    ) -> None:
        if not callable(make):
            raise TypeError(
                "`make` must be a function that returns a brainstate module; got "
                f"{make!r} of type {type(make).__name__}"
            )
        self.make = make
        self._way = way
        self._new_states = new_states
        self._plan_of = plan_of

    def _build(self, keys: Any, args: tuple[Any, ...], kwargs: dict[str, Any], way: Way) -> Any:
        made: dict[str, Any] = {}  # its path is empty, so that plans name states by their own

        def build(key: Any) -> None:
            DEFAULT.restore_value(key)
            model = self.make(*args, **kwargs)
            if not isinstance(model, Module):
                raise TypeError(
                    f"`make` must return a brainstate module; {self.make!r} returned {model!r} of "
                    f"type {type(model).__name__}"
                )
            made[""] = model

        way = way.among(made)
        with _stream_kept():
            self._new_states(way)(build)(keys)
        if way.alone and way.brainstates:
            (made[""],) = unstack(made[""])
        return made[""]


class Single(_Modules):
    """One module. Made by `single`."""

    def __reduce__(self) -> Any:
        from .. import brainstate

        return brainstate._restored_single, (pickling.Packed(self.make), self._way)

    def __repr__(self) -> str:
        name = getattr(self.make, "__qualname__", None) or repr(self.make)
        return f"single({name})"

    def __call__(self, seed_or_key: Any, *args: Any, **kwargs: Any) -> Any:
        """The module.

        Args:
            seed_or_key: what `brainstate.random.seed` takes; it is not split.
            *args, **kwargs: arguments of ``make``.
        """
        return self._build(self._key(seed_or_key, args, kwargs, True), args, kwargs, self._way)

    def plan(self, seed_or_key: Any, *args: Any, **kwargs: Any) -> Plan:
        """What would run; print ``plan(seed).explain()``."""
        key = self._key(seed_or_key, args, kwargs)
        return self._plan_of(self._build, key, args, kwargs, self._way)

    def _key(
        self, seed_or_key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], used: bool = False
    ) -> Any:
        """The key of the one member."""
        check_arguments(self.make, args, kwargs, "seed_or_key", seed_or_key, "a seed or a key")
        if isinstance(seed_or_key, jax.Array) and generators.keys_watched():
            if used:
                generators.use_up([seed_or_key])
            seed_or_key = generators.unused(seed_or_key)
        key: Any = RandomState(seed_or_key).value
        if key.ndim:
            raise ValueError(
                "`seed_or_key` must be one key for a single model, which is not split; got keys "
                f"of shape {key.shape}"
            )
        return key[None]


class Ensemble(_Modules):
    """Modules of one make, ready to be built for all members. Made by `ensemble`."""

    def __init__(
        self,
        make: Any,
        size: int,
        way: Way,
        new_states: Callable[[Way], Any],
        plan_of: Callable[..., Plan],
    ) -> None:
        super().__init__(make, way, new_states, plan_of)
        self.size = check.size(size)

    def __reduce__(self) -> Any:
        from .. import brainstate

        return brainstate._restored, (pickling.Packed(self.make), self.size, self._way)

    def __repr__(self) -> str:
        name = getattr(self.make, "__qualname__", None) or repr(self.make)
        return f"ensemble({name}, {self.size})"

    def __call__(self, seed_or_key: Any, *args: Any, **kwargs: Any) -> Any:
        """All members as one module, whose states have a leading axis of length ``size``.

        Args:
            seed_or_key: what `brainstate.random.seed` takes, or an array of ``size`` keys, one
                for each member.
            *args, **kwargs: arguments of ``make``, the same for every member; with
                ``donate=True`` behind ``old``, a module of an earlier call, which is given up.
        """
        way, args = self._way.over(args)
        return self._build(self._keys(seed_or_key, args, kwargs, used=True), args, kwargs, way)

    def member(self, seed_or_key: Any, i: int, *args: Any, **kwargs: Any) -> Any:
        """Member ``i`` alone: a plain module, in the time and memory of one member.

        Raises:
            TypeError: ``i`` is not an integer.
            IndexError: ``i`` is out of range.
        """
        chosen = check.member(i, self.size)
        keys = self._keys(seed_or_key, args, kwargs)
        if self._way.laid_out and generators.draws_alone(generators.of(keys)):
            return self._build(chosen.take(keys, 0), args, kwargs, self._way.of_one())
        (single,) = unstack(self._some(keys, chosen, args, kwargs))
        return single

    def members(self, seed_or_key: Any, index: Any, *args: Any, **kwargs: Any) -> Any:
        """Some members, as one module: ``index`` is a slice or an array of integers."""
        chosen = check.members(index, self.size)
        return self._some(self._keys(seed_or_key, args, kwargs), chosen, args, kwargs)

    def _some(self, keys: Any, chosen: check.Chosen, args: Any, kwargs: Any) -> Any:
        if generators.draws_alone(generators.of(keys)):
            return self._build(chosen.take(keys, 0), args, kwargs, self._way)
        # A member is what it is among all: the keys may draw for the batch as a whole.
        made = self._build(keys, args, kwargs, self._way)
        for state in batched_states(made, None).values():
            state.restore_value(chosen.pick(state.value, single=False))
        return made

    def stream(self, seed_or_key: Any, *args: Any, chunk_size: int, **kwargs: Any) -> Iterator[Any]:
        """All members in order, as modules of at most ``chunk_size``, each made when asked for."""
        chunk = check.size(chunk_size, "chunk_size")
        keys = self._keys(seed_or_key, args, kwargs, used=True)
        return (
            self.members(keys, slice(start, start + chunk), *args, **kwargs)
            for start in range(0, self.size, chunk)
        )

    def plan(self, seed_or_key: Any, *args: Any, **kwargs: Any) -> Plan:
        """What would run; print ``plan(seed).explain()``."""
        keys = self._keys(seed_or_key, args, kwargs)
        return self._plan_of(self._build, keys, args, kwargs, self._way)

    def _keys(
        self, seed_or_key: Any, args: tuple[Any, ...], kwargs: dict[str, Any], used: bool = False
    ) -> Any:
        """Every member's key; ``used`` says whether all are, if jax looks for keys used twice."""
        check_arguments(self.make, args, kwargs, "seed_or_key", seed_or_key, _ACCEPTED)
        if isinstance(seed_or_key, jax.Array) and generators.keys_watched():
            if used:
                generators.use_up([seed_or_key])
            seed_or_key = generators.unused(seed_or_key)
        if isinstance(seed_or_key, jax.Array) and compat.is_key(seed_or_key.dtype):
            if not seed_or_key.ndim:
                return split_key(RandomState(seed_or_key), self.size)
            return check.keys(seed_or_key, self.size)[0]
        return split_key(RandomState(seed_or_key), self.size)


@contextmanager
def _stream_kept() -> Iterator[None]:
    before = DEFAULT.value
    try:
        yield
    finally:
        DEFAULT.restore_value(before)


def batched_states(module: Any, states: Any) -> dict[tuple[Any, ...], Any]:
    """The states that hold members, by path."""
    if not isinstance(module, graph.Node):
        raise TypeError(
            f"`module` must be a brainstate module; got {module!r} of type {type(module).__name__}"
        )
    filters.check_end(states)
    shared = to_predicate((NonBatchState, INIT_NO_BATCHING))
    chosen = to_predicate(... if states is None else states)
    return {
        path: state
        for path, state in graph.states(module).items()
        if chosen(path, state) and not shared(path, state) and jax.tree.leaves(state.value)
    }


def size_of(batched: dict[tuple[Any, ...], Any]) -> int:
    sizes: dict[int, str] = {}
    for path, state in batched.items():
        for leaf in jax.tree.leaves(state.value):
            name = ".".join(map(str, path))
            if not np.ndim(leaf):
                raise ValueError(
                    f"the state {name!r} is a number and has no member axis; say which states hold "
                    "members with `states=`, a filter as brainstate takes them"
                )
            sizes.setdefault(np.shape(leaf)[0], name)
    if len(sizes) != 1:
        found = ", ".join(f"{size} in {name!r}" for size, name in sizes.items()) or "none"
        raise ValueError(
            f"the states of one module must have one number of members; found {found}. Say which "
            "states hold members with `states=`, a filter as brainstate takes them"
        )
    return next(iter(sizes))


def stack(modules: Any, states: Any = None) -> Any:
    """Plain modules as one with a member axis: what `unstack` undoes. They stay as they are.

    Args:
        modules: a list or tuple of modules that differ in the numbers in their states only.
        states: as for `unstack`: the states that get the member axis; others are the first's.

    Raises:
        TypeError: ``modules`` is no list or tuple of brainstate modules.
        ValueError: it is empty, or the states differ in structure or shapes.

    Example:
        >>> import brainstate, seedbed as sb
        >>> one, two = brainstate.nn.Linear(2, 6), brainstate.nn.Linear(2, 6)
        >>> sb.adapters.brainstate.stack([one, two]).weight.value["weight"].shape
        (2, 2, 6)
    """
    values = [
        {
            ".".join(map(str, path)): state.value
            for path, state in batched_states(one, states).items()
        }
        for one in listed(modules, "modules")
    ]
    together = stacked(values, "modules")
    copy = graph.clone(modules[0])
    for path, state in batched_states(copy, states).items():
        state.restore_value(together[".".join(map(str, path))])
    return copy


def unstack(module: Any, states: Any = None) -> list[Any]:
    """The members of a module as plain modules of their own.

    Args:
        module: a module whose states have a leading member axis.
        states: filter of the states that hold members, as brainstate takes them; all by default
            but those that brainstate gives no member axis. What else there is, is shared.

    Raises:
        TypeError: ``module`` is not a brainstate module.
        ValueError: the states do not have one number of members.

    Example:
        >>> import brainstate, seedbed as sb
        >>> nets = sb.adapters.brainstate.ensemble(lambda: brainstate.nn.Linear(2, 6), 3)(0)
        >>> [net.weight.value["weight"].shape for net in sb.adapters.brainstate.unstack(nets)]
        [(2, 6), (2, 6), (2, 6)]
    """
    batched = batched_states(module, states)
    members = []
    for i in range(size_of(batched)):
        copy = graph.clone(module)
        inside = graph.states(copy)
        for path, state in batched.items():
            inside[path].restore_value(row(state.value, jax.device_put(np.int32(i))))
        members.append(copy)
    return members


def forward(module: Any, *inputs: Any, in_axes: Any = None, states: Any = None) -> Any:
    """All members' outputs: every member runs with its own states, and updates them.

    This is ``brainstate.transform.vmap(module, in_states=..., out_states=...)``; under
    `brainstate.transform.jit` it compiles once.

    Args:
        module: a module whose states have a leading member axis.
        *inputs: arguments of the module, the same for every member by default.
        in_axes: as for `jax.vmap`, to map inputs over members.
        states: as for `unstack`.

    Returns:
        what the module returns, with a leading member axis.

    Example:
        >>> import brainstate, jax.numpy as jnp, seedbed as sb
        >>> nets = sb.adapters.brainstate.ensemble(lambda: brainstate.nn.Linear(2, 6), 3)(0)
        >>> sb.adapters.brainstate.forward(nets, jnp.ones((5, 2))).shape
        (3, 5, 6)
    """
    return _over_members(lambda *given: module(*given), module, states, inputs, in_axes)


def reset_members(module: Any, *reset_args: Any, states: Any = None, **reset_kwargs: Any) -> Any:
    """Calls ``reset_state`` of every node for every member, and keeps the member axis.

    `brainstate.nn.vmap_reset_all_states` loses it where ``reset_state`` writes a constant, and
    refuses where it writes random numbers.

    Args:
        module: a module whose states have a leading member axis.
        *reset_args, **reset_kwargs: arguments of ``reset_state``.
        states: as for `unstack`.

    Returns:
        ``module``.
    """

    def reset() -> None:
        reset_all_states(module, *reset_args, **reset_kwargs)

    _over_members(reset, module, states, (), None)
    return module


def _over_members(
    fun: Callable[..., Any], module: Any, states: Any, inputs: tuple[Any, ...], in_axes: Any
) -> Any:
    """brainstate's `vmap` of a function over the states that hold members."""
    batched = batched_states(module, states)
    mapped = [state for state in batched.values() if not isinstance(state, RandomState)]
    streams = [state for state in batched.values() if isinstance(state, RandomState)]
    size = size_of(batched)
    # brainstate splits the key of every random state anew; these have a key per member already.
    keys: list[Any] = [state.value for state in streams]

    def run(keys: list[Any], given: tuple[Any, ...]) -> tuple[Any, list[Any]]:
        for state, key in zip(streams, keys, strict=True):
            state.restore_value(key)
        out = fun(*given)
        return out, [state.value for state in streams]

    if isinstance(in_axes, list):
        in_axes = tuple(in_axes)
    over: Any = transform.vmap(
        run, in_axes=(0, in_axes), in_states=mapped, out_states=mapped, axis_size=size
    )
    after = keys
    try:
        for state, key in zip(streams, keys, strict=True):
            state.restore_value(key[0])
        out, after = over(keys, inputs)
    finally:
        for state, key in zip(streams, after, strict=True):
            state.restore_value(key)
    return out
