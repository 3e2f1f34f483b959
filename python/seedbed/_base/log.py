"""The logger ``seedbed``: what is planned and compiled, how long that takes, and why.

Nothing is made up for it while nobody listens. ``SEEDBED_LOG`` sets a handler for those who do not
set one themselves.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

LOGGER = logging.getLogger("seedbed")
LEVELS = {"info": logging.INFO, "debug": logging.DEBUG}


def show(level: str) -> None:
    """Writes what the package says to standard error.

    Raises:
        ValueError: the level is not one of `LEVELS`.
    """
    if level not in LEVELS:
        accepted = ", ".join(map(repr, LEVELS))
        raise ValueError(f"SEEDBED_LOG is {level!r}; accepted are {accepted}")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("seedbed: %(message)s"))
    LOGGER.addHandler(handler)
    LOGGER.setLevel(LEVELS[level])
    LOGGER.propagate = False


def heard(level: int = logging.INFO) -> bool:
    return LOGGER.isEnabledFor(level)


def name_of(function: Any) -> str:
    """A function as messages call it."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__qualname__", None) or repr(function)


def first_run(program: Callable[..., Any], what: str) -> Callable[..., Any]:
    """The program; if anybody listens, it says how long its first run took."""
    if not heard():
        return program
    pending = [what]

    def run(*args: Any) -> Any:
        if not pending:
            return program(*args)
        started = time.perf_counter()
        out = program(*args)
        took = time.perf_counter() - started
        if pending:
            LOGGER.info("compiled for %s in %.3f s, with the first dispatch", pending.pop(), took)
        return out

    return run
