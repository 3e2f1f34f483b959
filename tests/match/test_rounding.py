"""Functions of draws have XLA's last bits also where XLA rounds them by its loop: short rows."""

import secrets

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle, plan_of, some
from seedbed._match import rounding

pytestmark = pytest.mark.shared

R, I = jax.random, jax.nn.initializers  # noqa: E741 - the names the field uses
C64, C128 = jnp.complex64, jnp.complex128

SAMPLERS = {
    "exponential": R.exponential,
    "gumbel": R.gumbel,
    "logistic": R.logistic,
    "laplace": R.laplace,
    "lognormal": lambda key, shape: R.lognormal(key, shape=shape),
    "rayleigh": lambda key, shape: R.rayleigh(key, 1.0, shape),
    "pareto": lambda key, shape: R.pareto(key, 3.0, shape),
    "cauchy": R.cauchy,
}
FUNCTIONS = {
    "normal": lambda x: x * 0.3 + 0.1,
    "tanh": jnp.tanh,
    "squash": lambda x: jnp.tanh(0.3 * x + 0.1),
    "exp": jnp.exp,
    "log": lambda x: jnp.log(jnp.abs(x)),
    "gelu": jax.nn.gelu,
    "polynomial": lambda x: 1.0 + x + x * x,
    "bfloat16": lambda x: jnp.exp(x).astype(jnp.bfloat16),
}


def of_normals(names, shape):
    def init(key):
        keys = R.split(key, len(names))
        return {
            name: FUNCTIONS[name](R.normal(one, shape))
            for name, one in zip(names, keys, strict=True)
        }

    return init


def fresh_key():
    """A key that no run had before; the number in a failing assertion is its seed."""
    seed = secrets.randbits(32)
    return R.key(np.uint32(seed)), f"seed {seed}"


def assert_jitted(init, members, **options):
    key, seed = fresh_key()
    try:
        assert_same_bits(sb.ensemble(init, members)(key), oracle(init, members, key), **options)
    except AssertionError as error:
        raise AssertionError(f"{seed}: {error}") from None


@pytest.mark.parametrize("width", some([*range(1, 18), 32]))
def test_functions_of_normals_in_rows_of_any_length(width):
    names = list(FUNCTIONS)
    assert_jitted(of_normals(names[::2] if width % 2 else names[1::2], (width,)), 257)


@pytest.mark.parametrize("width", some([2, 3, 4, 5, 6, 7, 8, 17]))
def test_samplers_in_rows_of_any_length(width):
    def init(key):
        names = list(SAMPLERS)[width % 2 :: 2]
        return {name: SAMPLERS[name](key, (width,)) for name in names}

    assert_jitted(init, 257)


@pytest.mark.parametrize("members", some([1, 2, 8, 64, 1024]))
def test_short_rows_of_few_and_many_members(members):
    def init(key):
        a, b, c = R.split(key, 3)
        return R.gumbel(a, (8,)), jnp.tanh(R.normal(b, (5,))), jnp.exp(R.normal(c, ()) * 0.3)

    assert_jitted(init, members)


@pytest.mark.parametrize("shape", some([(9,), (36,), (3, 17), (101,)]), ids=str)
def test_two_logarithms_in_rows_of_any_length(shape):
    # Before, a thousandth of the numbers equalled neither of jax's results, from jaxlib 0.11 on.
    def init(key):
        x = R.uniform(key, shape, minval=0.1)
        return R.logistic(key, shape), jnp.log(x) * jnp.log1p(x * x)

    assert_jitted(init, 10_001)


def test_the_example_of_the_report():
    def init(key):
        return jnp.tanh(R.normal(key, (8,)))

    key = R.key(1)
    assert_same_bits(sb.ensemble(init, 257)(key), oracle(init, 257, key))


@pytest.mark.parametrize("width", [3, 4, 5])
def test_plain_normals_in_rows_that_are_unrolled(width):
    def init(key):
        a, b, c = R.split(key, 3)
        return (
            R.normal(a, (7, width)) * 0.1,
            R.truncated_normal(b, -2.0, 2.0, (width,)),
            I.glorot_normal()(c, (6, width, 1)),
        )

    assert_jitted(init, 257)


@pytest.mark.parametrize("shape", [(3, 16), (8,) * 2, (2, 1), (5, 3, 3)], ids=str)
def test_complex_initialisers(shape):
    names = ["lecun_normal", "he_uniform", "glorot_normal"]

    def init(key):
        keys = R.split(key, len(names))
        made = [getattr(I, name)(dtype=C64)(k, shape) for name, k in zip(names, keys, strict=True)]
        return [*made, (0.3 + 0.2j) * R.normal(key, shape, C64) + 0.1]

    assert_jitted(init, 4)
    assert_jitted(init, 65)


def test_double_precision():
    def init(key):
        a, b, c = R.split(key, 3)
        return (
            R.exponential(a, (8,), jnp.float64),
            jnp.tanh(R.normal(b, (5,), jnp.float64)),
            I.lecun_normal(dtype=C128)(c, (3, 4)),
            R.normal(c, (3,), C128),
        )

    with jax.enable_x64(True):
        assert_jitted(init, 257)


def test_a_draw_that_is_a_result_and_goes_on():
    def init(key, t):
        w = R.normal(key, (6,))
        return {"w": w, "tanh": jnp.tanh(w * 0.3 + t), "affine": t * w + t, "sum": w.sum()}

    key, _ = fresh_key()
    t = jnp.linspace(0.1, 0.9, 65)
    got, want = sb.ensemble(init, 65, in_axes=0)(key, t), oracle(init, 65, key, t, in_axes=(0,))
    bound = 6 * np.finfo(np.float32).eps * np.abs(np.asarray(want["w"])).sum(1)
    assert (np.abs(np.asarray(got.pop("sum") - want.pop("sum"))) <= bound).all()
    assert_same_bits(got, want)


def test_one_jitted_function_of_several_draws():
    @jax.jit
    def init(key):
        a, b = R.split(key)
        mask = R.bernoulli(b, 0.3, (4, 7))
        return jnp.where(mask, jnp.exp(R.normal(a, (4, 7))), R.uniform(a, (4, 7)) * 0.3 + 0.1)

    assert_jitted(init, 65)


# --- which plans ------------------------------------------------------------------------


def kinds(init):
    return sorted({draw.kind.name for draw in plan_of(init).draws})


@pytest.mark.parametrize(
    "function", [jnp.abs, lambda x: x.T, lambda x: jnp.maximum(x, 0.0), lambda x: x * x, jnp.sum]
)
def test_what_no_loop_rounds_keeps_its_native_draw(function):
    assert kinds(lambda key: function(R.normal(key, (7, 8)))) == ["NORMAL"]


def test_a_row_that_is_not_unrolled_keeps_its_native_draw():
    assert kinds(lambda key: jnp.tanh(R.normal(key, (8, 9)))) == ["NORMAL"]
    assert kinds(lambda key: jnp.tanh(R.normal(key, (9, 8)))) == ["BITS", "CONSTANT"]
    assert kinds(lambda key: jnp.tanh(R.normal(key, (9, 8, 1)))) == ["BITS", "CONSTANT"]


def test_logarithms_of_logarithms_keep_their_native_draw():
    def nested(key):  # a Gumbel number of another range
        return -jnp.log(-jnp.log(R.uniform(key, (8, 9), minval=0.1)))

    assert kinds(nested) == ["UNIFORM"]
    assert kinds(lambda key: R.logistic(key, (8, 9))) == ["BITS", "CONSTANT"]
    assert kinds(lambda key: jnp.log(R.logistic(key, (8, 9)))) == ["BITS", "CONSTANT"]
    assert kinds(lambda key: [nested(one) for one in R.split(key)]) == ["UNIFORM"]
    jitted = jax.jit(lambda x: jnp.log(x) - jnp.log1p(-x))
    assert kinds(lambda key: jitted(R.uniform(key, (8, 9)))) == ["BITS", "CONSTANT"]


def test_a_number_made_of_a_large_draw_does_not_cost_the_draw():
    def init(key):
        x = R.normal(key, (64, 64))
        return x / jnp.log(jnp.sum(x * x))

    assert kinds(init) == ["NORMAL"]


def test_only_the_part_that_is_rounded_by_its_loop_goes_to_xla():
    def init(key):
        a, b = R.split(key)
        return R.normal(a, (7, 8)), R.rayleigh(b, 1.0, (8,)), R.normal(b, (6, 6))

    plan = plan_of(init)
    assert [output.why for output in plan.outputs] == ["native", "XLA: mul of draw 1", "native"]


def test_equations_inside_of_calls_count():
    called = jax.make_jaxpr(lambda x: jax.nn.softplus(x))(jnp.ones(4)).eqns
    assert rounding.by_loop(called)
    assert not rounding.by_loop(jax.make_jaxpr(jax.nn.relu)(jnp.ones(4)).eqns)
    assert not rounding.by_loop(jax.make_jaxpr(lambda x: x * 2 + 1)(jnp.arange(4)).eqns)
    assert rounding.by_loop(jax.make_jaxpr(lambda x: x * 2 + 1)(jnp.ones(4)).eqns)


# What is made of other draws than float32's: by 8, 16, 32 and 64 random bits.
OTHERS = {
    "randint": lambda key: jnp.tanh(R.randint(key, (8,), -1000, 1000).astype("float32") * 0.003),
    "bfloat16": lambda key: jax.nn.gelu(R.normal(key, (8,), "bfloat16").astype("float32")),
    "bfloat16 in rows of 3": lambda key: jnp.tanh(
        R.normal(key, (3,), "bfloat16").astype("float32")
    ),
    "float16": lambda key: jax.nn.sigmoid(R.uniform(key, (8,), "float16").astype("float32")),
    "boolean": lambda key: (
        R.truncated_normal(key, -2.0, 2.0, (4,)) * 3 + 1 - R.bernoulli(key, 0.5, (4,))
    ),
    "a part of long rows": lambda key: (lambda w: (w, jnp.tanh(w[:, :8])))(R.normal(key, (16, 32))),
    "rows from a reshape": lambda key: jnp.tanh(R.normal(key, (24,)).reshape(8, 3)),
}


@pytest.mark.parametrize("x64", [False, True], ids=["32 bits", "64 bits"])
@pytest.mark.parametrize("name", OTHERS)
def test_functions_of_other_draws(name, x64):
    with jax.enable_x64(x64):
        assert_jitted(OTHERS[name], 257)


def test_functions_of_wide_uniforms():
    with jax.enable_x64(True):
        assert_jitted(lambda key: jax.nn.gelu(R.uniform(key, (8,), "float64")), 257)


def test_a_number_that_scales_a_large_draw_does_not_cost_the_draw(native):
    def init(key):
        a, b = jax.random.split(key)
        return jnp.exp(R.uniform(a, ())) * R.normal(b, (64, 64))

    kinds = [draw.kind.name for draw in sb.ensemble(init, 3).plan(jax.random.key(0)).draws]
    assert "NORMAL" in kinds
