"""Functions of a key that draw in many ways, each for one oracle; float64 and 64-bit integers
where x64 is on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import random
from jax.nn import initializers

SHAPES = ((), (1,), (33,), (7, 2), (3, 5, 3), (128, 130))
ODD = ((0,), (3, 0, 2), (1, 1, 1), (17, 31), (257,), (4099,), (5, 4), (4, 3))


def bits(key):
    keys = random.split(key, 5)
    return {
        "shapes": [random.bits(keys[0], shape) for shape in (*SHAPES, *ODD)],
        "u8": random.bits(keys[1], (37,), jnp.uint8),
        "u16": random.bits(keys[2], (5, 37), jnp.uint16),
        "u32": random.bits(keys[3], (1025,), jnp.uint32),
    }


def uniforms(key):
    keys = random.split(key, 6)
    return {
        "unit": [random.uniform(keys[0], shape) for shape in (*SHAPES, *ODD)],
        "range": random.uniform(keys[1], (999,), minval=-1.25, maxval=1.75),
        "narrow": random.uniform(keys[2], (9, 37), minval=0.1, maxval=0.1001),
        "bf16": random.uniform(keys[3], (300,), jnp.bfloat16, minval=-2.0, maxval=3.0),
        "f16": random.uniform(keys[4], (301,), jnp.float16),
        "reversed": random.uniform(keys[5], (33,), minval=1.0, maxval=-1.0),
    }


def integers(key):
    keys = random.split(key, 12)
    kinds = (jnp.int8, jnp.int16, jnp.int32, jnp.uint8, jnp.uint16, jnp.uint32)
    return {
        "kinds": [random.randint(k, (65,), 0, 100, t) for k, t in zip(keys, kinds, strict=False)],
        "spans": [
            random.randint(keys[6], (129,), -5, high) for high in (-4, 3, 1 << 20, 2**31 - 1)
        ],
        "bools": [random.bernoulli(keys[7], p, (513,)) for p in (0.0, 0.3, 0.5, 1.0)],
        "rademacher": random.rademacher(keys[8], (77,)),
    }


def keys(key):
    left, right = random.split(key)
    chain = [left]
    for _ in range(6):
        key, sub = random.split(key)
        chain.append(sub)
    return {
        "left": left,
        "folded": random.fold_in(random.fold_in(right, 3), 2**31),
        "chain": chain,
        "many": random.split(right, (3, 5)),
        "words": random.key_data(random.split(left, 4)),
        "drawn": [random.bits(one, (3,)) for one in chain],
    }


def stacked(key):
    parts = random.split(key, (4, 3))
    normal = jax.vmap(lambda k: random.normal(k, (5, 7)))
    return {
        "nested": jax.vmap(normal)(parts),
        "bits": jax.vmap(lambda k: random.bits(k, (9,), jnp.uint16))(random.split(key, 700)),
        "integers": jax.vmap(lambda k: random.randint(k, (3,), 0, 7))(parts[0]),
    }


def normals(key):
    keys = random.split(key, 4)
    return {
        "shapes": [random.normal(keys[0], shape) for shape in (*SHAPES, *ODD)],
        "scaled": 0.02 * random.normal(keys[1], (777,)),
        "truncated": random.truncated_normal(keys[2], -2.0, 2.0, (3, 111)),
        "half": random.truncated_normal(keys[3], 0.0, jnp.inf, (77,)),
    }


def narrow(key):
    keys = random.split(key, 4)
    return {
        "bf16": random.normal(keys[0], (31, 7), jnp.bfloat16),
        "f16": random.normal(keys[1], (1025,), jnp.float16),
        "truncated": random.truncated_normal(keys[2], -1.0, 1.0, (99,), jnp.bfloat16),
        "initialiser": initializers.he_normal(dtype=jnp.bfloat16)(keys[3], (16, 32)),
    }


def initialisers(key):
    made = {
        "he_normal": initializers.he_normal(),
        "he_uniform": initializers.he_uniform(),
        "lecun_normal": initializers.lecun_normal(),
        "glorot_uniform": initializers.glorot_uniform(),
        "glorot_normal": initializers.glorot_normal(),
        "normal": initializers.normal(0.02),
        "truncated": initializers.truncated_normal(0.5),
        "uniform": initializers.uniform(0.1),
        "scaling": initializers.variance_scaling(0.7, "fan_avg", "truncated_normal"),
        "zeros": initializers.zeros,
        "ones": initializers.ones,
    }
    first, *subs = random.split(key, 1 + len(made))
    return {"convolution": made["he_normal"](first, (3, 3, 8, 4))} | {
        name: init(sub, (64, 33)) for (name, init), sub in zip(made.items(), subs, strict=True)
    }


def residual(key):
    keys = random.split(key, 3)
    return {
        "affine": 0.1 + 0.02 * random.normal(keys[0], (128,)),
        "tanh": jnp.tanh(random.normal(keys[1], (65, 3))),
        "exponential": random.exponential(keys[2], (99,)),
    }


def samplers(key):
    keys = random.split(key, 3)
    return {
        "exponential": random.exponential(keys[0], (99,)),
        "gumbel": 0.3 * random.gumbel(keys[1], (65, 33)),
        "laplace": random.laplace(keys[2], (257,)),
    }


def wide(key):
    keys = random.split(key, 6)
    return {
        "bits": random.bits(keys[0], (131,), jnp.uint64),
        "uniform": random.uniform(keys[1], (9, 13), jnp.float64, minval=-0.1, maxval=0.7),
        "unit": random.uniform(keys[2], (1001,), jnp.float64),
        "integers": random.randint(keys[3], (99,), -(2**40), 2**50, jnp.int64),
        "int32": random.randint(keys[4], (99,), 0, 10, jnp.int32),
        "bool": random.bernoulli(keys[5], jnp.float64(0.3), (77,)),
    }


def wide_normals(key):
    keys = random.split(key, 2)
    return {
        "normal": random.normal(keys[0], (257,), jnp.float64),
        "truncated": random.truncated_normal(keys[1], -2.0, 2.0, (9, 9), jnp.float64),
    }


# What must have the same bits, and what may differ by 2 ulp.
EXACT = {one.__name__: one for one in (bits, uniforms, integers, keys, narrow, samplers, wide)}
NEAR = {one.__name__: one for one in (normals, stacked, initialisers, residual, wide_normals)}
X64 = ("wide", "wide_normals")
