"""Adapter for `haiku`: ensembles of transformed functions, as stacked parameters and states."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import haiku as hk

from .._base import pickling
from ._shared import shapes
from ._shared import variables as _variables
from ._shared.checks import check_key
from ._shared.layouts import Framework, Places
from ._shared.model import ModelSingle
from ._shared.parts import TakenApart
from ._shared.stacking import listed
from ._shared.stored import StoredEnsemble

_WITH_STATE = (hk.TransformedWithState, hk.MultiTransformedWithState)
_TRANSFORMED = (hk.Transformed, hk.MultiTransformed, *_WITH_STATE)

__all__ = ["ensemble", "forward", "single", "stack", "unstack"]


def __dir__() -> list[str]:
    return list(__all__)


def ensemble(
    transformed: Any,
    size: int,
    *,
    shared: Any = None,
    in_axes: Any = None,
    out_shardings: Any = None,
    pad: bool = False,
    donate: bool = False,
) -> StoredEnsemble:
    """Parameters of ``size`` independent members, as ``transformed.init`` makes them, bit for bit.

    Calling the result with a key and example inputs equals
    ``jax.vmap(lambda k: transformed.init(k, *inputs))(jax.random.split(key, size))``: parameters,
    or ``(params, state)`` of a transformation with state.

    Args:
        transformed: of `hk.transform`, `hk.transform_with_state`, `hk.multi_transform` or
            `hk.multi_transform_with_state`, also after `hk.without_apply_rng`.
        size: number of members.
        shared: which variables all members share: ``"state"`` or the beginning of a path, such as
            ``"params/mlp/~/linear_0"``; a function ``(path, leaf) -> bool`` of
            ``("params" or "state", module, name)`` and a `jax.ShapeDtypeStruct`; a list of these;
            or a filter of `seedbed.filters`. They have no member axis, and the values of
            ``transformed.init(key, *inputs)``.
        in_axes: which axes of the example inputs are mapped over members; None for none.
        out_shardings: how the variables are laid out over devices: a sharding or a PartitionSpec
            for all that have a member axis, which is dimension 0 (others are whole on every
            device), or a pytree of them that is a prefix of what ``init`` returns.
        pad: make more members, up to a number that ``out_shardings`` divides.
        donate: make a new ensemble in the memory of an old one: the result is called as
            ``make(key, old, *args)``, and the arrays of ``old`` are given up.

    Returns:
        A function ``(key, *inputs, **kwargs)`` of what ``init`` takes, with the methods ``member``,
        ``members``, ``stream`` and ``plan``. Inputs may be `jax.ShapeDtypeStruct`: then no array is
        made for them.

    Raises:
        TypeError: ``transformed`` is something else, ``size`` is not an integer, or
            ``out_shardings`` has something else in it than shardings; when called, ``key`` is
            several keys in a container.
        ValueError: ``size`` is not positive; when called, ``shared`` names what the model does not
            have, variables depend on the values of an input that is only a shape, or cannot be
            laid out as ``out_shardings`` says.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, seedbed as sb
        >>> model = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2)(x)))
        >>> make = sb.adapters.haiku.ensemble(model, 8)
        >>> make(jax.random.key(0), jnp.ones((1, 3)))["linear"]["w"].shape
        (8, 3, 2)
        >>> make.member(jax.random.key(0), 5, jnp.ones((1, 3)))["linear"]["w"].shape
        (3, 2)
    """
    parts, original = _parts(transformed, shared)
    return StoredEnsemble(
        original,
        size,
        parts.apart,
        parts.together,
        in_axes=in_axes,
        check_key=_check_key,
        places=_places(out_shardings, parts),
        pad=pad,
        donate=donate,
        own=parts.own,
    )


def single(transformed: Any, *, out_shardings: Any = None) -> ModelSingle:
    """Parameters of one model: ``jax.jit(transformed.init)``, bit for bit, and soon compiled.

    Args:
        transformed: as for `ensemble`.
        out_shardings: how the variables are laid out over devices, each made where it lies: a
            sharding or a PartitionSpec for all, or a pytree of them that is a prefix of what
            ``init`` returns.

    Returns:
        A function ``(key, *inputs, **kwargs)`` of what ``init`` takes, with the method ``plan``.
        Inputs may be `jax.ShapeDtypeStruct`.

    Raises:
        TypeError: ``transformed`` is something else, or ``out_shardings`` has something else in it
            than shardings.
        ValueError: when called, a variable cannot be laid out as ``out_shardings`` says, or
            depends on the values of an input that is only a shape.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, seedbed as sb
        >>> from jax.sharding import NamedSharding, PartitionSpec as P
        >>> model = hk.transform(lambda x: hk.Linear(4)(x))
        >>> split = NamedSharding(jax.make_mesh((1,), ("model",)), P(None, "model"))
        >>> make = sb.adapters.haiku.single(
        ...     model, out_shardings={"linear": {"w": split, "b": None}}
        ... )
        >>> tuple(make(jax.random.key(0), jnp.ones((1, 3)))["linear"]["w"].sharding.spec)
        (None, 'model')
    """
    parts, original = _parts(transformed, None)
    return ModelSingle(
        original,
        parts.apart,
        parts.together,
        check_key=_check_key,
        places=_places(out_shardings, parts),
    )


def _parts(transformed: Any, shared: Any) -> tuple[_Parts, Any]:
    """How to make its variables, and the user's function."""
    if not isinstance(transformed, _TRANSFORMED):
        raise TypeError(
            "`transformed` must be what hk.transform, hk.transform_with_state or "
            f"hk.multi_transform returns; got {transformed!r} of type {type(transformed).__name__}"
        )
    parts = _Parts(transformed.init, isinstance(transformed, _WITH_STATE), shared)
    return parts, getattr(transformed.init, "_original_fn", type(transformed))


def _places(out_shardings: Any, parts: _Parts) -> Places | None:
    return None if out_shardings is None else Places(out_shardings, Framework(), parts.together)


def _check_key(key: Any, name: str = "key") -> None:
    check_key(key, name, named=False)


@dataclass(frozen=True, slots=True)
class _Parts:
    """Makes one member, in parts, and puts them together again."""

    init: Callable[..., Any]
    stateful: bool
    shared: Any

    def apart(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TakenApart:
        made = shapes.call(self.init, key, args, kwargs)
        return _variables.take_apart(_named(made, self.stateful), self.shared)

    def own(self, variables: Any) -> Any:
        return _variables.take_apart(_named(variables, self.stateful), self.shared).own

    def together(self, made: TakenApart) -> Any:
        variables = _variables.put_together(made)
        return (variables["params"], variables["state"]) if self.stateful else variables["params"]


_MAKERS = (
    "transform",
    "transform_with_state",
    "multi_transform",
    "multi_transform_with_state",
)


def _reduced(function: Any) -> Any:
    """How haiku makes this ``init`` or ``apply`` of a function of the user's."""
    original = function
    while _is_haikus(original):
        inside = pickling.closure_of(original).get("f")
        original = getattr(inside, "init", inside)
    if original is function or original is None:
        return None
    for name in _MAKERS:
        made = getattr(hk, name)(original)
        for field in ("init", "apply"):
            if pickling.alike(getattr(made, field), function):
                return _remade, (name, original, field)
    return None


def _is_haikus(function: Any) -> bool:
    return inspect.isfunction(function) and "haiku._src" in function.__globals__["__name__"]


def _remade(name: str, original: Any, field: str) -> Any:
    return getattr(getattr(hk, name)(original), field)


pickling.REDUCERS.append(_reduced)


def stack(variables: Any, *, shared: Any = None) -> Any:
    """The variables of several models as those of an ensemble: what `unstack` undoes.

    Args:
        variables: a list or tuple of what ``transformed.init`` returns.
        shared: what gets no member axis, as for `ensemble`: it is that of the first.

    Raises:
        TypeError: ``variables`` is no list or tuple.
        ValueError: it is empty, or the variables differ in structure or shapes.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, seedbed as sb
        >>> model = hk.transform(lambda x: hk.Linear(2)(x))
        >>> one, two = (model.init(jax.random.key(i), jnp.ones((1, 3))) for i in range(2))
        >>> sb.adapters.haiku.stack([one, two])["linear"]["w"].shape
        (2, 3, 2)
    """
    members = listed(variables, "variables")
    stateful = isinstance(members[0], tuple)
    made = _variables.stack([_named(one, stateful) for one in members], shared)
    return (made["params"], made["state"]) if stateful else made["params"]


def unstack(variables: Any, *, shared: Any = None) -> list[Any]:
    """The variables of every member, each as ``transformed.apply`` takes them.

    Args:
        variables: parameters of an ensemble, or a tuple ``(params, state)``.
        shared: what has no leading axis of members, as for `ensemble`.

    Raises:
        ValueError: the variables have different numbers of members, or none at all.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, seedbed as sb
        >>> model = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(2)(x)))
        >>> params = sb.adapters.haiku.ensemble(model, 8)(jax.random.key(0), jnp.ones((1, 3)))
        >>> singles = sb.adapters.haiku.unstack(params)
        >>> len(singles), model.apply(singles[3], jnp.ones((1, 3))).shape
        (8, (1, 2))
    """
    stateful = isinstance(variables, tuple)
    members = _variables.unstack(_named(variables, stateful), shared)
    return [(one["params"], one["state"]) if stateful else one["params"] for one in members]


def forward(
    transformed: Any,
    params: Any,
    *args: Any,
    in_axes: Any = None,
    shared: Any = None,
    **kwargs: Any,
) -> Any:
    """``transformed.apply`` of all members; every result has a leading axis of members.

    The arguments are those of ``apply``, in its order: ``forward(model, params, rng, *inputs)``,
    with ``state`` before ``rng`` if it is transformed with state, without ``rng`` after
    `hk.without_apply_rng`.

    Args:
        transformed: what `ensemble` takes, or one of the functions in ``transformed.apply``.
        params, state: of an ensemble.
        rng: None, one key, which is split over the members, or a key for every member.
        *inputs: the same for all members, but for what ``in_axes`` maps.
        in_axes: which axes of the inputs are mapped over members; None for none.
        shared: which variables have no member axis, as for `ensemble`. The new value of a shared
            state has one.
        **kwargs: further arguments of ``apply``, the same for all members.

    Raises:
        TypeError: ``transformed`` is something else, or has several functions to apply.
        ValueError: the numbers of members differ.

    Example:
        >>> import haiku as hk, jax, jax.numpy as jnp, seedbed as sb
        >>> model, x = hk.transform(lambda x: hk.Linear(2)(x)), jnp.ones((5, 3))
        >>> params = sb.adapters.haiku.ensemble(model, 8)(jax.random.key(0), x)
        >>> sb.adapters.haiku.forward(model, params, None, x).shape
        (8, 5, 2)
    """
    apply, stateful, random = _application(transformed)
    count = stateful + random
    if len(args) < count:
        names = ["state"] * stateful + ["rng"] * random
        raise TypeError(
            f"`forward` takes the arguments of `apply`: params, {', '.join(names)}, then the "
            f"inputs; got {len(args)} after `params`"
        )
    state = args[:stateful]
    rng, inputs = (args[stateful] if random else None), args[count:]
    _check_key(rng, "rng")

    def call(variables: Any, rng: Any, inputs: tuple[Any, ...]) -> Any:
        own = [*variables.values(), *([rng] if random else [])]
        return apply(*own, *inputs, **kwargs)

    variables = _named((params, *state) if stateful else params, stateful)
    return _variables.run(call, variables, shared, rng, inputs, in_axes)


def _named(variables: Any, stateful: bool) -> dict[str, Any]:
    return dict(zip(("params", "state"), variables if stateful else (variables,), strict=False))


def _application(transformed: Any) -> tuple[Callable[..., Any], bool, bool]:
    """The function to apply, whether it takes a state, and whether it takes a key."""
    if isinstance(transformed, (hk.MultiTransformed, hk.MultiTransformedWithState)):
        raise TypeError(
            "`transformed` has several functions to apply; give one of them, such as "
            "forward(transformed.apply[0], params, ...)"
        )
    if isinstance(transformed, (hk.Transformed, hk.TransformedWithState)):
        stateful = isinstance(transformed, hk.TransformedWithState)
        # Both have the arguments of the user's function, behind their own.
        own = 1 + len(_names(transformed.apply)) - len(_names(transformed.init))
        return transformed.apply, stateful, own > 1 + stateful
    if not callable(transformed):
        raise TypeError(
            "`transformed` must be what hk.transform or hk.transform_with_state returns, or a "
            f"function of `apply`; got {transformed!r} of type {type(transformed).__name__}"
        )
    names = _names(transformed)[1:]
    stateful = names[:1] == ["state"]
    return transformed, stateful, names[stateful : stateful + 1] == ["rng"]


def _names(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)
