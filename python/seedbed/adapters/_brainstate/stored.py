"""Members of brainstate modules on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import jax
import numpy as np

from ..._ensemble import held, saving
from ..._run.members import indexed
from ..._store import saved as stores
from .ensemble import batched_states, size_of
from .roots import unchanged_on_failure

if TYPE_CHECKING:
    from ..._store.saved import Saved

T = TypeVar("T")


def save_members(
    target: Any,
    path: Any,
    *,
    axis_size: None = None,
    states: Any = None,
    chunk_size: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    part: tuple[int, int] | None = None,
) -> Saved | None:
    """Writes the values that a module's states hold for all members, trained or not, to disk.

    Args:
        target: a module whose states have a leading member axis.
        axis_size: None: members are there already.
        path, chunk_size, progress, overwrite, part: as for the method ``save`` of
            `seedbed.ensemble`.
        states: filter of the states that hold members, as for `unstack`; others are not written.

    Returns:
        The members on disk, as `seedbed.load` gives them: a dictionary of values by the paths of
        their states. None while other parts are missing.

    Raises:
        TypeError: ``target`` is not a brainstate module.
        ValueError: the states do not have one number of members, or ``axis_size`` is given.
        FileExistsError, StoreError, ImportError, OSError: see ``save``.

    Example:
        >>> import brainstate, os, seedbed as sb, tempfile
        >>> path = os.path.join(tempfile.mkdtemp(), "nets")
        >>> make = sb.adapters.brainstate.ensemble(lambda: brainstate.nn.Linear(2, 6), 100)
        >>> saved = sb.adapters.brainstate.save_members(make(0), path, progress=False)
        >>> net = sb.adapters.brainstate.load_members(brainstate.nn.Linear(2, 6), path, 17)
        >>> net.weight.value["weight"].shape
        (2, 6)
    """
    if axis_size is not None:
        raise ValueError(
            f"members of brainstate modules are not made on their way to disk; got axis_size="
            f"{axis_size!r}. Make them before, by vmap_init_all_states or seedbed.adapters."
            "brainstate.ensemble"
        )
    order = saving.ordered(path, chunk_size, progress, overwrite, part)
    found = batched_states(target, states)
    size = size_of(found)
    values = {_dotted(at): state.value for at, state in found.items()}
    axes = jax.tree.map(lambda _: 0, values)
    return held.save(order, values, axes, size, type(target).__qualname__)


def load_members(target: T, path: Any, index: Any = None, *, states: Any = None) -> T:
    """Gives a module's states the values of members on disk; all or nothing.

    Args:
        target: a module as it was saved, for all members or a single one.
        path: of the store, as `seedbed.load` takes it.
        index: None for all members, or a slice, a list or an array of integers for these, stacked
            in front; an integer for one, of which ``target`` becomes a single module.
        states: as for `save_members`; other states stay as they are.

    Returns:
        ``target``.

    Raises:
        TypeError: ``target`` is not a brainstate module, or ``index`` is of another type.
        IndexError: ``index`` is out of range.
        ValueError: the store holds other states, or a state of another structure, shape or dtype.
        FileNotFoundError, StoreError, ImportError: see `seedbed.load`.
    """
    found = {_dotted(at): state for at, state in batched_states(target, states).items()}
    store = stores.load(path)
    stored, where = store.shapes, str(store.path)
    if not isinstance(stored, dict):
        raise ValueError(f"{where!r} holds no states of modules by their paths")
    if different := [*(found.keys() - stored.keys()), *(stored.keys() - found.keys())]:
        name = min(different)
        has = "`target` has" if name in found else f"{where!r} holds"
        raise ValueError(
            f"{has} the state {name!r}, which the other lacks; `states=` says which states hold "
            "members"
        )
    like = {name: found[name].value for name in stored}
    store = stores.load(path, like=like)
    for name, member in store.shapes.items():
        pairs = zip(jax.tree.leaves(like[name]), jax.tree.leaves(member), strict=True)
        for leaf, there in pairs:
            shape = np.shape(leaf)
            if there.shape not in (shape, shape[1:]) or there.dtype != leaf.dtype:
                raise ValueError(
                    f"the state {name!r} is {leaf.dtype} of shape {shape}, and a member on disk "
                    f"{there.dtype} of shape {there.shape}"
                )
    chosen, single = indexed(slice(None) if index is None else index, store.size)
    if not single and not chosen.count:
        raise ValueError(f"`index` picks no member: got {index!r}")

    def run() -> None:
        read = store[slice(None) if index is None else index]
        for name, value in read.items():
            found[name].restore_value(value)

    unchanged_on_failure(target, run)
    return target


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))
