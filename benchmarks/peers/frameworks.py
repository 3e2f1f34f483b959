"""The peers of the frameworks table: each framework's own way, and seedbed's adapter for it.

The model is one module whose parameters are the leaves of the case. Both ways start from the same
key and make the same numbers, which the runner compares.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from ..case import Case, Leaf
from . import on_jax
from .roster import Call

_draw = on_jax.draw


def _call(make: Callable[[Any], Any], facts: Callable[[], dict[str, Any]] | None = None) -> Call:
    def run(key: Any) -> Any:
        return jax.block_until_ready(make(key))

    return Call(on_jax.key, run, facts or on_jax.lowering)


def _planned(make: Any, *args: Any) -> Callable[[], dict[str, Any]]:
    return lambda: on_jax.plan_facts(make.plan(on_jax.key(0), *args))


def _vmapped(init: Callable[[Any], Any], case: Case) -> Call:
    made = jax.jit(lambda key: jax.vmap(init)(jax.random.split(key, case.members)))
    return _call(made)


def _is_random(leaf: Leaf) -> bool:
    return leaf.sampler not in on_jax.CONSTANTS


# --- flax nnx ---------------------------------------------------------------------------


def _nnx_model(case: Case) -> Any:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            for leaf in case.leaves:
                key = rngs.params() if _is_random(leaf) else None
                setattr(self, leaf.name, nnx.Param(_draw(leaf, key)))

    return Model


def _nnx_rngs(key: Any) -> Any:
    from flax import nnx

    return nnx.Rngs(params=jax.random.wrap_key_data(key))


def _nnx_create(case: Case) -> Callable[[Any], Any]:
    from flax import nnx

    model = _nnx_model(case)

    @nnx.split_rngs(splits=case.members)
    @nnx.vmap
    def create(rngs: Any) -> Any:
        return model(rngs)

    return lambda key: nnx.state(create(_nnx_rngs(key)))


def nnx_own(case: Case) -> Call:
    return _call(_nnx_create(case))


def nnx_jitted(case: Case) -> Call:
    return _call(jax.jit(_nnx_create(case)))


def nnx_adapter(case: Case) -> Call:
    from flax import nnx

    import seedbed as sb

    make = sb.adapters.nnx.ensemble(_nnx_model(case), case.members)

    def facts() -> dict[str, Any]:
        return on_jax.plan_facts(make.plan(_nnx_rngs(on_jax.key(0))))

    return _call(lambda key: nnx.state(make(_nnx_rngs(key))), facts)


# --- flax linen -------------------------------------------------------------------------


def _linen_model(case: Case) -> Any:
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self) -> None:
            for leaf in case.leaves:
                self.param(leaf.name, lambda key, leaf=leaf: _draw(leaf, key))

    return Model()


def linen_own(case: Case) -> Call:
    return _vmapped(_linen_model(case).init, case)


def linen_adapter(case: Case) -> Call:
    import seedbed as sb

    make = sb.adapters.linen.ensemble(_linen_model(case), case.members)
    return _call(make, _planned(make))


# --- equinox ----------------------------------------------------------------------------


def _equinox_model(case: Case) -> Any:
    import equinox as eqx

    member = on_jax.init(case)

    class Model(eqx.Module):
        parameters: dict[str, jax.Array]

        def __init__(self, key: Any) -> None:
            self.parameters = member(key)

    return Model


def equinox_own(case: Case) -> Call:
    import equinox as eqx

    model = _equinox_model(case)

    @eqx.filter_jit
    def make(key: Any) -> Any:
        return eqx.filter_vmap(model)(jax.random.split(key, case.members))

    return _call(make)


def equinox_adapter(case: Case) -> Call:
    import seedbed as sb

    make = sb.adapters.equinox.ensemble(_equinox_model(case), case.members)
    return _call(make, _planned(make))


# --- haiku ------------------------------------------------------------------------------


def _haiku_model(case: Case) -> Any:
    import haiku as hk

    def model() -> None:
        for leaf in case.leaves:

            def make(shape: Any, dtype: Any, leaf: Leaf = leaf) -> Any:
                return _draw(leaf, hk.next_rng_key() if _is_random(leaf) else None)

            hk.get_parameter(leaf.name, leaf.shape, init=make)

    return hk.transform(model)


def haiku_own(case: Case) -> Call:
    return _vmapped(_haiku_model(case).init, case)


def haiku_adapter(case: Case) -> Call:
    import seedbed as sb

    make = sb.adapters.haiku.ensemble(_haiku_model(case), case.members)
    return _call(make, _planned(make))


# --- brainstate -------------------------------------------------------------------------


def _brainstate_model(case: Case) -> Any:
    import brainstate as bs

    class Model(bs.nn.Module):
        def init_state(self) -> None:
            # Made here and not in __init__, or they would have no axis of members.
            for leaf in case.leaves:
                key = bs.random.split_key() if _is_random(leaf) else None
                setattr(self, leaf.name, bs.ParamState(_draw(leaf, key)))

    return Model


def _brainstate_call(case: Case, initialise: Callable[..., Any]) -> Call:
    import brainstate as bs

    model = _brainstate_model(case)

    def make(key: Any) -> Any:
        bs.random.set_key(key)
        net = model()
        initialise(net, axis_size=case.members)
        return {leaf.name: getattr(net, leaf.name).value for leaf in case.leaves}

    return _call(make)


def brainstate_own(case: Case) -> Call:
    import brainstate as bs

    return _brainstate_call(case, bs.nn.vmap_init_all_states)


def brainstate_adapter(case: Case) -> Call:
    import seedbed as sb

    return _brainstate_call(case, sb.adapters.brainstate.vmap_init_all_states)
