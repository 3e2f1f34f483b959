"""A model taken apart: its arrays, under their names, and a static rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(frozen=True, slots=True)
class TakenApart:
    """A model of one member: pytrees of arrays of its own, arrays for all members, the rest.

    Attributes:
        aside: arrays that come with a model, for all members, and are no part of it.
    """

    own: Any
    common: Any = ()
    rest: Any = None
    aside: Any = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """Something of each of the pytrees of arrays in a `TakenApart`."""

    own: Any
    common: Any
    aside: Any


PARTS = ("own", "common", "aside")


class Rest:
    """What of a model is not an array, equal to itself only: it need not be comparable."""

    def __init__(self, trees: Parts | None, value: Any) -> None:
        self.trees = trees
        self.value = value

    def __reduce__(self) -> Any:
        return Rest, (None, None)  # in a plan, which makes no models

    def map(self, made: Callable[[Any], Any]) -> Parts:
        """What is made of the structure of each part."""
        return Parts(*[made(getattr(self.trees, part)) for part in PARTS])

    def model(self, leaves: Parts) -> TakenApart:
        """The model again, of the leaves of each part."""
        own, common, aside = [
            jax.tree_util.tree_unflatten(getattr(self.trees, part), getattr(leaves, part))
            for part in PARTS
        ]
        return TakenApart(own, common, self.value, aside)


@jax.tree_util.register_pytree_with_keys_class
class Arrays:
    """Arrays of a model under their names, and its rest."""

    def __init__(self, leaves: Sequence[Any], names: tuple[str, ...], rest: Rest) -> None:
        self.leaves = leaves
        self.names = names
        self.rest = rest

    def tree_flatten_with_keys(self) -> tuple[list[tuple[str, Any]], tuple[Any, ...]]:
        return list(zip(self.names, self.leaves, strict=True)), (self.names, self.rest)

    @classmethod
    def tree_unflatten(cls, aux: tuple[Any, ...], leaves: Sequence[Any]) -> Arrays:
        return cls(leaves, *aux)


def arrays(made: TakenApart, parts: Sequence[str]) -> Arrays:
    """The arrays in some parts of a model, one part after the other."""
    trees = [jax.tree_util.tree_structure(getattr(made, part)) for part in PARTS]
    found: list[Any] = []
    for part in parts:
        found += jax.tree_util.tree_leaves_with_path(getattr(made, part))
    names = tuple([jax.tree_util.keystr(path) for path, _ in found])
    return Arrays([leaf for _, leaf in found], names, Rest(Parts(*trees), made.rest))
