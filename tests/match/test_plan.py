"""Plans: inert data that can be compared, hashed, printed and turned into words."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import plan_of, sources
from models import MODELS
from seedbed import _trace
from seedbed._match import choose, interpret
from seedbed._plan import FromArgument
from seedbed._plan import plan as _plan
from seedbed._plan.draw import MEMBER, Draw, KeyPath, Kind, Level, key_path, node
from seedbed._run import native

normal, uniform = jax.random.normal, jax.random.uniform


def init(key):
    w, b = jax.random.split(key)
    return {"w": normal(w, (7, 2)), "b": uniform(b, (6,)), "zero": jnp.zeros(3)}


def test_equal_functions_have_equal_plans():
    def other(key):
        keys = jax.random.split(key, 2)
        bias = jax.jit(uniform, static_argnums=1)(keys[1], (6,))
        return {"w": normal(keys[0], (7, 2)), "b": bias, "zero": jnp.zeros(3)}

    first, second = plan_of(init), plan_of(other)
    assert first == second and hash(first) == hash(second) and len({first, second}) == 1
    assert first.explain() == second.explain()


@pytest.mark.parametrize(
    "other",
    [
        lambda key: {**init(key), "zero": jnp.zeros(4)},
        lambda key: {**init(key), "zero": -jnp.zeros(3)},
        lambda key: {**init(key), "zero": jnp.zeros(3, jnp.int32)},
        lambda key: {**init(key), "one": jnp.ones(3)},
        lambda key: {**init(key), "b": uniform(jax.random.split(key)[1], (6,), maxval=1.5)},
        lambda key: {**init(key), "b": uniform(jax.random.split(key)[0], (6,))},
        lambda key: {**init(key), "b": uniform(jax.random.split(key)[1], (6,), jnp.float16)},
        lambda key: list(init(key).values()),
    ],
)
def test_different_functions_have_different_plans(other):
    assert plan_of(other) != plan_of(init)


def test_plans_are_frozen():
    plan = plan_of(init)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.draws = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.draws[0].inner = 3


def test_residual_equations_are_compared_by_structure():
    def turned(key):
        return normal(key, (6, 2)).T

    plan, again = plan_of(turned), plan_of(turned)
    assert plan.steps and plan == again and hash(plan) == hash(again)
    assert plan.steps[-1].eqn is not again.steps[-1].eqn
    assert plan != plan_of(lambda key: jnp.flip(normal(key, (6, 2))))


def test_values_are_numbered_in_order_of_appearance():
    def init(key, unused, scale):
        del unused
        return jnp.sort(scale * normal(key, (6,))), scale

    plan = plan_of(init, None, 1.5, 2.5)
    assert [number for step in plan.steps for number in step.outputs] == list(
        range(len(plan.steps))
    )
    assert plan.args == (1,) and plan.outputs[1].source == FromArgument(0)
    assert plan == plan_of(lambda key, scale: init(key, None, scale), None, 2.5)


@pytest.mark.parametrize("model", MODELS)
def test_planning_twice_gives_the_same_plan(model):
    if model != "none":
        pytest.importorskip(model)
    assert plan_of(MODELS[model]) == plan_of(MODELS[model])
    assert plan_of(MODELS[model]).explain() == plan_of(MODELS[model]).explain()


def test_explain():
    def init(key):
        w, b, q = jax.random.split(key, 3)
        return {
            "w": 0.5 * normal(w, (4, 7)),
            "b": jnp.full((3,), 0.25),
            "e": jax.random.rayleigh(b, 1.0, (60,)),
            "k": jax.random.fold_in(q, 9),
            "n": normal(q, (2,), jnp.bfloat16),
        }

    lines = plan_of(init).explain().splitlines()
    assert [line.split() for line in lines[:1]] == [
        ["output", "draw", "shape", "dtype", "key", "path", "made", "by"]
    ]
    assert set(lines[1]) == {"-", " "}
    table = {line.split()[0]: line for line in lines[2:7]}
    assert "normal * 0.5" in table["['w']"] and table["['w']"].split()[-2:] == ["key/0", "native"]
    assert "constant" in table["['b']"] and table["['b']"].endswith("native: constant")
    assert table["['e']"].endswith("XLA: mul of draw 0")
    assert "key<fry>" in table["['k']"] and "key/2/9" in table["['k']"]
    assert "table of 256 values" in table["['n']"]
    assert lines[7].startswith("(draw 0)") and lines[7].endswith("native, feeds XLA")
    assert lines[8] == ""
    assert lines[9].startswith("4 draws in one custom call; 4 of 5 outputs written by it, ")
    assert lines[9].endswith("a member") and len(lines) == 10


def test_what_is_not_recognised_is_named():
    plan = plan_of(lambda key, i: normal(jax.random.split(key, 5)[i], (3,)), None, 2)
    assert "not recognised" in plan.outputs[0].why
    plan = plan_of(lambda key, x: (x, key), None, 1.0)
    assert plan.outputs[0].why == "XLA: an argument"


def test_reference_plans_say_why():
    graph = _trace.trace(init, jax.eval_shape(jax.random.key, 0), ())
    plan = choose.reference_plan(graph, "a test")
    assert plan.summary() == "reference: a test" and not plan.draws and not plan.native
    assert set(sources(plan).values()) == {"reference: a test"}
    assert plan.explain().count("reference: a test") == 4


def test_kernels_decide_what_is_native():
    def init(key):
        w, b = jax.random.split(key)
        return {"w": normal(w, (2, 70)), "b": uniform(b, (60,)), "zero": jnp.zeros(3)}

    graph = _trace.trace(init, jax.eval_shape(jax.random.key, 0), ())
    meanings = interpret.match(graph)
    for kernels, kinds in [
        (_plan.ALL_KERNELS, {"NORMAL", "UNIFORM"}),
        (_plan.ALL_KERNELS - {"normal32"}, {"UNIFORM"}),
        (frozenset(["bits"]), {"BITS"}),
    ]:
        plan = choose.build(graph, meanings, kernels)
        assert {draw.kind.name for draw in plan.draws} == kinds


def test_bytes():
    plan = plan_of(init)
    assert plan.member_bytes == 4 * (14 + 6 + 3) == plan.total_bytes
    fed = plan_of(lambda key: normal(key, (6, 2)).sum())
    assert (fed.member_bytes, fed.total_bytes) == (4, 4 + 48)
    assert plan_of(lambda key: (key, normal(key, (), jnp.bfloat16))).member_bytes == 8 + 2


def test_the_largest_results_come_first():
    assert [output.path for output in _plan.largest(plan_of(init), 2)] == ["['w']", "['b']"]


def test_many_leaves():
    # Row 65: the plan grows with the leaves, and stays one call.
    def init(key):
        return [uniform(one, (2,)) for one in jax.random.split(key, 1000)]

    plan = plan_of(init)
    assert len(plan.draws) == len(plan.native) == 1000 and not plan.steps
    assert str(plan.draws[999].key) == "key/999"


def test_long_residual_programs_do_not_recurse():
    def init(key):
        x = normal(key, (2,))
        for _ in range(3000):
            x = jnp.sin(x)
        return x

    plan = plan_of(init)
    assert len(plan.steps) >= 3000 and plan.outputs[0].why.startswith("XLA: sin of draw 0")


# --- key paths and encoding -------------------------------------------------------------


@pytest.mark.parametrize(
    ("level", "text"),
    [
        (Level(0, ()), "0"),
        (Level(7, ()), "7"),
        (Level(0, (1,)), "i"),
        (Level(3, (1,)), "3+i"),
        (Level(0, (3, 1)), "3*i+j"),
        (Level(0, (0, 2)), "2*j"),
        (Level(0, (11,)), "11*i"),
        (Level(5, (21, 1)), "5+21*i+j"),
        (Level(2, (0, 0)), "2"),
    ],
)
def test_levels_are_readable(level, text):
    assert str(level) == text
    path = key_path((2,) * len(level.strides), node(1, 9), [level])
    assert str(path) == f"key/1/9/{text}"


def test_equal_paths_are_equal():
    assert node(1, 2) is node(1).fold(2) and node() is MEMBER and node(2, 1) != node(1, 2)
    # Folds that all rows share belong to the node, however they were written.
    assert key_path((3,), MEMBER, [Level(7, (0,)), Level(0, (1,))]) == key_path(
        (3,), node(7), [Level(0, (1,))]
    )
    assert node(4, 5).indices() == (4, 5) and pickle.loads(pickle.dumps(node(4))) is node(4)


def test_long_paths_are_shortened():
    assert str(KeyPath((), node(*range(20)))) == "key/0/1/2/(14 more)/17/18/19"


def test_encoding():
    draw = Draw(
        Kind.TABLE,
        key_path((2, 3), node(4, 7), [Level(2**64 - 1, (3, 2**64 - 2)), Level(1, (0, 0))]),
        *(5, 8, "uint8", (2, 3, 5), (0,)),
        table=bytes(range(12)),
    )
    words = native.encode((draw, draw)).tolist()
    assert words[:5] == [0x5EEDBED0, native.PLAN_VERSION, 2, 2, 0]
    # Nodes: parent and index; the member key is node 0.
    assert words[5:9] == [0, 4, 1, 7]
    length = (len(words) - 9) // 2
    first = words[9 : 9 + length]
    assert first == words[9 + length :]
    assert first[:11] == [6, 8, 1, 5, 0, 2, 1, 2, 2, 2, 0]
    assert first[11:21] == [2, 3, 0, 0, -1, 3, -2, 1, 0, 0]
    assert first[21:22] == [0]
    assert np.array(first[22:], np.int64).tobytes() == bytes(range(12)) + bytes(4)


def test_what_a_draw_needs():
    kinds = {str(draw): draw.needs for draw in plan_of(init).draws}
    assert kinds == {"normal": "normal32", "uniform [0, 1)": "uniform32"}
    assert plan_of(lambda key: key).draws[0].needs == "bits"
