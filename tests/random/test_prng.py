"""Keys of `seedbed.prng.impl` give what threefry2x32 keys give."""

from __future__ import annotations

import functools
import inspect
import pickle
import re

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import keyed
from helpers import assert_same_bits, mismatches, native_problem
from seedbed import prng
from seedbed._random import cipher
from seedbed._run import native as _native

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def few_words(monkeypatch):
    """Few words are enough for native code."""
    monkeypatch.setattr(cipher, "MIN_WORDS", 0)


def new(seed=42):
    return jax.random.key(seed, impl=prng.impl)


def as_threefry(tree):
    """The result of a program with its keys as threefry ones, to compare."""
    return jax.tree.map(
        lambda x: prng.to_threefry(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree
    )


def custom_calls(function, *args) -> int:
    return jax.jit(function).lower(*args).as_text().count("@seedbed_")


@pytest.mark.parametrize("name", keyed.PROGRAMS)
def test_programs(name):
    with jax.enable_x64(name == "uint64"):
        got = as_threefry(jax.jit(keyed.PROGRAMS[name])(new()))
    assert_same_bits(got, keyed.expected(name))


@pytest.mark.parametrize("name", ["shapes", "splits", "folds", "vmaps", "uint8"])
def test_programs_that_are_not_compiled(name):
    assert_same_bits(as_threefry(keyed.PROGRAMS[name](new())), keyed.expected(name))


@pytest.mark.parametrize("name", keyed.PROGRAMS)
def test_the_native_cipher_is_used(name, native):
    with jax.enable_x64(name == "uint64"):
        assert custom_calls(keyed.PROGRAMS[name], new())


STEP = st.one_of(
    st.tuples(st.just("split"), st.sampled_from([2, 3, 17])),
    st.tuples(st.just("fold"), st.integers(0, 2**32 - 1)),
)


@hypothesis.given(
    seed=st.integers(-(2**63), 2**63 - 1),
    steps=st.lists(STEP, max_size=4),
    size=st.sampled_from([1, 7, 33]),
    dtype=st.sampled_from(["uint8", "uint32"]),
)
def test_chains_of_keys(seed, steps, size, dtype):
    ours, theirs = new(seed), jax.random.key(seed)
    for kind, number in steps:
        if kind == "split":
            ours, theirs = (jax.random.split(key, number)[number - 1] for key in (ours, theirs))
        else:
            data = np.uint32(number)
            ours, theirs = (jax.random.fold_in(key, data) for key in (ours, theirs))
    assert_same_bits(prng.to_threefry(ours), theirs)
    assert_same_bits(jax.random.bits(ours, (size,), dtype), jax.random.bits(theirs, (size,), dtype))


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("seed", [0, 1, -1, 2**31, 2**32 + 5, 2**63 - 1, -(2**63)])
def test_seeds(seed, x64):
    with jax.enable_x64(x64):
        assert_same_bits(prng.to_threefry(new(seed)), jax.random.key(seed))


def test_traced_seeds():
    seeds = np.array([0, 7, -1, 2**31 - 1], np.int32)
    got = jax.jit(jax.vmap(lambda seed: jax.random.key(seed, impl=prng.impl)))(seeds)
    assert_same_bits(prng.to_threefry(got), jax.vmap(jax.random.key)(seeds))


# Every sampler of jax.random, called in a way that suits it.
CALLS = {
    "ball": ((3,), {}),
    "beta": ((1.0, 2.0), {}),
    "binomial": ((9.0, 0.4), {}),
    "bernoulli": ((0.3,), {}),
    "categorical": ((np.arange(5.0),), {}),
    "chisquare": ((3.0,), {}),
    "choice": ((9, (4,)), {}),
    "dirichlet": ((np.ones(3, np.float32),), {}),
    "double_sided_maxwell": ((0.0, 1.0), {}),
    "f": ((2.0, 3.0), {}),
    "gamma": ((0.5,), {}),
    "generalized_normal": ((2.0, (3,)), {}),
    "geometric": ((0.3,), {}),
    "loggamma": ((1.5,), {}),
    "multinomial": ((9.0, np.array([0.2, 0.8], np.float32)), {}),
    "multivariate_normal": ((np.zeros(2, np.float32), np.eye(2, dtype=np.float32)), {}),
    "orthogonal": ((3,), {}),
    "pareto": ((2.0,), {}),
    "permutation": ((9,), {}),
    "randint": (((9,), -3, 1000), {}),
    "rayleigh": ((1.0,), {}),
    "t": ((3.0,), {}),
    "triangular": ((0.0, 0.5, 1.0), {}),
    "truncated_normal": ((-1.0, 2.0), {}),
    "wald": ((1.0,), {}),
    "weibull_min": ((1.0, 2.0), {}),
}
NO_SAMPLERS = {
    *("PRNGKey", "clone", "fold_in", "key", "key_data", "key_dtype", "key_impl", "split"),
    *("wrap_key_data", "poisson"),  # jax makes that one for its own threefry keys only
}
SAMPLERS = sorted(
    name
    for name, value in vars(jax.random).items()
    if inspect.isroutine(value) and name[0] != "_" and name not in NO_SAMPLERS
)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_the_same_program_but_for_the_type_of_its_key(name):
    args, kwargs = CALLS.get(name, ((), {}))

    def draw(key):
        return getattr(jax.random, name)(key, *args, **kwargs)

    with jax.numpy_rank_promotion("allow"):
        ours, theirs = (str(jax.make_jaxpr(draw)(key)) for key in (new(), jax.random.key(42)))
    assert "key<sb>" in ours and "random_" in ours
    assert ours.replace("key<sb>", "key<fry>") == theirs


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_is_lowered_to_the_same_operations(name, monkeypatch):
    # jax asks, where it lowers gamma variates, whether a key is of its own threefry.
    monkeypatch.setattr(cipher, "MIN_WORDS", 1 << 40)  # jax's cipher makes all words
    args, kwargs = CALLS.get(name, ((), {}))

    def operations(key):
        draw = jax.jit(lambda key: getattr(jax.random, name)(key, *args, **kwargs))
        return sorted(re.findall(r"(?:stablehlo|chlo|func)\.\w+", draw.lower(key).as_text()))

    with jax.numpy_rank_promotion("allow"):
        ours, theirs = operations(new()), operations(jax.random.key(42))
    assert ours == theirs and len(theirs) > 9


# Samplers of gamma variates, which jax makes in another way for keys that are not its own: with
# parameters for which that way rounds otherwise.
GAMMAS = {
    "loggamma": (2.0, (600,)),
    "beta": (1.0, 2.0, (600,)),
    "f": (3.0, 4.0, (600,)),
    "generalized_normal": (1.5, (20, 30)),
    "ball": (3, 2.0, (200,)),
}


@pytest.mark.parametrize("name", GAMMAS)
def test_gamma_variates(name):
    def draw(key):
        return getattr(jax.random, name)(key, *GAMMAS[name])

    assert_same_bits(jax.jit(draw)(new()), jax.jit(draw)(jax.random.key(42)))


SHORT_ROWS = {
    "truncated_normal": lambda key: jax.random.truncated_normal(key, -1.5, 2.0, (103, 5)),
    "t": lambda key: jax.random.t(key, 3.0, (103, 5)),
}


@pytest.mark.parametrize("name", SHORT_ROWS)
def test_samplers_whose_rows_xla_unrolls(name):
    keys = jax.random.split(jax.random.key(3), 7)
    rows = jax.jit(jax.vmap(SHORT_ROWS[name]))
    assert_same_bits(rows(prng.from_threefry(keys)), rows(keys))


def test_what_xla_rounds_by_its_loop():
    # As docs/keys.md says.
    keys = jax.random.split(jax.random.key(3), 7)

    def rows(keys):
        return jax.lax.scan(lambda c, k: (c, jax.random.cauchy(k, (600,))), 0, keys)[1]

    got, want = (jax.jit(rows)(each) for each in (prng.from_threefry(keys), keys))
    alone = jax.vmap(lambda k: jax.random.cauchy(k, (600,)))(keys)
    assert_same_bits(got, want, either=alone)
    assert_same_bits(got, want, ulps=2)


def test_gamma_variates_of_many_keys():
    alpha = np.array([[0.3, 1.0, 2.5], [4.0, 0.7, 9.0]], np.float32)

    def draw(key):
        keys = jax.random.split(key, (3, 2))
        one = functools.partial(jax.random.loggamma, shape=(3,))
        rows = jax.vmap(jax.vmap(one), (0, None))(keys, alpha)
        slopes = jax.grad(lambda a: jax.random.gamma(key, a, (7,)).sum())(2.5)
        return rows, jax.vmap(one, (0, None))(keys[:, 0], 2.0), slopes

    def empty(key):
        return jax.random.gamma(key, 2.0, (0, 3)), jax.random.gamma(key, 2.0)

    for program in (draw, empty):
        assert_same_bits(jax.jit(program)(new()), jax.jit(program)(jax.random.key(42)))


def test_what_jax_makes_for_threefry_keys_only():
    with pytest.raises(NotImplementedError, match="only implemented for the threefry2x32 RNG"):
        jax.random.poisson(new(), 3.0)
    got = jax.random.poisson(prng.to_threefry(new()), 3.0, (4,))
    assert_same_bits(got, jax.random.poisson(jax.random.key(42), 3.0, (4,)))


def test_types_names_and_copies():
    key = new()
    assert jax.random.key_impl(key) == "seedbed" and str(key.dtype) == "key<sb>"
    assert_same_bits(jax.random.key(42, impl="seedbed"), key)
    assert_same_bits(jax.random.clone(key), key)
    words = np.asarray(jax.random.key_data(key))
    assert_same_bits(words, np.array([0, 42], np.uint32))
    restored = jax.random.wrap_key_data(words, impl=prng.impl)  # as from a checkpoint
    assert_same_bits(restored, key)
    copied = pickle.loads(pickle.dumps(key))
    assert copied.dtype == key.dtype
    assert_same_bits(jax.random.bits(copied), jax.random.bits(jax.random.key(42)))
    assert "sb" in repr(key)
    mixed = jax.eval_shape(lambda k: (jax.random.split(k, (2, 3)), jax.random.bits(k, (4,))), key)
    assert mixed[0].shape == (2, 3) and mixed[0].dtype == key.dtype and mixed[1].shape == (4,)


@pytest.mark.parametrize("shape", [(), (0,), (2, 3)])
def test_conversions(shape):
    keys = jax.random.split(jax.random.key(1), shape)
    legacy = jax.random.key_data(keys)
    for given in (keys, legacy, np.asarray(legacy)):
        got = prng.from_threefry(given)
        assert got.shape == shape and jax.random.key_impl(got) == "seedbed"
        assert_same_bits(prng.to_threefry(got), keys)
    assert_same_bits(jax.jit(lambda k: prng.to_threefry(prng.from_threefry(k)))(keys), keys)


@pytest.mark.parametrize(
    ("convert", "make", "message"),
    [
        (
            "from_threefry",
            new,
            r"type 'threefry2x32' or legacy words .* got keys of type 'seedbed'",
        ),
        ("from_threefry", lambda: jnp.zeros(3, jnp.uint32), r"got uint32\[3\]"),
        ("from_threefry", lambda: np.zeros(2, np.int32), r"got int32\[2\]"),
        ("from_threefry", lambda: 7, "got int$"),
        ("from_threefry", lambda: jax.random.key(0, impl="rbg"), "got keys of type 'rbg'"),
        ("to_threefry", lambda: jax.random.key(0), "`key` must be typed keys of type 'seedbed', "),
        ("to_threefry", lambda: jnp.zeros(2, jnp.uint32), r"got uint32\[2\]"),
    ],
)
def test_bad_conversions(convert, make, message):
    with pytest.raises(TypeError, match=message):
        getattr(prng, convert)(make())


def test_reuse_is_found():
    def twice(key):
        return jax.random.bits(key) + jax.random.bits(key)

    with jax.debug_key_reuse(True):
        with pytest.raises(jax.errors.KeyReuseError):
            jax.jit(twice)(new())
        one, two = jax.random.split(new())
        assert jax.random.bits(one) != jax.random.bits(two)


def test_keys_that_are_not_partitionable(native):
    def program(key):
        return jax.random.bits(key, (5,), "uint16"), jax.random.key_data(jax.random.split(key, 3))

    with jax.threefry_partitionable(False):
        assert not custom_calls(program, new())
        expected = jax.jit(program)(jax.random.key(42))
        assert_same_bits(jax.jit(program)(new()), expected)
        assert_same_bits(program(new()), expected)
    assert custom_calls(program, new()) == 2
    assert mismatches(jax.jit(program)(new())[0], expected[0]).any()


def draws(key):
    keys = jax.random.split(key, 8)
    return jax.vmap(lambda k: jax.random.bits(jax.random.fold_in(k, 1), (6,)))(keys)


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_over_devices(kind):
    # XLA splits the arrays, so that its own cipher, which it can split too, makes the numbers.
    mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    sharding = NamedSharding(mesh, P("d"))
    keys = jax.device_put(jax.random.split(new(), 8), sharding)
    expected = jax.jit(jax.vmap(draws))(jax.random.split(jax.random.key(42), 8))
    with jax.set_mesh(mesh):
        run = jax.jit(jax.vmap(draws))
        assert "@seedbed_" not in run.lower(keys).as_text()
        got = run(keys)
    assert got.sharding.is_equivalent_to(sharding, got.ndim)
    assert_same_bits(np.asarray(got), np.asarray(expected))


def test_exported_programs_need_no_seedbed():
    def program(words, x):
        keys = jax.random.wrap_key_data(words, impl=prng.impl)
        folded = jax.vmap(jax.random.fold_in, (0, None))(keys, 3)
        pairs = jax.vmap(lambda key: jax.random.split(key, 2))(folded)
        return jax.vmap(lambda key: jax.random.bits(key, x.shape))(pairs[:, 1])

    (some,) = jax.export.symbolic_shape("n")
    for keys, size in ((3, 5), (some, 5), (3, some)):
        words, x = jax.ShapeDtypeStruct((keys, 2), np.uint32), jax.ShapeDtypeStruct((size,), "f4")
        exported = jax.export.export(jax.jit(program))(words, x)
        assert "seedbed_" not in exported.mlir_module()
    words, x = jax.random.key_data(jax.random.split(jax.random.key(42), 3)), np.zeros(5, "f4")
    assert_same_bits(exported.call(words, x), jax.jit(program)(words, x))


def test_the_backend_is_chosen_when_a_program_is_compiled(monkeypatch, native):
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    assert not custom_calls(lambda key: draws(key), new())
    monkeypatch.setenv("SEEDBED_BACKEND", "native")
    assert custom_calls(lambda key: draws(key), new()) == 3
    monkeypatch.setenv("SEEDBED_BACKEND", "cuda")
    with pytest.raises(ValueError, match="SEEDBED_BACKEND is 'cuda'"):
        custom_calls(lambda key: draws(key), new())


def test_a_few_words_are_left_to_jax(monkeypatch, native):
    monkeypatch.setattr(cipher, "MIN_WORDS", 10)
    for size, calls in ((9, 0), (10, 1)):
        assert custom_calls(lambda key, n=size: jax.random.bits(key, (n,)), new()) == calls
        assert custom_calls(lambda key, n=size: jax.random.split(key, n), new()) == calls


def test_it_works_without_the_extension(monkeypatch):
    monkeypatch.setattr(_native, "load", lambda: (None, "the extension is not built"))
    if not native_problem().startswith("SEEDBED_BACKEND"):
        monkeypatch.setenv("SEEDBED_BACKEND", "auto")
    assert not custom_calls(lambda key: draws(key), new())
    assert_same_bits(jax.jit(lambda key: draws(key))(new()), draws(jax.random.key(42)))
