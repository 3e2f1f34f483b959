"""What the adapters have in common: models as arrays and a rest."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import assert_same_bits, split, take
from seedbed.adapters._shared.model import KEPT, ModelEnsemble
from seedbed.adapters._shared.parts import TakenApart

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]

uniform = jax.random.uniform

# --- a framework of dictionaries --------------------------------------------------------


def wrapped(make, size, *, shared=(), in_axes=None):
    """An ensemble of models that are dictionaries of arrays and of anything else."""

    def apart(key, args, kwargs):
        model = make(key, *args, **kwargs)
        arrays = {name for name, value in model.items() if isinstance(value, jax.Array)}
        own = {name: model[name] for name in arrays - set(shared)}
        common = {name: model[name] for name in arrays & set(shared)}
        rest = {name: value for name, value in model.items() if name not in arrays}
        return TakenApart(own, common, rest)

    def together(made):
        return {**made.own, **made.common, **made.rest}

    return ModelEnsemble(make, size, apart, together, in_axes=in_axes)


class Counted:
    """A model that counts how often it is made: each time is a trace."""

    def __init__(self):
        self.traces = 0

    def __call__(self, key, /, *args, **kwargs):
        self.traces += 1
        return {"w": uniform(key, (2,)), "args": args, **kwargs}


def of(model, *names):
    return {name: model[name] for name in names}


def oracle(make, size, key, *args, in_axes=None):
    axes = in_axes if isinstance(in_axes, tuple) else (in_axes,) * len(args)
    return jax.vmap(make, (0, *axes))(split(key, size), *args)


def test_a_model_is_made_of_arrays_and_the_rest(key):
    make = wrapped(Counted(), 3)
    got = make(key, "a", name="b")
    assert (got["args"], got["name"]) == (("a",), "b")
    assert_same_bits(got["w"], jax.vmap(lambda key: uniform(key, (2,)))(split(key, 3)))
    assert repr(wrapped(oracle, 3)) == "ensemble(oracle, 3)"
    assert make.size == 3


STATIC = [1, True, 1.0, np.float32(1), np.int64(1), 1 + 0j, "1", 0.0, -0.0, np.float64(-0.0), 0j]


def test_equal_arguments_of_other_types_make_other_models(key):
    counted = Counted()
    make = wrapped(counted, 3)
    for _ in range(2):
        for value in STATIC:
            (got,) = make(key, value)["args"]
            assert type(got) is type(value) and repr(got) == repr(value)
    assert counted.traces == len(STATIC)


def test_where_an_argument_stands_matters(key):
    make = wrapped(Counted(), 3)
    assert make(key, 1, (2, None))["args"] == (1, (2, None))
    assert make(key, (1, 2), None)["args"] == ((1, 2), None)
    assert make(key, 1, x=2)["x"] == 2 and make(key, 1, y=2)["y"] == 2


def test_arrays_change_without_a_new_trace(key):
    counted = Counted()
    make = wrapped(lambda key, a: counted(key) | {"a": a + 1}, 3)
    for value in (np.float32(2) * np.ones(2, np.float32), jnp.zeros(2), np.ones(2, np.float32)):
        assert_same_bits(make(key, value)["a"], jnp.stack([jnp.asarray(value) + 1] * 3))
    assert counted.traces == 1
    assert make(key, jnp.zeros(3))["a"].shape == (3, 3)
    assert make(key, jnp.zeros(2))["a"].shape == (3, 2)
    assert counted.traces == 2


def test_arguments_that_cannot_be_hashed_are_not_kept(key):
    counted = Counted()
    make = wrapped(counted, 3)
    value = bytearray(b"x")
    assert make(key, value)["args"][0] is value
    value.extend(b"y")
    assert make(key, value)["args"] == (b"xy",)
    assert counted.traces == 2 and not make._kept


def test_names_of_arguments_are_the_models_own(key):
    make = wrapped(Counted(), 3)
    names = {"i": 1, "index": 2, "self": 3, "key": 4}
    assert of(make(key, **names), *names) == names
    assert of(make.member(key, 0, **names), *names) == names
    assert of(make.members(key, [0], **names), *names) == names
    assert len(make.plan(key, **names).outputs) == 1


def test_programs_of_many_arguments_are_dropped(key):
    make = wrapped(Counted(), 3)
    for number in range(KEPT + 6):
        make.plan(key, number)
    assert len(make._kept) == KEPT
    assert make(key, 0)["args"] == (0,)  # made again


def test_ensembles_with_one_program_keep_their_own_rest(key):
    one = wrapped(lambda key: {"w": uniform(key, (2,)), "name": "one"}, 3)
    two = wrapped(lambda key: {"w": uniform(key, (2,)), "name": "two"}, 3)
    assert [make(key)["name"] for make in (one, two, one)] == ["one", "two", "one"]
    assert_same_bits(one(key)["w"], two(key)["w"])


# --- mapped arguments, keys -------------------------------------------------------------


def sweep(key, scale, shift):
    return {"w": scale * uniform(key, (2,)), "shift": shift + 0.0}


SCALES = np.linspace(0.5, 2.0, 3, dtype=np.float32)


@pytest.mark.parametrize(
    ("in_axes", "scale", "shift"),
    [
        ((0, None), SCALES, SCALES),
        (0, SCALES, np.ones((3, 2), np.float32)),
        ([None, -1], SCALES[0:1], np.arange(6, dtype=np.float32).reshape(2, 3)),
    ],
)
def test_arguments_are_mapped(key, in_axes, scale, shift):
    make = wrapped(sweep, 3, in_axes=in_axes)
    axes = tuple(in_axes) if isinstance(in_axes, list) else in_axes
    want = oracle(sweep, 3, key, scale, shift, in_axes=axes)
    assert_same_bits(make(key, scale, shift), want)
    assert_same_bits(make.member(key, 2, scale, shift), take(want, 2))


@pytest.mark.parametrize(
    ("in_axes", "args", "error", "message"),
    [
        (0, (1.0, SCALES), TypeError, "`in_axes` maps axis 0 of 1.0 of type float, which is not"),
        ((0,), (SCALES, SCALES), ValueError, "`in_axes` has 1 entries for 2 arguments"),
        ((0, True), (SCALES, SCALES), TypeError, "`in_axes` must consist of integers and None"),
        ((0, 1), (SCALES, SCALES), ValueError, "maps axis 1 of"),
        ((0, 0), (SCALES, np.ones(4)), ValueError, "of length 4, over size=3 members"),
        (((0, 0), 0), (SCALES, SCALES), ValueError, "whose structure is a prefix"),
    ],
)
def test_what_in_axes_may_be(key, in_axes, args, error, message):
    with pytest.raises(error, match=message):
        wrapped(sweep, 3, in_axes=in_axes)(key, *args)


def test_keywords_are_never_mapped(key):
    make = wrapped(lambda key, a, *, b: {"w": uniform(key) * a + b}, 3, in_axes=0)
    want = jax.vmap(lambda key, a: uniform(key) * a + SCALES)(split(key, 3), SCALES)
    got = make(key, SCALES, b=SCALES)["w"]
    assert got.shape == (3, 3)
    np.testing.assert_allclose(got, want, rtol=1e-6)


def test_keys(key):
    make = wrapped(Counted(), 3)
    want = make(key)["w"]
    assert_same_bits(make(split(key, 3))["w"], want)
    assert_same_bits(make(jax.random.key_data(key))["w"], want)
    with pytest.raises(TypeError, match="`key` must be one key"):
        make(3)
    with pytest.raises(ValueError, match="got keys of shape"):
        make(split(key, 4))
    with pytest.raises(ValueError, match="`size` must be at least 1"):
        wrapped(Counted(), 0)


def test_several_keys(key):
    keys = {"a": key, "b": jax.random.key(3)}

    def make(keys):
        return {"a": uniform(keys["a"], (2,)), "b": uniform(keys["b"])}

    want = jax.vmap(make)({name: split(one, 3) for name, one in keys.items()})
    assert_same_bits(wrapped(make, 3)(keys), want)
    got = wrapped(make, 3, shared=("b",))(keys)
    assert_same_bits(got["a"], want["a"])
    assert_same_bits(got["b"], uniform(keys["b"]))
    half = {"a": split(key, 3), "b": keys["b"]}
    assert_same_bits(wrapped(make, 3)(half), want)
    with pytest.raises(ValueError, match="got an array of 3 keys"):
        wrapped(make, 3, shared=("b",))(half)


# --- arrays that members share ----------------------------------------------------------


def halves(key, *args):
    one, two = jax.random.split(key)
    total = sum(jnp.sum(arg) for arg in args[1:])
    return {"own": uniform(one, (2,)), "common": uniform(two, (3,)) + total, "n": len(args)}


def test_common_arrays_are_those_of_one_model(key):
    make = wrapped(halves, 3, shared=("common",))
    got = make(key)
    single = halves(key)
    assert_same_bits(got["common"], single["common"])
    assert_same_bits(got["own"], wrapped(halves, 3)(key)["own"])
    member = make.member(key, 1)
    assert_same_bits(of(member, "own", "common"), {**of(got, "common"), "own": got["own"][1]})
    assert_same_bits(make.members(key, [2, 0])["common"], single["common"])
    assert [output.path for output in make.plan(key).outputs] == ["['own']"]


def test_models_without_arrays_of_their_own(key):
    make = wrapped(halves, 3, shared=("own", "common"))
    want = halves(key)
    for got in (make(key), make.member(key, 1)):
        assert_same_bits(of(got, "own", "common"), of(want, "own", "common"))
    assert wrapped(lambda key: {"n": 3}, 3)(key) == {"n": 3}


def test_common_arrays_need_the_key_that_is_split(key):
    make = wrapped(halves, 3, shared=("common",))
    for keys in (split(key, 3), jax.random.key_data(split(key, 3))):
        with pytest.raises(ValueError, match="keys are split from; got an array of 3 keys"):
            make(keys)


def test_common_arrays_beside_mapped_arguments(key):
    make = wrapped(halves, 3, shared=("common",), in_axes=(0, None))
    shift = np.float32(0.5) * np.ones(2, np.float32)
    got = make(key, SCALES, shift)
    np.testing.assert_allclose(got["common"], halves(key, SCALES[0], shift)["common"], rtol=1e-6)
    assert got["common"].shape == (3,) and got["n"] == 2
    make = wrapped(halves, 3, shared=("common",), in_axes=(None, 1))
    with pytest.raises(ValueError, match=r"cannot depend on .* those of shape \(2,\) a member"):
        make(key, SCALES, np.ones((2, 3), np.float32))


# --- under transformations, threads -----------------------------------------------------


def test_under_jit(key):
    make = wrapped(sweep, 3, in_axes=(0, None), shared=("shift",))
    shift = np.ones(2, np.float32)
    want = make(key, SCALES, shift)
    assert_same_bits(jax.jit(make)(key, SCALES, shift), want)
    member = jax.jit(make.member)(key, jnp.asarray(1), SCALES, shift)
    assert_same_bits(member, {"w": want["w"][1], "shift": want["shift"]})
    assert_same_bits(make(key, SCALES, shift), want)
    shapes = jax.eval_shape(make, key, SCALES, shift)
    assert (shapes["w"].shape, shapes["shift"].shape) == ((3, 2), (2,))


def test_a_rest_that_holds_a_traced_value(key):
    make = wrapped(lambda key: {"w": uniform(key), "f": lambda: key}, 3)
    with pytest.raises(TypeError, match="stored a traced value outside itself"):
        make(key)


def test_a_model_that_fails_can_be_made_again(key):
    broken = [False, True]

    def make(key):
        if broken.pop():
            raise KeyError("not yet")
        return {"w": uniform(key)}

    ensemble = wrapped(make, 3)
    with pytest.raises(KeyError, match="not yet"):
        ensemble(key)
    assert ensemble(key)["w"].shape == (3,)


def test_threads_share_an_ensemble(key):
    make = wrapped(Counted(), 3)
    want = make(key)["w"]
    start, found = threading.Barrier(4), []

    def run(number):
        start.wait()
        for value in (number, "same", number % 2):
            got = make(key, value)
            found.append(got["args"] == (value,) and bool((got["w"] == want).all()))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 12
