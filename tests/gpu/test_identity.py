"""Ensembles on the device beside ``jax.jit(jax.vmap(init))(jax.random.split(key, n))`` there."""

from __future__ import annotations

import contextlib
import warnings

import jax
import numpy as np
import pytest

import seedbed as sb
from gpu import device
from gpu.inits import EXACT, NEAR, X64
from helpers import as_words, assert_same_bits, oracle
from seedbed._trust import selfcheck

SIZES = (1, 2, 3, 17, 1000)
INITS = EXACT | NEAR
KEY = 7


@pytest.fixture(autouse=True)
def x64(request):
    name = request.node.callspec.params.get("name") if hasattr(request.node, "callspec") else ""
    with jax.enable_x64(True) if name in X64 else contextlib.nullcontext():
        yield


def distances(got, want) -> str:
    """Each leaf that differs: how many of its elements do, and by how much at most."""
    lines = []
    for (path, one), two in zip(
        jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
        one, two = as_words(one), as_words(two)
        if one.shape == two.shape and (one != two).any():
            far = device.ulps(one, two).max()
            count = f"{(one != two).sum():,} of {one.size:,}"
            lines.append(f"{jax.tree_util.keystr(path)}: {count} differ, by up to {far} ulp")
    return "\n".join(lines)


def compare(got, want, ulps: int) -> None:
    try:
        assert_same_bits(got, want, ulps=ulps)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{distances(got, want)}") from None


def test_every_kernel_is_in_use(record_property):
    """What differs is left to XLA, which the tests below would compare with itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", selfcheck.SelfCheckWarning)
        found = selfcheck.report("cuda")
    record_property("kernels", str(found))
    assert "bits" in found.trusted
    # Normals alone may differ, by the 2 ulp that test_normals.py allows them.
    assert not {name for name in found.differing if "normal" not in name}, found


def made_natively(make, key) -> None:
    plan = make.plan(key)
    assert plan.reference is None, plan.explain()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", INITS)
def test_all_members(name, size, record_property):
    key, make = jax.random.key(KEY), sb.ensemble(INITS[name], size)
    made_natively(make, key)
    got, want = make(key), oracle(INITS[name], size, key)
    record_property("differences", distances(got, want))
    compare(got, want, 0 if name in EXACT else 2)


@pytest.mark.parametrize("name", INITS)
def test_some_members(name):
    """Parts of an ensemble have the bits of the whole, whatever they are made with."""
    size, key = 17, jax.random.key(KEY)
    make = sb.ensemble(INITS[name], size)
    whole = make(key)
    slack = 0 if name in EXACT else 2  # of what XLA goes on with: programs of other sizes

    def part(index):
        return jax.tree.map(lambda leaf: leaf[index], whole)

    for i in (0, 5, -1):
        compare(make.member(key, i), part(i), slack)
    compare(make.members(key, slice(3, 11)), part(slice(3, 11)), slack)
    chosen = np.array([16, 0, 7, 7])
    compare(make.members(key, chosen), part(chosen), slack)
    starts = range(0, size, 5)
    for start, piece in zip(starts, make.stream(key, chunk_size=5), strict=True):
        compare(piece, part(slice(start, start + 5)), slack)


def test_plain_normals_of_a_member_are_those_of_the_ensemble():
    """No XLA in between: identical, in whatever tile a number is made."""
    key, make = jax.random.key(3), sb.ensemble(lambda key: jax.random.normal(key, (33, 65)), 300)
    whole = np.asarray(make(key))
    for i in (0, 1, 17, 299):
        np.testing.assert_array_equal(np.asarray(make.member(key, i)), whole[i])
    np.testing.assert_array_equal(np.asarray(make.members(key, slice(5, 290))), whole[5:290])


@pytest.mark.parametrize("size", [1, 3])
def test_legacy_keys_and_member_keys(size):
    key = jax.random.PRNGKey(5)
    make = sb.ensemble(INITS["bits"], size)
    compare(make(key), oracle(INITS["bits"], size, key), 0)
    compare(make(jax.random.split(key, size)), oracle(INITS["bits"], size, key), 0)


def test_arguments_of_members():
    def init(key, scale, shift):
        return scale * jax.random.uniform(key, (33,)) + shift

    key, scale = jax.random.key(1), jax.numpy.arange(1.0, 18.0)
    make = sb.ensemble(init, 17, in_axes=(0, None))
    want = jax.jit(jax.vmap(init, (0, 0, None)))(jax.random.split(key, 17), scale, 0.5)
    compare(make(key, scale, 0.5), want, 2)


@pytest.mark.parametrize("backend", ["reference", "native"])
def test_backends_can_be_forced(backend, monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", backend)
    key, make = jax.random.key(2), sb.ensemble(INITS["integers"], 3)
    assert (make.plan(key).reference is None) == (backend == "native")
    compare(make(key), oracle(INITS["integers"], 3, key), 0)
