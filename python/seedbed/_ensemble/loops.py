"""Loops over all members of an ensemble, as users ask for them: checked, compiled once, run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .._jax import compat, places
from .._run.members import Chosen, words
from .._trust import backends
from . import check
from .call import Call
from .ensemble import Ensemble
from .mapped import Loop, mapped, members_axes, reduced

if TYPE_CHECKING:
    from .prepare import Prepared

# What a chunk of members takes where the user names none. Members of 132 bytes to 130 KB took the
# same time in chunks of 64 KiB to 4 MiB, and up to a third more in smaller ones, where starting the
# native call takes as long as what it makes; with what `fn` computes, temporaries stay below 1 MB.
CHUNK_BYTES = 1 << 18
# Programs kept for one ensemble: one for each function and each size of chunks and results.
KEPT = 64
# Steps that a loop of XLA counts.
_STEPS = 1 << 31


def map_members(make: Ensemble, call: Call, fn: Any, chunk_size: Any, members: Any) -> Any:
    """``fn`` of each member, stacked; see `lazy.Lazy.map`."""
    first, count = _range(make, members)
    part = None if members is None else count
    prepared = make._prepare(call)
    layout, blocks = prepared.layout, 1
    if layout is not None:
        chosen = None if members is None else Chosen(count, first)
        count = make._padded(layout, call.replace(chosen=chosen))
        blocks = layout.blocks(members_axes(layout))
    if count >= 1 << 32:
        raise ValueError(
            f"the result would be of {count} members, and one array holds fewer than 2**32; map "
            "some of them, as in members=slice(0, 2**20), or use `reduce`"
        )
    chunk = chunk_of(chunk_size, prepared, count // blocks)
    loop = Loop(_function(fn), count, chunk, part, _runs_now(call))
    return _run(mapped, make, call, prepared, loop, first)


def reduce_members(
    make: Ensemble, call: Call, fn: Any, init: Any, chunk_size: Any, members: Any
) -> Any:
    """``fn`` of a carry and each member in turn; see `lazy.Lazy.reduce`."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(check.finite(init, "init")):
        if not check.array_like(leaf):
            raise TypeError(
                f"`init` must be a pytree of arrays or numbers; init{jax.tree_util.keystr(path)} "
                f"is {leaf!r} of type {type(leaf).__name__}"
            )
    first, count = _range(make, members)
    prepared = make._prepare(call)
    chunk = chunk_of(chunk_size, prepared, count)
    if count // chunk >= _STEPS:
        raise ValueError(
            f"{count} members in chunks of {chunk} are 2**31 steps or more; choose a larger "
            "`chunk_size`, or some of the members, as in members=slice(0, 2**20)"
        )
    part = None if members is None else count
    loop = Loop(_function(fn), count, chunk, part, _runs_now(call))
    return _run(reduced, make, call, prepared, loop, first, init)


def _function(fn: Any) -> Any:
    if not callable(fn):
        raise TypeError(f"`fn` must be a function; got {fn!r} of type {type(fn).__name__}")
    return fn


def _runs_now(call: Call) -> bool:
    return compat.at_top() and not compat.under_trace([*call.keys, *call.leaves])


def chunk_of(value: Any, prepared: Prepared, count: int, fitting: int = CHUNK_BYTES) -> int:
    """How many members to make at once.

    Args:
        value: what the user said, or None.
        prepared: says what a member takes.
        count: members in all.
        fitting: bytes of a chunk where the user said nothing.
    """
    if value is None:
        return max(1, min(count, fitting // max(1, prepared.member_bytes)))
    number = check.size(value, "chunk_size")
    if number > count:
        raise ValueError(
            f"`chunk_size` must be at most {count}, the number of members; got {number}"
        )
    return number


def _range(make: Ensemble, members: Any) -> tuple[int, int]:
    """The first member and how many."""
    if members is None:
        return 0, make.size
    if not isinstance(members, slice):
        raise TypeError(
            f"`members` must be a slice with a step of 1, or None; got {members!r} of type "
            f"{type(members).__name__}"
        )
    chosen = range(*members.indices(make.size))
    if chosen.step != 1 or not chosen:
        raise ValueError(
            f"`members` must be a slice with a step of 1 that holds some of size={make.size} "
            f"members; got {members!r}"
        )
    return chosen.start, len(chosen)


def _run(
    program: Callable[..., Any],
    make: Ensemble,
    call: Call,
    prepared: Prepared,
    loop: Loop,
    first: int,
    *rest: Any,
) -> Any:
    """Runs a loop, compiled once for each `Loop`; within a trace it becomes a part of that."""
    start = words(np.asarray(first))
    if loop.concrete and prepared.lasting:
        return compiled(program, make, loop)(call.key, call.args, start, *rest)
    return program(make, loop)(call.key, call.args, start, *rest)


def compiled(program: Callable[..., Any], make: Ensemble, loop: Loop) -> Any:
    """A jitted loop, the same one for the same function."""
    programs: OrderedDict[Hashable, Any] = make._kept.setdefault("loops", OrderedDict())
    mesh = None if make.out_shardings is None else places.ambient_mesh()
    rest = (program, loop.count, loop.chunk, loop.part, backends.requested(), mesh)
    key: Hashable = (loop.fn, *rest)
    try:
        found = programs.get(key)
    except TypeError:  # not hashable: by its address, which the program keeps from being reused
        key = (id(loop.fn), *rest)
        found = programs.get(key)
    if found is None:
        found = programs[key] = jax.jit(program(make, loop))
        while len(programs) > KEPT:
            programs.popitem(last=False)
    return found
