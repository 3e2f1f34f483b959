"""`seedbed.random` in place of `jax.random`: the same bits, and what is remembered of calls."""

from __future__ import annotations

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
from helpers import assert_same_bits
from sampler_calls import FUSED, KEY, SQUARE, THREE, WIDE, WORDS, made_by, run
from seedbed import random
from seedbed._random import cipher, samplers
from seedbed._run import native as _native

pytestmark = pytest.mark.shared

# --- the same numbers -------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _words_are_native_however_few(monkeypatch):
    monkeypatch.setattr(cipher, "MIN_WORDS", 0)


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


@pytest.mark.parametrize("size", [7, 700])
def test_what_varies_over_devices_is_said_to(size):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))

    def mapped(module, out):
        def part(key, scale):
            key = module.fold_in(key, jax.lax.axis_index("d"))

            def step(x, key):  # whose carry has one type, before and after
                return jnp.maximum(x * scale[0], module.normal(key, (size,))), None

            keys = module.split(key, 3)
            return jax.lax.scan(step, module.normal(key, (size,)), keys)[0][None]

        return jax.shard_map(part, mesh=mesh, in_specs=(P(), P("d")), out_specs=out)

    scale = np.arange(1, 5, dtype=np.float32)
    expected = jax.jit(mapped(jax.random, P("d")))(KEY, scale)
    assert_same_bits(np.asarray(jax.jit(mapped(random, P("d")))(KEY, scale)), np.asarray(expected))
    with pytest.raises(ValueError, match="out_specs"):
        mapped(random, P())(KEY, scale)


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
    monkeypatch.setattr(samplers, "_KEPT", 3)
    programs = samplers.Programs(jax.random.split)

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


def test_numbers_beside_arrays_are_traced_once(native, monkeypatch):
    traced, trace = [], samplers._traced
    monkeypatch.setattr(samplers, "_traced", lambda *args: traced.append(args) or trace(*args))
    programs = samplers.Programs(jax.random.uniform)
    low = np.zeros(5, np.float32)
    for number in range(6):
        args = (KEY, (5,), "float32", low, 1.5 + number)
        assert_same_bits(programs.call(args, {}), jax.random.uniform(*args))
    assert len(traced) == 1 and len(programs._made) == 1


def test_counts_are_dropped_in_time(native, monkeypatch):
    monkeypatch.setattr(samplers, "_KEPT", 3)
    monkeypatch.setattr(samplers, "_drawn", lambda closed: samplers._JAX)
    programs = samplers.Programs(jax.random.uniform)
    for size in range(1, 9):
        programs.made_by(KEY, (size,), "float32", 0.25, 1.5)
    assert len(programs._numbers) == len(programs._made) == 3


def test_the_key_by_name_after_other_arrays(native):
    words = np.array([3, 4], np.uint32)
    made = random.permutation.programs.made_by
    assert made(x=words, key=KEY) == made(KEY, words) == "words"
    assert_same_bits(random.permutation(x=words, key=KEY), jax.random.permutation(KEY, words))


def test_objects_that_stand_for_arrays_may_change():
    class Weights:
        def __jax_array__(self):
            return jnp.asarray(self.values)

    weights = Weights()
    for weights.values in (THREE, THREE[::-1]):
        got = random.choice(KEY, weights, (9,))
        assert_same_bits(got, jax.random.choice(KEY, weights, (9,)))


def test_without_jit_the_numbers_are_those_of_jax_without_jit():
    random.normal(KEY, (9,))
    with jax.disable_jit():
        assert made_by("normal", ((9,),)) == "jax"
        assert_same_bits(random.normal(KEY, (9,)), jax.random.normal(KEY, (9,)))


def test_threads_leave_the_filters_of_warnings_alone():
    before = list(warnings.filters), warnings.showwarning
    programs = samplers.Programs(jax.random.split)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda size: programs.made_by(KEY, size), range(1, 25)))
    assert (list(warnings.filters), warnings.showwarning) == before
