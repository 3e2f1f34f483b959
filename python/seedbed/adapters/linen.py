"""Adapter for `flax.linen`: ensembles of modules, as stacked variable collections."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
from flax import linen as nn

from ._shared import shapes
from ._shared import variables as _variables
from ._shared.checks import check_key
from ._shared.layouts import Framework, Places
from ._shared.model import ModelSingle
from ._shared.parts import TakenApart
from ._shared.stored import StoredEnsemble

__all__ = ["ensemble", "forward", "single", "stack", "unstack"]


def __dir__() -> list[str]:
    return list(__all__)


def ensemble(
    model: nn.Module,
    size: int,
    *,
    shared: Any = None,
    in_axes: Any = None,
    out_shardings: Any = None,
    pad: bool = False,
    donate: bool = False,
) -> StoredEnsemble:
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
        out_shardings: how the variables are laid out over devices: a sharding or a PartitionSpec
            for all that have a member axis, which is dimension 0 (others are whole on every
            device); a pytree of them that is a prefix of the variables; or a
            `jax.sharding.Mesh`, as for `single`: then the member axis is whole, and the
            dimensions of a member lie as the model's metadata says.
        pad: make more members, up to a number that ``out_shardings`` divides.
        donate: make a new ensemble in the memory of an old one: the result is called as
            ``make(key, old, *args)``, and the arrays of ``old`` are given up.

    Returns:
        A function ``(key, *inputs, **kwargs)`` of what ``model.init`` takes, with the methods
        ``member``, ``members``, ``stream`` and ``plan``. ``key`` may be a dictionary, such as
        ``{"params": k1, "dropout": k2}``; each of its keys is split. Inputs may be
        `jax.ShapeDtypeStruct`: then no array is made for them.

    Raises:
        TypeError: ``model`` is not a linen module, ``size`` not an integer, or ``out_shardings``
            has something else in it than shardings; when called, ``key`` is a list or something
            else that flax does not take.
        ValueError: ``size`` is not positive; when called, ``shared`` names what the model does not
            have, variables depend on the values of an input that is only a shape, or cannot be
            laid out as ``out_shardings`` says.

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
    return StoredEnsemble(
        type(model),
        size,
        _Apart(model, shared),
        _variables.put_together,
        in_axes=in_axes,
        check_key=_check_key,
        places=_places(out_shardings),
        pad=pad,
        donate=donate,
        own=_Own(shared),
    )


def single(model: nn.Module, *, out_shardings: Any = None) -> ModelSingle:
    """The variables of one model: ``jax.jit(model.init)``, bit for bit, without its compile time.

    Args:
        model: a linen module.
        out_shardings: how the variables are laid out over devices, each made where it lies: a
            sharding or a PartitionSpec for all; a pytree of them that is a prefix of the
            variables, such as `flax.linen.get_sharding` gives; or a `jax.sharding.Mesh`: then
            each lies as its metadata says (`nn.with_partitioning`; `nn.with_logical_partitioning`
            by its own rules, or those of `nn.logical_axis_rules` around the call), and one
            without metadata is whole on every device.

    Returns:
        A function ``(key, *inputs, **kwargs)`` of what ``model.init`` takes, with the method
        ``plan``. Metadata stays around the variables. Inputs may be `jax.ShapeDtypeStruct`.

    Raises:
        TypeError: ``model`` is not a linen module, or ``out_shardings`` has something else in it
            than shardings.
        ValueError: when called, a variable cannot be laid out as ``out_shardings`` says, or
            depends on the values of an input that is only a shape.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, seedbed as sb
        >>> kernel = nn.with_partitioning(nn.initializers.lecun_normal(), (None, "model"))
        >>> mesh = jax.make_mesh((1,), ("model",))
        >>> make = sb.adapters.linen.single(nn.Dense(4, kernel_init=kernel), out_shardings=mesh)
        >>> params = make(jax.random.key(0), jnp.ones((1, 3)))["params"]
        >>> tuple(params["kernel"].value.sharding.spec), params["bias"].sharding.mesh == mesh
        ((None, 'model'), True)
    """
    _check_model(model)
    return ModelSingle(
        type(model),
        _Apart(model, None),
        _variables.put_together,
        check_key=_check_key,
        places=_places(out_shardings),
    )


def _places(out_shardings: Any) -> Places | None:
    if out_shardings is None:
        return None
    return Places(out_shardings, _FLAX, _variables.put_together)


def _metadata(variables: Any) -> Any:
    """Where metadata puts variables, in place of the boxes around them."""
    return jax.tree_util.tree_map(_spec, variables, is_leaf=_is_box)


def _spec(variable: Any) -> Any:
    if isinstance(variable, nn.LogicallyPartitioned):
        by_rules: Any = nn.spmd.logical_to_mesh
        return by_rules(variable.get_partition_spec(), variable.rules)
    return nn.get_partition_spec(variable)


_FLAX = Framework(metadata=_metadata, names=nn.get_logical_axis_rules)


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


@dataclass(frozen=True, slots=True)
class _Own:
    """The variables of an ensemble that have a member axis."""

    shared: Any

    def __call__(self, variables: Any) -> Any:
        return _variables.take_apart(variables, self.shared, _is_box).own


def stack(variables: Any, *, shared: Any = None) -> Any:
    """The variables of several models as those of an ensemble: what `unstack` undoes.

    Args:
        variables: a list or tuple of what ``model.init`` returns.
        shared: what gets no member axis, as for `ensemble`: it is that of the first.

    Raises:
        TypeError: ``variables`` is no list or tuple.
        ValueError: it is empty, or the variables differ in structure or shapes.

    Example:
        >>> import flax.linen as nn, jax, jax.numpy as jnp, seedbed as sb
        >>> one, two = (nn.Dense(2).init(jax.random.key(i), jnp.ones((1, 3))) for i in range(2))
        >>> sb.adapters.linen.stack([one, two])["params"]["kernel"].shape
        (2, 3, 2)
    """
    return _variables.stack(variables, shared, _is_box)


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
