"""The same promise for all of `jax.nn.initializers`, in every type, and where it is one of ulps."""

import jax
import numpy as np
import pytest

import seedbed as sb
from helpers import BF16, F16, F32, F64, assert_same_bits, chunks, oracle

pytestmark = [pytest.mark.shared, pytest.mark.reference("oldest")]

uniform, normal, truncated = jax.random.uniform, jax.random.normal, jax.random.truncated_normal
I = jax.nn.initializers  # noqa: E741 - the name the field uses
SCALINGS = [
    ("fan_in", "truncated_normal"),
    ("fan_out", "normal"),
    ("fan_avg", "uniform"),
    ("fan_geo_avg", "normal"),
]
INITIALIZERS = {
    "zeros": I.zeros,
    "ones": I.ones,
    "constant": I.constant(0.37),
    "uniform": I.uniform(0.3),
    "normal": I.normal(0.02),
    "truncated_normal": I.truncated_normal(0.5, lower=-1.0, upper=3.0),
    "glorot_uniform": I.glorot_uniform(),
    "glorot_normal": I.glorot_normal(),
    "lecun_uniform": I.lecun_uniform(),
    "lecun_normal": I.lecun_normal(),
    "he_uniform": I.he_uniform(),
    "he_normal": I.he_normal(),
    "orthogonal": I.orthogonal(),
    **{
        f"scaling-{mode}-{distribution}": I.variance_scaling(0.7, mode, distribution)
        for mode, distribution in SCALINGS
    },
}


def _initialize(names, shapes, dtype):
    def init(key):
        keys = jax.random.split(key, len(names) * len(shapes))
        pairs = [(name, shape) for name in names for shape in shapes]
        return {
            f"{name}{list(shape)}": INITIALIZERS[name](one, shape, dtype)
            for one, (name, shape) in zip(keys, pairs, strict=True)
        }

    return init


@pytest.mark.parametrize("names", chunks(INITIALIZERS, 6), ids="+".join)
def test_initializers(key, names):
    init = _initialize(names, [(3, 2, 2, 8)], F32)
    assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


@pytest.mark.parametrize("dtype", [BF16, F16], ids=str)
def test_initializers_of_narrow_types(key, dtype):
    # Without orthogonal: jax has no QR for these. One of each kind of draw, all through tables.
    names = ("constant", "uniform", "normal", "truncated_normal", "glorot_uniform", "he_normal")
    init = _initialize(names, [(3, 2, 2, 8)], dtype)
    assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


def test_initializers_with_x64():
    names = ("uniform", "normal", "truncated_normal", "he_normal", "orthogonal")
    with jax.enable_x64(True):
        key = jax.random.key(1)
        init = _initialize(names, [(33, 17)], F64)
        assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


def test_complex_initializers(key):
    names = ("normal", "lecun_normal", "lecun_uniform")
    init = _initialize(names, [(33, 17)], np.dtype(np.complex64))
    assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


def test_delta_orthogonal(key):
    def init(key):
        return I.delta_orthogonal()(key, (3, 3, 6, 8))

    assert_same_bits(sb.ensemble(init, 4)(key), oracle(init, 4, key))


def test_xavier_and_kaiming_are_other_names():
    assert (I.xavier_normal, I.xavier_uniform) == (I.glorot_normal, I.glorot_uniform)
    assert (I.kaiming_normal, I.kaiming_uniform) == (I.he_normal, I.he_uniform)


@pytest.mark.parametrize("width", [3, 4, 5])
def test_the_one_tolerance(key, width):
    # XLA leaves its own order of arithmetic here; elsewhere nothing may differ.
    def init(key):
        w, t, u, b = jax.random.split(key, 4)
        return {
            "normal": normal(w, (67, width)),
            "truncated": truncated(t, -2.0, 2.0, (67, width)),
            "uniform": uniform(u, (67, width)),
            "bits": jax.random.bits(b, (67, width)),
        }

    got, expected = sb.ensemble(init, 9)(key), oracle(init, 9, key)
    assert_same_bits(
        *({name: tree[name] for name in ("uniform", "bits")} for tree in (got, expected))
    )
    assert_same_bits(got, expected, ulps=3)
