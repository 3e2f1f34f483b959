"""`Lazy`: an ensemble that is never stored; each member is made when it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from .._jax import compat, paths
from .._plan import Plan
from .._run.members import Chosen
from . import check, loops
from .call import Call, unused
from .ensemble import Ensemble

# What is made at once of what is looked at in order: a piece in memory, and members one by one.
_PIECE_BYTES = 64 << 20
_RUN_BYTES = 1 << 20


class Lazy:
    """All members of an ensemble, of which none is made before it is asked for.

    It holds an ensemble, a key and arguments, and is what ``make(key, *args)`` is, of any size.
    Made by `Ensemble.lazy`. Its members are those of `Ensemble.members`: looking at them uses no
    key up. With keys whose numbers depend on the batch (``rbg``), every look makes the whole
    ensemble.

    Example:
        >>> import jax, seedbed as sb
        >>> def init(key):
        ...     w, b = jax.random.split(key)
        ...     return {"w": jax.random.normal(w, (3, 2)), "b": jax.random.uniform(b, (2,))}
        >>> ens = sb.ensemble(init, 2**40).lazy(jax.random.key(0))
        >>> ens
        Lazy(init, 1099511627776 members of 32 bytes, 35.2 TB in all)
        >>> ens[2**33]["w"].shape, ens[-2:]["b"].shape
        ((3, 2), (2, 2))
        >>> few = sb.ensemble(init, 1000).lazy(jax.random.key(0))
        >>> few.map(lambda member: member["w"].sum()).shape
        (1000,)
    """

    __slots__ = ("_args", "_key", "_make")

    def __init__(self, make: Ensemble, key: Any, args: tuple[Any, ...]) -> None:
        self._make = make
        self._key = key
        self._args = args
        self._prepared()  # says what is wrong with key and arguments

    def __repr__(self) -> str:
        plan = self.plan
        name = getattr(self._make.init, "__qualname__", None) or repr(self._make.init)
        return (
            f"{type(self).__name__}({name}, {self.size} members of {plan.member_bytes:,} bytes, "
            f"{_shown(self.nbytes)} in all)"
        )

    def __reduce__(self) -> Any:
        return type(self), (self._make, self._key, self._args)

    # --- what it is ---------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The number of members."""
        return self._make.size

    def __len__(self) -> int:
        return self.size

    @property
    def plan(self) -> Plan:
        """What is made natively of a member, and what is not; print ``plan.explain()``."""
        plan: Plan = self._prepared().plan
        return plan

    @property
    def paths(self) -> tuple[str, ...]:
        """The names of the leaves, each as one word: ``layers.0.w`` for ``['layers'][0].w``."""
        return tuple([word for _, word in paths.names(self.shapes)])

    @property
    def shapes(self) -> Any:
        """One member, with a `jax.ShapeDtypeStruct` for each of its leaves."""
        return jax.eval_shape(lambda: self._make.member(self._key, 0, *self._args))

    @property
    def nbytes(self) -> int:
        """What all members would take."""
        return self.size * self.plan.member_bytes

    # --- parts --------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """Member ``index``, without the axis of members; or some of them, stacked.

        Args:
            index: an integer, negative ones count from the end; or a slice, a list or a
                one-dimensional array of integers. Inside ``jax.jit`` it may be traced, and then
                must be in range and of a type that holds every index.

        Raises:
            TypeError: ``index`` is none of these.
            IndexError: it is out of range.
            MemoryError: what is asked for does not fit into memory.
        """
        if isinstance(index, slice):
            count = len(range(*index.indices(self.size)))
            prepared = self._prepared()
            check.memory(prepared.plan, prepared.member_bytes, count, compat.at_top(), "index")
        elif isinstance(index, tuple):
            raise TypeError(
                f"an ensemble takes one index, of members; got the {len(index)} of {index!r}. "
                "Leaves are found by `leaf`, several members by a list."
            )
        elif isinstance(index, str):
            raise TypeError(
                f"an ensemble is indexed by members; got {index!r}. The leaf of that name is "
                f"leaf({index!r})."
            )
        elif not isinstance(index, (list, range)) and np.ndim(index) == 0:
            return self._chosen(check.member(index, self.size, "index"), single=True)
        return self._chosen(check.members(index, self.size))

    def leaf(self, path: str) -> LazyLeaf:
        """One leaf of every member: what is asked of it makes that leaf alone.

        Args:
            path: as in `paths`, ``layers.0.w``; or as jax writes it, ``['layers'][0].w``.

        Raises:
            KeyError: there is no such leaf.

        Example:
            >>> import jax, seedbed as sb
            >>> def init(key):
            ...     w, b = jax.random.split(key)
            ...     return {"w": jax.random.normal(w, (3, 2)), "b": jax.random.uniform(b, (2,))}
            >>> b = sb.ensemble(init, 2**40).lazy(jax.random.key(0)).leaf("b")
            >>> b[2**33].shape, b.shape, len(b.plan.draws)
            ((2,), (1099511627776, 2), 1)
        """
        return LazyLeaf(self, paths.find(path, paths.names(self.shapes)))

    def chunks(self, chunk_size: int | None = None) -> Iterator[Any]:
        """All members in order, in stacked pieces, each made when it is asked for.

        Args:
            chunk_size: members of a piece; the last one may have fewer. None: as many as take
                64 MiB.
        """
        chunk = loops.chunk_of(chunk_size, self._prepared(), self.size, _PIECE_BYTES)
        return (self[start : start + chunk] for start in range(0, self.size, chunk))

    def __iter__(self) -> Iterator[Any]:
        chunk = loops.chunk_of(None, self._prepared(), self.size, _RUN_BYTES)
        for start in range(0, self.size, chunk):
            count = min(chunk, self.size - start)
            piece = self[start : start + count]
            for i in range(count):
                yield Chosen(1, i).pick(piece, True)

    def __array__(self, *args: Any, **options: Any) -> Any:
        # NumPy would ask for one member after another.
        raise TypeError("an ensemble that is not made is no array; `materialise` makes it")

    # --- all of them --------------------------------------------------------------------

    def map(
        self,
        fn: Callable[[Any], Any],
        chunk_size: int | None = None,
        *,
        members: slice | None = None,
    ) -> Any:
        """``fn`` of every member, stacked: ``jax.vmap(fn)(make(key, *args))``, never all at once.

        One compiled loop makes a chunk of members, applies ``fn`` and forgets them. It is compiled
        once for each function and chunk size. Where the ensemble has ``out_shardings``, each device
        runs the loop over its own members, and has its part of the result. The whole ensemble is
        made beforehand where a member is what it is only among all (``rbg`` keys).

        Args:
            fn: a function of one member that returns a pytree of arrays. A method or a named
                function is found again in a second call; a new ``lambda`` is compiled anew.
            chunk_size: members that are there at once, on each device. None: as many as take
                256 KiB, with what is drawn for them.
            members: a slice, of these members alone.

        Raises:
            TypeError: ``fn`` is not a function, or returns what is no array.
            ValueError: ``chunk_size`` is below 1 or above the number of members.
            MemoryError: the results do not fit into memory.

        Example:
            >>> import jax, seedbed as sb
            >>> def init(key):
            ...     return jax.random.normal(key, (4,))
            >>> ens = sb.ensemble(init, 100_000).lazy(jax.random.key(0))
            >>> norms = ens.map(jax.numpy.linalg.norm)
            >>> norms.shape, ens[int(norms.argmax())].shape  # the largest, made again
            ((100000,), (4,))
        """
        return loops.map_members(self._make, self._call(), fn, chunk_size, members)

    def reduce(
        self,
        fn: Callable[[Any, Any], Any],
        init: Any,
        chunk_size: int | None = None,
        *,
        members: slice | None = None,
    ) -> Any:
        """``fn(carry, member)`` of one member after another, and returns the last carry.

        As ``for member in ens: carry = fn(carry, member)``, compiled as one loop: the members are
        made in chunks, and folded one by one in their order, on one device. What may be added up in
        any order is faster by `map` and a sum.

        Args:
            fn: returns a carry of the same structure, shapes and types.
            init: the first carry, a pytree of arrays; numbers of Python take the type that ``fn``
                gives them.
            chunk_size, members: as for `map`.

        Raises:
            TypeError: ``fn`` is not a function, or its carry is not like ``init``.
            ValueError: ``chunk_size`` is below 1 or above the number of members.

        Example:
            >>> import jax, seedbed as sb
            >>> def init(key):
            ...     return jax.random.normal(key, (4,))
            >>> ens = sb.ensemble(init, 100_000).lazy(jax.random.key(0))
            >>> ens.reduce(lambda most, member: jax.numpy.maximum(most, member.max()), 0.0).shape
            ()
        """
        return loops.reduce_members(self._make, self._call(), fn, init, chunk_size, members)

    def materialise(self) -> Any:
        """All members: ``make(key, *args)``, bit for bit.

        Raises:
            MemoryError: they do not fit into memory.
        """
        call = self._call()
        if self._prepared(call).drawing.watched:
            call = unused(call)
        return self._make._run(call)

    def save(self, path: Any, **options: Any) -> Any:
        """Writes all members to disk; see `Ensemble.save`."""
        make: Any = self._make
        return make.save(path, self._key, *self._args, **options)

    # --- within -------------------------------------------------------------------------

    def _call(self) -> Call:
        return self._make._call(self._key, self._args)

    def _chosen(self, members: Chosen, single: bool = False) -> Any:
        return self._make._run(self._call().replace(chosen=members, single=single))

    def _prepared(self, call: Call | None = None) -> Any:
        return self._make._prepare(self._call() if call is None else call)


class LazyLeaf(Lazy):
    """One leaf of all members of a `Lazy`, as a `Lazy` of arrays. Made by `Lazy.leaf`.

    Attributes:
        path: its name, as one word.
    """

    __slots__ = ("_of", "_position", "path")

    def __init__(self, of: Lazy, position: int) -> None:
        self._of = of
        self._position = position
        self.path = paths.names(of.shapes)[position][1]
        super().__init__(_alone(of, position), of._key, of._args)

    def __reduce__(self) -> Any:
        return LazyLeaf, (self._of, self._position)

    def __repr__(self) -> str:
        return f"LazyLeaf({self.path}, {self.dtype}{list(self.shape)}, {_shown(self.nbytes)})"

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all members: their number comes first."""
        return (self.size, *self.shapes.shape)

    @property
    def dtype(self) -> Any:
        """The type of its elements."""
        return self.shapes.dtype


class _Leaf:
    """An init function for one leaf of another's result; what else that draws is never made."""

    def __init__(self, init: Callable[..., Any], position: int) -> None:
        self.init = init
        self.position = position

    def __call__(self, key: Any, *args: Any) -> Any:
        return jax.tree_util.tree_leaves(self.init(key, *args))[self.position]


def _alone(of: Lazy, position: int) -> Ensemble:
    """The ensemble that makes one leaf of another."""
    make = of._make
    layout = of._prepared().layout
    place = None
    if layout is not None:
        spec = layout.spec(position, False)
        place = spec if layout.abstract else jax.sharding.NamedSharding(layout.mesh, spec)
    leaves = make._kept.setdefault("leaves", {})
    found: Ensemble | None = leaves.get((position, place))
    if found is None:
        found = leaves[position, place] = Ensemble(
            _Leaf(make.init, position),
            make.size,
            in_axes=make.in_axes,
            out_shardings=place,
            pad=make.pad,
        )
    return found


def _shown(count: int) -> str:
    """A number of bytes."""
    for power, unit in ((18, "EB"), (15, "PB"), (12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} bytes"
