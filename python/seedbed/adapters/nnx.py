"""flax nnx: one module with all members' variables, as ``nnx.split_rngs`` with ``nnx.vmap`` gives.

Rngs go into the trace of one member, and its model comes out, as in nnx's own transformations
(``nnx.update_context``): a model that keeps the rngs it was given keeps the caller's object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .. import filters
from .._ensemble import check
from .._plan import Plan
from ._shared.model import ModelEnsemble, TakenApart, check_arguments

_TAG = "seedbed"
_ACCEPTED = "an nnx.Rngs, one key or integer, or a mapping from streams to them"


class ModuleEnsemble(ModelEnsemble):
    """An ensemble of nnx modules. Made by `ensemble`."""

    def __init__(self, make: Any, size: int, in_axes: Any, only: Any, shared: Any) -> None:
        if not callable(make) or isinstance(make, nnx.Module):
            raise TypeError(
                "`make` must be an nnx.Module class or a function make(*args, rngs=rngs); got "
                f"{make!r} of type {type(make).__name__}"
            )
        filters = () if shared is None else (_filter(shared, "shared"), ...)
        super().__init__(make, size, _Apart(make, filters), _merged, in_axes=in_axes)
        self._only = _filter(only, "only")

    def __call__(self, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Any:
        """All members, as one module whose variables have a leading axis of length ``size``.

        Args:
            rngs_or_key: an `nnx.Rngs`, left as ``nnx.split_rngs`` leaves it; or what `nnx.Rngs`
                takes: one key or integer, or a mapping from streams to them. An array of
                ``size`` keys is used as it is.
            *args, **kwargs: of the model, the same for all members unless ``in_axes`` maps them.
        """
        rngs = self._rngs(rngs_or_key, args, kwargs)
        before = {
            name: (stream, stream.key.get_value(), stream.count.get_value())
            for name, stream in _streams(rngs).items()
            if not stream.key.ndim
        }
        counts: dict[str, Any] = {}
        try:
            model, used = self._run(super().__call__, rngs, (), args, kwargs)
            counts = {name: count + 1 for name, (_, _, count) in before.items()} | used
        finally:
            # A model that keeps the rngs has written the members' streams into them.
            for name, (stream, key, count) in before.items():
                stream.key.set_value(key)
                stream.count.set_value(counts.get(name, count))
        return model

    def member(self, rngs_or_key: Any, i: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Member ``i`` alone: a plain module. An `nnx.Rngs` stays as it is."""
        rngs = nnx.clone(self._rngs(rngs_or_key, args, kwargs))
        return self._run(super().member, rngs, (i,), args, kwargs)[0]

    def members(self, rngs_or_key: Any, index: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Some members, as one module: ``index`` is a slice or an array of integers."""
        rngs = nnx.clone(self._rngs(rngs_or_key, args, kwargs))
        return self._run(super().members, rngs, (index,), args, kwargs)[0]

    def plan(self, rngs_or_key: Any, /, *args: Any, **kwargs: Any) -> Plan:
        """What would run for the members' own variables; print ``plan(rngs).explain()``."""
        rngs = nnx.clone(self._rngs(rngs_or_key, args, kwargs))
        plan: Plan = self._run(super().plan, rngs, (), args, kwargs)
        return plan

    def _rngs(self, given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The rngs of a call, whose arguments are looked at first."""
        if "rngs" in kwargs:
            raise TypeError(
                "the rngs are the first argument: ensemble(Model, size)(rngs, *args, **kwargs); "
                "got `rngs` by name"
            )
        rngs = _rngs(given)
        make: Any = self._apart
        options = {**kwargs, "rngs": rngs}
        check_arguments(make.make, args, options, "rngs_or_key", given, _ACCEPTED)
        return rngs

    def _run(
        self, method: Callable[..., Any], rngs: Any, which: Any, args: Any, kwargs: Any
    ) -> Any:
        keys = {}  # by stream, what members' keys are split from, or the members' own keys
        for name, stream in _streams(rngs).items():
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
                f"{list(_streams(rngs))}, and `in_axes` maps no argument"
            )
        with nnx.update_context(_TAG):
            with nnx.split_context(_TAG) as context:
                given = context.split(rngs)
            return method(keys or {"": jax.random.key(0)}, *which, *args, given=given, own=kwargs)


@dataclass(frozen=True, slots=True)
class _Apart:
    """Makes one member, in parts."""

    make: Callable[..., Any]
    filters: tuple[Any, ...]  # of what members share, and the rest

    def __call__(self, keys: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TakenApart:
        given, kwargs = kwargs["given"], kwargs["own"]
        with nnx.merge_context(_TAG, inner=True) as context:
            rngs = context.merge(*given)
        streams = _streams(rngs)
        for name in streams.keys() & keys.keys():
            streams[name].key.set_value(keys[name])
            streams[name].count.set_value(jnp.zeros((), jnp.uint32))
        model = self.make(*args, rngs=rngs, **kwargs)
        used = {n: s.count.get_value() for n, s in streams.items() if n not in keys}
        with nnx.split_context(_TAG) as context:
            graphdef, *shared, own = context.split(model, *self.filters)
        if shared and not jax.tree_util.tree_leaves(shared):
            raise ValueError(
                "`shared` selects none of the model's variables; it has "
                f"{', '.join('.'.join(map(str, path)) for path, _ in nnx.to_flat_state(own))}"
            )
        if jax.tree_util.tree_leaves(shared):
            single = nnx.merge(*given)
            stacks = [name for name, stream in _streams(single).items() if stream.key.ndim]
            if stacks:
                raise ValueError(
                    f"`shared` variables are made with one key for all members; streams {stacks} "
                    "hold a key for each"
                )
            plain = self.make(*args, rngs=single, **kwargs)
            shared = [nnx.state(plain, self.filters[0])]
        return TakenApart(own, (shared, used), graphdef)


def _merged(taken: TakenApart) -> tuple[Any, dict[str, Any]]:
    shared, used = taken.common
    with nnx.merge_context(_TAG, inner=False) as context:
        return context.merge(taken.rest, taken.own, *shared), used


def ensemble(
    make: Callable[..., Any],
    size: int,
    *,
    in_axes: Any = None,
    only: Any = ...,
    shared: Any = None,
) -> ModuleEnsemble:
    """An ensemble of ``size`` nnx modules: all members in one module.

    Calling the result with ``(rngs, *args, **kwargs)`` equals::

        @nnx.split_rngs(splits=size, only=only)
        @nnx.vmap(in_axes=0)  # streams that are not split: None
        def members(rngs):
            return make(*args, rngs=rngs, **kwargs)

    Args:
        make: a subclass of `nnx.Module`, or any function that takes ``rngs=`` and returns one.
        size: number of members.
        in_axes: which axis of the positional arguments to map over members: None (the default)
            gives every member the same arguments.
        only: a filter of `nnx.split_rngs`: streams to split; all members get the others as
            they are.
        shared: a filter of variables that all members share, such as ``nnx.BatchStat``. They
            have no member axis, and the values that ``make(*args, rngs=rngs, **kwargs)`` gives.

    Returns:
        A `ModuleEnsemble`: call it, or use ``member``, ``members`` and ``plan``.

    Raises:
        TypeError: ``make`` is not callable, ``size`` is no integer, or a filter is none of nnx's.
        ValueError: ``size`` is not positive.

    Example:
        >>> import seedbed as sb
        >>> from flax import nnx
        >>> model = sb.adapters.nnx.ensemble(nnx.Linear, 100)(nnx.Rngs(0), 8, 16)
        >>> model.kernel.shape
        (100, 8, 16)
    """
    return ModuleEnsemble(make, size, in_axes, only, shared)


def forward(
    module: Any, /, *inputs: Any, in_axes: Any = None, shared: Any = None, **kwargs: Any
) -> Any:
    """All members' outputs, ``nnx.vmap`` of the module: a leading member axis on each.

    What members write (batch statistics, counts of streams) stays in the module. Streams without
    a member axis, of a model that keeps the caller's rngs, are split for the call.

    Args:
        module: made by `ensemble`, or by ``nnx.vmap``.
        *inputs: of one member, the same for all unless ``in_axes`` maps them.
        in_axes: None, an axis, or one entry for each input.
        shared: the variables without a member axis, as for `ensemble`.
        **kwargs: of the module's call, the same for all members.

    Raises:
        ValueError: ``module`` has no member axis, or ``in_axes`` does not fit the inputs.

    Example:
        >>> import jax.numpy as jnp, seedbed as sb
        >>> from flax import nnx
        >>> model = sb.adapters.nnx.ensemble(nnx.Linear, 100)(nnx.Rngs(0), 8, 16)
        >>> sb.adapters.nnx.forward(model, jnp.ones((5, 8))).shape
        (100, 5, 16)
    """
    for value, name in ((module, "module"), (inputs, "inputs"), (in_axes, "in_axes")):
        check.finite(value, name)
    if isinstance(in_axes, (tuple, list)):
        if len(in_axes) != len(inputs):
            raise ValueError(f"`in_axes` has {len(in_axes)} entries for {len(inputs)} inputs")
        axes = tuple(in_axes)
    else:
        axes = (in_axes,) * len(inputs)
    kept = _filter(shared, "shared")
    size = _members(module, kept)

    def call(module: Any, *inputs: Any) -> Any:
        return module(*inputs, **kwargs)

    parts: Any = {kept: None, ...: 0}
    mapped = nnx.vmap(call, in_axes=(nnx.StateAxes(parts), *axes))
    with nnx.split_rngs(module, splits=size, only=_single_streams(kept)):
        return mapped(module, *inputs)


def unstack(module: Any, shared: Any = None) -> list[Any]:
    """The members as plain modules of their own; shared variables are copied into each.

    Args:
        module: made by `ensemble`, or by ``nnx.vmap``; it stays as it is.
        shared: the variables without a member axis, as for `ensemble`.

    Raises:
        ValueError: ``module`` has no member axis.

    Example:
        >>> import seedbed as sb
        >>> from flax import nnx
        >>> model = sb.adapters.nnx.ensemble(nnx.Linear, 3)(nnx.Rngs(0), 8, 16)
        >>> [one.kernel.shape for one in sb.adapters.nnx.unstack(model)]
        [(8, 16), (8, 16), (8, 16)]
    """
    kept = _filter(shared, "shared")
    size = _members(check.finite(module, "module"), kept)
    module = nnx.clone(module)
    nnx.split_rngs(module, splits=size, only=_single_streams(kept))
    parts: Any = nnx.split(module, kept, ...)
    graphdef, common, own = parts
    leaves, tree = jax.tree_util.tree_flatten(own)
    return [
        # Merging takes the variables as they are: new ones for each module.
        nnx.merge(
            graphdef,
            jax.tree.map(lambda leaf: leaf, common),
            jax.tree_util.tree_unflatten(tree, row),
        )
        for row in zip(*map(list, leaves), strict=True)
    ]


def _members(module: Any, kept: Callable[..., bool]) -> int:
    """The number of members of a module."""
    if isinstance(module, (int, float, str, jax.Array, type)):
        raise TypeError(f"`module` must be an nnx.Module; got one of type {type(module).__name__}")
    single = _single_streams(kept)
    lengths: dict[str, Any] = {}
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        if not kept(path, variable) and not single(path, variable):
            shape = jnp.shape(
                variable.get_value() if isinstance(variable, nnx.Variable) else variable
            )
            lengths[".".join(map(str, path))] = shape[0] if shape else None
    if len(set(lengths.values())) != 1 or None in lengths.values():
        some = dict(list(lengths.items())[:8])
        raise ValueError(
            "`module` must have a member axis of one length on all variables that are not "
            f"`shared`; got the lengths {some}"
        )
    return int(next(iter(lengths.values())))


def _single_streams(kept: Callable[..., bool]) -> Callable[..., bool]:
    def single(path: Any, variable: Any) -> bool:
        return isinstance(variable, nnx.RngState) and not variable.ndim and not kept(path, variable)

    return single


def _streams(rngs: Any) -> dict[str, Any]:
    return {
        ".".join(map(str, path)): node
        for path, node in nnx.iter_graph(rngs)
        if isinstance(node, nnx.RngStream)
    }


def _rngs(given: Any) -> Any:
    if isinstance(given, nnx.Rngs):
        for name, stream in _streams(given).items():
            if stream.key.ndim:
                raise ValueError(
                    f"stream {name!r} of the nnx.Rngs is split already, its keys have shape "
                    f"{stream.key.shape}; give the keys themselves, {{{name!r}: keys}}"
                )
        return given
    if isinstance(given, (int, jax.Array, Mapping)):
        return nnx.Rngs(check.finite(given, "rngs_or_key"))
    raise TypeError(
        f"`rngs_or_key` must be {_ACCEPTED}; got {given!r} of type {type(given).__name__}"
    )


def _filter(given: Any, name: str) -> Callable[..., bool]:
    filters.check_end(given)
    try:
        predicate: Callable[..., bool] = nnx.filterlib.to_predicate(given)
    except (TypeError, ValueError):
        raise TypeError(
            f"`{name}` must be a filter of nnx: a type of variables, a tag, a function "
            f"(path, variable) -> bool, True or ..., False or None, or a tuple of filters; got "
            f"{given!r} of type {type(given).__name__}"
        ) from None
    return predicate
