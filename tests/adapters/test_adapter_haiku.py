"""The adapter for haiku: transformations, shared variables, single members, running, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("haiku")

import haiku as hk

import seedbed as sb
from helpers import assert_same_bits, split, take

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]

X = np.eye(2, 8, dtype=np.float32)
XS = np.arange(48, dtype=np.float32).reshape(2, 3, 8)


def network(x, train=False):
    x = hk.Linear(16)(x)
    # A state that is made of parameters and data, without rounding.
    hk.set_state("top", hk.get_state("top", (16,), init=lambda *_: x.max(0)) + 1)
    if train:
        x = hk.dropout(hk.next_rng_key(), 0.5, x)
    return hk.Linear(8)(x)


def plain(x):
    return hk.Linear(8, name="out")(hk.Linear(16, name="in")(x))


def pair():
    encoder, decoder = hk.Linear(16, name="encoder"), hk.Linear(8, name="decoder")

    def init(x):
        return decoder(encoder(x))

    return init, {"encode": encoder, "decode": decoder}


STATEFUL = hk.transform_with_state(network)
PLAIN = hk.transform(plain)
ensemble = sb.adapters.haiku.ensemble
forward = sb.adapters.haiku.forward


@pytest.fixture(scope="module")
def params():
    return ensemble(PLAIN, 3)(jax.random.key(20), X)


@pytest.fixture(scope="module")
def variables():
    return ensemble(STATEFUL, 3)(jax.random.key(20), X)


@pytest.mark.parametrize(
    "transformed",
    [STATEFUL, hk.without_apply_rng(PLAIN), hk.multi_transform(pair)],
    ids=["state", "without rng", "multi"],
)
def test_equals_vmap_of_init(key, transformed):
    expected = jax.jit(jax.vmap(lambda key: transformed.init(key, X)))(split(key, 3))
    got = ensemble(transformed, 3)(key, X)
    assert_same_bits(got, expected)
    assert_same_bits(ensemble(transformed, 3).member(key, 1, X), take(expected, 1))
    assert_same_bits(jax.jit(lambda key: ensemble(transformed, 3)(key, X))(key), got)


def test_multi_transform_with_state(key):
    several = hk.multi_transform_with_state(pair)
    params, state = ensemble(several, 3)(key, X)
    assert state == {}
    assert_same_bits(params, ensemble(hk.multi_transform(pair), 3)(key, X))


def test_legacy_keys(params):
    legacy = jax.random.key_data(jax.random.key(20))
    assert_same_bits(ensemble(PLAIN, 3)(legacy, X), params)


def test_inputs_of_which_only_the_shape_is_given(key, params):
    shape = jax.ShapeDtypeStruct((10**10, 8), jnp.float32)
    assert_same_bits(ensemble(PLAIN, 3)(key, shape), params)
    with pytest.raises(ValueError, match=r"depends on the values of args\[0\], of which"):
        ensemble(STATEFUL, 3)(key, jax.ShapeDtypeStruct((2, 8), jnp.float32))


def test_inputs_of_each_member(key):
    expected = jax.jit(jax.vmap(STATEFUL.init, (0, 1)))(split(key, 3), XS)
    assert_same_bits(ensemble(STATEFUL, 3, in_axes=1)(key, XS), expected)


def test_shared_variables_are_those_of_a_single_model(key, params, variables):
    single = jax.jit(STATEFUL.init)(key, X)
    got = ensemble(STATEFUL, 3, shared=["state", "params/linear_1"])(key, X)
    assert_same_bits(got[1], single[1])
    assert_same_bits(got[0]["linear_1"], single[0]["linear_1"])
    assert_same_bits(got[0]["linear"], variables[0]["linear"])
    by_function = ensemble(PLAIN, 3, shared=lambda path, leaf: path == ("params", "in", "w"))
    found = by_function(key, X)
    assert found["in"]["w"].shape == (8, 16)
    assert_same_bits(found["out"], params["out"])
    with pytest.raises(ValueError, match="`shared` names 'in', and no variable.*: params/in/b, "):
        ensemble(PLAIN, 3, shared="in")(key, X)


def test_unstack_gives_plain_variables(key, params, variables):
    assert_same_bits(sb.adapters.haiku.unstack(params)[1], ensemble(PLAIN, 3).member(key, 1, X))
    singles = sb.adapters.haiku.unstack(variables)
    assert len(singles) == 3 and isinstance(singles[0], tuple)
    assert_same_bits(singles[2], ensemble(STATEFUL, 3).member(key, 2, X))
    shared = ensemble(STATEFUL, 3, shared="state")
    assert_same_bits(
        sb.adapters.haiku.unstack(shared(key, X), shared="state")[0], shared.member(key, 0, X)
    )


def test_forward_is_vmap_of_apply(key, params, variables):
    run = jax.vmap(lambda p: PLAIN.apply(p, None, X))
    assert_same_bits(forward(PLAIN, params, None, X), run(params))
    without = hk.without_apply_rng(PLAIN)
    assert_same_bits(forward(without, params, X), run(params))
    each = jax.vmap(without.apply, (0, 1))
    assert_same_bits(forward(without, params, XS, in_axes=1), each(params, XS))

    def step(params, state, key):
        return STATEFUL.apply(params, state, key, X, train=True)

    expected = jax.vmap(step)(*variables, split(key, 3))
    assert_same_bits(forward(STATEFUL, *variables, key, X, train=True), expected)
    assert_same_bits(forward(STATEFUL, *variables, split(key, 3), X, True), expected)
    unkeyed = hk.without_apply_rng(STATEFUL)
    expected = jax.vmap(lambda p, s: STATEFUL.apply(p, s, None, X))(*variables)
    assert_same_bits(forward(unkeyed, *variables, X), expected)


def test_forward_of_one_of_several_functions(key):
    for several, none in (
        (hk.multi_transform(pair), (None,)),
        (hk.without_apply_rng(hk.multi_transform(pair)), ()),
    ):
        params = ensemble(several, 3)(key, X)
        assert forward(several.apply["encode"], params, *none, X).shape == (3, 2, 16)
        with pytest.raises(TypeError, match="has several functions to apply; give one of them"):
            forward(several, params, *none, X)
    stateful = hk.multi_transform_with_state(pair)
    out, state = forward(stateful.apply["encode"], *ensemble(stateful, 3)(key, X), None, X)
    assert out.shape == (3, 2, 16) and state == {}


def test_forward_with_a_shared_state(key):
    shared = ensemble(STATEFUL, 3, shared="state")(key, X)
    out, state = forward(STATEFUL, *shared, None, X, shared="state")
    assert out.shape == (3, 2, 8)
    expected = jnp.stack([shared[1]["~"]["top"] + 1] * 3)
    assert_same_bits(state["~"]["top"], expected)


def test_arguments_of_the_users_function_may_have_any_name(key):
    def named(rng, state):
        return hk.Linear(8)(rng + state)

    model = hk.without_apply_rng(hk.transform(named))
    params = ensemble(model, 3)(key, X, X)
    assert_same_bits(forward(model, params, X, X), jax.vmap(lambda p: model.apply(p, X, X))(params))


def test_errors(params, variables):
    for wrong in (plain, None, PLAIN.init):
        with pytest.raises(TypeError, match="`transformed` must be what hk.transform, hk.transf"):
            ensemble(wrong, 3)
    with pytest.raises(TypeError, match="or a function of `apply`; got 3 of type int"):
        forward(3, params)
    with pytest.raises(TypeError, match="of `apply`: params, state, rng, then the inputs; got 1"):
        forward(STATEFUL, *variables)
    with pytest.raises(ValueError, match="`in_axes` maps axis 0 of inputs.0., of length 2, over 3"):
        forward(PLAIN, params, None, X, in_axes=0)
    assert repr(ensemble(PLAIN, 3)) == "ensemble(plain, 3)"
