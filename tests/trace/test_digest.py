"""Digests of traced programs: alike in every process, and different where the numbers could be."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import ROOT
from seedbed import _trace
from seedbed._trace import digest

TYPE = jax.eval_shape(lambda: jax.random.key(0))

PROGRAM = """
    import jax, jax.numpy as jnp, numpy as np
    from seedbed import _trace
    from seedbed._trace import digest

    words = {"alpha", "beta", "gamma", "delta"}
    table = {word: np.arange(3) for word in sorted(words)}

    def called(x):
        return x + len(words) + table["beta"][0]

    def init(key):
        a, b = jax.random.split(key)
        w = jax.nn.initializers.orthogonal()(a, (4, 4)) @ jnp.asarray(np.eye(4))
        x = jax.lax.scan(lambda c, k: (c + 1, jax.random.normal(k)), 0, jax.random.split(b))
        y = jax.pure_callback(called, jax.ShapeDtypeStruct((), "float32"), 1.0)
        z = jax.lax.cond(y > 0, jax.nn.relu, lambda v: v * 2, w)
        return w, x, y, z, jax.random.truncated_normal(a, -2, 2, (3,))

    key = jax.eval_shape(lambda: jax.random.key(0))
    print(digest.digest(_trace.record(init, key, ()).closed))
"""


def of(function, *args):
    types = jax.tree.map(jax.typeof, args)
    return digest.digest(_trace.record(function, TYPE, types).closed)


def test_alike_in_every_process():
    found = set()
    for seed in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        code = [sys.executable, "-c", textwrap.dedent(PROGRAM)]
        done = subprocess.run(code, capture_output=True, text=True, env=env, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1 and len(found.pop().strip()) == 64


def test_alike_when_traced_again():
    def init(key):
        return jax.random.normal(key, (3,)) * scale

    scale = jnp.arange(3.0)
    first = of(init)
    scale = jnp.asarray(np.arange(3.0, dtype=np.float32))
    assert of(init) == first == of(lambda key: jax.random.normal(key, (3,)) * scale)


def _calls(by):
    def called(x):
        return x + by

    return lambda key: jax.pure_callback(called, jax.ShapeDtypeStruct((), jnp.float32), 1.0)


BIG = np.zeros(1000, np.float32)
OTHER = np.zeros(1000, np.float32)
OTHER[500] = -0.0

DIFFERENT = {
    "shape": (lambda k: jax.random.normal(k, (3,)), lambda k: jax.random.normal(k, (4,))),
    "primitive": (lambda k: jnp.sin(jax.random.normal(k)), lambda k: jnp.cos(jax.random.normal(k))),
    "literal": (lambda k: jax.random.normal(k) * 2.0, lambda k: jax.random.normal(k) * 3.0),
    "sign of zero": (lambda k: jax.random.normal(k) + 0.0, lambda k: jax.random.normal(k) + -0.0),
    "constant": (
        lambda k: jax.random.normal(k, (1000,)) + jnp.asarray(BIG),
        lambda k: jax.random.normal(k, (1000,)) + jnp.asarray(OTHER),
    ),
    "wiring": (
        lambda k: jnp.subtract(*jax.random.normal(k, (2,))),
        lambda k: jnp.subtract(*jax.random.normal(k, (2,))[::-1]),
    ),
    "order of results": (
        lambda k: (jnp.sin(jax.random.normal(k)), jax.random.normal(k)),
        lambda k: (jax.random.normal(k), jnp.sin(jax.random.normal(k))),
    ),
    "inside of a loop": (
        lambda k: jax.lax.fori_loop(0, 3, lambda i, x: x + 1.0, jax.random.normal(k)),
        lambda k: jax.lax.fori_loop(0, 3, lambda i, x: x + 2.0, jax.random.normal(k)),
    ),
    "weak type": (lambda k: jnp.full((), 2.0) + 0 * jax.random.normal(k), lambda k: jnp.float32(2)),
    "called back": (_calls(1), _calls(2)),
    "key within": (
        lambda k: jax.random.normal(jax.random.key(1)),
        lambda k: jax.random.normal(jax.random.key(2)),
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_different(what):
    one, other = DIFFERENT[what]
    assert of(one) == of(one)
    assert of(one) != of(other)


def test_arrays_differ_by_all_that_they_are():
    arrays = [
        np.zeros(2, np.float32), np.zeros((2, 1), np.float32), np.zeros(2, np.int32),
        np.array([0.0, -0.0], np.float32), jnp.zeros(2, jnp.bfloat16), jax.random.key(0),
        jax.random.key(1), jax.random.key_data(jax.random.key(0)), 0, 0.0, False,
    ]  # fmt: skip
    found = {digest.of_arrays([array]) for array in arrays}
    assert len(found) == len(arrays)
    assert digest.of_arrays([np.zeros(2)]) == digest.of_arrays([np.zeros(4)[::2]])
