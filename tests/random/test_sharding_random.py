"""`seedbed.random`, `seedbed.prng` and `accelerate` with keys on the devices of a mesh."""

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits
from meshes import KEY, KINDS, assert_as_jax, mesh_of, on_one, put, stacked, whole

pytestmark = pytest.mark.shared

FUNCTIONS = {
    "normal": lambda r, key: r.normal(key, (600,)),
    "few": lambda r, key: r.normal(key, (9,)),
    "bits": lambda r, key: r.bits(key, (9,)),
    "split": lambda r, key: r.split(key, 3),
    "fold_in": lambda r, key: r.fold_in(key, 3),
    "randint": lambda r, key: r.randint(key, (9,), 0, 5),
    "gumbel": lambda r, key: r.gumbel(key, (9,)),
    "permutation": lambda r, key: r.permutation(key, 9),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_jax_random(name):
    function, mesh = FUNCTIONS[name], mesh_of()
    keys, key = stacked(mesh), put(KEY, mesh)

    def over(random):
        return jax.jit(jax.vmap(lambda key: function(random, key)))

    alone, want = over(jax.random)(*on_one((keys,))), over(jax.random)(keys)
    assert_as_jax(over(sb.random)(keys), want, alone)
    want = function(jax.random, key)
    assert_as_jax(function(sb.random, key), want, function(jax.random, KEY))
    # Keys that carry our implementation: their numbers are threefry's.
    carried = jax.random.wrap_key_data(jax.random.key_data(keys), impl=sb.prng.impl)
    got = over(jax.random)(carried)
    assert_same_bits(whole(got), whole(alone), ulps=1, weak=False)
    assert jax.typeof(got).sharding.spec[0] == "x"


@pytest.mark.parametrize("kind", KINDS)
def test_ways_to_a_function_of_jax_random(kind, entered):
    mesh = mesh_of(kind)
    keys, key = stacked(mesh), put(KEY, mesh)

    def draws(random):
        return lambda key: random.normal(key, (600,))

    alone = jax.jit(jax.vmap(draws(jax.random)))(*on_one((keys,)))
    apart = jax.random.normal(KEY, (600,))
    with entered(mesh):
        want, ours = jax.jit(jax.vmap(draws(jax.random)))(keys), draws(sb.random)
        for way in (jax.jit(jax.vmap(ours)), jax.vmap(ours), jax.vmap(jax.jit(ours))):
            assert_as_jax(way(keys), want, alone, kind == "Explicit")
        want = draws(jax.random)(key)
        for way in (ours, jax.jit(ours)):
            assert_as_jax(way(key), want, apart, kind == "Explicit")


def test_arguments_of_samplers_on_a_mesh(entered):
    mesh = mesh_of()
    key, low = put(KEY, mesh), put(jnp.arange(8.0), mesh, "x")
    with entered(mesh):
        for call in (
            lambda r: r.uniform(key, (8,), minval=low, maxval=9.0),
            lambda r: jax.jit(lambda low: r.uniform(key, (8,), minval=low, maxval=9.0))(low),
            lambda r: r.randint(key, (8,), low.astype(int), 9),
        ):
            want = call(jax.random)
            assert_as_jax(call(sb.random), want, want)


@pytest.mark.parametrize("devices", [1, 4])
def test_accelerated_programs_on_a_mesh(devices, entered):
    mesh = mesh_of(shape=(devices,))
    keys = stacked(mesh)
    functions = {name: FUNCTIONS[name] for name in ("normal", "bits", "split", "fold_in")}

    def program(key):
        return {name: function(jax.random, key) for name, function in functions.items()}

    alone = jax.jit(jax.vmap(program))(*on_one((keys,)))
    with entered(mesh):
        want = jax.jit(jax.vmap(lambda key: program(key)))(keys)
        with sb.accelerate():
            got = jax.jit(jax.vmap(lambda key: program(key)))(keys)
            single = jax.jit(lambda key: program(key))(put(KEY, mesh))
        assert_as_jax(got, want, alone)
        assert_same_bits(whole(single), whole(program(KEY)), weak=False)
