"""Samplers that are a function of one uniform: exponential, gumbel, laplace."""

import jax
import jax.numpy as jnp
import pytest

from helpers import plan_of

uniform = jax.random.uniform

LOWEST = 2.0**-24 - 1
TINY = 2.0**-126
OF_WORD = {
    # what it is, and how `explain` shows it
    "exponential": (lambda key: jax.random.exponential(key, (5, 9)), "exponential"),
    "gumbel": (lambda key: jax.random.gumbel(key, (5, 9)), "gumbel"),
    "laplace": (lambda key: jax.random.laplace(key, (5, 9)), "laplace"),
    "a number": (lambda key: jax.random.laplace(key), "laplace"),
    "scaled": (lambda key: 3 * jax.random.exponential(key, (9,)) + 1, "exponential * 3 + 1"),
    "divided": (lambda key: jax.random.gumbel(key, (9,)) / 4, "gumbel * 0.25"),
    "shifted": (lambda key: jax.random.laplace(key, (9,)) - 0.5, "laplace + -0.5"),
    "by hand": (lambda key: -jnp.log1p(-uniform(key, (9,))), "exponential"),
    "inside weibull": (lambda key: jax.random.weibull_min(key, 1.0, 2.0, (9,)), "exponential"),
    "inside pareto": (lambda key: jax.random.pareto(key, 2.0, (9,)), "exponential"),
    "inside categorical": (lambda key: jax.random.categorical(key, jnp.zeros((16,))), "gumbel"),
    "gone on": (lambda key: jnp.tanh(2 * jax.random.gumbel(key, (9,))), "gumbel"),
}


@pytest.mark.parametrize("name", OF_WORD)
def test_samplers_that_are_functions_of_a_word(name):
    init, shown = OF_WORD[name]
    plan = plan_of(init)
    assert [str(draw) for draw in plan.draws] == [shown]
    assert bool(plan.steps) == name.startswith(("inside", "gone"))


def two_uniforms(key):
    a, b = (uniform(k, (9,), minval=LOWEST) for k in jax.random.split(key))
    return jnp.sign(a) * jnp.log1p(-jnp.abs(b))


OTHER_FUNCTIONS = {
    "another range": lambda key: -jnp.log1p(-uniform(key, (9,), maxval=2.0)),
    "another bound": lambda key: -jnp.log(-jnp.log(uniform(key, (9,), minval=1e-30))),
    "scaled inside": lambda key: -jnp.log1p(-(uniform(key, (9,)) * 0.5)),
    "half of it": lambda key: jnp.log1p(-uniform(key, (9,))),
    "another function": lambda key: -jnp.log(-jnp.log1p(uniform(key, (9,), minval=TINY))),
    "two uniforms": two_uniforms,
    "another mode": lambda key: jax.random.gumbel(key, (9,), mode="high"),
}


@pytest.mark.parametrize("name", OTHER_FUNCTIONS)
def test_other_functions_of_uniforms_stay_with_xla(name):
    plan = plan_of(OTHER_FUNCTIONS[name])
    assert plan.steps and {draw.kind.name for draw in plan.draws} == {"UNIFORM"}


def test_the_way_to_a_sampler_opens_no_call():
    """XLA may round an opened body another way than a call's."""
    called = jax.jit(lambda u: jnp.exp(-u))
    (step,) = plan_of(lambda key: called(uniform(key, (9,)))).steps
    assert step.eqn.primitive.name in ("jit", "pjit")
