"""One call traced for one member and run for all of them, with the states it reads and writes.

The call becomes a function ``(key, per-member values of states, arguments) -> (result, values
written)`` of one member, which an ensemble runs: its draws are made by one custom call.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ... import _trace
from ..._ensemble import check, donate, ensemble
from ..._jax import compat, places
from ..._trace import cut
from .._tree import UNSET, Content, Draft, NonBatchState, Path, State, walk
from .._tree import draft as _draft
from . import finish
from .keys import Keys

Call = Callable[[Keys, tuple[Any, ...]], Any]


@dataclass(eq=False)
class Input:
    """A state that every member reads its own value of, along ``axis`` of its leaves."""

    state: State
    content: Content  # as one member sees it; the value is put in under the trace
    leaves: list[Any]
    axis: int
    tree: Any


@dataclass(eq=False)
class Output:
    """A state that the call wrote: where it is in the tree, and its part of the results."""

    state: State
    path: Path
    content: Content
    tree: Any
    types: list[Any]
    excluded: bool


@dataclass(frozen=True)
class Fixed:
    """A module or state in the result of a call, which is what it is for all members."""

    value: Any


@dataclass(eq=False)
class Members:
    """A call on all members, from its trace to the values of its states.

    Attributes:
        draft: what the call writes.
        size: number of members.
        inputs: the states it may read per member.
        shared: states of one value for all members that are arguments, and not constants of
            the program, which then serves whatever their values are; without an axis.
        args, axes: leaves of further arguments and the mapped axis of each, or None.
    """

    draft: Draft
    size: int
    inputs: list[Input]
    shared: list[Input] = field(default_factory=list)
    args: list[Any] = field(default_factory=list)
    axes: list[int | None] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    result_tree: Any = None
    # For every leaf of the result: what it is, if that is no array.
    result: list[Fixed | None] = field(default_factory=list)
    recorded: Any = None

    # --- tracing ------------------------------------------------------------------------

    def record(
        self,
        call: Call,
        key: Any,
        *,
        target: Any,
        exclude: Callable[[Path, Any], bool] | None = None,
        rebuild: Callable[[list[Any]], tuple[Any, ...]] = tuple,
        axis_name: Any = None,
    ) -> None:
        """Runs the call once, on abstract values.

        Args:
            call: ``call(keys, args)``, with the streams of the member's keys.
            key: the key of the whole call, or the exception that asking for one raises.
            target: the tree that the call works on, or None.
            exclude: which written states all members share, by path and state.
            rebuild: makes the arguments from their leaves.
            axis_name: name of the axis of members, for collectives inside.
        """
        draft, refusal = self.draft, key if isinstance(key, BaseException) else None
        if exclude is not None:
            draft.taps = lambda state: True
        else:
            draft.taps = lambda state: isinstance(state, NonBatchState)

        def member(key: Any, *leaves: Any) -> Any:
            draft.home = compat.trace_state()
            keys = Keys(key if refusal is None else refusal)
            values = iter(leaves)
            with _draft.active(draft):
                for item in [*self.inputs, *self.shared]:
                    value = item.tree.unflatten([next(values) for _ in item.leaves])
                    draft.contents[id(item.state)] = item.content._replace(value=value)
                result = check.finite(call(keys, rebuild(list(values))), "result")
                returned = [leaf for leaf in jax.tree.leaves(result) if _kept(leaf)]
                finish.draw_created(draft, target, keys, returned)
                finish.check_attributes(draft)
                self._collect(target, returned, exclude)
                written = [draft.value(output.state) for output in self.outputs]
            draft.forget_values()
            flat = [jax.tree.leaves(value) for value in written]
            for output, leaves_of in zip(self.outputs, flat, strict=True):
                output.types = [jax.typeof(leaf) for leaf in leaves_of]
            leaves_of_result, self.result_tree = jax.tree.flatten(result)
            self.result = [Fixed(leaf) if _kept(leaf) else None for leaf in leaves_of_result]
            results = [_array(leaf) for leaf in leaves_of_result if not _kept(leaf)]
            return [*results, *(leaf for part in flat for leaf in part)]

        types = [
            check.member_type(leaf, axis)
            for leaf, axis in zip(self._leaves(), self._all_axes(), strict=True)
        ]
        key_type = check.member_key_type(self._placed(key))
        try:
            with compat.axis_env(axis_name, self.size):
                recorded = _trace.record(member, key_type, tuple(types))
        finally:
            draft.forget_values()
        self.recorded = dataclasses.replace(recorded, paths=self._paths())

    def _collect(
        self, target: Any, returned: list[Any], exclude: Callable[[Path, Any], bool] | None
    ) -> None:
        """Which states the call wrote, and what becomes of each."""
        draft = self.draft
        if target is None:
            made = [state for state in draft.created.values() if state._home == draft.home]
            paths: dict[int, Path] = {id(state): (number,) for number, state in enumerate(made)}
            paths |= {id(item.state): ("in_states", i) for i, item in enumerate(self.inputs)}
        else:
            found = walk.walk(returned).states
            paths = {id(state): ("result", *path) for path, state in found.items()}
            paths |= {id(state): path for path, state in walk.walk(target).states.items()}
        for number, state in draft.written.items():
            if number not in paths and number in draft.created:
                continue  # made and dropped, or kept by somebody else
            path = paths.get(number, ())
            value = draft.value(state)
            content = draft.contents[number]._replace(value=UNSET)
            finish.check_leaves(path, state, value)
            excluded = isinstance(state, NonBatchState)
            if exclude is not None:
                excluded = excluded or exclude(path, state)
            tree = jax.tree.structure(value)
            self.outputs.append(Output(state, path, content, tree, [], excluded))

    @property
    def arrays(self) -> int:
        """How many leaves of the result are arrays."""
        return sum(fixed is None for fixed in self.result)

    def _leaves(self) -> list[Any]:
        items = [*self.inputs, *self.shared]
        return [leaf for item in items for leaf in item.leaves] + self.args

    def _all_axes(self) -> list[int | None]:
        axes: list[int | None] = [
            item.axis % np.ndim(leaf) for item in self.inputs for leaf in item.leaves
        ]
        return axes + [None for item in self.shared for _ in item.leaves] + self.axes

    def _placed(self, key: Any) -> Any:
        """The key of the call, or one in its place if there is none, where the arguments lie."""
        key = dummy_key() if isinstance(key, BaseException) else key
        return places.beside([key], self._leaves(), self._all_axes())[0]

    def _paths(self) -> tuple[str, ...]:
        """Names of the results and written values, for `Plan.explain`."""
        names = [f"result {i}" for i in range(self.arrays)]
        for output in self.outputs:
            name = walk.dotted(output.path)
            blank = output.tree.unflatten([0] * output.tree.num_leaves)
            for path, _ in jax.tree_util.tree_leaves_with_path(blank):
                names.append(name + jax.tree_util.keystr(path))
        return tuple(names)

    # --- running ------------------------------------------------------------------------

    def plan(self, key: Any) -> Any:
        """What would run for all members, as a `seedbed.Plan`."""
        parts = self._parts()
        blanks = [_blank(aval) for aval in parts.branches]
        leaves, axes = self._operands(parts, blanks)
        make = ensemble.for_modules(parts.members, self.size, axes)
        return make.plan(key, *leaves)

    def run(self, key: Any, run: Runner) -> tuple[list[Any], list[Any]]:
        """Leaves of the result and values of the output states, members first.

        Values of excluded states have no member axis.

        Args:
            key: the key of the whole call, or the exception that asking for one raised.
            run: how to go over the members.
        """
        key = self._placed(key)
        parts = self._parts()
        branches: Sequence[Any] = ()
        excluded: Sequence[Any] = ()
        if parts.single is not None:
            inputs = [self._leaves()[i] for i in parts.needed]
            made = _once(parts.single, key, inputs, run is nested)
            excluded, branches = made[: parts.excluded], made[parts.excluded :]
        leaves, axes = self._operands(parts, branches)
        out = iter(run(parts.members, self.size, axes, key, leaves))
        result = [next(out) if fixed is None else fixed for fixed in self.result]
        alone = iter(excluded)
        values = [
            output.tree.unflatten(
                [next(alone if output.excluded else out) for _ in range(output.tree.num_leaves)]
            )
            for output in self.outputs
        ]
        return result, values

    def replaced(self, before: Mapping[Path, State]) -> list[Any]:
        """Arrays that hold members of the states that the call writes, of the same types.

        Args:
            before: the states that were in the tree, by path.
        """
        values = {id(state): _draft.content(state).value for state in before.values()}
        found: list[Any] = []
        for output in self.outputs:
            state = before.get(output.path)
            value = None if state is None else values.pop(id(state), None)
            types = [((self.size, *one.shape), one.dtype) for one in output.types]
            for leaf in () if output.excluded else jax.tree.leaves(value):
                if donate.alone(leaf) and (leaf.shape, leaf.dtype) in types:
                    types.remove((leaf.shape, leaf.dtype))
                    found.append(leaf)
        # What is left are the values of states that the call does not write.
        return donate.free(found, jax.tree.leaves(values))

    def _operands(self, parts: Parts, branches: Sequence[Any]) -> tuple[list[Any], Axes]:
        return [*self._leaves(), *branches], (*self._all_axes(), *[None] * len(branches))

    def dependent(self) -> set[int]:
        """Positions of the result's leaves that may differ from member to member."""
        mapped = [i for i, axis in enumerate(self._all_axes()) if axis is not None]
        return cut.dependent(self.recorded.closed.jaxpr, [0, *(1 + i for i in mapped)])

    def refuse_shared_draws(self) -> None:
        """For a call in which states without members are not drawn once for all.

        Raises:
            ValueError: one of them would depend on the keys of the members.
        """
        keyed = cut.dependent(self.recorded.closed.jaxpr, [0])
        position = self.arrays
        for output in self.outputs:
            after = position + output.tree.num_leaves
            if output.excluded and not isinstance(output.state, NonBatchState):
                if not keyed.isdisjoint(range(position, after)):
                    raise _shared([output])
            position = after

    def _parts(self) -> Parts:
        """The program of the excluded states, if there are any, and that of the members."""
        draft, position = self.draft, self.arrays
        positions: set[int] = set()
        for output in self.outputs:
            after = position + output.tree.num_leaves
            if output.excluded:
                positions |= set(range(position, after))
            position = after
        if not draft.tapped and not positions:
            return Parts(None, self.recorded)
        excluded = {id(output.state) for output in self.outputs if output.excluded}
        shared = {number for number, state in draft.tapped.items() if id(state) in excluded}
        single, members, needed, branches = cut.split(
            self.recorded.closed, draft.tapped, shared, positions
        )
        axes = self._all_axes()
        if any(axes[i] is not None for i in needed):
            raise _shared([output for output in self.outputs if output.excluded])
        paths = self.recorded.paths
        kept = tuple(path for i, path in enumerate(paths) if i not in positions)
        return Parts(
            _recorded(single, [f"excluded {i}" for i in range(len(single.out_avals))])
            if positions
            else None,
            _recorded(members, kept),
            needed,
            len(positions),
            branches,
        )


Axes = tuple[int | None, ...]
Runner = Callable[[Any, int, Axes, Any, list[Any]], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Parts:
    """A recorded call in two programs (`cut.split`)."""

    single: Any
    members: Any
    needed: tuple[int, ...] = ()
    excluded: int = 0
    branches: tuple[Any, ...] = ()  # types of the values that members read of excluded states


def fused(
    recorded: Any,
    size: int,
    axes: Axes,
    key: Any,
    leaves: list[Any],
    old: list[Any] | None = None,
) -> Sequence[Any]:
    """All members at once, the draws in one custom call; arrays of ``old`` are given up."""
    make = ensemble.for_modules(recorded, size, axes)
    out: Sequence[Any] = (
        make(key, *leaves) if old is None else ensemble.into(make, old, key, *leaves)
    )
    return out


def nested(recorded: Any, size: int, axes: Axes, key: Any, leaves: list[Any]) -> Sequence[Any]:
    """For a call within one that is being traced for its members and will find the draws."""
    return _vmapped({}, recorded, size, axes, key, leaves)


def _vmapped(
    options: dict[str, Any], recorded: Any, size: int, axes: Axes, key: Any, leaves: list[Any]
) -> Sequence[Any]:
    closed = recorded.closed

    def body(key: Any, *leaves: Any) -> Any:
        return jax.core.eval_jaxpr(closed.jaxpr, closed.consts, key, *leaves)

    mapped: Any = jax.vmap(body, in_axes=(0, *axes), axis_size=size, **options)
    out: Sequence[Any] = mapped(jax.random.split(key, size), *leaves)
    return out


def _once(recorded: Any, key: Any, leaves: list[Any], inside: bool) -> Sequence[Any]:
    """A recorded call for a single model."""
    out: Sequence[Any]
    if inside:  # see `nested`
        out = jax.core.eval_jaxpr(recorded.closed.jaxpr, recorded.closed.consts, key, *leaves)
    else:
        make = ensemble.for_modules(recorded, 1)
        out = ensemble.single(make, key, *leaves)
    return out


def named_axis(axis_name: Any, spmd_axis_name: Any) -> Runner | None:
    """For a call with collectives over a named axis of members, which only `jax.vmap` has."""
    if axis_name is None and spmd_axis_name is None:
        return None
    names: Any = {"axis_name": axis_name} if axis_name is not None else {}
    return functools.partial(_vmapped, {**names, "spmd_axis_name": spmd_axis_name})


def _recorded(closed: Any, paths: Sequence[str]) -> Any:
    tree = jax.tree.structure([0] * len(closed.out_avals))
    return _trace.Recorded(closed, tree, tuple(paths))


def dummy_key() -> Any:
    """A key for calls that draw nothing."""
    return jax.random.wrap_key_data(jax.device_put(np.zeros(2, np.uint32)), impl="threefry2x32")


def _kept(leaf: Any) -> bool:
    return isinstance(leaf, (State, walk.Node))


def _array(leaf: Any) -> Any:
    if check.array_like(leaf):
        return leaf
    raise TypeError(
        "a function that runs over members must return arrays, numbers, modules and states; got "
        f"{leaf!r} of type {type(leaf).__name__}"
    )


def _blank(aval: Any) -> Any:
    if compat.is_key(aval.dtype):
        return jnp.broadcast_to(dummy_key(), aval.shape)
    return jnp.zeros(aval.shape, aval.dtype)


def _shared(outputs: list[Output]) -> ValueError:
    names = [walk.dotted(output.path) for output in outputs]
    return ValueError(
        f"the states {names} are shared by all members, but would be computed from values that "
        "each member has its own of; to have a value per member, do not exclude them, and list "
        "existing ones in `out_states`"
    )
