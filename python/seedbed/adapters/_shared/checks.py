"""What users pass to adapters, checked: the forms of keys, and arguments that follow them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import jax

from ..._ensemble import check


def check_key(value: Any, name: str, *, named: bool) -> None:
    """Whether a key has a form that a framework takes; what is in it is checked later.

    Args:
        named: whether a mapping from names to keys is one.
    """
    if value is None or jax.tree_util.all_leaves([check.finite(value, name)]):
        return
    accepted = "one key, or an array with a key for each member"
    what = f"a {type(value).__name__} of {len(jax.tree_util.tree_leaves(value))}"
    if named:
        accepted += '; or a mapping from names to such, as {"params": key, "dropout": other}'
        if isinstance(value, Mapping):
            wrong = [
                one
                for one, key in value.items()
                if not (isinstance(one, str) and jax.tree_util.all_leaves([key]))
            ]
            if not wrong:
                return
            what = f"a mapping with a {type(value[wrong[0]]).__name__} under {wrong[0]!r}"
    raise TypeError(f"`{name}` must be {accepted}; got {what}")


def check_arguments(
    make: Any, args: tuple[Any, ...], kwargs: dict[str, Any], first: str, given: Any, accepted: str
) -> None:
    """Whether ``make`` takes what follows the first argument of the call, its random numbers.

    Those who forget it see their own first argument taken for it.
    """
    function: Any = make
    before: tuple[Any, ...] = ()
    options: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        before, options = (*function.args, *before), {**function.keywords, **options}
        function = function.func
    name = getattr(function, "__qualname__", None) or repr(function)
    made: Any = function
    if isinstance(function, type):  # the metaclass takes anything
        function, before = made.__init__, (None, *before)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # builtins and some wrapped functions have none
        return
    try:
        signature.bind(*before, *args, **{**options, **kwargs})
    except TypeError as error:
        what = f"the seed {given}" if isinstance(given, int) else f"of type {type(given).__name__}"
        raise TypeError(
            f"`{first}` is the first argument of the call, {accepted}; it is {what}, and {name} "
            f"does not take the {len(args)} argument(s) that follow: {error}"
        ) from None
