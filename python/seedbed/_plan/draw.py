"""The words the stages talk in: key paths and draws, as inert data.

A *key path* is the chain of fold indices that leads from a member's key to a draw's key.
In partitionable threefry ``split(key, n)[i]`` and ``fold_in(key, i)`` are the same
function, so one 64-bit index a step describes both. Where keys are stacked (a layer
vmapped over ``split(key, L)``), the index of a step depends on the row: it is
``base + sum(row[d] * strides[d])``.
"""

from __future__ import annotations

import enum
import functools
import math
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np

from .._base.record import Record

Shape = tuple[int, ...]

# The name of a longer path shows so many of its folds at either end.
_NAMED = 3


class Node:
    """A key that all rows of a draw share: ``parent``'s, folded with ``index``.

    A node without a parent is the member's key itself; where a member has several keys (streams),
    ``index`` says which.

    Equal chains of folds are one object, so that planning, comparing and encoding a model
    that splits its key thousands of times in a row takes linear time.
    """

    __slots__ = ("__weakref__", "depth", "head", "index", "parent", "root")
    _made: ClassVar[weakref.WeakValueDictionary[tuple[int, int], Node]]
    _made = weakref.WeakValueDictionary()
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, parent: Node | None, index: int) -> None:
        """Not for use outside: `fold` keeps equal nodes the same object."""
        self.parent = parent
        self.index = index
        self.depth: int = 0 if parent is None else parent.depth + 1
        self.root: Node = self if parent is None else parent.root
        # The first folds of the chain, for its name.
        self.head: tuple[int, ...] = () if parent is None else parent.head
        if parent is not None and len(self.head) < _NAMED:
            self.head = (*self.head, index)

    def fold(self, index: int) -> Node:
        """The child with this index."""
        # A child keeps its parent alive, so the parent's id is its own while the entry lives.
        with Node._lock:
            child = Node._made.get((id(self), index))
            if child is None:
                child = Node(self, index)
                Node._made[(id(self), index)] = child
            return child

    def indices(self, last: int | None = None) -> tuple[int, ...]:
        """The chain of folds from the member key, or the last ones of it."""
        found: list[int] = []
        node: Node = self
        while node.parent is not None and len(found) != last:
            found.append(node.index)
            node = node.parent
        return tuple(reversed(found))

    def __reduce__(self) -> Any:
        return _node, (self.root.index, self.indices())

    def __repr__(self) -> str:
        return f"{self.root.index or ''}node{self.indices()}"


@functools.cache
def root(stream: int) -> Node:
    """The member's key, or that of its keys which has this number."""
    return Node(None, stream)


MEMBER = root(0)


def node(*indices: int) -> Node:
    """The key that folds with these indices, in order, lead to."""
    return _node(0, indices)


def _node(stream: int, indices: tuple[int, ...]) -> Node:
    return functools.reduce(Node.fold, indices, root(stream))


class Level(Record):
    """One fold of stacked keys: index ``base + sum(row[d] * strides[d])`` (64 bits)."""

    base: int
    strides: tuple[int, ...]

    def __str__(self) -> str:
        terms = [f"{stride}*{'ijklmnop'[d]}" for d, stride in enumerate(self.strides) if stride]
        if self.base or not terms:
            terms.insert(0, str(self.base))
        return "+".join(term.removeprefix("1*") for term in terms)


class KeyPath(Record):
    """An array of keys of shape ``batch``: ``node``'s key, folded by each of ``levels``.

    Made by `key_path`, which keeps one form for equal paths: the first level differs
    between rows.
    """

    batch: Shape = ()
    node: Node = MEMBER
    levels: tuple[Level, ...] = ()

    def last(self) -> tuple[KeyPath, int] | None:
        """The keys before the last fold, and its index, if that is the same for all rows."""
        if not self.levels:
            parent = self.node.parent
            return None if parent is None else (KeyPath(self.batch, parent), self.node.index)
        level = self.levels[-1]
        if any(level.strides):
            return None
        return key_path(self.batch, self.node, self.levels[:-1]), level.base

    @property
    def stream(self) -> int:
        """Which of the member's keys the path starts from."""
        return self.node.root.index

    def named(self, names: Sequence[str]) -> str:
        """The path as text; ``names`` are those of the member's keys."""
        count = self.node.depth + len(self.levels)
        tail = (*self.node.indices(2 * _NAMED + 2), *self.levels)
        steps = [*map(str, tail)]
        if count > 2 * _NAMED + 2:
            first = (*self.node.head, *self.levels)[:_NAMED]
            steps = [*map(str, first), f"({count - 2 * _NAMED} more)", *steps[-_NAMED:]]
        return "/".join([f"key{names[self.stream]}", *steps])

    def __str__(self) -> str:
        return self.named([""] + [f"{i}" for i in range(1, self.stream + 1)])


def key_path(batch: Shape, node: Node, levels: Iterable[Level]) -> KeyPath:
    """The path of ``levels`` from ``node``; folds that all rows share become part of it."""
    varying = list(levels)
    while varying and not any(varying[0].strides):
        node = node.fold(varying.pop(0).base)
    return KeyPath(batch, node, tuple(varying))


class Kind(enum.IntEnum):
    """What a draw's words become. The values are part of the encoded plan."""

    KEY = 0
    BITS = 1
    UNIFORM = 2
    NORMAL = 3
    BERNOULLI = 4
    RANDINT = 5
    TABLE = 6
    CONSTANT = 7


class Draw(Record):
    """One random array of one member.

    Attributes:
        kind: what the words become.
        key: where the keys come from; its batch dimensions lead ``shape``.
        inner: elements drawn from each key, numbered by the cipher's counter.
        word_bits: width of the random word behind one element.
        dtype: numpy name of the result's dtype.
        shape: shape of the result for one member.
        params: bit patterns of the constants (see `csrc/plan.h` for each kind).
        table: for ``TABLE``, the packed results by index.
    """

    kind: Kind
    key: KeyPath
    inner: int
    word_bits: int
    dtype: str
    shape: Shape
    params: tuple[int, ...] = ()
    table: bytes = b""

    @property
    def itemsize(self) -> int:
        return 4 if self.kind is Kind.KEY else np.dtype(self.dtype).itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of the result for one member."""
        return math.prod(self.shape) * self.itemsize

    @property
    def needs(self) -> str:
        """Name of the kernel this draw runs on, as the self-check knows it."""
        if self.kind in (Kind.KEY, Kind.BITS, Kind.RANDINT, Kind.TABLE, Kind.CONSTANT):
            return "bits"
        return f"{self.kind.name.lower()}{self.word_bits}"

    def floats(self) -> list[float]:
        """The constants of a floating-point kind as numbers."""
        unsigned, real = (
            (np.uint64, np.float64) if self.word_bits == 64 else (np.uint32, np.float32)
        )
        return [float(v) for v in np.array(self.params, unsigned).view(real)]

    def __str__(self) -> str:
        if self.kind is Kind.KEY:
            return "key"
        if self.kind is Kind.BITS:
            return f"bits{self.word_bits}"
        if self.kind is Kind.TABLE:
            return f"table of {len(self.table) // self.itemsize} values"
        if self.kind is Kind.RANDINT:
            count, _, first = self.params
            first -= (first >> (self.word_bits - 1)) << self.word_bits
            return f"randint [{first}, {first + count})"
        if self.kind is Kind.CONSTANT:
            return "constant"
        values = self.floats()
        if self.kind is Kind.BERNOULLI:
            return f"bernoulli p={values[2]:.6g}"
        if self.kind is Kind.UNIFORM:
            span, low, scale, shift = values
            return f"uniform [{low:.6g}, {low + span:.6g})" + _affine(scale, shift)
        span, low, factor, clip_low, clip_high, scale, shift = values
        bounds = f"[{clip_low:.6g}, {clip_high:.6g}]"
        whole = low < -0.9999999 and low + span > 0.9999999
        if math.isinf(clip_low) and math.isinf(clip_high):
            if not whole:
                name = f"erf_inv of uniform [{low:.6g}, {low + span:.6g})"
                return name + _affine(scale * factor, shift)
            return "normal" + _affine(scale * factor / math.sqrt(2.0), shift)
        name = f"normal clipped to {bounds}" if whole else f"truncated_normal {bounds}"
        return name + _affine(scale, shift)


def _affine(scale: float, shift: float) -> str:
    text = "" if abs(scale - 1.0) < 1e-6 else f" * {scale:.6g}"
    return text if shift == 0.0 else f"{text} + {shift:.6g}"


def make_draw(
    kind: Kind, path: KeyPath, bits: int, dtype: str, shape: Shape, params: tuple[int, ...] = ()
) -> Draw:
    inner = _inner(path, shape)
    return Draw(kind, path, inner, bits, dtype, shape, params)


def _inner(path: KeyPath, shape: Shape) -> int:
    """Elements drawn from each key. Reshapes may have merged the batch dimensions away."""
    rows = math.prod(path.batch)
    return math.prod(shape) // rows if rows else 0


def words(values: Sequence[float], dtype: Any) -> tuple[int, ...]:
    unsigned = np.uint64 if dtype is np.float64 else np.uint32
    with np.errstate(over="ignore"):
        return tuple(int(word) for word in np.array(values, dtype).view(unsigned))
