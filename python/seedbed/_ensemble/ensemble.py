"""`ensemble`: the public object, and the only place that joins the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from .. import _trace
from .._base import pickling
from .._jax import compat, generators, places
from .._plan import KeyMode, Plan
from .._run import execute
from .._trust import backends
from . import check

if TYPE_CHECKING:
    from .prepare import Prepared


@dataclass(frozen=True, slots=True)
class _Direct:
    """How the last call ran, for one like it: the program itself finds out whether it is."""

    run: Any
    given: Any
    key_type: type
    backend: str
    prepared: Prepared


class Ensemble:
    """An init function, ready to be called for all members at once. Made by `ensemble`."""

    # What the caller knows the number of members as.
    _size_name = "size"
    _direct: _Direct | None = None
    # How often a call may turn out to be unlike the last one before that is no longer tried.
    _tries = 8

    def __init__(
        self, init: Callable[..., Any], size: int, *, in_axes: Any = None, donate: bool = False
    ) -> None:
        if not callable(init):
            raise TypeError(
                f"`init` must be a function init(key, *args) that returns a pytree of arrays; "
                f"got {init!r} of type {type(init).__name__}"
            )
        self.init = init
        self.size = check.size(size)
        self.in_axes = in_axes
        self.donate = check.flag(donate, "donate")
        self._prepared: dict[Any, Prepared] = {}

    def __repr__(self) -> str:
        name = getattr(self.init, "__qualname__", None) or repr(self.init)
        axes = "" if self.in_axes is None else f", in_axes={self.in_axes!r}"
        donate = ", donate=True" if self.donate else ""
        return f"ensemble({name}, {self.size}{axes}{donate})"

    def __reduce__(self) -> Any:
        # Copies start without compiled programs, which cannot be copied.
        return _restored, (pickling.Packed(self.init), self.size, self.in_axes, self.donate)

    def __call__(self, key: Any, *args: Any) -> Any:
        """All members: equal to ``jax.vmap(init)(jax.random.split(key, size))``.

        Args:
            key: one key (typed, or legacy ``uint32[2]``), which is split; or an array of
                ``size`` keys, used as they are. Or a pytree of such, where ``init`` takes
                several keys, as in ``{"params": key, "dropout": other}``: each is split, or used
                as it is, by itself.
            *args: further arguments of ``init``, broadcast or mapped as ``in_axes`` says. With
                ``donate=True`` they come after ``old``, a result of an earlier call: its arrays
                are given up (jax calls them deleted), and the new ones take their memory; on
                several devices, where the new ones are laid out alike, as with `jax.jit`: on a
                mesh of ``Auto`` axes native results are whole on every device, and sharded
                arrays in ``old`` are not reused.
                Inside ``jax.jit`` and other traces they are left alone.

        Returns:
            The result of ``init`` with a leading axis of length ``size`` on every leaf.

        Raises:
            TypeError: ``key`` is neither a key nor a pytree of keys, or ``init`` cannot be
                called this way.
            ValueError: ``key`` or a mapped argument is of the wrong shape, or ``old`` is not
                like the result.
            MemoryError: the result would not fit into this machine's memory.
        """
        if self.donate:
            return self._renew(key, *args)
        direct = self._direct
        if (
            direct is not None
            and type(key) is direct.key_type
            # To jax a NumPy array of wider integers is one of uint32.
            and (direct.key_type is not np.ndarray or getattr(key, "dtype", None) == np.uint32)
            and backends.requested() == direct.backend
        ):
            prepared = direct.prepared
            plan = prepared.plan
            leaves, tree = jax.tree_util.tree_flatten(args)
            concrete = not compat.under_trace(leaves)
            check.memory(plan, prepared.member_bytes, self.size, concrete, self._size_name)
            try:
                if tree == prepared.tree and compat.elsewhere((key, *leaves)) is None:
                    read = [leaves[position] for position in prepared.reads]
                    out = direct.run(direct.given, None, key, *read)
                    return jax.tree_util.tree_unflatten(plan.out_tree, out)
            except (execute.Unplanned, TypeError):  # says what is wrong, or prepares for it
                self._tries -= 1
                self._direct = None
        return self._run(key, args, None)

    def _renew(self, key: Any, *args: Any) -> Any:
        if not args:
            raise TypeError(
                "an ensemble with donate=True is called as make(key, old, *args), where `old` is "
                "the result of an earlier call; `old` is missing"
            )
        old, args = check.finite(args[0], "old"), args[1:]

        from . import donate as _donate

        def give_up(plan: Plan) -> list[Any]:
            return _donate.checked(old, plan, self.size, (key, args))

        return self._run(key, args, None, give_up=give_up)

    def plan(self, key: Any, *args: Any) -> Plan:
        """What would run, as inert data; print ``plan(key).explain()``."""
        key, keys, axes = self._keys(key, args)
        return self._prepare(key, args, axes, keys).plan

    def member(self, key: Any, i: Any, *args: Any) -> Any:
        """Member ``i`` alone, without the member axis, in the time and memory of one member.

        Args:
            key: as for the call.
            i: index of the member; negative counts from the end. Inside ``jax.jit`` it may
                be traced, and then must be in range.

        Raises:
            TypeError: ``i`` is not an integer, or is being traced and of a type that does not
                hold every index: one of 32 bits wraps without a word.
            IndexError: ``i`` is out of range.
        """
        return self._run(key, args, check.member(i, self.size), single=True)

    def members(self, key: Any, index: Any, *args: Any) -> Any:
        """Some members, stacked: ``index`` is a slice or an array of integers as for `member`.

        Raises:
            TypeError: ``index`` is neither, or holds traced integers that `member` would refuse.
            IndexError: an index is out of range.
        """
        return self._run(key, args, check.members(index, self.size))

    def stream(self, key: Any, *args: Any, chunk_size: int) -> Iterator[Any]:
        """All members in order, in pieces of at most ``chunk_size``, each made when asked for."""
        # Checked here, not when the first piece is asked for.
        chunk = check.size(chunk_size, "chunk_size")
        key, keys, axes = self._keys(key, args)
        if self._prepare(key, args, axes, keys).drawing.watched:
            generators.use_up(keys)  # as the whole call does
        return (
            self.members(key, slice(start, start + chunk), *args)
            for start in range(0, self.size, chunk)
        )

    def _keys(self, key: Any, args: tuple[Any, ...]) -> tuple[Any, list[Any], tuple[Any, ...]]:
        """The key as it is used, its leaves, and the mapped axes of the arguments; all checked."""
        keys = check.keys(key, self.size)
        axes = check.axes(self.in_axes, args, self.size)
        placed = places.beside(keys, jax.tree_util.tree_leaves(args), axes)
        if any(one is not given for one, given in zip(placed, keys, strict=True)):
            key = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(key), placed)
        return key, placed, axes

    def _run(
        self,
        key: Any,
        args: tuple[Any, ...],
        chosen: check.Chosen | None,
        single: bool = False,
        give_up: Callable[[Plan], list[Any]] | None = None,
    ) -> Any:
        """A call; ``give_up`` says which arrays it may overwrite."""
        key, keys, axes = self._keys(key, args)
        prepared = self._prepare(key, args, axes, keys)
        if chosen is not None and prepared.drawing.watched:
            # A member may be made again, also beside the whole: its key is neither used up nor has
            # to be unused, as for `jax.random.fold_in`, which making one comes down to.
            key = jax.tree_util.tree_map(generators.unused, key)
            keys = jax.tree_util.tree_leaves(key)
        if chosen is not None and not prepared.drawing.alone:
            # A member is what it is among all, where keys may draw for the batch as a whole.
            return chosen.pick(self._run(key, args, None), single)
        plan = prepared.plan
        leaves = jax.tree_util.tree_leaves(args)
        size = self.size if chosen is None else chosen.count
        read = [leaves[position] for position in prepared.reads]
        tracing = compat.under_trace([*keys, *read, *prepared.captures])
        # What memory another platform's device has left is not known here.
        concrete = not tracing and compat.elsewhere((*keys, *leaves)) is None
        old = None if give_up is None else give_up(plan)
        # Within a trace there is no memory yet, or what runs now is only noted down.
        if old is not None and (tracing or compat.under_trace(old) or not compat.at_top()):
            old = None
        if old is not None:
            from . import donate as _donate

            old = _donate.free(old, (*keys, *read, *prepared.captures))
        reused = sum(leaf.nbytes for leaf in old or ())
        check.memory(plan, prepared.member_bytes, size, concrete, self._size_name, reused)
        stacked = [check.is_stack(one) for one in keys]
        if chosen is not None:
            read = [
                leaf if axis is None else chosen.take(leaf, axis)
                for leaf, axis in zip(read, prepared.axes, strict=True)
            ]
            keys = [
                chosen.take(one, 0) if each else one
                for one, each in zip(keys, stacked, strict=True)
            ]
            key = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(key), keys)
        types = prepared.types if chosen is None and old is None else None
        run, members = self._program(
            prepared, keys, chosen, stacked, single, types, old is not None
        )
        given = (prepared.captures, members)
        out = run(given, old, key, *read)
        alike = types is not None and not tracing and len(read) == len(leaves)
        if alike and isinstance(key, (jax.Array, np.ndarray)) and self._tries:
            self._direct = _Direct(run, given, type(key), backends.requested(), prepared)
        return jax.tree_util.tree_unflatten(plan.out_tree, out)

    def _program(
        self,
        prepared: Prepared,
        keys: list[Any],
        chosen: check.Chosen | None,
        stacked: list[bool],
        single: bool,
        types: Any,
        donate: bool,
    ) -> tuple[Any, Any]:
        """The compiled program of a call, and its operand of member indices."""
        size = self.size if chosen is None else chosen.count
        plan, rest = prepared.plan, (single, types, donate)
        if prepared.trimmed is None:
            modes, members = _member_words(chosen, stacked)
            # Found by a small key: the plan itself takes time to hash when it has many draws.
            variant: tuple[Any, ...] = (size, modes, single, types is None, donate)
            run = prepared.programs.get(variant)
            if run is None:
                run = execute.program(plan, size, modes, prepared.axes, *rest)
        else:
            folds = prepared.drawing.folds
            members = [_members(chosen, by_fold) for by_fold in folds]
            variant = (size, self.size, chosen is None, tuple(not each for each in stacked), folds)
            variant += (prepared.axes, *rest)
            run = prepared.programs.get(variant)
            if run is None:
                run = execute.reference_program(prepared.trimmed, *variant)
        prepared.programs[variant] = run
        return run, members

    def _prepare(
        self, key: Any, args: tuple[Any, ...], axes: tuple[int | None, ...], keys: list[Any]
    ) -> Prepared:
        """Traces and plans, once for each signature of the arguments."""
        leaves, tree = jax.tree_util.tree_flatten(args)
        abstract = [check.member_type(leaf, axis) for leaf, axis in zip(leaves, axes, strict=True)]
        key_tree = jax.tree_util.tree_structure(key)
        key_types = [check.member_key_type(one) for one in keys]
        signature = (
            key_tree,
            tuple((one.shape, one.dtype) for one in key_types),
            tree,
            axes,
            tuple((leaf.shape, leaf.dtype, leaf.weak_type) for leaf in abstract),
            backends.requested(),
            compat.trace_context(),
            (places.of((*keys, *leaves)), places.mapped_over()),
            compat.elsewhere((*keys, *leaves)),
        )
        prepared = self._prepared.get(signature)
        if prepared is not None:
            return prepared
        check.init_call(self.init, args)
        member_args = jax.tree_util.tree_unflatten(tree, abstract)
        key_type = jax.tree_util.tree_unflatten(key_tree, key_types)
        recorded = _trace.record(self.init, key_type, member_args)
        impls = [generators.of(one) for one in keys]
        reason = places.why_jaxs((*keys, *leaves), recorded.closed)
        from . import prepare  # all that plans is of no use before

        prepared = prepare.prepare(recorded, impls, axes, signature, reason)
        # A function that closes over values being traced means something else next time.
        if not compat.under_trace(recorded.closed.consts):
            self._prepared[signature] = prepared
        return prepared


def _member_words(
    chosen: check.Chosen | None, stacked: list[bool]
) -> tuple[tuple[KeyMode, ...], Any]:
    """The custom call's mode for each key and its operand of member indices (high, low words).

    No indices mean all members: then nothing has to be sent to the device.
    """
    if chosen is None:
        return tuple(KeyMode.MEMBER_KEYS if each else KeyMode.ALL for each in stacked), None
    consecutive = chosen.start is not None
    mode = KeyMode.RANGE if consecutive else KeyMode.INDICES
    modes = tuple(KeyMode.MEMBER_KEYS if each else mode for each in stacked)
    if all(stacked):
        return modes, None
    return modes, check.words(chosen.start if consecutive else chosen.indices())


def _members(chosen: check.Chosen | None, fold: bool) -> Any:
    """Which members the reference makes; see `_run.reference.member_keys`."""
    if chosen is None:
        return None
    return check.words(chosen.indices()) if fold else chosen.indices()


def _restored(init: pickling.Packed, size: int, in_axes: Any, donate: bool) -> Ensemble:
    return Ensemble(init.value, size, in_axes=in_axes, donate=donate)


def recorded_ensemble(
    recorded: _trace.Recorded, size: int, in_axes: tuple[int | None, ...]
) -> Ensemble:
    """An ensemble of a function that is traced already; nothing is traced again.

    Args:
        recorded: made by `_trace.record.record` for one member.
        size: number of members.
        in_axes: mapped axis, or None, of every argument leaf. The ensemble is called with
            the leaves, as ``(key, *leaves)``.
    """
    made = Ensemble(recorded, size, in_axes=in_axes)
    made._size_name = "axis_size"
    return made


def ensemble(
    init: Callable[..., Any], size: int, *, in_axes: Any = None, donate: bool = False
) -> Ensemble:
    """Initialises ``size`` independent members of a model at once, bit for bit as `jax.vmap`.

    Calling the result with a key equals ``jax.vmap(init)(jax.random.split(key, size))``; the
    random draws of all members are made by one fused custom call, and what is not recognised
    as a draw is left to XLA.

    Args:
        init: ``init(key, *args)``, any function of a JAX key (or of a pytree of keys) that
            returns a pytree of arrays.
        size: number of members; a positive Python or NumPy integer.
        in_axes: which axis of the further arguments to map over members, as for `jax.vmap`
            without the key: None (the default) gives every member the same arguments.
        donate: initialise anew into the memory of an old ensemble: the result is called as
            ``make(key, old, *args)``. No second copy exists at any time, and no memory has to
            be fetched, which costs more than half of a fresh ensemble.

    Returns:
        An `Ensemble`: call it, or use its methods ``plan``, ``member``, ``members`` and
        ``stream``. It works under ``jax.jit``, ``jax.vmap``, ``jax.lax.scan`` and
        ``jax.eval_shape``.

    Raises:
        TypeError: ``init`` is not callable, ``size`` is not an integer, or ``donate`` is not a
            bool.
        ValueError: ``size`` is not positive or is beyond any memory.

    Example:
        >>> import jax, seedbed as sb
        >>> def init(key):
        ...     w, b = jax.random.split(key)
        ...     return {"w": jax.random.normal(w, (3, 2)), "b": jax.random.uniform(b, (2,))}
        >>> make = sb.ensemble(init, 1000)
        >>> params = make(jax.random.key(0))
        >>> params["w"].shape
        (1000, 3, 2)
        >>> make.member(jax.random.key(0), 17)["b"].shape
        (2,)
        >>> again = sb.ensemble(init, 1000, donate=True)
        >>> params = again(jax.random.key(1), params)
    """
    return Ensemble(init, size, in_axes=in_axes, donate=donate)
