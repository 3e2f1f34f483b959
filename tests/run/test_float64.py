"""Float64 normals: XLA's erf_inv in double precision, number by number.

All 2^52 inputs cannot be counted. The sequence was read off XLA's object code (docs/float64.md);
here every point where it changes is compared from both sides, with a sample of all the rest, and
`seedbed doctor --words N` takes as many as one likes.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import seedbed as sb
from helpers import assert_same_bits, native_problem
from seedbed._jax import ask_xla
from seedbed._trust import selfcheck

if native_problem():
    pytest.skip(native_problem(), allow_module_level=True)
from seedbed import _cpu

pytestmark = pytest.mark.shared

BELOW = math.nextafter(-1, 0)
ROOT = math.sqrt(2)
NO_CLIP = (-np.inf, np.inf)


def around(x, count=64):
    """A number and its neighbours on both sides, and all of them negated."""
    bits = np.array(x, np.float64).view(np.int64) + np.arange(-count, count + 1)
    return np.concatenate([values := bits.view(np.float64), -values])


def edges():
    tiny = np.finfo(np.float64).tiny
    small = [0.0, -0.0, 5e-324, -5e-324, 1e-310, -1e-310, 2.3e-308, 1e-200, -1e-160, 1e-8, -1e-8]
    beyond = [np.inf, -np.inf, np.nan, -np.nan, 1.5, -1.5]
    # sqrt(-y) for both bounds that log1p may have, then x for w = 6.25 and 16, then 1 - x^2 = 2^-k:
    # where the C library's log takes the next exponent.
    changes = [math.sqrt(0.41421356237309503), math.sqrt(0.2928932188134525)]
    changes += [math.sqrt(-math.expm1(-w)) for w in (6.25, 16, 36)]
    changes += [math.sqrt(1 - 2.0**-k) for k in range(1, 52, 3)]
    steps = [around(x) for x in (tiny, 2 * tiny, 0.5, 1.0, *changes)]
    return np.concatenate([small, beyond, np.ravel(np.concatenate(steps))])


@pytest.mark.parametrize("isa", _cpu.isas())
def test_edges_equal_xla(isa):
    x = edges()
    with jax.enable_x64(True):
        expected = np.asarray(jax.jit(lax.erf_inv)(x))
    # With a span of zero every word gives `low`, of either sign.
    made = np.zeros(x.size)
    for i, low in enumerate(x):
        params = np.array([-0.0, low, 1.0, *NO_CLIP, 1.0, -0.0, ask_xla.log1p_near()])
        _cpu.transform(params, np.array([i], np.uint64), made[i : i + 1], isa)
    regular = ~np.isnan(x)
    assert_same_bits(made[regular], expected[regular])
    assert np.isnan(made[~regular]).all() and np.isnan(expected[~regular]).all()


def erf_span(lower, upper):
    return math.erf(lower / ROOT), math.erf(upper / ROOT)


CHAINS = {
    "normal": ((BELOW, 1.0), NO_CLIP),
    "truncated": (erf_span(-2, 2), (math.nextafter(-2, 3), math.nextafter(2, -3))),
    "far": ((-1.0, 1.0), (-9.0, 9.0)),  # erf_inv(-1) = -inf, clipped
    "last range": ((-1.0, -1.0 + 1e-6), NO_CLIP),
    "beyond": ((-1.5, 1.5), NO_CLIP),  # NaN and infinities
    "positive": ((BELOW, 1.0), (0.0, np.inf)),
    "reversed": ((0.0, -1.0), (-np.inf, -0.0)),
    "nan": ((BELOW, 1.0), (np.nan, 1.0)),
}


@pytest.mark.parametrize("isa", _cpu.isas())
@pytest.mark.parametrize("name", CHAINS)
def test_normals_equal_xla(name, isa):
    (low, high), clip = CHAINS[name]
    span = high - low

    def chain(words):
        unit = lax.bitcast_convert_type((words >> 12) | np.uint64(0x3FF0000000000000), jnp.float64)
        value = ROOT * lax.erf_inv(lax.max(low, (unit - 1) * span + low))
        return value if clip == NO_CLIP else lax.clamp(clip[0], value, clip[1])

    ends = np.arange(2**10, dtype=np.uint64) << np.uint64(12)
    middle = np.random.default_rng(0).integers(0, 2**64, 2**16 + 3, np.uint64)
    words = np.concatenate([ends, middle, ~ends])
    with jax.enable_x64(True):
        expected = np.asarray(jax.jit(chain)(words))
    made = np.zeros(words.size)
    params = np.array([span, low, ROOT, *clip, 1.0, -0.0, ask_xla.log1p_near()])
    _cpu.transform(params, words, made, isa)
    assert_same_bits(made, expected, nan=True)


def draws(key):
    """Every short innermost dimension, and others; scaled and shifted ones too."""
    keys = jax.random.split(key, 24)
    made = {f"{n}": jax.random.normal(keys[n], (n,), jnp.float64) for n in range(18)}
    made |= {
        "(7, 3)": jax.random.normal(keys[18], (7, 3), jnp.float64),
        "(5, 4, 5)": 3 * jax.random.normal(keys[19], (5, 4, 5), jnp.float64) + 1,
        "(4, 4)": jax.random.truncated_normal(keys[20], -2.0, 2.0, (4, 4), jnp.float64) * 0.17,
        "(129,)": jax.random.normal(keys[21], (129,), jnp.float64),
        "()": jax.random.normal(keys[22], (), jnp.float64),
    }
    return made


@pytest.mark.parametrize("size", [1, 3, 130])
def test_all_innermost_dimensions_are_native_and_equal(native, size):
    with jax.enable_x64(True):
        key = jax.random.key(11)
        make = sb.ensemble(draws, size)
        plan = make.plan(key)
        assert {draw.needs for draw in plan.draws} == {"normal64"} and not plan.steps
        assert_same_bits(make(key), jax.jit(jax.vmap(draws))(jax.random.split(key, size)))


def test_the_bound_of_log1p_is_found_out(monkeypatch):
    known = ask_xla.log1p_near()
    monkeypatch.setattr(ask_xla.known, "log1p_near", lambda: None)
    assert ask_xla.log1p_near.__wrapped__() == known


def test_another_bound_of_log1p_would_be_noticed(monkeypatch):
    kernels = [draw for draw in selfcheck.CASES if draw.needs == "normal64"]
    made = []
    for near in (-0.41421356237309503, math.nextafter(-0.2928932188134525, -1)):
        monkeypatch.setattr(ask_xla, "log1p_near", lambda near=near: near)
        made.append(selfcheck.native_values(_cpu, tuple(kernels)))
    different = [np.mean(a != b) for a, b in zip(*made, strict=True)]
    assert all(share > 0.02 for share in different[:3])
