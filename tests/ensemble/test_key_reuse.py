"""`jax_debug_key_reuse`: what jax is told of keys that are used twice, on every way to a draw."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, native_problem, oracle, split, take

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

Reuse = jax.errors.KeyReuseError
SIZE = 4


@pytest.fixture(autouse=True)
def watched():
    with jax.debug_key_reuse(True):
        yield


def init(key):
    return jax.random.normal(key, (3,))


def one(**options):
    return jax.random.key(5, **options)


def stacked(**options):
    return split(jax.random.key(5, **options), SIZE)


def draw(key):
    return jax.vmap(jax.random.normal)(key) if key.ndim else jax.random.normal(key)


KEYS = {
    "one": one,
    "stacked": stacked,
    "rbg": lambda: one(impl="rbg"),
    "stacked rbg": lambda: stacked(impl="rbg"),
    "seedbed": lambda: one(impl=sb.prng.impl),
}


@pytest.fixture(params=KEYS)
def new(request):
    """Makes the same key, or the same keys, unused."""
    return KEYS[request.param]


def test_the_call_uses_its_key_up(new):
    # The report: `make(k); make(k)`, then `jax.random.normal(k)`, without a word.
    make, key = sb.ensemble(init, SIZE), new()
    make(key)
    for use in (make, draw, lambda key: make.stream(key, chunk_size=2)):
        with pytest.raises(Reuse):
            use(key)
    key = new()
    draw(key)
    with pytest.raises(Reuse):
        make(key)


def test_numbers_are_the_same(new):
    make = sb.ensemble(init, SIZE)
    keys = new() if new().ndim else split(new(), SIZE)
    expected = jax.jit(jax.vmap(init))(keys)
    assert_same_bits(make(new()), expected)
    key = new()
    assert_same_bits(make.member(key, 2), expected[2])
    assert_same_bits(make.members(key, [3, 0]), expected[jnp.array([3, 0])])
    assert_same_bits(jnp.concatenate([*make.stream(key, chunk_size=3)]), expected)


def test_members_neither_use_a_key_up_nor_need_an_unused_one(new):
    # As `jax.random.fold_in`: a member is looked at again, beside the whole that it is part of.
    make, key = sb.ensemble(init, SIZE), new()
    for _ in range(2):
        make.member(key, 1)
        make.members(key, slice(0, 2))
        make.members(key, [3, 1])
    jax.jit(make.member)(key, 1)
    make(key)
    make.member(key, 1)
    make.members(key, slice(0, 2))
    jax.jit(make.members)(key, np.array([2, 1]))
    with pytest.raises(Reuse):
        make(key)


def test_a_stream_is_one_use(new):
    make, key = sb.ensemble(init, SIZE), new()
    chunks = make.stream(key, chunk_size=3)
    assert sum(len(chunk) for chunk in chunks) == SIZE
    for use in (make, draw, lambda key: make.stream(key, chunk_size=2)):
        with pytest.raises(Reuse):
            use(key)


def test_a_plan_uses_nothing(new):
    make, key = sb.ensemble(init, SIZE), new()
    text = make.plan(key).explain()
    assert native_problem() or "rbg" in text or "jax_debug_key_reuse is on" in text
    make(key)


def test_inside_of_a_compiled_function(new):
    make, key = sb.ensemble(init, SIZE), new()
    jax.jit(make)(key)
    with pytest.raises(Reuse):
        draw(key)
    with pytest.raises(Reuse):
        jax.jit(lambda key: (make(key), draw(key)))(new())
    jax.jit(lambda key: (make(key), make.member(key, 1)))(new())


def test_a_key_that_the_init_function_uses_twice():
    def twice(key):
        return jax.random.normal(key, (3,)) + jax.random.uniform(key, (3,))

    with pytest.raises(Reuse):
        sb.ensemble(twice, SIZE)(one())
    with pytest.raises(Reuse):
        sb.ensemble(twice, SIZE).member(one(), 1)


def test_init_functions_that_only_fold_use_nothing_of_members_own_keys():
    # To jax they do not, and only where the keys are not split for them.
    make = sb.ensemble(lambda key: jax.random.normal(jax.random.fold_in(key, 1), (3,)), SIZE)
    keys = stacked()
    assert_same_bits(make(keys), make(keys))
    with pytest.raises(Reuse):
        assert_same_bits(make(key := one()), make(key))


def test_each_key_of_a_pytree():
    def both(keys):
        return jax.random.normal(keys["a"], (2,)), jax.random.normal(keys["b"], (2,))

    make = sb.ensemble(both, SIZE)
    keys = {"a": one(), "b": stacked()}
    make.member(keys, 1)
    make(keys)
    for key in keys.values():
        with pytest.raises(Reuse):
            draw(key)
    with pytest.raises(Reuse):
        make({"a": one(), "b": keys["b"]})


def test_donated_ensembles():
    make, key = sb.ensemble(init, SIZE, donate=True), one()
    old = make(key, jnp.zeros((SIZE, 3)))
    with pytest.raises(Reuse):
        make(key, old)


def test_legacy_keys_are_not_watched():
    make, key = sb.ensemble(init, SIZE), jax.random.PRNGKey(5)
    assert_same_bits(make(key), make(key))
    assert_same_bits(make.member(key, 1), make(key)[1])


def test_the_setting_belongs_to_the_call():
    make, key, expected = sb.ensemble(init, SIZE), one(), oracle(init, SIZE, one())
    with jax.debug_key_reuse(False):
        for _ in range(3):
            assert_same_bits(make(key), expected)
        assert make.plan(key).reference == (native_problem() or None)
    make(key)
    with pytest.raises(Reuse):
        make(key)
    with jax.debug_key_reuse(False):
        assert_same_bits(make(key), expected)


@pytest.mark.parametrize("name", ["normal", "bits", "split", "gumbel"])
def test_drop_ins(new, name):
    function = getattr(sb.random, name)
    function(key := one())
    for use in (function, draw, sb.ensemble(init, SIZE)):
        with pytest.raises(Reuse):
            use(key)


def test_drop_ins_after_an_ensemble():
    sb.ensemble(init, SIZE)(key := one())
    with pytest.raises(Reuse):
        sb.random.normal(key)
    sb.random.fold_in(key, 3)  # as jax has it


def test_keys_of_our_own_and_accelerated_programs():
    def long(key):
        return jax.random.normal(key, (700,))

    key = one(impl=sb.prng.impl)
    jax.jit(long)(key)
    with pytest.raises(Reuse):
        jax.random.bits(key)
    with sb.accelerate():
        jax.jit(lambda key: long(key))(key := one())
        with pytest.raises(Reuse):
            draw(key)
        with pytest.raises(Reuse):
            jax.jit(lambda key: long(key) + long(key))(one())


# --- modules and frameworks -------------------------------------------------------------


def test_modules_on_a_stream():
    class Twice(sb.nn.Module):
        def init_state(self):
            key = sb.random.next_key()
            self.a = sb.nn.State(jax.random.normal(key, (2,)))
            self.b = sb.nn.State(jax.random.normal(key, (2,)))

    net = sb.nn.Linear(3, 2)
    with sb.random.stream(one()):
        for _ in range(2):
            sb.nn.vmap_init_all_states(net, axis_size=SIZE)
            sb.random.next_key()
        with pytest.raises(Reuse):
            sb.nn.vmap_init_all_states(Twice(), axis_size=SIZE)


def linen():
    nn = pytest.importorskip("flax.linen")

    class Model(nn.Module):
        @nn.compact
        def __call__(self, x):
            self.variable("stats", "mean", lambda: jnp.zeros(3))
            return nn.Dense(2)(x)

    return sb.adapters.linen.ensemble(Model(), SIZE), (jnp.ones((2, 3)),)


def haiku():
    hk = pytest.importorskip("haiku")
    model = hk.transform(lambda x: hk.Linear(2)(x))
    return sb.adapters.haiku.ensemble(model, SIZE), (jnp.ones((2, 3)),)


def equinox():
    eqx = pytest.importorskip("equinox")
    return sb.adapters.equinox.ensemble(lambda key: eqx.nn.Linear(3, 2, key=key), SIZE), ()


def brainstate():
    bs = pytest.importorskip("brainstate")

    def model():
        module = bs.nn.Module()
        module.w = bs.ParamState(bs.random.uniform(size=(3,)))
        module.b = bs.ParamState(bs.random.uniform(size=(3,)))
        return module

    return sb.adapters.brainstate.ensemble(model, SIZE), ()


@pytest.mark.parametrize("keys", [one, stacked], ids=["one", "stacked"])
@pytest.mark.parametrize("framework", [linen, haiku, equinox, brainstate])
def test_adapters(framework, keys):
    make, args = framework()
    key = keys()
    make.member(key, 1, *args)
    make(key, *args)
    make.member(key, 1, *args)
    make.members(key, [2, 0], *args)
    if framework is linen and keys is stacked:
        return  # flax only folds, and jax looks at no key that is folded
    with pytest.raises(Reuse):
        make(key, *args)
    with pytest.raises(Reuse):
        draw(key)
    draw(key := keys())
    with pytest.raises(Reuse):
        make(key, *args)


def test_modules_of_brainstate():
    # brainstate itself draws from its stream's keys twice.
    bs = pytest.importorskip("brainstate")

    class Cell(bs.nn.Module):
        def init_state(self):
            self.h = bs.HiddenState(bs.random.uniform(size=(3,)))
            self.c = bs.HiddenState(bs.random.uniform(size=(3,)))

    found = []
    for watched in (False, True):
        with jax.debug_key_reuse(watched):
            bs.random.seed(7)
            cell = Cell()
            for _ in range(2):
                sb.nn.vmap_init_all_states(cell, axis_size=SIZE)
            found.append([cell.h.value, cell.c.value])
    assert_same_bits(found[1], found[0])


def test_nnx_folds_its_keys():
    # So neither flax's way nor ours uses one up.
    nnx = pytest.importorskip("flax.nnx")
    make = sb.adapters.nnx.ensemble(lambda rngs: nnx.Linear(3, 2, rngs=rngs), SIZE)
    key = one()
    first, second = make(key), make(key)
    assert_same_bits(nnx.state(first), nnx.state(second))
    assert_same_bits(nnx.state(make.member(key, 1)), take(nnx.state(first), 1))
