"""Generators: the PRNG implementation that a key is of, and whether its numbers are threefry2x32's.

An implementation is known by its functions. Its name is what anybody chose to call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from . import compat, jaxprs

if TYPE_CHECKING:
    from .types import Jaxpr

# What a key's numbers depend on: how keys are seeded is not part of it.
_PARTS = ("split", "random_bits", "fold_in")

# Implementations with the bits of threefry2x32: jax's own, and that of `prng`.
_threefry: list[Any] = [compat.threefry_prng_impl]

# Others of jax's that count: under `jax.vmap` each key draws what it draws alone.
_counting: list[Any] = [
    impl
    for impl in map(compat.prng_named, ("philox2x32", "philox4x32", "threefry4x32"))
    if impl is not None
    and all(getattr(impl, part).__module__.startswith("jax.") for part in _PARTS)
]

# Primitives that make keys of what is none, and those that draw from words, for a batch as a whole.
_MAKES_KEYS = frozenset({"random_seed", "random_wrap"})
_OF_THE_BATCH = frozenset({"rng_bit_generator", "rng_uniform"})


def register(impl: Any) -> None:
    """Makes an implementation of threefry2x32 known, to jax by its name."""
    _threefry.append(impl)
    compat.register_prng(impl)


def same(one: Any, other: Any) -> bool:
    """Whether two implementations make the same numbers, since the same functions make them."""
    return one is other or (
        getattr(one, "key_shape", None) == other.key_shape
        and all(getattr(one, part, None) is getattr(other, part) for part in _PARTS)
    )


def is_threefry(impl: Any) -> bool:
    """Whether an implementation is known to make threefry2x32's bits."""
    return any(same(impl, known) for known in _threefry)


def draws_alone(impl: Any) -> bool:
    """Whether a key is known to draw under `jax.vmap` what it draws alone."""
    return is_threefry(impl) or any(same(impl, known) for known in _counting)


def of(key: Any) -> Any:
    """The implementation behind a key or an array of keys; of legacy ones the default."""
    return compat.key_impl(key.dtype) if compat.is_key(key.dtype) else default()


def default() -> Any:
    """The implementation that legacy ``uint32`` keys are read with."""
    return compat.default_prng()


def address(impl: Any) -> Any:
    """What `jax.random.wrap_key_data` finds an implementation by: its name, where that leads to it,
    else itself."""
    known = compat.prng_named(impl.name)
    return impl.name if known is not None and same(impl, known) else impl


def shown(impl: Any) -> str:
    """An implementation in a message: its name, with a word where that is misleading."""
    named_alike = any(impl.name == known.name for known in _threefry)
    if named_alike and not is_threefry(impl):
        return f"{impl.name!r} (by name; its functions are others)"
    return repr(impl.name)


def legacy_words() -> int:
    """Length of a legacy key: 2 for threefry, whatever the default implementation has else."""
    return int(default().key_shape[-1])


def legacy_form() -> str:
    """What a legacy key looks like, for messages."""
    return f"raw key words are uint32 with a last axis of {legacy_words()}{legacy_setting()}"


def legacy_setting() -> str:
    """The setting that decides what a legacy key is, for messages; empty where it is jax's own."""
    name = compat.default_prng_name()
    return "" if name == "threefry2x32" else f" under jax_default_prng_impl={name!r}"


def foreign(impls: Iterable[Any]) -> Any | None:
    """The first implementation among some that is not known to be threefry2x32's."""
    return next((impl for impl in impls if not is_threefry(impl)), None)


class Drawing(NamedTuple):
    """How a traced init function draws.

    Attributes:
        foreign: an implementation that is not known to be threefry2x32's, if there is one.
        folds: for each key, whether ``fold_in(key, i)`` is member ``i``'s (`_run.reference`).
        alone: whether under `jax.vmap` each member is known to draw what it draws alone.
        watched: whether jax looks for keys that are used twice.
    """

    foreign: Any | None
    folds: tuple[bool, ...]
    alone: bool
    watched: bool


def drawing(jaxpr: Jaxpr, given: Sequence[Any]) -> Drawing:
    """How a jaxpr draws, its equations' own jaxprs included.

    Args:
        jaxpr: of one member.
        given: the implementation of each key, which legacy ones do not show in a jaxpr.
    """
    impls = {id(impl): impl for impl in given}
    alone = True
    for body in jaxprs.bodies(jaxpr):
        for variable in (*body.constvars, *body.invars):
            dtype = getattr(variable.aval, "dtype", None)
            if dtype is not None and compat.is_key(dtype):
                impl = compat.key_impl(dtype)
                impls[id(impl)] = impl
        for eqn in body.eqns:
            name = eqn.primitive.name
            if name in _MAKES_KEYS:
                impl = eqn.params["impl"]
                impls[id(impl)] = impl
            elif name in _OF_THE_BATCH:
                alone = False
    other = foreign(impls.values())
    partitionable = compat.partitionable()
    return Drawing(
        other,
        tuple([partitionable and is_threefry(impl) for impl in given]),
        alone and all(draws_alone(impl) for impl in impls.values()),
        keys_watched(),
    )


# --- jax's check for keys used twice ----------------------------------------------------


def keys_watched() -> bool:
    """Whether jax follows what becomes of every typed key."""
    config: Any = jax.config
    return bool(config.jax_debug_key_reuse)


def unused(key: Any) -> Any:
    """A key as that check sees a new one."""
    return jax.random.clone(key) if compat.is_key(key.dtype) else key


def use_up(keys: Sequence[Any]) -> None:
    """What drawing from keys, or from each of arrays of keys, is to that check.

    Raises:
        jax.errors.KeyReuseError: one was used before.
    """
    split: Any = jax.random.split
    for key in keys:
        if compat.is_key(key.dtype):
            (jax.vmap(split) if key.ndim else split)(key)
