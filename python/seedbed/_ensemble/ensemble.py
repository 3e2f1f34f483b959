"""`ensemble`: the public object, and the only place that joins the stages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jax

from .._base import pickling
from .._jax import compat, generators
from .._plan import Plan
from .._run.members import Wanted
from . import check
from .call import Call, checked, unused

if TYPE_CHECKING:
    from .._run.layout import Layout
    from .._store.saved import Saved
    from .call import Signature
    from .direct import Direct
    from .lazy import Lazy
    from .prepare import Prepared


class Ensemble:
    """An init function, ready to be called for all members at once. Made by `ensemble`."""

    # What the caller knows the number of members as.
    _size_name = "size"
    # Whether it is a single model, of size 1, whose leaves have no dimension for members.
    _alone = False
    # Whether results are made on this machine's processor, and then moved to their devices.
    _moved = False

    def __init__(
        self,
        init: Callable[..., Any],
        size: int,
        *,
        in_axes: Any = None,
        donate: bool = False,
        out_shardings: Any = None,
        pad: bool = False,
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
        self.out_shardings = out_shardings
        self.pad = check.flag(pad, "pad")
        if out_shardings is not None:
            from . import shardings

            shardings.checked(out_shardings)
        elif self.pad:
            raise ValueError("`pad` is for `out_shardings`, which is not given")
        self._prepared: dict[Signature, Prepared] = {}
        self._direct: Direct | None = None
        # What `lazy` has made of it.
        self._kept: dict[str, Any] = {}

    def __repr__(self) -> str:
        name = getattr(self.init, "__qualname__", None) or repr(self.init)
        given = {
            "in_axes": self.in_axes,
            "donate": self.donate or None,
            "out_shardings": self.out_shardings,
            "pad": self.pad or None,
        }
        options = [f", {name}={value!r}" for name, value in given.items() if value is not None]
        return f"ensemble({name}, {self.size}{''.join(options)})"

    def __reduce__(self) -> Any:
        # Copies start without compiled programs, which cannot be copied.
        options = {
            "in_axes": self.in_axes,
            "donate": self.donate,
            "out_shardings": pickling.AsItIs(self.out_shardings),
            "pad": self.pad,
        }
        return _restored, (pickling.Packed(self.init), self.size, options)

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
                several devices, where the new ones are laid out alike, as with `jax.jit`:
                ``out_shardings`` says how they are.
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
        out = NotImplemented if self._direct is None else self._direct.run(key, args)
        return self._run(self._call(key, args)) if out is NotImplemented else out

    def _renew(self, key: Any, *args: Any) -> Any:
        if not args:
            raise TypeError(
                "an ensemble with donate=True is called as make(key, old, *args), where `old` is "
                "the result of an earlier call; `old` is missing"
            )
        from . import donate

        old, args = check.finite(args[0], "old"), args[1:]

        def give_up(plan: Plan, shape: tuple[int, ...]) -> list[Any]:
            return donate.checked(old, plan, shape, (key, args))

        return self._run(self._call(key, args, give_up=give_up))

    def plan(self, key: Any, *args: Any) -> Plan:
        """What would run, as inert data; print ``plan(key).explain()``."""
        return self._prepare(self._call(key, args)).plan

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
        return self._run(self._call(key, args, check.member(i, self.size), single=True))

    def members(self, key: Any, index: Any, *args: Any) -> Any:
        """Some members, stacked: ``index`` is a slice or an array of integers as for `member`.

        Raises:
            TypeError: ``index`` is neither, or holds traced integers that `member` would refuse.
            IndexError: an index is out of range.
        """
        return self._run(self._call(key, args, check.members(index, self.size)))

    def reinit(self, params: Any, key: Any, index: Any, *args: Any) -> Any:
        """Some members drawn again, the others as they are, bit for bit.

        A chosen member i of the result is member i of ``make(key, *args)``. Only the chosen are
        made, unless a mask is traced: how many it chooses is not known then, and all are. Where
        that is bounded, ``jnp.nonzero(mask, size=k, fill_value=size)[0]`` makes k. With
        ``donate=True`` the arrays of ``params`` are given up and overwritten, as in the call.

        Args:
            params: a result of the call, or like one. Its arrays stay on their devices; on several
                of them, what is made is sent to where it belongs.
            key: as for the call. Use a new one: with the old key members come out as they were.
            index: an integer, a slice, an array of integers, or a mask of ``size`` bools. Traced
                integers as for `members`, but those out of range choose nobody.
            *args: as for the call.

        Raises:
            TypeError: ``index`` is none of these, or a leaf of ``params`` is not an array.
            ValueError: ``params`` is not like the result, or a mask not of ``size`` values.
            IndexError: an index is out of range.
        """
        from . import renew

        return renew.renewed(self, params, key, index, args)

    def stream(self, key: Any, *args: Any, chunk_size: int) -> Iterator[Any]:
        """All members in order, in pieces of at most ``chunk_size``, each made when asked for."""
        # Checked here, not when the first piece is asked for.
        chunk = check.size(chunk_size, "chunk_size")
        whole = self._call(key, args)
        if self._prepare(whole).drawing.watched:
            generators.use_up(whole.keys)  # as the whole call does
        return (
            self.members(whole.key, slice(start, start + chunk), *args)
            for start in range(0, self.size, chunk)
        )

    def save(
        self,
        path: Any,
        key: Any,
        *args: Any,
        chunk_size: int | None = None,
        progress: bool = True,
        overwrite: bool = False,
        part: tuple[int, int] | None = None,
    ) -> Saved | None:
        """Writes all members to disk, in pieces: memory is bounded by two of them.

        What is written is a checkpoint of Orbax, of zarr arrays, with the members in dimension 0.
        Nothing is at ``path`` until all of it is there. A call that was interrupted, at any time
        and by anything, is repeated, and goes on from where it was; the same call on a store that
        is whole does nothing. Needs ``pip install 'seedbed[save]'``.

        Args:
            path: of the new folder, on a local or shared file system.
            key, *args: as for the call; with ``donate=True``, too, there is no ``old``.
            chunk_size: members that are made and stored together; None (the default) takes as
                many as are 128 MiB.
            progress: show members, rate and time left on stderr, if that is a terminal.
            overwrite: replace another ensemble at ``path``, once the new one is whole.
            part: ``(i, n)``: only the ``i``-th of ``n`` parts of the chunks, for several processes
                that write to one path; whichever finds all of it there finishes it.

        Returns:
            The ensemble on disk, as of `load`; None while other parts are missing.

        Raises:
            FileExistsError: something else is at ``path``.
            StoreError: an interrupted call was of another key, function, argument or version: it
                says which.
            ValueError: members cannot be made in pieces: their keys draw for all of them at once.
            ImportError: Orbax or TensorStore is not installed.
            OSError: the disk is full, or cannot be written to.
        """
        from . import saving

        order = saving.ordered(path, chunk_size, progress, overwrite, part)
        return saving.save(self, order, key, args)

    def lazy(self, key: Any, *args: Any) -> Lazy:
        """The ensemble as an object that makes what it is asked for; see `Lazy`."""
        from .lazy import Lazy

        return Lazy(self, key, args)

    def _call(self, key: Any, args: tuple[Any, ...], *wanted: Any, **options: Any) -> Call:
        return checked(key, args, self.in_axes, self.size, *wanted, **options)

    def _prepare(self, call: Call) -> Prepared:
        """Traces and plans, once for each signature of calls."""
        signature = call.signature(laid_out=self.out_shardings is not None)
        prepared = self._prepared.get(signature)
        if prepared is None:
            from . import prepare  # all that plans is of no use before

            size = None if self._alone else self.size
            rest = (self.out_shardings, size, self._moved)
            prepared = prepare.prepare(self.init, call, signature, *rest)
            if prepared.lasting:
                self._prepared[signature] = prepared
        return prepared

    def _run(self, call: Call) -> Any:
        prepared = self._prepare(call)
        if call.chosen is not None and prepared.drawing.watched:
            # A member may be made again, also beside the whole: its key is neither used up nor has
            # to be unused, as for `jax.random.fold_in`, which making one comes down to.
            call = unused(call)
        layout = prepared.layout
        if call.chosen is not None and not prepared.drawing.alone:
            # A member is what it is among all, where keys may draw for the batch as a whole.
            picked = call.chosen.pick(self._run(call.whole()), call.single)
            if layout is None:
                return picked
            return layout.placed(picked, call.single, self._padded(layout, call))
        program, plan = prepared.program, prepared.plan
        padded = 0 if layout is None else self._padded(layout, call)
        read = [call.leaves[position] for position in program.reads]
        taken = [*call.keys, *read, *program.captures]
        tracing = compat.under_trace(taken)
        shape = () if call.single else (padded or self.size,)
        old = self._given_up(call, plan, shape, taken, tracing)
        # What memory another platform's device has left is not known here.
        concrete = not tracing and compat.elsewhere((*call.keys, *call.leaves)) is None
        reused = sum(leaf.nbytes for leaf in old or ())
        lasting = call.chosen is None and old is None and layout is None
        types = prepared.types if lasting else None
        donated = old is not None
        rest = (call.stacked, call.single, types, donated, layout, padded)
        wanted = Wanted(self.size, call.chosen, *rest)
        check.memory(plan, prepared.member_bytes, wanted.size, concrete, self._size_name, reused)
        bound = program.bind(wanted)
        key, read = call.of_members(read, program.axes)
        out = bound.run(bound.given, old, key, *read)
        repeatable = types is not None and not (call.single or tracing)
        if repeatable and len(read) == len(call.leaves):
            if self._direct is None:
                from .direct import Direct

                self._direct = Direct()
            self._direct.keep(bound, call.key, prepared, self.size, self._size_name)
        return jax.tree_util.tree_unflatten(plan.out_tree, out)

    def _padded(self, layout: Layout, call: Call) -> int:
        """How many members a call makes whose results are laid out over devices."""
        from . import shardings

        shardings.committed(call, layout.mesh)
        if call.single:
            return 1
        count = self.size if call.chosen is None else call.chosen.count
        name = self._size_name if call.chosen is None else "index"
        return shardings.padded(layout, count, self.pad, name)

    def _given_up(
        self, call: Call, plan: Plan, shape: tuple[int, ...], taken: list[Any], tracing: bool
    ) -> list[Any] | None:
        """The arrays that a call overwrites; None if it has memory of its own."""
        old = None if call.give_up is None else call.give_up(plan, shape)
        # Within a trace there is no memory yet, or what runs now is only noted down.
        if old is None or tracing or compat.under_trace(old) or not compat.at_top():
            return None
        from . import donate

        return donate.free(old, taken)


def _restored(init: pickling.Packed, size: int, options: dict[str, Any]) -> Ensemble:
    options["out_shardings"] = options["out_shardings"].value
    return Ensemble(init.value, size, **options)


def ensemble(
    init: Callable[..., Any],
    size: int,
    *,
    in_axes: Any = None,
    donate: bool = False,
    out_shardings: Any = None,
    pad: bool = False,
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
        out_shardings: how the results are laid out over devices, as for `jax.jit`: a
            `NamedSharding`, a `PartitionSpec` of the mesh that is set (`jax.set_mesh`), or a
            pytree of these and None (whole on every device) that is a prefix of the result's
            structure. Dimension 0 is that of the members. Each device makes its own part, with
            the bits that it has on one device, and nothing is sent between them.
        pad: make more members, up to a number that ``out_shardings`` divides; the first ``size``
            of them are the same, the rest are those of a larger ensemble. Mapped arguments and
            given keys are padded with their last one.

    Returns:
        An `Ensemble`: call it, or use its methods ``plan``, ``member``, ``members``, ``reinit``
        and ``stream``. It works under ``jax.jit``, ``jax.vmap``, ``jax.lax.scan`` and
        ``jax.eval_shape``.

    Raises:
        TypeError: ``init`` is not callable, ``size`` is not an integer, ``donate`` or ``pad`` is
            not a bool, or ``out_shardings`` does not consist of shardings.
        ValueError: ``size`` is not positive or is beyond any memory, or ``pad`` is given without
            ``out_shardings``.

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
    return Ensemble(
        init, size, in_axes=in_axes, donate=donate, out_shardings=out_shardings, pad=pad
    )
