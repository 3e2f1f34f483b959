"""Where variables lie: what users say by their paths, and what variables say themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
from flax import nnx
from flax.core.spmd import get_logical_axis_rules

from ..._ensemble import shardings
from .._shared.layouts import Framework, Pair, Places
from .._shared.parts import TakenApart

# In the place of True, while variables are made that are not to be laid out at once: as False to
# nnx, and yet not the False of a user.
_LATER = 0


def places(out_shardings: Any) -> Places | None:
    """`out_shardings` of modules: of their state, by path."""
    return None if out_shardings is None else Places(out_shardings, _NNX, _state)


def _state(made: TakenApart) -> Any:
    return nnx.merge_state(made.own, *made.common)


def _items(tree: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Leaves of a state, a module or a dictionary, by path."""

    def ends(one: Any) -> bool:
        return isinstance(one, nnx.Variable) or shardings.is_leaf(one)

    for path, leaf in jax.tree_util.tree_leaves_with_path(tree, is_leaf=ends):
        names = tuple(map(_name, path))
        if not isinstance(leaf, nnx.Variable):
            yield names, leaf
            continue
        inside = jax.tree_util.tree_leaves_with_path(leaf, is_leaf=shardings.is_leaf)
        for (_, *rest), one in inside:  # the first step is to the variable's value
            yield (*names, *map(_name, rest)), one


def _name(entry: Any) -> Any:
    for field in ("key", "name", "idx"):
        if hasattr(entry, field):
            return getattr(entry, field)
    return str(entry)


def _pairs(given: Any, state: Any) -> list[Pair]:
    """Each variable with what is said of the longest beginning of its path."""
    said, used, found = dict(_items(given)), set(), []
    leaves = list(_items(state))
    for path, leaf in leaves:
        beginnings = (path[:n] for n in range(len(path), -1, -1))
        if (known := next((one for one in beginnings if one in said), None)) is not None:
            found.append((said[known], leaf))
            used.add(known)
    if unknown := [path for path in said if path not in used]:
        some = ", ".join(_text(path) for path, _ in leaves[:8])
        raise ValueError(
            f"`out_shardings` names {_text(unknown[0])}, and the model has no such variable; it "
            f"has {some}{', ...' if len(leaves) > 8 else ''}"
        )
    return found


def _text(path: tuple[Any, ...]) -> str:
    return ".".join(map(str, path))


def _checked(given: Any) -> None:
    for path, one in _items(given):
        shardings.checked({_text(path): one} if path else one)


_NNX = Framework(nnx.get_partition_spec, get_logical_axis_rules, _pairs, _checked)


@contextlib.contextmanager
def lazily() -> Iterator[None]:
    """Variables made inside are laid out with the model, not by themselves as nnx does it."""
    later: Any = nnx.use_eager_sharding
    with later(_LATER):
        yield


def eagerly(model: Any) -> None:
    """Makes the variables that were made so those that nnx would have made."""
    for _, node in nnx.iter_graph(model):
        if isinstance(node, nnx.Variable) and node.get_metadata("eager_sharding") is _LATER:
            node.set_metadata("eager_sharding", True)
