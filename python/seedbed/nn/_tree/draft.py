"""Drafts: where a call on a module tree keeps its writes until all of it has succeeded.

While a draft is active, in one thread, what that thread writes into states and module
attributes goes to the draft, and reading looks there first. So no other thread ever sees a
traced value or half a module, and an exception only has to drop the draft. `Draft.publish`
makes everything real in one step (`_base.undo`), which an interrupt finds made or not begun.

What the call is that makes them so is for `nn._call` to know, which may mark what is written.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

from ..._base import undo as _undo
from ..._jax import compat
from ..._random import stream
from .content import DELETED, UNSET, Content
from .held import CONTAINERS, Before, own_attributes

T = TypeVar("T")

# Held while a draft is published and while several states are read as one.
LOCK = threading.RLock()


class Marks(Protocol):
    """What a call does to values written while it is traced, to find later who has read them."""

    def marked(self, state: Any, value: Any) -> Any:
        """The value that reading the state gives from now on."""

    def replaced(self, state: Any, other: Any) -> None:
        """What was written into one state belongs to another."""


class Draft:
    """The pending writes of one call.

    Attributes:
        for_member: whether the call runs for one member among many, as do all calls inside of it.
        initialises: whether what is written need not have the members of what was there.
    """

    def __init__(self, for_member: bool = False, initialises: bool = False) -> None:
        self.for_member = for_member
        self.initialises = initialises
        # The drafts of the calls around this one, innermost first, and the log of the first.
        self._around: tuple[Draft, ...] = ()
        self._outer_log: _undo.Log | None = None
        # The trace in which the call was made, and the one that its states live in meanwhile.
        self._base: Any = None
        self._home: Any = None
        self._marks: Marks | None = None
        # How to take back what the call does past its draft, to random streams too.
        self._log = _undo.Log()
        self._before = Before()
        self._published = False
        # By identity of the state: what each holds, also those that are only read; those written,
        # in order, with the value before marks; those made; tags given; which node drew it; those
        # that initialisations inside have written.
        self._contents: dict[int, Content] = {}
        self._writes: dict[int, tuple[Any, Any]] = {}
        self._made_states: dict[int, Any] = {}
        self._tags: dict[int, tuple[Any, frozenset[str]]] = {}
        self._drawn: dict[int, Any] = {}
        self._initialised: set[int] = set()
        # By identity of the module: those made; attributes set or deleted, by name.
        self._made_modules: dict[int, Any] = {}
        self._attributes: dict[int, tuple[Any, dict[str, Any]]] = {}

    # --- where the call is --------------------------------------------------------------

    @property
    def outermost(self) -> bool:
        """Whether no other call is around this one."""
        return not self._around

    @property
    def nested(self) -> bool:
        """Whether the call around this one is being traced for its members."""
        return bool(self._around) and self._around[0].for_member

    def enter_trace(self, marks: Marks) -> None:
        """The states of the call live in the trace that runs now, which marks what is written."""
        self._home, self._marks = compat.trace_state(), marks

    def home_of(self, kept: Any) -> Any:
        """The trace that a state or module lives in: the call's, or its own if the call made it."""
        return kept._home if self.made(kept) else self._home

    def outlives(self, state: Any) -> bool:
        """Whether a state that the call made is of no transformation inside of the call."""
        return bool(state._home == self._home)

    # --- states -------------------------------------------------------------------------

    def create(self, state: Any, content: Content) -> None:
        """A state made during the call; its value, if it has one, is written."""
        steps = [] if content.value is UNSET else self.writing(state, content)
        _undo.make([_undo.Step(self._made_states.__setitem__, id(state), state), *steps])

    def writing(self, state: Any, content: Content) -> list[_undo.Step[Any]]:
        """What writes into a state. Steps, for an interrupt in a method that goes on after it."""
        marked = value = content.value
        # Within a transformation inside the call there is nothing that outlives it.
        if compat.trace_state() == self._home:
            # The calls around this one have marks of their own.
            for draft in (self, *self._around):
                if draft._marks is not None:
                    marked = draft._marks.marked(state, marked)
        return [
            _undo.Step(self._writes.__setitem__, id(state), (state, value)),
            _undo.Step(self._contents.__setitem__, id(state), content._replace(value=marked)),
        ]

    def show(self, state: Any, content: Content) -> None:
        """What the call sees in a state that it has not written."""
        self._contents[id(state)] = content

    def lacks(self, state: Any) -> bool:
        """Whether the call, which runs for one member, has no value of it for a state."""
        for draft in (self, *self._around):
            if id(state) in draft._contents or id(state) in draft._made_states:
                return False
        return self.for_member

    def made(self, kept: Any) -> bool:
        """Whether a state or module was made during this call."""
        return id(kept) in self._made_states or id(kept) in self._made_modules

    def made_within(self, state: Any) -> bool:
        """Whether a state was made during this call or one around it."""
        return any(id(state) in draft._made_states for draft in (self, *self._around))

    def made_states(self) -> list[Any]:
        return list(self._made_states.values())

    def wrote(self, state: Any) -> bool:
        return id(state) in self._writes

    def written(self) -> Iterator[tuple[Any, Content]]:
        """The states written, in order, and what was written last, without marks."""
        for number, (state, value) in self._writes.items():
            yield state, self._contents[number]._replace(value=value)

    def unexpected(self, known: Collection[int]) -> Iterator[Any]:
        """States written that the call did not make, initialise, or know, by identity."""
        for number, (state, _) in self._writes.items():
            if not (number in known or number in self._made_states or number in self._initialised):
                yield state

    def drawn_by(self, state: Any, node: Any) -> bool:
        """Whether ``node``, and none before it, draws a declared state in this call."""
        return self._drawn.setdefault(id(state), node) is node

    def set_tags(self, state: Any, tags: frozenset[str]) -> None:
        self._tags[id(state)] = (state, tags)

    def with_tags(self, state: Any, content: Content) -> Content:
        """The content of a state with the tags that it was given, which are pending no more."""
        _, tags = self._tags.pop(id(state), (state, content.tags))
        return content._replace(tags=tags)

    def forget_values(self) -> None:
        """Lets go of every traced value, keeping which states were written."""
        self._writes = {n: (state, UNSET) for n, (state, _) in self._writes.items()}
        self._contents = {n: self._contents[n]._replace(value=UNSET) for n in self._writes}

    def rewrite(self, contents: Iterable[tuple[Any, Content]]) -> None:
        """In the place of all that was written, of one member: what states hold for all."""
        pairs = {id(state): (state, content) for state, content in contents}
        self._contents = {number: content for number, (_, content) in pairs.items()}
        self._writes = {n: (state, content.value) for n, (state, content) in pairs.items()}

    def replace(self, state: Any, other: Any) -> None:
        """Another state takes the place of one that the call made, and its value."""
        del self._made_states[id(state)]
        if id(state) in self._tags:
            self._tags[id(other)] = other, self._tags.pop(id(state))[1]
        if id(state) in self._writes:
            self._writes[id(other)] = other, (value := self._writes.pop(id(state))[1])
            self._contents[id(other)] = self._contents.pop(id(state))._replace(value=value)
        for draft in self._around:
            if draft._marks is not None:
                draft._marks.replaced(state, other)

    # --- modules ------------------------------------------------------------------------

    def create_module(self, module: Any) -> None:
        self._made_modules[id(module)] = module

    def set_attribute(self, module: Any, name: str, value: Any) -> None:
        """Sets an attribute, or deletes it by `DELETED`."""
        self._attributes.setdefault(id(module), (module, {}))[1][name] = value

    def assignments(self) -> Iterator[tuple[Any, str, Any]]:
        """Attributes set or deleted: module, name and value."""
        for module, values in self._attributes.values():
            for name, value in values.items():
                yield module, name, value

    def remember(self, containers: Iterable[Any], modules: Iterable[Any]) -> None:
        """Notes what lists, dicts and modules hold, for when the call fails."""
        self._log.steps[:0] = self._before.note(containers)
        self._before.note_modules(modules)

    def remember_within(self, value: Any) -> None:
        """Remembers the lists and dicts in an attribute: it may be of a module of another tree."""
        self._log.steps[:0] = self._before.note_within(value)

    def added(self) -> Iterator[Any]:
        """What the lists, dicts and modules remembered hold now and did not."""
        return self._before.added()

    # --- the end ------------------------------------------------------------------------

    def lock(self) -> None:
        """No other thread publishes until the end of the call."""
        self._log.hold(LOCK)

    def drop_traced(self) -> None:
        """Before a call is taken back: the traced values too that modules were given past it."""
        if not self._published:
            for undo in self._before.dropping_traced():
                self._log.steps.append(undo)

    def publish(self) -> None:
        """Makes everything real, or hands it to the draft of the call around this one.

        In one step, after which the call is not taken back any more.
        """
        self._check_home()
        self.lock()
        steps = self._into(self._around[0]) if self._around else self._into_states()
        steps += self._log.settled(self._outer_log)
        _undo.make([*steps, _undo.setting(self, "_published", True)])

    def _into_states(self) -> list[_undo.Step[Any]]:
        steps: list[_undo.Step[Any]] = []

        def change(do: _undo.Step[Any], undo: _undo.Step[Any]) -> None:
            steps.extend((do, _undo.Step(self._log.steps.append, undo)))

        contents = {n: (state, self._contents[n]) for n, (state, _) in self._writes.items()}
        for number, (state, tags) in self._tags.items():
            content = contents[number][1] if number in contents else state._content
            contents[number] = state, content._replace(tags=tags)
        for state, content in contents.values():
            undo = _undo.setting(state, "_content", state._content)
            change(_undo.setting(state, "_content", content), undo)
        made = [*self._made_states.values(), *self._made_modules.values()]
        steps += [_undo.setting(one, "_home", self._base) for one in made]
        for module, name, value in self.assignments():
            before = own_attributes(module).get(name, DELETED)
            if value is not DELETED or before is not DELETED:
                change(_assigning(module, name, value), _assigning(module, name, before))
        return steps

    def _into(self, outer: Draft) -> list[_undo.Step[Any]]:
        steps: list[_undo.Step[Any]] = []
        for state, content in self.written():
            if id(state) in self._made_states:
                if self._home is self._base and not self.outlives(state):
                    continue  # made in a transformation inside the call, and gone with it
                steps.append(_undo.setting(state, "_home", self._base))
                steps.append(_undo.Step(outer._made_states.__setitem__, id(state), state))
            steps += outer.writing(state, content)
        steps += [_undo.setting(one, "_home", self._base) for one in self._made_modules.values()]
        attributes = dict(outer._attributes)
        for number, (module, values) in self._attributes.items():
            _, before = attributes.get(number, (module, {}))
            attributes[number] = module, {**before, **values}
        initialised = self._initialised.union(self._writes if self.initialises else ())
        return [
            *steps,
            *self._before.handing_to(outer._before),
            _undo.Step(outer._made_modules.update, self._made_modules),
            _undo.Step(outer._initialised.update, initialised),
            _undo.Step(outer._tags.update, self._tags),
            _undo.Step(outer._attributes.update, attributes),
        ]

    def _check_home(self) -> None:
        """What was made outside of the function that jax traces must not hold its values."""
        states = [state for n, (state, _) in self._writes.items() if n not in self._made_states]
        owners = [module for module, _ in self._attributes.values()]
        modules = [module for module in owners if id(module) not in self._made_modules]
        for kept in [*states, *modules]:
            home = self._around[0].home_of(kept) if self._around else kept._home
            if home != self._base:
                raise ValueError(
                    f"this {type(kept).__name__} was made outside of the function that jax is "
                    "tracing (jit, vmap, grad, scan, ...), and would be left with traced values. "
                    "Make it inside, or use `seedbed.nn.split` and `merge`"
                )


def _assigning(owner: Any, name: str, value: Any) -> _undo.Step[None]:
    return _undo.deleting(owner, name) if value is DELETED else _undo.setting(owner, name, value)


# --- what a thread sees -----------------------------------------------------------------

# The drafts of the calls that this thread is in, innermost first.
_DRAFTS: ContextVar[tuple[Draft, ...]] = ContextVar("seedbed_drafts", default=())

drafts = _DRAFTS.get


def current() -> Draft | None:
    """The draft of the innermost call."""
    return next(iter(drafts()), None)


def content_of(state: Any) -> Content:
    """What a state holds, as this thread sees it."""
    for draft in drafts():
        found = draft._contents.get(id(state))
        if found is not None:
            return found
    return state._content  # type: ignore[no-any-return]


def tags_of(state: Any) -> frozenset[str]:
    """The tags of a state, as this thread sees them."""
    for draft in drafts():
        if id(state) in draft._tags:
            return draft._tags[id(state)][1]
    return content_of(state).tags


def attribute_of(module: Any, name: str) -> Any:
    """An attribute of a module, as this thread sees it within a call."""
    for draft in drafts():
        pending = draft._attributes.get(id(module))
        if pending is not None and name in pending[1]:
            value = pending[1][name]
            if value is DELETED:
                raise AttributeError(f"{type(module).__name__!r} object has no attribute {name!r}")
            return value
    value = object.__getattribute__(module, name)
    if isinstance(value, CONTAINERS) and name != "__dict__":
        drafts()[0].remember_within(value)
    return value


def attributes_of(module: Any) -> dict[str, Any]:
    """The attributes of a module as this thread sees them: with those that its call has pending."""
    found = own_attributes(module)
    pending = [one for draft in drafts() if (one := draft._attributes.get(id(module)))]
    if pending:
        found = dict(found)
        for _, values in reversed(pending):
            found.update(values)
        found = {name: value for name, value in found.items() if value is not DELETED}
    return found


@contextlib.contextmanager
def active(draft: Draft) -> Iterator[Draft]:
    """Sends this thread's reads and writes of states and modules through ``draft``."""
    token = _DRAFTS.set((draft, *draft._around))
    try:
        yield draft
    finally:
        _DRAFTS.reset(token)


def transacted(draft: Draft, body: Callable[[], T]) -> T:
    """``body()``, a call that ends with `Draft.publish`; without that, nothing has happened.

    In particular after an exception. Not a ``with`` block: an interrupt can come between a block
    and the first line of what ends it, and here only between C functions. The second ``finally``
    is for a second interrupt within the first.
    """
    draft._around, draft._outer_log = drafts(), stream._call.get()
    draft._base = draft._home = compat.trace_state()
    draft.for_member = draft.for_member or draft.nested
    log = draft._log = _undo.Log(
        [
            # An interrupt may have come where what was opened inside had no chance to do it.
            _undo.Step(_DRAFTS.set, draft._around),
            _undo.Step(stream._current.set, stream._current.get()),
            _undo.Step(stream._call.set, draft._outer_log),
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
