"""Calls on every node of a module tree, for one model or for all members of an ensemble."""

from __future__ import annotations

import inspect
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np

from .. import _compat, filters
from . import _draft, _members, _traverse
from ._commit import commit, settle
from ._draft import UNSET, Draft, Refused
from ._inputs import inputs_of, states_by_axis
from ._keys import Keys, reserved
from ._traverse import Path

T = TypeVar("T")

MAX_ORDER = 10
_IF_NOT_EXIST = ("raise", "pass", "none", "warn")


def call_order(
    level: int = 0, check_order_boundary: bool = True
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: when a method runs in a collective call.

    Methods without it run first, in traversal order (children before parents); then those
    with it, by ascending level, ties in traversal order.

    Args:
        level: 0 to 9.
        check_order_boundary: whether to refuse other levels.

    Raises:
        ValueError: the level is outside of 0 to 9, and that is checked.
        TypeError: the level is not a number.
    """
    if not isinstance(level, (int, float, np.integer, np.floating)):
        raise TypeError(f"`level` must be an integer; got {level!r} of type {type(level).__name__}")
    if check_order_boundary and not 0 <= level < MAX_ORDER:
        raise ValueError(f"`level` must be an integer in [0, {MAX_ORDER}), got {level}")

    def mark(method: Callable[..., Any]) -> Callable[..., Any]:
        method.call_order = level  # type: ignore[attr-defined]
        return method

    return mark


# --- what to call -----------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Methods:
    """A method of every node of a tree, in the order to call them, with the arguments."""

    target: Any
    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    calls: tuple[tuple[Path, Callable[..., Any]], ...]

    @property
    def initialises(self) -> bool:
        return self.name == "init_state"

    def __call__(self, keys: Keys, further: tuple[Any, ...] = ()) -> None:
        del further
        for path, method in self.calls:
            with keys.using(path):
                method(*self.args, **self.kwargs)


def methods(
    target: Any,
    fn_name: Any,
    args: Any,
    kwargs: Any,
    node_to_exclude: Any,
    fn_if_not_exist: Any = "raise",
) -> Methods:
    """Checks the arguments of a collective call and finds what to call, calling nothing."""
    if not isinstance(fn_name, str):
        raise TypeError(
            f"`fn_name` must be a string, the name of a method; got {fn_name!r} of type "
            f"{type(fn_name).__name__}"
        )
    if not isinstance(args, tuple):
        args = (args,)
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(
            f"`kwargs` must be a mapping of keyword arguments; got {kwargs!r} of type "
            f"{type(kwargs).__name__}"
        )
    if fn_if_not_exist not in _IF_NOT_EXIST:
        raise ValueError(
            f"`fn_if_not_exist` must be one of {', '.join(map(repr, _IF_NOT_EXIST))}; got "
            f"{fn_if_not_exist!r}"
        )
    excluded = filters.to_predicate(node_to_exclude)
    _traverse.check_target(target)
    unordered, ordered = [], []
    for path, node in _traverse.walk(target).nodes.items():
        if excluded(path, node):
            continue
        method = _method(path, node, fn_name, fn_if_not_exist)
        if method is None:
            continue
        level = getattr(method, "call_order", None)
        if level is None:
            unordered.append((path, method))
        else:
            ordered.append((level, (path, method)))
    ordered.sort(key=lambda entry: entry[0])
    calls = (*unordered, *(entry for _, entry in ordered))
    return Methods(target, fn_name, args, kwargs or {}, calls)


def _method(path: Path, node: Any, name: str, if_not_exist: str) -> Callable[..., Any] | None:
    missing = object()
    # Looked up without running properties, whose own errors are not "no such method".
    static = inspect.getattr_static(node, name, missing)
    if static is missing and not hasattr(node, name):
        message = f"{type(node).__name__} at path {path} has no method {name!r}"
        if if_not_exist == "raise":
            raise AttributeError(message)
        if if_not_exist == "warn":
            warnings.warn(f"{message}; it is skipped", UserWarning, stacklevel=5)
        return None
    method: Any = getattr(node, name)
    if not callable(method):
        raise TypeError(
            f"{name!r} of {type(node).__name__} at path {path} must be a method; got {method!r} "
            f"of type {type(method).__name__}"
        )
    return method  # type: ignore[no-any-return]


def check_axis_size(value: Any) -> int:
    """A positive number of members.

    Raises:
        ValueError: it is anything else.
    """
    number = None
    if not isinstance(value, (bool, np.bool_, np.ndarray, jax.Array)):
        try:
            number = operator.index(value)
        except TypeError:
            pass
    if number is None or number <= 0:
        what = "a traced value" if _compat.is_tracer(value) else repr(value)
        raise ValueError(
            f"axis_size must be a positive integer, got {what} of type {type(value).__name__}"
        )
    return number


# --- one model --------------------------------------------------------------------------


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
    with reserved() as key:
        _call_once(found, key)
    return target


def _call_once(found: Methods, key: Any, publish: bool = True) -> dict[Path, Any]:
    """Calls the methods for a single model; returns the values written, by path."""
    outer = _draft.current()
    draft = Draft(members=outer is not None and outer.members)
    with _draft.transaction(draft):
        tree = _start(draft, found.target)
        if found.initialises:
            for path, state in tree.states.items():
                content = _draft.content(state)
                if content.mapped:
                    why = (
                        f"the state {_traverse.dotted(path)!r} holds {content.mapped[0].size} "
                        "members, and is read while a single model is initialised"
                    )
                    draft.contents[id(state)] = content._replace(value=Refused(why, True))
        keys = Keys(key)
        with _draft.active(draft):
            found(keys)
            _members._draw_created(draft, found.target, keys)
            after = _traverse.walk(found.target).states
            written = {
                path: state.value for path, state in after.items() if id(state) in draft.written
            }
        if publish:
            settle(draft, found.target, found.initialises)
        else:
            draft.restore_containers()
    return written


def init_all_states(
    target: T, *init_args: Any, node_to_exclude: Any = None, **init_kwargs: Any
) -> T:
    """Initialises every node of a module tree: calls ``init_state`` (see `call_all_fns`).

    A module of several members becomes a single model again, in the same `State` objects.
    """
    return call_all_fns(target, "init_state", init_args, init_kwargs, node_to_exclude)


def reset_all_states(
    target: T, *reset_args: Any, node_to_exclude: Any = None, **reset_kwargs: Any
) -> T:
    """Calls ``reset_state`` on every node of a module tree (see `call_all_fns`)."""
    return call_all_fns(target, "reset_state", reset_args, reset_kwargs, node_to_exclude)


# --- all members ------------------------------------------------------------------------


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
    _call_members(found, size, state_tag=state_tag)
    return target


def vmap_init_all_states(
    target: T,
    *init_args: Any,
    axis_size: int | None = None,
    node_to_exclude: Any = None,
    state_to_exclude: Any = None,
    state_tag: str | None = None,
    in_states: Any = None,
    out_states: Any = None,
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

    Returns:
        ``target``.

    Raises:
        ValueError: ``axis_size`` is not a positive integer, or disagrees with a state.
        TypeError: a filter or ``target`` is of the wrong type.
        MemoryError: the states would not fit into this machine's memory.

    Example:
        >>> import seedbed as sb
        >>> net = sb.nn.Linear(10, 20)
        >>> net.weight.shape
        (20, 10)
        >>> net = sb.nn.vmap_init_all_states(net, axis_size=8)
        >>> net.weight.shape
        (8, 20, 10)
    """
    size = check_axis_size(axis_size)
    found = methods(target, "init_state", init_args, init_kwargs, node_to_exclude)
    _call_members(found, size, state_to_exclude, state_tag, in_states, out_states)
    return target


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


def _start(draft: Draft, target: Any) -> _traverse.Tree:
    tree = _traverse.walk(target)
    draft.containers = [(container, container.copy()) for container in tree.containers]
    return tree


def _call_members(
    found: Methods,
    size: int,
    state_to_exclude: Any = None,
    state_tag: Any = None,
    in_states: Any = None,
    out_states: Any = None,
) -> None:
    with reserved() as key:
        draft = Draft(members=True)
        with _draft.transaction(draft):
            job, axes = _recorded(
                found, draft, key, size, state_to_exclude, in_states, out_states
            )
            run = _members.nested if _nested(draft) else _members.fused
            _, values = job.run(key, run)
            commit(job, values, axes, found.target, found.initialises, state_tag)


def _nested(draft: Draft) -> bool:
    return draft.outer is not None and draft.outer.members


def _recorded(
    found: Methods,
    draft: Draft,
    key: Any,
    size: int,
    state_to_exclude: Any,
    in_states: Any,
    out_states: Any,
) -> tuple[_members.Members, dict[int, int]]:
    exclude = None if state_to_exclude is None else filters.to_predicate(state_to_exclude)
    inputs_given = states_by_axis(in_states, "in_states")
    outputs_given = states_by_axis(out_states, "out_states")
    tree = _start(draft, found.target)
    paths = {id(state): path for path, state in tree.states.items()}
    inputs = inputs_of(draft, tree.states.values(), inputs_given, size, paths, found.initialises)
    job = _members.Members(draft, size, inputs)
    job.record(found, key, target=found.target, exclude=exclude)
    axes = {id(item.state): item.axis for item in inputs}
    axes |= {id(state): axis for state, axis in outputs_given}
    return job, axes


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
    draft = Draft(members=True)
    with _draft.transaction(draft):
        key = jax.random.key(0)
        job, _ = _recorded(found, draft, key, size, state_to_exclude, in_states, None)
        draft.restore_containers()
        return job.plan(key)


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
        written = _call_once(found, key, publish=False)
        names = _traverse.dotted_paths(written)
        return {name: written[path] for name, path in names.items()}

    return init


def assign_state_values(
    target: Any, *state_by_abs_path: Mapping[Any, Any]
) -> tuple[list[Any], list[Any]]:
    """Sets the values of states by path, all or nothing.

    Args:
        target: a module, or a list, tuple or dict of modules.
        *state_by_abs_path: mappings from path to value; later ones win. A path is a tuple, as
            `Module.states` has it, or its dotted form, ``"layers.0.weight"``.

    Returns:
        The paths given that the tree does not have, and those of the tree that were not given,
        both written as the given ones are.

    Raises:
        TypeError: a mapping is of another type.
        ValueError: a value has another structure or other shapes than the state's.
    """
    _traverse.check_target(target)
    given: dict[Any, Any] = {}
    for mapping in state_by_abs_path:
        if not isinstance(mapping, Mapping):
            raise TypeError(
                f"`state_by_abs_path` must be mappings from paths to values; got {mapping!r} of "
                f"type {type(mapping).__name__}"
            )
        given.update(mapping)
    draft = Draft(members=False)
    outer = _draft.current()
    draft.members = outer is not None and outer.members
    with _draft.transaction(draft):
        states = _traverse.walk(target).states
        names = _traverse.dotted_paths(states)
        by_tuple = any(isinstance(path, tuple) for path in given)
        unexpected, assigned = [], set()
        with _draft.active(draft):
            for path, value in given.items():
                known = path if isinstance(path, tuple) else names.get(path)
                if known not in states:
                    unexpected.append(path)
                    continue
                _check_same(known, states[known], value)
                states[known].value = value
                assigned.add(known)
        draft.publish()
    missing = [path for path in states if path not in assigned]
    return unexpected, missing if by_tuple else [_traverse.dotted(path) for path in missing]


def _check_same(path: Any, state: Any, value: Any) -> None:
    def shapes(tree: Any) -> tuple[Any, list[Any]]:
        leaves, structure = jax.tree.flatten(tree)
        return structure, [np.shape(leaf) for leaf in leaves]

    content = _draft.content(state)
    has = content.value
    if has is UNSET:
        expected: Any = (jax.tree.structure(0), [state.shape])
    else:
        expected = shapes(has)
    if shapes(value) != expected:
        raise ValueError(
            f"`state_by_abs_path` has a value of structure and shapes {shapes(value)} for "
            f"{_traverse.dotted(path)!r}, whose own are {expected}"
        )
