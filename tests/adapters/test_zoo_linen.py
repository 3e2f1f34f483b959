"""Models of flax.linen: the same bits as ``jax.vmap(model.init)``, drawn by the native backend."""

import functools
import os

import jax
import pytest

pytest.importorskip("flax.linen")

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
from zoo import linen as zoo

pytestmark = pytest.mark.shared

ALL = os.environ.get("SEEDBED_ZOO") == "all"
NAMES = list(zoo.MODELS)


def ours(name, size):
    model = zoo.MODELS[name]
    make = sb.adapters.linen.ensemble(model.module, size)
    return lambda key: make(key, *model.inputs, **model.kwargs)


def keys_of(name, size):
    return jax.tree.map(lambda key: split(key, size), zoo.MODELS[name].key(5))


@functools.cache
def made(name, size):
    return ours(name, size)(zoo.MODELS[name].key(5))


@pytest.mark.parametrize("name", some(NAMES))
@pytest.mark.parametrize("size", [1, 3, 64] if ALL else [3])
def test_equals_vmap_of_init(name, size):
    model = zoo.MODELS[name]
    if ALL:  # compiled as a whole, too
        expected = jax.jit(jax.vmap(model.init))(keys_of(name, size))
        assert_same_bits(made(name, size), expected)
    assert_same_as_either(made(name, size), jax.vmap(model.init), keys_of(name, size))


@pytest.mark.parametrize("name", some(NAMES))
def test_members_do_not_depend_on_their_number(name):
    assert_same_bits(made(name, 3), take(made(name, 64), slice(3)))
    first = jax.tree.map(lambda keys: keys[:1], keys_of(name, 64))
    assert_same_bits(ours(name, 1)(first), take(made(name, 64), slice(1)))


@pytest.mark.parametrize("name", NAMES)
def test_random_variables_are_native(name, native):
    model = zoo.MODELS[name]
    make = sb.adapters.linen.ensemble(model.module, 64)
    plan = make.plan(model.key(5), *model.inputs, **model.kwargs)
    leaves = jax.tree.leaves(made(name, 64))
    assert random_variables(plan, leaves, zoo.NOT_NATIVE.get(name)) >= 3


def test_the_page_lists_what_is_not_native():
    assert not_native_rows("use-with-linen.md") == zoo.NOT_NATIVE
