"""Inits that take several keys: each is split by itself, and all draws stay native."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits, key_paths, native_problem, take

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

SIZE = 5


def init(keys):
    w, b = jax.random.split(keys["params"])
    noise = jax.random.uniform(jax.random.fold_in(keys["noise"], 3), (9,))
    return {
        "w": 0.5 * jax.random.normal(w, (7, 2)),
        "b": jax.random.normal(b, (9,)) + noise,
        "noise": noise,
        "next": jax.random.split(keys["noise"])[1],
        "step": jnp.zeros((2,)),
    }


@pytest.fixture
def keys():
    return {"params": jax.random.key(1), "noise": jax.random.key(2)}


@pytest.fixture(scope="module")
def expected():
    keys = {"params": jax.random.key(1), "noise": jax.random.key(2)}
    return jax.jit(jax.vmap(init))(jax.tree.map(lambda key: jax.random.split(key, SIZE), keys))


def test_every_key_is_split_by_itself(keys, expected):
    make = sb.ensemble(init, SIZE)
    assert_same_bits(make(keys), expected)
    # Twice: from the compiled program.
    assert_same_bits(make(keys), expected)


def test_keys_that_are_used_as_they_are(keys, expected):
    make = sb.ensemble(init, SIZE)
    stacked = {**keys, "noise": jax.random.split(keys["noise"], SIZE)}
    assert_same_bits(make(stacked), expected)
    assert_same_bits(make.member(stacked, 3), jax.tree.map(lambda x: x[3], expected))


def test_members_and_chunks(keys, expected):
    make = sb.ensemble(init, SIZE)
    for i in (0, SIZE - 1, -2):
        assert_same_bits(make.member(keys, i), take(expected, i))
    some = make.members(keys, [4, 1])
    assert_same_bits(some, jax.tree.map(lambda x: x[jnp.array([4, 1])], expected))
    parts = list(make.stream(keys, chunk_size=3))
    joined = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
    assert_same_bits(joined, expected)


def test_under_jit_and_vmap(keys, expected):
    make = sb.ensemble(init, SIZE)
    assert_same_bits(jax.jit(make)(keys), expected)
    many = jax.tree.map(lambda key: jnp.stack([key, jax.random.key(9)]), keys)
    got = jax.vmap(make)(many)
    assert_same_bits(jax.tree.map(lambda x: x[0], got), expected)


def test_legacy_keys_and_tuples(expected):
    def pair(keys):
        return init({"params": keys[0], "noise": keys[1]})

    made = sb.ensemble(pair, SIZE)((jax.random.PRNGKey(1), jax.random.PRNGKey(2)))
    made.pop("next")
    assert_same_bits(made, {name: leaf for name, leaf in expected.items() if name != "next"})


def test_the_plan_names_the_keys(native, keys):
    plan = sb.ensemble(init, SIZE).plan(keys)
    assert key_paths(plan) == {
        "['w']": "key1/0",
        "['noise']": "key/3",
        "['next']": "key/1",
    }
    text = plan.explain()
    assert "key['params']/0" in text and "key['noise']/3" in text
    assert "2 custom calls, one for each key" in text


def test_one_custom_call_for_each_key(native, keys):
    text = jax.jit(sb.ensemble(init, SIZE)).lower(keys).as_text()
    assert text.count("stablehlo.custom_call") == 2


def test_a_key_of_another_type_sends_all_to_the_reference(keys):
    keys["noise"] = jax.random.key(2, impl="rbg")
    make = sb.ensemble(init, SIZE)
    split = jax.tree.map(lambda key: jax.random.split(key, SIZE), keys)
    assert_same_bits(make(keys), jax.jit(jax.vmap(init))(split))
    reason = make.plan(keys).reference
    assert reason is not None
    assert "rbg" in reason or native_problem()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"params": 3}, r"`key\['params'\]` must be one key .*; got 3 of type int"),
        ({}, r"`key` must be one key .*; got \{\} of type dict"),
        ([0, 1], r"`key\[0\]` must be one key .*; got 0 of type int"),
        ({"a": jnp.zeros(2)}, r"`key\['a'\]` must be .* dtype float32 and shape \(2,\)"),
    ],
)
def test_what_is_no_key_is_named(given, message):
    with pytest.raises(TypeError, match=message):
        sb.ensemble(init, SIZE)(given)


def test_a_stack_of_the_wrong_length_is_named(keys):
    keys["noise"] = jax.random.split(keys["noise"], SIZE + 1)
    with pytest.raises(ValueError, match=r"`key\['noise'\]` must be .*; got keys of shape \(6,\)"):
        sb.ensemble(init, SIZE)(keys)
