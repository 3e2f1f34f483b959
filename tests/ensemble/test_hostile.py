"""Programs that an over-eager matcher or constant folder gets wrong, each seen to be."""

import copy
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle

pytestmark = pytest.mark.shared

bits, normal, uniform = jax.random.bits, jax.random.normal, jax.random.uniform


def same(init, *args, size=3):
    key = jax.random.key(7)
    axes = (0, *(None for _ in args))
    jitted = jax.jit(jax.vmap(init, in_axes=axes))(jax.random.split(key, size), *args)
    eager = jax.vmap(init, in_axes=axes)(jax.random.split(key, size), *args)
    assert_same_bits(sb.ensemble(init, size)(key, *args), jitted, either=eager, nan=True)


def full(value, dtype=jnp.float32):
    return jnp.full((5,), value, dtype)


SCALAR_BESIDE_ARRAY = {
    "add": lambda key: full(0.1) + normal(key, ()),
    "mul": lambda key: full(2.0) * normal(key, ()),
    "sub": lambda key: normal(key, ()) - full(2.0),
    "div": lambda key: normal(key, ()) / full(2.0),
    "uniform": lambda key: full(2.0) * uniform(key, ()),
    "lt": lambda key: uniform(key, ()) < full(0.5),
    "max": lambda key: jnp.maximum(normal(key, ()), full(0.0)),
    "table": lambda key: full(2.0, jnp.bfloat16) * normal(key, (), jnp.bfloat16),
    "predicate": lambda key: jax.lax.select_n(bits(key, (), jnp.uint8) > 100, full(0.0), full(1.0)),
    "bound": lambda key: jax.lax.clamp(
        bits(key, (), jnp.uint8), full(77, jnp.uint8), jnp.uint8(255)
    ),
    "remainders": lambda key: (
        (bits(jax.random.split(key)[0], ()) % 7 * 3 + bits(jax.random.split(key)[1], (8,)) % 7) % 7
    ),
}


@pytest.mark.parametrize("name", SCALAR_BESIDE_ARRAY)
def test_one_number_for_all_elements_stays_one_number(name):
    same(SCALAR_BESIDE_ARRAY[name])


def test_bounds_of_truncated_normals():
    # XLA folds erf of a constant in more than one way.
    rng = np.random.default_rng(0)
    bounds = [(-0.07322673547034517, -0.054425898285730995), (-0.132043097, -0.0661528021815219)]
    bounds += [tuple(sorted(rng.uniform(-3, 3, 2).tolist())) for _ in range(6)]
    for low, high in bounds:
        same(lambda key, low=low, high=high: jax.random.truncated_normal(key, low, high, (200,)))


def test_bounds_by_element():
    same(lambda key: jax.random.truncated_normal(key, jnp.linspace(-1, 0, 6)[None], 2.0, (4, 6)))
    same(lambda key: jax.lax.erf(jnp.linspace(-2.0, 2.0, 33)) + 0 * bits(key, ()))


def test_subnormal_bounds_and_factors():
    same(lambda key: uniform(key, (200,), minval=1e-38, maxval=3e-38))
    same(lambda key: uniform(key, (200,), minval=1e-40, maxval=2e-38))
    same(lambda key: jax.random.truncated_normal(key, 1e-38, 3e-38, (200,)))
    same(lambda key: normal(key, (8,)) * 1e38 * 1e38 * 1e-38)


def test_arithmetic_behind_a_narrow_draw():
    def init(key, t):
        narrow = normal(key, (100,), jnp.bfloat16) * jnp.bfloat16(0.3) * jnp.bfloat16(1.7)
        return narrow.astype(jnp.float32) * t + 1

    same(init, jnp.float32(0.37), size=5)


def test_zeros_with_signs():
    same(lambda key: 1 / jnp.maximum(jnp.float32(0.0), -0.0) + 0 * normal(key, ()))


def test_selections_of_constants():
    lax = jax.lax
    same(lambda key: lax.select_n(jnp.array(False), jnp.ones(3)) + normal(key, (3,)))
    same(lambda key: lax.select_n(jnp.int32(5), jnp.ones(3), jnp.zeros(3)) + normal(key, (3,)))
    many = [float(value) for value in range(70)]
    same(lambda key: lax.select_n(jnp.int32(34), *map(jnp.float32, many)) + normal(key, ()))


def test_bitcasts_that_change_the_width():
    cast = jax.lax.bitcast_convert_type
    same(lambda key: cast(bits(key, (4, 2), jnp.uint8), jnp.uint16))
    same(lambda key: cast(bits(key, (4,), jnp.uint16) >> 6, jnp.uint8))


def test_derivative_rules_may_close_over_traced_values():
    def init(key):
        weight = normal(key, (3,))
        scaled = jax.custom_jvp(lambda x: x * weight)
        scaled.defjvp(lambda primals, tangents: (scaled(primals[0]), tangents[0] * weight))
        return scaled(jnp.ones(3))

    same(init)


def test_keys_of_another_type_inside():
    def init(key):
        words = jnp.concatenate([jax.random.key_data(key)] * 2)
        return bits(jax.random.wrap_key_data(words, impl="rbg"), (3,))

    same(init)
    key = jax.random.key(7)
    make = sb.ensemble(init, 3)
    assert_same_bits(make(key), oracle(init, 3, key))
    assert make.plan(key).reference


def test_copies_work_after_a_call():
    key = jax.random.key(7)
    make = sb.ensemble(normal, 5)
    want = make(key)
    assert_same_bits(copy.deepcopy(make)(key), want)
    assert_same_bits(pickle.loads(pickle.dumps(make))(key), want)


def test_a_traced_member_index_under_strict_promotion():
    make = sb.ensemble(lambda key, shift: normal(key, (6,)) + shift, 5, in_axes=0)
    key, shifts = jax.random.key(7), jnp.arange(5, dtype=jnp.float32)
    want = make(key, shifts)
    with jax.numpy_dtype_promotion("strict"):
        got = jax.jit(lambda i, shifts: make.member(key, i, shifts))(jnp.uint8(3), shifts)
    assert_same_bits(got, want[3])
    with jax.transfer_guard("disallow"):
        chosen = make.members(key, [1, 3], shifts)
    assert_same_bits(chosen, want[jnp.array([1, 3])])
    assert_same_bits(make.member(key, np.array(3), shifts), want[3])


def test_what_explain_calls_a_clipped_normal():
    def init(key):
        return {
            "above": jnp.minimum(jnp.maximum(normal(key, (6,)), -jnp.inf), 0.2),
            "both": jnp.clip(normal(key, (6,)), -1, 1),
            "truncated": jax.random.truncated_normal(key, -1, 1, (6,)),
        }

    graph = sb.ensemble(init, 2).plan(jax.random.key(0))
    if graph.reference is None:
        names = {output.path: str(graph.draws[output.source.index]) for output in graph.native}
        assert names["['above']"].startswith("normal clipped to [-inf, 0.2]")
        assert names["['both']"].startswith("normal clipped to [-1, 1]")
        assert names["['truncated']"].startswith("truncated_normal [-1, 1]")
    same(init)
