"""equinox: ensembles of modules, equal to ``eqx.filter_vmap(make)`` of split keys."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._ensemble import check as _check
from .._ensemble import shardings
from ._shared.checks import check_key
from ._shared.layouts import Framework, Places
from ._shared.model import ModelSingle
from ._shared.parts import TakenApart
from ._shared.stacking import listed, refuse_single, stacked
from ._shared.stored import StoredEnsemble

__all__ = ["ensemble", "forward", "single", "stack", "unstack"]


def __dir__() -> list[str]:
    return list(__all__)


def ensemble(
    make: Callable[..., Any],
    size: int,
    *,
    in_axes: Any = None,
    shared: Callable[[Any], Any] | None = None,
    out_shardings: Any = None,
    pad: bool = False,
    donate: bool = False,
) -> StoredEnsemble:
    """``size`` independent models at once, bit for bit as `equinox.filter_vmap`.

    Calling the result as ``(key, *args, **kwargs)`` equals
    ``eqx.filter_vmap(lambda key: make(key, *args, **kwargs))(jax.random.split(key, size))``: the
    model's arrays get a leading axis of length ``size``, everything else stays as it is.

    Args:
        make: a module class, or any function of a key that returns a pytree: a module, ``(model,
            state)`` of ``eqx.nn.make_with_state``, a model with its optimiser's state. A
            parameter named ``key`` that is not the first gets the key by its name, as modules
            take it; else the key is the first argument.
        size: number of members.
        in_axes: which axis of the positional arguments to map over members, as for `jax.vmap`;
            None gives every member the same. Arguments that are not arrays cannot be mapped.
        shared: ``shared(model)`` returns the parts of the model (leaves, subtrees or a filtered
            copy) that all members share, as ``where`` of `equinox.tree_at` does. They get no
            leading axis, and their values are those of a single model made with the un-split
            key. `unstack` and `forward` ask it of the whole ensemble: go by names and types, not
            by shapes.
        out_shardings: how the arrays are laid out over devices: a sharding or a PartitionSpec for
            all that have a member axis, which is dimension 0 (others are whole on every device),
            or a pytree of them that is a prefix of the model, as for `single`.
        pad: make more members, up to a number that ``out_shardings`` divides.
        donate: make a new ensemble in the memory of an old one: the result is called as
            ``make(key, old, *args)``, and the arrays of ``old`` are given up.

    Returns:
        A callable with the methods ``member``, ``members``, ``stream``, ``plan``, ``save``,
        ``load`` and ``lazy``.

    Raises:
        TypeError: ``make`` or ``shared`` is not callable, ``size`` is not an integer, or
            ``out_shardings`` is no sharding; when called, a layer of equinox is given several keys
            in a container.
        ValueError: ``size`` is not positive; when called: ``shared`` returned no array of the
            model, or arrays cannot be laid out as ``out_shardings`` says.

    Example:
        >>> import equinox as eqx, jax, seedbed as sb
        >>> make = sb.adapters.equinox.ensemble(eqx.nn.MLP, 1000)
        >>> models = make(jax.random.key(0), 2, 1, width_size=8, depth=1)
        >>> models.layers[0].weight.shape
        (1000, 8, 2)
        >>> make.member(jax.random.key(0), 17, 2, 1, width_size=8, depth=1)(jax.numpy.ones(2)).shape
        (1,)
    """
    _check_make(make)
    return StoredEnsemble(
        make,
        size,
        _Apart(make, _key_by_name(make), shared),
        _together,
        in_axes=in_axes,
        check_key=_check_of(make),
        places=_places(out_shardings),
        pad=pad,
        donate=donate,
        own=_Own(shared),
    )


def single(make: Callable[..., Any], *, out_shardings: Any = None) -> ModelSingle:
    """One model: ``eqx.filter_jit(make)(key, ...)``, bit for bit, without its compile time.

    Args:
        make: as for `ensemble`.
        out_shardings: how the arrays are laid out over devices, each made where it lies: a
            sharding or a PartitionSpec for all; or a pytree prefix of the model that has one, or
            None (whole on every device), for each array. What it has for leaves that are no
            arrays is passed over, so that ``jax.tree.map`` over the model that
            `equinox.filter_eval_shape` gives makes one.

    Returns:
        A callable ``(key, *args, **kwargs)`` with the method ``plan``.

    Raises:
        TypeError: ``make`` is not callable, or ``out_shardings`` is no sharding.
        ValueError: when called, arrays cannot be laid out as ``out_shardings`` says.

    Example:
        >>> import equinox as eqx, jax, seedbed as sb
        >>> from jax.sharding import NamedSharding, PartitionSpec as P
        >>> whole = NamedSharding(jax.make_mesh((1,), ("model",)), P())
        >>> split = NamedSharding(whole.mesh, P("model"))
        >>> model = eqx.filter_eval_shape(eqx.nn.Linear, 2, 8, key=jax.random.key(0))
        >>> places = jax.tree.map(lambda leaf: split if len(leaf.shape) == 2 else whole, model)
        >>> make = sb.adapters.equinox.single(eqx.nn.Linear, out_shardings=places)
        >>> make(jax.random.key(0), 2, 8).weight.sharding.spec[0]
        'model'
    """
    _check_make(make)
    return ModelSingle(
        make,
        _Apart(make, _key_by_name(make), None),
        _together,
        check_key=_check_of(make),
        places=_places(out_shardings),
    )


def _places(out_shardings: Any) -> Places | None:
    if out_shardings is None:
        return None
    return Places(out_shardings, Framework(checked=_checked), _together)


def _checked(out_shardings: Any) -> None:
    """Refuses what is neither a sharding nor like a model, which has other leaves too."""
    if jax.tree_util.all_leaves([out_shardings]):
        shardings.checked(out_shardings)


def _check_of(make: Any) -> Callable[[Any], None] | None:
    # What a user's function does with its key is the user's.
    own = isinstance(make, type) and make.__module__.startswith("equinox.")
    return _check_key if own else None


def _check_key(key: Any) -> None:
    check_key(key, "key", named=False)


@dataclass(frozen=True, slots=True)
class _Apart:
    """Makes one member, in parts."""

    make: Callable[..., Any]
    by_name: bool
    shared: Callable[[Any], Any] | None

    def __call__(self, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TakenApart:
        make = self.make
        model = make(*args, key=key, **kwargs) if self.by_name else make(key, *args, **kwargs)
        model = _check.finite(model, "the result of `make`")
        own, rest = eqx.partition(model, _own(model, self.shared))
        common, rest = eqx.partition(rest, eqx.is_array)
        return TakenApart(own, common, rest)


@dataclass(frozen=True, slots=True)
class _Own:
    """The arrays of an ensemble that have a member axis."""

    shared: Callable[[Any], Any] | None

    def __call__(self, models: Any) -> Any:
        return eqx.filter(models, _own(models, self.shared))


def _together(made: TakenApart) -> Any:
    return eqx.combine(made.own, made.common, made.rest)


def unstack(models: Any, *, shared: Callable[[Any], Any] | None = None) -> list[Any]:
    """The members of an ensemble as plain models.

    Args:
        models: what an ensemble gave, or any pytree whose arrays have a leading axis of members.
        shared: as for `ensemble`: the parts without that axis, which every model gets whole.

    Raises:
        ValueError: there is no array with a member axis, their leading axes differ in length, or
            a layer of equinox in it shows that this is a single model.

    Example:
        >>> import equinox as eqx, jax, seedbed as sb
        >>> models = sb.adapters.equinox.ensemble(eqx.nn.Linear, 3)(jax.random.key(0), 2, 8)
        >>> [model.weight.shape for model in sb.adapters.equinox.unstack(models)]
        [(8, 2), (8, 2), (8, 2)]
    """
    _check.finite(models, "models")
    own, rest = eqx.partition(models, _own(models, shared))
    _check_members(models, own)
    leaves, tree = jax.tree_util.tree_flatten(own)
    members = zip(*(jnp.unstack(leaf) for leaf in leaves), strict=True)
    return [eqx.combine(jax.tree_util.tree_unflatten(tree, one), rest) for one in members]


def stack(models: Any, *, shared: Callable[[Any], Any] | None = None) -> Any:
    """Plain models as an ensemble: what `unstack` undoes.

    Args:
        models: a list or tuple of models that differ in the numbers in their arrays only.
        shared: as for `ensemble`: the parts that get no member axis, which are those of the first.

    Raises:
        TypeError: ``models`` is no list or tuple.
        ValueError: it is empty, or the models differ in structure, shapes or what is no array.

    Example:
        >>> import equinox as eqx, jax, seedbed as sb
        >>> one, two = (eqx.nn.Linear(2, 8, key=jax.random.key(i)) for i in range(2))
        >>> sb.adapters.equinox.stack([one, two]).weight.shape
        (2, 8, 2)
    """
    parts = [eqx.partition(one, _own(one, shared)) for one in listed(models, "models")]
    rest = eqx.filter(parts[0][1], eqx.is_array, inverse=True)
    for number, (_, other) in enumerate(parts):
        if not eqx.tree_equal(rest, eqx.filter(other, eqx.is_array, inverse=True)):
            raise ValueError(
                f"`models` must be alike but for their arrays; what is no array differs in 0 and "
                f"{number}"
            )
    return eqx.combine(stacked([own for own, _ in parts], "models"), parts[0][1])


def forward(
    models: Any,
    *inputs: Any,
    in_axes: Any = None,
    shared: Callable[[Any], Any] | None = None,
    call: Callable[..., Any] | None = None,
) -> Any:
    """The outputs of all members: `equinox.filter_vmap` over the arrays of ``models``.

    Args:
        models: what an ensemble gave.
        *inputs: the same for all members unless ``in_axes`` maps them; an ``eqx.nn.State`` made
            with the models always goes to its member.
        in_axes: None, an axis for every input, or a tuple of one entry for each of ``inputs``, as
            for `equinox.filter_vmap`.
        shared: as for `ensemble`: the parts without a member axis.
        call: ``call(model, *inputs)`` of one member, for what is more than ``model(*inputs)``:
            ``lambda model, x: jax.vmap(model)(x)`` for a batch.

    Returns:
        What ``call`` returns, its arrays with a leading axis of members.

    Raises:
        TypeError: ``call`` is not callable.
        ValueError: as for `unstack`; or ``in_axes`` has not one entry for each input.

    Example:
        >>> import equinox as eqx, jax, seedbed as sb
        >>> models = sb.adapters.equinox.ensemble(eqx.nn.Linear, 3)(jax.random.key(0), 2, 8)
        >>> sb.adapters.equinox.forward(models, jax.numpy.ones(2)).shape
        (3, 8)
    """
    if call is not None:
        _callable(call, "call", "a function call(model, *inputs)")
    for value, name in ((models, "models"), (inputs, "inputs"), (in_axes, "in_axes")):
        _check.finite(value, name)
    own, rest = eqx.partition(models, _own(models, shared))
    _check_members(models, own)
    axes = tuple(in_axes) if isinstance(in_axes, (tuple, list)) else (in_axes,) * len(inputs)
    if len(axes) != len(inputs):
        raise ValueError(
            f"`in_axes` has {len(axes)} entries for {len(inputs)} inputs; give one entry for each "
            "(the models have none)"
        )
    axes = tuple(
        eqx.if_array(0) if isinstance(one, eqx.nn.State) else axis
        for one, axis in zip(inputs, axes, strict=True)
    )

    def member(own: Any, *inputs: Any) -> Any:
        model = eqx.combine(own, rest)
        return model(*inputs) if call is None else call(model, *inputs)

    return eqx.filter_vmap(member, in_axes=(eqx.if_array(0), *axes))(own, *inputs)


def _key_by_name(make: Any) -> bool:
    try:
        parameters = list(inspect.signature(make).parameters.values())
    except (TypeError, ValueError):  # builtins and some wrapped functions have none
        return False
    keys = [one for one in parameters if one.name == "key" and one.kind != one.POSITIONAL_ONLY]
    return bool(keys) and (keys[0].kind == keys[0].KEYWORD_ONLY or keys[0] is not parameters[0])


def _own(model: Any, shared: Callable[[Any], Any] | None) -> Any:
    """For each leaf, whether it is an array that every member has one of."""
    parts: set[int] = set()
    if shared is not None:
        _callable(shared, "shared", "a function shared(model) that returns parts of the model")
        chosen = [leaf for leaf in jax.tree_util.tree_leaves(shared(model)) if eqx.is_array(leaf)]
        parts = {id(leaf) for leaf in chosen}
        known = {id(leaf) for leaf in jax.tree_util.tree_leaves(model)}
        if not parts or not parts <= known:
            what = "something that is no part of it" if parts else "no array"
            raise ValueError(
                f"`shared(model)` must return arrays or subtrees of the model, as they are in it; "
                f"it returned {what}"
            )
    return jax.tree_util.tree_map(lambda leaf: eqx.is_array(leaf) and id(leaf) not in parts, model)


# Layers whose arrays have a known number of axes in a single model.
_LAYERS: tuple[tuple[type, str, Callable[[Any], int]], ...] = (
    (eqx.nn.Linear, "weight", lambda _: 2),
    (eqx.nn.Embedding, "weight", lambda _: 2),
    (eqx.nn.GRUCell, "weight_ih", lambda _: 2),
    (eqx.nn.LSTMCell, "weight_ih", lambda _: 2),
    (eqx.nn.Conv, "weight", lambda conv: 2 + conv.num_spatial_dims),
    (eqx.nn.LayerNorm, "weight", lambda norm: len(norm.shape)),
)


def _check_members(models: Any, own: Any) -> None:
    """Whether the models have members, as far as it shows."""
    _check_lengths(own)
    layers = tuple(kind for kind, *_ in _LAYERS)

    def is_layer(node: Any) -> bool:
        return isinstance(node, layers)

    # Of a layer that all members share, nothing is left in `own`.
    found = jax.tree_util.tree_leaves(own, is_leaf=is_layer)
    refuse_single("models", [node for node in found if is_layer(node)], _LAYERS)


def _check_lengths(own: Any) -> None:
    """Whether all arrays have a leading axis, of one length."""
    lengths = {
        jax.tree_util.keystr(path): leaf.shape[0] if leaf.ndim else None
        for path, leaf in jax.tree_util.tree_leaves_with_path(own)
    }
    if not lengths:
        raise ValueError("the models have no array with a member axis")
    found = sorted({str(length) for length in lengths.values()})
    if len(found) > 1 or None in lengths.values():
        some = ", ".join(f"{name}: {length}" for name, length in list(lengths.items())[:4])
        raise ValueError(
            f"the arrays of the models must have a leading axis of members, of one length; got "
            f"lengths {', '.join(found)} ({some}). Name arrays without that axis by `shared`"
        )


def _check_make(make: Any) -> None:
    _callable(make, "make", "a module class or a function of a key")
    own = type(make).__module__
    if not isinstance(make, eqx.Module) or own.startswith("equinox._"):  # jitted functions, say
        return
    parameters = list(inspect.signature(make).parameters)  # type: ignore[arg-type]
    if parameters[:1] != ["key"]:
        raise TypeError(
            f"`make` must be a module class or a function of a key, which makes a member; got a "
            f"model, an instance of {type(make).__name__}: give the class, and its arguments when "
            f"it is called: ensemble({type(make).__name__}, size)(key, *args)"
        )


def _callable(value: Any, name: str, what: str) -> None:
    if not callable(value):
        raise TypeError(f"`{name}` must be {what}; got {value!r} of type {type(value).__name__}")
