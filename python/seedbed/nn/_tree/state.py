"""`State`: a value of a module that changes, and what is known about it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from ... import random
from ..._base import undo
from ..._ensemble import check
from ..._jax import compat
from . import describe, pickle
from . import draft as _draft
from .content import UNSET, Content, Declared, MemberAxis, Refused
from .draft import LOCK
from .state_checks import (
    as_shape,
    as_tags,
    check_drawn,
    check_members,
    check_traced,
    copied,
    declared_dtype,
)

Initializer = Callable[..., Any]


class State:
    """A value of a module that initialisation makes and running may change.

    Either holds ``value``, any pytree, or is *declared*: ``init`` and ``shape`` say how to draw
    it, and nothing is allocated until `vmap_init_all_states`, `init_all_states` or the first
    read draws it. The kinds of state are subclasses; a kind is a marker for filters.

    Args:
        value: any pytree of arrays and numbers.
        init: ``init(key, shape, dtype)``, as those of `jax.nn.initializers`.
        shape: shape of the declared value.
        dtype: dtype of the declared value; jax's default float if None.
        tag: a string, or several, that filters select by.

    Raises:
        TypeError: neither or both of ``value`` and ``init`` are given, or a wrong type.

    Example:
        >>> import jax, seedbed as sb
        >>> weight = sb.nn.ParamState(init=jax.nn.initializers.he_normal(), shape=(20, 10))
        >>> weight.shape
        (20, 10)
        >>> sb.nn.State(3.0, tag="gain").tag
        'gain'
    """

    _content: Content

    def __init__(
        self,
        value: Any = UNSET,
        *,
        init: Initializer | None = None,
        shape: int | Iterable[int] | None = None,
        dtype: Any = None,
        tag: str | Iterable[str] | None = None,
    ) -> None:
        name = type(self).__name__
        tags = as_tags(tag)
        check.finite(value, "value")
        declared = None
        if (value is UNSET) == (init is None):
            what = "neither" if init is None else "both"
            raise TypeError(
                f"{name} takes a value, or `init` and `shape` to declare one; got {what}"
            )
        if init is None:
            if shape is not None or dtype is not None:
                raise TypeError(f"{name} takes `shape` and `dtype` with `init` only")
        else:
            if not callable(init):
                raise TypeError(
                    f"`init` of {name} must be a function init(key, shape, dtype), as those of "
                    f"jax.nn.initializers; got {init!r} of type {type(init).__name__}"
                )
            declared = Declared(init, as_shape(name, shape), dtype)
            try:
                declared_dtype(declared)
            except TypeError:
                raise TypeError(
                    f"`dtype` of {name} must be a dtype; got {dtype!r} of type "
                    f"{type(dtype).__name__}"
                ) from None
        self._home = compat.trace_state()
        self._content = Content(UNSET, (), tags, declared)
        draft = _draft.current()
        # Made by an initialisation, not by __init__: every initialisation makes it again, or
        # draws it at its end as the first one did.
        self._late = draft is not None and draft.initialises
        content = self._content._replace(value=value)
        if draft is None:
            check_traced(self._home, value)
            self._content = content
        else:
            draft.create(self, content)

    # --- the value ----------------------------------------------------------------------

    @property
    def value(self) -> Any:
        """The value; inside a call on all members, that of one member."""
        content = self._readable()
        return self._draw() if content.value is UNSET else content.value

    @value.setter
    def value(self, value: Any) -> None:
        undo.make(self._setting(value))

    def _setting(self, value: Any) -> list[undo.Step[Any]]:
        """The steps that set the value, once it is checked."""
        check.finite(value, "value")
        draft = _draft.current()
        home = self._home if draft is None else draft.home_of(self)
        if compat.trace_state() != home:
            raise ValueError(
                f"{self._name()} was made outside of the function that jax is tracing (jit, vmap, "
                "grad, scan, ...), and would be left with a traced value. Return the new value "
                "instead, or use `seedbed.nn.split` and `merge`, or `seedbed.nn.vmap`."
            )
        content = _draft.content_of(self)
        if isinstance(content.value, Refused):
            if not content.value.writable:
                raise ValueError(content.value.why)
            content = content._replace(mapped=())
        elif draft is not None and content.mapped and draft.lacks(self):
            raise ValueError(self._lacking(content))
        if draft is not None and draft.initialises:
            content = content._replace(mapped=())
        check_members(self, content.mapped, value)
        content = content._replace(value=value)
        if draft is None:
            check_traced(home, value)
            return [undo.setting(self, "_content", content)]
        return draft.writing(self, content)

    @property
    def declared(self) -> bool:
        """Whether the state can be drawn anew, having been declared with ``init``."""
        return _draft.content_of(self).declared is not None

    @property
    def initialized(self) -> bool:
        """Whether there is a value; False for a declared state that was not drawn yet."""
        return _draft.content_of(self).value is not UNSET

    @property
    def mapped(self) -> tuple[MemberAxis, ...]:
        """The levels of members, outermost first: the ``size`` and ``axis`` of each."""
        return _draft.content_of(self).mapped

    @property
    def members(self) -> int | None:
        """How many members the value holds (the outermost level), or None for a single one."""
        mapped = self.mapped
        return mapped[0].size if mapped else None

    # --- tags ---------------------------------------------------------------------------

    @property
    def tags(self) -> frozenset[str]:
        """All tags."""
        return _draft.tags_of(self)

    @property
    def tag(self) -> str | frozenset[str] | None:
        """The tag; None without one, a frozenset of several."""
        tags = self.tags
        if len(tags) > 1:
            return tags
        return next(iter(tags), None)

    @tag.setter
    def tag(self, tag: str | Iterable[str] | None) -> None:
        self._set_tags(as_tags(tag))

    def add_tag(self, tag: str) -> None:
        """Adds one tag to those that are there."""
        self._set_tags(self.tags | as_tags(tag))

    def _set_tags(self, tags: frozenset[str]) -> None:
        draft = _draft.current()
        if draft is None:
            self._content = self._content._replace(tags=tags)
        else:
            draft.set_tags(self, tags)

    # --- what is known of the value -----------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the value, with the member axis if it has one."""
        declared = self._pending()
        if declared is not None:
            return declared.shape
        value = self._array("shape")
        return tuple(value.shape) if hasattr(value, "shape") else np.shape(value)

    @property
    def dtype(self) -> Any:
        """dtype of the value."""
        declared = self._pending()
        if declared is not None:
            return declared_dtype(declared)
        value = self._array("dtype")
        return value.dtype if hasattr(value, "dtype") else jax.typeof(value).dtype

    @property
    def ndim(self) -> int:
        """Number of axes of the value, that of the members included."""
        return len(self.shape)

    def _pending(self) -> Declared | None:
        """How this state will be drawn, if it was declared and was not yet."""
        content = _draft.content_of(self)
        return content.declared if content.value is UNSET else None

    def _array(self, what: str) -> Any:
        value = self._readable().value
        if hasattr(value, "shape"):  # arrays, and quantities with a unit
            return value
        leaves = jax.tree_util.tree_leaves(value)
        if len(leaves) != 1 or leaves[0] is not value:
            raise TypeError(
                f"{self._name()} holds a {type(value).__name__}, which has no single {what}; ask "
                "its leaves (jax.tree.map) for theirs"
            )
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._describe())})"

    def _describe(self) -> list[str]:
        content = _draft.content_of(self)
        if content.value is UNSET and content.declared is None:
            parts = ["no value: made in a call that did not finish"]
        elif content.value is UNSET:
            parts = [f"shape={self.shape}", f"dtype={self.dtype}", "declared"]
        elif isinstance(content.value, Refused):
            parts = ["of other members"]
        else:
            parts = [describe.summary(content.value)]
        if content.mapped:
            sizes = [level.size for level in content.mapped]
            parts.append(f"members={sizes[0] if len(sizes) == 1 else tuple(sizes)}")
        if self.tags:
            parts.append("tag=" + ", ".join(map(repr, sorted(self.tags))))
        return parts

    # --- reading and drawing ------------------------------------------------------------

    def _name(self) -> str:
        return f"{type(self).__name__}({', '.join(self._describe()[:2])})"

    def _readable(self) -> Content:
        content = _draft.content_of(self)
        if isinstance(content.value, Refused):
            raise ValueError(content.value.why)
        draft = _draft.current()
        if draft is not None and content.mapped and draft.lacks(self):
            raise ValueError(self._lacking(content))
        return content

    def _lacking(self, content: Content) -> str:
        return (
            f"{self._name()} holds {content.mapped[0].size} members and is not one of the states "
            "that this call runs over; give it in `in_states`"
        )

    def _draw(self) -> Any:
        """Draws a declared value at its first read."""
        if not self.declared:
            raise ValueError(
                f"a {type(self).__name__} has no value: it was made in a call that did not finish"
            )
        draft = _draft.current()
        if draft is not None:
            if draft.for_member and not draft.made(self):
                raise ValueError(
                    f"{self._name()} was declared and is read before it was drawn. Initialise it "
                    "first: do not exclude its node, or let its node's init_state run earlier "
                    "(`seedbed.nn.call_order`)"
                )
            self.redraw()
            return self.value
        if compat.trace_state() != self._home:
            raise ValueError(
                f"{self._name()} was declared outside of the function that jax is tracing, and its "
                "first read would draw it there. Initialise it first, with "
                "`seedbed.nn.init_all_states` or `vmap_init_all_states`"
            )
        with LOCK:
            if not self.initialized:
                self.redraw()
        return self.value

    def redraw(self) -> None:
        """Draws a declared state anew, with the next key of the ambient stream.

        Raises:
            TypeError: the state was not declared with ``init`` and ``shape``.
        """
        declared = _draft.content_of(self).declared
        if declared is None:
            raise TypeError(f"{self._name()} was not declared with `init` and `shape`")
        # Not made canonical here: jax warns of what it truncates.
        dtype = declared_dtype(declared) if declared.dtype is None else declared.dtype

        def draw(key: Any) -> list[undo.Step[Any]]:
            value = declared.init(key, declared.shape, dtype)
            check_drawn(self, declared, value)
            return self._setting(value)

        random._spend(draw)

    # --- copies -------------------------------------------------------------------------

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        content = self._content_of_copy()
        if content.value is not UNSET:
            content = content._replace(value=jax.tree.map(copied, content.value))
        twin = self._twin(content)
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            if name not in ("_content", "_home"):  # attributes of the user's kind of state
                twin.__dict__[name] = copy.deepcopy(value, memo)
        return twin

    def _content_of_copy(self) -> Content:
        content = _draft.content_of(self)
        if isinstance(content.value, Refused):
            return content._replace(value=UNSET, mapped=())
        return content

    def __copy__(self) -> Any:
        return self._twin(self._content_of_copy())

    def _twin(self, content: Content) -> Any:
        """A copy with some content; in a call it is one of the states that the call makes."""
        draft = _draft.current()
        if draft is None:
            return self._bare(content)
        twin = self._bare(content._replace(value=UNSET))
        draft.create(twin, content)
        return twin

    def _bare(self, content: Content) -> Any:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._content = content
        twin._home = compat.trace_state()
        return twin

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name != "_home"}
        kept["_content"] = pickle.pack(self._content_of_copy())
        return kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        self.__dict__.update(kept)
        self._content = pickle.unpack(self._content)
        self._home = compat.trace_state()


class ShortTermState(State):
    """Kind: what lasts for a run, such as a membrane potential."""


class HiddenState(ShortTermState):
    """Kind: the hidden state of a recurrent layer."""


class LongTermState(State):
    """Kind: what outlasts a run, such as a running mean."""


class ParamState(LongTermState):
    """Kind: a parameter to train."""


class BatchState(LongTermState):
    """Kind: what belongs to a batch of inputs."""


class NonBatchState(ShortTermState):
    """Kind: shared by all members; no call on all members gives it a member axis."""
