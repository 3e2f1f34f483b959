"""Real models of flax nnx: the same bits as nnx's own way, native where they can be."""

import functools
import os
import re

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("flax.nnx")
from flax import nnx

import seedbed as sb
from helpers import ROOT, assert_same_bits, mismatches, some
from zoo import nnx as zoo

pytestmark = pytest.mark.shared

ALL = os.environ.get("SEEDBED_ZOO") == "all"
NAMES = list(zoo.MODELS)

# Leaves that XLA makes, with the primitive, by model. docs/use-with-nnx.md has them, too.
NOT_NATIVE = {
    "gru": {"rnn.rngs.key": "random_seed"},
    "lstm": {"rnn.rngs.key": "random_seed"},
}


def nnx_way(model, size, rngs):
    """As a user of nnx makes an ensemble."""

    @nnx.split_rngs(splits=size)
    @nnx.vmap(in_axes=0)
    def make(rngs):
        return model.make(*model.args, rngs=rngs)

    return make(rngs)


@functools.cache
def three(name):
    model = zoo.MODELS[name]
    rngs = model.rngs()
    return sb.adapters.nnx.ensemble(model.make, 3)(rngs, *model.args), rngs


def assert_equal_to_nnx(name, size, got, rngs):
    model = zoo.MODELS[name]
    other = model.rngs()
    expected = nnx_way(model, size, other)
    (graphdef, state), (expected_graphdef, expected_state) = nnx.split(got), nnx.split(expected)
    assert graphdef == expected_graphdef
    assert_same_bits(nnx.state(rngs), nnx.state(other))
    leaves, others = jax.tree.leaves(state), jax.tree.leaves(expected_state)
    pairs = enumerate(zip(leaves, others, strict=True))
    wrong = [i for i, (one, two) in pairs if mismatches(one, two).any()]
    either = dict(zip(wrong, jitted_leaves(model, size, wrong), strict=True))
    either = [either.get(i, leaf) for i, leaf in enumerate(others)]
    either = jax.tree.unflatten(jax.tree.structure(expected_state), either)
    assert_same_bits(state, expected_state, either=either)


def jitted_leaves(model, size, wanted):
    """Some leaves as nnx's own way gives them when it is jitted; nothing else is compiled."""

    @nnx.jit
    def leaves(rngs):
        found = jax.tree.leaves(nnx.state(nnx_way(model, size, rngs)))
        return [found[i] for i in wanted]

    return leaves(model.rngs()) if wanted else []


@pytest.mark.parametrize("name", NAMES)
def test_an_ensemble_equals_split_rngs_with_vmap(name):
    assert_equal_to_nnx(name, 3, *three(name))
    if ALL:
        model = zoo.MODELS[name]
        for size in (1, 64):
            rngs = model.rngs()
            made = sb.adapters.nnx.ensemble(model.make, size)(rngs, *model.args)
            assert_equal_to_nnx(name, size, made, rngs)
            outputs = sb.adapters.nnx.forward(made, jnp.ones(model.inputs, model.dtype))
            assert outputs.shape[:2] == (size, model.inputs[0])


def first_keys(rngs, size):
    """By stream, the key of the first of some members, as an array of one."""
    return {
        name: jax.random.split(jax.random.fold_in(stream.key[...], stream.count[...]), size)[:1]
        for name, stream in rngs.items()
    }


@pytest.mark.parametrize("name", some(NAMES))
def test_a_member_never_depends_on_how_many_there_are(name):
    model = zoo.MODELS[name]
    few = nnx.state(three(name)[0])
    many = nnx.state(sb.adapters.nnx.ensemble(model.make, 64)(model.rngs(), *model.args))
    assert_same_bits(jax.tree.map(lambda leaf: leaf[:3], many), few)
    keys = first_keys(model.rngs(), 3)
    one = nnx.state(sb.adapters.nnx.ensemble(model.make, 1)(keys, *model.args))
    assert_same_bits(one, jax.tree.map(lambda leaf: leaf[:1], few))


def made_by(plan):
    """By leaf, how it is made: native, constant, or the primitive that XLA is left with."""
    made = {}
    for output in plan.outputs:
        name = ".".join(re.findall(r"\['?(\w+)'?\]", output.path))
        left = re.search(r"reference: (\w+)", output.why)
        if left:
            made[name] = left[1]
        else:
            made[name] = "constant" if output.why.endswith(": constant") else "native"
            assert made[name] == "constant" or output.why == "native" or "of draw" in output.why
    return made


@pytest.mark.parametrize("name", NAMES)
def test_all_random_leaves_are_native_but_those_of_the_table(name, native):
    model = zoo.MODELS[name]
    plan = sb.adapters.nnx.ensemble(model.make, 3).plan(model.rngs(), *model.args)
    made = made_by(plan)
    left = {leaf: how for leaf, how in made.items() if how not in ("native", "constant")}
    assert left == NOT_NATIVE.get(name, {})
    weights = [leaf for leaf in made if leaf.endswith(("kernel", "embedding"))]
    assert weights and all(made[leaf] == "native" for leaf in weights)


def test_the_documentation_lists_the_leaves_that_are_not_native():
    text = (ROOT / "docs" / "use-with-nnx.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w.]+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert set(rows) == {row for leaves in NOT_NATIVE.values() for row in leaves.items()}
