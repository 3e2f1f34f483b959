"""Calls that are opened only once: the plan is the one that opening them every time gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import seedbed as sb
from helpers import assert_same_bits, oracle, plan_of
from models import small
from seedbed import _match, _trace
from seedbed._ensemble import check
from seedbed._jax import ask_xla
from seedbed._match import choose, interpret
from seedbed._trace import Const, unseal

pytestmark = pytest.mark.shared

normal, uniform, split, fold_in = (
    jax.random.normal,
    jax.random.uniform,
    jax.random.split,
    jax.random.fold_in,
)


@jax.jit
def layer(key):
    w, b = split(key)
    return {"w": normal(w, (4, 7)), "b": uniform(b, (6,)), "next": b}


@jax.jit
def two(first, second):
    return normal(first, (4, 7)), uniform(second, (6,))


@jax.jit
def by_hand(high, low):
    """What `jax.random.randint` makes of the two halves of a split."""
    span = np.uint32(10)
    mult = np.uint32((1 << 16) % 10 * ((1 << 16) % 10) % 10)
    parts = [lax.rem(jax.random.bits(key, (6,)), span) for key in (high, low)]
    return lax.rem(parts[0] * mult + parts[1], span).astype(np.int32)


@jax.jit
def stacked(keys):
    return jax.vmap(lambda key: normal(key, (8,)))(keys)


@jax.jit
def rounded(key):
    # jax would round this constant by its place: the call stays shut.
    return normal(key, (6,)) * jnp.exp(jnp.float32(0.3)), layer(key)["b"]


@jax.jit
def waiting(key):
    """Nothing in here is recognised but in the call of a sampler."""
    return jax.random.rayleigh(key, 1.0, (6,)) * 2.0


@jax.jit
def shifted(key, x):
    return normal(key, (6,)), x + 1.0


def samplers(key):
    made = []
    for one in split(key, 3):
        a, b, c, d, e, f = split(one, 6)
        made.append(
            (
                normal(a, (4, 7)) * 0.3,
                uniform(b, (6,), minval=-1.0),
                jax.random.truncated_normal(c, -2.0, 2.0, (9,)),
                jax.random.randint(d, (5,), 0, 10),
                jax.random.bernoulli(e, 0.3, (7,)),
                normal(f, (8,), jnp.bfloat16),
            )
        )
    return made


def nested(key):
    first, second = layer(key), layer(fold_in(key, 3))
    return first, second, layer(second["next"]), normal(second["next"], (4, 7))


def swapped(key):
    a, b = split(key)
    return two(a, b), two(b, a), two(a, a), two(b, b), two(fold_in(a, 0), b)


def below_another(key):
    # The second key hangs from the first one, and stays where it is.
    a = fold_in(key, 0)
    below = fold_in(a, 5)
    return two(a, below), two(fold_in(key, 1), below), two(below, a)


def halves(key):
    a, b = split(key)
    c, d = split(a)
    return by_hand(a, b), by_hand(c, d), by_hand(b, a), by_hand(c, b)


def no_halves_first(key):
    a, b = split(key)
    c, d = split(a)
    return by_hand(a, d), by_hand(c, d), by_hand(a, b)


def rows(key):
    keys = split(key, (2, 3))
    return stacked(keys[0]), stacked(keys[1]), stacked(keys[:, 1]), stacked(split(keys[0, 1], 3))


def chain(key):
    made = []
    for _ in range(12):
        key, sub = split(key)
        made.append(normal(sub, (4, 7)))
    return made


def tied(key):
    w = normal(key, (4, 7))
    return w, normal(key, (4, 7)), w


# Those whose sealed calls hide what the plan needs have to be opened after all.
OPENED = {
    "residual": lambda key: [jax.random.rayleigh(k, 1.0, (6,)) for k in split(key, 3)],
    "unsteady": lambda key: [normal(k, (3,)) for k in split(key, 3)],
    "sums": lambda key: [normal(k, (6,)) * 2.0 + jnp.arange(6.0) for k in split(key, 3)],
    "within": lambda key: (jax.random.rayleigh(key, 1.0, (6,)), waiting(fold_in(key, 1))),
    "rounded": lambda key: [rounded(k) for k in split(key, 3)],
    "rows": rows,
    "swapped": swapped,
    "below another": below_another,
    "halves": halves,
    "no halves first": no_halves_first,
    "shifted": lambda key: [shifted(k, jnp.arange(6.0) * i) for i, k in enumerate(split(key, 3))],
}
SEALED = {
    "small": small,
    "samplers": samplers,
    "nested": nested,
    "chain": chain,
    "tied": tied,
    "folds": lambda key: [normal(fold_in(key, i), (4, 7)) for i in range(5)],
}
INITS = SEALED | OPENED


def sealed_graph(init, key):
    recorded = _trace.record(init, check.member_key_type(key), ())
    return _trace.flatten(recorded, sealed=True)


def sealed_plan(init, key):
    return _match.planned(sealed_graph(init, key))


@pytest.mark.parametrize("legacy", [False, True], ids=["typed", "legacy"])
@pytest.mark.parametrize("name", SEALED)
def test_the_plan_of_sealed_calls_is_that_of_opened_ones(name, legacy):
    key = jax.random.PRNGKey(3) if legacy else jax.random.key(3)
    whole = plan_of(SEALED[name], key)
    assert sealed_plan(SEALED[name], key) == whole
    assert not whole.steps


@pytest.mark.parametrize("name", INITS)
def test_same_plan_and_same_bits(name, key):
    make = sb.ensemble(INITS[name], 5)
    plan = make.plan(key)
    if plan.reference is None:
        assert plan == plan_of(INITS[name], key)
    assert_same_bits(make(key), oracle(INITS[name], 5, key))


def sealed_in(graph):
    return [i for i, equation in enumerate(graph.equations) if equation.block is not None]


@pytest.mark.parametrize("name", ["residual", "unsteady", "sums"])
def test_a_plan_opens_the_calls_that_it_needs(name, key, monkeypatch):
    monkeypatch.setattr(ask_xla, "flat_rows", lambda: False)  # else "unsteady" is as any other
    graph = sealed_graph(OPENED[name], key)
    found = choose.build(graph, interpret.match(graph))
    assert found and sorted(found) == sealed_in(graph)
    assert sealed_plan(OPENED[name], key) == plan_of(OPENED[name], key)


def test_other_calls_stay_as_they_are(key):
    waves = jnp.sin(jnp.arange(28.0)).reshape(4, 7)

    def init(key):
        keys = split(key, 20)
        return [normal(k, (4, 7)) for k in keys] + [normal(keys[3], (4, 7)) * 2 + waves]

    graph = sealed_graph(init, key)
    before = sealed_in(graph)
    assert len(before) == 20
    assert _match.planned(graph) == plan_of(init, key)
    assert len(sealed_in(graph)) == 19


@pytest.mark.parametrize("name", INITS)
def test_opening_every_call_gives_the_graph_of_opened_ones(name, key):
    graph = sealed_graph(INITS[name], key)
    while sealed := sealed_in(graph):
        unseal(graph, sealed)
    opened = _trace.flatten(_trace.record(INITS[name], check.member_key_type(key), ()))
    assert [one.name for one in graph.equations] == [one.name for one in opened.equations]
    assert _numbered(graph) == _numbered(opened)


def _numbered(graph):
    """The equations with values numbered as they appear."""
    numbers = {}

    def atoms(found):
        return [
            atom.value.tobytes()
            if isinstance(atom, Const)
            else numbers.setdefault(atom, len(numbers))
            for atom in found
        ]

    for equation in graph.equations:
        for number in equation.outputs:
            aval = graph.avals[number]
            assert [aval.shape, aval.dtype] in [
                [v.aval.shape, v.aval.dtype] for v in equation.eqn.outvars
            ]
    made = [(atoms(one.inputs), atoms(one.outputs), len(one.calls)) for one in graph.equations]
    return made, atoms(graph.outputs)


def test_a_call_is_opened_once(key):
    graph = sealed_graph(lambda key: [layer(k) for k in split(key, 50)], key)
    sealed = [equation for equation in graph.equations if equation.block is not None]
    assert len(sealed) == 49 and len(graph.equations) < 49 + 50 * 4
    whole = _trace.flatten(_trace.record(lambda key: [layer(k) for k in split(key, 50)], key, ()))
    assert all(equation.block is None for equation in whole.equations)
    assert len(whole.equations) > 50 * 20


def test_a_kernel_that_may_not_be_used_opens_the_calls(key):
    init = SEALED["folds"]
    graph = sealed_graph(init, key)
    kernels = frozenset(["bits"])
    assert sorted(choose.build(graph, interpret.match(graph), kernels)) == sealed_in(graph)
    opened = _trace.trace(init, check.member_key_type(key), ())
    assert _match.planned(graph, kernels) == _match.planned(opened, kernels)
