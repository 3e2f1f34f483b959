"""The adapter for flax.linen: keys, shared variables, shapes, single members, running, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax.linen")

from flax import linen as nn

import seedbed as sb
from helpers import assert_same_bits, split, take

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]

X = np.ones((2, 8), np.float32)
SHARED = ["batch_stats", "params/Dense_1"]


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        named = nn.with_partitioning(nn.initializers.lecun_normal(), ("in", "out"))
        x = nn.Dense(16, kernel_init=named)(x)
        x = nn.BatchNorm(use_running_average=not train)(x)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(8)(x)


class Coder(nn.Module):
    def setup(self):
        self.encoder, self.decoder = nn.Dense(16), nn.Dense(8)

    def __call__(self, x):
        return self.decoder(self.encode(x))

    def encode(self, x):
        return self.encoder(x)


class Seeing(nn.Module):
    """Its first scale is made of the example."""

    @nn.compact
    def __call__(self, x, y=None):
        w = self.param("w", nn.initializers.uniform(), (8,))
        scale = self.variable("stats", "scale", lambda: x.max(0))
        return x * (w + scale.value)[None]


MODEL = Net()


def make(size=3, **options):
    return sb.adapters.linen.ensemble(MODEL, size, **options)


@pytest.fixture(scope="module")
def variables():
    return make()(jax.random.key(20), X)


@pytest.fixture(scope="module")
def partly():
    return make(shared=SHARED)(jax.random.key(20), X)


def forward(*args, **kwargs):
    return sb.adapters.linen.forward(MODEL, *args, **kwargs)


def test_metadata_stays(variables):
    kernel = variables["params"]["Dense_0"]["kernel"]
    assert isinstance(kernel, nn.Partitioned) and kernel.names == ("in", "out")
    assert kernel.value.shape == (3, 8, 16)


def test_each_stream_of_keys_is_split(key):
    keys = {"params": key, "dropout": jax.random.key(4)}
    each = {name: split(one, 3) for name, one in keys.items()}
    expected = jax.jit(jax.vmap(lambda keys: MODEL.init(keys, X, train=True)))(each)
    assert_same_bits(make()(keys, X, train=True), expected)
    assert_same_bits(make()(each, X, train=True), expected)
    assert_same_bits(make()({**keys, "dropout": each["dropout"]}, X, train=True), expected)


def test_under_jit(key, variables):
    assert_same_bits(jax.jit(lambda key: make()(key, X))(key), variables)


@pytest.mark.parametrize("rows", [2, 10**10])
def test_inputs_of_which_only_the_shape_is_given(key, variables, rows):
    shape = jax.ShapeDtypeStruct((rows, 8), jnp.float32)
    assert_same_bits(make()(key, shape), variables)
    assert_same_bits(make()(key, x=shape), variables)
    assert_same_bits(make().member(key, 1, shape), take(variables, 1))


def test_inputs_that_matter_cannot_be_shapes(key):
    made = sb.adapters.linen.ensemble(Seeing(), 3)
    shape = jax.ShapeDtypeStruct((2, 8), jnp.float32)
    message = r"depends on the values of args\[0\], of which a jax.ShapeDtypeStruct gives only"
    with pytest.raises(ValueError, match=message):
        made(key, shape)
    with pytest.raises(ValueError, match=r"depends on the values of kwargs\['x'\]"):
        made(key, x=shape)
    expected = jax.jit(jax.vmap(lambda key: Seeing().init(key, X)))(split(key, 3))
    assert_same_bits(made(key, X, shape), expected)


def test_inputs_of_each_member(key):
    made = sb.adapters.linen.ensemble(Seeing(), 3, in_axes=1)
    xs = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    expected = jax.jit(jax.vmap(Seeing().init, (0, 1)))(split(key, 3), xs)
    assert_same_bits(made(key, xs), expected)
    with pytest.raises(TypeError, match="`in_axes` maps axis 1 of .* which is not an array"):
        made(key, jax.ShapeDtypeStruct((2, 3, 8), jnp.float32))


def test_another_method_and_other_collections(key):
    model = Coder()
    made = sb.adapters.linen.ensemble(model, 3)
    options = {"mutable": ["params"], "method": "encode"}
    variables = made(key, X, **options)
    assert list(variables["params"]) == ["encoder"]
    expected = jax.jit(jax.vmap(lambda key: model.init(key, X, **options)))(split(key, 3))
    assert_same_bits(variables, expected)
    assert_same_bits(made(key, X, mutable=["params"], method=Coder.encode), expected)
    out = sb.adapters.linen.forward(model, variables, X, method="encode")
    assert out.shape == (3, 2, 16)


def test_shared_variables_are_those_of_a_single_model(key, variables, partly):
    single = jax.jit(MODEL.init)(key, X)
    assert_same_bits(partly["batch_stats"], single["batch_stats"])
    assert_same_bits(partly["params"]["Dense_1"], single["params"]["Dense_1"])
    assert_same_bits(partly["params"]["Dense_0"], variables["params"]["Dense_0"])
    one = make(shared=SHARED).member(key, 2, X)
    assert_same_bits(one["params"]["Dense_1"], single["params"]["Dense_1"])
    assert_same_bits(one["params"]["Dense_0"], take(variables["params"]["Dense_0"], 2))


@pytest.mark.parametrize(
    "shared",
    [
        "params/Dense_0/kernel",
        lambda path, leaf: path[-1] == "kernel" and leaf.shape == (8, 16),
        sb.filters.All("params/Dense_0", sb.filters.PathContains("kernel")),
        sb.filters.Not(["batch_stats", "params/Dense_1", sb.filters.Not("params/Dense_0/kernel")]),
    ],
)
def test_ways_to_say_what_is_shared(key, shared):
    found = make(shared=shared)(key, X)
    kernel = found["params"]["Dense_0"]["kernel"]
    assert kernel.value.shape == (8, 16) and kernel.names == ("in", "out")
    if not isinstance(shared, sb.filters.Not):
        assert found["params"]["Dense_0"]["bias"].shape == (3, 16)
    assert found["params"]["Dense_1"]["kernel"].shape == (3, 16, 8)


def test_everything_or_nothing_shared(key, variables):
    assert_same_bits(make(shared=True)(key, X), jax.jit(MODEL.init)(key, X))
    assert_same_bits(make(shared=[])(key, X), variables)


def test_what_is_shared_must_exist(key):
    message = "`shared` names 'params/Dens', and no variable's path begins so; there are: batch_st"
    with pytest.raises(ValueError, match=message):
        make(shared="params/Dens")(key, X)
    with pytest.raises(TypeError, match="Invalid collection filter"):
        make(shared=3)(key, X)


def test_what_is_shared_needs_the_key_that_is_split(key):
    with pytest.raises(ValueError, match="with the key that members' keys are split"):
        make(shared=SHARED)(split(key, 3), X)


def test_unstack_gives_plain_variables(key, variables, partly):
    singles = sb.adapters.linen.unstack(variables)
    assert len(singles) == 3
    assert_same_bits(singles[1], make().member(key, 1, X))
    assert_same_bits(
        sb.adapters.linen.unstack(partly, shared=SHARED)[2],
        make(shared=SHARED).member(key, 2, X),
    )
    outputs = jnp.stack([MODEL.apply(single, X) for single in singles])
    np.testing.assert_allclose(forward(variables, X), outputs, rtol=1e-5)


def test_forward_is_vmap_of_apply(variables):
    xs = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    each = jax.vmap(MODEL.apply, (0, 1))
    assert_same_bits(forward(variables, xs, in_axes=1), each(variables, xs))
    same = jax.vmap(lambda variables: MODEL.apply(variables, X))
    assert_same_bits(forward(variables, X, False), same(variables))


def test_forward_splits_keys_and_returns_what_was_written(key, variables):
    def run(variables, key):
        return MODEL.apply(variables, X, train=True, mutable=["batch_stats"], rngs={"dropout": key})

    expected = jax.vmap(run)(variables, split(key, 3))
    options = {"train": True, "mutable": ["batch_stats"]}
    assert_same_bits(forward(variables, X, rngs={"dropout": key}, **options), expected)
    keys = {"dropout": split(key, 3)}
    assert_same_bits(forward(variables, X, rngs=keys, **options), expected)
    assert expected[1]["batch_stats"]["BatchNorm_0"]["mean"].shape == (3, 16)


def test_forward_with_shared_variables(key, partly):
    axes = jax.tree.map(lambda leaf: 0, partly)
    axes["batch_stats"] = axes["params"]["Dense_1"] = None
    expected = jax.vmap(lambda v: MODEL.apply(v, X), (axes,))(partly)
    assert_same_bits(forward(partly, X, shared=SHARED), expected)
    _, written = forward(
        partly, X, shared=SHARED, train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    assert written["batch_stats"]["BatchNorm_0"]["mean"].shape == (3, 16)


def test_numbers_of_members_must_agree(key, variables, partly):
    message = "one member axis; batch_stats/BatchNorm_0/mean has 16 members and .* 3. Name what"
    with pytest.raises(ValueError, match=message):
        sb.adapters.linen.unstack(partly)
    with pytest.raises(ValueError, match="`in_axes` maps axis 0 of inputs.0., of length 2, over 3"):
        forward(variables, X, in_axes=0)
    with pytest.raises(ValueError, match="array of size=3 keys.*; got keys of shape"):
        forward(variables, X, rngs={"dropout": split(key, 2)})
    with pytest.raises(ValueError, match="must have the member axis first; scale has none"):
        sb.adapters.linen.unstack({"scale": jnp.ones(()), "w": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match="must hold a variable that the members do not share"):
        sb.adapters.linen.unstack(variables, shared=True)
    with pytest.raises(ValueError, match="how many members there are must follow from `variables`"):
        forward(take(variables, 0), X, shared=True)


def test_all_shared_with_an_input_for_each(key, variables):
    xs = np.arange(48, dtype=np.float32).reshape(3, 2, 8)
    out = forward(take(variables, 0), xs, shared=True, in_axes=0)
    assert out.shape == (3, 2, 8)


@pytest.mark.parametrize("wrong", [Net, nn.Dense, lambda x: x, None])
def test_the_model_must_be_a_module(wrong, variables):
    for call in (
        lambda: sb.adapters.linen.ensemble(wrong, 3),
        lambda: sb.adapters.linen.forward(wrong, variables, X),
    ):
        with pytest.raises(TypeError, match="`model` must be a module of flax.linen, such as nn"):
            call()


def test_sizes_and_representation():
    assert repr(make()) == "ensemble(Net, 3)"
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        make(0)
