"""Loops as a call of a hoisted part and a loop."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.random import normal, split

from helpers import plan_of
from seedbed import _trace

KEY = jax.random.key(0)


def _graph(init):
    return _trace.trace(init, jax.eval_shape(lambda: KEY), ())


def _hoisted(graph):
    return [call for call in graph.calls if call.eqn.primitive is _trace.hoisted]


def test_a_loop_that_draws_nothing_is_left_alone():
    graph = _graph(lambda key: lax.scan(lambda x, _: (2 * x, x), normal(key, (9,)), length=3))
    assert not graph.loops and not _hoisted(graph)
    assert "scan" in [equation.name for equation in graph.equations]


def test_a_loop_of_draws_leaves_no_loop():
    graph = _graph(lambda key: lax.map(lambda key: normal(key, (9,)), split(key, 3)))
    assert len(graph.loops) == 1 and len(_hoisted(graph)) == 1
    assert "scan" not in [equation.name for equation in graph.equations]


def test_equal_loops_are_looked_at_once():
    @jax.jit
    def layers(key):
        return lax.map(lambda key: normal(key, (9,)), split(key, 3))

    graph = _graph(lambda key: [layers(key) for key in split(key, 4)])
    assert len(graph.loops) == 1 and len(_hoisted(graph)) == 4


def test_dead_parts_of_a_program_are_dropped_only_for_its_loops():
    def init(key):
        normal(key, (5,))
        return lax.map(lambda key: normal(key, (9,)), split(key, 3))

    graph = _graph(init)
    assert graph.program is not graph.closed
    assert sum(equation.name == "random_bits" for equation in graph.equations) == 1
    graph = _graph(lambda key: (normal(key, (5,)), normal(key, (9,)))[1])
    assert graph.program is graph.closed


def test_what_is_no_draw_goes_back_into_the_loop():
    def step(x, key):
        drawn = normal(key, (16, 16))
        return x + 1.0, {"w": drawn, "product": drawn @ drawn, "x": x}

    plan = plan_of(lambda key: lax.scan(step, jnp.zeros(()), split(key, 3))[1])
    assert [step.eqn.primitive.name for step in plan.steps] == ["scan"]
    assert [output.path for output in plan.native] == ["['w']"]
