"""Under jax's own checks and strict settings: what jax and the frameworks allow works here too."""

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
from helpers import assert_same_bits, native_problem, split

pytestmark = pytest.mark.shared

N, KEY, X = 4, jax.random.key(20), jnp.ones((2, 3))
KEYS, SCALES, LEGACY = split(KEY, N), jnp.arange(4.0), jax.random.PRNGKey(20)
SHAPE = jax.ShapeDtypeStruct(X.shape, X.dtype)


def init(key, scale=None):
    one, two, three = jax.random.split(key, 3)
    noise = jax.random.normal(one, (3,))
    return {
        "w": noise if scale is None else scale * noise,
        "bounded": jax.random.truncated_normal(two, -1, 1, (8,)),
        "orthogonal": jax.nn.initializers.orthogonal()(three, (3, 3)),
        "integers": jax.random.randint(one, (3,), 0, 5),
        "flags": jax.random.bernoulli(two, 0.5, (3,)),
        "narrow": jax.random.normal(three, (3,), jnp.bfloat16),
        "count": 0,
        "key": one,
    }


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x):
        self.variable("stats", "count", lambda: 0)
        return linen.BatchNorm(use_running_average=False)(linen.Dense(4)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs):
        self.layer, self.norm = nnx.Linear(2, 3, rngs=rngs), nnx.BatchNorm(3, rngs=rngs)


class Brain(bs.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.noise = bs.nn.Linear(2, 3), bs.ParamState(bs.random.rand(3))


class Cell(bs.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = bs.nn.Linear(2, 3)

    def init_state(self):
        self.h = bs.HiddenState(bs.random.rand(3))
        self.gain = bs.LongTermState(jnp.ones(3))


class Net(sb.nn.Module):
    def __init__(self):
        self.layer, self.cell = sb.nn.Linear(2, 3), sb.nn.GRUCell(2, 3)

    def init_state(self):
        self.count = sb.nn.State(0)
        self.noise = sb.nn.HiddenState(jax.random.normal(sb.random.next_key(), (3,)))

    def __call__(self, x):
        return self.layer(x)


def affine(x):
    hk.set_state("count", 0)
    return hk.Linear(4)(x)


plain, mapped = sb.ensemble(init, N), sb.ensemble(init, N, in_axes=0)
linens = sb.adapters.linen.ensemble(Linen(), N, shared="batch_stats")
transformed = hk.transform_with_state(affine)
haikus = sb.adapters.haiku.ensemble(transformed, N)
equinoxes = sb.adapters.equinox.ensemble(eqx.nn.Linear, N)
nnxs = sb.adapters.nnx.ensemble(Nnx, N)
brains = sb.adapters.brainstate.ensemble(Brain, N)
foreign = sb.ensemble(lambda key: jax.random.normal(key, (3,)), N)


def states(module):
    return [state.value for state in module.states().values()]


def theirs(module):
    return [state.value for state in bs.graph.states(module).values()]


def drawn(net, **options):
    with sb.random.stream(KEY):
        return states(sb.nn.vmap_init_all_states(net, axis_size=N, **options))


def cell(**options):
    bs.random.seed(KEY)
    return theirs(sb.nn.vmap_init_all_states(Cell(), axis_size=N, **options))


def accelerated():
    with sb.accelerate():
        return [jax.random.normal(KEY, (5,)), jax.jit(jax.vmap(init))(KEYS)]


MODULE = None


def module():
    """One that has members already; made when it is first asked for."""
    global MODULE
    if MODULE is None:
        with sb.random.stream(KEY):
            MODULE = sb.nn.vmap_init_all_states(Net(), axis_size=N)
    return MODULE


def patched():
    bs.random.seed(KEY)
    with sb.adapters.brainstate.patched():
        return theirs(bs.nn.vmap_init_all_states(Cell(), axis_size=N))


ROWS, IMPL, RBG = (
    jnp.ones((2, 2)),
    jax.random.key(0, impl=sb.prng.impl),
    jax.random.key(0, impl="rbg"),
)
LINEN, HAIKU, NNX = linens(KEY, X), haikus(KEY, X), nnxs(KEY)
BRAIN, EQUINOX = brains(KEY), equinoxes(KEY, 2, 3)

CALLS = {
    "ensemble": lambda: [plain(KEY), plain(KEYS), jax.jit(plain)(KEY)],
    "ensemble, members": lambda: [
        plain.member(KEY, 1),
        plain.members(KEY, [0, 2]),
        plain.members(KEY, slice(1, 3)),
        plain.members(KEYS, [1]),
        list(plain.stream(KEY, chunk_size=3)),
    ],
    "ensemble, mapped": lambda: [mapped(KEY, SCALES), mapped.member(KEY, 1, SCALES)],
    "ensemble, legacy keys": lambda: [foreign(LEGACY), foreign.member(LEGACY, 1)],
    "ensemble, donated": lambda: sb.ensemble(init, N, donate=True)(KEY, plain(KEY)),
    "ensemble, foreign keys": lambda: [foreign(RBG), foreign.member(RBG, 1)],
    "linen": lambda: [linens(KEY, X), linens.member(KEY, 1, X)],
    "linen, shapes": lambda: sb.adapters.linen.ensemble(linen.Dense(3), N)(KEY, SHAPE),
    "linen, unstack": lambda: sb.adapters.linen.unstack(LINEN, shared="batch_stats"),
    "haiku": lambda: [haikus(KEY, X), haikus.member(KEY, 1, X), haikus(KEY, SHAPE)],
    "haiku, unstack": lambda: sb.adapters.haiku.unstack(HAIKU),
    "equinox": lambda: [equinoxes(KEY, 2, 3).weight, equinoxes.member(KEY, 1, 2, 3).weight],
    "equinox, unstack": lambda: [one.weight for one in sb.adapters.equinox.unstack(EQUINOX)],
    "nnx": lambda: [
        nnx.to_pure_dict(nnx.state(one)) for one in (nnxs(nnx.Rngs(0)), nnxs.member(KEY, 1))
    ],
    "nnx, unstack": lambda: [
        nnx.to_pure_dict(nnx.state(one)) for one in sb.adapters.nnx.unstack(NNX)
    ],
    "brainstate": lambda: [theirs(brains(KEY)), theirs(brains.member(KEY, 1))],
    "brainstate, plan": lambda: len(brains.plan(KEY).outputs),
    "brainstate, init": lambda: [cell(), cell(state_to_exclude=bs.LongTermState)],
    "brainstate, patched": patched,
    "brainstate, unstack": lambda: [theirs(one) for one in sb.adapters.brainstate.unstack(BRAIN)],
    "sb.nn": lambda: [drawn(Net()), drawn(Net(), state_to_exclude=sb.nn.HiddenState)],
    "sb.nn, run": lambda: [
        sb.nn.vmap(module(), in_axes=None, **options)(ROWS)
        for options in ({}, {"loop": True}, {"chunk_size": 2})
    ],
    "sb.nn, take": lambda: [states(sb.nn.take(module(), index)) for index in (1, -1, [0, 2])],
    "sb.random": lambda: [
        sb.random.normal(KEY, (3,)),
        sb.random.uniform(KEY, (3,)),
        sb.random.bits(KEY, (3,)),
        sb.random.randint(KEY, (3,), 0, 5),
        sb.random.bernoulli(KEY, 0.5, (3,)),
        sb.random.split(KEY, 3),
        jax.vmap(lambda key: sb.random.normal(key, (3,)))(KEYS),
    ],
    "prng.impl": lambda: [jax.random.normal(IMPL, (3,)), jax.random.split(IMPL, 3), plain(IMPL)],
    "accelerate": accelerated,
}

SETTINGS = {
    "enable_checks": lambda: jax.enable_checks(True),
    "checking_leaks": lambda: jax.checking_leaks(),
    "debug_nans": lambda: jax.debug_nans(True),
    "strict dtypes": lambda: jax.numpy_dtype_promotion("strict"),
    "strict ranks": lambda: jax.numpy_rank_promotion("raise"),
    "transfer_guard": lambda: jax.transfer_guard("disallow"),
}
# What jax or the framework refuses itself, of what it does before anything here runs.
OWN = {
    ("transfer_guard", "brainstate"),
    ("transfer_guard", "brainstate, plan"),
    ("transfer_guard", "brainstate, init"),
    ("transfer_guard", "brainstate, patched"),
    ("transfer_guard", "nnx"),
}
if native_problem():  # there the drop-ins are `jax.random`'s functions, whose bounds are numbers
    OWN.add(("transfer_guard", "sb.random"))


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("case", CALLS)
def test_calls_under_a_setting(case, setting):
    want = CALLS[case]()  # also what a guarded call needs to have been made before
    if (setting, case) in OWN:
        with pytest.raises(Exception, match="Disallowed host-to-device"), SETTINGS[setting]():
            CALLS[case]()
        return
    with SETTINGS[setting]():
        got = CALLS[case]()
    if case != "brainstate, plan":
        assert_same_bits(got, want)
    else:
        assert got == want


@pytest.mark.parametrize("functions", [sb.nn, sb.adapters.brainstate])
def test_brainstate_under_enable_checks(functions):
    with jax.numpy_rank_promotion("allow"):  # which brainstate's own cells need
        bs.random.seed(0)
        want = bs.nn.vmap_init_all_states(bs.nn.GRUCell(2, 3), axis_size=N)
        bs.random.seed(0)
        with jax.enable_checks(True):
            got = functions.vmap_init_all_states(bs.nn.GRUCell(2, 3), axis_size=N)
    assert_same_bits(theirs(got), theirs(want))


@pytest.mark.skipif(
    bool(native_problem()) and jax.__version_info__ < (0, 11),
    reason="this jax fails while it writes the message for a leak out of jax.vmap",
)
def test_a_leak_is_still_found():
    kept = []

    class Leaking(bs.nn.Module):
        def __init__(self):
            super().__init__()
            kept.append(bs.random.rand(3))

    with pytest.raises(Exception, match="Leaked trac"), jax.checking_leaks():
        sb.adapters.brainstate.ensemble(Leaking, N)(0)


def test_numpy_is_not_needed_to_take_a_member():
    with jax.transfer_guard("disallow"):
        one = sb.nn.take(module(), np.int64(2))
    assert_same_bits(states(one), [value[2] for value in states(module())])
