"""Where the states of modules lie, and how the program of one member is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from brainstate import graph
from brainstate.util.filter import to_predicate
from jax.sharding import NamedSharding, PartitionSpec

from ... import filters
from ..._ensemble import check, donate, shardings, single, within
from ..._ensemble.ensemble import Ensemble
from ..._plan import Plan
from .._shared.layouts import checked_pad
from .._shared.parts import Arrays, Rest


class Way:
    """How the program of one member is run.

    Args:
        out_shardings: where states lie, as a user gave it; None leaves that to jax.
        pad: see `seedbed.ensemble`.
        alone: whether there is one member, whose values get no member axis.
        donate: whether calls take an old module, whose values are given up.

    Raises:
        TypeError: ``out_shardings`` is neither a sharding, nor a mapping from filters to some, or
            ``pad`` is not a bool.
        ValueError: ``pad`` is given without ``out_shardings``.
    """

    def __init__(
        self,
        out_shardings: Any = None,
        pad: bool = False,
        alone: bool = False,
        donate: bool = False,
    ) -> None:
        rules = out_shardings if isinstance(out_shardings, Mapping) else {...: out_shardings}
        self._rules = []
        for keep, one in rules.items():
            filters.check_end(keep)
            if not shardings.is_leaf(one):
                raise TypeError(
                    "`out_shardings` must be a sharding, a PartitionSpec, or a mapping from "
                    f"filters of states to these; got {one!r} of type {type(one).__name__}"
                )
            self._rules.append((to_predicate(keep), shardings.checked(one)))
        self.whole = shardings.whole(one for _, one in self._rules)
        self.laid_out = out_shardings is not None
        self.alone = alone
        # Whether brainstate itself ran the call.
        self.brainstates = False
        self.given = out_shardings
        self.pad = checked_pad(pad, out_shardings)
        self.donate = check.flag(donate, "donate")
        self._old: Mapping[str, Any] = {}
        self._modules: Mapping[str, Any] = {}

    def __reduce__(self) -> Any:
        return Way, (self.given, self.pad, self.alone, self.donate)

    def __deepcopy__(self, memo: dict[int, Any]) -> Way:
        return self  # devices cannot be copied

    def among(self, modules: Mapping[str, Any]) -> Way:
        """The same for one call, which puts the module that it makes there."""
        return self._with(_modules=modules)

    def over(self, args: tuple[Any, ...]) -> tuple[Way, tuple[Any, ...]]:
        """The same for a call that gives up an old module, and the arguments behind that."""
        if not self.donate:
            return self, args
        if not args or not isinstance(args[0], graph.Node):
            came = f"got one of type {type(args[0]).__name__}" if args else "`old` is missing"
            raise TypeError(
                "an ensemble with donate=True is called with the seed, then `old`, the module of "
                f"an earlier call; {came}"
            )
        old = {
            ".".join(map(str, path)) + jax.tree_util.keystr(inside): leaf
            for path, state in graph.states(args[0]).items()
            for inside, leaf in jax.tree_util.tree_leaves_with_path(state.value)
        }
        return self._with(_old=old), args[1:]

    def of_one(self) -> Way:
        """The same for one of the members, whose values have no member axis."""
        rules = [(keep, _without_members(one)) for keep, one in self._rules]
        return self._with(alone=True, pad=False, _rules=rules)

    def _with(self, **changes: Any) -> Way:
        way = Way.__new__(Way)
        vars(way).update(vars(self), **changes)
        return way

    def make(
        self, program: Any, size: int, axes: Sequence[int | None], states: Sequence[Any]
    ) -> Any:
        """A function of keys and arrays, with a plan.

        Args:
            program: of one member.
            states: whose value, or part of one, each of its results is; None for none.
        """
        options: dict[str, Any] = {}
        if self.laid_out:
            options["out_shardings"] = _Listed(self._entries(states))
        if self.alone:
            return _Alone(single.single(program, **options))
        if self.pad:
            options["pad"] = True
        made = within.for_modules(program, size, tuple(axes), **options)
        return _Renewed(made, self._old) if self._old else made

    def _entries(self, states: Sequence[Any]) -> list[Any]:
        paths = {
            id(state): path
            for module in self._modules.values()
            for path, state in graph.states(module).items()
        }
        entries = []
        for state in states:
            path = paths.get(id(state), ())
            found = [one for keep, one in self._rules if state is not None and keep(path, state)]
            entries.append(self.whole if not found or found[0] is None else found[0])
        return entries

    def shared(self, value: Any) -> Any:
        """A value of all members, on every device."""
        return value if self.whole is None else jax.device_put(value, self.whole)


def _without_members(place: Any) -> Any:
    spec: Any = PartitionSpec
    if isinstance(place, NamedSharding):
        return NamedSharding(place.mesh, spec(*place.spec[1:]), memory_kind=place.memory_kind)
    return spec(*place[1:]) if isinstance(place, PartitionSpec) else place


class _Listed(shardings.Entries):
    """Shardings of a program's results, in their order."""

    def __init__(self, entries: list[Any]) -> None:
        self.entries = entries

    def of(self, plan: Plan) -> list[Any]:
        return self.entries


class _Renewed:
    """An ensemble that is made in the memory of an old one, whose arrays go by their names."""

    def __init__(self, make: Ensemble, old: Mapping[str, Any]) -> None:
        self._make = make
        self._old = old
        self.plan = make.plan

    def __call__(self, keys: list[Any], *arrays: Any) -> Any:
        plan = self.plan(keys, *arrays)
        outputs = [output for output in plan.outputs if output.path in self._old]
        names = tuple([output.path for output in outputs])
        old = Arrays([self._old[name] for name in names], names, Rest(None, None))
        plan = plan.replace(outputs=tuple(outputs))
        given = donate.checked(old, plan, (self._make.size,), (keys, arrays))
        return within.into(self._make, given, keys, *arrays)


class _Alone:
    """A single model, called as an ensemble of one is."""

    def __init__(self, make: single.Single) -> None:
        self._make = make

    def __call__(self, keys: list[Any], *arrays: Any) -> Any:
        return self._make([key[0] for key in keys], *arrays)

    def plan(self, keys: list[Any], *arrays: Any) -> Plan:
        return self._make.plan([key[0] for key in keys], *arrays)
