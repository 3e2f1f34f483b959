"""The equinox adapter: how models are made, shared parts, states, members, forward, errors."""

import doctest
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, some, split

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]

eqx = pytest.importorskip("equinox")
adapter = sb.adapters.equinox

normal, uniform = jax.random.normal, jax.random.uniform


class Scaled(eqx.Module):
    """A layer with a number, a name and a function beside its arrays."""

    weight: jax.Array
    shift: jax.Array
    scale: float
    activation: object
    names: list = eqx.field(static=True)

    def __init__(self, size, key, scale=2.0, shift=0.0):
        self.weight = normal(key, (size,))
        self.shift = jnp.asarray(shift) + jnp.zeros(size)
        self.scale = scale
        self.activation = jnp.tanh
        self.names = ["not", "hashable"]

    def __call__(self, x):
        return self.activation(self.scale * self.weight * x + self.shift)


class Counter(eqx.Module):
    """A stateful layer."""

    weight: jax.Array
    count: eqx.nn.StateIndex

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.weight = uniform(one, (8,))
        self.count = eqx.nn.StateIndex(uniform(two, (2,)))

    def __call__(self, x, state):
        count = state.get(self.count)
        return self.weight.sum() * x + count[0], state.set(self.count, count + 1)


def arrays(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))


def scaled(key):
    return Scaled(8, key)


# --- making -----------------------------------------------------------------------------


def test_equals_filter_vmap(key):
    got = adapter.ensemble(scaled, 3)(key)
    want = eqx.filter_vmap(scaled)(split(key, 3))
    assert_same_bits(arrays(got), arrays(want))
    assert (type(got), got.scale, got.activation) == (Scaled, 2.0, jnp.tanh)
    assert got.names == want.names
    assert_same_bits(arrays(adapter.ensemble(scaled, 3)(split(key, 3))), arrays(want))


def test_metadata_need_not_be_comparable(key):
    class Tabled(eqx.Module):
        weight: jax.Array
        table: np.ndarray = eqx.field(static=True)

    def make(key):
        with pytest.warns(UserWarning, match="being set as static"):
            return Tabled(normal(key, (8,)), np.arange(3))

    for _ in range(2):  # a second ensemble of one model has another trace
        models = adapter.ensemble(make, 3)(key)
        assert models.weight.shape == (3, 8) and list(models.table) == [0, 1, 2]


@pytest.mark.parametrize(
    ("make", "args", "kwargs"),
    [
        (eqx.nn.Linear, (2, 8), {}),  # takes `key` by keyword only
        (eqx.nn.Linear, (), {"in_features": 2, "out_features": 8}),
        (functools.partial(eqx.nn.Linear, 2, 8), (), {}),
        (lambda key, out: eqx.nn.Linear(2, out, key=key), (8,), {}),  # first
        (lambda rng, out: eqx.nn.Linear(2, out, key=rng), (8,), {}),
        (lambda inputs, key, out=8: eqx.nn.Linear(inputs, out, key=key), (2,), {}),  # by name
        (lambda *args, **kwargs: eqx.nn.Linear(2, 8, key=args[0]), (), {}),
    ],
)
def test_where_the_key_goes(key, make, args, kwargs):
    got = adapter.ensemble(make, 3)(key, *args, **kwargs)
    want = eqx.filter_vmap(lambda key: eqx.nn.Linear(2, 8, key=key))(split(key, 3))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert_same_bits(arrays(got), arrays(want))


def test_arguments_are_the_same_for_all_or_mapped(key):
    shifts = np.linspace(0.0, 1.0, 3, dtype=np.float32)
    make = adapter.ensemble(lambda key, shift, scale: Scaled(8, key, scale, shift), 3)
    want = eqx.filter_vmap(lambda key: Scaled(8, key, 3.0, shifts[2]))(split(key, 3))
    got = make(key, shifts[2:].reshape(()), 3.0)
    assert got.scale == want.scale
    assert_same_bits(arrays(got), arrays(want))
    make = adapter.ensemble(lambda key, shift: Scaled(8, key, shift=shift), 3, in_axes=0)
    want = eqx.filter_vmap(lambda key, shift: Scaled(8, key, shift=shift))(split(key, 3), shifts)
    assert_same_bits(arrays(make(key, shifts)), arrays(want))
    assert_same_bits(arrays(make.member(key, 2, shifts)), [leaf[2] for leaf in arrays(want)])


def test_any_pytree_with_arrays_of_numpy_and_of_jax(key):
    def make(key):
        half = np.float32(0.5)
        return {"a": [normal(key, (8,)), half, np.arange(4)], "f": jnp.sin, "n": 3, "none": None}

    got = adapter.ensemble(make, 3)(key)
    want = eqx.filter_vmap(make)(split(key, 3))
    assert jax.tree.structure(got) == jax.tree.structure(want)
    assert (got["f"], got["n"], got["none"]) == (jnp.sin, 3, None)
    assert_same_bits(arrays(got), arrays(want))


def test_several_keys(key):
    def make(keys):
        return Scaled(8, keys["params"], shift=uniform(keys["noise"]))

    keys = {"params": key, "noise": jax.random.key(3)}
    got = adapter.ensemble(make, 3)(keys)
    want = eqx.filter_vmap(make)({name: split(one, 3) for name, one in keys.items()})
    assert_same_bits(arrays(got), arrays(want))


def test_under_jit(key):
    make = adapter.ensemble(scaled, 3)
    want = make(key)
    got = eqx.filter_jit(make)(key)
    assert jax.tree.leaves(got)[-1] == jnp.tanh or got.activation == jnp.tanh
    assert_same_bits(arrays(got), arrays(want))
    got = eqx.filter_jit(lambda key, i: make.member(key, i))(key, jnp.asarray(1))
    assert_same_bits(arrays(got), [leaf[1] for leaf in arrays(want)])


def test_members(key):
    make = adapter.ensemble(scaled, 9)
    want = arrays(make(key))
    assert_same_bits(arrays(make.member(key, -2)), [leaf[-2] for leaf in want])
    picked = make.members(key, [5, 0])
    assert_same_bits(arrays(picked), [leaf[np.array([5, 0])] for leaf in want])
    assert picked.activation == jnp.tanh
    alone = scaled(split(key, 9)[4])
    assert jax.tree.leaves(make.member(key, 4))[0].shape == alone.weight.shape
    assert_same_bits(arrays(make.member(key, 4)), arrays(alone))


# --- states -----------------------------------------------------------------------------


def test_models_with_state(key):
    make = adapter.ensemble(eqx.nn.make_with_state(Counter), 3)
    got, state = make(key)
    want = eqx.filter_vmap(eqx.nn.make_with_state(Counter))(split(key, 3))
    assert jax.tree.structure((got, state)) == jax.tree.structure(want)
    assert_same_bits(arrays((got, state)), arrays(want))
    one, its = make.member(key, 1)
    out, after = one(1.0, its)
    outs, states = adapter.forward(got, 1.0, state)
    np.testing.assert_allclose(outs[1], out, rtol=1e-6)
    assert_same_bits(states.get(got.count)[1], after.get(one.count))
    assert state.get(got.count).shape == (3, 2)  # not used up


def test_batch_norm_of_a_batch(key):
    make_one = eqx.nn.make_with_state(lambda: eqx.nn.BatchNorm(2, "batch", mode="batch"))
    norms, states = adapter.ensemble(lambda key: make_one(), 3)(key)
    x = jnp.arange(8.0).reshape(4, 2)

    def call(norm, x, state):
        run = jax.vmap(norm, axis_name="batch", in_axes=(0, None), out_axes=(0, None))
        return run(x, state)

    y, after = adapter.forward(norms, x, states, call=call)
    assert y.shape == (3, 4, 2)
    want, its = call(*make_one()[:1], x, make_one()[1])
    np.testing.assert_allclose(y[2], want, rtol=1e-6)
    np.testing.assert_allclose(jax.tree.leaves(after)[1][0], jax.tree.leaves(its)[1], rtol=1e-6)


def test_a_module_that_carries_the_start_of_its_states(key):
    # Its markers are other objects in every trace, and equal to nothing.
    models = adapter.ensemble(Counter, 3, shared=lambda model: model.weight)(key)
    assert models.weight.shape == (8,) and models.count.init.shape == (3, 2)


# --- shared parts -----------------------------------------------------------------------


def pair(key):
    one, two, three = jax.random.split(key, 3)
    return {
        "embedding": eqx.nn.Embedding(8, 2, key=one),
        "hidden": eqx.nn.Linear(2, 8, key=two),
        "scale": uniform(three),
    }


def embedded(node):
    return isinstance(node, eqx.nn.Embedding)


CHOICES = {
    "a leaf": lambda model: model["embedding"].weight,
    "a subtree": lambda model: model["embedding"],
    "several": lambda model: (model["embedding"], model["scale"]),
    "filtered": lambda model: eqx.filter(model, embedded, is_leaf=embedded),
    "everything": lambda model: model,
}


@pytest.mark.parametrize("choice", some(list(CHOICES)))
def test_shared_parts_are_those_of_one_model(key, choice):
    shared = CHOICES[choice]
    make = adapter.ensemble(pair, 3, shared=shared)
    got, alone = make(key), pair(key)
    single = {id(leaf) for leaf in arrays(shared(got))}
    batched = arrays(eqx.filter_vmap(pair)(split(key, 3)))
    for leaf, whole, each in zip(arrays(got), arrays(alone), batched, strict=True):
        assert_same_bits(leaf, whole if id(leaf) in single else each)
    assert 0 < len(single) == len(arrays(shared(alone)))
    member = make.member(key, 1)
    for leaf, one in zip(arrays(member), arrays(got), strict=True):
        assert_same_bits(leaf, one if id(one) in single else one[1])


def test_unstack_and_forward_with_shared_parts(key):
    shared = CHOICES["a subtree"]
    models = adapter.ensemble(pair, 3, shared=shared)(key)

    def call(model, word, x):
        return model["scale"] * model["hidden"](model["embedding"](word) + x)

    xs = jnp.arange(6.0).reshape(2, 3)
    outs = adapter.forward(models, jnp.asarray(5), xs, in_axes=(None, 1), shared=shared, call=call)
    singles = adapter.unstack(models, shared=shared)
    assert len(singles) == 3 and singles[1]["embedding"].weight is models["embedding"].weight
    for i, single in enumerate(singles):
        np.testing.assert_allclose(outs[i], call(single, jnp.asarray(5), xs[:, i]), rtol=1e-5)


# --- unstack, forward -------------------------------------------------------------------


def test_unstack_gives_the_members(key):
    make = adapter.ensemble(scaled, 3)
    models = make(key)
    for i, single in enumerate(adapter.unstack(models)):
        assert type(single) is Scaled and single.activation == jnp.tanh
        assert_same_bits(arrays(single), arrays(make.member(key, i)))


def test_forward(key):
    models = adapter.ensemble(scaled, 3)(key)
    singles = adapter.unstack(models)
    x, xs = jnp.float32(0.5), jnp.linspace(0.0, 1.0, 3)
    for outs, inputs in (
        (adapter.forward(models, x), [x] * 3),
        (adapter.forward(models, xs, in_axes=0), xs),
        (eqx.filter_jit(adapter.forward)(models, xs, in_axes=[0]), xs),
    ):
        for out, single, one in zip(outs, singles, inputs, strict=True):
            np.testing.assert_allclose(out, single(one), rtol=1e-6)
    grads = eqx.filter_grad(lambda models: adapter.forward(models, x).sum())(models)
    assert grads.weight.shape == (3, 8) and grads.activation is None


# --- errors -----------------------------------------------------------------------------


def test_what_ensemble_refuses():
    with pytest.raises(TypeError, match=r"`make` must be a module class or a function of a key; g"):
        adapter.ensemble(eqx.nn.Identity, 2) and adapter.ensemble(3, 2)
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        adapter.ensemble(scaled, 0)


@pytest.mark.parametrize(
    ("shared", "error", "message"),
    [
        ("weight", TypeError, "`shared` must be a function shared(model) that returns parts"),
        (lambda model: (), ValueError, "it returned no array"),
        (lambda model: model.activation, ValueError, "it returned no array"),
        (lambda model: 2 * model.weight, ValueError, "it returned something that is no part of it"),
        (lambda model: model.missing, AttributeError, "missing"),
    ],
)
def test_what_shared_may_return(key, shared, error, message):
    with pytest.raises(error, match=re.escape(message)):
        adapter.ensemble(scaled, 2, shared=shared)(key)


def test_shared_parts_need_the_key_that_is_split(key):
    make = adapter.ensemble(scaled, 2, shared=lambda model: model.weight)
    with pytest.raises(ValueError, match="made with the key that members' keys are split from"):
        make(split(key, 2))


@pytest.mark.parametrize("function", [adapter.unstack, adapter.forward])
def test_models_without_a_member_axis(key, function):
    with pytest.raises(ValueError, match="have no array with a member axis"):
        function({"f": jnp.sin})
    with pytest.raises(ValueError, match=r"lengths 2, 3 \(\['a'\]: 2, \['b'\]: 3\)"):
        function({"a": jnp.ones((2, 3)), "b": jnp.ones(3)})
    with pytest.raises(ValueError, match=r"lengths 2, None .* by `shared`"):
        function({"a": jnp.ones(2), "b": jnp.ones(())})


def test_what_forward_refuses(key):
    models = adapter.ensemble(scaled, 2)(key)
    with pytest.raises(ValueError, match="`in_axes` has 2 entries for 1 inputs"):
        adapter.forward(models, 1.0, in_axes=(None, 0))
    with pytest.raises(
        TypeError, match=r"`call` must be a function call\(model, \*inputs\); got 3"
    ):
        adapter.forward(models, 1.0, call=3)


def test_a_model_that_keeps_a_traced_value_elsewhere(key):
    with pytest.raises(TypeError, match="stored a traced value outside itself"):
        adapter.ensemble(lambda key: {"f": lambda x: normal(key) * x}, 2)(key)


def test_the_examples(key):
    found = doctest.DocTestFinder().find(adapter, globs={})
    results = [doctest.DocTestRunner().run(test) for test in found]
    assert sum(result.attempted for result in results) > 6
    assert not any(result.failed for result in results)
