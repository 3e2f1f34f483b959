"""Filters that a user gave and that match nothing, which is mostly a name that is no tag."""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Callable
from typing import Any

from ... import filters


class Asked:
    """A predicate that knows what it was asked.

    Args:
        keep: the filter as a predicate.
        given: the filter as it came.
        name: of the argument.
    """

    def __init__(self, keep: Callable[[Any, Any], bool], given: Any, name: str) -> None:
        self._keep = keep
        self._given = given
        self._name = name
        self._paths: list[Any] = []
        self._matched = False

    def __call__(self, path: Any, found: Any) -> bool:
        self._paths.append(path)
        matches = self._keep(path, found)
        self._matched = self._matched or bool(matches)
        return matches

    def warn_if_unmatched(self) -> None:
        """Says so if it was asked of something, and matched nothing of it."""
        given = self._given
        nothing = given is None or given is False or isinstance(given, filters.Nothing)
        if isinstance(given, (list, tuple)):
            nothing = not given
        if self._matched or not self._paths or nothing:
            return
        said = f"`{self._name}`={given!r} matches nothing"
        tags = [part for part in filters.walk(given) if isinstance(part, str)]
        names = dict.fromkeys(str(part) for path in self._paths for part in path)
        for tag in tags:
            near = difflib.get_close_matches(tag, names, 3, 0.6)
            said += f"; a string is a tag, and nothing has the tag {tag!r}"
            if near:
                by_name = " or ".join(f"filters.PathContains({one!r})" for one in near)
                said += f" (for what is called so: {by_name})"
        warnings.warn(said, UserWarning, stacklevel=_users_level())


def _users_level() -> int:
    """How far up the first frame outside of this package is, for the caller's warning."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("seedbed."):
        frame, level = frame.f_back, level + 1
    return level
