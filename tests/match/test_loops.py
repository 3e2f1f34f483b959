"""What of a loop is drawn natively, and what `explain` says of one that stays."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.random import fold_in, normal, split

from helpers import plan_of

STEPS = 256  # that a key may be carried through


def _mapped(key, step, count=3):
    return lax.map(step, split(key, count))


def _chain(length):
    def step(key, _):
        key, sub = split(key)
        return key, normal(sub, (9,))

    return lambda key: lax.scan(step, key, length=length)[1]


def test_steps_are_one_draw():
    plan = plan_of(
        lambda key: _mapped(key, lambda key: 0.5 * normal(fold_in(key, 7), (4, 9)), 1000)
    )
    (draw,) = plan.draws
    assert (str(draw), str(draw.key), draw.shape) == ("normal * 0.5", "key/i/7", (1000, 4, 9))
    assert [output.why for output in plan.outputs] == ["native"] and not plan.steps


def test_what_is_carried_and_not_asked_for_is_dropped():
    def step(x, key):
        w = normal(key, (16, 16))
        return jnp.tanh(x @ w), w

    def init(key):
        x, w = lax.scan(step, jnp.ones((2, 16)), split(key, 3))
        return w

    assert [output.why for output in plan_of(init).outputs] == ["native"]
    plan = plan_of(lambda key: lax.scan(step, jnp.ones((2, 16)), split(key, 3)))
    assert [output.why for output in plan.outputs] == ["XLA: scan of draw 0", "native"]
    (left,) = plan.steps
    assert left.eqn.primitive.name == "scan" and "random_" not in str(left.eqn)


def test_a_chain_of_keys():
    plan = plan_of(_chain(STEPS))
    assert [str(draw.key) for draw in plan.draws[:3]] == ["key/1", "key/0/1", "key/0/0/1"]
    assert len(plan.draws) == STEPS and not plan.steps
    assert [output.why for output in plan.native] == ["native, stacked by XLA"]
    rows = [line for line in plan.explain().splitlines() if "key/" in line]
    assert len(rows) == 1 and "key/1 and 255 more" in rows[0]


def test_loops_that_stay_say_why():
    (output,) = plan_of(_chain(STEPS + 1)).outputs
    assert output.why == (
        "XLA: scan of draw 0 (reference: scan, whose key is carried through 257 steps (of at most "
        "256), not recognised)"
    )

    def summed(key):
        return lax.scan(lambda x, key: (x + normal(key, (9,)), None), jnp.zeros(9), split(key, 3))

    (output,) = plan_of(lambda key: summed(key)[0]).outputs
    assert output.why == (
        "XLA: scan of draw 0 (reference: scan, whose draws take more memory than its results, not "
        "recognised)"
    )


def test_an_orthogonal_matrix_is_made_in_a_loop_of_native_normals():
    orthogonal = jax.nn.initializers.orthogonal()
    plan = plan_of(lambda key: _mapped(key, lambda key: orthogonal(key, (16, 16))))
    assert [str(draw).split(" *")[0] for draw in plan.draws] == ["normal"]
    assert [output.why for output in plan.outputs] == ["XLA: scan of draw 0"]


def test_a_draw_is_rounded_where_it_leaves_its_loop():
    plan = plan_of(lambda key: _mapped(key, lambda key: 0.3 * normal(key, (9,))) + 1.0)
    assert [str(draw) for draw in plan.draws] == ["normal * 0.3"]
    assert [output.why for output in plan.outputs] == ["XLA: add of draw 0"]


def test_draws_by_keys_that_follow_one_another_are_one():
    def init(key):
        return lax.map(lambda key: normal(key, (4, 9)), split(key, 7), batch_size=3)

    (draw,) = plan_of(init).draws
    assert (str(draw.key), draw.shape) == ("key/i", (7, 4, 9))
    keys = [0, 2, 1]
    plan = plan_of(
        lambda key: jnp.concatenate([normal(split(key, 3)[i : i + 1][0], (1, 9)) for i in keys])
    )
    assert len(plan.draws) == 3 and plan.steps


def test_dimensions_of_keys_change_places():
    def init(key):
        each = jax.vmap(lambda key: normal(key, (9,)))
        return jnp.swapaxes(jax.vmap(each)(split(key, (2, 3))), 0, 1)

    plan = plan_of(init)
    assert [(str(draw.key), draw.shape) for draw in plan.draws] == [("key/i+3*j", (3, 2, 9))]
    assert not plan.steps


@pytest.mark.parametrize("index", [0, 1, 9, -2])
def test_a_constant_chooses_its_branch(index):
    def init(key):
        branches = [lambda key: normal(key, (9,)), lambda key: jax.random.uniform(key, (9,))]
        return lax.switch(jnp.int32(index), branches, key)

    plan = plan_of(init)
    assert [draw.kind.name for draw in plan.draws] == ["NORMAL" if index < 1 else "UNIFORM"]
    assert not plan.steps
