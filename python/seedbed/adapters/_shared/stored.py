"""Ensembles of a framework's models on disk, and those that are never stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax

from ..._ensemble import saving
from ..._store import saved as stores
from .model import ModelEnsemble
from .parts import Arrays


class Models:
    """Members as models, each read or made when it is asked for.

    ``models[i]`` is a plain model; ``models[a:b]`` and ``models[[...]]`` are those of several
    members, as one model whose arrays have a leading axis. Iterating gives plain models. Made by
    the methods ``save``, ``load`` and ``lazy`` of ensembles.

    Attributes:
        arrays: the members' own arrays alone: a `seedbed.Saved`, or a `seedbed.Lazy`.
    """

    def __init__(self, arrays: Any, model: Callable[[Any], Any], shown: str) -> None:
        self.arrays = arrays
        self._model = model
        self._shown = shown

    def __repr__(self) -> str:
        return self._shown

    @property
    def size(self) -> int:
        """The number of members."""
        size: int = self.arrays.size
        return size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        """A member as a plain model, or several as one; ``index`` as of `seedbed.Saved`."""
        return self._model(self.arrays[index])

    def __iter__(self) -> Iterator[Any]:
        return map(self._model, self.arrays)

    def chunks(self, chunk_size: int | None = None) -> Iterator[Any]:
        """All members in order, in pieces, each as one model with a leading axis."""
        return map(self._model, self.arrays.chunks(chunk_size))


class StoredEnsemble(ModelEnsemble):
    """An ensemble of models that are what their arrays and a static rest are."""

    def save(
        self,
        path: Any,
        key: Any,
        /,
        *args: Any,
        chunk_size: int | None = None,
        progress: bool = True,
        overwrite: bool = False,
        part: tuple[int, int] | None = None,
        **kwargs: Any,
    ) -> Models | None:
        """Writes the members' own arrays to disk, in pieces, as `seedbed.ensemble` does.

        What is no array, and what all members share, is not stored: `load` makes it again. The
        result's structure is the model's, so `seedbed.load` reads models that are made of dicts
        and arrays alone.

        Args:
            path, chunk_size, progress, overwrite, part: as for the method ``save`` of
                `seedbed.ensemble`; so a model cannot be given keywords of these names.
            key, *args, **kwargs: as for the call.

        Returns:
            The models on disk; None while other parts are missing.
        """
        order = saving.ordered(path, chunk_size, progress, overwrite, part)
        if not self._written(order, key, args, kwargs):
            return None
        return self.load(order.folder, key, *args, **kwargs)

    def load(self, path: Any, key: Any, /, *args: Any, **kwargs: Any) -> Models:
        """Opens models that `save` wrote, given what they were made from.

        No member is made: the model is traced for its static parts, and arrays that all members
        share are made as a model is asked for.

        Args:
            path: as for `seedbed.load`.
            key, *args, **kwargs: as they were saved.

        Raises:
            ValueError: the store is of another key, another number of members or another model.
            FileNotFoundError, StoreError, ImportError: see `seedbed.load`.
        """
        saved, out = self._opened(path, key, args, kwargs)

        def model(own: Any) -> Any:
            return self._again(own, out, key, args, kwargs)

        return Models(saved, model, f"models of {saved!r}")

    def lazy(self, key: Any, /, *args: Any, **kwargs: Any) -> Models:
        """The models as an object that makes what it is asked for; see `seedbed.Lazy`."""
        programs, leaves = self._programs(key, args, kwargs)

        def model(own: Any) -> Any:
            return self._model(programs, own, key, leaves)

        return Models(programs.own.lazy(key, *leaves), model, f"lazy models of {self!r}")

    def _written(
        self, order: saving.Order, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bool:
        """Writes members; whether all are there."""
        programs, leaves = self._programs(key, args, kwargs)
        done = saving.save(programs.own, order, key, tuple(leaves), _own, self._name)
        return done is not None

    def _opened(
        self, path: Any, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[stores.Saved, Arrays]:
        """The members' own arrays on disk, checked, and what is traced of one member."""
        programs, leaves = self._programs(key, args, kwargs)
        call = programs.own._call(key, tuple(leaves))
        _, out = saving.traced(programs.own, call)
        like = _own(out)
        saved = stores.load(path, like=like)
        was, now = saved.made_from.get("key"), saving.key_text(call)
        if was != now:
            raise ValueError(f"`key` is {now}, and the models at {str(path)!r} were made of {was}")
        if saved.size != self.size:
            raise ValueError(
                f"{str(path)!r} holds {saved.size} members, and the ensemble has {self.size}"
            )
        there = jax.tree_util.tree_leaves(saved.shapes)
        for name, one, stored in zip(saved.paths, out.leaves, there, strict=True):
            if (one.shape, one.dtype) != (stored.shape, stored.dtype):
                raise ValueError(
                    f"the array {name!r} is {one.dtype} of shape {one.shape} in each member, and "
                    f"{stored.dtype} of shape {stored.shape} at {str(path)!r}"
                )
        return saved, out

    def _again(
        self, own: Any, out: Arrays, key: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """A model of arrays that were read."""
        programs, leaves = self._programs(key, args, kwargs)
        found = Arrays(jax.tree_util.tree_leaves(own), out.names, out.rest)
        return self._model(programs, found, key, leaves)


def _own(out: Arrays) -> Any:
    """A model's own arrays in the containers that the model has."""
    return jax.tree_util.tree_unflatten(out.rest.trees.own, out.leaves)  # type: ignore[union-attr]
