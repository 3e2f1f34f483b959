"""The peers of the modules table: a module tree, initialised for all members at once.

Every call makes its own module, as a user does who starts a run; making one costs next to
nothing, because parameters are declared, or are made by ``init_state``. All peers start from the
key of a stream, so that those of seedbed draw the same numbers.
"""

from __future__ import annotations

from typing import Any

import jax

from ..case import Case, Leaf
from . import on_jax
from .roster import Call


def _weights(case: Case) -> list[Leaf]:
    return [leaf for leaf in case.leaves if leaf.sampler not in on_jax.CONSTANTS]


def _network(case: Case) -> Any:
    import seedbed as sb

    sizes = [leaf.shape[::-1] for leaf in _weights(case)]
    return sb.nn.Sequential(*(sb.nn.Linear(*size) for size in sizes))


def collective(case: Case) -> Call:
    import seedbed as sb

    def run(key: Any) -> dict[str, Any]:
        with sb.random.stream(key):
            net = sb.nn.vmap_init_all_states(_network(case), axis_size=case.members)
        return jax.block_until_ready(_values(net))

    def facts() -> dict[str, Any]:
        plan = sb.nn.plan_init(_network(case), axis_size=case.members)
        return on_jax.plan_facts(plan)

    return Call(on_jax.key, run, facts)


def ensemble(case: Case) -> Call:
    import seedbed as sb

    make = sb.ensemble(sb.nn.init_function(_network(case)), case.members)

    def run(key: Any) -> dict[str, Any]:
        with sb.random.stream(key):
            return jax.block_until_ready(make(sb.random.next_key()))

    return Call(on_jax.key, run, lambda: on_jax.plan_facts(make.plan(on_jax.key(0))))


def raw(case: Case) -> Call:
    import seedbed as sb

    member = sb.nn.init_function(_network(case))

    @jax.jit
    def make(key: Any) -> dict[str, Any]:
        first = jax.random.fold_in(key, 0)  # what the stream hands out
        return jax.vmap(member)(jax.random.split(first, case.members))

    return Call(on_jax.key, lambda key: jax.block_until_ready(make(key)), on_jax.lowering)


def brainstate(case: Case) -> Call:
    import brainstate as bs

    class Linear(bs.nn.Module):
        def __init__(self, weight: Leaf) -> None:
            super().__init__()
            self.leaf = weight

        def init_state(self) -> None:
            # Made here and not in __init__, or they would have no axis of members.
            weight, zeros = on_jax.draw(self.leaf, bs.random.split_key()), jax.numpy.zeros
            self.weight = bs.ParamState(weight)
            self.bias = bs.ParamState(zeros(self.leaf.shape[:1]))

    def run(key: Any) -> dict[str, Any]:
        bs.random.set_key(key)
        net = bs.nn.Sequential(*(Linear(leaf) for leaf in _weights(case)))
        bs.nn.vmap_init_all_states(net, axis_size=case.members)
        values = _values(net)
        _check_shapes(case, values)
        return jax.block_until_ready(values)

    return Call(on_jax.key, run)


def _values(net: Any) -> dict[str, Any]:
    return {".".join(map(str, path)): state.value for path, state in net.states().items()}


def _check_shapes(case: Case, values: dict[str, Any]) -> None:
    """Holds a peer to the shapes of the case: one that makes less would be no peer."""
    expected = {leaf.name: (case.members, *leaf.shape) for leaf in case.leaves}
    made = {name: value.shape for name, value in values.items()}
    if made != expected:
        raise ValueError(f"made {made} in place of {expected}")
