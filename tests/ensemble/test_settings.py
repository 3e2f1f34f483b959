"""What seedbed asks XLA on its own account is answered the same whatever the user set.

Tables of narrow draws, questions of rounding, member numbers, seeds: each is asked for the first
time here, as only the first one reaches XLA.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import seedbed as sb
from first_draws import AUTO, SETTINGS
from helpers import assert_same_bits, native_problem, run_python

pytestmark = pytest.mark.shared


def new_init(*place):
    """An init function with constants of its own, about which nothing is known yet."""
    high = 1.0 + sum(1 / (1000 * number + 7) for number in place)

    def init(key):
        keys = jax.random.split(key, 4)
        zero = jax.random.uniform(keys[0], (2,), "bfloat16", 0.0, high)
        return {
            # 0 of 256 words gives a NaN, which is in the table and in no draw here.
            "finite": 0 * jnp.log(zero),
            "float16": jax.random.uniform(keys[1], (7,), "float16", -1.0, high),
            "bfloat16": high * jax.random.normal(keys[2], (7,), "bfloat16"),
            "truncated": jax.random.truncated_normal(keys[3], -1.0, high, (7,)),
        }

    return init


def expected(init, keys):
    want = jax.vmap(init)(keys)
    assert np.isfinite(np.asarray(want["finite"], np.float32)).all()
    return {"expected": jax.jit(jax.vmap(init))(keys), "either": want}


@pytest.mark.parametrize("name", SETTINGS)
def test_first_questions_under_a_setting(name):
    init, key = new_init(list(SETTINGS).index(name)), jax.random.key(3)
    keys = jax.random.split(key, 3)
    make = sb.ensemble(init, 3)
    with SETTINGS[name]():
        got = make(key)
        jax.block_until_ready(got)
        if name == "disable_jit" and native_problem():
            # Then the reference is jax's operations one by one, with roundings of their own.
            assert_same_bits(got, jax.vmap(init)(keys))
            return
    assert_same_bits(got, **expected(init, keys))


def traces():
    mesh = jax.make_mesh((4,), ("d",), axis_types=AUTO)
    keys = jax.random.split(jax.random.key(3), 4)

    def slope(make):
        def loss(scale):
            made = make(keys)
            return sum((scale * leaf.astype("float32")).sum() for leaf in made.values()), made

        return jax.grad(loss, has_aux=True)(1.0)[1]

    spread = {"mesh": mesh, "in_specs": P("d"), "out_specs": P("d")}
    return {
        "jit": lambda make: jax.jit(make)(keys),
        "vmap": lambda make: jax.tree.map(lambda x: x[0], jax.vmap(make)(keys[None])),
        "grad": slope,
        "scan": lambda make: jax.tree.map(
            lambda x: x[0], jax.lax.scan(lambda c, k: (c, make(k)), 0, keys[None])[1]
        ),
        "shard_map": lambda make: jax.jit(jax.shard_map(make, **spread))(keys),
    }


@pytest.mark.parametrize("name", ["jit", "vmap", "grad", "scan", "shard_map"])
def test_first_questions_inside_of_a_trace(name):
    init = new_init(5, ord(name[0]), len(name))
    keys = jax.random.split(jax.random.key(3), 4)
    got = traces()[name](sb.ensemble(init, 1 if name == "shard_map" else 4))
    assert_same_bits(got, **expected(init, keys), weak=False)


@pytest.mark.parametrize(
    "names",
    [
        "transfer_guard,debug_nans,debug_infs,checking_leaks,promotion,log_compiles",
        "a device,enable_checks,explain_cache_misses,precision",
    ],
)
def test_first_draws_of_a_process(names):
    assert (
        int(
            run_python(f"""
        import sys
        sys.path[:0] = ["tests", "tests/support"]
        import conftest  # its settings come before jax is imported
        import first_draws
        print(first_draws.compare("{names}".split(",")))
        """)
        )
        > 20
    )
