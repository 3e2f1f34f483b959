"""Calls on every node of a module tree, for one model or for all members of an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..._base.pickling import Made
from ..._ensemble.check import flag
from .._tree import Draft, transacted, walk
from . import members
from .calls import call_members, call_once, trace_members
from .foreign import takes_brainstate
from .keys import dummy_key
from .methods import check_axis_size, methods

T = TypeVar("T")


@takes_brainstate
def call_all_fns(
    target: T,
    fn_name: str,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    node_to_exclude: Any = None,
    fn_if_not_exist: str = "raise",
) -> T:
    """Calls one method of every node of a module tree.

    Children before parents; methods with a `call_order` after all others, by level. All or
    nothing: after an exception, modules, states and the random stream are as before.

    Args:
        target: a module, or a list, tuple or dict of modules.
        fn_name: name of the method.
        args: positional arguments of the method; anything but a tuple is one argument.
        kwargs: keyword arguments of the method.
        node_to_exclude: filter of the nodes to leave out (their children are not).
        fn_if_not_exist: what to do with a node without the method: ``'raise'``, ``'pass'`` or
            ``'none'`` (skip it), ``'warn'`` (skip it with a warning).

    Returns:
        ``target``.

    Raises:
        TypeError: an argument is of the wrong type, or what is to be called is not callable.
        ValueError: ``fn_if_not_exist`` is not one of the four.
        AttributeError: a node has no such method.
    """
    found = methods(target, fn_name, args, kwargs, node_to_exclude, fn_if_not_exist)
    call_once(found)
    return target


@takes_brainstate
def init_all_states(
    target: T, *init_args: Any, node_to_exclude: Any = None, **init_kwargs: Any
) -> T:
    """Initialises every node of a module tree: calls ``init_state`` (see `call_all_fns`).

    A module of several members becomes a single model again, in the same `State` objects.
    """
    return call_all_fns(target, "init_state", init_args, init_kwargs, node_to_exclude)


@takes_brainstate
def reset_all_states(
    target: T, *reset_args: Any, node_to_exclude: Any = None, **reset_kwargs: Any
) -> T:
    """Calls ``reset_state`` on every node of a module tree (see `call_all_fns`)."""
    return call_all_fns(target, "reset_state", reset_args, reset_kwargs, node_to_exclude)


# --- all members ------------------------------------------------------------------------


@takes_brainstate
def vmap_call_all_fns(
    target: T,
    fn_name: str,
    args: Any = (),
    kwargs: Mapping[str, Any] | None = None,
    axis_size: int | None = None,
    node_to_exclude: Any = None,
    state_tag: str | None = None,
    fn_if_not_exist: str = "raise",
) -> T:
    """Calls one method of every node of a module tree, for ``axis_size`` members at once.

    Every member has random keys of its own, and reads its own values of states that hold
    ``axis_size`` members; what it writes gets a leading member axis. The methods run once,
    under an abstract trace, and all their draws are made by one custom call.

    Args:
        axis_size: number of members.
        state_tag: tag for the states that the call creates.
        target, fn_name, args, kwargs, node_to_exclude, fn_if_not_exist: see `call_all_fns`.

    Returns:
        ``target``.

    Raises:
        ValueError: ``axis_size`` is not a positive integer, or a state that is read holds
            another number of members.
        TypeError, AttributeError: see `call_all_fns`.
        MemoryError: the states would not fit into this machine's memory.
    """
    size = check_axis_size(axis_size)
    found = methods(target, fn_name, args, kwargs, node_to_exclude, fn_if_not_exist)
    call_members(found, size, state_tag=state_tag)
    return target


@takes_brainstate
def vmap_init_all_states(
    target: T,
    *init_args: Any,
    axis_size: int | None = None,
    node_to_exclude: Any = None,
    state_to_exclude: Any = None,
    state_tag: str | None = None,
    in_states: Any = None,
    out_states: Any = None,
    donate: bool = False,
    out_shardings: Any = None,
    **init_kwargs: Any,
) -> T:
    """Initialises every node of a module tree for ``axis_size`` members at once.

    Calls ``init_state`` as `vmap_call_all_fns` does: every state gets a leading member axis,
    and member i the numbers of its own key, which depend neither on ``axis_size`` nor on what
    else is in the tree. Initialising again replaces the values in the same `State` objects.

    Args:
        target: a module, or a list, tuple or dict of modules.
        *init_args, **init_kwargs: arguments of every ``init_state``.
        axis_size: number of members.
        node_to_exclude: filter of the nodes to leave out (their children are not).
        state_to_exclude: filter of the states that all members share: they are initialised
            once, to the value that `init_all_states` gives. A `NonBatchState` always is.
        state_tag: tag for the states that are initialised.
        in_states: states whose values every member reads its own part of: a state, several, or
            ``{axis: states}``; the axis is 0 otherwise.
        out_states: in the same form, along which axis written states hold the members.
        donate: initialise anew into the memory of the members that the states hold. Their old
            arrays are given up (jax calls them deleted), also for others who keep them, and even
            if the call then fails. Values of other shapes or types stay as they are, and so does
            everything inside of another call or a trace.
        out_shardings: how the states' values are laid out over devices, each part made where it
            lies: a sharding or a PartitionSpec, as for `seedbed.ensemble`, of all values with a
            member axis, or a mapping from filters of states to these, of which the first counts
            that a state matches. Every other state is whole on every device.

    Returns:
        ``target``.

    Raises:
        ValueError: ``axis_size`` is not a positive integer, or disagrees with a state; or a value
            cannot be laid out as ``out_shardings`` says.
        TypeError: a filter or ``target`` is of the wrong type, ``donate`` is not a bool, or
            ``out_shardings`` has something else in it than shardings.
        MemoryError: the states would not fit into this machine's memory.

    Example:
        >>> import seedbed as sb
        >>> net = sb.nn.Linear(10, 20)
        >>> net.weight.shape
        (20, 10)
        >>> net = sb.nn.vmap_init_all_states(net, axis_size=8)
        >>> net.weight.shape
        (8, 20, 10)
        >>> import jax
        >>> from jax.sharding import NamedSharding, PartitionSpec as P
        >>> split = NamedSharding(jax.make_mesh((1,), ("members",)), P("members"))
        >>> net = sb.nn.vmap_init_all_states(net, axis_size=8, out_shardings=split)
        >>> net.weight.value.sharding.spec[0]
        'members'
    """
    size = check_axis_size(axis_size)
    donate = flag(donate, "donate")
    found = methods(target, "init_state", init_args, init_kwargs, node_to_exclude)
    given = (state_to_exclude, state_tag, in_states, out_states, donate, out_shardings)
    call_members(found, size, *given)
    return target


@takes_brainstate
def vmap_reset_all_states(
    target: T,
    *reset_args: Any,
    axis_size: int | None = None,
    node_to_exclude: Any = None,
    state_tag: str | None = None,
    **reset_kwargs: Any,
) -> T:
    """Calls ``reset_state`` on every node for all members (see `vmap_call_all_fns`).

    States keep their member axis.
    """
    return vmap_call_all_fns(
        target, "reset_state", reset_args, reset_kwargs, axis_size, node_to_exclude, state_tag
    )


@takes_brainstate
def plan_init(
    target: Any,
    *init_args: Any,
    axis_size: int | None = None,
    node_to_exclude: Any = None,
    state_to_exclude: Any = None,
    in_states: Any = None,
    **init_kwargs: Any,
) -> Any:
    """What `vmap_init_all_states` with these arguments would run, as a `seedbed.Plan`.

    Neither the modules nor the random stream change. Excluded states are not in the plan.

    Example:
        >>> import seedbed as sb
        >>> plan = sb.nn.plan_init(sb.nn.Linear(10, 20), axis_size=8)
        >>> [output.path for output in plan.outputs]
        ['bias', 'weight']
    """
    size = check_axis_size(axis_size)
    found = methods(target, "init_state", init_args, init_kwargs, node_to_exclude)
    draft = Draft(for_member=True, initialises=True)

    def run() -> Any:
        key = dummy_key()
        traced, *_ = trace_members(found, draft, key, size, state_to_exclude, in_states, None)
        return members.plan(traced)

    return transacted(draft, run)


def init_function(
    target: Any, *init_args: Any, node_to_exclude: Any = None, **init_kwargs: Any
) -> Callable[[Any], dict[str, Any]]:
    """The initialisation of a module tree as a pure function ``init(key) -> {path: value}``.

    The module does not change. ``vmap_init_all_states`` with ``axis_size=N`` writes what
    ``jax.vmap(init)(jax.random.split(key, N))`` returns, with the key it takes from the random
    stream; `seedbed.ensemble` of the function gives single members and streams of them.

    Example:
        >>> import jax, seedbed as sb
        >>> init = sb.nn.init_function(sb.nn.Linear(10, 20))
        >>> init(jax.random.key(0))["weight"].shape
        (20, 10)
        >>> sb.ensemble(init, 1000).member(jax.random.key(0), 17)["bias"].shape
        (20,)
    """
    found = methods(target, "init_state", init_args, init_kwargs, node_to_exclude)

    def init(key: Any) -> dict[str, Any]:
        written = call_once(found, key)
        names = walk.dotted_paths(written)
        return {name: written[path] for name, path in names.items()}

    options = {"node_to_exclude": node_to_exclude, **init_kwargs}
    return Made(init, init, (init_function, (target, *init_args), options))
