"""The words the stages talk in: key paths, kinds of draws and draws, as inert data.

A *key path* is the chain of fold indices that leads from a member's key to a draw's key.
In partitionable threefry ``split(key, n)[i]`` and ``fold_in(key, i)`` are the same
function, so one 64-bit index a step describes both. Where keys are stacked (a layer
vmapped over ``split(key, L)``), the index of a step depends on the row: it is
``base + sum(row[d] * strides[d])``.

What a kind of draw is stands in ``csrc/kinds.h``, and in the same words in `RECORDS` here.
"""

from __future__ import annotations

import enum
import functools
import math
import threading
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._base.record import Record

if TYPE_CHECKING:
    from .tile import Rows

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


class KeyMode(enum.IntEnum):
    """Where the key of member i of a group comes from: the attribute ``mode`` of the custom call.

    Every index is two words, the high one first.
    """

    MEMBER_KEYS = 0  # given: keys[groups, size, 2]
    RANGE = 1  # fold(key, first + i): keys[groups, 2], members[groups, 2]
    INDICES = 2  # fold(key, members[i]): keys[groups, 2], members[groups, size, 2]
    ALL = 3  # fold(key, i): keys[groups, 2]; `members` is not read, nor with given keys

    __hash__ = int.__hash__  # programs are found by it, at every call


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
    EXPONENTIAL = 8
    GUMBEL = 9
    LAPLACE = 10

    __hash__ = int.__hash__  # records are found by it


class KindRecord(Record):
    """What is known of a kind of draw.

    Attributes:
        formula: an element. In it ``word`` is the element's random word, ``high`` and ``low`` are
            two of them, and ``ranged`` is ``max(low, unit * span + low)``, ``unit`` being the word
            as a number in [0, 1). ``positive`` and ``centred`` are ranged, too, with the span and
            the bound in ``over``. A number is a float of the word's width, or an unsigned integer
            of that width, for which ``x % 0`` is x.
        params: names of the parameters, in order.
        forms: widths of words, each with the bytes that an element may be stored in.
        asked: further parameters of 64 bits, which XLA is asked for when a plan is encoded.
        built_on: the kind whose arithmetic its kernels contain. The kinds without are made of
            integers alone, by one kernel, ``bits``.
        cpu_only: widths that have no kernel on GPUs.
        over: the span and lowest value of the uniform that it is made of, if these are fixed.
    """

    formula: str
    params: tuple[str, ...]
    forms: tuple[tuple[int, tuple[int, ...]], ...]
    asked: tuple[str, ...] = ()
    built_on: Kind | None = None
    cpu_only: tuple[int, ...] = ()
    over: tuple[float, float] | None = None


class Draw(Record):
    """One random array of one member.

    Attributes:
        kind: what the words become.
        key: where the keys come from; its batch dimensions lead ``shape``.
        inner: elements drawn from each key, numbered by the cipher's counter.
        word_bits: width of the random word behind one element.
        dtype: numpy name of the result's dtype.
        shape: shape of the result for one member.
        params: bit patterns of the kind's parameters (`RECORDS`).
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
        return kernel_of(self.kind, self.word_bits)

    def integers(self) -> dict[str, int]:
        """The parameters by name."""
        return dict(zip(RECORDS[self.kind].params, self.params, strict=True))

    def floats(self) -> dict[str, float]:
        """Those of a floating-point kind as numbers."""
        unsigned, real = (
            (np.uint64, np.float64) if self.word_bits == 64 else (np.uint32, np.float32)
        )
        values = np.array(self.params, unsigned).view(real).tolist()
        return dict(zip(RECORDS[self.kind].params, values, strict=True))

    def __str__(self) -> str:
        from . import show  # of no use before

        return show.text(self)


def can_tile(draw: Draw, tile: Shape) -> bool:
    """Whether blocks of a draw that have this shape can be made each by itself."""
    return rows_of(draw, tile) is not None


def rows_of(draw: Draw, tile: Shape | None) -> Rows | None:
    """The rows of a draw, or of its blocks of this shape; None if these cannot be made."""
    from . import tile as _tile  # of no use before

    return _tile.rows_of(draw, tile)


def kernel_of(kind: Kind, word_bits: int) -> str:
    """Name of the kernel that makes such draws."""
    return "bits" if RECORDS[kind].built_on is None else f"{kind.name.lower()}{word_bits}"


_FLOAT32 = ((32, (4,)),)
_FLOATS = (*_FLOAT32, (64, (8,)))
_BYTES = ((8, (1,)), (16, (2,)), *_FLOATS)

RECORDS = {
    Kind.KEY: KindRecord(formula="the key of the row", params=(), forms=((32, (4,)),)),
    Kind.BITS: KindRecord(formula="word", params=(), forms=_BYTES),
    Kind.UNIFORM: KindRecord(
        formula="ranged * scale + shift",
        params=("span", "low", "scale", "shift"),
        forms=_FLOATS,
        built_on=Kind.BITS,
    ),
    Kind.NORMAL: KindRecord(
        formula="clip(erf_inv(ranged) * factor, clip_low, clip_high) * scale + shift",
        params=("span", "low", "factor", "clip_low", "clip_high", "scale", "shift"),
        forms=_FLOATS,
        asked=("near",),
        built_on=Kind.UNIFORM,
        cpu_only=(64,),  # nothing proves another float64 erf_inv equal to XLA's
    ),
    Kind.BERNOULLI: KindRecord(
        formula="ranged < p",
        params=("span", "low", "p"),
        forms=((32, (1,)), (64, (1,))),
        built_on=Kind.UNIFORM,
    ),
    Kind.RANDINT: KindRecord(
        formula="(high % span * multiplier + low % span) % span + first",
        params=("span", "multiplier", "first"),
        forms=((32, (1, 2, 4)), (64, (1, 2, 4, 8))),
    ),
    Kind.TABLE: KindRecord(
        formula="table[word >> drop]",
        params=("drop",),
        forms=((8, (1, 2, 4)), (16, (1, 2, 4))),
    ),
    Kind.CONSTANT: KindRecord(formula="value", params=("value",), forms=_BYTES),
    Kind.EXPONENTIAL: KindRecord(
        formula="-log1p(-unit) * scale + shift",
        params=("scale", "shift"),
        forms=_FLOAT32,
        built_on=Kind.UNIFORM,
        over=(1.0, 0.0),
    ),
    Kind.GUMBEL: KindRecord(
        formula="-log(-log(positive)) * scale + shift",
        params=("scale", "shift"),
        forms=_FLOAT32,
        built_on=Kind.UNIFORM,
        over=(1.0, 2.0**-126),
    ),
    Kind.LAPLACE: KindRecord(
        formula="sign(centred) * log1p(-abs(centred)) * scale + shift",
        params=("scale", "shift"),
        forms=_FLOAT32,
        built_on=Kind.UNIFORM,
        over=(2.0, 2.0**-24 - 1),
    ),
}

# Parameters that change nothing.
_CLIP = {"clip_low": -math.inf, "clip_high": math.inf}
_NEUTRAL = {"factor": 1.0, **_CLIP, "scale": 1.0, "shift": -0.0}


def make_draw(
    kind: Kind, path: KeyPath, bits: int, dtype: str, shape: Shape, params: tuple[int, ...] = ()
) -> Draw:
    inner = _inner(path, shape)
    return Draw(kind, path, inner, bits, dtype, shape, params)


def _inner(path: KeyPath, shape: Shape) -> int:
    """Elements drawn from each key. Reshapes may have merged the batch dimensions away."""
    rows = math.prod(path.batch)
    return math.prod(shape) // rows if rows else 0


def params(kind: Kind, **values: int) -> tuple[int, ...]:
    """The parameters of a kind of integers, in order."""
    return tuple(_ordered(RECORDS[kind].params, values))


def _ordered(names: Sequence[str], values: dict[str, Any]) -> list[Any]:
    found = [values[name] if name in values else _NEUTRAL[name] for name in names]
    for name in values.keys() - set(names):
        raise KeyError(name)
    return found


def float_params(kind: Kind, bits: int, **values: float) -> tuple[int, ...]:
    """The bit patterns of a kind's parameters, in order; what is not given changes nothing."""
    ordered = _ordered(RECORDS[kind].params, values)
    unsigned, real = (np.uint64, np.float64) if bits == 64 else (np.uint32, np.float32)
    with np.errstate(over="ignore"):
        return tuple(np.array(ordered, real).view(unsigned).tolist())
