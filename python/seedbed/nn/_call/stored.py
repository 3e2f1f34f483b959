"""Members of module trees on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from ..._ensemble import within
from ..._jax import paths
from ..._run.members import indexed
from .._tree import (
    UNSET,
    Content,
    Draft,
    MemberAxis,
    State,
    content_of,
    declared_dtype,
    members_of,
    transacted,
    walk,
)
from .calls import trace_members
from .foreign import takes_brainstate
from .keys import call_key
from .methods import Methods, check_axis_size, methods
from .publish import publish_contents

if TYPE_CHECKING:
    from ..._ensemble.saving import Order
    from ..._store.saved import Saved

T = TypeVar("T")
_Struct: Any = jax.ShapeDtypeStruct


@takes_brainstate
def save_members(
    target: Any,
    path: Any,
    *init_args: Any,
    axis_size: int | None = None,
    node_to_exclude: Any = None,
    in_states: Any = None,
    chunk_size: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    part: tuple[int, int] | None = None,
    **init_kwargs: Any,
) -> Saved | None:
    """Writes all members of a module tree to disk, as `seedbed.ensemble` and its ``save`` do.

    Without ``axis_size``: the values that the states hold, trained or not. With it, what
    `vmap_init_all_states` would make, piece by piece, so that it need not fit into memory: the call
    consumes one key of the random stream, once it is done, and the modules stay as they are. An
    interrupted call leaves the stream as it was; where the stream is the same again, in this
    process or another, the same call goes on.

    Args:
        target: a module, or a list, tuple or dict of modules.
        path, chunk_size, progress, overwrite, part: as for the method ``save`` of ensembles.
        *init_args, **init_kwargs: arguments of every ``init_state``.
        axis_size: number of members to make.
        node_to_exclude, in_states: as for `vmap_init_all_states`.

    Returns:
        The members on disk, as `seedbed.load` gives them: a dictionary of values by the paths of
        their states. None while other parts are missing.

    Raises:
        ValueError: a state has no value, or one that all members share, which a store has no place
            for; the states hold no members; or see ``save``.
        TypeError: arguments of ``init_state`` without ``axis_size``, or see `vmap_init_all_states`.
        FileExistsError, StoreError, ImportError, OSError: see ``save``.

    Example:
        >>> import os, tempfile, seedbed as sb
        >>> path = os.path.join(tempfile.mkdtemp(), "nets")
        >>> saved = sb.nn.save_members(sb.nn.Linear(3, 2), path, axis_size=100, progress=False)
        >>> saved.paths, saved[17]["weight"].shape
        (('bias', 'weight'), (2, 3))
        >>> net = sb.nn.load_members(sb.nn.Linear(3, 2), path)
        >>> net.weight.shape
        (100, 2, 3)
    """
    from ..._ensemble import saving

    order = saving.ordered(path, chunk_size, progress, overwrite, part)
    if axis_size is None:
        if init_args or init_kwargs or node_to_exclude is not None or in_states is not None:
            raise TypeError(
                "without `axis_size` the values that the states hold are saved, and nothing is "
                "initialised; give `axis_size`, or no arguments of init_state"
            )
        walk.check_target(target)
        return _held(target, order)
    size = check_axis_size(axis_size)
    found = methods(target, "init_state", init_args, init_kwargs, node_to_exclude)
    draft = Draft(for_member=True, initialises=True)
    saved = transacted(draft, lambda: _made(found, draft, size, in_states, order))
    # Nothing of the transaction stays, its key neither: this is the same one.
    call_key()
    return saved


def _made(found: Methods, draft: Draft, size: int, in_states: Any, order: Order) -> Saved | None:
    """Members that are made on their way to disk."""
    from ..._ensemble import saving

    traced, _, _ = trace_members(found, draft, call_key(), size, None, in_states, None)
    shared = [output.path for output in traced.outputs if output.excluded]
    if shared:
        raise _shared(shared[0])
    names = walk.dotted_paths(output.path for output in traced.outputs)

    def shaped(out: Any) -> dict[str, Any]:
        values = [
            output.tree.unflatten([out[place] for place in places])
            for output, places in traced.positions()
        ]
        return dict(zip(names, values, strict=True))

    make = within.for_modules(traced.program, size, traced.inputs.axes)
    name = f"init_state of {_name(found.target)}"
    leaves = tuple(traced.inputs.leaves)
    return saving.save(make, order, traced.key, leaves, shaped, name)


def _held(target: Any, order: Order) -> Saved | None:
    """Members that are in memory."""
    from ..._ensemble import held

    states = walk.walk(target).states
    size = members_of(target, "target")
    values: dict[str, Any] = {}
    axes: dict[str, Any] = {}
    for name, path in walk.dotted_paths(states).items():
        content = content_of(states[path])
        if content.value is UNSET:
            raise ValueError(
                f"the state {name!r} has no value yet; initialise all members with "
                "vmap_init_all_states, or give `axis_size`"
            )
        if not content.mapped:
            raise _shared(path)
        _check_level(name, content)
        values[name] = content.value
        axes[name] = jax.tree.map(lambda _, at=content.mapped[0].axis: at, content.value)
    return held.save(order, values, axes, size, _name(target))


def _check_level(name: str, content: Content) -> None:
    if len(content.mapped) > 1:
        raise ValueError(
            f"the state {name!r} holds members of members, of which a store knows one level"
        )


def _shared(path: walk.Path) -> ValueError:
    return ValueError(
        f"the state {walk.dotted(path)!r} has one value that all members share, and a store holds "
        "members alone; keep it apart, or give each member its own"
    )


def _name(target: Any) -> str:
    return type(target).__qualname__


# --- reading ----------------------------------------------------------------------------


@takes_brainstate
def load_members(target: T, path: Any, index: Any = None) -> T:
    """Gives the states of a module tree the values of members on disk.

    All or nothing: after an exception the states are as before. The random stream is not touched.
    Structure, shapes and types are those that the states have, with or without members; a state
    without a value (or of None) takes what is there, unless it is declared with a shape.

    Args:
        target: a module, or a list, tuple or dict of modules, as it was saved.
        path: of the store, as `seedbed.load` takes it.
        index: None for all members, or a slice, a list or an array of integers for these, stacked
            in front; an integer for one, of which ``target`` becomes a single model.

    Returns:
        ``target``.

    Raises:
        ValueError: the store holds other states, or a state of another structure, shape or dtype.
        TypeError, IndexError: ``index`` is of another type, or out of range.
        FileNotFoundError, StoreError, ImportError: see `seedbed.load`.
    """
    from ..._store import saved as stores

    walk.check_target(target)
    states = walk.walk(target).states
    names = walk.dotted_paths(states)
    store = stores.load(path)
    stored = store.shapes
    where = str(store.path)
    if not isinstance(stored, dict):
        raise ValueError(f"{where!r} holds no states of modules by their paths")
    if missing := [name for name in names if name not in stored]:
        raise ValueError(
            f"`target` has the state {missing[0]!r}, which {where!r} lacks; it holds "
            f"{', '.join(map(repr, stored))}"
        )
    if more := [name for name in stored if name not in names]:
        raise ValueError(
            f"{where!r} holds the state {more[0]!r}, which `target` has not; modules that make "
            "their states in init_state have them after init_all_states"
        )
    contents = {name: content_of(states[path]) for name, path in names.items()}
    like: dict[str, Any] = {}
    for name, content in contents.items():
        like[name] = _like(name, content, stored[name])
    chosen, single = indexed(slice(None) if index is None else index, store.size)
    if not single and not chosen.count:
        raise ValueError(f"`index` picks no member: got {index!r}")
    store = stores.load(path, like=like)
    mapped = () if single else (MemberAxis(chosen.count, 0),)
    draft = Draft()

    def run() -> None:
        read = store[slice(None) if index is None else index]
        written: list[tuple[State, Content]] = [
            (states[names[name]], content._replace(value=read[name], mapped=mapped))
            for name, content in contents.items()
        ]
        publish_contents(draft, written, target)

    transacted(draft, run)
    return target


def _like(name: str, content: Content, stored: Any) -> Any:
    """The structure of a state's value, which has to be that of what is stored."""
    _check_level(name, content)
    value, axis = content.value, content.mapped[0].axis if content.mapped else None
    if value is UNSET and content.declared is not None:
        value = _Struct(content.declared.shape, declared_dtype(content.declared))
    if value is UNSET or value is None:
        return stored
    found, wanted = _by_name(stored), _by_name(value)
    if found.keys() != wanted.keys():
        raise ValueError(
            f"the state {name!r} is made of {', '.join(wanted)}, and what is stored of "
            f"{', '.join(found)}"
        )
    for word, leaf in wanted.items():
        shape = np.shape(leaf) if axis is None else _without(np.shape(leaf), axis)
        dtype = getattr(leaf, "dtype", None) or jnp.result_type(leaf)
        there = found[word]
        if (shape, dtype) != (tuple(there.shape), there.dtype):
            raise ValueError(
                f"the state {name!r} is {dtype} of shape {shape} in each member, and what is "
                f"stored {there.dtype} of shape {tuple(there.shape)}"
            )
    return value


def _by_name(tree: Any) -> dict[str, Any]:
    names = [word for _, word in paths.names(tree)]
    return dict(zip(names, jax.tree.leaves(tree), strict=True))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    place = axis % len(shape)
    return (*shape[:place], *shape[place + 1 :])
