"""Models of haiku: the same bits as ``jax.vmap(init)``, drawn by the native backend."""

import functools
import os

import jax
import pytest

pytest.importorskip("haiku")

import seedbed as sb
from helpers import (
    assert_same_as_either,
    assert_same_bits,
    not_native_rows,
    random_variables,
    some,
    split,
    take,
)
from zoo import haiku as zoo

pytestmark = pytest.mark.shared

ALL = os.environ.get("SEEDBED_ZOO") == "all"
NAMES = list(zoo.MODELS)
KEY = jax.random.key(5)


def ours(name, size):
    model = zoo.MODELS[name]
    make = sb.adapters.haiku.ensemble(model.transformed, size)
    return lambda key: make(key, *model.inputs, **model.kwargs)


@functools.cache
def made(name, size):
    return ours(name, size)(KEY)


@pytest.mark.parametrize("name", some(NAMES))
@pytest.mark.parametrize("size", [1, 3, 64] if ALL else [3])
def test_equals_vmap_of_init(name, size):
    model, keys = zoo.MODELS[name], split(KEY, size)
    if ALL:  # compiled as a whole, too
        # Where the example batch goes through the layers, for the averages of batch norm, XLA
        # fuses draws with convolutions and rounds a few another way than eagerly.
        either = jax.vmap(model.init)(keys) if name == "cnn" else None
        assert_same_bits(made(name, size), jax.jit(jax.vmap(model.init))(keys), either=either)
    assert_same_as_either(made(name, size), jax.vmap(model.init), keys)


@pytest.mark.parametrize("name", some(NAMES))
def test_members_do_not_depend_on_their_number(name):
    assert_same_bits(made(name, 3), take(made(name, 64), slice(3)))
    first = split(KEY, 64)[:1]
    assert_same_bits(ours(name, 1)(first), take(made(name, 64), slice(1)))


@pytest.mark.parametrize("name", NAMES)
def test_random_variables_are_native(name, native):
    model = zoo.MODELS[name]
    make = sb.adapters.haiku.ensemble(model.transformed, 64)
    plan = make.plan(KEY, *model.inputs, **model.kwargs)
    leaves = jax.tree.leaves(made(name, 64))
    assert random_variables(plan, leaves, zoo.NOT_NATIVE.get(name)) >= 2


def test_the_page_lists_what_is_not_native():
    assert not_native_rows("use-with-haiku.md") == zoo.NOT_NATIVE
