"""Arithmetic around draws rounds as it does when jax compiles the whole init as one program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, chunks, oracle

pytestmark = pytest.mark.shared

uniform, normal, truncated = jax.random.uniform, jax.random.normal, jax.random.truncated_normal
I = jax.nn.initializers  # noqa: E741 - the name the field uses


TAILS = {
    "scale": lambda x, t: x * 0.3,
    "scales": lambda x, t: x * 0.3 * 0.7,
    "quotient": lambda x, t: x / 3.0,
    "scaled quotient": lambda x, t: x * 0.3 / 7.0,
    "shift": lambda x, t: x + 0.1,
    "difference": lambda x, t: x - 0.25,
    "affine": lambda x, t: 0.3 * x + 0.1,
    "affine and shift": lambda x, t: (0.3 * x + 0.1) + 0.2,
    "affine and scale": lambda x, t: (0.3 * x + 0.1) * 0.7,
    "negation": lambda x, t: -x,
    "traced scale": lambda x, t: 0.3 * x * t,
    "traced shift": lambda x, t: 0.3 * x + t,
    "traced affine": lambda x, t: t * x + t,
    "traced between": lambda x, t: 0.3 * x * t + 0.1,
    "exponential": lambda x, t: jnp.exp(0.3 * x + t),
    "squash": lambda x, t: jnp.tanh(0.3 * x + 0.1),
    "clip": lambda x, t: jnp.clip(x * 0.3, -0.2, 0.2) * 1.7,
    "rectify": lambda x, t: jnp.maximum(x, 0.0) * 0.3,
    "antisymmetric": lambda x, t: x * 0.3 - x.T * 0.3,
    "narrow": lambda x, t: (x * 0.3).astype(jnp.bfloat16),
    "turned": lambda x, t: (x * 0.3).T.reshape(-1)[::2],
    "masked": lambda x, t: jnp.where(x > 0.2, x * 0.3, t),
}
SOURCES = {
    "normal": lambda key: normal(key, (17, 17)),
    "uniform": lambda key: uniform(key, (17, 17), minval=-0.4, maxval=1.3),
    "truncated": lambda key: truncated(key, -2.0, 2.0, (17, 17)),
    "normal-bf16": lambda key: normal(key, (17, 17), jnp.bfloat16),
}


@pytest.mark.parametrize("names", chunks(TAILS, 8), ids="+".join)
@pytest.mark.parametrize("source", SOURCES)
def test_arithmetic_around_draws_rounds_as_in_one_jit(key, source, names):
    draw = SOURCES[source]
    if source != "normal":
        names = names[::2] if source == "uniform" else names[1::3]

    def init(key, t):
        keys = jax.random.split(key, len(names))
        return {
            name: TAILS[name](draw(one), t.astype(draw(one).dtype))
            for name, one in zip(names, keys, strict=True)
        }

    t = jnp.linspace(0.1, 0.9, 4, dtype=jnp.float32)
    got = sb.ensemble(init, 4, in_axes=0)(key, t)
    assert_same_bits(got, oracle(init, 4, key, t, in_axes=(0,)))


@pytest.mark.parametrize("source", ["normal", "truncated"])
def test_sums_of_draws_are_right_up_to_rounding(key, source):
    # XLA rounds a sum as it happens to fuse it with its terms: in jax alone the same sum differs
    # between programs. So bits are promised for elementwise arithmetic only.
    def terms(key):
        return SOURCES[source](key) * 0.3

    got = sb.ensemble(lambda key: terms(key).sum(0), 4)(key)
    made = np.asarray(oracle(terms, 4, key), np.float64)
    bound = 17 * np.finfo(np.float32).eps * np.abs(made).sum(1)
    assert (np.abs(np.asarray(got) - made.sum(1)) <= bound).all()


def test_products_of_draws(key):
    def init(key):
        return (normal(key, (17, 17)) * 0.3) @ jnp.ones((17, 6))

    assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


def test_one_draw_as_result_and_inside_arithmetic(key):
    def init(key):
        x = normal(key, (33, 17)) * 0.3
        return {"x": x, "same": x, "tail": x * 0.7 + 0.1, "flat": x.reshape(-1), "turned": x.T}

    assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, 0.0, -0.0, 1e-40, 3e38])
def test_scales_that_make_no_sense_give_what_jax_gives(key, scale):
    # Row 67: nothing checks them, so the results are jax's.
    def init(key):
        return normal(key, (33,)) * scale, uniform(key, (33,)) * scale, I.normal(scale)(key, (9, 9))

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key), nan=True)


@pytest.mark.parametrize("scale", [1.4142135, -1.4142135, 1e-30, -1e-37, 0.0])
def test_an_added_zero(key, scale):
    # Left out by XLA, also where it would make 0.0 of -0.0.
    def init(key):
        x = normal(key, (33, 17)) * scale + 0.0
        y = uniform(key, (33,), minval=-1.0) * scale - 0.0
        return x, jnp.clip(x, -1.0, 1.0) * 0.3, y, jnp.signbit(y + -0.0)

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key))


BOUNDS = [(1.0, -2.0), (1.0, 1.0), (0.0, np.inf), (-np.inf, np.inf), (np.nan, 1.0), (-0.0, 1e-42)]


@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_bounds_that_make_no_sense_give_what_jax_gives(key, bounds):
    def init(key):
        low, high = bounds
        return uniform(key, (33,), minval=low, maxval=high), truncated(key, low, high, (33,))

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key), nan=True)


@pytest.mark.parametrize("p", [-1.0, 0.0, 1e-8, 0.5, 1.0, 2.0, np.nan])
def test_probabilities(key, p):
    def init(key):
        return jax.random.bernoulli(key, p, (65,))

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key))
