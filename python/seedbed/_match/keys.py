"""Rules for keys: splits, folds and every way of picking keys out of arrays of keys."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .._jax import generators
from .._plan import KeyPath, Level, Shape, key_path
from .._trace import Const, Equation
from .meaning import Keys, KeyWords, Meaning, Operand, Rule, Word, adding_to, number

_U64 = (1 << 64) - 1
# Stacked keys above this count stay residual: their indices are checked one by one.
_BATCH_LIMIT = 1 << 20

RULES: dict[str, Rule] = {}
_rule = adding_to(RULES)


@_rule("random_wrap")
def _wrap(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    words = operands[0]
    if isinstance(words, KeyWords) and generators.is_threefry(equation.params["impl"]):
        return Keys(words.path)
    return None


@_rule("random_unwrap")
def _unwrap(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    keys = operands[0]
    return KeyWords(keys.path) if isinstance(keys, Keys) else None


@_rule("random_clone")
def _clone(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    return operands[0] if isinstance(operands[0], (Keys, KeyWords)) else None


@_rule("random_split")
def _split(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    keys = operands[0]
    if not isinstance(keys, Keys):
        return None
    new = shape[len(keys.path.batch) :]
    padding = (0,) * len(new)
    levels = [Level(level.base, (*level.strides, *padding)) for level in keys.path.levels]
    strides = [math.prod(new[d + 1 :]) if new[d] > 1 else 0 for d in range(len(new))]
    levels.append(Level(0, (*(0,) * len(keys.path.batch), *strides)))
    return Keys(key_path(shape, keys.path.node, levels))


@_rule("random_fold_in")
def _fold_in(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    keys, data = operands
    if not isinstance(keys, Keys) or not isinstance(data, Const):
        return None
    # The data's dimensions line up with the keys' leading ones, shorter shapes padded.
    folded = _fit(data.value.astype(np.uint32).astype(np.uint64), shape)
    widened = [_extend(level, keys.path.batch, shape) for level in keys.path.levels]
    if folded is None or any(level is None for level in widened):
        return None
    levels = tuple(level for level in widened if level is not None)
    return Keys(key_path(shape, keys.path.node, (*levels, folded)))


def _extend(level: Level, old: Shape, new: Shape) -> Level | None:
    """The level of keys of shape ``old`` broadcast to ``new``, leading dimensions lined up."""
    if any(one not in (1, other) for one, other in zip(old, new, strict=False)):
        return None
    return Level(level.base, (*level.strides, *(0,) * (len(new) - len(old))))


def _fit(indices: np.ndarray[Any, Any], shape: Shape) -> Level | None:
    """The affine form of an index array, or None if it has none."""
    if any(one not in (1, other) for one, other in zip(indices.shape, shape, strict=False)):
        return None
    padding = (1,) * (len(shape) - indices.ndim)
    indices = np.broadcast_to(indices.reshape(indices.shape + padding), shape)
    if 0 in shape:
        return Level(0, (0,) * len(shape))
    origin = int(indices[(0,) * len(shape)])
    strides = []
    for d, extent in enumerate(shape):
        corner = tuple(int(axis == d) for axis in range(len(shape)))
        strides.append((int(indices[corner]) - origin) & _U64 if extent > 1 else 0)
    level = Level(origin, tuple(strides))
    return level if np.array_equal(_indices(level, shape), indices) else None


def _indices(level: Level, shape: Shape) -> np.ndarray[Any, Any]:
    """The fold index of every row."""
    total = np.full(shape, level.base, np.uint64)
    for d, (stride, extent) in enumerate(zip(level.strides, shape, strict=True)):
        steps = np.arange(extent, dtype=np.uint64) * np.uint64(stride)
        total += steps.reshape((-1,) + (1,) * (len(shape) - d - 1))
    return total


def rearranged(
    path: KeyPath, shape: Shape, move: Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]
) -> KeyPath | None:
    """Applies an indexing operation to every level's index array."""
    if math.prod(path.batch) > _BATCH_LIMIT or math.prod(shape) > _BATCH_LIMIT:
        return None
    levels = []
    for level in path.levels:
        fitted = _fit(move(_indices(level, path.batch)), shape)
        if fitted is None:
            return None
        levels.append(fitted)
    return key_path(shape, path.node, levels)


def joined(paths: Sequence[KeyPath]) -> KeyPath | None:
    """The keys of some paths, one behind the other, as one row of keys."""
    depth = min(path.node.depth for path in paths)
    nodes, chains = set(), []
    for path in paths:
        if math.prod(path.batch) > _BATCH_LIMIT:
            return None
        node, chain = path.node, [_indices(one, path.batch).ravel() for one in path.levels]
        while node.depth > depth:
            assert node.parent is not None
            chain.insert(0, np.full(math.prod(path.batch), node.index, np.uint64))
            node = node.parent
        nodes.add(node)
        chains.append(chain)
    if len(nodes) > 1 or len({len(chain) for chain in chains}) > 1:
        return None
    folds = [np.concatenate(parts) for parts in zip(*chains, strict=True)]
    batch = (sum(math.prod(path.batch) for path in paths),)
    levels = [level for fold in folds if (level := _fit(fold, batch)) is not None]
    return key_path(batch, nodes.pop(), levels) if len(levels) == len(folds) else None


def _take(path: KeyPath, axis: int, start: int, count: int | None, step: int = 1) -> KeyPath:
    """``count`` keys along ``axis`` (None: one key, axis dropped), without index arrays."""
    batch = list(path.batch)
    if count is None:
        del batch[axis]
    else:
        batch[axis] = count
    levels = []
    for level in path.levels:
        strides = list(level.strides)
        base = (level.base + start * strides[axis]) & _U64
        if count is None:
            del strides[axis]
        else:
            strides[axis] = strides[axis] * step if count > 1 else 0
        levels.append(Level(base, tuple(strides)))
    return key_path(tuple(batch), path.node, levels)


def _key_view(operand: Operand) -> tuple[KeyPath, int] | None:
    """The path behind keys or raw key words, and how many trailing word dimensions."""
    if isinstance(operand, Keys):
        return operand.path, 0
    if isinstance(operand, KeyWords):
        return operand.path, 1
    return None


def _rebuilt(operand: Operand, path: KeyPath | None) -> Meaning | None:
    if path is None:
        return None
    return Keys(path) if isinstance(operand, Keys) else KeyWords(path)


def unstack(equation: Equation, operand: Operand) -> list[Meaning | None]:
    axis, view = equation.params["axis"], _key_view(operand)
    if view is None or axis >= len(view[0].batch):
        return [None] * len(equation.outputs)
    return [_rebuilt(operand, _take(view[0], axis, i, None)) for i in range(len(equation.outputs))]


@_rule("slice")
def _slice(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    view = _key_view(operands[0])
    if view is None:
        return None
    path, words = view
    params = equation.params
    if words and (shape[-1] != 2):
        return None
    steps = params["strides"] or (1,) * len(shape)
    for axis in range(len(path.batch)):
        path = _take(path, axis, params["start_indices"][axis], shape[axis], steps[axis])
    return _rebuilt(operands[0], path)


@_rule("dynamic_slice")
def _dynamic_slice(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    view = _key_view(operands[0])
    starts = [number(operand) for operand in operands[1:]]
    if view is None or any(start is None for start in starts):
        return None
    path, words = view
    if words and shape[-1] != 2:
        return None
    for axis, extent in enumerate(path.batch):
        # XLA moves a slice that would hang over the edge back inside.
        start = min(max(int(starts[axis]), 0), extent - shape[axis])  # type: ignore[arg-type]
        path = _take(path, axis, start, shape[axis])
    return _rebuilt(operands[0], path)


@_rule("squeeze")
def _squeeze(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    view = _key_view(operands[0])
    if view is None:
        return None
    path, words = view
    rank = len(path.batch) + words
    axes = sorted((axis % rank for axis in equation.params["dimensions"]), reverse=True)
    if words and axes and axes[0] == rank - 1:
        return None
    for axis in axes:
        path = _take(path, axis, 0, None)
    return _rebuilt(operands[0], path)


@_rule("reshape", "transpose", "rev", "broadcast_in_dim", "expand_dims", "gather", "concatenate")
def _restructure(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    first, params, name = operands[0], equation.params, equation.name
    view = _key_view(first)
    if view is None:
        return None
    path, words = view
    target = shape[:-1] if words else shape
    rank = len(path.batch)
    if words and (not shape or shape[-1] != 2):
        return None
    if name == "reshape" and len(operands) == 1:
        if math.prod(target) != math.prod(path.batch):
            return None
        moved = rearranged(path, target, lambda index: index.reshape(target))
    elif name == "transpose":
        order = tuple(params["permutation"])
        if words and order[-1] != rank:
            return None
        moved = rearranged(path, target, lambda index: index.transpose(order[:rank]))
    elif name == "rev":
        if any(axis >= rank for axis in params["dimensions"]):
            return None
        moved = rearranged(path, target, lambda index: np.flip(index, params["dimensions"]))
    elif name == "broadcast_in_dim" and len(operands) == 1:
        axes = tuple(params["broadcast_dimensions"])
        if words and (not axes or axes[-1] != len(shape) - 1):
            return None
        moved = rearranged(path, target, lambda index: _broadcast(index, axes[:rank], target))
    elif name == "gather" and isinstance(operands[1], Const):
        moved = _gather(path, words, len(shape), params, operands[1].value)
    else:
        return None
    return _rebuilt(first, moved)


def _broadcast(
    index: np.ndarray[Any, Any], axes: Sequence[int], shape: Shape
) -> np.ndarray[Any, Any]:
    spread = [1] * len(shape)
    for source, axis in enumerate(axes):
        spread[axis] = index.shape[source]
    return np.broadcast_to(index.reshape(spread), shape)


def _gather(
    path: KeyPath, words: int, rank: int, params: dict[str, Any], indices: np.ndarray[Any, Any]
) -> KeyPath | None:
    """``keys[indices]`` along the first axis, as jnp writes it: whole rows, known indices.

    Args:
        words: 1 if the operand is raw key words, with their own last axis, else 0.
        rank: rank of the result.
    """
    numbers = params["dimension_numbers"]
    rows = (1, *path.batch[1:], *(2,) * words)
    if tuple(params["slice_sizes"]) != rows or indices.shape[-1:] != (1,):
        return None
    if tuple(numbers.start_index_map) != (0,) or tuple(numbers.collapsed_slice_dims) != (0,):
        return None
    flat = indices[..., 0]
    if tuple(numbers.offset_dims) != tuple(range(flat.ndim, rank)):
        return None
    if flat.size and (flat.min() < 0 or flat.max() >= path.batch[0]):
        return None
    shape = (*flat.shape, *path.batch[1:])
    return rearranged(path, shape, lambda index: index[flat])


@_rule("random_bits")
def _bits(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    keys = operands[0]
    if not isinstance(keys, Keys):
        return None
    return Word(keys.path, int(equation.params["bit_width"]), shape)


@_rule("copy", "copy_p", "optimization_barrier", "seedbed_rows")
def _identity(equation: Equation, shape: Shape, operands: Sequence[Operand]) -> Meaning | None:
    if not equation.params.get("whole", True):
        return None
    return operands[0] if isinstance(operands[0], (Keys, KeyWords)) else None
