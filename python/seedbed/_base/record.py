"""Immutable records: what frozen dataclasses are for, cheap to define and to make.

`dataclasses` compiles new functions for every class, 0.5 to 1 ms each at import, and then fills
a frozen instance field by field. The planner makes tens of records for every leaf of a model.
"""

from __future__ import annotations

import operator
from dataclasses import FrozenInstanceError
from typing import TYPE_CHECKING, Any, ClassVar, Self, dataclass_transform

# A tuple inside, which nothing but this file may make use of.
if TYPE_CHECKING:
    _Tuple = object
else:
    _Tuple = tuple
_equal: Any = tuple.__eq__
_make: Any = tuple.__new__


@dataclass_transform(frozen_default=True)
class Record(_Tuple):
    """The base of records: a subclass names its fields as a dataclass does.

    Records of one class are equal if their fields are, but for those that the class names in
    ``apart``. Defaults are shared, so they have to be immutable too.
    """

    _names: ClassVar[tuple[str, ...]]
    _defaults: ClassVar[tuple[Any, ...]]  # of the last fields

    def __init_subclass__(cls, apart: tuple[str, ...] = ()) -> None:
        cls._names = names = tuple(cls.__annotations__)
        cls._defaults = tuple(vars(cls)[name] for name in names if name in vars(cls))
        for position, name in enumerate(names):
            setattr(cls, name, property(operator.itemgetter(position)))
        if apart:
            compared = operator.attrgetter(*[name for name in names if name not in apart])
            kind: Any = cls
            kind.__eq__ = lambda self, other: (
                compared(self) == compared(other) if type(other) is cls else NotImplemented
            )
            kind.__hash__ = lambda self: hash(compared(self))

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        if kwargs or len(args) != len(cls._names):
            args = cls._filled(args, kwargs)
        return _make(cls, args)  # type: ignore[no-any-return]

    @classmethod
    def _filled(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        names, defaults = cls._names, cls._defaults
        first = len(names) - len(defaults)
        if not kwargs and first <= len(args) < len(names):
            return args + defaults[len(args) - first :]
        values = dict(zip(names[first:], defaults, strict=True))
        values.update(zip(names, args, strict=False))
        values.update(kwargs)
        twice = kwargs.keys() & set(names[: len(args)])
        if twice or len(args) > len(names) or set(values) != set(names):
            raise TypeError(f"{cls.__name__} has the fields {names}; got {args}, {kwargs}")
        return tuple([values[name] for name in names])

    def replace(self, **changes: Any) -> Self:
        """The same record with other values of some fields."""
        made: Self = _make(type(self), map(changes.pop, self._names, self.fields()))
        if changes:
            raise TypeError(f"{type(self).__name__} has the fields {self._names}; got {changes}")
        return made

    def fields(self) -> tuple[Any, ...]:
        """The values of all fields, in order."""
        return _make(tuple, self)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bool(_equal(self, other))

    def __ne__(self, other: object) -> bool:
        return not self == other

    if not TYPE_CHECKING:
        __hash__ = tuple.__hash__

    def __repr__(self) -> str:
        fields = zip(self._names, self.fields(), strict=True)
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in fields)})"

    def __reduce__(self) -> Any:
        return type(self), self.fields()

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")
