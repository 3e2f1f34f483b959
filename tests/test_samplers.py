"""`seedbed.random` in place of `jax.random`: the same signatures, types, errors and bits."""

from __future__ import annotations

import inspect
import pickle
import re
import types
import warnings
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import keyed
import seedbed as sb
from helpers import ROOT, assert_same_bits, native_problem
from seedbed import _cipher, _native, _samplers, random

KEY = jax.random.key(11)
SQUARE = np.array([[2.0, 0.25], [0.25, 1.0]], np.float32)
THREE = np.array([0.1, 0.2, 0.7], np.float32)

# What makes the result of calls, beside the docs: (function, arguments).
FUSED = [
    *[("uniform", (shape,)) for shape in ((), (0,), (2, 0, 3), (2, 7), [9])],
    *[("uniform", ((9,), dtype, -3.0, 0.7)) for dtype in ("float16", "bfloat16", "float32")],
    *[("normal", ((2, 7), dtype)) for dtype in ("float16", "bfloat16", "float32")],
    ("normal", ()),
    *[("bits", ((33,), dtype)) for dtype in ("uint8", "uint16", "uint32")],
    *[("randint", ((9,), 2, 77, dtype)) for dtype in ("uint8", "int16", "uint32", "int8", "int32")],
    ("truncated_normal", (-2.0, 2.0, (9,))),
    ("truncated_normal", (-1.5, 2.0, (9,), "bfloat16")),
    ("bernoulli", ()),
    ("bernoulli", (0.3, (9,))),
    ("gumbel", ((9,), "float16")),
    ("choice", (10, (4,))),
    ("split", ()),
    ("split", ((2, 3),)),
    ("fold_in", (2**32 - 1,)),
    ("fold_in", (np.array(-7, np.int32),)),
]
WORDS = [
    *[(name, ((2, 7),)) for name in ("exponential", "gumbel", "laplace", "logistic", "cauchy")],
    *[(name, ((2, 7),)) for name in ("rademacher", "maxwell")],
    ("uniform", ((2, 3), "float32", THREE, 1.0)),
    ("randint", ((9,), np.int32(-5), np.array(5))),
    ("truncated_normal", (-1.5, 2.0, (9,))),
    ("bernoulli", (THREE,)),
    ("bernoulli", (0.3, (9,), "high")),
    ("geometric", (0.3, (9,))),
    ("triangular", (0.0, 0.3, 1.0, (9,))),
    ("pareto", (2.0, (9,))),
    ("rayleigh", (2.0, (9,))),
    ("weibull_min", (1.0, 2.0, (9,))),
    ("lognormal", (0.5, (9,))),
    ("double_sided_maxwell", (0.0, 1.0, (9,))),
    ("wald", (1.0, (9,))),
    ("multivariate_normal", (SQUARE[0], SQUARE, (8,))),
    ("orthogonal", (6,)),
    ("categorical", (np.zeros((3, 7), np.float32), 0)),
    ("choice", (np.arange(8.0), (4,), False)),
    ("choice", (3, (4,), True, THREE)),
    ("permutation", (9,)),
    ("permutation", (np.arange(12.0).reshape(3, 4), 1, True)),
    ("binomial", (10.0, 0.3, (9,))),
    ("multinomial", (10.0, THREE)),
]
JAXS = [
    ("gamma", (1.5, (2,))),
    ("loggamma", (1.5, (2,))),
    ("beta", (1.0, 2.0, (2,))),
    ("dirichlet", (THREE,)),
    ("chisquare", (3.0, (2,))),
    ("f", (3.0, 4.0, (2,))),
    ("t", (3.0, (2,))),
    ("generalized_normal", (1.5, (2,))),
    ("ball", (3, 2.0)),
    ("poisson", (3.0, (2,))),
]
WIDE = [
    ("uniform", ((2, 7), "float64")),
    ("uniform", ((9,), None, -3, 1)),
    ("bits", ((9,), "uint64")),
    ("randint", ((9,), -(2**40), 2**40, "int64")),
    ("bernoulli", (0.3, (9,))),
    ("normal", ((9,), "float64")),
    ("normal", ((9,), "complex64")),
    ("normal", ((9,), "float32")),
    ("split", (3,)),
]
SAMPLERS = sorted(name for name in random.__all__ if hasattr(getattr(random, name), "programs"))


def run(module, cases, key=KEY):
    with jax.numpy_rank_promotion("allow"):  # jax's own functions need it
        return [getattr(module, name)(key, *args) for name, args in cases]


def made_by(name, args, key=KEY, **kwargs):
    with jax.numpy_rank_promotion("allow"):
        return getattr(random, name).programs.made_by(key, *args, **kwargs)


# --- the same numbers -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _words_are_native_however_few(monkeypatch):
    monkeypatch.setattr(_cipher, "MIN_WORDS", 0)


def test_fused():
    expected = jax.jit(lambda key: run(jax.random, FUSED, key))(KEY)
    assert_same_bits(run(random, FUSED), expected)
    assert_same_bits(jax.jit(lambda key: run(random, FUSED, key))(KEY), expected)


def test_words(native):
    expected = jax.jit(lambda key: run(jax.random, WORDS, key))(KEY)
    assert_same_bits(jax.jit(lambda key: run(random, WORDS, key))(KEY), expected)


def test_outside_of_jit_the_last_bits_are_those_of_jax_outside_of_jit():
    cases = [*WORDS[9:14:2], *WORDS[-4:-2], FUSED[3], FUSED[6], FUSED[-6]]
    assert_same_bits(run(random, cases), run(jax.random, cases))


def test_legacy_keys():
    legacy = jax.random.PRNGKey(5)
    cases = [*FUSED[-8:], *WORDS[:2]]
    expected = run(jax.random, cases, legacy)
    assert_same_bits(run(random, cases, legacy), expected)
    assert_same_bits(run(random, cases[-5:], np.asarray(legacy)), expected[-5:])


def test_64_bits():
    with jax.enable_x64(True):
        expected = jax.jit(lambda key: run(jax.random, WIDE, key))(KEY)
        assert_same_bits(jax.jit(lambda key: run(random, WIDE, key))(KEY), expected)
        assert random.uniform(KEY).dtype == np.float64
    assert random.uniform(KEY).dtype == np.float32


@pytest.mark.parametrize("name", [name for name in keyed.PROGRAMS if "uint" not in name])
def test_programs(name, native, monkeypatch):
    expected = keyed.expected(name)
    namespace = types.SimpleNamespace(**vars(jax) | {"random": random})
    monkeypatch.setattr(keyed, "jax", namespace)
    assert_same_bits(jax.jit(lambda key: keyed.PROGRAMS[name](key))(jax.random.key(42)), expected)


def test_keys_as_arguments_by_name_and_keys_of_our_own():
    expected = jax.random.normal(KEY, (4,))
    assert_same_bits(random.normal(shape=(4,), key=KEY), expected)
    ours = sb.prng.from_threefry(KEY)
    assert_same_bits(random.normal(ours, (4,)), expected)
    assert_same_bits(sb.prng.to_threefry(random.split(ours)), jax.random.split(KEY))
    assert_same_bits(random.fold_in(KEY, data=3), jax.random.fold_in(KEY, 3))


def test_other_generators_are_jaxs():
    for impl in ("rbg", "unsafe_rbg"):
        key = jax.random.key(3, impl=impl)
        assert_same_bits(run(random, FUSED[-4:], key), run(jax.random, FUSED[-4:], key))
        assert made_by("normal", (), key) == "jax"
    with jax.default_prng_impl("rbg"):
        legacy = jax.random.PRNGKey(0)
        assert_same_bits(random.uniform(legacy, (3,)), jax.random.uniform(legacy, (3,)))


def test_gradients_of_parameters():
    def loss(module):
        def function(low, high, mean):
            ranged = module.uniform(KEY, (6,), minval=low, maxval=high)
            normal = module.multivariate_normal(KEY, mean, SQUARE)
            cut = module.truncated_normal(KEY, low - 1.0, high, (6,))
            return (ranged**2).sum() + (normal**2).sum() + cut.sum()

        gradient = jax.grad(jax.checkpoint(function), (0, 1, 2))
        return jax.jit(gradient)(0.25, 1.5, SQUARE[0])

    with jax.numpy_rank_promotion("allow"):
        assert_same_bits(loss(random), loss(jax.random))


def test_few_numbers_inside_of_a_program_are_left_to_xla(native):
    def calls(size):
        draw = jax.jit(lambda key: random.normal(key, (size,)))
        assert_same_bits(draw(KEY), jax.random.normal(KEY, (size,)))
        return draw.lower(KEY).as_text().count(_native.TARGET)

    assert [calls(7), calls(700)] == [0, 1]
    many = jax.jit(jax.vmap(lambda key: random.normal(key, (7,))))
    assert _native.TARGET in many.lower(jax.random.split(KEY, 100)).as_text()


def test_shapes_without_numbers():
    shapes = jax.eval_shape(lambda key: (random.normal(key, (2, 5)), random.split(key)), KEY)
    expected = jax.eval_shape(
        lambda key: (jax.random.normal(key, (2, 5)), jax.random.split(key)), KEY
    )
    assert shapes == expected


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_over_devices(kind):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    sharding = NamedSharding(mesh, P("d"))
    keys = jax.random.split(KEY, 8)
    expected = jax.vmap(jax.random.normal, (0, None))(keys, (6,))
    with jax.set_mesh(mesh):
        got = jax.jit(jax.vmap(lambda key: random.normal(key, (6,))))(
            jax.device_put(keys, sharding)
        )
        assert got.sharding.is_equivalent_to(sharding, got.ndim)
        assert_same_bits(np.asarray(got), np.asarray(expected))
        if kind == "Explicit":
            alone = random.normal(KEY, (8,), out_sharding=sharding)
            assert alone.sharding.is_equivalent_to(sharding, 1)
            assert_same_bits(np.asarray(alone), np.asarray(jax.random.normal(KEY, (8,))))


def test_exported_programs_need_no_seedbed():
    def program(words, x):
        return random.normal(words, x.shape), random.split(words)

    size = jax.export.symbolic_shape("n")
    for shape in (size, (5,)):
        like = [jax.ShapeDtypeStruct((2,), np.uint32), jax.ShapeDtypeStruct(shape, np.float32)]
        exported = jax.export.export(jax.jit(program))(*like)
        assert _native.TARGET not in exported.mlir_module()
    words = jax.random.key_data(KEY)
    got = exported.call(words, np.zeros(5, np.float32))
    assert_same_bits(got[0], jax.random.normal(KEY, (5,)))


def test_in_an_ensemble():
    def init(module):
        def function(key, scale):
            w, b = module.split(key)
            more = module.truncated_normal(module.fold_in(b, 3), -2.0, 2.0, (13,))
            return scale * module.normal(w, (2, 13)), module.uniform(b, (9,)) * 0.1, b, more

        return function

    ours, theirs = (sb.ensemble(init(module), 5) for module in (random, jax.random))
    assert_same_bits(ours(KEY, 0.5), theirs(KEY, 0.5))
    assert ours.plan(KEY, 0.5).explain() == theirs.plan(KEY, 0.5).explain()


# --- what is remembered -----------------------------------------------------------------


def test_numbers_that_are_equal_but_not_the_same():
    for low in (0.0, -0.0, 0, np.float32(-0.0)):
        got = random.uniform(KEY, (4,), minval=low, maxval=1e-45)
        assert_same_bits(got, jax.random.uniform(KEY, (4,), minval=low, maxval=1e-45))
    for number in (1, 2.5, np.int64(1), np.float32(2.5), np.bool_(True), True):
        assert_same_bits(random.fold_in(KEY, number), jax.random.fold_in(KEY, number))
    random.normal(KEY, (1, 3))
    for wrong in ((1.0, 3), (True, 3.0)):
        with pytest.raises(TypeError, match="[Ss]hape"):
            random.normal(KEY, wrong)
    assert random.choice(KEY, 4, (2,), 1).shape == random.choice(KEY, 4, (2,), True).shape


def test_many_numbers_share_a_program(native):
    programs = random.uniform.programs
    for number in range(12):
        high = 1.5 + number
        got = random.uniform(KEY, (5,), "float32", 0.25, high)
        assert_same_bits(got, jax.random.uniform(KEY, (5,), "float32", 0.25, high))
    before = len(programs._made)
    for number in range(20, 25):
        random.uniform(KEY, (5,), "float32", 0.25, 0.5 + number)
    assert len(programs._made) == before
    # Inside a function that jax traces they are constants, as before.
    traced = jax.jit(lambda key: random.uniform(key, (5,), "float32", 0.25, 77.0))
    assert str(jax.make_jaxpr(traced)(KEY)).count("seedbed_draw[") == 1
    # A length is no operand, and each has a program.
    for number in range(12):
        got = random.split(KEY, 2 + number)
        assert_same_bits(got, jax.random.split(KEY, 2 + number))


def test_programs_are_dropped_in_time(native, monkeypatch):
    monkeypatch.setattr(_samplers, "_KEPT", 3)
    programs = _samplers.Programs(jax.random.split)

    def shape(size):
        return programs.call((KEY, size), {}).shape

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(shape, range(1, 9))) == [(size,) for size in range(1, 9)]
    assert len(programs._made) == 3


def test_settings_that_change(native, monkeypatch):
    def text(key):
        return jax.jit(lambda key: random.normal(key, (999,))).lower(key).as_text()

    assert _native.TARGET in text(KEY)
    expected = jax.random.normal(KEY, (999,))
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    assert _native.TARGET not in text(KEY) and made_by("normal", ((999,),)) == "jax"
    assert_same_bits(random.normal(KEY, (999,)), expected)
    monkeypatch.setenv("SEEDBED_BACKEND", "cuda")
    with pytest.raises(ValueError, match="SEEDBED_BACKEND is 'cuda'"):
        random.normal(KEY, (999,))
    monkeypatch.setenv("SEEDBED_BACKEND", "auto")
    assert made_by("normal", ((999,),)) != "jax"
    with jax.threefry_partitionable(False):
        assert_same_bits(random.normal(KEY, (999,)), jax.random.normal(KEY, (999,)))
        assert made_by("normal", ((999,),)) == "jax"


def test_key_reuse_is_found():
    key = jax.random.key(1)
    random.normal(key, (3,))
    with jax.debug_key_reuse(True):
        random.normal(key, (3,))
        with pytest.raises(jax.errors.KeyReuseError):
            random.normal(key, (3,))


def test_legacy_keys_that_are_not_allowed():
    legacy = jax.random.PRNGKey(0)
    random.normal(legacy, (3,))
    with jax.legacy_prng_key("error"), pytest.raises(ValueError, match="Legacy uint32 key array"):
        random.normal(legacy, (3,))


def test_what_jax_warns_about_it_warns_about_each_time():
    for _ in range(2):
        with pytest.warns(UserWarning, match="float64.* is not available"):
            assert random.normal(KEY, (3,), "float64").dtype == np.float32


# --- the same functions -----------------------------------------------------------------


def test_every_public_function_is_there():
    public = {
        name
        for name in dir(jax.random)
        if not name.startswith("_") and callable(getattr(jax.random, name))
    }
    assert public <= set(random.__all__) and len(SAMPLERS) >= 38
    for name in public - set(SAMPLERS):
        assert getattr(random, name) is getattr(jax.random, name)
    assert {name for name, _ in (*FUSED, *WORDS, *JAXS)} == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_function_is_described_as_jaxs(name):
    ours, theirs = getattr(random, name), getattr(jax.random, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert inspect.isfunction(ours) and ours.__name__ == name
    assert f"jax.random.{name}" in ours.__doc__
    assert pickle.loads(pickle.dumps(ours)) is ours


MISUSE = {
    "no arguments": lambda m: m.normal(),
    "no data": lambda m: m.fold_in(KEY),
    "unknown argument": lambda m: m.uniform(KEY, size=3),
    "shape twice": lambda m: m.normal(KEY, (3,), shape=(3,)),
    "no key": lambda m: m.normal(0, (3,)),
    "None for a key": lambda m: m.split(None),
    "text for a key": lambda m: m.uniform("key"),
    "keys": lambda m: m.normal(jax.random.split(KEY), (3,)),
    "keys to split": lambda m: m.split(jax.random.split(KEY)),
    "keys to fold": lambda m: m.fold_in(jax.random.split(KEY), 1),
    "words of another type": lambda m: m.bits(np.zeros(2, np.int32)),
    "too many words": lambda m: m.bits(np.zeros(3, np.uint32)),
    "legacy keys": lambda m: m.bits(np.zeros((4, 2), np.uint32)),
    "a wrong dtype": lambda m: m.normal(KEY, (3,), "int32"),
    "a wrong dtype of bits": lambda m: m.bits(KEY, (3,), "float32"),
    "no dtype": lambda m: m.uniform(KEY, (3,), "float33"),
    "a negative length": lambda m: m.uniform(KEY, (-3,)),
    "a shape of text": lambda m: m.uniform(KEY, "ab"),
    "a shape that does not fit": lambda m: m.bernoulli(KEY, THREE, (7,)),
    "a list": lambda m: m.bernoulli(KEY, [0.1, 0.2]),
    "data of two numbers": lambda m: m.fold_in(KEY, np.arange(2)),
    "negative data": lambda m: m.fold_in(KEY, -1),
    "data that is too large": lambda m: m.fold_in(KEY, 2**32),
    "negative data by name": lambda m: m.fold_in(KEY, data=-1),
    "bounds that are too large": lambda m: m.randint(KEY, (3,), 0, 2**31),
    "axis": lambda m: m.categorical(KEY, THREE, axis=2),
    "too many to choose": lambda m: m.choice(KEY, 3, (4,), replace=False),
    "nothing to choose": lambda m: m.choice(KEY, 0, (4,)),
    "no array to permute": lambda m: m.permutation(KEY, 1.5),
    "a mode": lambda m: m.gumbel(KEY, (3,), mode="middle"),
    "a traced shape": lambda m: jax.jit(lambda n: m.normal(KEY, (n,)))(3),
    "a traced number of keys": lambda m: jax.jit(lambda n: m.split(KEY, n))(3),
    "a traced choice": lambda m: jax.jit(lambda n: m.permutation(KEY, n))(3),
}


@pytest.mark.parametrize("slip", MISUSE)
def test_errors_are_jaxs(slip):
    def message(module):
        with pytest.raises(Exception) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MISUSE[slip](module)
        lines = str(caught.value).splitlines()
        return type(caught.value), re.sub(r"0x[0-9a-f]+", "0x", lines[0] if lines else "")

    first = message(random)
    assert first == message(jax.random)
    assert message(random) == first  # remembered or not


# --- the page ---------------------------------------------------------------------------


def test_the_table_of_the_page_is_true(native):
    text = (ROOT / "docs" / "random.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    said = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(said) == set(SAMPLERS)
    for name, args in FUSED[5:]:
        if name not in ("gumbel", "choice"):
            assert said[name] == "fused", name
        assert made_by(name, args) not in ("words", "jax"), name
    usual = set(said) - {name for name, kind in said.items() if kind == "fused"}
    for cases, kind in ((WORDS, "words"), (JAXS, "jax")):
        for name, args in cases:
            if name in usual:
                assert said[name] == kind, name
            assert made_by(name, args) == kind, name
    for dtype in ("float64", "complex64"):
        with jax.enable_x64(True):
            assert made_by("normal", ((9,), dtype)) == "words"


def test_jaxs_own_functions_are_called_as_they_are():
    cases = JAXS[:1]
    assert_same_bits(run(random, cases), run(jax.random, cases))


def test_types_without_a_plan_of_their_own():
    assert made_by("normal", ((3,),), jax.random.key(0, impl="rbg")) == "jax"
    if not native_problem():
        assert made_by("normal", ((3,),), out_sharding=None) == "normal"
    assert jnp.issubdtype(random.key(0).dtype, jax.dtypes.prng_key)
