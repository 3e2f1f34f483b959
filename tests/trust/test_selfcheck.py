"""The self-check: what it compares, and where XLA's values come from."""

from __future__ import annotations

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits
from seedbed import _match, _trace
from seedbed._jax import ask_xla, known
from seedbed._plan import plan as _plan
from seedbed._trust import cache, cases, selfcheck

pytestmark = pytest.mark.shared


def other_log(module):
    """Why the C library here may not give the shipped values, or None."""
    if known.why_unknown():
        return "another release"
    values = selfcheck.native_values(module, selfcheck._LIBRARY_CASES)
    made = selfcheck.digests(values, selfcheck._LIBRARY_CASES)["normal64"]
    same = made == known.facts()["digests"]["normal64"]
    return None if same else "the C library's log is another"


# --- what is compared ---------------------------------------------------------------------


def test_every_kernel_has_a_case():
    assert {draw.needs for draw in cases.CASES} == _plan.ALL_KERNELS


def test_known_answers_hold_and_a_wrong_cipher_is_noticed(extension):
    for isa in extension.isas():
        assert selfcheck.known_answers(extension, isa) == 0

    class Wrong:
        @staticmethod
        def threefry(keys, counters, out, isa=None):
            extension.threefry(keys, counters, out, isa=isa)
            out[3, 1] ^= 1

    assert selfcheck.known_answers(Wrong) == 1


def planned(sample, x64=False):
    with jax.enable_x64(x64):
        graph = _trace.trace(sample, jax.eval_shape(lambda: jax.random.key(0)), ())
        (draw,) = _match.planned(graph).draws
    return draw


@pytest.mark.parametrize(
    ("position", "sample", "x64"),
    [
        (4, lambda key: jax.random.randint(key, (5,), -7, 1000), False),
        (6, lambda key: jax.random.uniform(key, (5,), minval=-3.7, maxval=11.3), False),
        (8, lambda key: jax.random.normal(key, (6,)), False),
        (9, lambda key: jax.random.truncated_normal(key, -2, 2, (6,)) * 0.17, False),
        (11, lambda key: jax.random.bernoulli(key, 0.3, (5,)), False),
        (13, lambda key: jax.random.uniform(key, (5,), jnp.float64, -3.7, 11.3), True),
        (16, lambda key: jax.random.normal(key, (6,)), True),
        (20, lambda key: jax.random.exponential(key, (9,)), False),
        (24, lambda key: jax.random.gumbel(key, (9,)) * 0.17 + 0.3, False),
        (28, lambda key: jax.random.laplace(key, (9,)), False),
    ],
)
def test_cases_are_what_the_planner_makes(position, sample, x64):
    draw, case = planned(sample, x64), cases.CASES[position]
    assert (draw.kind, draw.word_bits, draw.dtype) == (case.kind, case.word_bits, case.dtype)
    assert draw.params == case.params


@pytest.mark.parametrize("release", sorted(known.table().get(known.machine(), {})) or [None])
def test_every_instruction_set_gives_the_shipped_digests(extension, monkeypatch, release):
    if release is None:
        pytest.skip(f"no values are shipped for {known.machine()}")
    facts = known.table()[known.machine()][release]
    monkeypatch.setattr(ask_xla, "log1p_near", lambda: facts["log1p_near"])
    shipped = dict(facts["digests"])
    if other_log(extension):  # what it should be then, only XLA here can say
        del shipped["normal64"]
    for isa in extension.isas():
        values = selfcheck.native_values(extension, cases.CASES, isa)
        made = selfcheck.digests(values)
        assert {kernel: made[kernel] for kernel in shipped} == shipped, isa


def test_shipped_digests_are_those_of_this_xla(extension):
    reason = selfcheck.why_measure(extension) or known.why_unknown() or other_log(extension)
    if reason is not None:
        pytest.skip(f"the shipped values do not apply: {reason}")
    assert selfcheck.measure(extension) == known.facts()["digests"]


def test_digest_sees_one_bit():
    values = [np.zeros(draw.shape, draw.dtype) for draw in cases.CASES]
    before = selfcheck.digests(values)
    position = next(i for i, draw in enumerate(cases.CASES) if draw.needs == "normal32")
    values[position].view(np.uint32)[17] ^= 1
    after = selfcheck.digests(values)
    assert [kernel for kernel in before if before[kernel] != after[kernel]] == ["normal32"]


# --- where XLA's values come from ---------------------------------------------------------


def test_a_known_release_compiles_nothing(fresh, monkeypatch):
    if selfcheck.why_measure(fresh) or known.why_unknown() or other_log(fresh):
        pytest.skip("the shipped values do not apply here")
    monkeypatch.setattr(selfcheck, "measure", None)  # a call would fail
    found = selfcheck.report()
    assert found.trusted == _plan.ALL_KERNELS
    assert found.source == f"golden values for jaxlib {known.versions()['jaxlib']}"
    assert f"all {len(_plan.ALL_KERNELS)} kernels agree" in str(found)


@pytest.fixture
def other_library(fresh, monkeypatch):
    """A machine whose C library gives other logarithms than that of the golden values."""
    if selfcheck.why_measure(fresh) or known.why_unknown():
        pytest.skip("the shipped values do not apply here")
    facts = known.facts()
    other = {**facts, "digests": facts["digests"] | {"normal64": "0" * 32}}
    monkeypatch.setattr(known, "facts", lambda: other)


def test_logs_of_another_c_library_are_measured(other_library, monkeypatch):
    found = selfcheck.report()
    assert found.trusted == _plan.ALL_KERNELS
    assert found.source.startswith("measured now (the C library's log has no golden values), kept")
    assert again(monkeypatch).source.startswith("measured earlier on this machine (the C library")


def test_a_wrong_log_leaves_float64_normals_to_xla(native, other_library, monkeypatch):
    measure = selfcheck.measure

    def another(module, platform):
        return measure(module, platform) | {"normal64": "1" * 32}

    monkeypatch.setattr(selfcheck, "measure", another)

    def init(key):
        return jax.random.normal(key, (33,), jnp.float64)

    with jax.enable_x64(True):
        key, make = jax.random.key(3), sb.ensemble(init, 5)
        with pytest.warns(sb.SelfCheckWarning, match="normal64"):
            plan = make.plan(key)
        assert [draw.needs for draw in plan.draws] == ["uniform64"]
        assert_same_bits(make(key), jax.jit(jax.vmap(init))(jax.random.split(key, 5)))


def again(monkeypatch):
    monkeypatch.setattr(selfcheck, "_reports", {})
    return selfcheck.report()


def test_unknown_release_is_measured_once_and_kept(unknown_release, monkeypatch, tmp_path):
    first = selfcheck.report()
    assert first.trusted == _plan.ALL_KERNELS
    assert first.source.startswith("measured now (no golden values for jaxlib 99.0.0), kept in")
    (path,) = (tmp_path / "seedbed").iterdir()
    assert json.loads(path.read_text())["situation"]["jaxlib"] == "99.0.0"
    second = again(monkeypatch)
    assert second.source.startswith("measured earlier on this machine (no golden values")
    assert second.trusted == first.trusted
    assert unknown_release == [1]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", '{"digests": {}}', '{"situation": 1, "digests": 2}', b"\xff\xfe"],
)
def test_a_damaged_cache_is_replaced(unknown_release, monkeypatch, tmp_path, content):
    selfcheck.report()
    (path,) = (tmp_path / "seedbed").iterdir()
    whole = path.read_bytes()
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert again(monkeypatch).trusted == _plan.ALL_KERNELS
    assert unknown_release == [1, 1]
    assert path.read_bytes() == whole


def test_a_cache_that_cannot_be_used_only_costs_time(unknown_release, monkeypatch, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert selfcheck.report().source.endswith("not kept")
    assert again(monkeypatch).trusted == _plan.ALL_KERNELS
    assert unknown_release == [1, 1]


def test_where_measurements_are_kept_is_the_users(unknown_release, monkeypatch, tmp_path):
    monkeypatch.setenv("SEEDBED_CACHE", "off")
    assert selfcheck.report().source.endswith("not kept")
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path / "mine"))
    for old in range(20):
        path = tmp_path / "mine" / f"selfcheck-{old}.json"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (old, old))
    assert "mine/selfcheck-" in again(monkeypatch).source
    kept = {path.name for path in (tmp_path / "mine").iterdir()}
    assert (
        len(kept) == cache.KEPT and "selfcheck-19.json" in kept and "selfcheck-4.json" not in kept
    )
    assert not list(tmp_path.glob("seedbed"))


def test_no_half_written_files_are_left(unknown_release, monkeypatch, tmp_path):
    def full(*args):
        raise OSError("no space left")

    monkeypatch.setattr(selfcheck.os, "replace", full)
    assert selfcheck.report().source.endswith("not kept")
    assert list((tmp_path / "seedbed").iterdir()) == []


def test_cached_values_are_still_compared(unknown_release, monkeypatch, tmp_path):
    selfcheck.report()
    (path,) = (tmp_path / "seedbed").iterdir()
    content = json.loads(path.read_text())
    content["digests"]["normal32"] = "0" * 32
    path.write_text(json.dumps(content))
    with pytest.warns(sb.SelfCheckWarning, match="normal32"):
        assert again(monkeypatch).differing == ("normal32",)


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        ("", None),
        ("--xla_force_host_platform_device_count=4 --xla_dump_to=x", None),
        ("--xla_cpu_max_isa=AVX", "XLA_FLAGS has --xla_cpu_max_isa=AVX"),
        (
            "--xla_dump_to=x --xla_cpu_enable_fast_math=true",
            "XLA_FLAGS has --xla_cpu_enable_fast_math=true",
        ),
        ("--xla_of_the_future", "XLA_FLAGS has --xla_of_the_future"),
    ],
)
def test_flags_that_may_alter_arithmetic(monkeypatch, flags, reason):
    monkeypatch.setenv("XLA_FLAGS", flags)
    assert known.why_altered() == reason


def test_flags_in_a_file(monkeypatch, tmp_path):
    path = tmp_path / "flags"
    path.write_text("--xla_cpu_max_isa=AVX")
    monkeypatch.setenv("XLA_FLAGS", str(path))
    assert "--xla_cpu_max_isa=AVX" in known.why_altered()


def test_compiler_settings_of_jax(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    assert known.why_altered() is None
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        assert known.why_altered() == "jax_disable_most_optimizations is set"
    finally:
        jax.config.update("jax_disable_most_optimizations", False)


def test_a_processor_without_fused_multiply_add(extension, monkeypatch):
    class Old:
        isas = staticmethod(lambda: ["baseline"])

    monkeypatch.setattr(known, "machine", lambda: "x86_64")
    assert selfcheck.why_measure(Old) == "the processor has no fused multiply-add"


def test_merged_factors_are_shipped_for_this_release(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    if known.why_unknown():
        pytest.skip("no values are shipped for this release")
    x, a, b = np.float32(0.7), np.float32(0.3), np.float32(1.1)
    found = np.asarray(jax.jit(lambda x: (x * a) * b)(x)) == x * (a * b)
    assert known.merges_factors() == bool(found)
