"""The peers of the lazy table: ensembles of which no more is made than is looked at.

Each function takes a case and returns a `Call`. What is computed of a member is the largest of its
numbers, which no order of operations changes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..case import Case
from . import on_jax
from .roster import Call


def largest(member: Any) -> Any:
    return jnp.stack([jnp.abs(leaf).max() for leaf in jax.tree.leaves(member)]).max()


def mapped(case: Case) -> Call:
    import seedbed as sb

    make = sb.ensemble(on_jax.init(case), case.members)
    facts = on_jax.plan_facts
    return _looped(lambda key: make.lazy(key).map(largest), lambda: facts(make.plan(on_jax.key(0))))


def jax_mapped(case: Case, chunk: int) -> Call:
    init = on_jax.init(case)

    def run(key: Any) -> Any:
        keys = jax.random.split(key, case.members)
        return jax.lax.map(lambda key: largest(init(key)), keys, batch_size=chunk)

    return _looped(jax.jit(run), on_jax.lowering)


def whole(case: Case) -> Call:
    import seedbed as sb

    make = sb.ensemble(on_jax.init(case), case.members)
    fn = jax.jit(jax.vmap(largest))
    return _looped(lambda key: fn(make(key)), lambda: on_jax.plan_facts(make.plan(on_jax.key(0))))


def _looped(run: Callable[[Any], Any], facts: Callable[[], dict[str, Any]]) -> Call:
    def told() -> dict[str, Any]:
        # What runs eagerly, compiled once more for a look at it.
        program: Any = jax.jit(run).lower(on_jax.key(0)).compile()
        return facts() | {"temporary": program.memory_analysis().temp_size_in_bytes}

    return Call(on_jax.key, on_jax.ready(run), told)


def member(case: Case) -> Call:
    import seedbed as sb

    ens = sb.ensemble(on_jax.init(case), case.members).lazy(on_jax.key(0))
    return Call(_number, on_jax.ready(lambda i: ens[i]), lambda: on_jax.plan_facts(ens.plan))


def jax_member(case: Case) -> Call:
    init = on_jax.init(case)
    key = on_jax.key(0)
    make = jax.jit(lambda i: init(jax.random.fold_in(jnp.asarray(key), i)))
    return Call(_number, on_jax.ready(make), on_jax.lowering)


def _number(seed: int) -> int:
    return 1_000_003 * seed + 17
