"""The functions of `seedbed.random` beside jax's: signatures, errors, and the page's table."""

from __future__ import annotations

import inspect
import pickle
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import ROOT, assert_same_bits, native_problem
from sampler_calls import FUSED, JAXS, KEY, SAMPLERS, THREE, WORDS, made_by, run
from seedbed import random
from seedbed._random import cipher

pytestmark = pytest.mark.shared


@pytest.fixture(autouse=True)
def _words_are_native_however_few(monkeypatch):
    monkeypatch.setattr(cipher, "MIN_WORDS", 0)


# --- the same functions -----------------------------------------------------------------


def test_every_public_function_is_there():
    public = {
        name
        for name in dir(jax.random)
        if not name.startswith("_") and callable(getattr(jax.random, name))
    }
    assert public <= set(random.__all__) and len(SAMPLERS) >= 38
    for name in public - set(SAMPLERS):
        assert getattr(random, name) is getattr(jax.random, name)
    assert {name for name, _ in (*FUSED, *WORDS, *JAXS)} == set(SAMPLERS)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_function_is_described_as_jaxs(name):
    ours, theirs = getattr(random, name), getattr(jax.random, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert inspect.isfunction(ours) and ours.__name__ == name
    assert f"jax.random.{name}" in ours.__doc__
    assert pickle.loads(pickle.dumps(ours)) is ours


MISUSE = {
    "no arguments": lambda m: m.normal(),
    "no data": lambda m: m.fold_in(KEY),
    "unknown argument": lambda m: m.uniform(KEY, size=3),
    "shape twice": lambda m: m.normal(KEY, (3,), shape=(3,)),
    "no key": lambda m: m.normal(0, (3,)),
    "None for a key": lambda m: m.split(None),
    "text for a key": lambda m: m.uniform("key"),
    "keys": lambda m: m.normal(jax.random.split(KEY), (3,)),
    "keys to split": lambda m: m.split(jax.random.split(KEY)),
    "keys to fold": lambda m: m.fold_in(jax.random.split(KEY), 1),
    "words of another type": lambda m: m.bits(np.zeros(2, np.int32)),
    "too many words": lambda m: m.bits(np.zeros(3, np.uint32)),
    "legacy keys": lambda m: m.bits(np.zeros((4, 2), np.uint32)),
    "a wrong dtype": lambda m: m.normal(KEY, (3,), "int32"),
    "a wrong dtype of bits": lambda m: m.bits(KEY, (3,), "float32"),
    "no dtype": lambda m: m.uniform(KEY, (3,), "float33"),
    "a negative length": lambda m: m.uniform(KEY, (-3,)),
    "a shape of text": lambda m: m.uniform(KEY, "ab"),
    "a shape that does not fit": lambda m: m.bernoulli(KEY, THREE, (7,)),
    "a list": lambda m: m.bernoulli(KEY, [0.1, 0.2]),
    "data of two numbers": lambda m: m.fold_in(KEY, np.arange(2)),
    "negative data": lambda m: m.fold_in(KEY, -1),
    "data that is too large": lambda m: m.fold_in(KEY, 2**32),
    "negative data by name": lambda m: m.fold_in(KEY, data=-1),
    "bounds that are too large": lambda m: m.randint(KEY, (3,), 0, 2**31),
    "axis": lambda m: m.categorical(KEY, THREE, axis=2),
    "too many to choose": lambda m: m.choice(KEY, 3, (4,), replace=False),
    "nothing to choose": lambda m: m.choice(KEY, 0, (4,)),
    "no array to permute": lambda m: m.permutation(KEY, 1.5),
    "a mode": lambda m: m.gumbel(KEY, (3,), mode="middle"),
    "a traced shape": lambda m: jax.jit(lambda n: m.normal(KEY, (n,)))(3),
    "a traced number of keys": lambda m: jax.jit(lambda n: m.split(KEY, n))(3),
    "a traced choice": lambda m: jax.jit(lambda n: m.permutation(KEY, n))(3),
}


@pytest.mark.parametrize("slip", MISUSE)
def test_errors_are_jaxs(slip):
    def message(module):
        with pytest.raises(Exception) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            MISUSE[slip](module)
        lines = str(caught.value).splitlines()
        return type(caught.value), re.sub(r"0x[0-9a-f]+", "0x", lines[0] if lines else "")

    first = message(random)
    assert first == message(jax.random)
    assert message(random) == first  # remembered or not


# --- the page ---------------------------------------------------------------------------


def test_the_table_of_the_page_is_true(native):
    text = (ROOT / "docs" / "random.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    said = {name: row[1] for row in rows for name in re.findall(r"`(\w+)`", row[0])}
    assert set(said) == set(SAMPLERS)
    for name, args in FUSED[5:]:
        if name not in ("gumbel", "choice"):
            assert said[name] == "fused", name
        assert made_by(name, args) not in ("words", "jax"), name
    usual = set(said) - {name for name, kind in said.items() if kind == "fused"}
    for cases, kind in ((WORDS, "words"), (JAXS, "jax")):
        for name, args in cases:
            if name in usual:
                assert said[name] == kind, name
            assert made_by(name, args) == kind, name
    with jax.enable_x64(True):
        assert made_by("normal", ((9,), "float64")) == "normal"
        assert made_by("normal", ((9,), "complex64")) == "words"


def test_jaxs_own_functions_are_called_as_they_are():
    cases = JAXS[:1]
    assert_same_bits(run(random, cases), run(jax.random, cases))


def test_types_without_a_plan_of_their_own():
    assert made_by("normal", ((6,),), jax.random.key(0, impl="rbg")) == "jax"
    if not native_problem():
        assert made_by("normal", ((6,),), out_sharding=None) == "normal"
        # XLA rounds these by its loop.
        assert made_by("normal", ((6, 3),)) == "words"
    assert jnp.issubdtype(random.key(0).dtype, jax.dtypes.prng_key)
