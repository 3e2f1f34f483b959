"""Names of the leaves of a result: how users write them, and how they are found."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import jax

# What an array that is the whole result, and so has no path, is called.
WHOLE = "result"


def short(path: tuple[Any, ...]) -> str:
    """A jax key path as one word: ``layers.0.w`` for ``['layers'][0].w``."""
    return ".".join([str(_step(entry)) for entry in path]) or WHOLE


def _step(entry: Any) -> Any:
    for name in ("key", "idx", "name"):
        if hasattr(entry, name):
            return getattr(entry, name)
    return entry


def names(tree: Any) -> tuple[tuple[str, str], ...]:
    """For each leaf its path as `jax.tree_util.keystr` writes it, and as one word."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return tuple([(jax.tree_util.keystr(path) or WHOLE, short(path)) for path, _ in leaves])


def find(path: Any, known: Sequence[tuple[str, str]]) -> int:
    """The position of the leaf that a user means, among the `names` of a result.

    Raises:
        TypeError: ``path`` is not a string.
        KeyError: there is no such leaf, or several that this could be.
    """
    if not isinstance(path, str):
        raise TypeError(
            "`path` must be a string, the path of a leaf as in \"['layers'][0]['w']\" or "
            f"layers.0.w; got {path!r} of type {type(path).__name__}"
        )
    found = [place for place, (long, _) in enumerate(known) if long == path]
    found = found or [place for place, (_, word) in enumerate(known) if word == path]
    if len(found) == 1:
        return found[0]
    if found:
        same = ", ".join([known[place][0] for place in found])
        raise KeyError(f"`path` {path!r} could be each of the leaves {same}; write one of these")
    words = [word for _, word in known]
    near = difflib.get_close_matches(path, words, 3) or words[:5]
    more = ", ..." if len(near) < len(words) else ""
    raise KeyError(f"`path` {path!r} is no leaf; there are {', '.join(near)}{more}")
