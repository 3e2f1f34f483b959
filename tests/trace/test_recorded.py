"""Recorded functions: the part of them that matters, and ensembles made from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle, programs
from seedbed import _trace
from seedbed._ensemble import within

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

normal, uniform = jax.random.normal, jax.random.uniform
KEY = jax.eval_shape(lambda: jax.random.key(0))


def jaxpr(f, *args):
    return jax.make_jaxpr(f)(*args)


def sorting():
    return lambda key: jnp.sort(normal(key, (7,)))


# --- the part that matters ----------------------------------------------------------------


def test_unused_arguments_are_left_out(key):
    def init(key, used, unused):
        del unused
        return jnp.sort(normal(key, (6,)) + used)

    def plain(key, used):
        return jnp.sort(normal(key, (6,)) + used)

    want = sb.ensemble(plain, 3)(key, 1.5)
    before = programs()
    for axes, unused in (
        (None, np.ones(4)),
        ((None, 0), np.ones((3, 2))),
        ((None, 1), jnp.ones((5, 3))),
    ):
        assert_same_bits(sb.ensemble(init, 3, in_axes=axes)(key, 1.5, unused), want)
        make = sb.ensemble(lambda key, x, y: init(key, y, x), 3, in_axes=axes and axes[::-1])
        assert_same_bits(make(key, unused, 1.5), want)
    assert programs() == before


def test_unused_arguments_are_still_checked(key):
    make = sb.ensemble(lambda key, unused: normal(key, (6,)), 3, in_axes=0)
    with pytest.raises(ValueError, match="length 4"):
        make(key, np.ones(4))


def test_what_has_effects_is_kept(key):
    heard = []

    def init(key, x):
        jax.debug.callback(lambda x: heard.append(float(x)), x)
        return normal(key, (6,))

    make = sb.ensemble(init, 2, in_axes=0)
    assert_same_bits(make(key, np.array([1.0, 2.0])), oracle(lambda key: normal(key, (6,)), 2, key))
    jax.effects_barrier()
    assert sorted(heard) == [1.0, 2.0]


def test_trimmed():
    large = jnp.arange(2000.0)

    def init(key, a, b, c):
        dead = jnp.sort(b * normal(key, (3,)))
        del dead
        return a + large[:3], c

    closed = jaxpr(init, jax.random.key(0), 1.0, 2.0, 3.0)
    trimmed, captures, read = _trace.trim(closed)
    assert read == (0, 2) and [array.shape for array in captures] == [(2000,)]
    assert not any("sort" in str(eqn.primitive) for eqn in trimmed.eqns)
    got = trimmed.evaluate(jax.random.key(0), *captures, 1.0, 3.0)
    assert_same_bits(got[0], 1.0 + large[:3])
    assert got[1] == 3.0
    again, _, _ = _trace.trim(jaxpr(init, jax.random.key(0), 1.0, 2.0, 3.0))
    assert trimmed == again and hash(trimmed) == hash(again) and trimmed != closed


# --- ensembles of recorded functions ------------------------------------------------------


def recorded(init, *args):
    types = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), args)
    return _trace.record(init, KEY, types)


def test_a_recorded_function_runs_without_another_trace(key):
    traces = []

    def init(key, scale, shift):
        traces.append(1)
        return {"x": jnp.sort(scale * normal(key, (6,))), "y": [uniform(key, (3,)) + shift["a"]]}

    scales = np.linspace(0.5, 2.0, 4, dtype=np.float32)
    shift = {"a": np.float32(0.5)}
    want = oracle(init, 4, key, scales, shift, in_axes=(0, None))
    traces.clear()
    made = recorded(init, scales[0], shift)
    make = within.for_modules(made, 4, (0, None))
    leaves = scales, shift["a"]
    assert_same_bits(make(key, *leaves), want)
    assert_same_bits(make(jax.random.split(key, 4), *leaves), want)
    assert_same_bits(make.member(key, 2, *leaves), jax.tree.map(lambda x: x[2], want))
    assert_same_bits(
        make.members(key, [3, 1], *leaves), jax.tree.map(lambda x: x[np.array([3, 1])], want)
    )
    parts = list(make.stream(key, *leaves, chunk_size=3))
    assert_same_bits(jax.tree.map(lambda *x: jnp.concatenate(x), *parts), want)
    assert_same_bits(jax.jit(make)(key, *leaves), want)
    assert [output.path for output in make.plan(key, *leaves).outputs] == ["['x']", "['y'][0]"]
    assert_same_bits(oracle(made, 4, key, *leaves, in_axes=(0, None)), want)
    assert traces == [1]


def test_a_recorded_function_without_arguments(key):
    make = within.for_modules(recorded(sorting()), 3, ())
    assert_same_bits(make(key), oracle(sorting(), 3, key))


def test_two_recordings_share_a_program(key):
    within.for_modules(recorded(sorting()), 3, ())(key)
    before = programs()
    within.for_modules(recorded(sorting()), 3, ())(key)
    assert programs() == before


def test_a_recorded_function_refuses_other_types(key):
    made = recorded(lambda key, x: x + normal(key), np.float32(1.0))
    make = within.for_modules(made, 3, (None,))
    with pytest.raises(TypeError, match="was traced for arguments of types"):
        make(key, np.ones(2, np.float32))
    with pytest.raises(TypeError, match="was traced for arguments of types"):
        make(jax.random.key_data(key), 1.0)
