"""`vmap` runs functions of modules over their members; `vmap_new_states` makes states in one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from ..._base.pickling import Made
from ..._ensemble import check
from .._tree import Draft, State, as_tags, transacted, walk
from . import foreign, members
from . import loop as _loop
from .arguments import agreed, take_apart
from .excluded import refuse_draws
from .inputs import Start, common_inputs, gathered, own_inputs, states_by_axis
from .keys import Keys, call_key
from .methods import check_axis_size
from .publish import check_axes, publish_members
from .trace import Fixed, Traced, trace_call
from .unmatched import Asked


def vmap(
    fn_or_module: Callable[..., Any],
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    in_states: Any = None,
    out_states: Any = None,
    axis_size: int | None = None,
    chunk_size: int | None = None,
    loop: bool = False,
) -> Callable[..., Any]:
    """Runs a module, or a function of modules, over the members.

    Every member reads and writes its own values of the states that hold members: those of the
    module (or of the module whose method this is, or of modules among the arguments) and those
    given in ``in_states``. `seedbed.random.next_key` hands every member its own keys.

    Args:
        fn_or_module: the module to call, or a function.
        in_axes: as for `jax.vmap`; None gives every member the same arguments, and leaves
            Python's numbers what they are. Keyword arguments, and leaves that are not arrays,
            are the same for all members.
        out_axes: as for `jax.vmap`; None for a result that is the same for all members.
        in_states: further states whose values are mapped: a state, several, or
            ``{axis: states}``.
        out_states: states without members that the function gives a value per member, in the
            same form.
        axis_size: number of members, where no state and no argument tells.
        chunk_size: how many members to run at once; all by default.
        loop: run one member after the other, where batched operations are the slower way.

    Returns:
        A function of the same arguments, whose results have a member axis. It works under
        `jax.jit` and `jax.grad` on modules that `merge` made there.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: numbers of members disagree, or a state without members would get another
            value from each; raised by the returned function, with nothing changed.

    Example:
        >>> import jax.numpy as jnp, seedbed as sb
        >>> net = sb.nn.vmap_init_all_states(sb.nn.Linear(3, 2), axis_size=5)
        >>> sb.nn.vmap(net, in_axes=None)(jnp.ones(3)).shape
        (5, 2)
        >>> sb.nn.vmap(net)(jnp.ones((5, 7, 3))).shape
        (5, 7, 2)
    """
    if not callable(fn_or_module):
        raise TypeError(
            f"`fn_or_module` must be a function or a module with __call__; got {fn_or_module!r} "
            f"of type {type(fn_or_module).__name__}"
        )
    if axis_size is not None:
        axis_size = check_axis_size(axis_size)
    if chunk_size is not None:
        chunk_size = check.size(chunk_size, "chunk_size")
    if not isinstance(loop, bool):
        raise TypeError(f"`loop` must be True or False; got {loop!r} of type {type(loop).__name__}")
    if loop and chunk_size is not None:
        raise ValueError("`loop` runs one member at a time, and `chunk_size` several; give one")
    given = states_by_axis(in_states, "in_states")
    out = states_by_axis(out_states, "out_states")
    fn = fn_or_module
    owner = fn if isinstance(fn, walk.Node) else getattr(fn, "__self__", None)

    def run(*args: Any, **kwargs: Any) -> Any:
        arguments = take_apart(args, in_axes)
        modules = [owner, *arguments.modules, *kwargs.values()]
        modules = [module for module in modules if isinstance(module, walk.Node)]
        target = modules[0] if len(modules) == 1 else modules
        tree = walk.walk(target)
        sizes = [("axis_size", axis_size)] if axis_size is not None else []
        for path, state in tree.states.items():
            if state.members is not None:
                sizes.append((f"the state {walk.dotted(path)!r}", state.members))
        sizes += _lengths(given)
        size = agreed([*sizes, *arguments.sizes], "vmap", bool(modules))
        draft = Draft(for_member=True)

        def call() -> Any:
            key = call_key()
            draft.remember(tree.containers, tree.nodes.values())
            own = own_inputs(draft, tree, given, size)
            taken = {id(item.state) for item in own}
            common = common_inputs(s for s in tree.states.values() if id(s) not in taken)
            inputs = gathered(size, [*own, *common], arguments)
            axes = {id(state): axis for state, axis in (*inputs.own, *out)}
            traced = trace_call(
                lambda keys, rebuilt: _with_keys(keys, fn, rebuilt, kwargs),
                draft,
                Start(target, tree),
                inputs,
                key,
                exclude=lambda path, state: not (id(state) in axes or draft.made(state)),
            )
            refuse_draws(traced)
            check_axes(traced, axes)
            leaves, values = members.run(traced, _way(draft, chunk_size, loop))
            result = _placed(traced, leaves, out_axes)
            publish_members(draft, traced, values, axes, target)
            return result

        return transacted(draft, call)

    options = {
        "in_axes": in_axes,
        "out_axes": out_axes,
        "in_states": in_states,
        "out_states": out_states,
        "axis_size": axis_size,
        "chunk_size": chunk_size,
        "loop": loop,
    }
    return Made(run, fn, (vmap, (fn,), options))


def vmap_new_states(
    fun: Callable[..., Any] | None = None,
    *,
    in_axes: Any = 0,
    out_axes: Any = 0,
    axis_name: Any = None,
    axis_size: int | None = None,
    spmd_axis_name: Any = None,
    state_tag: str | None = None,
    state_to_exclude: Any = None,
    in_states: Any = None,
    out_states: Any = None,
) -> Callable[..., Any]:
    """Runs a function that makes states for all members at once; also a decorator.

    The states made, and those that an initialisation inside the function writes, get a member
    axis; other states must not be written, unless they are in ``out_states``.

    Args:
        fun: the function; it runs once for each call, under an abstract trace.
        in_axes, out_axes, axis_name, axis_size, spmd_axis_name: as for `jax.vmap`.
        state_tag: tag for the states made.
        state_to_exclude: filter of the states made that all members share.
        in_states, out_states: existing states that members read and write values of their own
            of: a state, several, or ``{axis: states}``.

    Raises:
        ValueError: ``axis_size`` is not a positive integer, members disagree, or a state that
            was there before is written.
        TypeError: an argument is of the wrong type; keyword arguments are not taken.

    Example:
        >>> import jax, jax.numpy as jnp, seedbed as sb
        >>> @sb.nn.vmap_new_states(axis_size=4)
        ... def build(x):
        ...     noise = sb.nn.State(x + jax.random.normal(sb.random.next_key(), (3,)))
        ...     return noise.value
        >>> build(jnp.arange(4.0)).shape
        (4, 3)
    """
    options: dict[str, Any] = {
        "in_axes": in_axes,
        "out_axes": out_axes,
        "axis_name": axis_name,
        "axis_size": axis_size,
        "spmd_axis_name": spmd_axis_name,
        "state_tag": state_tag,
        "state_to_exclude": state_to_exclude,
        "in_states": in_states,
        "out_states": out_states,
    }
    if fun is None:
        return functools.partial(vmap_new_states, **options)
    if not callable(fun):
        raise TypeError(f"`fun` must be a function; got {fun!r} of type {type(fun).__name__}")
    brainstate = foreign.reached(fun)
    if brainstate is not None:
        return cast(Callable[..., Any], brainstate.vmap_new_states(fun, **options))
    if axis_size is not None:
        axis_size = check_axis_size(axis_size)
    keep = None if state_to_exclude is None else walk.predicate(state_to_exclude)
    as_tags(state_tag)
    given = states_by_axis(in_states, "in_states")
    out = states_by_axis(out_states, "out_states")
    function = fun

    def run(*args: Any) -> Any:
        arguments = take_apart(args, in_axes)
        sizes = [("axis_size", axis_size)] if axis_size is not None else []
        sizes += _lengths(given)
        size = agreed([*sizes, *arguments.sizes], "vmap_new_states")
        draft = Draft(for_member=True)

        def call() -> Any:
            key = call_key()
            inputs = gathered(size, own_inputs(draft, walk.Tree(), given, size), arguments)
            axes = {id(state): axis for state, axis in (*inputs.own, *out)}
            exclude = None if keep is None else Asked(keep, state_to_exclude, "state_to_exclude")
            named = members.named_axis(axis_name, spmd_axis_name)
            traced = trace_call(
                lambda keys, rebuilt: _with_keys(keys, function, rebuilt, {}),
                draft,
                Start(None, walk.Tree()),
                inputs,
                key,
                exclude=exclude,
                axis_name=axis_name,
            )
            if exclude is not None:
                exclude.warn_if_unmatched()
            _check_preexisting(draft, axes)
            check_axes(traced, axes)
            leaves, values = members.run(traced, named or _way(draft))
            result = _placed(traced, leaves, out_axes)
            publish_members(draft, traced, values, axes, None, state_tag)
            return result

        return transacted(draft, call)

    return Made(run, fun, (vmap_new_states, (fun,), options))


def _with_keys(keys: Keys, fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    with keys.using(None):
        return fn(*args, **kwargs)


def _way(draft: Draft, chunk_size: int | None = None, loop: bool = False) -> members.Way:
    if draft.nested:
        return members.nested
    if loop or chunk_size is not None:
        return functools.partial(_loop.looped, chunk_size)
    return members.fused


def _check_preexisting(draft: Draft, allowed: Collection[int]) -> None:
    for state in draft.unexpected(allowed):
        raise ValueError(
            f"vmap_new_states gives members to the states that it makes; {state._name()} was there "
            "before and is written. List it in `out_states`, or use `seedbed.nn.vmap`"
        )


def _lengths(given: list[tuple[State, int]]) -> list[tuple[str, int]]:
    """How many members each of the ``in_states`` has; those without a leaf say nothing."""
    lengths = []
    for state, axis in given:
        if not state.initialized:
            raise ValueError(f"`in_states` has the state {state._name()}, which has no value yet")
        for leaf in jax.tree.leaves(state.value)[:1]:
            shape = np.shape(leaf)
            if not -len(shape) <= axis < len(shape):
                raise ValueError(
                    f"`in_states` maps axis {axis} of the state {state._name()}, which has none"
                )
            lengths.append((state._name(), shape[axis]))
    return lengths


def _placed(traced: Traced, leaves: list[Any], out_axes: Any) -> Any:
    """The result with its member axes where they are asked for."""
    spread = check.spread(out_axes, traced.result_tree.unflatten(leaves), "out_axes")
    placed = []
    dependent: set[int] | None = None
    position = 0
    for leaf, axis in zip(leaves, spread, strict=True):
        if isinstance(leaf, Fixed):
            placed.append(leaf.value)
            continue
        if axis is None:
            dependent = traced.dependent() if dependent is None else dependent
            if position in dependent:
                raise ValueError(
                    "`out_axes` is None for a result that differs from member to member"
                )
            placed.append(leaf[0])
        else:
            placed.append(_moved(leaf, axis))
        position += 1
    return traced.result_tree.unflatten(placed)


def _moved(leaf: Any, axis: Any) -> Any:
    if isinstance(axis, bool) or not isinstance(axis, (int, np.integer)):
        raise TypeError(
            f"`out_axes` must consist of integers and None; got {axis!r} of type "
            f"{type(axis).__name__}"
        )
    if not -leaf.ndim <= axis < leaf.ndim:
        raise ValueError(
            f"`out_axes` puts the members at axis {axis} of a result that has {leaf.ndim} axes "
            "with that of the members"
        )
    return leaf if axis == 0 else jnp.moveaxis(leaf, 0, int(axis))
