"""Mapped: the programs that run over all members of an ensemble, made in chunks within a loop.

The loop's counter is a number of two words, so that it passes 2**32 without integers of 64 bits. A
chunk is made where it is used, so no more than one of them is ever there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.record import Record
from .._jax import compat, generators, places
from .._run.layout import padded
from .._run.members import Chosen, plus
from . import check
from .call import Call, unused
from .ensemble import Ensemble

if TYPE_CHECKING:
    from .._run.layout import Layout


class Loop(Record):
    """What a compiled loop depends on, but for keys and arguments.

    Attributes:
        fn: the user's function.
        count: how many members it runs over, those that pad them among them.
        chunk: how many of them are made at once.
        part: how many were asked for, if not all of the ensemble.
        concrete: whether the loop is about to run, not only traced.
    """

    fn: Callable[..., Any]
    count: int
    chunk: int
    part: int | None
    concrete: bool


def mapped(make: Ensemble, loop: Loop) -> Callable[..., Any]:
    """The program ``(key, args, start) -> fn`` of each member, stacked."""

    def seedbed_map(key: Any, args: tuple[Any, ...], start: Any) -> Any:
        call = make._call(key, args)
        made_of = _material(make, call, loop, start)
        layout = make._prepare(call).layout
        if layout is None:
            return _stacked(made_of, made_of.values, start, loop.count, loop)
        names = members_axes(layout)
        local = loop.count // layout.blocks(names)
        mesh, manual = places.mesh_to_map(layout.mesh)
        spec: Any = jax.sharding.PartitionSpec
        specs = [
            spec() if axis is None else spec(*[None] * axis, names or None) for axis in made_of.axes
        ]
        values = [
            padded(value, axis, loop.count)
            for value, axis in zip(made_of.values, made_of.axes, strict=True)
        ]
        if places.is_explicit(mesh):
            values = [places.put(one, mesh, at) for one, at in zip(values, specs, strict=True)]
            start = places.put(start, mesh, spec())

        def part(values: list[Any], start: Any) -> Any:
            number = jax.lax.axis_index(names).astype(np.uint32) if names else np.uint32(0)
            start = plus(start, _wide(number * np.uint32(local)))
            return _stacked(made_of, values, start, local, loop)

        on_mesh: Any = jax.shard_map(
            part,
            mesh=mesh,
            in_specs=(specs, spec()),
            out_specs=spec(names or None),
            axis_names=manual,
            check_vma=False,
        )
        return on_mesh(values, start)

    return seedbed_map


def _stacked(made_of: _Material, values: list[Any], start: Any, count: int, loop: Loop) -> Any:
    """``fn`` of ``count`` members, written chunk by chunk into the result."""
    chunk = loop.chunk
    fn = _giving_arrays(loop.fn)

    def piece(offset: Any) -> Any:
        chosen = Chosen(chunk, plus(start, _wide(offset)), None, offset)
        return jax.vmap(fn)(made_of.build(values, chosen))

    types, tree = jax.tree_util.tree_flatten(jax.eval_shape(piece, compat.abstract((), np.uint32)))
    plain = [jax.eval_shape(compat.key_words, one) for one in types]
    taken = [compat.abstract((count, *one.shape[1:]), one.dtype) for one in plain]
    if loop.concrete:
        asked = sum([math.prod(one.shape) * one.dtype.itemsize for one in taken])
        check.room(asked, f"the results of `fn` for {count} members")

    def step(carry: Any, _: Any) -> Any:
        number, buffers = carry
        # The last chunk starts early enough to be whole, and makes some members again.
        offset = jnp.minimum(number * np.uint32(chunk), np.uint32(count - chunk))
        made = map(compat.key_words, jax.tree_util.tree_leaves(piece(offset)))
        buffers = [
            jax.lax.dynamic_update_slice_in_dim(buffer, leaf, offset, 0)
            for buffer, leaf in zip(buffers, made, strict=True)
        ]
        return (number + np.uint32(1), buffers), None

    buffers = [jnp.zeros(one.shape, one.dtype) for one in taken]
    (_, buffers), _ = jax.lax.scan(step, (jnp.uint32(0), buffers), None, length=-(-count // chunk))
    leaves = []
    for leaf, one in zip(buffers, types, strict=True):
        if compat.is_key(one.dtype):
            leaf = jax.random.wrap_key_data(leaf, impl=compat.key_impl(one.dtype))
        leaves.append(compat.with_weak_type(leaf, one.weak_type))
    return jax.tree_util.tree_unflatten(tree, leaves)


def reduced(make: Ensemble, loop: Loop) -> Callable[..., Any]:
    """The program ``(key, args, start, init) -> carry`` after the last member."""

    def seedbed_reduce(key: Any, args: tuple[Any, ...], start: Any, init: Any) -> Any:
        made_of = _material(make, make._call(key, args), loop, start)

        def piece(at: Any, count: int) -> Any:
            return made_of.build(made_of.values, Chosen(count, plus(start, at), None, at[1]))

        def fold(carry: Any, at: Any, count: int) -> Any:
            members = piece(at, count)
            return jax.lax.scan(lambda carry, one: (loop.fn(carry, one), None), carry, members)[0]

        def step(state: Any, _: Any) -> Any:
            at, carry = state
            return (plus(at, _wide(np.uint32(loop.chunk))), fold(carry, at, loop.chunk)), None

        at = jnp.zeros(2, np.uint32)
        member = jax.eval_shape(
            lambda at: jax.tree_util.tree_map(lambda leaf: leaf[0], piece(at, 1)), at
        )
        carry = _carry(loop.fn, init, member)
        steps, rest = divmod(loop.count, loop.chunk)
        (at, carry), _ = jax.lax.scan(step, (at, carry), None, length=steps)
        return fold(carry, at, rest) if rest else carry

    return seedbed_reduce


# --- what loops run over ----------------------------------------------------------------


class _Material(Record):
    """What members are made of: arrays, the axis of members of each, and ``build(values, chosen)``.

    Attributes:
        axes: of those that hold something for each member; None for others.
        build: makes chosen members.
    """

    values: list[Any]
    axes: list[int | None]
    build: Callable[[list[Any], Chosen], Any]


def _material(make: Ensemble, call: Call, loop: Loop, start: Any) -> _Material:
    """What a loop makes its chunks of, as values of the program that is being traced.

    Keys of which a member's is found only among all are split before the loop; where members are
    what they are only among all, these are made before it.
    """
    prepared = make._prepare(call)
    drawing = prepared.drawing
    if drawing.alone:
        keys = [
            key
            if check.is_stack(key) or folds
            else _split(key, loop.count if loop.part is None else make.size)
            for key, folds in zip(call.keys, drawing.folds, strict=True)
        ]
        count = len(keys)
        values = [*keys, *call.leaves]
        axes = [*[0 if check.is_stack(key) else None for key in keys], *call.axes]
        plain = _without_places(make)

        def build(values: list[Any], chosen: Chosen) -> Any:
            part = call.with_keys(values[:count])
            args = jax.tree_util.tree_unflatten(prepared.tree, values[count:])
            return plain._run(part.replace(args=args, leaves=values[count:], chosen=chosen))

    else:
        check.memory(prepared.plan, prepared.member_bytes, make.size, loop.concrete)
        values, tree = jax.tree_util.tree_flatten(make._run(unused(call)))
        axes = [0] * len(values)

        def build(values: list[Any], chosen: Chosen) -> Any:
            return jax.tree_util.tree_unflatten(tree, [chosen.take(one, 0) for one in values])

    if loop.part is not None:
        here = Chosen(loop.part, None, None, start[1])
        values = [
            value if axis is None else here.take(value, axis)
            for value, axis in zip(values, axes, strict=True)
        ]
    return _Material(values, axes, build)


def _split(key: Any, size: int) -> Any:
    """The members' keys."""
    return jax.random.split(generators.unused(key), size)


def _without_places(make: Ensemble) -> Ensemble:
    """The same ensemble, whose results lie where jax has them."""
    if make.out_shardings is None:
        return make
    twin: Ensemble | None = make._kept.get("twin")
    if twin is None:
        twin = make._kept["twin"] = Ensemble(make.init, make.size, in_axes=make.in_axes)
    return twin


def members_axes(layout: Layout) -> Any:
    """The axes of a mesh that members are split over: of the leaf that is split most."""
    return max([spec[0] for spec in layout.specs], key=layout.blocks, default=())


def _wide(number: Any) -> Any:
    """A number of 32 bits as two words."""
    return jnp.stack([jnp.zeros_like(number), number])


# --- what users' functions give ---------------------------------------------------------


def _giving_arrays(fn: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose result is checked."""

    def checked(*given: Any) -> Any:
        out = fn(*given)
        for path, leaf in jax.tree_util.tree_leaves_with_path(out):
            if not check.array_like(leaf):
                name = f"result{jax.tree_util.keystr(path)}"
                raise TypeError(
                    "`fn` must return a pytree of arrays or numbers; of one member the "
                    f"{name} is {leaf!r} of type {type(leaf).__name__}"
                )
        return out

    return checked


def _carry(fn: Callable[..., Any], init: Any, member: Any) -> Any:
    """``init`` with the types that ``fn`` gives: Python's numbers take those that they meet."""
    tree: Any = jax.tree_util.tree_structure(init)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(init)]
    leaves = [jnp.asarray(leaf) for leaf in jax.tree_util.tree_leaves(init)]
    for settled in (False, True):
        carry = jax.tree_util.tree_unflatten(tree, leaves)
        out, after = jax.tree_util.tree_flatten(jax.eval_shape(_giving_arrays(fn), carry, member))
        if after != tree:
            raise TypeError(
                f"`fn` must return a carry like `init`, of structure {tree}; it returns {after}"
            )
        for place, (one, path) in enumerate(zip(out, paths, strict=True)):
            leaf = leaves[place]
            if one.shape == leaf.shape and one.dtype == leaf.dtype:
                continue
            if settled or one.shape != leaf.shape or not jax.typeof(leaf).weak_type:
                raise TypeError(
                    f"`fn` must return a carry like `init`: init{path} is "
                    f"{leaf.dtype}{list(leaf.shape)}, and `fn` returns "
                    f"{one.dtype}{list(one.shape)} for it"
                )
            leaves[place] = leaf.astype(one.dtype)
    return carry
