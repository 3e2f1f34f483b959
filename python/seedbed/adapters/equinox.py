"""equinox: ensembles of modules, equal to ``eqx.filter_vmap(make)(jax.random.split(key, n))``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import _check
from ._model import ModelEnsemble, TakenApart


def ensemble(
    make: Callable[..., Any],
    n: int,
    *,
    in_axes: Any = None,
    shared: Callable[[Any], Any] | None = None,
) -> ModelEnsemble:
    """``n`` independent models at once, bit for bit as `equinox.filter_vmap`.

    Calling the result as ``(key, *args, **kwargs)`` equals
    ``eqx.filter_vmap(lambda key: make(key, *args, **kwargs))(jax.random.split(key, n))``: the
    model's arrays get a leading axis of length ``n``, everything else stays as it is.

    Args:
        make: a module class, or any function of a key that returns a pytree: a module, ``(model,
            state)`` of ``eqx.nn.make_with_state``, a model with its optimiser's state. A
            parameter named ``key`` that is not the first gets the key by its name, as modules
            take it; else the key is the first argument.
        n: number of members.
        in_axes: which axis of the positional arguments to map over members, as for `jax.vmap`;
            None gives every member the same. Arguments that are not arrays cannot be mapped.
        shared: ``shared(model)`` returns the parts of the model (leaves, subtrees or a filtered
            copy) that all members share, as ``where`` of `equinox.tree_at` does. They get no
            leading axis, and their values are those of a single model made with the un-split key.

    Returns:
        A callable with the methods ``member``, ``members`` and ``plan``.

    Raises:
        TypeError: ``make`` or ``shared`` is not callable, or ``n`` is not an integer.
        ValueError: ``n`` is not positive; when called: ``shared`` returned no array of the model.

    Example:
        >>> import equinox as eqx, jax, seedbed as sb
        >>> make = sb.adapters.equinox.ensemble(eqx.nn.MLP, 1000)
        >>> models = make(jax.random.key(0), 2, 1, width_size=8, depth=2)
        >>> models.layers[0].weight.shape
        (1000, 8, 2)
        >>> make.member(jax.random.key(0), 17, 2, 1, width_size=8, depth=2)(jax.numpy.ones(2)).shape
        (1,)
    """
    _callable(make, "make", "a module class or a function of a key")
    by_name = _key_by_name(make)

    def apart(key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TakenApart:
        model = make(*args, key=key, **kwargs) if by_name else make(key, *args, **kwargs)
        own, rest = eqx.partition(model, _own(model, shared))
        common, rest = eqx.partition(rest, eqx.is_array)
        return TakenApart(own, tuple(jax.tree_util.tree_leaves(common)), (common, rest))

    def together(made: TakenApart) -> Any:
        # Of another trace than the rest: another tree, should markers of states be in it.
        places, rest = made.rest
        common = jax.tree_util.tree_unflatten(jax.tree_util.tree_structure(places), made.common)
        return eqx.combine(made.own, common, rest)

    return ModelEnsemble(make, n, apart, together, in_axes=in_axes)
