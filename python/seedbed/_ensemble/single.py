"""`single`: one model, made as an ensemble's member is, from a key that is not split."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from .._base import pickling
from .._plan import Plan
from . import check, donate
from .ensemble import Ensemble


class _One(Ensemble):
    """An ensemble of one whose results have no dimension for members."""

    _alone = True


class Single:
    """An init function, ready to be called for one model. Made by `single`."""

    def __init__(
        self, init: Callable[..., Any], *, out_shardings: Any = None, donate: bool = False
    ) -> None:
        self._make = _One(init, 1, out_shardings=out_shardings, donate=donate)

    @property
    def init(self) -> Callable[..., Any]:
        return self._make.init

    @property
    def out_shardings(self) -> Any:
        return self._make.out_shardings

    @property
    def donate(self) -> bool:
        return self._make.donate

    def __repr__(self) -> str:
        name = getattr(self.init, "__qualname__", None) or repr(self.init)
        places = "" if self.out_shardings is None else f", out_shardings={self.out_shardings!r}"
        return f"single({name}{places}{', donate=True' if self.donate else ''})"

    def __reduce__(self) -> Any:
        return _restored, (pickling.Packed(self.init), self.out_shardings, self.donate)

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
        return self._make._prepare(self._make._call(_stacked(key), args, single=True)).plan


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


def _restored(init: pickling.Packed, out_shardings: Any, donate: bool) -> Single:
    return Single(init.value, out_shardings=out_shardings, donate=donate)


def single(init: Callable[..., Any], *, out_shardings: Any = None, donate: bool = False) -> Single:
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

    Returns:
        A `Single`: call it with a key, which is not split.

    Raises:
        TypeError: ``init`` is not callable, ``donate`` is not a bool, or ``out_shardings`` does
            not consist of shardings.

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
    return Single(init, out_shardings=out_shardings, donate=donate)
