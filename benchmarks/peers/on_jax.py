"""The peers that are JAX programs. Each function takes a case and returns a `Call`.

They import what they measure inside the functions, so that a process holds one peer only.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import initializers

from ..case import Case, Leaf
from . import unrolled as unrolled_lowering
from .roster import Call, Unavailable

SAMPLERS = {
    "bits": lambda key, shape: jax.random.bits(key, shape, jnp.uint32),
    "uniform": lambda key, shape: jax.random.uniform(key, shape),
    "normal": lambda key, shape: jax.random.normal(key, shape),
    "normal_float64": lambda key, shape: jax.random.normal(key, shape, jnp.float64),
    "truncated_normal": lambda key, shape: jax.random.truncated_normal(key, -2.0, 2.0, shape),
    "split": lambda key, shape: jax.random.split(key, shape),
    "he_normal": initializers.he_normal(),
    "lecun_normal": initializers.lecun_normal(),
    "linear": initializers.variance_scaling(
        1.0, "fan_in", "truncated_normal", in_axis=-1, out_axis=-2
    ),
    "embedding": initializers.normal(0.02),
    "zeros": lambda key, shape: jnp.zeros(shape),
    "ones": lambda key, shape: jnp.ones(shape),
}
CONSTANTS = ("zeros", "ones")


def key(seed: int) -> Any:
    """A key that no jax program had to run for, so that a cold start stays cold."""
    return np.array([0x5EED, seed], np.uint32)


def typed_key(seed: int) -> Any:
    return jax.random.wrap_key_data(key(seed))


def draw(leaf: Leaf, key: Any) -> Any:
    return SAMPLERS[leaf.sampler](key, leaf.shape)


def init(case: Case) -> Any:
    """The case's model as a plain function of a key."""
    random = [leaf.name for leaf in case.leaves if leaf.sampler not in CONSTANTS]
    if any(leaf.sampler.endswith("float64") for leaf in case.leaves):
        jax.config.update("jax_enable_x64", True)  # the process has no other case

    def model(key: Any) -> dict[str, Any]:
        keys = [key] if len(random) == 1 else jax.random.split(key, len(random))
        of = dict(zip(random, keys, strict=True))
        return {leaf.name: draw(leaf, of.get(leaf.name)) for leaf in case.leaves}

    return model


def ready(make: Any) -> Any:
    return lambda key: jax.block_until_ready(make(key))


def lowering() -> dict[str, Any]:
    return {"threefry": unrolled_lowering.lowering()}


def plan_facts(plan: Any) -> dict[str, Any]:
    import seedbed as sb

    facts = {"plan": plan.summary(), "version": sb.__version__}
    if plan.reference is None:
        from seedbed import _cpu

        facts["isa"] = _cpu.isa()
    else:
        facts["warning"] = f"not native: {plan.reference}"
    return facts


def seedbed(case: Case, typed: bool = False) -> Call:
    import seedbed as sb

    make = sb.ensemble(init(case), case.members)
    seed = typed_key if typed else key
    return Call(seed, ready(make), lambda: plan_facts(make.plan(key(0))))


def vmapped(case: Case) -> Any:
    """What seedbed's calls equal, as a function of one key."""
    member = init(case)
    return lambda key: jax.vmap(member)(jax.random.split(key, case.members))


def raw(case: Case, impl: str = "", typed: bool = False, unrolled: bool = False) -> Call:
    if unrolled:
        unrolled_lowering.install()
    if impl:
        return _of_generator(case, impl)
    return Call(typed_key if typed else key, ready(jax.jit(vmapped(case))), lowering)


def _of_generator(case: Case, impl: str) -> Call:
    """With keys of another type, made from words so that no program has to run for them."""
    try:
        words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl)))
    except ValueError as error:
        raise Unavailable(f"this jax has no such generator: {error}") from None
    ensemble = vmapped(case)
    make = jax.jit(lambda words: ensemble(jax.random.wrap_key_data(words, impl=impl)))

    def seed(number: int) -> Any:
        data = np.full(words.shape, 0x5EED, words.dtype)
        data[-1] = number
        return data

    return Call(seed, ready(make))


def equinox(case: Case) -> Call:
    import equinox as eqx

    member = init(case)

    class Model(eqx.Module):
        parameters: dict[str, jax.Array]

        def __init__(self, key: Any) -> None:
            self.parameters = member(key)

    @eqx.filter_jit
    def make(key: Any) -> Any:
        return eqx.filter_vmap(Model)(jax.random.split(key, case.members))

    return Call(key, ready(make), lowering)


def nnx(case: Case) -> Call:
    from flax import nnx

    class Model(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            for leaf in case.leaves:
                random = leaf.sampler not in CONSTANTS
                setattr(self, leaf.name, nnx.Param(draw(leaf, rngs.params() if random else None)))

    @nnx.split_rngs(splits=case.members)
    @nnx.vmap
    def create(rngs: Any) -> Any:
        return Model(rngs)

    @jax.jit
    def make(key: Any) -> Any:
        return nnx.state(create(nnx.Rngs(params=jax.random.wrap_key_data(key))))

    return Call(key, ready(make), lowering)


def linen(case: Case) -> Call:
    from flax import linen

    class Model(linen.Module):
        @linen.compact
        def __call__(self) -> None:
            for leaf in case.leaves:
                self.param(leaf.name, lambda key, leaf=leaf: draw(leaf, key))

    model = Model()
    make = jax.jit(lambda key: jax.vmap(model.init)(jax.random.split(key, case.members)))
    return Call(key, ready(make), lowering)


def zeros(case: Case) -> Call:
    shapes = jax.eval_shape(init(case), key(0))

    @jax.jit
    def make() -> Any:
        return jax.tree.map(lambda x: jnp.zeros((case.members, *x.shape), x.dtype), shapes)

    return Call(key, lambda key: jax.block_until_ready(make()))
