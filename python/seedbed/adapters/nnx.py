"""flax nnx: one module with all members' variables, as nnx's ``split_rngs`` and ``vmap`` give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from .._ensemble import check
from ._nnx.making import ModuleEnsemble as ModuleEnsemble
from ._nnx.making import ModuleSingle as ModuleSingle
from ._nnx.streams import predicate
from ._shared.stacking import listed, refuse_single, stacked

__all__ = ["ModuleEnsemble", "ModuleSingle", "ensemble", "forward", "single", "stack", "unstack"]


def __dir__() -> list[str]:
    return list(__all__)


def ensemble(
    make: Callable[..., Any],
    size: int,
    *,
    in_axes: Any = None,
    only: Any = ...,
    shared: Any = None,
    out_shardings: Any = None,
    pad: bool = False,
    donate: bool = False,
) -> ModuleEnsemble:
    """An ensemble of ``size`` nnx modules: all members in one module.

    Calling the result with ``(rngs, *args, **kwargs)`` equals::

        @nnx.split_rngs(splits=size, only=only)
        @nnx.vmap(in_axes=0)  # streams that are not split: None
        def members(rngs):
            return make(*args, rngs=rngs, **kwargs)

    Args:
        make: a subclass of `nnx.Module`, or any function that takes ``rngs=`` and returns one.
        size: number of members.
        in_axes: which axis of the positional arguments to map over members: None (the default)
            gives every member the same arguments.
        only: a filter of `nnx.split_rngs`: streams to split; all members get the others as
            they are.
        shared: a filter of variables that all members share, such as ``nnx.BatchStat``. They
            have no member axis, and the values that ``make(*args, rngs=rngs, **kwargs)`` gives.
        out_shardings: how the variables are laid out over devices: a sharding or a PartitionSpec
            for all that have a member axis, which is dimension 0 (others are whole on every
            device); a state or dictionary of them, as for `single`; or a `jax.sharding.Mesh`:
            then the member axis is whole, and the dimensions of a member lie as the variables'
            metadata says.
        pad: make more members, up to a number that ``out_shardings`` divides.
        donate: make a new ensemble in the memory of an old one: the result is called as
            ``make(rngs, old, *args)``, and the arrays of ``old`` are given up.

    Returns:
        A `ModuleEnsemble`: call it, or use ``member``, ``members``, ``stream`` and ``plan``.

    Raises:
        TypeError: ``make`` is not callable, ``size`` is no integer, a filter is none of nnx's, or
            ``out_shardings`` has something else in it than shardings.
        ValueError: ``size`` is not positive; when called, a variable cannot be laid out as
            ``out_shardings`` says.

    Example:
        >>> import seedbed as sb
        >>> from flax import nnx
        >>> model = sb.adapters.nnx.ensemble(nnx.Linear, 100)(nnx.Rngs(0), 8, 16)
        >>> model.kernel.shape
        (100, 8, 16)
    """
    return ModuleEnsemble(make, size, in_axes, only, shared, out_shardings, pad, donate)


def single(make: Callable[..., Any], *, out_shardings: Any = None) -> ModuleSingle:
    """One nnx module: what ``nnx.jit`` of ``make`` gives, bit for bit, without its compile time.

    Calling the result with ``(rngs, *args, **kwargs)`` equals ``make(*args, rngs=rngs, **kwargs)``
    under ``nnx.jit``; the rngs are left as that leaves them.

    Args:
        make: a subclass of `nnx.Module`, or any function that takes ``rngs=`` and returns one.
        out_shardings: how the variables are laid out over devices, each made where it lies: a
            sharding or a PartitionSpec for all; a state or nested dictionary of them by the paths
            of variables, or of modules, such as ``nnx.get_named_sharding`` gives, where what is
            missing is whole on every device; or a `jax.sharding.Mesh`: then each lies as its
            metadata says (``out_sharding``, as `nnx.with_partitioning` sets it, with the names
            translated by its ``sharding_rules`` and those of `nnx.logical_axis_rules` around the
            call). No mesh need be set: variables are not laid out a second time, by themselves.

    Returns:
        A `ModuleSingle`: call it, or use ``plan``.

    Raises:
        TypeError: ``make`` is not callable, or ``out_shardings`` has something else in it than
            shardings.
        ValueError: when called, a variable cannot be laid out as ``out_shardings`` says.

    Example:
        >>> import jax, seedbed as sb
        >>> from flax import nnx
        >>> kernel = nnx.with_partitioning(nnx.initializers.lecun_normal(), (None, "model"))
        >>> mesh = jax.make_mesh((1,), ("model",))
        >>> make = sb.adapters.nnx.single(nnx.Linear, out_shardings=mesh)
        >>> model = make(nnx.Rngs(0), 8, 16, kernel_init=kernel)
        >>> tuple(model.kernel.get_value().sharding.spec)
        (None, 'model')
    """
    return ModuleSingle(make, out_shardings)


def forward(
    module: Any, /, *inputs: Any, in_axes: Any = None, shared: Any = None, **kwargs: Any
) -> Any:
    """All members' outputs, ``nnx.vmap`` of the module: a leading member axis on each.

    What members write (batch statistics, counts of streams) stays in the module. Streams without
    a member axis, of a model that keeps the caller's rngs, are split for the call.

    Args:
        module: made by `ensemble`, or by ``nnx.vmap``.
        *inputs: of one member, the same for all unless ``in_axes`` maps them.
        in_axes: None, an axis, or one entry for each input.
        shared: the variables without a member axis, as for `ensemble`.
        **kwargs: of the module's call, the same for all members.

    Raises:
        ValueError: ``module`` has no member axis, or ``in_axes`` does not fit the inputs.

    Example:
        >>> import jax.numpy as jnp, seedbed as sb
        >>> from flax import nnx
        >>> model = sb.adapters.nnx.ensemble(nnx.Linear, 100)(nnx.Rngs(0), 8, 16)
        >>> sb.adapters.nnx.forward(model, jnp.ones((5, 8))).shape
        (100, 5, 16)
    """
    for value, name in ((module, "module"), (inputs, "inputs"), (in_axes, "in_axes")):
        check.finite(value, name)
    if isinstance(in_axes, (tuple, list)):
        if len(in_axes) != len(inputs):
            raise ValueError(f"`in_axes` has {len(in_axes)} entries for {len(inputs)} inputs")
        axes = tuple(in_axes)
    else:
        axes = (in_axes,) * len(inputs)
    kept = predicate(shared, "shared")
    size = _members(module, kept)

    def call(module: Any, *inputs: Any) -> Any:
        return module(*inputs, **kwargs)

    parts: Any = {kept: None, ...: 0}
    mapped = nnx.vmap(call, in_axes=(nnx.StateAxes(parts), *axes))
    with nnx.split_rngs(module, splits=size, only=_single_streams(kept)):
        return mapped(module, *inputs)


def stack(modules: Any, shared: Any = None) -> Any:
    """Plain modules as one with a member axis: what `unstack` undoes. They stay as they are.

    Args:
        modules: a list or tuple of modules that differ in their variables' numbers only.
        shared: the variables that get no member axis, as for `ensemble`: those of the first.

    Raises:
        TypeError: ``modules`` is no list or tuple.
        ValueError: it is empty, or the modules differ in structure or shapes.

    Example:
        >>> import seedbed as sb
        >>> from flax import nnx
        >>> one, two = (nnx.Linear(8, 16, rngs=nnx.Rngs(i)) for i in range(2))
        >>> sb.adapters.nnx.stack([one, two]).kernel.shape
        (2, 8, 16)
    """
    kept = predicate(shared, "shared")
    parts: list[Any] = [nnx.split(one, kept, ...) for one in listed(modules, "modules")]
    graphdef, common, _ = parts[0]
    for number, (other, *_) in enumerate(parts):
        if other != graphdef:
            raise ValueError(
                "`modules` must be alike but for their variables; what is no variable differs in 0 "
                f"and {number}"
            )
    own = stacked([own for *_, own in parts], "modules")
    return nnx.merge(graphdef, jax.tree.map(jnp.array, common), own)


def unstack(module: Any, shared: Any = None) -> list[Any]:
    """The members as plain modules of their own; shared variables are copied into each.

    Args:
        module: made by `ensemble`, or by ``nnx.vmap``; it stays as it is.
        shared: the variables without a member axis, as for `ensemble`.

    Raises:
        ValueError: ``module`` has no member axis.

    Example:
        >>> import seedbed as sb
        >>> from flax import nnx
        >>> model = sb.adapters.nnx.ensemble(nnx.Linear, 3)(nnx.Rngs(0), 8, 16)
        >>> [one.kernel.shape for one in sb.adapters.nnx.unstack(model)]
        [(8, 16), (8, 16), (8, 16)]
    """
    kept = predicate(shared, "shared")
    size = _members(check.finite(module, "module"), kept)
    module = nnx.clone(module)
    nnx.split_rngs(module, splits=size, only=_single_streams(kept))
    parts: Any = nnx.split(module, kept, ...)
    graphdef, common, own = parts
    leaves, tree = jax.tree_util.tree_flatten(own)
    return [
        # Merging takes the variables as they are: new ones for each module.
        nnx.merge(
            graphdef,
            jax.tree.map(lambda leaf: leaf, common),
            jax.tree_util.tree_unflatten(tree, row),
        )
        for row in zip(*map(list, leaves), strict=True)
    ]


def _members(module: Any, kept: Callable[..., bool]) -> int:
    """The number of members of a module."""
    if isinstance(module, (int, float, str, jax.Array, type)):
        raise TypeError(f"`module` must be an nnx.Module; got one of type {type(module).__name__}")
    single = _single_streams(kept)
    lengths: dict[str, Any] = {}
    for path, variable in nnx.to_flat_state(nnx.state(module)):
        if not kept(path, variable) and not single(path, variable):
            shape = jnp.shape(
                variable.get_value() if isinstance(variable, nnx.Variable) else variable
            )
            lengths[".".join(map(str, path))] = shape[0] if shape else None
    if len(set(lengths.values())) != 1 or None in lengths.values():
        some = dict(list(lengths.items())[:8])
        raise ValueError(
            "`module` must have a member axis of one length on all variables that are not "
            f"`shared`; got the lengths {some}"
        )
    nodes = [node for _, node in nnx.iter_graph(module)]
    refuse_single("module", [node for node in nodes if not _shares(node, kept)], _LAYERS)
    return int(next(iter(lengths.values())))


# Layers whose variables have a known number of axes in a single model.
_LAYERS: tuple[tuple[type, str, Callable[[Any], int]], ...] = (
    (nnx.Linear, "kernel", lambda _: 2),
    (nnx.Embed, "embedding", lambda _: 2),
    (nnx.Conv, "kernel", lambda conv: 2 + len(conv.kernel_size)),
)


def _shares(node: Any, kept: Callable[..., bool]) -> bool:
    """Whether all members share a variable of a module's own."""
    own = vars(node).items() if isinstance(node, nnx.Module) else ()
    return any(kept((name,), one) for name, one in own if isinstance(one, nnx.Variable))


def _single_streams(kept: Callable[..., bool]) -> Callable[..., bool]:
    def single(path: Any, variable: Any) -> bool:
        return isinstance(variable, nnx.RngState) and not variable.ndim and not kept(path, variable)

    return single
