"""The self-check: what a mismatch does, and a first use while something else is going on."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import warnings

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import assert_same_bits
from seedbed._jax import ask_xla, known
from seedbed._plan import plan as _plan
from seedbed._plan.draw import Kind
from seedbed._run import native as _native
from seedbed._trust import selfcheck

pytestmark = pytest.mark.shared


def tamper(monkeypatch, *kernels):
    """Makes XLA's values of some kernels differ."""
    expected = selfcheck._expected

    def changed(module):
        digests, source = expected(module)
        return digests | dict.fromkeys(kernels, "0" * 32), source

    monkeypatch.setattr(selfcheck, "_expected", changed)


# --- what a mismatch does -----------------------------------------------------------------


def init(key):
    a, b, c, d = jax.random.split(key, 4)
    return {
        "bits": jax.random.bits(a, (9,)),
        "coin": jax.random.bernoulli(b, 0.3, (33,)),
        "normal": jax.random.normal(c, (17, 16)),
        "uniform": jax.random.uniform(d, (65,), minval=-0.3, maxval=0.9),
    }


OF_WORD = ["exponential32", "gumbel32", "laplace32"]


@pytest.mark.parametrize(
    ("kernel", "lost", "kinds"),
    [
        ("normal32", ["normal32"], {Kind.BITS, Kind.BERNOULLI, Kind.UNIFORM}),
        ("bernoulli32", ["bernoulli32"], {Kind.BITS, Kind.NORMAL, Kind.UNIFORM}),
        ("uniform32", ["bernoulli32", *OF_WORD, "normal32", "uniform32"], {Kind.BITS}),
        ("bits", sorted(_plan.ALL_KERNELS), set()),
    ],
)
def test_a_kernel_that_differs_is_left_to_xla(native, fresh, monkeypatch, key, kernel, lost, kinds):
    tamper(monkeypatch, kernel)
    make = sb.ensemble(init, 5)
    with pytest.warns(sb.SelfCheckWarning) as caught:
        plan = make.plan(key)
    assert {draw.kind for draw in plan.draws} == kinds
    rows = {line.split()[0]: line for line in plan.explain().splitlines() if line.startswith("[")}
    name = {"normal32": "normal", "bernoulli32": "coin", "uniform32": "uniform", "bits": "bits"}
    made_by = rows[f"['{name[kernel]}']"]
    assert ("reference: the native cipher" if kernel == "bits" else "XLA") in made_by
    (message,) = (str(warning.message) for warning in caught)
    for text in (", ".join(lost), "Numbers stay right", "slower", "seedbed doctor"):
        assert text in message
    assert_same_bits(make(key), jax.jit(jax.vmap(init))(jax.random.split(key, 5)))
    with warnings.catch_warnings():  # once a process is enough
        warnings.simplefilter("error")
        sb.ensemble(init, 3)(key)


@pytest.mark.parametrize(
    ("kernel", "lost"),
    [
        ("laplace32", ["laplace32"]),
        ("uniform32", ["bernoulli32", *OF_WORD, "normal32", "uniform32"]),
    ],
)
def test_a_kernel_without_a_digest_is_not_called_wrong(fresh, monkeypatch, kernel, lost):
    expected = selfcheck._expected

    def without(module):
        digests, source = expected(module)
        return {name: digests[name] for name in digests if name != kernel}, source

    monkeypatch.setattr(selfcheck, "_expected", without)
    with pytest.warns(sb.SelfCheckWarning) as caught:
        found = selfcheck.report()
    assert (found.differing, found.lacking) == ((), tuple(lost))
    assert found.trusted == _plan.ALL_KERNELS - {*lost}
    (message,) = (str(warning.message) for warning in caught)
    names = ", ".join(lost)
    assert f"not used here, as there is no digest of XLA's values for them: {names} (" in message
    assert "do not give" not in message
    assert str(found) == f"have no digest, so not used: {names}: {found.source}"
    tamper(monkeypatch, "normal64")
    monkeypatch.setattr(selfcheck, "_reports", {})
    both = f"XLA's bits: normal64; or as there is no digest of XLA's values for them: {names}"
    with pytest.warns(sb.SelfCheckWarning, match=both):
        found = selfcheck.report()
    assert str(found).startswith("differ from XLA, so not used: normal64; have no digest, so not ")


def test_a_wrong_cipher_switches_everything_off(fresh, monkeypatch):
    monkeypatch.setattr(selfcheck, "known_answers", lambda module: 1)
    with pytest.warns(sb.SelfCheckWarning, match="known answers"):
        assert selfcheck.trusted() == frozenset()


def test_xla_that_cannot_be_asked(unknown_release, monkeypatch):
    def broken(module, platform):
        raise RuntimeError("no compiler")

    monkeypatch.setattr(selfcheck, "measure", broken)
    with pytest.warns(sb.SelfCheckWarning, match="RuntimeError: no compiler"):
        assert selfcheck.trusted() == {"bits"}


def test_xla_that_cannot_be_asked_for_its_logarithm(fresh, monkeypatch):
    def broken():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(ask_xla, "log1p_near", broken)
    with pytest.warns(sb.SelfCheckWarning, match="RuntimeError: no compiler"):
        assert selfcheck.trusted() == {"bits"}


def test_a_warning_made_an_error_leaves_the_verdict(fresh, monkeypatch):
    tamper(monkeypatch, "normal32")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(sb.SelfCheckWarning):
            selfcheck.trusted()
        assert selfcheck.trusted() == _plan.ALL_KERNELS - {"normal32"}


def test_threads_check_once(unknown_release):
    found = []
    start = threading.Barrier(8)

    def ask():
        start.wait()
        found.append(selfcheck.trusted())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [_plan.ALL_KERNELS] * 8
    assert unknown_release == [1]


def test_no_extension_is_an_error_to_report(monkeypatch):
    monkeypatch.setattr(selfcheck, "_reports", {})
    monkeypatch.setattr(_native, "load", lambda: (None, "the extension is not built"))
    with pytest.raises(RuntimeError, match="not built"):
        selfcheck.report()


# --- first use while something else is going on -------------------------------------------


def test_measuring_works_whatever_is_traced_or_configured_outside(extension):
    expected = selfcheck.measure(extension)
    found = []

    def traced(x):
        found.append(selfcheck.measure(extension))
        return x

    jax.jit(jax.vmap(traced))(jnp.arange(3))
    jax.grad(lambda x: traced(x))(1.0)
    mesh = jax.make_mesh((1,), ("members",))
    with jax.set_mesh(mesh), jax.disable_jit(), jax.transfer_guard("disallow"):
        found.append(selfcheck.measure(extension))
    with jax.debug_key_reuse(True), jax.numpy_dtype_promotion("strict"), jax.debug_nans(True):
        with jax.threefry_partitionable(False), jax.default_prng_impl("rbg"):
            found.append(selfcheck.measure(extension))
    assert found == [expected] * 4


def test_an_xla_without_fused_multiply_add(extension, tmp_path):
    """A process whose XLA really computes otherwise: the whole way, with nothing replaced."""
    if known.machine() != "x86_64":
        pytest.skip("--xla_cpu_max_isa takes fused multiply-add away on x86-64 only")
    program = """
    import warnings
    import jax
    import seedbed as sb
    from helpers import assert_same_bits

    def init(key):
        return jax.random.normal(key, (999,)), jax.random.uniform(key, (9,), minval=-3.7, maxval=9)

    key = jax.random.key(1)
    make = sb.ensemble(init, 7)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = make.plan(key)
    assert [w.category for w in caught] == [sb.SelfCheckWarning], caught
    assert "normal32, normal64, uniform32" in str(caught[0].message)
    assert {draw.needs for draw in plan.draws} == {"bits"}, plan.explain()
    assert_same_bits(make(key), jax.jit(jax.vmap(init))(jax.random.split(key, 7)))
    """
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX",
        "XDG_CACHE_HOME": str(tmp_path),
        "SEEDBED_BACKEND": "native",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-c", textwrap.dedent(program)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "seedbed").iterdir())) == 1
