"""The promise: an ensemble has, bit for bit, the numbers of ``jit(vmap(init))(split(key, n))``."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seedbed as sb
from helpers import as_words, assert_same_bits, chunks, native_problem, oracle, run_python
from programs import programs

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

SHAPES = ((0, 4), (2, 3, 1, 8))
# Every draw in one of these too; the oracle's compilation is what the tests wait for.
MORE_SHAPES = ((), (17,))
# Around the vector widths of every instruction set, and one more than a power of two.
SIZES = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 255, 257, 1023, 1025)

uniform, normal, truncated = jax.random.uniform, jax.random.normal, jax.random.truncated_normal


def _randint(low, high, dtype):
    return lambda key, shape: jax.random.randint(key, shape, low, high, dtype)


DRAWS = {
    "bits8": lambda key, shape: jax.random.bits(key, shape, jnp.uint8),
    "bits16": lambda key, shape: jax.random.bits(key, shape, jnp.uint16),
    "bits32": lambda key, shape: jax.random.bits(key, shape),
    "uniform": lambda key, shape: uniform(key, shape),
    "uniform-range": lambda key, shape: uniform(key, shape, minval=-0.3, maxval=1.7),
    "uniform-bf16": lambda key, shape: uniform(key, shape, jnp.bfloat16, -1.0, 3.0),
    "uniform-f16": lambda key, shape: uniform(key, shape, jnp.float16, -1.0, 3.0),
    "normal": lambda key, shape: normal(key, shape),
    "normal-bf16": lambda key, shape: normal(key, shape, jnp.bfloat16),
    "normal-f16": lambda key, shape: normal(key, shape, jnp.float16),
    "truncated": lambda key, shape: truncated(key, -2.0, 2.0, shape),
    "truncated-skew": lambda key, shape: truncated(key, -0.5, 3.0, shape),
    "truncated-bf16": lambda key, shape: truncated(key, -2.0, 2.0, shape, jnp.bfloat16),
    "truncated-f16": lambda key, shape: truncated(key, -2.0, 2.0, shape, jnp.float16),
    "exponential": lambda key, shape: jax.random.exponential(key, shape),
    "gumbel": lambda key, shape: jax.random.gumbel(key, shape),
    "laplace": lambda key, shape: jax.random.laplace(key, shape),
    "bernoulli": lambda key, shape: jax.random.bernoulli(key, 0.3, shape),
    "randint": _randint(-5, 10, jnp.int32),
    "randint-all": _randint(-(2**31), 2**31 - 1, jnp.int32),
    "randint-u32": _randint(3, np.uint32(2**32 - 1), jnp.uint32),
    "randint-power": _randint(0, 1 << 16, jnp.uint32),
    "randint-one": _randint(4, 5, jnp.int32),
    "randint-empty": _randint(5, 5, jnp.int32),
    "randint-i8": _randint(-128, 127, jnp.int8),
    "randint-u8": _randint(0, 255, jnp.uint8),
    "randint-i16": _randint(-300, 300, jnp.int16),
    "randint-u16": _randint(1, 65535, jnp.uint16),
}
DRAWS_X64 = {
    "bits64": lambda key, shape: jax.random.bits(key, shape, jnp.uint64),
    "uniform-f64": lambda key, shape: uniform(key, shape, minval=-0.3, maxval=1.7),
    "normal-f64": lambda key, shape: normal(key, shape),
    "truncated-f64": lambda key, shape: truncated(key, -2.0, 2.0, shape),
    "bernoulli-f64": lambda key, shape: jax.random.bernoulli(key, 0.3, shape),
    "randint-i64": _randint(-5, 2**40, jnp.int64),
    "randint-u64": _randint(0, np.uint64(2**64 - 1), jnp.uint64),
    "randint-i32": _randint(-5, 10, jnp.int32),
    "normal-f32": lambda key, shape: normal(key, shape, jnp.float32),
}


def _each(draws, shapes):
    """An init of every draw in every shape, each leaf from its own key."""

    def init(key):
        leaves = [
            (name, shape)
            for position, name in enumerate(draws)
            for shape in (*shapes, MORE_SHAPES[position % 2])
        ]
        return {
            f"{name}{list(shape)}": draws[name](jax.random.fold_in(key, index), shape)
            for index, (name, shape) in enumerate(leaves)
        }

    return init


@pytest.mark.parametrize("names", chunks(DRAWS, 5), ids="+".join)
def test_draws_have_the_bits_of_jax_random(key, names):
    init = _each({name: DRAWS[name] for name in names}, SHAPES)
    assert_same_bits(sb.ensemble(init, 5)(key), oracle(init, 5, key))


@pytest.mark.parametrize("names", chunks(DRAWS_X64, 3), ids="+".join)
def test_draws_with_x64(names):
    with jax.enable_x64(True):
        key = jax.random.key(2**40 + 3)
        init = _each({name: DRAWS_X64[name] for name in names}, [(3, 17)])
        assert_same_bits(sb.ensemble(init, 5)(key), oracle(init, 5, key))


@pytest.mark.parametrize("name", ["bits8", "bits32", "normal", "truncated-f16", "randint-i16"])
def test_every_remainder_of_the_vector_width(native, key, name):
    # An element depends on its index alone, so one long draw is the oracle for shorter ones.
    long = oracle(lambda key: DRAWS[name](key, (1025,)), 3, key)
    got = sb.ensemble(lambda key: [DRAWS[name](key, (size,)) for size in SIZES], 3)(key)
    for size, leaf in zip(SIZES, got, strict=True):
        assert_same_bits(leaf, long[:, :size])


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 33, 300])
def test_every_number_of_members(native, key, size):
    def init(key):
        return {"w": normal(key, (7,)), "b": jax.random.bits(jax.random.fold_in(key, 9), ())}

    expected = {
        "w": jax.vmap(functools.partial(normal, shape=(7,)))(jax.random.split(key, size)),
        "b": jax.vmap(lambda key: jax.random.bits(jax.random.fold_in(key, 9), ()))(
            jax.random.split(key, size)
        ),
    }
    assert_same_bits(sb.ensemble(init, size)(key), expected)


_OF_WORD = [jax.random.exponential, jax.random.gumbel, jax.random.laplace]


@pytest.mark.parametrize("width", [1, 2, 3, 4, 5, 6, 7, 8, 9, 17, 36, 1001])
def test_samplers_of_a_word_in_rows_of_any_length(key, width):
    """Bare ones, and scaled and shifted ones, in rows that XLA unrolls and in their remainders."""

    def init(key):
        a, b = jax.random.split(key)
        return [(draw(a, (3, width)), 0.3 * draw(b, (width,)) + 0.1) for draw in _OF_WORD]

    assert_same_bits(sb.ensemble(init, 257)(key), oracle(init, 257, key))


def test_many_numbers_of_samplers_of_a_word(key):
    def init(key):
        return [draw(key, (100_003,)) for draw in _OF_WORD]

    assert_same_bits(sb.ensemble(init, 3)(key), oracle(init, 3, key))

    def single(key):
        return [-0.7 * draw(key) for draw in _OF_WORD]

    assert_same_bits(sb.ensemble(single, 10_007)(key), oracle(single, 10_007, key))


def test_draws_that_many_threads_share(key):
    def init(key):
        w, b, k = jax.random.split(key, 3)
        return normal(w, (100_003,)), uniform(b, (33, 1001)), jax.random.bits(k, (5,), jnp.uint8)

    assert_same_bits(sb.ensemble(init, 7)(key), oracle(init, 7, key))


# --- keys -------------------------------------------------------------------------------


def _composite(key):
    """Every way of getting from a key to a key, typed or legacy."""
    first, second, third = jax.random.split(key, 3)
    many = jax.random.split(third, 6)

    def layer(key):
        w, b = jax.random.split(key)
        return {
            "w": jax.nn.initializers.he_uniform()(w, (8, 6)),
            "b": uniform(b, (6,), minval=-0.5, maxval=0.5),
        }

    nested = jax.vmap(jax.vmap(layer))(
        many.reshape(2, 3, *many.shape[1:]),
    )
    return {
        "stack": jax.vmap(layer)(jax.random.split(first, 5)),
        "nested": nested,
        "index": [normal(many[i], (6,)) for i in (0, -1)],
        "slice": jax.vmap(lambda key: jax.random.bits(key, (2,)))(many[1:5:2]),
        "fold": jax.random.bits(jax.random.fold_in(second, 2**32 - 1), (9,)),
        "folds": jax.vmap(lambda i: uniform(jax.random.fold_in(second, i), (2,)))(jnp.arange(4)),
        "map": jax.lax.map(lambda key: normal(key, (6,)), many[:2]),
        "scan": jax.lax.scan(_scan_step, second, None, length=3)[1],
        "reused": [uniform(first, (6,)), normal(first, (6,))],
        "key": jax.random.fold_in(key, 3),
    }


def _scan_step(key, _):
    key, now = jax.random.split(key)
    return key, uniform(now, (6,))


def test_key_paths():
    expected = oracle(_composite, 5, jax.random.key(8))
    assert_same_bits(sb.ensemble(_composite, 5)(jax.random.key(8)), expected)
    legacy = {**expected, "key": jax.random.key_data(expected["key"])}
    assert_same_bits(sb.ensemble(_composite, 5)(jax.random.PRNGKey(8)), legacy)


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey], ids=["typed", "legacy"])
@pytest.mark.parametrize("seed", [0, -1, 2**32 - 1])
def test_seeds(make, seed):
    def init(key):
        return jax.random.bits(jax.random.split(key)[1], (4,))

    assert_same_bits(sb.ensemble(init, 3)(make(seed)), oracle(init, 3, make(seed)))


def test_deep_key_chains(native, key):
    def chain(key, depth):
        words = []
        for _ in range(depth):
            key, now = jax.random.split(key)
            words.append(now)
        return words

    got = sb.ensemble(lambda key: chain(key, 400)[::399], 3)(key)
    keys = [chain(one, 400)[::399] for one in jax.random.split(key, 3)]
    assert_same_bits(got, [jnp.stack(column) for column in zip(*keys, strict=True)])


# --- programs nobody thought of ---------------------------------------------------------


@given(program=programs(), seed=st.integers(0, 2**32 - 1), size=st.integers(1, 6))
@settings(max_examples=20 if not native_problem() else 5)
def test_random_programs(program, seed, size):
    key = jax.random.key(seed)
    t = jnp.linspace(0.25, 1.5, size, dtype=jnp.float32)
    got = sb.ensemble(program, size, in_axes=0)(key, t)
    assert_same_bits(got, oracle(program, size, key, t, in_axes=(0,)), ulps=program.ulps)


# --- every instruction set --------------------------------------------------------------

_COMPACT = ("bits8", "bits32", "uniform-range", "normal", "normal-bf16", "truncated", "bernoulli")
_COMPACT += ("exponential", "gumbel", "laplace", "randint", "randint-u8", "randint-all")


def test_every_instruction_set(native, key, tmp_path):
    from seedbed import _cpu

    init = _each({name: DRAWS[name] for name in _COMPACT}, [(257,)])
    expected = oracle(init, 19, key)
    for isa in _cpu.isas():
        code = f"""
            import jax, numpy as np, sys
            sys.path[:0] = ["tests/support", "tests/ensemble"]
            import seedbed as sb
            from helpers import as_words
            from seedbed import _cpu
            from test_equivalence import DRAWS, _COMPACT, _each
            assert _cpu.isa() == "{isa}"
            init = _each({{name: DRAWS[name] for name in _COMPACT}}, [(257,)])
            make = sb.ensemble(init, 19)
            assert len(make.plan(jax.random.key(20)).native) == 2 * len(_COMPACT)
            got = make(jax.random.key(20))
            words = {{name: as_words(leaf) for name, leaf in got.items()}}
            np.savez({str(tmp_path / isa)!r}, **words)
        """
        run_python(code, SEEDBED_ISA=isa)
        got = np.load(tmp_path / f"{isa}.npz")
        for name, leaf in expected.items():
            assert np.array_equal(got[name], as_words(leaf)), (isa, name)


# --- counters beyond 32 bits ------------------------------------------------------------

# Where the first counter of the first draw stands in a plan without key nodes.
_OFFSET = 5 + 4


@pytest.mark.parametrize("offset", [0, 1, 2**31 - 3, 2**32 - 5, 2**32, 2**40 + 7, 2**63 - 100])
def test_counters_beyond_32_bits(native, key, offset):
    # Row 9: no array is that long here, so a draw is told to begin there.
    from jax.extend.random import threefry_2x32

    from helpers import plan_of
    from seedbed import _cpu
    from seedbed._run import native as _native

    count = 33
    plan = plan_of(lambda key: jax.random.bits(key, (count,)))
    words = _native.encode(plan.draws)
    assert words[2] == 0 and words[_OFFSET] == 0 and words[_OFFSET - 1] == count
    words[_OFFSET] = offset
    counters = np.arange(offset, offset + count, dtype=np.uint64)
    high, low = (counters >> np.uint64(32)).astype(np.uint32), counters.astype(np.uint32)
    data = jax.random.key_data(key)
    pair = threefry_2x32(data, jnp.concatenate([high, low]))
    expected = pair[:count] ^ pair[count:]
    for isa in _cpu.isas():
        out = np.zeros((1, count), np.uint32)
        no_members = np.zeros(2, np.uint32)
        _cpu.run_plan(words, 0, 1, np.asarray(data)[None], no_members, [out], isa)
        assert_same_bits(out[0], np.asarray(expected))


def test_the_oracle_can_disagree(key):
    """The comparison itself: one bit, one ulp, one shape and one dtype are each seen."""
    right = oracle(lambda key: normal(key, (7,)), 3, key)
    wrong = jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(right, jnp.uint32)
        ^ jnp.zeros_like(right, jnp.uint32).at[1, 2].set(1),
        jnp.float32,
    )
    with pytest.raises(AssertionError, match=r"1 of 21 elements differ, first at \(1, 2\)"):
        assert_same_bits(wrong, right)
    assert_same_bits(wrong, right, ulps=1)
    assert_same_bits(wrong, right, either=wrong)
    with pytest.raises(AssertionError, match="shape"):
        assert_same_bits(right[:2], right)
    with pytest.raises(AssertionError, match="dtype"):
        assert_same_bits(right.astype(jnp.bfloat16), right)
    with pytest.raises(AssertionError, match="differ"):
        assert_same_bits(-jnp.zeros(1), jnp.zeros(1))
