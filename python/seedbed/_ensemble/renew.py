"""Some members drawn again, the others left as they are: `Ensemble.reinit`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.record import Record
from .._jax import compat, places
from .._run.members import Chosen, as_array
from . import check, donate, shardings
from .call import unused

if TYPE_CHECKING:
    from .ensemble import Ensemble


class Choice(Record):
    """Which members are drawn again.

    Attributes:
        chosen: those that are made; None for all, of which a traced mask takes some.
        index: where they belong, one number for each; one beyond the last member is nowhere.
        mask: one bool for each member, traced.
    """

    chosen: Chosen | None
    index: Any
    mask: Any = None

    @property
    def empty(self) -> bool:
        return self.chosen is not None and self.chosen.count == 0

    def filled(self, count: int) -> Choice:
        """The same choice as ``count`` members, of which the last come again and again."""
        if self.chosen is None or self.chosen.count == count:
            return self
        again = np.minimum(np.arange(count), self.chosen.count - 1)
        made, index = self.chosen.indices()[again], self.index[again]
        return Choice(Chosen(count, None, made), index)


def choice(index: Any, count: int) -> Choice:
    """What the user chose among ``count`` members.

    Raises:
        TypeError: ``index`` is of another type or dtype.
        ValueError: a mask has another shape than one value for each member.
        IndexError: an index is out of range.
    """
    index = as_array(index)
    array = isinstance(index, (np.ndarray, jax.Array))
    if array and index.dtype == np.bool_:
        if index.shape != (count,):
            raise ValueError(
                f"`index` is a mask of shape {index.shape} for size={count} members; a mask must "
                f"have shape ({count},)"
            )
        if compat.is_tracer(index):
            return Choice(None, None, index)
        index = np.flatnonzero(np.asarray(index))
    whole = isinstance(index, (int, np.integer)) and not isinstance(index, bool)
    numbers = array and index.ndim <= 1 and jnp.issubdtype(index.dtype, np.integer)
    if not (whole or numbers or isinstance(index, slice)):
        what = f"an array of dtype {index.dtype} and shape {index.shape}" if array else repr(index)
        raise TypeError(
            "`index` must be an integer, a slice, a one-dimensional array of integers, or a mask "
            f"of one bool for each member; got {what} of type {type(index).__name__}"
        )
    if whole or (array and index.ndim == 0):
        chosen = check.member(index, count, "index")
        if compat.is_tracer(chosen.start):
            start: Any = chosen.start
            chosen = Chosen(1, None, start[None])
    else:
        chosen = check.members(index, count)
    listed = chosen.indices()
    if not compat.is_tracer(listed):
        return Choice(chosen, listed.astype(_index_type(count)))
    # Beyond the last is nowhere, so that `jnp.nonzero(mask, size=k, fill_value=count)` may be used.
    kind, most = listed.dtype.type, int(np.iinfo(listed.dtype).max)
    made = jnp.minimum(listed, kind(count - 1))
    place = jnp.minimum(listed, kind(min(count, most))).astype(_index_type(count))
    return Choice(Chosen(chosen.count, None, made), place)


def _index_type(count: int) -> Any:
    return np.int32 if count < 1 << 31 else np.uint32


def renewed(
    make: Ensemble, params: Any, key: Any, index: Any, args: tuple[Any, ...], name: str = "params"
) -> Any:
    """See `Ensemble.reinit`."""
    check.finite(params, name)
    chosen = choice(index, make.size)
    call = make._call(key, args, chosen.chosen)
    prepared = make._prepare(call)
    layout, rows = prepared.layout, make.size
    if layout is not None:
        rows = make._padded(layout, call.whole())
        if not chosen.empty:
            # As many as the devices can share.
            count = make.size if chosen.chosen is None else chosen.chosen.count
            chosen = chosen.filled(shardings.padded(layout, count, True, "index"))
            call = call.replace(chosen=chosen.chosen)
    leading = (rows,)
    if make.donate:
        old = donate.checked(params, prepared.plan, leading, (key, args, index), name)
    else:
        old = [leaf for _, leaf in donate.alike(params, prepared.plan, leading, name)]
    for leaf, output in zip(old, prepared.plan.outputs, strict=True):
        if isinstance(leaf, jax.Array) and not compat.is_tracer(leaf) and leaf.is_deleted():
            raise ValueError(f"`{name}{output.path}` has been deleted or donated already")
    tree = jax.tree_util.tree_structure(params)
    if chosen.empty:
        return jax.tree_util.tree_unflatten(tree, [jnp.asarray(leaf) for leaf in old])
    if chosen.chosen is None and prepared.drawing.watched:
        call = unused(call)
    new = jax.tree_util.tree_leaves(make._run(call))
    return jax.tree_util.tree_unflatten(tree, put(old, new, chosen, make.donate))


def put(
    old: Sequence[Any],
    new: Sequence[Any],
    chosen: Choice,
    donated: bool,
    axes: Sequence[int] | None = None,
) -> list[Any]:
    """Members of ``new`` where they belong in ``old``.

    Args:
        old: arrays of all members.
        new: of those made, members first.
        chosen: which these are.
        donated: whether the memory of ``old`` is overwritten, where it is there by now.
        axes: of the members, in each of ``old``; the first otherwise.
    """
    along = tuple(axes or [0] * len(old))
    if chosen.chosen is None:
        return [*map(functools.partial(_selected, chosen.mask), old, new, along)]
    tracing = compat.under_trace([*old, *new, chosen.index]) or not compat.at_top()
    if tracing:
        return _set(along, list(old), list(new), jnp.asarray(chosen.index))
    lie = [_place(leaf) for leaf in old]
    new = [
        made
        if place is None or made.sharding.device_set == place.device_set
        # From one device to several, which jax does not do by itself for bound arrays.
        else jax.device_put(made, _everywhere(place))
        for made, place in zip(new, lie, strict=True)
    ]
    run = _program(along, donated, tuple(lie))
    # Sent explicitly, which jax.transfer_guard("disallow") allows.
    old = [leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf) for leaf in old]
    out: list[Any] = run(old, list(new), jax.device_put(chosen.index))
    return out


def _set(axes: tuple[int, ...], old: list[Any], new: list[Any], index: Any) -> list[Any]:
    return [*map(functools.partial(_set_one, index), old, new, axes)]


def _set_one(index: Any, old: Any, new: Any, axis: int) -> Any:
    old, new = jnp.asarray(old), jnp.moveaxis(new, 0, axis)
    options = {}
    if (sharding := places.laid_out(old)) is not None:
        # On an explicit mesh jax sends nothing by itself.
        spec: Any = [*sharding.spec, *[None] * (old.ndim - len(sharding.spec))]
        reshard: Any = jax.sharding.reshard
        parts = sharding.update(spec=[None if d == axis else x for d, x in enumerate(spec)])
        new, options = reshard(new, parts), {"out_sharding": sharding}
    at = (*[slice(None)] * axis, index)
    return old.at[at].set(new, mode="drop", **options)


def _selected(mask: Any, old: Any, new: Any, axis: int) -> Any:
    old = jnp.asarray(old)
    if mask.shape[0] != old.shape[axis]:  # those beyond, where the ensemble is padded, stay
        mask = jnp.pad(mask, (0, old.shape[axis] - mask.shape[0]))
    shape = [1] * old.ndim
    shape[axis] = -1
    mask = jnp.broadcast_to(mask.reshape(shape), old.shape)
    return jnp.where(mask, jnp.moveaxis(new, 0, axis), old)


def _place(leaf: Any) -> Any:
    """Where an array lies, if that is on several devices."""
    if isinstance(leaf, jax.Array) and len(leaf.sharding.device_set) > 1:
        return leaf.sharding
    return None


def _everywhere(place: Any) -> Any:
    spec: Any = jax.sharding.PartitionSpec
    if isinstance(place, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(place.mesh, spec())
    return place


@functools.lru_cache(maxsize=64)
def _program(axes: tuple[int, ...], donated: bool, places: tuple[Any, ...]) -> Callable[..., Any]:
    return jax.jit(
        functools.partial(_set, axes),
        donate_argnums=(0,) if donated else (),
        out_shardings=list(places) if any(place is not None for place in places) else None,
    )
