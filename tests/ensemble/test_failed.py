"""Calls that cannot succeed: what adapters say of arguments, and that nothing is kept of a call."""

import functools
import gc

import jax
import jax.numpy as jnp
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

pytestmark = pytest.mark.shared

KEY, X = jax.random.key(20), np.ones((2, 3), np.float32)
LATE = jnp.arange(3.0)  # captured by what is traced
SHAPE = jax.ShapeDtypeStruct(X.shape, X.dtype)


class Failure(Exception):
    pass


# --- the first argument -----------------------------------------------------------------

nnx_linear = sb.adapters.nnx.ensemble(nnx.Linear, 4)
nnx_part = sb.adapters.nnx.ensemble(functools.partial(nnx.Linear, 3), 4)
bs_linear = sb.adapters.brainstate.ensemble(bs.nn.Linear, 4)
STREAMS = "an nnx.Rngs, one key or integer, or a mapping from streams to them"


@pytest.mark.parametrize("method", ["__call__", "member", "members", "plan"])
def test_nnx_says_that_the_rngs_come_first(method):
    index = {"member": (1,), "members": ([1],)}.get(method, ())
    with pytest.raises(TypeError) as caught:
        getattr(nnx_linear, method)(3, *index, 4)
    assert str(caught.value) == (
        f"`rngs_or_key` is the first argument of the call, {STREAMS}; it is the seed 3, and Linear "
        "does not take the 1 argument(s) that follow: missing a required argument: 'out_features'"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: nnx_part(4), "it is the seed 4, and Linear does not take the 0"),
        (lambda: nnx_linear(nnx.Rngs(0), 3), "it is of type Rngs, and Linear does not take the 1"),
        (lambda: nnx_linear(0, 3, 4, foo=1), "unexpected keyword argument 'foo'"),
        (lambda: nnx_linear([KEY], 3, 4), f"(?s)`rngs_or_key` must be {STREAMS}; got .* type list"),
        (lambda: nnx_linear(3.0, 3, 4), f"`rngs_or_key` must be {STREAMS}; got 3.0 of type float"),
        (
            lambda: bs_linear(3, 4),
            "`seed_or_key` is the first .* it is the seed 3, and Linear does",
        ),
        (
            lambda: bs_linear.plan(3, 4),
            "a seed, a key, or an array of a key for each member; it is",
        ),
        (lambda: bs_linear.member(3, 1, 4), "missing a required argument: 'out_size'"),
    ],
)
def test_what_the_first_argument_was_taken_for(call, message):
    rngs = nnx.Rngs(0)
    with pytest.raises(TypeError, match=message):
        call()
    assert int(rngs.default.count.get_value()) == 0


@pytest.mark.parametrize(
    "first", [3, KEY, jax.random.split(KEY, 4), {"params": 3}, {"params": KEY}, nnx.Rngs(3)]
)
def test_what_nnx_takes_first_goes_on_working(first):
    assert nnx_linear(first, 3, 4).kernel.shape == (4, 3, 4)
    assert nnx_part(first, 5).kernel.shape == (4, 3, 5)


def test_brainstate_goes_on_taking_seeds_and_keys():
    for first in (3, KEY, jax.random.PRNGKey(3), jax.random.split(KEY, 4)):
        assert bs_linear(first, 3, 4).weight.value["weight"].shape == (4, 3, 4)


# --- forms of keys ----------------------------------------------------------------------


class Dense(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(4)(x)


def affine(x):
    return hk.Linear(4)(x)


ONE = "must be one key, or an array with a key for each member"
SEVERAL = ONE + r"; or a mapping from names to such, as {\"params\": key, \"dropout\": other}"
linen_make = sb.adapters.linen.ensemble(Dense(), 4)
haiku_make = sb.adapters.haiku.ensemble(hk.transform(affine), 4)
eqx_make = sb.adapters.equinox.ensemble(eqx.nn.Linear, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: linen_make([KEY, KEY], X), f"`key` {SEVERAL}; got a list of 2"),
        (lambda: linen_make((KEY,), SHAPE), f"`key` {SEVERAL}; got a tuple of 1"),
        (lambda: linen_make.member([KEY], 1, X), f"`key` {SEVERAL}; got a list of 1"),
        (lambda: linen_make.plan({"params": [KEY]}, X), "got a mapping with a list under 'params'"),
        (lambda: linen_make.members({0: KEY}, [1], X), "a mapping with a PRNGKeyArray under 0"),
        (lambda: jax.jit(lambda key: linen_make([key], X))(KEY), "got a list of 1"),
        (lambda: linen_make(None, X), "`key` must be one key .* got None of type NoneType"),
        (lambda: linen_make({}, X), "`key` must be one key .* got {} of type dict"),
        (lambda: linen_make({"params": 3}, X), r"`key\['params'\]` must be one key .* got 3"),
        (lambda: sb.adapters.linen.forward(Dense(), {}, X, rngs=[KEY]), f"`rngs` {SEVERAL}; got a"),
        (lambda: haiku_make([KEY], X), f"`key` {ONE}; got a list of 1"),
        (lambda: haiku_make({"params": KEY}, X), f"`key` {ONE}; got a dict of 1"),
        (lambda: haiku_make(hk.PRNGSequence(0), X), "`key` must be one key .* type PRNGSequence"),
        (
            lambda: sb.adapters.haiku.forward(hk.transform(affine), {}, (KEY,), X),
            f"`rng` {ONE}; got a tuple of 1",
        ),
        (lambda: eqx_make([KEY], 2, 3), f"`key` {ONE}; got a list of 1"),
        (lambda: eqx_make({"key": KEY}, 2, 3), f"`key` {ONE}; got a dict of 1"),
        (lambda: eqx_make(2, 3), "`key` must be one key .* got 2 of type int"),
    ],
)
def test_keys_in_a_form_that_the_framework_has_not(call, message):
    with pytest.raises(TypeError, match=message) as caught:
        call()
    assert "racer" not in str(caught.value)


def test_keys_in_a_form_that_the_framework_has():
    assert linen_make({"params": KEY}, X)["params"]["Dense_0"]["kernel"].shape == (4, 3, 4)
    own = sb.adapters.equinox.ensemble(lambda keys: eqx.nn.Linear(2, 3, key=keys["a"]), 4)
    assert own({"a": KEY}).weight.shape == (4, 3, 2)


# --- what is left of a call that fails --------------------------------------------------


def failing(key):
    jax.random.normal(key, (3,)) + LATE
    raise Failure


class FailingDense(linen.Module):
    @linen.compact
    def __call__(self, x):
        linen.Dense(3)(x) + LATE
        raise Failure


class FailingNnx(nnx.Module):
    def __init__(self, rngs):
        self.noise = nnx.Param(rngs.params.normal((3,)) + LATE)
        raise Failure


def failing_haiku(x):
    hk.Linear(3)(x) + LATE
    raise Failure


class FailingBuild(bs.nn.Module):
    def __init__(self):
        super().__init__()
        self.noise = bs.ParamState(bs.random.rand(3) + LATE)
        raise Failure


class FailingInit(bs.nn.Module):
    def init_state(self):
        self.noise = bs.HiddenState(bs.random.rand(3) + LATE)
        raise Failure


class FailingState(sb.nn.Module):
    def init_state(self):
        self.noise = sb.nn.State(jax.random.normal(sb.random.next_key(), (3,)) + LATE)
        raise Failure


runs = []


class FailingTwice(bs.nn.Module):
    """It fails in the second run, that of a member."""

    def __init__(self):
        super().__init__()
        runs.append(len(runs))
        self.noise = bs.ParamState(bs.random.rand(3) + LATE)
        if len(runs) % 2 == 0:
            raise Failure


leaked = []


def leaking(key):
    leaked.append(jax.random.normal(key, (3,)) + LATE)
    return key


def leak():
    try:
        sb.ensemble(leaking, 4)(KEY)
    finally:
        leaked.clear()


def stateful(key):
    return {"text": "no array", "noise": jax.random.normal(key) + LATE}


module = FailingInit()
states = FailingState()
build = sb.adapters.brainstate.ensemble(FailingBuild, 4)
linen_failing = sb.adapters.linen.ensemble(FailingDense(), 4)
haiku_failing = sb.adapters.haiku.ensemble(hk.transform(failing_haiku), 4)
nnx_failing = sb.adapters.nnx.ensemble(FailingNnx, 4)
net = sb.nn.Linear(3, 2)

CALLS = {
    "ensemble": lambda: sb.ensemble(failing, 4)(KEY),
    "ensemble, a wrong result": lambda: sb.ensemble(stateful, 4)(KEY),
    "ensemble, a leak": leak,
    "ensemble, a wrong key": lambda: sb.ensemble(failing, 4)(3),
    "ensemble, a member": lambda: sb.ensemble(failing, 4).member(KEY, 1),
    "equinox": lambda: sb.adapters.equinox.ensemble(failing, 4)(KEY),
    "linen": lambda: linen_failing(KEY, X),
    "linen, shapes": lambda: linen_failing(KEY, SHAPE),
    "haiku": lambda: haiku_failing(KEY, X),
    "haiku, shapes": lambda: haiku_failing(KEY, SHAPE),
    "nnx": lambda: nnx_failing(0),
    "nnx, a member": lambda: nnx_failing.member(0, 1),
    "brainstate": lambda: build(0),
    "brainstate, the member's run": lambda: sb.adapters.brainstate.ensemble(FailingTwice, 4)(0),
    "brainstate, a plan": lambda: build.plan(0),
    "brainstate, init": lambda: sb.nn.vmap_init_all_states(module, axis_size=4),
    "brainstate, once": lambda: sb.nn.init_all_states(module),
    "brainstate, no size": lambda: sb.nn.vmap_init_all_states(module, axis_size=0),
    "sb.nn": lambda: sb.nn.vmap_init_all_states(states, axis_size=4),
    "sb.nn, once": lambda: sb.nn.init_all_states(states),
    "sb.nn.vmap": lambda: sb.nn.vmap(lambda x: net(x + LATE[:2]), axis_size=4)(X[0]),
    "sb.nn.vmap_new_states": lambda: sb.nn.vmap_new_states(
        lambda: failing(sb.random.next_key()), axis_size=4
    )(),
    "sb.random": lambda: sb.random.normal(3),
}


def objects_after(call, times):
    for _ in range(times):
        with pytest.raises((Failure, TypeError, ValueError)):
            call()
    gc.collect()
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.parametrize("case", CALLS)
def test_nothing_is_kept_of_a_call_that_fails(case):
    call = CALLS[case]
    before = objects_after(call, 4)  # caches are filled
    # An object kept of each call would be 12 more.
    assert objects_after(call, 12) - before < 12
