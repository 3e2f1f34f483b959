"""Execution: one compiled program for a plan and a size, with one custom call in it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle, plan_of
from seedbed._plan import KeyMode
from seedbed._run import execute
from seedbed._run import native as _native

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

normal, uniform = jax.random.normal, jax.random.uniform


def init(key):
    w, b = jax.random.split(key)
    return {"w": normal(w, (7, 2)), "b": uniform(b, (6,)) ** 2, "k": b}


def words(key):
    return jax.random.key_data(key)


def program(plan, size, mode, single=False):
    return execute.program(plan, size, (mode,), (), single)


def test_equal_plans_share_a_program():
    first = program(plan_of(lambda key: normal(key, (6,))), 3, 1)
    again = program(plan_of(lambda key: normal(key, (6,))), 3, 1)
    other = program(plan_of(lambda key: normal(key, (6,))), 4, 1)
    assert first is again and first is not other


def test_one_custom_call(native, key):
    text = jax.jit(sb.ensemble(init, 5)).lower(key).as_text()
    assert text.count("stablehlo.custom_call") == 1 and _native.TARGET in text


def test_no_custom_call_without_draws(key):
    text = jax.jit(sb.ensemble(lambda key: jnp.ones(3), 5)).lower(key).as_text()
    assert _native.TARGET not in text


def test_a_batch_is_still_one_call(native, key):
    keys = jax.random.split(key, 4)
    text = jax.jit(jax.vmap(sb.ensemble(init, 5))).lower(keys).as_text()
    assert text.count("stablehlo.custom_call") == 1


@pytest.mark.parametrize("legacy", [False, True])
def test_where_the_member_keys_come_from(native, key, legacy):
    plan = plan_of(init)
    want = jax.tree.leaves(oracle(init, 5, key))
    view = words if legacy else (lambda keys: keys)
    nobody = np.zeros(2, np.uint32)
    every = program(plan, 5, KeyMode.RANGE)
    assert_same_bits(every(((), nobody), None, view(key)), want)
    stack = program(plan, 5, KeyMode.MEMBER_KEYS)
    assert_same_bits(stack(((), nobody), None, view(jax.random.split(key, 5))), want)
    rows = program(plan, 2, KeyMode.INDICES)
    chosen = np.array([[0, 4], [0, 1]], np.uint32)
    picked = [leaf[np.array([4, 1])] for leaf in want]
    assert_same_bits(rows(((), chosen), None, view(key)), picked)
    one = program(plan, 1, KeyMode.RANGE, single=True)
    third = [leaf[3] for leaf in want]
    assert_same_bits(one(((), np.array([0, 3], np.uint32)), None, view(key)), third)


@pytest.mark.parametrize("index", [2**32 - 1, 2**32, 2**32 + 5, 2**45])
def test_members_beyond_32_bits(key, index):
    # Row 9: member i has the key fold(root, i), whatever the size of i.
    size = 2**46
    make = sb.ensemble(lambda key: key, size)
    got = make.members(key, [index, index + 1])
    high, low = index >> 32, index & 0xFFFFFFFF
    from jax.extend.random import threefry_2x32

    counters = jnp.array([high, (index + 1) >> 32, low, (index + 1) & 0xFFFFFFFF], jnp.uint32)
    pair = threefry_2x32(words(key), counters)
    assert_same_bits(words(got), jnp.stack([pair[:2], pair[2:]], axis=-1))
    assert_same_bits(words(make.member(key, index)), jnp.stack([pair[0], pair[2]]))
    assert low == index % 2**32


def test_results_may_be_kept_while_others_are_made(key):
    make = sb.ensemble(init, 5)
    results = [make(jax.random.key(seed)) for seed in range(5)]
    for seed, result in enumerate(results):
        assert_same_bits(result, oracle_once(seed))


_JITTED = jax.jit(lambda key: jax.vmap(init)(jax.random.split(key, 5)))


def oracle_once(seed):
    return _JITTED(jax.random.key(seed))


def test_empty_results(key):
    # Row 11.
    def init(key):
        return {"none": normal(key, (0, 4)), "some": jax.random.bits(key, (3,)), "k": key}

    assert_same_bits(sb.ensemble(init, 5)(key), oracle(init, 5, key))
    only = sb.ensemble(lambda key: normal(key, (4, 0)), 5)
    assert only(key).shape == (5, 4, 0)
    stack = sb.ensemble(lambda key: jax.vmap(normal)(jax.random.split(key, 0)), 5)
    assert stack(key).shape == (5, 0)


CONSTANTS = {
    "zeros": np.zeros((33,), np.float32),
    "zeros again": np.zeros((33,), np.float32),
    "minus zero": np.full((3, 5), -0.0, np.float32),
    "nan": np.full((7,), np.nan, np.float32),
    "brain": np.full((65,), 1.5, jnp.bfloat16),
    "half": np.full((2, 9), -0.3, np.float16),
    "byte": np.full((129,), -5, np.int8),
    "truth": np.ones((4, 4), bool),
    "word": np.full((70, 70), 0x01020304, np.uint32),
    "scalar": np.float32(3.25),
}


def with_constants(key):
    filled = {name: jnp.full(c.shape, c[(0,) * c.ndim]) for name, c in CONSTANTS.items()}
    left = {"none": jnp.zeros((0, 4)), "float8": jnp.ones((4,), jnp.float8_e4m3fn), "weak": 2.0}
    return filled | left | {"w": normal(key, (4, 7)), "line": jnp.arange(4.0)}


def test_constants_come_out_of_the_custom_call(native, key):
    make = sb.ensemble(with_constants, 300)
    fills = [make.plan(key).outputs[position].path for position in make.plan(key).fills]
    assert {path[2:-2] for path in fills} == {*CONSTANTS, "weak"}
    text = jax.jit(make).lower(key).as_text()
    (results,) = re.findall(r":(\d+) = stablehlo.custom_call @seedbed_fill_v1", text)
    assert int(results) == 1 + len(fills)


def test_constants_are_those_of_jax(key):
    make = sb.ensemble(with_constants, 300)
    expected = oracle(with_constants, 300, key)
    assert_same_bits(make(key), expected)
    assert [leaf.weak_type for leaf in jax.tree.leaves(make(key))] == [
        leaf.weak_type for leaf in jax.tree.leaves(expected)
    ]
    chosen = np.array([5, 299, 5])
    assert_same_bits(make.members(key, chosen), jax.tree.map(lambda leaf: leaf[chosen], expected))
    assert_same_bits(make.member(key, 7), jax.tree.map(lambda leaf: leaf[7], expected))
    keys = jax.random.split(key, 3)
    batched = jax.vmap(sb.ensemble(with_constants, 5))(keys)
    one_by_one = [oracle(with_constants, 5, one) for one in keys]
    assert_same_bits(batched, jax.tree.map(lambda *leaves: jnp.stack(leaves), *one_by_one))


def test_constants_of_several_keys(key):
    def init(keys):
        return normal(keys["b"], (3,)), jnp.ones((5,)), normal(keys["a"], (2,)), jnp.zeros((5,))

    keys = {"a": key, "b": jax.random.key(4)}
    split = jax.tree.map(lambda one: jax.random.split(one, 6), keys)
    assert_same_bits(sb.ensemble(init, 6)(keys), jax.jit(jax.vmap(init))(split))


def test_constants_alone_are_left_to_jax(key):
    make = sb.ensemble(lambda key: jnp.zeros((4, 2)), 6)
    assert not make.plan(key).fills
    assert_same_bits(make(key), jnp.zeros((6, 4, 2)))


def test_ahead_of_time_compilation(key):
    compiled = jax.jit(sb.ensemble(init, 5)).lower(key).compile()
    assert_same_bits(compiled(key), oracle(init, 5, key))


def test_narrow_types_that_only_jax_has(key):
    # Row 16.
    def init(key):
        return normal(key, (6,), jnp.float8_e4m3fn), normal(key, (6,)).astype(jnp.float8_e5m2)

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key))


def test_a_malformed_plan_is_an_error_of_the_call(native, key):
    # Row 41: the extension checks what it is given again, and says what is wrong.
    (draw,) = plan_of(lambda key: normal(key, (6,))).draws
    longer = jax.ShapeDtypeStruct((3, 7), jnp.float32)
    call = jax.ffi.ffi_call(_native.TARGET, [longer], vmap_method="broadcast_all")
    encoded = _native.encode((draw,))

    def run(plan, **changes):
        options = {"mode": np.int64(1), "size": np.int64(3), "plan": plan, **changes}
        return jax.jit(lambda key: call(key, np.zeros(2, np.uint32), key, **options))(words(key))

    for plan, changes in (
        (encoded, {}),  # a result of another size
        (encoded[:-1], {}),
        (encoded, {"size": np.int64(-1)}),
        (encoded, {"mode": np.int64(9)}),
    ):
        with pytest.raises(jax.errors.JaxRuntimeError, match="INVALID_ARGUMENT"):
            jax.block_until_ready(run(plan, **changes))
