"""Models of equinox: the same bits as `equinox.filter_vmap`, and which leaves are native.

``SEEDBED_ZOO=all`` compiles equinox's own way at every size, instead of running it op by op at one.
"""

import os
import re
import types

import jax
import numpy as np
import pytest

import seedbed as sb
from helpers import ROOT, as_words, assert_same_bits, mismatches, native_problem, split

pytestmark = pytest.mark.shared

eqx = pytest.importorskip("equinox")
zoo = pytest.importorskip("zoo.equinox")

SIZES = (1, 3, 64)
MODELS = list(zoo.MODELS)
FEW = MODELS
if native_problem():  # where every size compiles the whole model
    MODELS = ["MLP", "CNN with batch norm", "transformer block", "GRU", "mixture of experts"]
    MODELS += ["embedding with a tied head", "dropout with its own stream"]
    FEW = ["dropout with its own stream"]


def keys_of(model):
    base = jax.random.key(41)
    if not model.streams:
        return base
    return {name: jax.random.fold_in(base, i) for i, name in enumerate(model.streams)}


def split_each(keys, size):
    return jax.tree.map(lambda key: split(key, size), keys)


def arrays(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array))


def static(tree):
    return jax.tree.leaves(eqx.filter(tree, eqx.is_array, inverse=True))


def same_static(one, two):
    """Whether two leaves mean the same; models have markers and functions of their own."""
    if type(one) is not type(two):
        return False
    if isinstance(one, types.FunctionType):
        return one.__code__ is two.__code__
    return one == two or type(one).__eq__ is object.__eq__


def first(tree, count):
    return [leaf[:count] for leaf in arrays(tree)]


def assert_same_models(got, eager, jitted):
    """Asserts equality with equinox's own, or where its results depend on jit, with either."""
    assert jax.tree.structure(got) == jax.tree.structure(eager)
    assert all(map(same_static, static(got), static(eager)))
    pairs = zip(arrays(got), arrays(eager), strict=True)
    either = jitted() if any(mismatches(one, two).any() for one, two in pairs) else None
    assert_same_bits(arrays(got), arrays(eager), either=either and arrays(either))


@pytest.fixture(scope="module")
def made():
    """Three members of each model, as seedbed and as equinox make them, once."""
    kept = {}

    def get(name):
        if name not in kept:
            model = zoo.MODELS[name]
            keys = keys_of(model)
            theirs = eqx.filter_vmap(model.make)(split_each(keys, 3))
            ours = sb.adapters.equinox.ensemble(model.make, 3)
            kept[name] = (ours, ours(keys), theirs)
        return kept[name]

    return get


@pytest.mark.parametrize("name", MODELS)
def test_the_same_bits_as_filter_vmap(made, name):
    model = zoo.MODELS[name]
    _, got, want = made(name)
    keys = split_each(keys_of(model), 3)
    assert_same_models(got, want, lambda: eqx.filter_jit(eqx.filter_vmap(model.make))(keys))


@pytest.mark.parametrize("name", FEW)
def test_a_member_does_not_depend_on_the_size(made, name):
    model = zoo.MODELS[name]
    keys = keys_of(model)
    make, few, _ = made(name)
    # Power iterations are sums over draws, which XLA rounds as each program fuses them.
    summed = {path for path, equation in model.xla if equation == "div"}
    ulps = [64 if output.path in summed else 0 for output in make.plan(keys).outputs]

    def assert_same_members(got, expected):
        for one, two, allowed in zip(got, expected, ulps, strict=True):
            assert_same_bits(one, two, ulps=allowed)

    many = sb.adapters.equinox.ensemble(model.make, 64)(keys)
    assert_same_members(first(many, 3), first(few, 3))
    one = sb.adapters.equinox.ensemble(model.make, 1)
    assert_same_members(
        arrays(one(jax.tree.map(lambda key: key[:1], split_each(keys, 3)))), first(few, 1)
    )
    last = make.member(keys, 2)
    assert_same_members(arrays(last), [leaf[2] for leaf in arrays(few)])


@pytest.mark.skipif(os.environ.get("SEEDBED_ZOO") != "all", reason="needs SEEDBED_ZOO=all")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_size_in_full(name, size):
    model = zoo.MODELS[name]
    keys = split_each(keys_of(model), size)
    got = sb.adapters.equinox.ensemble(model.make, size)(keys_of(model))
    jitted = eqx.filter_jit(eqx.filter_vmap(model.make))(keys)
    assert_same_models(got, jitted, lambda: eqx.filter_vmap(model.make)(keys))


@pytest.mark.parametrize("name", zoo.MODELS)
def test_every_random_leaf_is_native(native, made, name):
    model = zoo.MODELS[name]
    make, _, want = made(name)
    outputs = make.plan(keys_of(model)).outputs
    random = [
        output
        for output, leaf in zip(outputs, arrays(want), strict=True)
        if (as_words(leaf)[0] != as_words(leaf)[1]).any()
    ]
    assert len(random) == model.random
    assert not [output.path for output in outputs if "not recognised" in output.why]
    others = [(output.path, output.why) for output in random if output.why != "native"]
    assert [path for path, _ in others] == [path for path, _ in model.xla]
    for (_, why), (_, equation) in zip(others, model.xla, strict=True):
        assert re.fullmatch(rf"XLA: {equation} of draw [\d, ]+", why)


def test_the_page_lists_the_leaves_that_xla_makes():
    text = (ROOT / "docs" / "use-with-equinox.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| ([^|]+) \| `([^`]+)` \| `([^`]+)` ", text, re.MULTILINE)
    expected = [
        (name, path, equation) for name, model in zoo.MODELS.items() for path, equation in model.xla
    ]
    assert expected and listed == expected


@pytest.mark.parametrize("name", ["mixture of experts", "embedding with a tied head"])
def test_members_run(made, name):
    models = made(name)[1]
    x = np.int32(4) if "tied" in name else np.ones(zoo.WIDTH, np.float32)
    outs = sb.adapters.equinox.forward(models, x)
    singles = sb.adapters.equinox.unstack(models)
    np.testing.assert_allclose(outs[2], singles[2](x), rtol=1e-5, atol=1e-6)
    assert len({float(out.sum()) for out in outs}) == 3
