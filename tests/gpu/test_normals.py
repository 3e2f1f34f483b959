"""Normals of nearly all 2^23 inputs that there are: 2^27 drawn ones beside XLA's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import cuda_host
import plan_reference as ref
import seedbed as sb
from gpu import device
from plan_reference import Draw
from plans import NORMAL

CHUNK, CHUNKS = 1 << 24, 8
MANTISSAS = 1 << 23
ORACLES = {
    "normal": lambda key: jax.random.normal(key, (CHUNK,)),
    "truncated": lambda key: jax.random.truncated_normal(key, -2.0, 2.0, (CHUNK,)),
}


def custom_call(kind: int, params=()):
    """A draw of the key itself, without the planner, which might leave it to XLA."""
    call = device.call([Draw(kind, 32, 4, CHUNK, params=params)], 1, ref.MEMBER_KEYS)
    return jax.jit(lambda key: call(jax.random.key_data(key)[None], device.NONE)[0].ravel())


def planned(init):
    make = sb.ensemble(init, 1)
    return lambda key: make(key[None])[0]


def bits():
    return custom_call(ref.BITS)


def draws_of(name):
    """The normals as floats, by the kernel; the truncated ones, whose bounds jax computes, by way
    of the planner."""
    if name != "normal":
        return planned(ORACLES[name])
    words = custom_call(ref.NORMAL, NORMAL)
    return lambda key: lax.bitcast_convert_type(words(key), jnp.float32)


def _ordered(values):
    """Floats as integers, 1 apart where they are neighbours."""
    bits = lax.bitcast_convert_type(values, jnp.int32)
    return jnp.where(bits < 0, jnp.int32(-(2**31)) - bits, bits)


@jax.jit
def apart(one, two):
    """How many differ, by how many ulp at most, and how many by more than 2."""
    far = jnp.abs(_ordered(one) - _ordered(two))
    return (far > 0).sum(), far.max(), (far > 2).sum()


@jax.jit
def note(seen, words):
    return seen.at[words >> 9].set(True)


@pytest.mark.parametrize("name", ORACLES)
def test_drawn_normals_are_those_of_xla(name, record_property, capsys):
    differing, worst, beyond = 0, 0, 0
    seen = jnp.zeros(MANTISSAS, bool)
    oracle, draw, words_of = jax.jit(ORACLES[name]), draws_of(name), bits()
    for seed in range(CHUNKS):
        key = jax.random.key(seed)
        count, most, over = (int(x) for x in apart(draw(key), oracle(key)))
        differing, worst, beyond = differing + count, max(worst, most), beyond + over
        seen = note(seen, words_of(key))
    inputs = int(seen.sum())
    found = (
        f"{name}: {differing:,} of {CHUNK * CHUNKS:,} drawn numbers differ from XLA's, by at most "
        f"{worst} ulp; {inputs:,} of {MANTISSAS:,} inputs occurred"
    )
    record_property("differences", found)
    with capsys.disabled():
        print(f"\n{found}")
    assert inputs > MANTISSAS - 100, found
    assert beyond == 0, found


def test_drawn_normals_are_those_of_the_host(record_property, capsys):
    """The same text for the host: only the square root of the tail is another there."""
    words = np.arange(MANTISSAS, dtype=np.uint32) << np.uint32(9)
    table = jnp.array(cuda_host.transform(NORMAL, words))
    differing, worst, beyond = 0, 0, 0
    draw, words_of = draws_of("normal"), bits()
    for seed in range(CHUNKS):
        key = jax.random.key(seed)
        count, most, over = (int(x) for x in apart(draw(key), table[words_of(key) >> 9]))
        differing, worst, beyond = differing + count, max(worst, most), beyond + over
    found = (
        f"normal: {differing:,} of {CHUNK * CHUNKS:,} drawn numbers differ from the host's, by at "
        f"most {worst} ulp"
    )
    record_property("differences", found)
    with capsys.disabled():
        print(f"\n{found}")
    assert beyond == 0, found
    assert differing < CHUNK * CHUNKS / 100, found  # the tail is 3 in 1,000
