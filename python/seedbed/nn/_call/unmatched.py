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
        """Says so if the filter goes by names, was asked of something, and matched nothing.

        Types and functions may be meant for some trees only.
        """
        if self._matched or not self._paths:
            return
        names = list(dict.fromkeys(str(part) for path in self._paths for part in path))
        why = [said for part in filters.walk(self._given) if (said := _said(part, names))]
        if why:
            said = f"`{self._name}`={self._given!r} matches nothing: {'; '.join(why)}"
            warnings.warn(said, UserWarning, stacklevel=_users_level())


def _said(part: Any, names: list[str]) -> str:
    """What is said of a part of a filter that names something, with names that are there."""
    if isinstance(part, (str, filters.WithTag)):
        name = part if isinstance(part, str) else part._args[0]
        said = f"a string is a tag, and nothing has the tag {name!r}"
    elif isinstance(part, filters.PathContains):
        name = part._args[0]
        said = f"no path contains {name!r}"
    else:
        return ""
    near = difflib.get_close_matches(str(name), names, 3, 0.6)
    by_name = " or ".join(f"filters.PathContains({one!r})" for one in near)
    return f"{said} (what is called like that: {by_name})" if near else said


def _users_level() -> int:
    """How far up the first frame outside of this package is, for the caller's warning."""
    frame, level = sys._getframe(2), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("seedbed."):
        frame, level = frame.f_back, level + 1
    return level
