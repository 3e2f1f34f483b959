"""A call traced for one member, on abstract values: its program, and which states it wrote.

The program is a function ``(key, leaves of states and arguments) -> (result, values written)`` of
one member.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax

from ... import _trace
from ..._ensemble import check
from ..._jax import compat, places
from ..._trace import cut, tap
from .._tree import UNSET, Content, Draft, NonBatchState, State, active, walk
from . import finish
from .inputs import Inputs, Start
from .keys import Keys, dummy_key

Filter = Callable[[walk.Path, Any], bool]


class Taps:
    """Puts a tap (`_trace.tap`) on every value written into states of a kind.

    Attributes:
        states: by the number of the tap.
    """

    def __init__(self, kind: type[State]) -> None:
        self.states: dict[int, State] = {}
        self._kind = kind

    def marked(self, state: State, value: Any) -> Any:
        if not isinstance(state, self._kind):
            return value
        number = tap.fresh()
        self.states[number] = state
        return tap.tap(value, number)

    def replaced(self, state: State, other: State) -> None:
        for number, tapped in self.states.items():
            if tapped is state:
                self.states[number] = other


@dataclass(frozen=True, eq=False, slots=True)
class Output:
    """A state that the call wrote: where it is in the tree, and its part of the results.

    Attributes:
        content: what it is for one member, without the value.
        tree, types: of the value.
        excluded: whether all members share one value.
    """

    state: State
    path: walk.Path
    content: Content
    tree: Any
    types: tuple[Any, ...]
    excluded: bool


@dataclass(frozen=True, slots=True)
class Fixed:
    """A module or state in the result of a call, which is what it is for all members."""

    value: Any


@dataclass(frozen=True, eq=False, slots=True)
class Traced:
    """A traced call.

    Attributes:
        key: of the call, beside its inputs; one that is not used if asking for one failed.
        inputs: what its program is given besides.
        program: the arrays of the result and then the values of ``outputs``, for one member.
        result_tree: structure of the result.
        result: for every leaf of the result what it is, if that is no array.
        outputs: the states written.
        taps: states by the number of the tap that their values went through (`excluded`).
    """

    key: Any
    inputs: Inputs
    program: _trace.Recorded
    result_tree: Any
    result: tuple[Fixed | None, ...]
    outputs: tuple[Output, ...]
    taps: dict[int, State]

    def positions(self) -> Iterator[tuple[Output, range]]:
        """Which results of the program are the value of each output."""
        position = self.result.count(None)
        for output in self.outputs:
            after = position + output.tree.num_leaves
            yield output, range(position, after)
            position = after

    def dependent(self) -> set[int]:
        """Positions of the result's arrays that may differ from member to member."""
        mapped = [1 + i for i, axis in enumerate(self.inputs.axes) if axis is not None]
        return cut.dependent(self.program.closed.jaxpr, [0, *mapped])


def trace_call(
    call: Callable[[Keys, tuple[Any, ...]], Any],
    draft: Draft,
    start: Start,
    inputs: Inputs,
    key: Any,
    *,
    exclude: Filter | None = None,
    axis_name: Any = None,
) -> Traced:
    """Runs a call once, on abstract values.

    Args:
        call: ``call(keys, args)``, with the streams of the member's keys.
        draft: gets what the call writes; afterwards it knows which states that were.
        start: the tree that the call works on.
        inputs: what the call is given.
        key: the key of the whole call, or the exception that asking for one raises.
        exclude: which written states all members share, by path and state.
        axis_name: name of the axis of members, for collectives inside.
    """
    refusal = key if isinstance(key, BaseException) else None
    key = dummy_key() if isinstance(key, BaseException) else key
    (key,) = places.beside([key], inputs.leaves, inputs.axes)
    # Only a filter asks for more than the kind of a state.
    taps = Taps(NonBatchState if exclude is None else State)
    ends: list[tuple[Any, tuple[Fixed | None, ...], tuple[Output, ...]]] = []

    def member(key: Any, *leaves: Any) -> list[Any]:
        draft.enter_trace(taps)
        keys = Keys(key if refusal is None else refusal)
        values = iter(leaves)
        with active(draft):
            for item in inputs.states:
                value = item.tree.unflatten([next(values) for _ in item.leaves])
                draft.show(item.state, item.content._replace(value=value))
            result = check.finite(call(keys, inputs.rebuild(list(values))), "result")
            returned = [leaf for leaf in jax.tree.leaves(result) if _is_fixed(leaf)]
            finish.draw_rest(draft, start, keys, returned)
            finish.check_attributes(draft)
            outputs, written = _outputs(draft, start, inputs, returned, exclude)
        draft.forget_values()
        every, tree = jax.tree.flatten(result)
        fixed = tuple(Fixed(leaf) if _is_fixed(leaf) else None for leaf in every)
        ends.append((tree, fixed, outputs))
        return [*(_array(leaf) for leaf in every if not _is_fixed(leaf)), *written]

    types = [
        check.member_type(leaf, axis) for leaf, axis in zip(inputs.leaves, inputs.axes, strict=True)
    ]
    try:
        with compat.axis_env(axis_name, inputs.size):
            program = _trace.record(member, check.member_key_type(key), tuple(types))
    finally:
        draft.forget_values()
    ((tree, result, outputs),) = ends
    program = dataclasses.replace(program, paths=_names(result, outputs))
    return Traced(key, inputs, program, tree, result, outputs, dict(taps.states))


def _outputs(
    draft: Draft, start: Start, inputs: Inputs, returned: list[Any], exclude: Filter | None
) -> tuple[tuple[Output, ...], list[Any]]:
    """The states that the call wrote, what becomes of each, and the leaves of their values."""
    if start.target is None:
        made = [state for state in draft.made_states() if draft.outlives(state)]
        paths: dict[int, walk.Path] = {id(state): (number,) for number, state in enumerate(made)}
        paths |= {id(state): ("in_states", i) for i, (state, _) in enumerate(inputs.own)}
    else:
        found = walk.walk(returned).states
        paths = {id(state): ("result", *path) for path, state in found.items()}
        paths |= walk.walk(start.target).paths
    outputs: list[Output] = []
    leaves: list[Any] = []
    for state, content in draft.written():
        if id(state) not in paths and draft.made(state):
            continue  # made and dropped, or kept by somebody else
        path = paths.get(id(state), ())
        finish.check_leaves(path, state, content.value)
        excluded = isinstance(state, NonBatchState)
        if exclude is not None:
            excluded = excluded or exclude(path, state)
        own, tree = jax.tree.flatten(content.value)
        types = tuple(map(jax.typeof, own))
        leaves += own
        outputs.append(Output(state, path, content._replace(value=UNSET), tree, types, excluded))
    return tuple(outputs), leaves


def _names(result: tuple[Fixed | None, ...], outputs: tuple[Output, ...]) -> tuple[str, ...]:
    """Names of the results and written values, for `Plan.explain`."""
    names = [f"result {i}" for i in range(result.count(None))]
    for output in outputs:
        name = walk.dotted(output.path)
        blank = output.tree.unflatten([0] * output.tree.num_leaves)
        for path, _ in jax.tree_util.tree_leaves_with_path(blank):
            names.append(name + jax.tree_util.keystr(path))
    return tuple(names)


def _is_fixed(leaf: Any) -> bool:
    return isinstance(leaf, (State, walk.Node))


def _array(leaf: Any) -> Any:
    if check.array_like(leaf):
        return leaf
    raise TypeError(
        "a function that runs over members must return arrays, numbers, modules and states; got "
        f"{leaf!r} of type {type(leaf).__name__}"
    )
