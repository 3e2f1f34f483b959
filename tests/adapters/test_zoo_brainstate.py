"""Models of brainstate: the same bits as its own `vmap_new_states`, and which leaves are native.

``SEEDBED_ZOO=all`` compiles brainstate's own way at every size.
"""

import os
import re

import jax
import numpy as np
import pytest

import seedbed as sb
from helpers import ROOT, as_words, assert_same_bits, mismatches, native_problem

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("as_users_have_it")]

bs = pytest.importorskip("brainstate")
zoo = pytest.importorskip("zoo.brainstate")

SEED = 41
# On the reference backend each size compiles the whole model.
FEW = ["mlp", "lif"] if native_problem() else list(zoo.MODELS)
ALL = ["mlp", "transformer", "gru", "lif"] if native_problem() else list(zoo.MODELS)


def values(module):
    return {".".join(map(str, path)): state.value for path, state in module.states().items()}


def own(model, size, key):
    """What brainstate makes of a model, and its stream afterwards."""
    built = []
    bs.random.set_key(key)
    bs.transform.vmap_new_states(lambda: built.append(model.make()), axis_size=size)()
    return values(built[-1]), bs.random.DEFAULT.value


def ours(model, size, key):
    built = []
    bs.random.set_key(key)
    make = sb.adapters.brainstate.vmap_new_states(axis_size=size)
    make(lambda: built.append(model.make()))()
    return values(built[-1]), bs.random.DEFAULT.value


def assert_as_brainstate(got, model, size, key):
    """Asserts equality with brainstate under jit; where that depends on jit, with either."""
    want = bs.transform.jit(lambda key: own(model, size, key))(key)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    either = own(model, size, key) if any(mismatches(*pair).any() for pair in pairs) else None
    assert_same_bits(got, want, either=either)


@pytest.fixture(scope="module")
def made():
    """Three members of each model as seedbed makes them, once, with the stream afterwards."""
    kept = {}

    def get(name):
        if name not in kept:
            kept[name] = ours(zoo.MODELS[name], 3, jax.random.key(SEED))
        return kept[name]

    return get


@pytest.mark.parametrize("name", ALL)
def test_the_same_bits_as_vmap_new_states(made, name):
    assert_as_brainstate(made(name), zoo.MODELS[name], 3, jax.random.key(SEED))


@pytest.mark.parametrize("name", FEW)
def test_a_member_does_not_depend_on_the_size(made, name):
    model = zoo.MODELS[name]
    few, _ = made(name)
    many = values(sb.adapters.brainstate.ensemble(model.make, 64)(SEED))
    assert_same_bits(jax.tree.map(lambda leaf: leaf[:3], many), few)
    ensemble = sb.adapters.brainstate.ensemble(model.make, 1)
    assert_same_bits(values(ensemble(SEED)), jax.tree.map(lambda leaf: leaf[:1], few))
    last = sb.adapters.brainstate.ensemble(model.make, 3).member(SEED, 2)
    assert_same_bits(values(last), jax.tree.map(lambda leaf: leaf[2], few))


@pytest.mark.skipif(os.environ.get("SEEDBED_ZOO") != "all", reason="needs SEEDBED_ZOO=all")
@pytest.mark.parametrize("size", (1, 3, 64))
@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_size_in_full(name, size):
    model = zoo.MODELS[name]
    key = jax.random.key(SEED + size)
    assert_as_brainstate(ours(model, size, key), model, size, key)


@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_random_leaf_is_drawn_natively(native, made, name):
    model = zoo.MODELS[name]
    outputs = {
        output.path: output
        for output in sb.adapters.brainstate.ensemble(model.make, 3).plan(SEED).outputs
    }
    few, _ = made(name)
    random = [leaf for leaf in jax.tree.leaves(few) if differs(leaf)]
    assert len(random) == model.native + len(model.finished)
    assert sum(output.why == "native" for output in outputs.values()) == model.native
    for path, equation in model.finished.items():
        assert re.fullmatch(rf"XLA: ({equation}) of draw [\d, .]+", outputs[path].why)
    others = [o for path, o in outputs.items() if o.why != "native" and path not in model.finished]
    assert {output.why for output in others} <= {"native: constant", "XLA: constant"}


def differs(leaf):
    words = as_words(leaf)
    return bool((words[0] != words[1]).any())


def test_the_page_lists_what_xla_finishes():
    text = (ROOT / "docs" / "use-with-brainstate.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` of a draw \| ", text, re.MULTILINE)
    used = {
        equation.split("|")[0]  # as newer releases of jax call it
        for model in zoo.MODELS.values()
        for equation in model.finished.values()
    }
    assert set(listed) == used and len(listed) == len(used)


@pytest.mark.parametrize("name", ["mlp", "lif", "dropout"])
def test_members_run_in_the_idiom_of_brainstate(name):
    model = zoo.MODELS[name]
    nets = sb.adapters.brainstate.ensemble(model.make, 3)(SEED)
    members = sb.adapters.brainstate.unstack(nets)
    out = sb.adapters.brainstate.forward(nets, model.input())
    alone = [member(model.input()) for member in members]
    np.testing.assert_allclose(out, np.stack(alone), rtol=1e-5, atol=1e-6)
