"""`single`: one model, made as an ensemble's member is, from a key that is not split."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax

from .._base import pickling
from .._jax import compat, places
from .._plan import Plan
from . import check, donate, shardings
from .ensemble import Ensemble

if TYPE_CHECKING:
    from .call import Call
    from .prepare import Prepared


class _One(Ensemble):
    """An ensemble of one whose results have no dimension for members."""

    _alone = True


class Single:
    """An init function, ready to be called for one model. Made by `single`."""

    def __init__(
        self,
        init: Callable[..., Any],
        *,
        out_shardings: Any = None,
        donate: bool = False,
        host: bool = False,
    ) -> None:
        self._make = _One(init, 1, out_shardings=out_shardings, donate=donate)
        self._make._moved = check.flag(host, "host")
        self._made: dict[Any, _One] = {}  # by the mesh that is set, with `host`
        if host and (out_shardings is None or donate):
            raise ValueError(
                "`host` is for `out_shardings`, which says where the parts go, and without `donate`"
            )

    @property
    def init(self) -> Callable[..., Any]:
        return self._make.init

    @property
    def out_shardings(self) -> Any:
        return self._make.out_shardings

    @property
    def donate(self) -> bool:
        return self._make.donate

    @property
    def host(self) -> bool:
        return self._make._moved

    def __repr__(self) -> str:
        name = getattr(self.init, "__qualname__", None) or repr(self.init)
        places = "" if self.out_shardings is None else f", out_shardings={self.out_shardings!r}"
        flags = [f", {flag}=True" for flag in ("donate", "host") if getattr(self, flag)]
        return f"single({name}{places}{''.join(flags)})"

    def __reduce__(self) -> Any:
        options = {"donate": self.donate, "host": self.host}
        return _restored, (pickling.Packed(self.init), pickling.AsItIs(self.out_shardings), options)

    def __call__(self, key: Any, *args: Any) -> Any:
        """The model: equal to ``jax.jit(init)(key, *args)``.

        Args:
            key: one key (typed, or legacy ``uint32[2]``), or a pytree of such, as ``init`` takes
                them; it is not split.
            *args: further arguments of ``init``. With ``donate=True`` they come after ``old``, a
                result of an earlier call, whose arrays are given up.

        Raises:
            TypeError: ``key`` is neither a key nor a pytree of keys, or ``init`` cannot be
                called this way.
            ValueError: ``key`` holds several keys or is bound to other devices than
                ``out_shardings``, that does not fit the result, or ``old`` is not like it.
            MemoryError: the result would not fit into this machine's memory.
        """
        make = self._make
        if self.host:
            return self._on_host(key, args)
        stacked = _stacked(key)
        if not self.donate:
            return make._run(make._call(stacked, args, single=True))
        if not args:
            raise TypeError(
                "a single model with donate=True is made as make(key, old, *args), where `old` "
                "is the result of an earlier call; `old` is missing"
            )
        old, args = check.finite(args[0], "old"), args[1:]

        def give_up(plan: Plan, leading: tuple[int, ...]) -> list[Any]:
            return donate.checked(old, plan, leading, (key, args))

        return make._run(make._call(stacked, args, single=True, give_up=give_up))

    def plan(self, key: Any, *args: Any) -> Plan:
        """What would run, as inert data; print ``plan(key).explain()``."""
        if self.host:
            make = self._of_mesh()
            with places.on_one(compat.first_device("cpu")):
                return _moved(make, key, args)[1].plan
        return self._make._prepare(self._make._call(_stacked(key), args, single=True)).plan

    def _on_host(self, key: Any, args: tuple[Any, ...]) -> Any:
        """The model, each part made by this machine's processor and sent to its devices."""
        if compat.under_trace(jax.tree_util.tree_leaves((key, args))) or not compat.at_top():
            raise ValueError(
                "`host=True` makes arrays at once and sends them to devices, which a program that "
                "is being traced (jax.jit, jax.vmap) cannot"
            )
        from .._run import host

        make = self._of_mesh()
        with places.on_one(compat.first_device("cpu")):
            call, prepared = _moved(make, key, args)
            layout = prepared.layout
            assert layout is not None
            check.memory(prepared.plan, prepared.member_bytes, 1, True, "init")
            read = [call.leaves[position] for position in prepared.program.reads]
            out = host.run(prepared.program, layout, call.keys, read)
        return jax.tree_util.tree_unflatten(prepared.plan.out_tree, out)

    def _of_mesh(self) -> _One:
        """The ensemble whose specs are of the mesh that is set, which is then put aside."""
        mesh = places.ambient_mesh()
        made = self._made.get(mesh)
        if made is None:
            named = shardings.of_mesh(self.out_shardings, mesh)
            made = self._made[mesh] = _One(self.init, 1, out_shardings=named)
            made._moved = True
        return made


def _moved(make: _One, key: Any, args: tuple[Any, ...]) -> tuple[Call, Prepared]:
    """A call by this machine's processor, and what it runs."""
    here = compat.first_device("cpu")
    key, args = jax.tree_util.tree_map(lambda one: jax.device_put(one, here), (key, args))
    call = make._call(_stacked(key), args, single=True)
    return call, make._prepare(call)


def reads(make: Single, key: Any, *args: Any) -> tuple[int, ...]:
    """Positions of the leaves of the arguments that matter."""
    one = make._make
    return one._prepare(one._call(_stacked(key), args, single=True)).program.reads


def _stacked(key: Any) -> Any:
    """A key as that of the one member, checked."""
    for leaf in check.keys(key, 1):
        if check.is_stack(leaf):
            raise ValueError(
                "`key` must be one key for a single model, which is not split (an array of keys "
                f"is for seedbed.ensemble); got keys of shape {leaf.shape}"
            )
    return jax.tree_util.tree_map(lambda one: one[None], key)


def _restored(init: pickling.Packed, places: pickling.AsItIs, options: dict[str, bool]) -> Single:
    return Single(init.value, out_shardings=places.value, **options)


def single(
    init: Callable[..., Any],
    *,
    out_shardings: Any = None,
    donate: bool = False,
    host: bool = False,
) -> Single:
    """Initialises one model, bit for bit as ``jax.jit(init, out_shardings=...)`` does.

    What takes minutes there, the compilation of a large model's random draws, takes a second:
    they are one custom call, made in place on the devices where they will live.

    Args:
        init: ``init(key, *args)``, any function of a JAX key (or of a pytree of keys) that
            returns a pytree of arrays.
        out_shardings: how the results are laid out over devices, as for `jax.jit`: a
            `NamedSharding`, a `PartitionSpec` of the mesh that is set (`jax.set_mesh`), or a
            pytree of these and None (whole on every device) that is a prefix of the result's
            structure. Each device makes its own part, with the bits that it has on one device.
        donate: initialise anew into the memory of an old model: the result is called as
            ``make(key, old, *args)``.
        host: make each part by this machine's processor, and send it to its device: for devices
            that there is no kernel for. Nothing is compiled for these, and the numbers are those
            of jax on a CPU, which on other devices may differ in last bits. Each process makes
            the parts of its own devices, outside of `jax.jit`.

    Returns:
        A `Single`: call it with a key, which is not split.

    Raises:
        TypeError: ``init`` is not callable, ``donate`` or ``host`` is not a bool, or
            ``out_shardings`` does not consist of shardings.
        ValueError: ``host`` is given without ``out_shardings``, or with ``donate``.

    Example:
        >>> import jax, seedbed as sb
        >>> from jax.sharding import NamedSharding, PartitionSpec as P
        >>> def init(key):
        ...     return {"w": jax.random.normal(key, (8, 16))}
        >>> mesh = jax.make_mesh((1,), ("model",))
        >>> make = sb.single(init, out_shardings=NamedSharding(mesh, P(None, "model")))
        >>> model = make(jax.random.key(0))
        >>> model["w"].sharding.spec
        PartitionSpec(None, 'model')
    """
    return Single(init, out_shardings=out_shardings, donate=donate, host=host)
