"""Filters: which nodes or states of a module tree a call means.

A filter is any of

- a type: objects that are instances of it;
- a string: objects with that tag;
- a callable ``(path, obj) -> bool``;
- ``True`` or ``...``: everything; ``False`` or ``None``: nothing;
- a list or tuple of filters: what any of them matches;
- `WithTag`, `PathContains`, `OfType`, `Any`, `All`, `Not`, `Everything`, `Nothing`.

A path is a tuple of attribute names, list indices and dictionary keys; the root's is ``()``.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from types import EllipsisType
from typing import Union

import numpy as np

__all__ = [
    *("All", "Any", "Everything", "Filter", "Not", "Nothing", "OfType", "PathContains"),
    *("Predicate", "WithTag", "to_predicate"),
]


def __dir__() -> list[str]:
    return list(__all__)


Predicate = Callable[[tuple[typing.Any, ...], object], bool]

Filter = Union[
    type, str, bool, None, EllipsisType, "_Filter", Predicate, "list[Filter]", "tuple[Filter, ...]"
]

_ACCEPTED = (
    "a type, a str (a tag), a callable (path, obj) -> bool, True or ... (everything), False or "
    "None (nothing), a list or tuple of filters, or one of WithTag, PathContains, OfType, Any, "
    "All, Not, Everything, Nothing"
)

# Far beyond what anyone writes, and far below Python's own limit on recursion.
_MAX_DEPTH = 64
# A list that has one list twice, which has one list twice, and so on, is never gone through.
_MAX_PARTS = 2**18


def _invalid(what: str) -> TypeError:
    return TypeError(f"Invalid collection filter: {what}; a filter is {_ACCEPTED}")


def _too_deep() -> TypeError:
    return _invalid(f"filters nested more than {_MAX_DEPTH} deep, or in themselves")


def walk(filter: typing.Any, *, combined: bool = True) -> Iterator[typing.Any]:
    """A filter and all that it consists of, of any filter language that has lists.

    The one door: whatever takes a filter comes by here before anything else goes into one.

    Args:
        combined: whether to go into `Any`, `All` and `Not` too.

    Raises:
        TypeError: the filter contains itself, or too much.
    """
    count = 0
    pending = [iter((filter,))]
    while pending:
        for part in pending[-1]:
            count += 1
            if count > _MAX_PARTS:
                raise _invalid(f"more than {_MAX_PARTS} filters, counted wherever they occur")
            yield part
            inner = part._args if combined and isinstance(part, _Combination) else part
            if isinstance(inner, (list, tuple)):
                if len(pending) > _MAX_DEPTH:
                    raise _too_deep()
                pending.append(iter(inner))
                break
        else:
            pending.pop()


def check_end(filter: typing.Any, *, combined: bool = True) -> None:
    """Refuses a filter that `walk` refuses; for filters of other libraries too."""
    for _ in walk(filter, combined=combined):
        pass


class _Filter:
    """A filter that is compared, hashed and printed by the arguments it was made from."""

    __slots__ = ("_args",)
    _args: tuple[typing.Any, ...]

    def __init__(self, *args: typing.Any) -> None:
        object.__setattr__(self, "_args", args)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{self!r} is immutable; make another filter instead")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is immutable; make another filter instead")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Filter):
            return NotImplemented
        return type(self) is type(other) and _same(self._args, other._args)

    def __hash__(self) -> int:
        return hash((type(self), self._args))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(_show, self._args))})"

    def __reduce__(self) -> tuple[typing.Any, ...]:
        return type(self), self._args


class WithTag(_Filter):
    """Objects with the tag ``tag``: as their ``tag``, or among their ``tag`` or ``tags``.

    Raises:
        TypeError: ``tag`` is not a str.

    Example:
        >>> from types import SimpleNamespace
        >>> from seedbed import filters
        >>> keep = filters.to_predicate(filters.WithTag("slow"))
        >>> keep(("w",), SimpleNamespace(tag="slow")), keep(("b",), SimpleNamespace(tag=None))
        (True, False)
    """

    __slots__ = ()

    def __init__(self, tag: str) -> None:
        if not isinstance(tag, str):
            raise _invalid(f"WithTag takes a str, not {_what(tag)}")
        super().__init__(tag)


class PathContains(_Filter):
    """Objects with ``key`` among the elements of their path; ``1``, ``True``, ``"1"`` differ.

    Raises:
        TypeError: ``key`` is of a type that no path has (str, int, bool, bytes, tuple).

    Example:
        >>> from seedbed import filters
        >>> keep = filters.to_predicate(filters.PathContains("bias"))
        >>> keep(("layers", 0, "bias"), None), keep(("layers", 0, "weight"), None)
        (True, False)
    """

    __slots__ = ()

    def __init__(self, key: typing.Any) -> None:
        if not isinstance(key, (str, int, bytes, tuple)):
            raise _invalid(
                f"PathContains takes one element of a path (str, int, bool, bytes or tuple), "
                f"not {_what(key)}"
            )
        super().__init__(key)


class OfType(_Filter):
    """Instances of ``type``; the same as the bare type.

    Raises:
        TypeError: ``type`` is not a type.

    Example:
        >>> from seedbed import filters
        >>> keep = filters.to_predicate(filters.OfType(int))
        >>> keep(("a",), 1), keep(("a",), "1")
        (True, False)
    """

    __slots__ = ()

    def __init__(self, type: type) -> None:
        _check_type(type)
        super().__init__(type)


class _Combination(_Filter):
    __slots__ = ()

    def __init__(self, *filters: Filter) -> None:
        check_end(filters, combined=False)
        super().__init__(*map(_frozen, filters))


class Any(_Combination):
    """What at least one of ``filters`` matches; of none, nothing.

    Example:
        >>> from seedbed import filters
        >>> keep = filters.to_predicate(filters.Any(int, filters.PathContains("a")))
        >>> keep(("a",), "1"), keep(("b",), 1), keep(("b",), "1")
        (True, True, False)
    """

    __slots__ = ()


class All(_Combination):
    """What every one of ``filters`` matches; of none, everything.

    Example:
        >>> from seedbed import filters
        >>> keep = filters.to_predicate(filters.All(int, filters.PathContains("a")))
        >>> keep(("a",), 1), keep(("a",), "1")
        (True, False)
    """

    __slots__ = ()


class Not(_Combination):
    """What ``filter`` does not match.

    Example:
        >>> from seedbed import filters
        >>> keep = filters.to_predicate(filters.Not(int))
        >>> keep(("a",), 1), keep(("a",), "1")
        (False, True)
    """

    __slots__ = ()

    def __init__(self, filter: Filter) -> None:
        super().__init__(filter)


class Everything(_Filter):
    """Everything; the same as ``True`` and ``...``.

    Example:
        >>> from seedbed import filters
        >>> filters.to_predicate(filters.Everything())((), None)
        True
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()


class Nothing(_Filter):
    """Nothing; the same as ``False`` and ``None``.

    Example:
        >>> from seedbed import filters
        >>> filters.to_predicate(filters.Nothing())((), None)
        False
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()


def to_predicate(filter: Filter) -> Predicate:
    """Checks a whole filter and makes it a function of a path and an object.

    Args:
        filter: see the module's documentation.

    Returns:
        ``(path, obj) -> bool``. It raises TypeError if a callable of the filter answers with
        anything else than a bool.

    Raises:
        TypeError: the filter, or one inside of it, is nothing that filters.

    Example:
        >>> from seedbed import filters
        >>> keep = filters.to_predicate([int, filters.PathContains("bias")])
        >>> keep(("layers", 0, "bias"), "b"), keep(("layers", 0, "weight"), "w")
        (True, False)
    """
    check_end(filter)
    return _compile(filter)


def _compile(filter: typing.Any) -> Predicate:
    # By identity: 1 == True, and an array's == is an array.
    if filter is True or filter is ... or isinstance(filter, Everything):
        return lambda path, obj: True
    if filter is False or filter is None or isinstance(filter, Nothing):
        return lambda path, obj: False
    if isinstance(filter, str):
        return _with_tag(filter)
    if isinstance(filter, (list, tuple, _Combination)):
        parts = filter._args if isinstance(filter, _Combination) else filter
        inner = [_compile(part) for part in parts]
        if isinstance(filter, All):
            return lambda path, obj: all(keep(path, obj) for keep in inner)
        if isinstance(filter, Not):
            return lambda path, obj: not inner[0](path, obj)
        return lambda path, obj: any(keep(path, obj) for keep in inner)
    if isinstance(filter, _Filter):
        (argument,) = filter._args
        if isinstance(filter, WithTag):
            return _with_tag(argument)
        if isinstance(filter, OfType):
            return lambda path, obj: isinstance(obj, argument)
        return lambda path, obj: any(_same(element, argument) for element in path)
    if isinstance(filter, type):
        _check_type(filter)
        return lambda path, obj: isinstance(obj, filter)
    if callable(filter) and typing.get_origin(filter) is None:
        return _checked(filter)
    raise _invalid(f"got {_what(filter)}")


def _with_tag(tag: str) -> Predicate:
    def keep(path: tuple[typing.Any, ...], obj: object) -> bool:
        for name in ("tags", "tag"):
            found = getattr(obj, name, None)
            if isinstance(found, str):
                found = (found,)
            # A module may have an attribute of this name that holds something else.
            if isinstance(found, (frozenset, set, tuple, list)):
                if any(isinstance(one, str) and one == tag for one in found):
                    return True
        return False

    return keep


def _checked(function: Callable[..., typing.Any]) -> Predicate:
    def keep(path: tuple[typing.Any, ...], obj: object) -> bool:
        answer = function(path, obj)
        if not isinstance(answer, (bool, np.bool_)):
            raise TypeError(
                f"the filter {_show(function)} must answer with a bool; at path {path!r} it gave "
                f"{_what(answer)}"
            )
        return bool(answer)

    return keep


def _check_type(value: object) -> None:
    if not isinstance(value, type):
        raise _invalid(f"OfType takes a type, not {_what(value)}")
    if issubclass(value, _Filter):
        raise _invalid(
            f"got the class {value.__name__}, which no object is an instance of (did you mean "
            f"{value.__name__}(...)?)"
        )


def _frozen(filter: typing.Any) -> typing.Any:
    """``filter`` with its lists as tuples, so that it has a hash and nobody can change it."""
    if isinstance(filter, (list, tuple)):
        return tuple(map(_frozen, filter))
    return filter


def _same(one: typing.Any, other: typing.Any) -> bool:
    """Equality under which ``1`` and ``True`` differ, also inside tuples."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _show(value: typing.Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_show, value))}{',' * (len(value) == 1)})"
    name = getattr(value, "__qualname__", None)
    return name if isinstance(name, str) else repr(value)


def _what(value: object) -> str:
    return f"{_show(value)} of type {type(value).__name__}"
