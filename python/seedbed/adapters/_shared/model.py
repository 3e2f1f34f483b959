"""What the adapters have in common: a framework's model as arrays and a static rest.

An adapter says how to make a model and take it apart (`TakenApart`), and how to put it together
again; `ModelEnsemble` does the rest with `seedbed.ensemble`, `ModelSingle` with `seedbed.single`.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..._base import pickling
from ..._ensemble import check, ensemble, single
from ..._plan import Plan
from .layouts import Places, checked_pad
from .parts import PARTS, Arrays, Parts, TakenApart, arrays

# Programs kept for one ensemble: one for each set of arguments that are not arrays.
KEPT = 64


@dataclass(frozen=True, slots=True)
class _Programs:
    """The two init functions of a model: of members' own arrays, of those for all.

    Attributes:
        own: an ensemble, or a single model with all that it has.
        mapped: positions of the array arguments that are mapped, with their axes.
    """

    own: Any
    common: single.Single
    mapped: dict[int, int]


class _Models:
    """Models of a framework, made by init functions of `seedbed`.

    Arguments that are arrays are traced; all others are part of the program, which is made anew
    for other ones.
    """

    in_axes: Any = None

    def __init__(
        self,
        make: Any,
        apart: Callable[[Any, tuple[Any, ...], dict[str, Any]], TakenApart],
        together: Callable[[TakenApart], Any],
        *,
        check_key: Callable[[Any], None] | None = None,
        places: Places | None = None,
    ) -> None:
        """
        Args:
            make: the user's model, for messages.
            apart: ``apart(key, args, kwargs)`` makes one member, under a trace.
            together: makes a model again of what ``apart`` gave, with or without a leading axis.
                Both have to pickle for the models to.
            check_key: raises where the framework does not take a key of this form.
            places: where the models' arrays lie; None leaves that to jax.
        """
        self._name = getattr(make, "__qualname__", None) or repr(make)
        self._apart = apart
        self._together = together
        self._check_key = check_key
        self._places = places
        self._kept: collections.OrderedDict[Hashable, _Programs] = collections.OrderedDict()

    def __reduce__(self) -> Any:
        # Copies start without programs, which cannot be copied.
        kept = {name: value for name, value in vars(self).items() if name != "_kept"}
        return _restored, (type(self), pickling.Packed(kept))

    def plan(self, key: Any, /, *args: Any, **kwargs: Any) -> Plan:
        """What would run for the members' own arrays; print ``plan(key).explain()``."""
        programs, leaves = self._programs(key, args, kwargs)
        plan: Plan = programs.own.plan(key, *leaves)
        return plan

    def _programs(
        self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[_Programs, Any]:
        if "key" in kwargs and not any(map(_is_array, jax.tree_util.tree_leaves(key))):
            raise TypeError(
                f"the key goes first: make(key, *args, **kwargs); got {key!r} in its place, and "
                "`key` by name"
            )
        if self._check_key is not None:
            self._check_key(key)
        given = check.finite(args, "args"), check.finite(kwargs, "kwargs")
        leaves, tree = jax.tree_util.tree_flatten(given)
        axes = self._axes(args, leaves)
        traced = [*map(_is_array, leaves)]
        for leaf, axis, is_traced in zip(leaves, axes, traced, strict=True):
            if axis is not None and not is_traced:
                raise TypeError(
                    f"`in_axes` maps axis {axis} of {leaf!r} of type {type(leaf).__name__}, which "
                    "is not an array"
                )
        fixed = [
            None if is_traced else leaf for leaf, is_traced in zip(leaves, traced, strict=True)
        ]
        arrays = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]
        # 1, 1.0 and True are equal and make different models, as do 0.0 and -0.0.
        kinds = tuple((type(leaf), _signed(leaf)) for leaf in fixed)
        names = None if self._places is None else self._places.names
        identity: Hashable = (tree, tuple(traced), tuple(axes), kinds, tuple(fixed), names)
        try:
            programs = self._kept.get(identity)
        except TypeError:  # an unhashable argument
            return self._made(tree, traced, fixed, axes), arrays
        if programs is None:
            programs = self._made(tree, traced, fixed, axes)
            self._kept[identity] = programs
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return programs, arrays

    def _axes(self, args: tuple[Any, ...], leaves: list[Any]) -> list[int | None]:
        if self.in_axes is None:
            return [None] * len(leaves)
        given = check.spread(self.in_axes, args)
        return [*given, *[None] * (len(leaves) - len(given))]

    def _made(
        self, tree: Any, traced: list[bool], fixed: list[Any], axes: list[int | None]
    ) -> _Programs:
        def apart(key: Any, arrays: tuple[Any, ...]) -> TakenApart:
            rest = iter(arrays)
            leaves = [next(rest) if one else leaf for one, leaf in zip(traced, fixed, strict=True)]
            args, kwargs = jax.tree_util.tree_unflatten(tree, leaves)
            return self._apart(key, args, kwargs)

        def init_of(*parts: str) -> Callable[..., Arrays]:
            return lambda key, *given: arrays(apart(key, given), parts)

        mapped = tuple(axis for axis, one in zip(axes, traced, strict=True) if one)
        return self._of(init_of, mapped)

    def _of(self, init_of: Callable[..., Any], mapped: tuple[int | None, ...]) -> _Programs:
        raise NotImplementedError


class ModelEnsemble(_Models):
    """An ensemble whose members are models of a framework. Made by the adapters' ``ensemble``."""

    def __init__(
        self,
        make: Any,
        size: int,
        apart: Callable[[Any, tuple[Any, ...], dict[str, Any]], TakenApart],
        together: Callable[[TakenApart], Any],
        *,
        in_axes: Any = None,
        check_key: Callable[[Any], None] | None = None,
        places: Places | None = None,
        pad: bool = False,
        donate: bool = False,
        own: Callable[[Any], Any] | None = None,
    ) -> None:
        """
        Args:
            size: number of members.
            in_axes: as for `seedbed.ensemble`, of the positional arguments.
            pad: whether more members are made where ``places`` does not divide ``size``.
            donate: whether calls take an old model, whose arrays are given up.
            own: ``own(model)``: the arrays with a member axis, as ``apart`` gives those of one.
        """
        super().__init__(make, apart, together, check_key=check_key, places=places)
        self.size = check.size(size)
        self.in_axes = in_axes
        self._pad = checked_pad(pad, places)
        self.donate = check.flag(donate, "donate")
        self._own = own

    def __repr__(self) -> str:
        return f"ensemble({self._name}, {self.size})"

    def __call__(self, key: Any, /, *args: Any, **kwargs: Any) -> Any:
        """All members, as one model whose arrays have a leading axis of length ``size``.

        Args:
            key: one key, which is split; or an array of ``size`` keys, used as they are.
            *args, **kwargs: further arguments of the model, the same for every member unless
                ``in_axes`` maps them. With ``donate=True`` they come after ``old``, a result of
                an earlier call, whose arrays are given up.
        """
        old, args = self._given_up(args)
        programs, leaves = self._programs(key, args, kwargs)
        return self._model(programs, programs.own(key, *old, *leaves), key, leaves)

    def own_arrays(self, key: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The arrays of one member's own, which are those that an ensemble is made of."""
        return self._apart(key, args, kwargs).own

    def _given_up(self, args: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """The arrays to overwrite, as the program has them, and the arguments of the model."""
        if not self.donate:
            return (), args
        if not args:
            raise TypeError(
                f"{self!r} with donate=True is called with the key, then `old`, the result of an "
                "earlier call; `old` is missing"
            )
        assert self._own is not None
        own = self._own(check.finite(args[0], "old"))
        return (arrays(TakenApart(own), ("own",)),), args[1:]

    def member(self, key: Any, i: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Member ``i`` alone: a plain model, in the time and memory of one member."""
        programs, leaves = self._programs(key, args, kwargs)
        return self._model(programs, programs.own.member(key, i, *leaves), key, leaves)

    def members(self, key: Any, index: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Some members, as one model: ``index`` is a slice or an array of integers."""
        programs, leaves = self._programs(key, args, kwargs)
        return self._model(programs, programs.own.members(key, index, *leaves), key, leaves)

    def stream(self, key: Any, /, *args: Any, chunk_size: int, **kwargs: Any) -> Iterator[Any]:
        """All members in order, as models of at most ``chunk_size``, each made when asked for."""
        programs, leaves = self._programs(key, args, kwargs)
        chunks = programs.own.stream(key, *leaves, chunk_size=chunk_size)
        return (self._model(programs, out, key, leaves) for out in chunks)

    def _model(self, programs: _Programs, out: Arrays, key: Any, leaves: list[Any]) -> Any:
        sizes = out.rest.map(lambda tree: tree.num_leaves)
        shared: list[Any] = []
        if sizes.common or sizes.aside:
            shared = list(_common(programs, key, leaves).leaves)
        parts = Parts(out.leaves, shared[: sizes.common], shared[sizes.common :])
        return self._together(out.rest.model(parts))

    def _of(self, init_of: Callable[..., Any], mapped: tuple[int | None, ...]) -> _Programs:
        options: dict[str, Any] = {"donate": self.donate}
        shared = None
        if self._places is not None:
            options["out_shardings"] = self._places.of("own", members=True)
            options["pad"] = self._pad
            shared = self._places.of("common", "aside", members=True)
        return _Programs(
            ensemble.ensemble(init_of("own"), self.size, in_axes=mapped, **options),
            single.single(init_of("common", "aside"), out_shardings=shared),
            {place: axis for place, axis in enumerate(mapped) if axis is not None},
        )


class ModelSingle(_Models):
    """One model of a framework. Made by the adapters' ``single``."""

    def __repr__(self) -> str:
        return f"single({self._name})"

    def __call__(self, key: Any, /, *args: Any, **kwargs: Any) -> Any:
        """The model.

        Args:
            key: one key, which is not split.
            *args, **kwargs: further arguments of the model.
        """
        programs, leaves = self._programs(key, args, kwargs)
        out = programs.own(key, *leaves)
        sizes = out.rest.map(lambda tree: tree.num_leaves)
        after = sizes.own + sizes.common
        parts = Parts(out.leaves[: sizes.own], out.leaves[sizes.own : after], out.leaves[after:])
        return self._together(out.rest.model(parts))

    def _of(self, init_of: Callable[..., Any], mapped: tuple[int | None, ...]) -> _Programs:
        places = None if self._places is None else self._places.of(*PARTS, members=False)
        made = single.single(init_of(*PARTS), out_shardings=places)
        return _Programs(made, made, {})


def _restored(kind: type[_Models], kept: pickling.Packed) -> _Models:
    made = kind.__new__(kind)
    vars(made).update(kept.value, _kept=collections.OrderedDict())
    return made


def _common(programs: _Programs, key: Any, leaves: list[Any]) -> Any:
    """What all members share, made once; mapped arguments have no value for all members."""
    leaves = list(leaves)
    for place, axis in programs.mapped.items():
        leaves[place] = jax.lax.index_in_dim(leaves[place], 0, axis, keepdims=False)
    for one in jax.tree_util.tree_leaves(key):
        if check.is_stack(one):
            raise ValueError(
                "arrays that all members share are made with the key that members' keys are split "
                f"from; got an array of {one.shape[0]} keys"
            )
    if read := programs.mapped.keys() & set(single.reads(programs.common, key, *leaves)):
        shapes = ", ".join(str(leaves[place].shape) for place in sorted(read))
        raise ValueError(
            "arrays that all members share cannot depend on arguments that `in_axes` maps over "
            f"members; they depend on those of shape {shapes} a member"
        )
    return programs.common(key, *leaves)


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def _signed(value: Any) -> str | None:
    """The text of a number, which tells zeros of either sign apart."""
    return repr(value) if isinstance(value, (float, complex, np.inexact)) else None
