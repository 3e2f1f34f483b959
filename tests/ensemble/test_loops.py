"""Draws that are taken out of loops have the numbers that ``jit(vmap(init))`` gives in them."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.random import normal, split, uniform

import seedbed as sb
from helpers import assert_same_bits

pytestmark = pytest.mark.shared
lecun, orthogonal = jax.nn.initializers.lecun_normal(), jax.nn.initializers.orthogonal()


def _chain(key, _):
    key, sub = split(key)
    return key, 0.1 * normal(sub, (4, 16))


def _chained(**options):
    return lambda key: lax.scan(_chain, key, None, length=3, **options)


def _mapped(key, step, count=3, **options):
    return lax.scan(lambda carry, key: (carry, step(key)), 0.0, split(key, count), **options)[1]


def _layer(key):
    return {"w": lecun(key, (16, 10)), "b": jnp.zeros(10), "u": uniform(key, (5,))}


def _alive(key):
    def step(x, key):
        drawn = normal(key, (4, 16))
        return jnp.sqrt(abs(x)) + drawn, (x, drawn)

    return lax.scan(step, jnp.zeros((4, 16)), split(key, 3))


def _remat(key):
    step = jax.checkpoint(lambda x, key: (jnp.tanh(x), uniform(key, (4, 16))))
    return lax.scan(step, jnp.ones(3), split(key, 3))


def _switched(key):
    return lax.switch(
        jnp.int32(7), [lambda key: normal(key, (16,)), lambda key: uniform(key, (16,))], key
    )


LOOPS = {
    "steps": lambda key: _mapped(key, _layer),
    "steps backwards": lambda key: _mapped(key, lambda key: uniform(key, (4, 16)), reverse=True),
    "steps unrolled": lambda key: _mapped(key, lambda key: normal(key, (16,)), unroll=2),
    "one key": lambda key: lax.scan(lambda c, _: (c, normal(key, (16,))), 0, None, length=3)[1],
    "one step": lambda key: _mapped(key, lambda key: normal(key, (16,)), 1),
    "folded": lambda key: lax.map(
        lambda i: normal(jax.random.fold_in(key, i), (16,)), jnp.arange(3)
    ),
    "in batches": lambda key: lax.map(
        lambda key: 0.5 * normal(key, (4, 16)), split(key, 7), batch_size=3
    ),
    "legacy": lambda key: _mapped(jax.random.key_data(key), lambda key: uniform(key, (16,))),
    "integers": lambda key: _mapped(key, lambda key: jax.random.randint(key, (5,), 0, 9)),
    "narrow": lambda key: _mapped(key, lambda key: normal(key, (16,), jnp.bfloat16)),
    "keys": lambda key: _mapped(key, lambda key: jax.random.key_data(split(key)[1])),
    "short rows": lambda key: _mapped(key, lambda key: normal(key, (5, 3))),
    "numbers": lambda key: _mapped(key, normal, 40),
    "chain": _chained(),
    "chain backwards": lambda key: _chained(reverse=True)(key)[1],
    "chain unrolled": lambda key: _chained(unroll=2)(key)[1],
    "after a chain": lambda key: normal(_chained()(key)[0], (16,)),
    "nested": lambda key: _mapped(key, lambda key: _mapped(key, lambda k: uniform(k, (2, 16)), 2)),
    "chain in steps": lambda key: _mapped(key, lambda key: _chained()(key)[1]),
    "steps in a chain": lambda key: lax.scan(
        lambda key, _: (split(key)[0], _mapped(key, lambda k: uniform(k, (16,)))), key, length=2
    )[1],
    "remat": _remat,
    "alive": _alive,
    "orthogonal": lambda key: _mapped(key, lambda key: orthogonal(key, (6, 6))),
    "scaled outside": lambda key: 0.02 * _mapped(key, lambda key: normal(key, (16,)) * 0.3) + 1.0,
    "summed": lambda key: lax.scan(
        lambda x, key: (x + uniform(key, (16,)), None), jnp.zeros(16), split(key, 40)
    )[0],
    "switch": _switched,
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("size", [1, 64])
def test_loops(name, size, key):
    init, keys = LOOPS[name], split(key, size)
    got, expected = sb.ensemble(init, size)(keys), jax.jit(jax.vmap(init))(keys)
    if name == "after a chain" or name == "chain":
        got, expected = jax.tree.map(_words, (got, expected))
    assert_same_bits(got, expected)


def _words(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


@pytest.mark.parametrize("name", ["steps", "chain", "nested"])
def test_one_member(name, key):
    make = sb.ensemble(LOOPS[name], 64)
    got, expected = make.member(key, 5), make(key)
    got, expected = jax.tree.map(_words, (got, expected))
    assert_same_bits(got, jax.tree.map(lambda leaf: leaf[5], expected))


def test_float64(key):
    def init(key):
        return _mapped(key, lambda key: uniform(key, (7,), jnp.float64))

    with jax.enable_x64(True):
        keys = split(jax.random.key(3), 4)
        assert_same_bits(sb.ensemble(init, 4)(keys), jax.jit(jax.vmap(init))(keys))
