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
from .._plan import Draw, KeyMode
from . import native


def call(
    draws: tuple[Draw, ...],
    mode: KeyMode,
    size: int,
    keys: jax.Array,
    members: jax.Array | None = None,
) -> list[jax.Array]:
    """All draws of all members: one array of shape ``(size, *draw.shape)`` each.

    Args:
        draws: what to make; all from the same key of a member.
        mode, size, keys, members: see `_run.native.call`.
    """
    # The call has two operands in every mode; one made for the purpose would have to be filled.
    operands = jaxprs.alike_in_shard_map(keys, keys if members is None else members)
    return list(_fill_p.bind(*operands, draws=draws, mode=mode, size=size))


def _results(keys: Any, members: Any, *, draws: tuple[Draw, ...], mode: KeyMode, size: int) -> Any:
    batch = keys.shape[: -2 if mode == KeyMode.MEMBER_KEYS else -1]
    return [((*batch, size, *draw.shape), draw.dtype) for draw in draws]


_fill_p = lowering.new_primitive("seedbed_fill", _results, multiple_results=True)


def _batch(operands: Any, axes: Any, **params: Any) -> Any:
    (count,) = {x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None}
    front = [
        lax.broadcast(x, (count,)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    made = _fill_p.bind(*front, **params)
    return made, (0,) * len(made)


def _lower(context: Any, *operands: Any, draws: tuple[Draw, ...], mode: KeyMode, size: int) -> Any:
    if lowering.for_export(context):
        return _lower_portable(context, *operands, draws=draws, mode=mode, size=size)
    if not lowering.runs_whole(context):
        params = {"draws": draws, "mode": mode, "size": size}
        return lowering.lower(_by_member, context, operands, params, multiple_results=True)
    attributes = {"mode": np.int64(mode), "size": np.int64(size), "plan": native.encode(draws)}
    return lowering.lower_call(native.TARGET, context, operands, attributes)


def _lower_portable(context: Any, *operands: Any, **params: Any) -> Any:
    from . import portable

    return lowering.lower(portable.fill, context, operands, params, multiple_results=True)


# --- where XLA splits programs over devices ------------------------------------------------


def _by_member(
    keys: Any, members: Any, *, draws: tuple[Draw, ...], mode: KeyMode, size: int
) -> list[jax.Array]:
    """The draws with two operands that have members in front, as the results do: XLA then splits
    the call over devices along members, without a copy of the rest."""
    from . import portable

    if mode == KeyMode.MEMBER_KEYS:
        keys = members = keys[..., None, :]
    else:
        own = portable.member_words(members, mode, size)
        keys = jnp.broadcast_to(keys[..., None, :], (*keys.shape[:-1], size, 2))
        members = jnp.broadcast_to(own, keys.shape)
        mode = KeyMode.RANGE
    made = _batched_fill_p.bind(keys, members, draws=draws, mode=mode, size=1)
    return [
        jnp.squeeze(one, len(keys.shape) - (2 if mode == KeyMode.MEMBER_KEYS else 1))
        for one in made
    ]


_batched_fill_p = lowering.new_primitive("seedbed_fill_batched", _results, multiple_results=True)


def _lower_batched(
    context: Any, *operands: Any, draws: tuple[Draw, ...], mode: KeyMode, size: int
) -> Any:
    attributes = {"mode": np.int64(mode), "size": np.int64(size), "plan": native.encode(draws)}
    batch = len(context.avals_in[0].shape) - (2 if mode == KeyMode.MEMBER_KEYS else 1)
    return lowering.lower_batched_call(native.TARGET, context, operands, attributes, batch)


lowering.set_rules(_batched_fill_p, None, dict.fromkeys(("cpu", "cuda"), _lower_batched))
lowering.set_rules(_fill_p, _batch, {"cpu": _lower, "cuda": _lower, None: _lower_portable})
