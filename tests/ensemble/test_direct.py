"""Repeated calls go straight to the program of the last one, if they are like it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import Tagged, assert_same_bits, oracle
from seedbed._ensemble import ensemble

normal = jax.random.normal
SIZE = 3


def init(key, x=1.0):
    return {"w": normal(key, (4,)) * x, "r": jnp.cos(normal(key, (2,)))}


@pytest.fixture
def slow(monkeypatch):
    """Counts the calls that are not direct."""
    calls = []
    run = ensemble.Ensemble._run

    def counting(*args, **kwargs):
        calls.append(1)
        return run(*args, **kwargs)

    monkeypatch.setattr(ensemble.Ensemble, "_run", counting)
    return calls


def test_only_the_first_call_is_prepared(slow, key):
    make = sb.ensemble(init, SIZE)
    for seed in range(4):
        assert_same_bits(make(jax.random.key(seed)), oracle(init, SIZE, jax.random.key(seed)))
    assert len(slow) == 1


def test_words_of_numpy_are_direct_too(slow):
    make = sb.ensemble(init, SIZE)
    for seed in range(4):
        words = np.array([0, seed], np.uint32)
        assert_same_bits(make(words), oracle(init, SIZE, jax.random.key(seed)))
    assert len(slow) == 1


def test_arguments_and_captures(slow, key):
    captured = jnp.arange(4.0)

    def shifted(key, x):
        return init(key, x + captured)

    make, expected = sb.ensemble(shifted, SIZE, in_axes=(0,)), jax.jit(jax.vmap(shifted))
    for step in range(3):
        x = jnp.arange(3.0) + step
        assert_same_bits(make(key, x), expected(jax.random.split(key, SIZE), x))
    assert len(slow) == 1


def test_arguments_that_are_read_in_another_order(slow, key):
    def scaled(key, x, y):
        return {"a": jnp.sin(normal(key, (3,))) * y["y"], "b": x + 1.0, "c": y["x"]}

    make = sb.ensemble(scaled, SIZE)
    args = 2.0, {"x": 3.0, "y": 5.0}
    want = oracle(lambda key: scaled(key, *args), SIZE, key)
    for _ in range(3):
        assert_same_bits(make(key, *args), want)
    assert len(slow) == 1


@pytest.mark.parametrize("tags", [(1, True, 1.0), (0.0, -0.0)])
def test_each_ensemble_has_its_own_metadata(tags, key):
    makes = [sb.ensemble(lambda key, t=t: Tagged(normal(key, (3,)), t), SIZE) for t in tags]
    for _ in range(2):
        assert [repr(make(key).tag) for make in makes] == [repr(tag) for tag in tags]


def test_another_type_of_key_or_argument(slow, key):
    make = sb.ensemble(init, SIZE)
    want = oracle(init, SIZE, key)
    assert_same_bits(make(key), want)
    assert_same_bits(make(jax.random.key_data(key)), want)  # another type
    assert_same_bits(make(jax.random.split(key, SIZE)), want)  # another shape
    assert_same_bits(make(np.asarray(jax.random.key_data(key))), want)
    assert_same_bits(make(key, 2.0), oracle(lambda key: init(key, 2.0), SIZE, key))
    assert make(key, jnp.float16(2)).keys() == want.keys()
    assert len(slow) >= 5


def test_many_kinds_of_calls_in_turn(slow, key):
    make = sb.ensemble(init, SIZE)
    kinds = [(2.0,), (jnp.ones(4),), (np.int32(3),)]
    want = [oracle(lambda key, x=x: init(key, *x), SIZE, key) for x in kinds]
    for _ in range(5):
        for x, result in zip(kinds, want, strict=True):
            assert_same_bits(make(key, *x), result)
    # It stops trying, and each call finds its program by the types of its arguments.
    assert make._direct._last is None and len(slow) == 15


def test_settings_of_jax_and_of_seedbed(monkeypatch, slow, key):
    make = sb.ensemble(lambda key: jax.random.uniform(key, (4,)), SIZE)
    narrow = make(key)
    with jax.enable_x64(True):
        wide = make(key)
    assert (narrow.dtype, wide.dtype) == (np.float32, np.float64)
    assert make(key).dtype == np.float32
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    assert_same_bits(make(key), narrow)
    assert make.plan(key).reference == "SEEDBED_BACKEND=reference"
    monkeypatch.setenv("SEEDBED_BACKEND", "fastest")
    with pytest.raises(ValueError, match="SEEDBED_BACKEND is 'fastest'"):
        make(key)


def test_wrong_calls_after_a_right_one(key):
    make = sb.ensemble(init, SIZE)
    make(key, 1.0)
    with pytest.raises(TypeError, match="`key` must be one key"):
        make(5, 1.0)
    with pytest.raises(ValueError, match=r"`key` must be one key .* got keys of shape \(2,\)"):
        make(jax.random.split(key, 2), 1.0)
    with pytest.raises(TypeError, match=r"args\[0\] is 'x' of type str"):
        make(key, "x")
    with pytest.raises(TypeError, match="here with 2 argument"):
        make(key, 1.0, 2.0)
    deleted = jax.random.key(1)
    deleted.delete()
    with pytest.raises(RuntimeError, match="deleted"):
        make(deleted, 1.0)


def test_a_wide_key_is_not_cut_after_a_right_call():
    make = sb.ensemble(init, SIZE)
    make(np.array([0, 5], np.uint32))
    with pytest.raises(TypeError, match="dtype uint64"):
        make(np.array([0, 2**32 + 5], np.uint64))
    with pytest.raises(TypeError, match="got an array of dtype int32"):
        make(np.array([0, 5], np.int32))
    assert_same_bits(make(np.array([0, 5], np.uint32)), oracle(init, SIZE, jax.random.key(5)))


def test_too_large_after_a_right_call(monkeypatch, key):
    make = sb.ensemble(lambda key: normal(key, (1 << 13, 1 << 10)), 2)  # 64 MiB
    make(key)
    monkeypatch.setattr("seedbed._ensemble.check._available_memory", lambda: 1 << 20)
    with pytest.raises(MemoryError, match="`size` is too large for this machine"):
        make(key)
    make = sb.ensemble(lambda key, x: x * normal(key, (1 << 13, 1 << 10)), 2)
    monkeypatch.undo()
    make(key, 1.0)
    monkeypatch.setattr("seedbed._ensemble.check._available_memory", lambda: 1 << 20)
    x = jax.ShapeDtypeStruct((), np.float32, weak_type=True)
    assert jax.eval_shape(lambda x: make(key, x), x).shape == (2, 1 << 13, 1 << 10)


def test_without_jit(key):
    make = sb.ensemble(init, SIZE)
    want = make(key)
    with jax.disable_jit():
        assert_same_bits(make(key), want)
        assert_same_bits(make(key), want)
    jax.clear_caches()
    assert_same_bits(make(key), want)
