"""Variables that are no arrays of jax's: Python and NumPy numbers, None, containers, strings."""

import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("brainstate")
pytest.importorskip("equinox")
pytest.importorskip("flax")
pytest.importorskip("haiku")

import brainstate as bs
import equinox as eqx
import haiku as hk
from flax import linen, nnx

import seedbed as sb
from helpers import assert_same_bits, split

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]

N, KEY, X = 4, jax.random.key(20), np.ones((2, 3), np.float32)
SHAPE = jax.ShapeDtypeStruct(X.shape, X.dtype)

VALUES = {
    "int": 3,
    "negative": -1,
    "float": 1.5,
    "minus zero": -0.0,
    "bool": True,
    "complex": 1 + 2j,
    "float32": np.float32(2.5),
    "float64": np.float64(2.5),
    "int64": np.int64(3),
    "uint8": np.uint8(200),
    "bool_": np.bool_(True),
    "complex64": np.complex64(1j),
    "bfloat16": ml_dtypes.bfloat16(1.5),
    "array": np.arange(3),
    "array of float64": np.arange(6.0).reshape(2, 3),
    "array of bfloat16": np.arange(3).astype(ml_dtypes.bfloat16),
    "empty array": np.zeros((0, 2), np.int8),
    "array of jax": jnp.arange(3, dtype=jnp.uint8),
    "weak": jnp.asarray(1.0),
    "key": jax.random.key(3),
    "None": None,
    "nested": {"a": 1, "b": [2.0, None, {}, (False, ())]},
    "empty": {},
}


class Linen(linen.Module):
    values: dict

    @linen.compact
    def __call__(self, x):
        self.param("own", lambda key: self.values["int"])
        boxed = linen.Partitioned(self.values["float"], ("a",))
        self.variable("stats", "boxed", lambda: boxed)
        for name, value in self.values.items():
            self.variable("stats", name, lambda value=value: value)
        return linen.Dense(4)(x)


def haiku_of(values):
    def function(x):
        for name, value in values.items():
            hk.set_state(name, value)
        return hk.Linear(4)(x)

    return hk.transform_with_state(function)


def linen_oracle(values):
    return jax.vmap(lambda key: Linen(values).init(key, X))(split(KEY, N))


def haiku_oracle(values):
    return jax.vmap(lambda key: haiku_of(values).init(key, X))(split(KEY, N))


def linen_make(values, **options):
    return sb.adapters.linen.ensemble(Linen(values), N, **options)


def haiku_make(values, **options):
    return sb.adapters.haiku.ensemble(haiku_of(values), N, **options)


VARIABLES = {"linen": (linen_make, linen_oracle), "haiku": (haiku_make, haiku_oracle)}
modes = pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])


@modes
@pytest.mark.parametrize("framework", VARIABLES)
@pytest.mark.parametrize("x", [X, SHAPE], ids=["array", "shape"])
def test_linen_and_haiku_make_arrays_of_numbers(framework, x, x64):
    make, oracle = VARIABLES[framework]
    with jax.enable_x64(x64):
        want = oracle(VALUES)
        made = make(VALUES)
        got = made(KEY, x)
        assert_same_bits(got, want)
        one = made.member(KEY, 2, x)
        assert_same_bits(one, jax.tree.map(lambda leaf: leaf[2], want))
        assert_same_bits(
            made.members(KEY, [3, 1], x), jax.tree.map(lambda leaf: leaf[np.array([3, 1])], want)
        )


@modes
@pytest.mark.parametrize("x", [X, SHAPE], ids=["array", "shape"])
@pytest.mark.parametrize(
    ("framework", "shared", "init"),
    [
        ("linen", "stats", lambda key: Linen(VALUES).init(key, X)["stats"]),
        ("haiku", "state", lambda key: haiku_of(VALUES).init(key, X)[1]),
    ],
)
def test_numbers_that_all_members_share(framework, shared, init, x, x64):
    with jax.enable_x64(x64):
        want = jax.jit(init)(KEY)
        made = VARIABLES[framework][0](VALUES, shared=shared)
        for got in (made(KEY, x), made.member(KEY, 1, x)):
            assert_same_bits(got["stats"] if framework == "linen" else got[1], want)


@pytest.mark.parametrize("adapter", ["linen", "haiku"])
def test_the_examples(adapter):
    class M(linen.Module):
        @linen.compact
        def __call__(self, x):
            self.variable("stats", "n", lambda: 0)
            return linen.Dense(4)(x)

    def f(x):
        hk.set_state("n", 0)
        return hk.Linear(4)(x)

    if adapter == "linen":
        n = sb.adapters.linen.ensemble(M(), 4)(KEY, X)["stats"]["n"]
    else:
        n = sb.adapters.haiku.ensemble(hk.transform_with_state(f), 4)(KEY, X)[1]["~"]["n"]
    assert_same_bits(n, jax.vmap(lambda key: 0)(split(KEY, 4)))
    assert (n.dtype, n.shape, n.weak_type) == (jnp.int32, (4,), True)


@pytest.mark.parametrize("adapter", ["linen", "haiku"])
def test_unstacked_members_with_shared_numbers(adapter):
    module = getattr(sb.adapters, adapter)
    stacked = {"params": {"w": np.ones((3, 2), np.float32), "n": 5}}
    given = stacked if adapter == "linen" else stacked["params"]
    members = module.unstack(given, shared="params/n")
    one = members[1] if adapter == "linen" else {"params": members[1]}
    assert one["params"]["n"] == 5 and one["params"]["w"].shape == (2,)
    with pytest.raises(ValueError, match="member axis first; params/n has none"):
        module.unstack(given)
    bad = {"params": {"w": np.ones((3, 2)), "n": "text"}}
    with pytest.raises(
        TypeError, match="must be arrays or numbers; params/n is 'text' of type str"
    ):
        module.unstack(bad if adapter == "linen" else bad["params"])


# --- the other adapters, plain ensembles and sb.nn ---------------------------------------


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.layer = nnx.Linear(2, 3, rngs=rngs)
        for name, value in VALUES.items():
            setattr(self, name.replace(" ", "_"), nnx.BatchStat(value))
        self.plain = nnx.data(dict(VALUES))


class Equinox(eqx.Module):
    layer: eqx.nn.Linear
    values: dict
    name: str = "text"

    def __init__(self, key):
        self.layer = eqx.nn.Linear(2, 3, key=key)
        self.values = dict(VALUES)


class Brain(bs.nn.Module):
    def init_state(self):
        self.layer = bs.ParamState(bs.random.rand(3))
        self.values = [bs.ShortTermState(value) for value in VALUES.values()]


class Plain(sb.nn.Module):
    def init_state(self):
        self.values = [sb.nn.State(value) for value in VALUES.values()]


def nnx_own():
    @nnx.split_rngs(splits=N)
    @nnx.vmap(in_axes=0)
    def make(rngs):
        return Nnx(rngs)

    return nnx.to_pure_dict(nnx.state(make(nnx.Rngs(0))))


@modes
def test_nnx_keeps_to_its_own_way(x64):
    with jax.enable_x64(x64):
        got = sb.adapters.nnx.ensemble(Nnx, N)(nnx.Rngs(0))
        assert_same_bits(nnx.to_pure_dict(nnx.state(got)), nnx_own())
        shared = sb.adapters.nnx.ensemble(Nnx, N, shared=nnx.BatchStat)(nnx.Rngs(0))
        want = jax.jit(lambda: nnx.to_pure_dict(nnx.state(Nnx(nnx.Rngs(0)), nnx.BatchStat)))()
        assert_same_bits(nnx.to_pure_dict(nnx.state(shared, nnx.BatchStat)), want)


@modes
def test_equinox_keeps_to_its_own_way(x64):
    with jax.enable_x64(x64):
        got = sb.adapters.equinox.ensemble(Equinox, N)(KEY)
        want = eqx.filter_vmap(Equinox)(split(KEY, N))
        parts = [eqx.partition(model, eqx.is_array) for model in (got, want)]
        assert_same_bits(parts[0][0], parts[1][0])
        assert repr(parts[0][1]) == repr(parts[1][1]) and got.name == "text"


@modes
@pytest.mark.parametrize("functions", [sb.nn, sb.adapters.brainstate])
def test_brainstate_keeps_to_its_own_way(functions, x64):
    with jax.enable_x64(x64):
        bs.random.seed(0)
        want = bs.nn.vmap_init_all_states(Brain(), axis_size=N)
        bs.random.seed(0)
        got = functions.vmap_init_all_states(Brain(), axis_size=N)
        assert_same_bits(
            [state.value for state in got.values], [state.value for state in want.values]
        )


@modes
def test_plain_ensembles_and_states_are_as_vmap_makes_them(x64):
    with jax.enable_x64(x64):
        want = jax.vmap(lambda key: VALUES)(split(KEY, N))
        make = sb.ensemble(lambda key: VALUES, N)
        assert_same_bits(make(KEY), want)
        assert_same_bits(make.member(KEY, 1), jax.tree.map(lambda leaf: leaf[1], want))
        net = sb.nn.vmap_init_all_states(Plain(), axis_size=N)
        assert_same_bits([state.value for state in net.values], [want[name] for name in VALUES])


# --- what is no array -------------------------------------------------------------------

NO_ARRAYS = {
    "text": "'text' of type str",
    b"x": "b'x' of type bytes",
    np.str_("x"): "np.str_('x') of type str_",
    np.datetime64("2020-01-01"): "of type datetime64",
    len: "of type builtin_function_or_method",
    np.float32: "of type type",
}


@pytest.mark.parametrize("x", [X, SHAPE], ids=["array", "shape"])
@pytest.mark.parametrize("value", NO_ARRAYS, ids=str)
def test_what_is_no_array_is_named(value, x):
    values = {"int": 0, "float": 0.0, "n": value}
    for make in (linen_make, haiku_make):
        with pytest.raises(TypeError) as caught:
            make(values)(KEY, x)
        assert NO_ARRAYS[value] in str(caught.value)
        where = re.search(r"stats/n|state/~/n|\['n'\]", str(caught.value))
        assert where and "arrays" in str(caught.value)
    with pytest.raises(TypeError) as caught:
        sb.ensemble(lambda key: value, N)(KEY)
    assert NO_ARRAYS[value] in str(caught.value)


RECORDS = np.zeros(2, [("a", int)])


@pytest.mark.parametrize("value", [np.array(["a"]), RECORDS, np.array([None])], ids=repr)
def test_arrays_of_what_jax_has_not(value):
    for make in (linen_make, haiku_make):
        for x in (X, SHAPE):
            with pytest.raises(TypeError, match="must be arrays|not a valid JAX|pytree of arrays"):
                make({"int": 0, "float": 0.0, "n": value})(KEY, x)
    with pytest.raises(TypeError, match=r"pytree of arrays; the result itself is array\("):
        sb.ensemble(lambda key: value, N)(KEY)


def test_integers_that_do_not_fit_are_jaxs_error():
    for make in (linen_make, haiku_make):
        for x in (X, SHAPE):
            with pytest.raises(OverflowError, match="too large to convert to int32"):
                make({"int": 0, "float": 0.0, "n": 2**40})(KEY, x)
    with pytest.raises(OverflowError, match="too large to convert to int32"):
        sb.ensemble(lambda key: 2**40, N)(KEY)
