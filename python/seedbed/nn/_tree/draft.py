"""Drafts: where a call on a module tree keeps its writes until all of it has succeeded.

While a draft is active, in one thread, what that thread writes into states and module
attributes goes to the draft, and reading looks there first. So no other thread ever sees a
traced value or half a module, and an exception only has to drop the draft. `Draft.publish`
makes everything real in one step (`_base.undo`), which an interrupt finds made or not begun.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import jax

from ..._base import undo as _undo
from ..._jax import compat
from ..._random import stream
from ..._trace import tap

T = TypeVar("T")

# Held while a draft is published and while several states are read as one.
LOCK = threading.RLock()


class Marker:
    """A named stand-in for a value that is not there."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str:
        return self.name


# Value of a declared state that was not drawn yet, and of an attribute that was deleted.
UNSET = Marker("UNSET")
DELETED = Marker("DELETED")


@dataclass(frozen=True, slots=True)
class Refused:
    """In place of a value that this call must not read, or not write either: why not."""

    why: str
    writable: bool


class MemberAxis(NamedTuple):
    """One level of members: how many, and along which axis of the value."""

    size: int
    axis: int


class Declared(NamedTuple):
    """How to draw a state: ``init(key, shape, dtype)``."""

    init: Callable[..., Any]
    shape: tuple[int, ...]
    dtype: Any


class Content(NamedTuple):
    """Everything of a state that changes, replaced as a whole so that readers see one state.

    ``mapped`` lists the levels of members, outermost first; the axis of each refers to the
    value without the levels before it.
    """

    value: Any
    mapped: tuple[MemberAxis, ...] = ()
    tags: frozenset[str] = frozenset()
    declared: Declared | None = None


@dataclass(eq=False)
class Draft:
    """The pending writes of one call.

    Attributes:
        members: whether the call runs for one member among many (under a trace).
        base: the trace in which the call was made.
        home: the trace that the call's states live in meanwhile.
        outer, around: the draft and the log of the call around this one.
        contents: what states hold, by identity; also the inputs of the call.
        written: states written, in order, with `contents` as they were first; by identity.
        created: states made during the call, by identity.
        made: modules made during the call, by identity.
        log: how to take back what the call does to lists, dictionaries and random streams.
        published: whether everything has become real.
        renews: whether the call initialises, so that what is written need not have the
            members of what was there.
        renewed: states that an initialisation inside the call wrote, by identity.
        retagged: tags that the call gave to states, by identity.
        called: nodes that an initialisation calls, by identity.
        drawn: which node drew a declared state, by identity of the state.
        before: the modules of the tree at the start of the call, by path.
        attributes: attributes set or deleted, by identity of the module and name.
        containers: lists and dicts of the tree, and what was in them.
        nodes: the same for the attributes of modules, where they were set past the draft.
    """

    members: bool
    base: Any = None
    home: Any = None
    outer: Draft | None = None
    around: _undo.Log | None = None
    contents: dict[int, Content] = field(default_factory=dict)
    written: dict[int, Any] = field(default_factory=dict)
    created: dict[int, Any] = field(default_factory=dict)
    made: dict[int, Any] = field(default_factory=dict)
    log: _undo.Log = field(default_factory=_undo.Log)
    published: bool = False
    renews: bool = False
    renewed: set[int] = field(default_factory=set)
    retagged: dict[int, tuple[Any, frozenset[str]]] = field(default_factory=dict)
    called: set[int] = field(default_factory=set)
    drawn: dict[int, Any] = field(default_factory=dict)
    before: dict[Any, Any] = field(default_factory=dict)
    attributes: dict[int, dict[str, Any]] = field(default_factory=dict)
    owners: dict[int, Any] = field(default_factory=dict)
    containers: list[tuple[Any, Any]] = field(default_factory=list)
    nodes: list[tuple[Any, Any]] = field(default_factory=list)
    remembered: dict[int, Any] = field(default_factory=dict)
    # Which states' values go through a tap (`tap`), with the values before it and the states
    # of the taps.
    taps: Callable[[Any], bool] | None = None
    untapped: dict[int, Any] = field(default_factory=dict)
    tapped: dict[int, Any] = field(default_factory=dict)

    # --- states -------------------------------------------------------------------------

    def create(self, state: Any, content: Content) -> None:
        steps = self.writing(state, content)
        _undo.make([_undo.Step(self.created.__setitem__, id(state), state), *steps])

    def write(self, state: Any, content: Content) -> None:
        _undo.make(self.writing(state, content))

    def writing(self, state: Any, content: Content) -> list[_undo.Step[Any]]:
        """What writes into a state. Steps, for an interrupt in a method that goes on after it."""
        # Within a transformation inside the call there is nothing that outlives it.
        outermost = compat.trace_state() == self.home
        tapped = value = content.value
        # The calls around this one may exclude the state as well.
        draft: Draft | None = self if outermost else None
        while draft is not None:
            if draft.taps is not None and draft.taps(state):
                number = tap.fresh()
                draft.tapped[number] = state
                tapped = tap.tap(tapped, number)
            draft = draft.outer
        return [
            _undo.Step(self.written.__setitem__, id(state), state),
            _undo.Step(self.untapped.__setitem__, id(state), value),
            _undo.Step(self.contents.__setitem__, id(state), content._replace(value=tapped)),
        ]

    def value(self, state: Any) -> Any:
        """What the call wrote last into a state."""
        if id(state) in self.untapped:
            return self.untapped[id(state)]
        return self.contents[id(state)].value

    def made_here(self, state: Any) -> bool:
        """Whether a state was made during this call or one around it."""
        draft: Draft | None = self
        while draft is not None:
            if id(state) in draft.created:
                return True
            draft = draft.outer
        return False

    def foreign(self, known: Collection[int]) -> Iterator[Any]:
        """States written that the call did not make, initialise, or know, by identity."""
        for number, state in self.written.items():
            if not (number in known or number in self.created or number in self.renewed):
                yield state

    def remember(self, containers: Iterable[Any], nodes: Iterable[Any] = ()) -> None:
        """Notes what lists, dicts and modules hold, for when the call fails."""
        steps: list[_undo.Step[Any]] = []
        for container in containers:
            if id(container) not in self.remembered:
                self.remembered[id(container)] = container
                self.containers.append((container, container.copy()))
                steps += _undo.refilling(container)
        self.log.steps[:0] = steps
        self.nodes += [(node.__dict__, node.__dict__.copy()) for node in nodes]

    def read(self, value: Any) -> None:
        """Remembers the lists and dicts in an attribute: it may be of a module of another tree."""
        if id(value) in self.remembered:
            return
        found: dict[int, Any] = {}
        pending = [value]
        while pending:
            item = pending.pop()
            if isinstance(item, (list, tuple, dict)) and id(item) not in found:
                found[id(item)] = item
                pending.extend(item.values() if isinstance(item, dict) else item)
        self.remember(item for item in found.values() if not isinstance(item, tuple))
        self.remembered.update(found)

    def forget_values(self) -> None:
        """Lets go of every traced value, keeping which states were written."""
        self.contents = {
            number: content._replace(value=UNSET)
            for number, content in self.contents.items()
            if number in self.written
        }
        self.untapped.clear()

    # --- attributes of modules ----------------------------------------------------------

    def set_attribute(self, module: Any, name: str, value: Any) -> None:
        self.owners[id(module)] = module
        self.attributes.setdefault(id(module), {})[name] = value

    def assignments(self) -> Iterator[tuple[Any, str, Any]]:
        """Attributes set or deleted: module, name and value."""
        for number, values in self.attributes.items():
            for name, value in values.items():
                yield self.owners[number], name, value

    # --- the end ------------------------------------------------------------------------

    def drop_traced(self) -> None:
        """Before a call is taken back: the traced values too that modules were given past it."""
        for attributes, before in () if self.published else self.nodes:
            for name, value in list(attributes.items()):
                if value is before.get(name, DELETED) or not _holds_tracer(value):
                    continue
                undo = _undo.Step(attributes.pop, name, None)
                if name in before:
                    undo = _undo.Step(attributes.__setitem__, name, before[name])
                self.log.steps.append(undo)

    def publish(self) -> None:
        """Makes everything real, or hands it to the draft of the call around this one.

        In one step, after which the call is not taken back any more.
        """
        self._check_home()
        self.log.hold(LOCK)
        steps = self._into_states() if self.outer is None else self._into(self.outer)
        steps += self.log.settled(self.around)
        _undo.make([*steps, _undo.setting(self, "published", True)])

    def _into_states(self) -> list[_undo.Step[Any]]:
        steps: list[_undo.Step[Any]] = []

        def change(do: _undo.Step[Any], undo: _undo.Step[Any]) -> None:
            steps.extend((do, _undo.Step(self.log.steps.append, undo)))

        contents = {n: (state, self.contents[n]) for n, state in self.written.items()}
        for number, (state, tags) in self.retagged.items():
            content = contents[number][1] if number in contents else state._content
            contents[number] = state, content._replace(tags=tags)
        for state, content in contents.values():
            undo = _undo.setting(state, "_content", state._content)
            change(_undo.setting(state, "_content", content), undo)
        for made in [*self.created.values(), *self.made.values()]:
            steps.append(_undo.setting(made, "_home", self.base))
        for module, name, value in self.assignments():
            before = own_attributes(module).get(name, DELETED)
            if value is not DELETED or before is not DELETED:
                change(_assigning(module, name, value), _assigning(module, name, before))
        return steps

    def _into(self, outer: Draft) -> list[_undo.Step[Any]]:
        steps: list[_undo.Step[Any]] = []
        for number, state in self.written.items():
            content = self.contents[number]._replace(value=self.value(state))
            if number not in self.created:
                steps += outer.writing(state, content)
            elif self.home is not self.base or state._home == self.home:
                # Otherwise made in a transformation inside the call, and gone with it.
                steps.append(_undo.setting(state, "_home", self.base))
                steps.append(_undo.Step(outer.created.__setitem__, number, state))
                steps += outer.writing(state, content)
        for module in self.made.values():
            steps.append(_undo.setting(module, "_home", self.base))
        attributes = dict(outer.attributes)
        for number, values in self.attributes.items():
            attributes[number] = {**attributes.get(number, {}), **values}
        return [
            *steps,
            _undo.Step(outer.containers.extend, self.containers),
            _undo.Step(outer.nodes.extend, self.nodes),
            _undo.Step(outer.made.update, self.made),
            _undo.Step(outer.renewed.update, self.renewed),
            _undo.Step(outer.retagged.update, self.retagged),
            _undo.Step(outer.owners.update, self.owners),
            _undo.Step(outer.attributes.update, attributes),
        ]

    def _check_home(self) -> None:
        """What was made outside of the function that jax traces must not hold its values."""
        states = [state for n, state in self.written.items() if n not in self.created]
        modules = [module for n, module in self.owners.items() if n not in self.made]
        outer = self.outer
        for kept in [*states, *modules]:
            own = outer is None or id(kept) in outer.created or id(kept) in outer.made
            home = kept._home if own or outer is None else outer.home
            if home != self.base:
                raise ValueError(
                    f"this {type(kept).__name__} was made outside of the function that jax is "
                    "tracing (jit, vmap, grad, scan, ...), and would be left with traced values. "
                    "Make it inside, or use `seedbed.nn.split` and `merge`"
                )


def _holds_tracer(value: Any) -> bool:
    return any(compat.is_tracer(leaf) for leaf in leaves(value))


def leaves(value: Any) -> Iterator[Any]:
    """What an attribute holds: containers as Python has them, other pytrees as jax has them.

    Unlike those of jax, dictionaries may have keys of several types, and lists hold themselves.
    """
    seen: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, (list, tuple, dict)):
            if id(item) not in seen:
                seen.add(id(item))
                pending.extend(item.values() if isinstance(item, dict) else item)
        else:
            yield from jax.tree.leaves(item)


def content(state: Any) -> Content:
    """What a state holds, as this thread sees it."""
    draft = current()
    while draft is not None:
        found = draft.contents.get(id(state))
        if found is not None:
            return found
        draft = draft.outer
    real: Content = state._content
    return real


def tags(state: Any) -> frozenset[str]:
    """The tags of a state, as this thread sees them."""
    draft = current()
    while draft is not None:
        if id(state) in draft.retagged:
            return draft.retagged[id(state)][1]
        draft = draft.outer
    return content(state).tags


def _assigning(owner: Any, name: str, value: Any) -> _undo.Step[None]:
    return _undo.deleting(owner, name) if value is DELETED else _undo.setting(owner, name, value)


def own_attributes(owner: Any) -> dict[str, Any]:
    """What an object itself holds, in its ``__dict__`` and in the slots of its classes."""
    found: dict[str, Any] = object.__getattribute__(owner, "__dict__")
    slots = getattr(type(owner), "_slots", ())
    if slots:
        found = dict(found)
        for name in slots:
            with contextlib.suppress(AttributeError):  # an empty slot
                found[name] = object.__getattribute__(owner, name)
    return found


_CURRENT: ContextVar[Draft | None] = ContextVar("seedbed_draft", default=None)

current = _CURRENT.get


@contextlib.contextmanager
def active(draft: Draft) -> Iterator[Draft]:
    """Sends this thread's reads and writes of states and modules through ``draft``."""
    token = _CURRENT.set(draft)
    try:
        yield draft
    finally:
        _CURRENT.reset(token)


def transacted(draft: Draft, body: Callable[[], T]) -> T:
    """``body()``, a call that ends with `Draft.publish`; without that, nothing has happened.

    In particular after an exception. Not a ``with`` block: an interrupt can come between a block
    and the first line of what ends it, and here only between C functions. The second ``finally``
    is for a second interrupt within the first.
    """
    draft.outer, draft.around = current(), stream._call.get()
    draft.base = draft.home = compat.trace_state()
    log = draft.log = _undo.Log(
        [
            # An interrupt may have come where what was opened inside had no chance to do it.
            _undo.Step(_CURRENT.set, draft.outer),
            _undo.Step(stream._current.set, stream._current.get()),
            _undo.Step(stream._call.set, draft.around),
        ]
    )
    try:
        try:
            stream._call.set(log)
            return body()
        finally:
            draft.drop_traced()
            _undo.run(log.back)
    finally:
        _undo.run(log.back)
