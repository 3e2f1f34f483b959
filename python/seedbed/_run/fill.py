"""The draws of a plan as one primitive of jax: what makes them is decided where it is lowered.

On CPUs and NVIDIA GPUs that is the native call. `jax.export` gets jax's own operations
(`_run.portable`), as what it writes must run where seedbed is not installed, and for years.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from .._jax import jaxprs, lowering
from .._plan import Draw, KeyMode, Shape
from . import native


def call(
    draws: tuple[Draw, ...],
    mode: KeyMode,
    size: int,
    keys: jax.Array,
    members: jax.Array | None = None,
    tiles: native.Tiles = (),
    blocks: jax.Array | None = None,
) -> list[jax.Array]:
    """All draws of all members, or a block of each: one array of shape ``(size, *draw.shape)``, or
    ``(size, *tile)``.

    Args:
        draws: what to make; all from the same key of a member.
        mode, size, keys, members: see `_run.native.call`.
        tiles: for each draw the shape of its blocks, which `_plan.can_tile` accepts, or None for
            the whole of it. ``()`` if all are made whole.
        blocks: ``uint32[n]``: for each draw that has a tile, in order, the number of the block
            along each dimension of ``draw.shape``, from 0. It may be traced: one program makes any.

    Raises:
        ValueError: a draw has no such blocks, or ``blocks`` has not a number for each dimension.
    """
    tiles = tiles if any(tile is not None for tile in tiles) else ()
    if tiles:
        count = sum(len(tile) for tile in tiles if tile is not None)
        came = None if blocks is None else f"{blocks.dtype}{list(blocks.shape)}"
        if came != f"uint32[{count}]":
            raise ValueError(f"blocks must be uint32[{count}], a number a dimension, got {came}")
    # The call has three operands in every mode; one made for the purpose would have to be filled.
    operands = jaxprs.alike_in_shard_map(
        keys, keys if members is None else members, blocks if tiles else keys
    )
    return list(_fill_p.bind(*operands, draws=draws, mode=mode, size=size, tiles=tiles))


def _results(
    keys: Any,
    members: Any,
    blocks: Any,
    *,
    draws: tuple[Draw, ...],
    mode: KeyMode,
    size: int,
    tiles: native.Tiles,
) -> Any:
    batch = keys.shape[: _leading(keys.shape, mode)]
    return [
        ((*batch, size, *(draw.shape if tile is None else tile)), draw.dtype)
        for draw, tile in zip(draws, tiles or (None,) * len(draws), strict=True)
    ]


_fill_p = lowering.new_primitive("seedbed_fill", _results, multiple_results=True)


def _batch(operands: Any, axes: Any, **params: Any) -> Any:
    (count,) = {x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None}
    tiled = bool(params["tiles"])
    if tiled and axes[2] is not None:  # all members of a call are in one block
        pairs = list(zip(operands, axes, strict=True))

        def one(rows: Any) -> Any:
            left = iter(rows)
            given = (x if axis is None else next(left) for x, axis in pairs)
            return _fill_p.bind(*given, **params)

        made = lax.map(one, [jnp.moveaxis(x, axis, 0) for x, axis in pairs if axis is not None])
        return made, (0,) * len(made)
    front = [
        lax.broadcast(x, (count,)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands[: 2 if tiled else 3], axes, strict=False)
    ]
    made = _fill_p.bind(*front, *operands[len(front) :], **params)
    return made, (0,) * len(made)


def _lower(context: Any, *operands: Any, **params: Any) -> Any:
    if lowering.for_export(context):
        return _lower_portable(context, *operands, **params)
    # Blocks of draws are made where each device is told which is its own.
    if not (params["tiles"] or lowering.runs_whole(context)):
        return lowering.lower(_by_member, context, operands, params, multiple_results=True)
    return lowering.lower_call(native.TARGET, context, operands, _attributes(**params))


def _attributes(
    draws: tuple[Draw, ...], mode: KeyMode, size: int, tiles: native.Tiles
) -> dict[str, Any]:
    plan = native.encode(draws, tiles)
    return {"mode": np.int64(mode), "size": np.int64(size), "plan": plan}


def _lower_portable(context: Any, *operands: Any, **params: Any) -> Any:
    from . import portable

    return lowering.lower(portable.fill, context, operands, params, multiple_results=True)


# --- where XLA splits programs over devices ------------------------------------------------


def _by_member(
    keys: Any, members: Any, blocks: Any, *, mode: KeyMode, size: int, **params: Any
) -> list[jax.Array]:
    """The draws with operands that have members in front, as the results do: XLA then splits the
    call over devices along members, without a copy of the rest."""
    from . import portable

    if mode == KeyMode.MEMBER_KEYS:
        keys = members = keys[..., None, :]
    else:
        own = portable.member_words(members, mode, size)
        keys = jnp.broadcast_to(keys[..., None, :], (*keys.shape[:-1], size, 2))
        members = jnp.broadcast_to(own, keys.shape)
        mode = KeyMode.RANGE
    made = _batched_fill_p.bind(keys, members, keys, mode=mode, size=1, **params)
    return [jnp.squeeze(one, _leading(keys.shape, mode)) for one in made]


def _leading(keys: Shape, mode: KeyMode) -> int:
    """How many dimensions of keys of this shape are in front of those of a call."""
    return len(keys) - (2 if mode == KeyMode.MEMBER_KEYS else 1)


_batched_fill_p = lowering.new_primitive("seedbed_fill_batched", _results, multiple_results=True)


def _lower_batched(context: Any, *operands: Any, **params: Any) -> Any:
    batch = _leading(context.avals_in[0].shape, params["mode"])
    attributes = _attributes(**params)
    return lowering.lower_batched_call(native.TARGET, context, operands, attributes, batch)


lowering.set_rules(_batched_fill_p, None, dict.fromkeys(("cpu", "cuda"), _lower_batched))
lowering.set_rules(_fill_p, _batch, {"cpu": _lower, "cuda": _lower, None: _lower_portable})
