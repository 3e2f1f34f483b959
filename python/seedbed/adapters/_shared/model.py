"""What the adapters have in common: a framework's model as arrays and a static rest.

An adapter says how to make a model and take it apart (`TakenApart`), and how to put it together
again; `ModelEnsemble` does the rest with `seedbed.ensemble`.
"""

from __future__ import annotations

import collections
import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ..._base import pickling
from ..._ensemble import check, ensemble
from ..._plan import Plan

# Programs kept for one ensemble: one for each set of arguments that are not arrays.
_KEPT = 64


@dataclass(frozen=True, slots=True)
class TakenApart:
    """A model of one member: pytrees of arrays of its own, arrays for all members, the rest."""

    own: Any
    common: Any = ()
    rest: Any = None


class _Rest:
    """What of a model is not an array, equal to itself only: it need not be comparable."""

    def __init__(self, tree: Any, common_tree: Any, value: Any) -> None:
        self.tree = tree
        self.common_tree = common_tree
        self.value = value

    def __reduce__(self) -> Any:
        return _Rest, (None, None, None)  # in a plan, which makes no models


@jax.tree_util.register_pytree_with_keys_class
class _Own:
    """The arrays of a model under their names, and its rest."""

    def __init__(self, leaves: Sequence[Any], names: tuple[str, ...], rest: _Rest) -> None:
        self.leaves = leaves
        self.names = names
        self.rest = rest

    def tree_flatten_with_keys(self) -> tuple[list[tuple[str, Any]], tuple[Any, ...]]:
        return list(zip(self.names, self.leaves, strict=True)), (self.names, self.rest)

    @classmethod
    def tree_unflatten(cls, aux: tuple[Any, ...], leaves: Sequence[Any]) -> _Own:
        return cls(leaves, *aux)


@dataclass(frozen=True, slots=True)
class _Programs:
    """The two init functions of a model: of members' own arrays, of those for all."""

    own: ensemble.Ensemble
    common: ensemble.Ensemble
    # Positions of the array arguments that are mapped, with their axes.
    mapped: dict[int, int]


class ModelEnsemble:
    """An ensemble whose members are models of a framework. Made by the adapters' ``ensemble``.

    Arguments that are arrays are traced; all others are part of the program, which is made anew
    for other ones.
    """

    def __init__(
        self,
        make: Any,
        size: int,
        apart: Callable[[Any, tuple[Any, ...], dict[str, Any]], TakenApart],
        together: Callable[[TakenApart], Any],
        *,
        in_axes: Any = None,
        check_key: Callable[[Any], None] | None = None,
    ) -> None:
        """
        Args:
            make: the user's model, for messages.
            size: number of members.
            apart: ``apart(key, args, kwargs)`` makes one member, under a trace.
            together: makes a model again of what ``apart`` gave, with or without a leading axis.
                Both have to pickle for the ensemble to.
            in_axes: as for `seedbed.ensemble`, of the positional arguments.
            check_key: raises where the framework does not take a key of this form.
        """
        self.size = check.size(size)
        self.in_axes = in_axes
        self._name = getattr(make, "__qualname__", None) or repr(make)
        self._apart = apart
        self._together = together
        self._check_key = check_key
        self._kept: collections.OrderedDict[Hashable, _Programs] = collections.OrderedDict()

    def __repr__(self) -> str:
        return f"ensemble({self._name}, {self.size})"

    def __reduce__(self) -> Any:
        # Copies start without programs, which cannot be copied.
        kept = {name: value for name, value in vars(self).items() if name != "_kept"}
        return _restored, (type(self), pickling.Packed(kept))

    def __call__(self, key: Any, /, *args: Any, **kwargs: Any) -> Any:
        """All members, as one model whose arrays have a leading axis of length ``size``.

        Args:
            key: one key, which is split; or an array of ``size`` keys, used as they are.
            *args, **kwargs: further arguments of the model, the same for every member unless
                ``in_axes`` maps them.
        """
        programs, leaves = self._programs(key, args, kwargs)
        return self._model(programs, programs.own(key, *leaves), key, leaves)

    def member(self, key: Any, i: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Member ``i`` alone: a plain model, in the time and memory of one member."""
        programs, leaves = self._programs(key, args, kwargs)
        return self._model(programs, programs.own.member(key, i, *leaves), key, leaves)

    def members(self, key: Any, index: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Some members, as one model: ``index`` is a slice or an array of integers."""
        programs, leaves = self._programs(key, args, kwargs)
        return self._model(programs, programs.own.members(key, index, *leaves), key, leaves)

    def plan(self, key: Any, /, *args: Any, **kwargs: Any) -> Plan:
        """What would run for the members' own arrays; print ``plan(key).explain()``."""
        programs, leaves = self._programs(key, args, kwargs)
        return programs.own.plan(key, *leaves)

    def _model(self, programs: _Programs, out: _Own, key: Any, leaves: list[Any]) -> Any:
        rest = out.rest
        own = jax.tree_util.tree_unflatten(rest.tree, out.leaves)
        shared = _common(programs, key, leaves) if rest.common_tree.num_leaves else []
        common = jax.tree_util.tree_unflatten(rest.common_tree, shared)
        return self._together(TakenApart(own, common, rest.value))

    def _programs(
        self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[_Programs, Any]:
        if self._check_key is not None:
            self._check_key(key)
        given = check.finite(args, "args"), check.finite(kwargs, "kwargs")
        leaves, tree = jax.tree_util.tree_flatten(given)
        axes = self._axes(args, leaves)
        traced = [isinstance(leaf, (jax.Array, np.ndarray)) for leaf in leaves]
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
        identity: Hashable = (tree, tuple(traced), tuple(axes), kinds, tuple(fixed))
        try:
            programs = self._kept.get(identity)
        except TypeError:  # an unhashable argument
            return self._made(tree, traced, fixed, axes), arrays
        if programs is None:
            programs = self._made(tree, traced, fixed, axes)
            self._kept[identity] = programs
            while len(self._kept) > _KEPT:
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

        def own(key: Any, *arrays: Any) -> _Own:
            made = apart(key, arrays)
            found, tree = jax.tree_util.tree_flatten_with_path(made.own)
            names = tuple(jax.tree_util.keystr(path) for path, _ in found)
            rest = _Rest(tree, jax.tree_util.tree_structure(made.common), made.rest)
            return _Own([leaf for _, leaf in found], names, rest)

        def common(key: Any, *arrays: Any) -> Any:
            return jax.tree_util.tree_leaves(apart(key, arrays).common)

        mapped = tuple(axis for axis, one in zip(axes, traced, strict=True) if one)
        return _Programs(
            ensemble.ensemble(own, self.size, in_axes=mapped),
            ensemble.ensemble(common, 1),
            {place: axis for place, axis in enumerate(mapped) if axis is not None},
        )


def check_key(value: Any, name: str, *, named: bool) -> None:
    """Whether a key has a form that a framework takes; what is in it is checked later.

    Args:
        named: whether a mapping from names to keys is one.
    """
    if value is None or jax.tree_util.all_leaves([check.finite(value, name)]):
        return
    accepted = "one key, or an array with a key for each member"
    what = f"a {type(value).__name__} of {len(jax.tree_util.tree_leaves(value))}"
    if named:
        accepted += '; or a mapping from names to such, as {"params": key, "dropout": other}'
        if isinstance(value, Mapping):
            wrong = [
                one
                for one, key in value.items()
                if not (isinstance(one, str) and jax.tree_util.all_leaves([key]))
            ]
            if not wrong:
                return
            what = f"a mapping with a {type(value[wrong[0]]).__name__} under {wrong[0]!r}"
    raise TypeError(f"`{name}` must be {accepted}; got {what}")


def check_arguments(
    make: Any, args: tuple[Any, ...], kwargs: dict[str, Any], first: str, given: Any, accepted: str
) -> None:
    """Whether ``make`` takes what follows the first argument of the call, its random numbers.

    Those who forget it see their own first argument taken for it.
    """
    function: Any = make
    before: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        before, options = (*function.args, *before), {**function.keywords, **options}
        function = function.func
    name = getattr(function, "__qualname__", None) or repr(function)
    made: Any = function
    if isinstance(function, type):  # the metaclass takes anything
        function, before = made.__init__, (None, *before)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins and some wrapped functions have none
        return
    try:
        signature.bind(*before, *args, **{**options, **kwargs})
    except TypeError as error:
        what = f"the seed {given}" if isinstance(given, int) else f"of type {type(given).__name__}"
        raise TypeError(
            f"`{first}` is the first argument of the call, {accepted}; it is {what}, and {name} "
            f"does not take the {len(args)} argument(s) that follow: {error}"
        ) from None


def _restored(kind: type[ModelEnsemble], kept: pickling.Packed) -> ModelEnsemble:
    made = kind.__new__(kind)
    vars(made).update(kept.value, _kept=collections.OrderedDict())
    return made


def _common(programs: _Programs, key: Any, leaves: list[Any]) -> Any:
    """What all members share, made once; mapped arguments have no value for all members."""
    leaves = list(leaves)
    for place, axis in programs.mapped.items():
        leaves[place] = jax.lax.index_in_dim(leaves[place], 0, axis, keepdims=False)
    single = _single(key)
    if read := programs.mapped.keys() & set(ensemble.reads(programs.common, single, *leaves)):
        shapes = ", ".join(str(leaves[place].shape) for place in sorted(read))
        raise ValueError(
            "arrays that all members share cannot depend on arguments that `in_axes` maps over "
            f"members; they depend on those of shape {shapes} a member"
        )
    return programs.common.member(single, 0, *leaves)


def _signed(value: Any) -> str | None:
    """The text of a number, which tells zeros of either sign apart."""
    return repr(value) if isinstance(value, (float, complex, np.inexact)) else None


def _single(key: Any) -> Any:
    """The key as a stack of one: what a model outside of an ensemble is made with."""

    def stacked(one: Any) -> Any:
        if check.is_stack(one):
            raise ValueError(
                "arrays that all members share are made with the key that members' keys are split "
                f"from; got an array of {one.shape[0]} keys"
            )
        return one[None]

    return jax.tree_util.tree_map(stacked, key)
