"""Modules of nnx, made for all members or as a single model.

Rngs go into the trace of one member, and its model comes out, as in nnx's own transformations
(``nnx.update_context``): a model that keeps the rngs it was given keeps the caller's object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from ..._ensemble import check
from ..._jax import compat
from ..._plan import Plan
from .._shared.checks import check_arguments
from .._shared.model import ModelSingle
from .._shared.parts import Arrays, TakenApart
from .._shared.stored import Models, StoredEnsemble
from .places import eagerly, lazily, places
from .streams import ACCEPTED, predicate, rngs_of, streams_of

_TAG = "seedbed"


class ModuleEnsemble(StoredEnsemble):
    """An ensemble of nnx modules. Made by `ensemble`."""

    def __init__(
        self,
        make: Any,
        size: int,
        in_axes: Any,
        only: Any,
        shared: Any,
        out_shardings: Any,
        pad: bool,
        donate: bool,
    ) -> None:
        _check_make(make)
        filters = () if shared is None else (predicate(shared, "shared"), ...)
        apart = _Apart(make, filters, True, out_shardings is not None)
        lie = places(out_shardings)
        super().__init__(
            make,
            size,
            apart,
            _merged,
            in_axes=in_axes,
            places=lie,
            pad=pad,
            donate=donate,
            own=_Own(filters),
        )
        self._only = predicate(only, "only")

    def __call__(self, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Any:
        """All members, as one module whose variables have a leading axis of length ``size``.

        Args:
            rngs_or_key: an `nnx.Rngs`, left as ``nnx.split_rngs`` leaves it; or what `nnx.Rngs`
                takes: one key or integer, or a mapping from streams to them. An array of
                ``size`` keys is used as it is.
            *args, **kwargs: of the model, the same for all members unless ``in_axes`` maps them.
                With ``donate=True`` they come after ``old``, a result of an earlier call, whose
                arrays are given up.
        """
        old, args = (args[:1], args[1:]) if self.donate else ((), args)
        if self.donate:
            self._given_up(old)  # checked before the rngs are
        rngs = _rngs(self._apart, rngs_or_key, args, kwargs)
        before = {
            name: (stream, stream.key.get_value(), stream.count.get_value())
            for name, stream in streams_of(rngs).items()
            if not stream.key.ndim
        }
        counts: dict[str, Any] = {}
        try:
            model, used = self._run(super().__call__, rngs, old, args, kwargs)
            counts = {name: count + 1 for name, (_, _, count) in before.items()} | _here(used)
        finally:
            # A model that keeps the rngs has written the members' streams into them.
            for name, (stream, key, count) in before.items():
                stream.key.set_value(key)
                stream.count.set_value(counts.get(name, count))
        return model

    def member(self, rngs_or_key: Any, i: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Member ``i`` alone: a plain module. An `nnx.Rngs` stays as it is."""
        rngs = nnx.clone(_rngs(self._apart, rngs_or_key, args, kwargs))
        return self._run(super().member, rngs, (i,), args, kwargs)[0]

    def members(self, rngs_or_key: Any, index: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Some members, as one module: ``index`` is a slice or an array of integers."""
        rngs = nnx.clone(_rngs(self._apart, rngs_or_key, args, kwargs))
        return self._run(super().members, rngs, (index,), args, kwargs)[0]

    def stream(
        self, rngs_or_key: Any, /, *args: Any, chunk_size: int, **kwargs: Any
    ) -> Iterator[Any]:
        """All members in order, as modules of at most ``chunk_size``, each made when asked for.

        An `nnx.Rngs` stays as it is, and what becomes of it later does not matter.
        """
        chunk = check.size(chunk_size, "chunk_size")
        given = nnx.clone(rngs_or_key) if isinstance(rngs_or_key, nnx.Rngs) else rngs_or_key
        self.plan(given, *args, **kwargs)  # checked here, not when the first piece is asked for
        return (
            self.members(given, slice(start, start + chunk), *args, **kwargs)
            for start in range(0, self.size, chunk)
        )

    def own_arrays(self, key: Any, /, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            f"modules of nnx are made of rngs, not of one key: in place of {self!r} take a "
            "function init(key) that returns nnx.state(Model(..., rngs=nnx.Rngs(key)))"
        )

    def plan(self, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Plan:
        """What would run for the members' own variables; print ``plan(rngs).explain()``."""
        rngs = nnx.clone(_rngs(self._apart, rngs_or_key, args, kwargs))
        plan: Plan = self._run(super().plan, rngs, (), args, kwargs)
        return plan

    def load(self, path: Any, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Models:
        """Opens modules that `save` wrote, given what they were made from; see `nnx.ensemble`."""
        given = nnx.clone(rngs_or_key) if isinstance(rngs_or_key, nnx.Rngs) else rngs_or_key
        return super().load(path, given, *args, **kwargs)

    def lazy(self, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Models:
        """Not for modules of nnx, which are traced with their rngs each time: see `member`.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "ensembles of nnx have no `lazy`: use `member`, `members` and `stream`, which make "
            "what they are asked for, or seedbed.ensemble of a function that returns nnx.state"
        )

    def _written(self, order: Any, key: Any, args: Any, kwargs: Any) -> bool:
        def write(keys: Any, *args: Any, **kwargs: Any) -> bool:
            return super(ModuleEnsemble, self)._written(order, keys, args, kwargs)

        return bool(self._once(write, key, args, kwargs))

    def _opened(self, path: Any, key: Any, args: Any, kwargs: Any) -> Any:
        def opened(keys: Any, *args: Any, **kwargs: Any) -> Any:
            return super(ModuleEnsemble, self)._opened(path, keys, args, kwargs)

        return self._once(opened, key, args, kwargs)

    def _again(self, own: Any, out: Arrays, key: Any, args: Any, kwargs: Any) -> Any:
        def again(keys: Any, *args: Any, **kwargs: Any) -> Any:
            return super(ModuleEnsemble, self)._again(own, out, keys, args, kwargs)

        return self._once(again, key, args, kwargs)[0]

    def _once(self, method: Callable[..., Any], given: Any, args: Any, kwargs: Any) -> Any:
        """``method``, of rngs of its own."""
        rngs = nnx.clone(_rngs(self._apart, given, args, kwargs))
        return self._run(method, rngs, (), args, kwargs)

    def _run(
        self, method: Callable[..., Any], rngs: Any, which: Any, args: Any, kwargs: Any
    ) -> Any:
        keys = {}  # by stream, what members' keys are split from, or the members' own keys
        for name, stream in streams_of(rngs).items():
            path = tuple(name.split("."))
            if all(self._only((*path, part), getattr(stream, part)) for part in ("key", "count")):
                key = stream.key.get_value()
                keys[name] = key if key.ndim else jax.random.fold_in(key, stream.count.get_value())
            elif stream.key.ndim:
                raise ValueError(
                    f"stream {name!r} holds {stream.key.shape[0]} keys, and `only` does not select "
                    "it; give it one key, which all members share"
                )
        if not keys and self.in_axes is None:
            raise ValueError(
                "all members would be equal: `only` selects none of the streams "
                f"{list(streams_of(rngs))}, and `in_axes` maps no argument"
            )
        counts: dict[str, int | None] = dict.fromkeys(keys, 0)
        return _run(method, rngs, keys, counts, which, args, kwargs)


class ModuleSingle(ModelSingle):
    """One nnx module. Made by `single`."""

    def __init__(self, make: Any, out_shardings: Any) -> None:
        _check_make(make)
        apart = _Apart(make, (), False, out_shardings is not None)
        super().__init__(make, apart, _merged, places=places(out_shardings))

    def __call__(self, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The module.

        Args:
            rngs_or_key: an `nnx.Rngs`, left as ``make(rngs=rngs)`` leaves it; or what `nnx.Rngs`
                takes: one key or integer, or a mapping from streams to them. Inside of `nnx.jit`
                these are better: the counts of an `nnx.Rngs` have no value there, and XLA draws.
            *args, **kwargs: of the model.
        """
        rngs = _rngs(self._apart, rngs_or_key, args, kwargs)
        before = {
            name: (stream, stream.key.get_value(), stream.count.get_value())
            for name, stream in streams_of(rngs).items()
        }
        counts: dict[str, Any] = {}
        try:
            fresh = not isinstance(rngs_or_key, nnx.Rngs)
            model, used = self._run(super().__call__, rngs, fresh, args, kwargs)
            counts = _here(used)
        finally:
            # A model that keeps the rngs has written into them what lies where the model does.
            for name, (stream, key, count) in before.items():
                stream.key.set_value(key)
                stream.count.set_value(counts.get(name, count))
        return model

    def plan(self, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Plan:
        """What would run; print ``plan(rngs).explain()``. An `nnx.Rngs` stays as it is."""
        rngs = nnx.clone(_rngs(self._apart, rngs_or_key, args, kwargs))
        fresh = not isinstance(rngs_or_key, nnx.Rngs)
        plan: Plan = self._run(super().plan, rngs, fresh, args, kwargs)
        return plan

    def _run(
        self, method: Callable[..., Any], rngs: Any, fresh: bool, args: Any, kwargs: Any
    ) -> Any:
        keys, counts = {}, {}
        for name, stream in streams_of(rngs).items():
            keys[name] = stream.key.get_value()
            if stream.key.ndim:
                raise ValueError(
                    f"`rngs_or_key` must have one key in each stream for a single model, which is "
                    f"not split; {name!r} has keys of shape {stream.key.shape}"
                )
            count = stream.count.get_value()
            # A number that is known is part of the program, which then knows every key.
            known = None if compat.is_tracer(count) else int(jax.device_get(count))
            counts[name] = 0 if fresh else known
        return _run(method, rngs, keys, counts, (), args, kwargs)


def _here(counts: dict[str, Any]) -> dict[str, Any]:
    """Counts for streams of the caller's, which do not lie where the model does."""
    return {
        name: count if compat.is_tracer(count) else jax.device_put(jax.device_get(count))
        for name, count in counts.items()
    }


def _check_make(make: Any) -> None:
    if not callable(make) or isinstance(make, nnx.Module):
        raise TypeError(
            "`make` must be an nnx.Module class or a function make(*args, rngs=rngs); got "
            f"{make!r} of type {type(make).__name__}"
        )


def _rngs(apart: Any, given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The rngs of a call, whose arguments are looked at first."""
    if "rngs" in kwargs:
        raise TypeError(
            "the rngs are the first argument: ensemble(Model, size)(rngs, *args, **kwargs), and "
            "so for single(Model); got `rngs` by name"
        )
    for number, one in enumerate(args):
        if isinstance(one, nnx.Rngs) and not isinstance(given, nnx.Rngs):
            raise TypeError(
                "the rngs are the first argument: ensemble(Model, size)(rngs, *args, **kwargs), "
                f"and so for single(Model); got {given!r} in their place, and an nnx.Rngs as "
                f"argument {number + 2}"
            )
    rngs = rngs_of(given)
    options = {**kwargs, "rngs": rngs}
    check_arguments(apart.make, args, options, "rngs_or_key", given, ACCEPTED)
    return rngs


def _run(
    method: Callable[..., Any],
    rngs: Any,
    keys: dict[str, Any],
    counts: dict[str, int | None],
    which: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """``method`` of the models of `_shared`, with what `_Apart` gets.

    Args:
        keys: by stream, what members' keys are split from, the members' own, or a single model's.
        counts: by stream, how many keys were taken of it; None where that is being traced.
        which: further arguments of ``method``.
    """
    with nnx.update_context(_TAG):
        with nnx.split_context(_TAG) as context:
            given = context.split(rngs)
        keys = keys or {"": jax.random.key(0)}
        return method(keys, *which, *args, given=given, counts=counts, own=kwargs)


@dataclass(frozen=True, slots=True)
class _Apart:
    """Makes one member, in parts."""

    make: Callable[..., Any]
    filters: tuple[Any, ...]  # of what members share, and the rest
    members: bool
    laid_out: bool

    def __call__(self, keys: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TakenApart:
        given, counts, own = kwargs["given"], kwargs["counts"], kwargs["own"]
        with nnx.merge_context(_TAG, inner=True) as context:
            rngs = context.merge(*given)
        streams = streams_of(rngs)
        for name, count in counts.items():
            streams[name].key.set_value(keys[name])
            if count is not None:
                streams[name].count.set_value(jnp.full((), count, jnp.uint32))
        model = self._made(args, rngs, own)
        # What an ensemble splits is counted by the streams of the members.
        unsplit = streams if not self.members else streams.keys() - counts.keys()
        used = {name: streams[name].count.get_value() for name in sorted(unsplit)}
        with nnx.split_context(_TAG) as context:
            graphdef, *shared, state = context.split(model, *self.filters)
        if shared and not jax.tree_util.tree_leaves(shared):
            raise ValueError(
                "`shared` selects none of the model's variables; it has "
                f"{', '.join('.'.join(map(str, path)) for path, _ in nnx.to_flat_state(state))}"
            )
        if jax.tree_util.tree_leaves(shared):
            single = nnx.merge(*given)
            stacks = [name for name, stream in streams_of(single).items() if stream.key.ndim]
            if stacks:
                raise ValueError(
                    f"`shared` variables are made with one key for all members; streams {stacks} "
                    "hold a key for each"
                )
            plain = self._made(args, single, own)
            shared = [nnx.state(plain, self.filters[0])]
        return TakenApart(state, shared, graphdef, {"rngs": used})

    def _made(self, args: tuple[Any, ...], rngs: Any, kwargs: dict[str, Any]) -> Any:
        if not self.laid_out or not nnx.using_eager_sharding():
            return self.make(*args, rngs=rngs, **kwargs)
        with lazily():
            model = self.make(*args, rngs=rngs, **kwargs)
        eagerly(model)
        return model


@dataclass(frozen=True, slots=True)
class _Own:
    """The variables of an ensemble that have a member axis."""

    filters: tuple[Any, ...]

    def __call__(self, module: Any) -> Any:
        if not isinstance(module, nnx.Module):
            raise TypeError(
                "`old` must be an nnx.Module, the result of an earlier call; got one of type "
                f"{type(module).__name__}"
            )
        parts: Any = nnx.split(module, *self.filters)
        return parts[-1]


def _merged(taken: TakenApart) -> tuple[Any, dict[str, Any]]:
    with nnx.merge_context(_TAG, inner=False) as context:
        return context.merge(taken.rest, taken.own, *taken.common), taken.aside["rngs"]
