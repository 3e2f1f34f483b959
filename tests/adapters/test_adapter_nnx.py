"""The adapter of flax nnx: streams, sharing, running, taking apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flax.nnx")
from flax import nnx

import seedbed as sb
from helpers import assert_same_bits, split, take
from nnx_models import WIDTH, Keeper, Model, three_streams

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]


@pytest.fixture
def adapter():
    return sb.adapters.nnx


def assert_same_modules(got, expected):
    (graphdef, state), (expected_graphdef, expected_state) = nnx.split(got), nnx.split(expected)
    assert graphdef == expected_graphdef
    assert_same_bits(state, expected_state)


# --- streams ----------------------------------------------------------------------------


def test_streams_end_where_split_rngs_leaves_them(adapter):
    rngs, other = three_streams(), three_streams()
    expected = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: Model(WIDTH, rngs=rngs)))
    make = adapter.ensemble(Model, 3)
    for _ in range(2):  # the second ensemble is another one
        assert_same_modules(make(rngs, WIDTH), expected(other))
        assert_same_bits(nnx.state(rngs), nnx.state(other))


def test_a_model_that_keeps_its_rngs_keeps_those_of_the_caller(adapter):
    rngs, other = three_streams(), three_streams()
    expected = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: Keeper(rngs=rngs)))(other)
    make = adapter.ensemble(Keeper, 3)
    got = make(rngs)
    assert_same_modules(got, expected)
    assert_same_bits(nnx.state(rngs), nnx.state(other))
    for one in (got, make(rngs)):  # traced, and from the cache
        assert one.inner.rngs is rngs and one.stream is rngs.params
    x = jnp.ones(WIDTH)
    y = adapter.forward(got, x)
    assert y.shape == (3, WIDTH) and got.stream.key.shape == ()
    noise = y - got.weight[...]
    assert not np.array_equal(noise[0], noise[1])
    one = make.member(rngs, 1)
    assert one.inner.rngs is not rngs and one.stream is one.inner.rngs.params
    assert one.stream.key.shape == () and one(x).shape == (WIDTH,)
    parts = adapter.unstack(got)
    assert parts[1].inner.rngs is not rngs and parts[1].stream is parts[1].inner.rngs.params
    assert not np.array_equal(parts[0](x) - parts[0].weight, parts[1](x) - parts[1].weight)


def test_streams_that_are_not_split_are_the_same_for_all(adapter):
    rngs, other = three_streams(), three_streams()

    @nnx.split_rngs(splits=3, only="params")
    @nnx.vmap(in_axes=(nnx.StateAxes({"params": 0, ...: None}),))
    def expected(rngs):
        return Model(WIDTH, rngs=rngs)

    got = adapter.ensemble(Model, 3, only="params")(rngs, WIDTH)
    assert_same_modules(got, expected(other))
    assert_same_bits(nnx.state(rngs), nnx.state(other))
    assert int(rngs.dropout.count[...]) == 1  # the dropout layer took a key
    keys = jax.random.key_data(got.dropout.rngs.key[...])
    assert_same_bits(keys, jnp.stack([keys[0]] * 3))


def test_keys_in_all_the_forms_that_rngs_take(adapter):
    make = adapter.ensemble(nnx.Linear, 3)
    expected = make(nnx.Rngs(7), WIDTH, WIDTH)
    for key in (7, jax.random.key(7), jax.random.PRNGKey(7), {"params": 7}, {"default": 7}):
        assert_same_modules(make(key, WIDTH, WIDTH), expected)
    keys = split(jax.random.fold_in(jax.random.key(7), 0), 3)
    assert_same_modules(make(keys, WIDTH, WIDTH), expected)
    assert_same_modules(make({"params": keys}, WIDTH, WIDTH), expected)


def test_arguments_are_mapped_or_the_same_for_all(adapter):
    def make(scale, *, rngs, shape=()):
        linear = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        linear.scale = nnx.Param(jnp.full(shape, scale))
        return linear

    scales = jnp.arange(3.0)
    rngs, other = nnx.Rngs(0), nnx.Rngs(0)
    mapped = nnx.vmap(lambda rngs, scale: make(scale, rngs=rngs, shape=(2,)))
    expected = nnx.split_rngs(splits=3)(mapped)(other, scales)
    got = adapter.ensemble(make, 3, in_axes=0)(rngs, scales, shape=(2,))
    assert_same_modules(got, expected)
    same = adapter.ensemble(make, 3)(nnx.Rngs(0), 2.0)
    assert same.scale.shape == (3,) and same.scale[1] == 2.0
    # Without a stream, members differ by their arguments only.
    alone = adapter.ensemble(lambda scale, *, rngs: nnx.Dict(s=nnx.Param(scale)), 3, in_axes=0)
    assert_same_bits(alone(nnx.Rngs(), scales)["s"][...], scales)


def test_metadata_and_kinds_of_variables_stay(adapter):
    class Gain(nnx.Param):
        pass

    class Named(nnx.Module):
        def __init__(self, *, rngs):
            self.gain = Gain(rngs.uniform((2,)), unit="mV", note=("a", 1))
            self.same = self.gain
            self.count = nnx.Variable(jnp.int32(3))
            self.nested = nnx.data({"b": [jnp.ones(2), None], "a": nnx.Cache(jnp.zeros(()))})
            self.static = "text"

    got = adapter.ensemble(Named, 3)(nnx.Rngs(0))
    expected = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: Named(rngs=rngs)))(nnx.Rngs(0))
    assert_same_modules(got, expected)
    assert type(got.gain) is Gain and got.gain.unit == "mV" and got.same is got.gain


@pytest.mark.parametrize(
    "make",
    [
        lambda *, rngs: nnx.Param(rngs.normal((WIDTH,))),
        lambda *, rngs: (nnx.Dict(a=nnx.Param(rngs.uniform((2,)))), [nnx.Param(jnp.ones(2))]),
    ],
    ids=["variable", "several modules"],
)
def test_whatever_nnx_takes_as_a_model(adapter, make):
    expected = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: make(rngs=rngs)))(nnx.Rngs(0))
    assert_same_modules(adapter.ensemble(make, 3)(0), expected)


# --- shared variables -------------------------------------------------------------------


def test_shared_statistics_have_no_member_axis(adapter):
    rngs, other = three_streams(), three_streams()
    axes = nnx.StateAxes({nnx.BatchStat: None, ...: 0})
    expected = nnx.vmap(lambda rngs: Model(WIDTH, rngs=rngs), out_axes=axes)
    make = adapter.ensemble(Model, 3, shared=nnx.BatchStat)
    got = make(rngs, WIDTH)
    assert_same_modules(got, nnx.split_rngs(splits=3)(expected)(other))
    assert_same_bits(nnx.state(rngs), nnx.state(other))
    assert got.norm.mean.shape == (WIDTH,) and got.norm.scale.shape == (3, WIDTH)
    assert make.member(rngs, 0, WIDTH).norm.mean.shape == (WIDTH,)
    parts = adapter.unstack(got, shared=nnx.BatchStat)
    parts[0].norm.mean[...] = jnp.ones(WIDTH)
    assert not parts[1].norm.mean[...].any() and not got.norm.mean[...].any()
    got.norm.use_running_average = True
    assert adapter.forward(got, jnp.ones((2, WIDTH)), shared=nnx.BatchStat).shape == (3, 2, WIDTH)


@pytest.mark.parametrize(
    "shared",
    [
        nnx.PathContains("kernel"),
        lambda path, value: path == ("linear", "kernel"),
        [nnx.All(nnx.Param, nnx.PathContains("kernel")), nnx.Cache],
    ],
    ids=["path", "function", "list"],
)
def test_shared_random_variables_are_those_of_the_plain_model(adapter, shared):
    rngs = three_streams()
    got = adapter.ensemble(Model, 3, shared=shared)(rngs, WIDTH)
    plain = Model(WIDTH, rngs=three_streams())
    kernel = got.linear.kernel[...]
    assert_same_bits(kernel, plain.linear.kernel[...])
    own = adapter.ensemble(Model, 3)(three_streams(), WIDTH)
    assert_same_bits(got.dropout.rngs.key[...], own.dropout.rngs.key[...])
    assert int(rngs.params.count[...]) == 2


# --- members ----------------------------------------------------------------------------


def test_members_are_those_of_the_next_ensemble(adapter):
    rngs = three_streams()
    make = adapter.ensemble(Model, 5)
    before = jax.tree.map(jnp.copy, nnx.state(rngs))
    one, some = make.member(rngs, -2, WIDTH), make.members(rngs, [4, 0], WIDTH)
    assert_same_bits(nnx.state(rngs), before)
    whole = nnx.state(make(rngs, WIDTH))
    assert_same_bits(nnx.state(one), take(whole, 3))
    assert_same_bits(nnx.state(some), take(whole, jnp.array([4, 0])))
    assert one(jnp.ones((2, WIDTH))).shape == (2, WIDTH)


def test_a_member_equals_the_plain_model_of_its_keys(adapter):
    key = jax.random.key(3)
    one = adapter.ensemble(Model, 5).member(key, 2, WIDTH)
    own = split(jax.random.fold_in(key, 0), 5)[2]
    assert_same_modules(one, Model(WIDTH, rngs=nnx.Rngs(own)))


def test_unstacked_members_are_plain_models_of_their_own(adapter):
    whole = adapter.ensemble(Model, 3)(three_streams(), WIDTH)
    state = nnx.state(whole)
    parts = adapter.unstack(whole)
    assert len(parts) == 3
    for i, part in enumerate(parts):
        assert isinstance(part, Model)
        assert_same_bits(nnx.state(part), take(state, i))
    parts[0].linear.kernel[...] = jnp.zeros((WIDTH, WIDTH))
    assert_same_bits(nnx.state(whole), state)
    assert parts[1].linear.kernel[...].all()


def test_an_ensemble_works_inside_of_jit(adapter):
    make = adapter.ensemble(Model, 3)
    rngs, other = three_streams(), three_streams()
    expected = make(rngs, WIDTH)
    got = nnx.jit(lambda rngs: make(rngs, WIDTH))(other)
    assert_same_modules(got, expected)
    assert_same_bits(nnx.state(other), nnx.state(rngs))
    key = jax.random.key(1)
    pure = jax.jit(lambda key: nnx.state(make(key, WIDTH)))(key)
    assert_same_bits(pure, nnx.state(make(key, WIDTH)))
    one = jax.jit(lambda key, i: nnx.state(make.member(key, i, WIDTH)))(key, 1)
    assert_same_bits(one, take(pure, 1))


def test_an_ensemble_within_a_model_of_an_ensemble(adapter):
    inner = adapter.ensemble(nnx.Linear, 2)

    class Outer(nnx.Module):
        def __init__(self, *, rngs):
            self.first = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
            self.experts = inner(rngs, WIDTH, WIDTH)

    rngs, other = three_streams(), three_streams()
    got = adapter.ensemble(Outer, 3)(rngs)
    expected = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: Outer(rngs=rngs)))(other)
    assert got.experts.kernel.shape == (3, 2, WIDTH, WIDTH)
    assert_same_modules(got, expected)


def test_a_model_is_traced_once(adapter):
    calls = []

    def make(width, *, rngs):
        calls.append(width)
        return nnx.Linear(width, WIDTH, rngs=rngs)

    many = adapter.ensemble(make, 4)
    rngs = nnx.Rngs(0)
    first, second = many(rngs, WIDTH), many(rngs, WIDTH)
    assert calls == [WIDTH]
    assert not np.array_equal(first.kernel, second.kernel)
    many(rngs, 2 * WIDTH)
    assert calls == [WIDTH, 2 * WIDTH]


def test_the_plan_names_variables(adapter, native):
    text = adapter.ensemble(Model, 4).plan(three_streams(), WIDTH).explain()
    rows = {row.split("  ")[0]: row for row in text.splitlines() if row.startswith("[")}
    (kernel,) = [row for name, row in rows.items() if "linear" in name and "kernel" in name]
    assert "truncated_normal" in kernel and kernel.endswith("native")


# --- running ----------------------------------------------------------------------------


def test_forward_equals_vmap_and_keeps_what_members_write(adapter):
    make = adapter.ensemble(Model, 3)
    x = jnp.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH)
    got, expected = make(0, WIDTH), make(0, WIDTH)
    call = nnx.vmap(lambda module, x: module(x, scale=2.0), in_axes=(0, None))
    for _ in range(2):
        assert_same_bits(adapter.forward(got, x, scale=2.0), call(expected, x))
        assert_same_modules(got, expected)
    assert got.norm.mean[...].any() and got.dropout.rngs.count[...].tolist() == [2, 2, 2]
    each = jnp.stack([x, 2 * x, 3 * x], axis=1)
    mapped = nnx.vmap(lambda module, x: module(x), in_axes=(0, 1))
    assert_same_bits(adapter.forward(got, each, in_axes=1), mapped(expected, each))
    jitted = nnx.jit(lambda module, x: adapter.forward(module, x))(got, x)
    assert jitted.shape == (3, 4, WIDTH)
    assert got.dropout.rngs.count[...].tolist() == [4, 4, 4]


def test_a_second_call_traces_nothing():
    traced = []

    def make(rngs):
        traced.append(len(traced))
        return nnx.Dropout(0.5, rngs=rngs)

    many, rngs = sb.adapters.nnx.ensemble(make, 2), nnx.Rngs(0, dropout=1)
    many(rngs)
    before = len(traced)
    many(rngs), many(nnx.Rngs(3, dropout=4))
    assert before and len(traced) == before
