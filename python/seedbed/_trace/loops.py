"""Loops: a scan as a call of two parts, what its steps make each by itself, and what stays a loop.

A step that draws from a key of its own needs no other step: of all steps together that is the
body under `jax.vmap`. Where a key is carried along and split in each step, the steps are written
out one after the other. Both are called *hoisted* here. XLA may round what is computed in a
hoisted body in another way than in its loop, so only draws may be taken from there; what else the
loop results in stays in a loop, which reads those draws where that saves making them twice.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from .._jax import compat, jaxprs
from . import bodies, cut

if TYPE_CHECKING:
    from .._jax.types import Eqn

# Steps that a key may be carried through; more stay a loop of XLA's.
LONGEST_CHAIN = 256

# The hoisted part of a loop; it is opened like any call, and never run.
hoisted: Any = compat.core.Primitive("seedbed_hoisted")
hoisted.multiple_results = True
hoisted.def_abstract_eval(lambda *operands, jaxpr, loop: jaxpr.out_avals)
jaxprs.register_call("seedbed_hoisted")

# A result of a loop: one array of all steps, or the arrays of the steps one by one. It is
# ``final`` where it leaves the loop: XLA merges nothing across.
rows: Any = compat.core.Primitive("seedbed_rows")


def _rows_type(*steps: Any, whole: bool, final: bool) -> Any:
    first = steps[0]
    return first if whole else first.update(shape=(len(steps), *first.shape))


rows.def_abstract_eval(_rows_type)


class _Of(enum.IntEnum):
    """What a value in a step depends on besides constants."""

    STEP = 0  # on what is read in this step
    CHAIN = 1  # also on a key that is carried
    OTHERS = 2  # on what other steps compute


class Loop:
    """One scan that draws.

    Attributes:
        scan: its parts.
        reason: why draws in it stay there, if some have to.
    """

    def __init__(self, eqn: Eqn) -> None:
        self.eqn = eqn
        self.scan = scan = jaxprs.scan_of(eqn)
        with eqn.ctx.manager:
            self.body, self.body_consts = jaxprs.opened(bodies.with_calls_opened(scan.body))
        split = scan.consts + scan.carried
        self.consts = list(self.body.invars[: scan.consts])
        self.carried = list(self.body.invars[scan.consts : split])
        self.xs = list(self.body.invars[split:])
        self.reason = ""
        self.of = self._levels()
        self.random = bodies.reached(self.body, (), bodies.draws)
        self.given = bodies.reached(self.body, self.body.invars)
        # What is taken from the hoisted part: results of the loop, by position, and values
        # inside, which a loop that stays may read.
        self.results = [i for i in range(len(eqn.outvars)) if self._takes(i)]
        self.variables = [self.body.outvars[i] for i in self.results]
        self._whole = len(self.results) == len(eqn.outvars)
        self._inside = self._drawn()
        self._hoisted: dict[int, Any] = {}
        self._programs: dict[frozenset[int], Any] = {}

    def program(self, computed: frozenset[int]) -> Any:
        """The loop as a jaxpr of a hoisted part and a loop, or None if nothing is to be hoisted.

        Args:
            computed: positions among the results of the hoisted part that may not be taken from it.
        """
        if computed in self._programs:
            return self._programs[computed]
        count = len(self.results)
        chained = any(self._level(variable) is _Of.CHAIN for variable in self.variables)
        if computed or not (self._whole and chained):
            # Of a long chain that is costly, and mostly of no use.
            self.variables += self._inside
            self._inside = []
        closed = self.hoisted()
        usable = [i for i in range(len(self.variables)) if i not in computed]
        results = {self.results[i]: i for i in usable if i < count}
        stops = {self.variables[i]: i for i in usable if i >= count}
        rest = [i for i in range(len(self.eqn.outvars)) if i not in results]
        while rest:
            # A normal that is a result, and read beside, XLA rounds in two ways in such rows.
            used, _, _ = self._needed(rest, stops)
            back = [i for i in results if bodies.narrow(v := self.body.outvars[i]) and v in used]
            if not back:
                break
            rest = sorted([*rest, *back])
            results = {i: place for i, place in results.items() if i not in back}

        def program(*operands: Any) -> list[Any]:
            made = hoisted.bind(*operands, jaxpr=closed, loop=self)
            out = {i: made[place] for i, place in results.items()}
            if rest:
                out.update(zip(rest, self._loop(operands, rest, stops, made, results), strict=True))
            return [out[i] for i in range(len(self.eqn.outvars))]

        made = self._traced(program) if self.random and usable else None
        return self._programs.setdefault(computed, made)

    def hoisted(self) -> Any:
        """The hoisted part: results of the loop, then values inside that may be draws."""
        count = len(self.variables)
        if count not in self._hoisted:
            self._hoisted[count] = self._traced(self._together)
        return self._hoisted[count]

    # --- what depends on what ---

    def _levels(self) -> dict[Any, _Of]:
        """What each variable of the body depends on."""
        outs = self.body.outvars[: self.scan.carried]
        carried = {}
        for variable, out in zip(self.carried, outs, strict=True):
            same = variable is out
            keys = bodies.may_be_key(variable.aval)
            carried[variable] = _Of.STEP if same else _Of.CHAIN if keys else _Of.OTHERS
        if _Of.CHAIN in carried.values() and self.scan.length > LONGEST_CHAIN:
            self.reason = (
                f"whose key is carried through {self.scan.length:,} steps (of at most "
                f"{LONGEST_CHAIN})"
            )
            carried = {v: of and _Of.OTHERS for v, of in carried.items()}
        while True:
            of: dict[Any, _Of] = {**dict.fromkeys((*self.consts, *self.xs), _Of.STEP), **carried}
            for eqn in self.body.eqns:
                level = _level(of, eqn.invars)
                of.update(dict.fromkeys(eqn.outvars, level))
            lost = [
                variable
                for variable, out in zip(self.carried, outs, strict=True)
                if carried[variable] is _Of.CHAIN and _level(of, [out]) is _Of.OTHERS
            ]
            if not lost:
                return of
            carried.update(dict.fromkeys(lost, _Of.OTHERS))

    def _takes(self, position: int) -> bool:
        """Whether a result of the loop may come from its hoisted part: it is drawn, or constant."""
        variable = self.body.outvars[position]
        if position < self.scan.carried:
            own = self.carried[position]
            return self.of[own] is _Of.CHAIN or own is variable
        if jaxprs.is_literal(variable):
            return True
        if self.of.get(variable, _Of.STEP) is _Of.OTHERS:
            return False
        return variable in self.random or variable not in self.given

    def _drawn(self) -> list[Any]:
        """The values inside that draws may be."""
        return [
            variable
            for eqn in self.body.eqns
            for variable in eqn.outvars
            if variable in self.random and self.of[variable] is not _Of.OTHERS
            if hasattr(variable.aval, "shape") and not bodies.may_be_key(variable.aval)
            if not bodies.narrow(variable)
        ]

    # --- the hoisted part ---

    def _together(self, *operands: Any) -> list[Any]:
        """Values of the body, in all steps."""
        consts, carried, xs = self._parts(operands)
        variables, count = self.variables, len(self.results)
        values: list[Any] = [None] * len(variables)
        stepwise, chained = [], []
        for place, variable in enumerate(variables):
            position = self.results[place] if place < count else self.scan.carried
            if position < self.scan.carried:
                own = self.carried[position]
                if self.of[own] is _Of.STEP:
                    values[place] = carried[position]
                else:
                    chained.append(place)
            elif self._level(variable) is _Of.STEP:
                stepwise.append(place)
            else:
                chained.append(place)
        if stepwise:
            made = self._mapped([variables[place] for place in stepwise], consts, carried, xs)
            for place, value in zip(stepwise, made, strict=True):
                final = place < count
                values[place] = rows.bind(value, whole=True, final=True) if final else value
        if chained:
            last, steps = self._chained([variables[i] for i in chained], consts, carried, xs)
            for place, made in zip(chained, steps, strict=True):
                position = self.results[place] if place < count else self.scan.carried
                if position < self.scan.carried:
                    values[place] = last[position]
                else:
                    values[place] = rows.bind(*made, whole=False, final=place < count)
        return values

    def _mapped(
        self, variables: Sequence[Any], consts: Sequence[Any], carried: Sequence[Any], xs: Any
    ) -> list[Any]:
        """Values of the body in all steps at once."""
        length = self.scan.length
        fixed = dict(zip(self.consts, consts, strict=True))
        fixed.update(
            (own, value)
            for own, value in zip(self.carried, carried, strict=True)
            if self.of[own] is _Of.STEP
        )
        # A draw is one of all steps also where each of them draws from the same key.
        keys = {own: value for own, value in fixed.items() if bodies.may_be_key(own.aval)}
        spread = [jnp.broadcast_to(value[None], (length, *value.shape)) for value in keys.values()]

        def step(_: Any, spread: Any, xs: Any) -> list[Any]:
            known = {**fixed, **dict(zip(keys, spread, strict=True))}
            known.update(zip(self.xs, xs, strict=True))
            return self._evaluate(known, variables)

        return list(jax.vmap(step)(np.zeros(length, bool), spread, list(xs)))

    def _chained(
        self, variables: Sequence[Any], consts: Sequence[Any], carried: Sequence[Any], xs: Any
    ) -> tuple[list[Any], list[list[Any]]]:
        """What is carried out of the last step, and values of the body step by step."""
        kept = [i for i, own in enumerate(self.carried) if self.of[own] is not _Of.OTHERS]
        known = [*self.consts, *(self.carried[i] for i in kept), *self.xs]
        outs = [*(self.body.outvars[i] for i in kept), *variables]
        # Opened once, and added again for each further step.
        step: Any = jax.jit(
            lambda *values: self._evaluate(dict(zip(known, values, strict=True)), outs)
        )
        order = range(self.scan.length)
        made: list[list[Any]] = [[None] * self.scan.length for _ in variables]
        last = list(carried)
        for t in reversed(order) if self.scan.reverse else order:
            read = [jax.lax.index_in_dim(x, t, keepdims=False) for x in xs]
            results = step(*consts, *(last[i] for i in kept), *read)
            for i, value in zip(kept, results[: len(kept)], strict=True):
                last[i] = value
            for steps, value in zip(made, results[len(kept) :], strict=True):
                steps[t] = value
        return last, made

    # --- what stays a loop ---

    def _loop(
        self,
        operands: Sequence[Any],
        wanted: Sequence[int],
        stops: dict[Any, int],
        made: Sequence[Any],
        results: Collection[int],
    ) -> list[Any]:
        """Results of the loop, by a loop in which draws are read."""
        consts, carried, xs = self._parts(operands)
        free = {self.body.outvars[i] for i in results}
        for stop in (stops, {v: i for v, i in stops.items() if v in free}):
            needed, own, read = self._needed(wanted, stop)
            # The memory of a loop's draws is not paid for a loop that sums them up.
            drawn = [v for v in read if v not in free]
            if sum(map(bodies.nbytes, drawn)) * self.scan.length <= self._result_bytes():
                break
            self.reason = "whose draws take more memory than its results"
        fixed = dict(zip(self.consts, consts, strict=True))
        fixed.update((self.carried[i], carried[i]) for i in range(len(carried)) if i not in own)
        own_xs = [v for v in self.xs if v in needed]
        values = dict(zip(self.xs, xs, strict=True))
        outs = [self.body.outvars[i] for i in wanted if i >= self.scan.carried]

        def step(carry: Any, x: Any) -> Any:
            known = {**fixed, **dict(zip([self.carried[i] for i in own], carry, strict=True))}
            known.update(zip((*own_xs, *read), x, strict=True))
            ends = [self.body.outvars[i] for i in own]
            found = self._evaluate(known, [*ends, *outs])
            return found[: len(own)], found[len(own) :]

        scanned = ([values[v] for v in own_xs], [made[stop[v]] for v in read])
        last, ys = jax.lax.scan(
            step,
            [carried[i] for i in own],
            [*scanned[0], *scanned[1]],
            self.scan.length,
            self.scan.reverse,
            self.scan.unroll,
        )
        found = {**dict(zip(own, last, strict=True))}
        found.update(zip([i for i in wanted if i >= self.scan.carried], ys, strict=True))
        return [found[i] for i in wanted]

    def _needed(
        self, wanted: Sequence[int], stops: Collection[Any]
    ) -> tuple[set[Any], list[int], list[Any]]:
        """What a loop of some of the results reads: variables, carried ones by position, and those
        where it may stop."""
        own = {i for i in wanted if i < self.scan.carried}
        while True:
            targets = [self.body.outvars[i] for i in sorted({*wanted, *own})]
            _, used = cut.live(bodies.without_known(self.body.eqns, stops), targets, effects=False)
            more = {
                i
                for i, variable in enumerate(self.carried)
                if variable in used and variable is not self.body.outvars[i]
            }
            if more <= own:
                return used, sorted(own), [v for v in stops if v in used]
            own |= more

    def _result_bytes(self) -> int:
        return sum(bodies.nbytes(variable) for variable in self.eqn.outvars)

    # --- tools ---

    def _traced(self, function: Callable[..., Any]) -> Any:
        types = [bodies.abstract(variable.aval) for variable in self.eqn.invars]
        with self.eqn.ctx.manager:
            return jax.make_jaxpr(function)(*types)

    def _parts(self, operands: Sequence[Any]) -> tuple[Any, Any, Any]:
        first, second = self.scan.consts, self.scan.consts + self.scan.carried
        return operands[:first], operands[first:second], operands[second:]

    def _level(self, variable: Any) -> _Of:
        return _level(self.of, [variable])

    def _evaluate(self, known: dict[Any, Any], variables: Sequence[Any]) -> list[Any]:
        """Values of the body, of others that are known."""
        return bodies.evaluate(self.body, self.body_consts, known, variables)


def _level(of: dict[Any, _Of], variables: Iterable[Any]) -> _Of:
    found = [of.get(v, _Of.STEP) for v in variables if not jaxprs.is_literal(v)]
    return max(found, default=_Of.STEP)
