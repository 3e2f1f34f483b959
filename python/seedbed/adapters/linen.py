"""Adapter for `flax.linen`: ensembles of modules, as stacked variable collections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flax import linen as nn

from ._shared import shapes
from ._shared import variables as _variables
from ._shared.model import ModelEnsemble, TakenApart, check_key


def ensemble(
    model: nn.Module, size: int, *, shared: Any = None, in_axes: Any = None
) -> ModelEnsemble:
    """The variables of ``size`` independent members, as ``model.init`` makes them, bit for bit.

    Calling the result with a key and example inputs equals
    ``jax.vmap(lambda k: model.init(k, *inputs))(jax.random.split(key, size))``, in all collections.

    Args:
        model: a linen module.
        size: number of members.
        shared: which variables all members share: a collection (``"batch_stats"``), the
            beginning of a path (``"params/embed"``), a function ``(path, leaf) -> bool`` of the
            names on the way and a `jax.ShapeDtypeStruct`, a list of these, or a filter of
            `seedbed.filters`. They have no member axis, and the values of
            ``model.init(key, *inputs)``.
        in_axes: which axes of the example inputs are mapped over members; None for none.

    Returns:
        A function ``(key, *inputs, **kwargs)`` of what ``model.init`` takes, with the methods
        ``member``, ``members`` and ``plan``. ``key`` may be a dictionary, such as
        ``{"params": k1, "dropout": k2}``; each of its keys is split. Inputs may be
        `jax.ShapeDtypeStruct`: then no array is made for them.

    Raises:
        TypeError: ``model`` is not a linen module, or ``size`` not an integer; when called,
            ``key`` is a list or something else that flax does not take.
        ValueError: ``size`` is not positive; when called, ``shared`` names what the model does not
            have, or variables depend on the values of an input that is only a shape.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, seedbed as sb
        >>> make = sb.adapters.linen.ensemble(nn.Dense(2), 8)
        >>> variables = make(jax.random.key(0), jnp.ones((1, 3)))
        >>> variables["params"]["kernel"].shape
        (8, 3, 2)
        >>> make.member(jax.random.key(0), 5, jnp.ones((1, 3)))["params"]["kernel"].shape
        (3, 2)
    """
    _check_model(model)
    apart = _Apart(model, shared)
    together = _variables.put_together
    return ModelEnsemble(type(model), size, apart, together, in_axes=in_axes, check_key=_check_key)


def _check_key(key: Any, name: str = "key") -> None:
    check_key(key, name, named=True)


@dataclass(frozen=True, slots=True)
class _Apart:
    """Makes one member, in parts."""

    model: nn.Module
    shared: Any

    def __call__(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TakenApart:
        variables = shapes.call(self.model.init, key, args, kwargs)
        return _variables.take_apart(variables, self.shared, _is_box)


def unstack(variables: Any, *, shared: Any = None) -> list[Any]:
    """The variables of every member, each as ``model.apply`` takes them.

    Args:
        variables: of an ensemble, with a leading axis of members; or one of its collections,
            without its name.
        shared: what has no such axis, as for `ensemble`.

    Raises:
        ValueError: the variables have different numbers of members, or none at all.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, seedbed as sb
        >>> model = nn.Dense(2)
        >>> variables = sb.adapters.linen.ensemble(model, 8)(jax.random.key(0), jnp.ones((1, 3)))
        >>> singles = sb.adapters.linen.unstack(variables)
        >>> len(singles), model.apply(singles[3], jnp.ones((1, 3))).shape
        (8, (1, 2))
    """
    return _variables.unstack(variables, shared, _is_box)


def forward(
    model: nn.Module,
    variables: Any,
    *inputs: Any,
    in_axes: Any = None,
    shared: Any = None,
    rngs: Any = None,
    **kwargs: Any,
) -> Any:
    """``model.apply`` of all members; every result has a leading axis of members.

    Args:
        model: a linen module.
        variables: of an ensemble.
        *inputs: the same for all members, but for what ``in_axes`` maps.
        in_axes: which axes of the inputs are mapped over members; None for none.
        shared: which variables have no member axis, as for `ensemble`. What a call writes into
            them (``mutable=``) has one.
        rngs: one key or a dictionary of keys, each split over the members; or with a key for
            every member.
        **kwargs: as for ``model.apply``: ``mutable``, ``method``, the module's own; the same for
            all members.

    Raises:
        TypeError: ``model`` is not a linen module, or ``rngs`` are keys in a list.
        ValueError: the numbers of members differ.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, seedbed as sb
        >>> model, x = nn.Dense(2), jnp.ones((5, 3))
        >>> variables = sb.adapters.linen.ensemble(model, 8)(jax.random.key(0), x)
        >>> sb.adapters.linen.forward(model, variables, x).shape
        (8, 5, 2)
    """
    _check_model(model)
    _check_key(rngs, "rngs")

    def apply(variables: Any, rngs: Any, inputs: tuple[Any, ...]) -> Any:
        return model.apply(variables, *inputs, rngs=rngs, **kwargs)

    return _variables.run(apply, variables, shared, rngs, inputs, in_axes, _is_box)


def _is_box(value: Any) -> bool:
    """Whether a value is a variable with metadata around it, such as `nn.Partitioned`."""
    return isinstance(value, nn.meta.AxisMetadata)


def _check_model(model: Any) -> None:
    if not isinstance(model, nn.Module):
        raise TypeError(
            "`model` must be a module of flax.linen, such as nn.Dense(3); got "
            f"{model!r} of type {type(model).__name__}"
        )
