"""Where jax computes on an NVIDIA GPU: which backend runs, what is checked, what is said.

There is no GPU here: the CPU stands in for one, so that all of the Python is run. The custom call
has the same name on both. What needs a real one is in tests/gpu.
"""

from __future__ import annotations

import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle, run_python
from seedbed.__main__ import main
from seedbed._ensemble import check as _check
from seedbed._jax import compat
from seedbed._run import native as _native
from seedbed._trust import backends, selfcheck
from seedbed.cli import doctor

CUDA_BUILT = True
try:
    from seedbed import _cuda
except ImportError:
    CUDA_BUILT = False


class StandIn:
    """The module `_cuda`, as far as it runs without a GPU."""

    def __init__(self):
        self.encoded = []

    def version(self):
        return sb.__version__

    def plan_version(self):
        return _native.PLAN_VERSION

    def toolkit(self):
        return "13.0"

    def architectures(self):
        return "75 90"

    def launches(self, encoded, size):
        self.encoded.append(encoded)
        return 1


@pytest.fixture
def gpu(native, monkeypatch, tmp_path):
    """The CPU in the guise of a GPU."""
    stand_in, cpu = StandIn(), jax.local_devices(backend="cpu")[0]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(compat, "platform", lambda: "cuda")
    monkeypatch.setattr(compat, "first_device", lambda platform: cpu)
    monkeypatch.setattr(_native, "load_cuda", lambda: (stand_in, ""))
    monkeypatch.setattr(selfcheck, "_reports", {})
    return stand_in


def init(key):
    a, b = jax.random.split(key)
    return {
        "b": jax.random.normal(b, (5,), jnp.bfloat16),
        "w": jax.random.normal(a, (6, 7)),
        "z": jnp.zeros(3),
    }


def test_plans_are_native(gpu, key):
    make = sb.ensemble(init, 3)
    assert_same_bits(make(key), oracle(init, 3, key))
    assert make.plan(key).reference is None
    assert gpu.encoded  # the device was asked whether it can make the plan


def test_kernels_must_agree_on_both_platforms(gpu, monkeypatch):
    assert backends.kernels() == selfcheck.CUDA_KERNELS
    known = selfcheck._expected_of_cuda

    def tampered(module):
        found, source = known(module)
        return found | {"normal32": "0"}, source

    monkeypatch.setattr(selfcheck, "_expected_of_cuda", tampered)
    monkeypatch.setattr(selfcheck, "_reports", {})
    with pytest.warns(sb.SelfCheckWarning, match="normal32"):
        assert backends.kernels() == selfcheck.CUDA_KERNELS - {"normal32"}


def test_float64_normals_stay_with_xla(gpu):
    def init(key):
        return jax.random.normal(key, (6,), jnp.float64)

    with jax.enable_x64(True):
        plan = sb.ensemble(init, 3).plan(jax.random.key(0))
    assert [draw.needs for draw in plan.draws] == ["uniform64"]
    assert "XLA" in plan.outputs[0].why


def test_the_verdict_is_kept_for_the_next_process(gpu, monkeypatch):
    first = selfcheck.report("cuda")
    assert first.source.startswith("measured now (no golden values for GPUs), kept in")
    monkeypatch.setattr(selfcheck, "_reports", {})
    monkeypatch.setattr(selfcheck, "measure", None)  # a call would fail
    second = selfcheck.report("cuda")
    assert second.source.startswith("measured earlier on this machine (no golden values for GPUs)")
    assert second.trusted == first.trusted == selfcheck.CUDA_KERNELS


def test_kernels_that_do_not_run_are_not_used(gpu, monkeypatch, key):
    def broken(draws):
        raise jax.errors.JaxRuntimeError("INTERNAL: the launch of the kernel failed")

    monkeypatch.setattr(selfcheck, "cuda_values", broken)
    make = sb.ensemble(init, 3)
    with pytest.warns(sb.SelfCheckWarning, match="the kernels do not run .*the launch"):
        made = make(key)
    assert_same_bits(made, oracle(init, 3, key))
    assert "the native cipher does not give this jax's bits" in make.plan(key).reference


def test_a_plan_that_the_device_cannot_make(gpu, monkeypatch, key):
    def refused(encoded, size):
        raise ValueError("plan draw 0 cannot be made on a GPU: its lookup table has 16384 bytes")

    monkeypatch.setattr(gpu, "launches", refused)
    make = sb.ensemble(init, 3)
    assert_same_bits(make(key), oracle(init, 3, key))
    assert make.plan(key).reference.startswith("plan draw 0 cannot be made on a GPU")


def test_without_the_cuda_part(native, monkeypatch, key):
    monkeypatch.setattr(compat, "platform", lambda: "cuda")
    problem = "the CUDA part of the extension is not built (test)"
    monkeypatch.setattr(_native, "load_cuda", lambda: (None, problem))
    make = sb.ensemble(init, 3)
    assert_same_bits(make(key), oracle(init, 3, key))
    assert make.plan(key).summary() == f"reference: {problem}"
    monkeypatch.setenv("SEEDBED_BACKEND", "native")
    message = "SEEDBED_BACKEND=native, but the CUDA part .* build one with SEEDBED_CUDA=ON"
    with pytest.raises(RuntimeError, match=message):
        sb.ensemble(init, 3)(key)


def test_other_platforms_are_the_references(native, monkeypatch, key):
    monkeypatch.setattr(compat, "platform", lambda: "tpu")
    reason = sb.ensemble(init, 3).plan(key).reference
    assert reason == "jax computes on 'tpu', the native kernels are for 'cpu' and 'cuda'"


def test_the_cipher_alone_is_jaxs(gpu, key):
    reason = backends.why_jaxs_cipher()
    assert reason == "jax computes on 'cuda', native calls of the cipher are for 'cpu'"
    assert_same_bits(sb.random.normal(key, (5, 2)), jax.random.normal(key, (5, 2)))
    assert sb.random.normal.programs.made_by(key, (5, 2)) == "jax"


def test_the_devices_memory_counts(gpu, monkeypatch, key):
    monkeypatch.setattr(compat, "free_memory", lambda device: 10_000_000)
    with pytest.raises(MemoryError, match="and 10,000,000 bytes are free"):
        sb.ensemble(lambda key: jax.random.normal(key, (1 << 20,)), 1000)(key)
    monkeypatch.setattr(compat, "free_memory", lambda device: None)
    assert _check._free_memory() is None


def test_free_memory():
    def device(stats):
        return types.SimpleNamespace(memory_stats=lambda: stats)

    assert compat.free_memory(device({"bytes_limit": 100, "bytes_in_use": 30})) == 70
    assert compat.free_memory(device(None)) is None


def test_arguments_on_another_platform(native, monkeypatch, key):
    """What is bound to a GPU is made there, where the default is the CPU; and the reverse."""
    make = sb.ensemble(init, 3)
    bound = jax.device_put(key, jax.local_devices(backend="cpu")[0])
    free = make(key)
    monkeypatch.setattr(compat, "_alone", lambda: False)
    assert compat.elsewhere((key, bound)) is None
    make(bound)
    assert make.plan(bound).reference is None
    monkeypatch.setattr(compat, "platform", lambda: "cuda")
    monkeypatch.setattr(backends, "why_reference", lambda impl, effects: None)
    assert compat.elsewhere((1.0, np.ones(2), key)) is None  # these go where jax computes
    assert compat.elsewhere((key, bound)) == "cpu"
    assert_same_bits(make(bound), free)
    reason = "arguments are on 'cpu', and kernels were chosen for 'cuda'"
    assert make.plan(bound).reference == reason


def test_first_device():
    cpus = jax.local_devices(backend="cpu")
    assert compat.first_device("cpu") == cpus[0]
    with jax.default_device(cpus[-1]):
        assert compat.first_device("cpu") == cpus[-1]
    assert compat.has_platform("cpu") and not compat.has_platform("tpu")


def test_without_the_cpu(gpu, monkeypatch, capsys):
    monkeypatch.setattr(compat, "has_platform", lambda platform: platform != "cpu")
    assert backends.kernels() == selfcheck.CUDA_KERNELS
    assert set(selfcheck._reports) == {"cuda"}


def test_which_platform_it_is(monkeypatch):
    assert compat.platform() == "cpu"
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        assert compat.platform() == "cpu"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(compat, "has_platform", lambda platform: True)
    assert compat.platform() == "cuda"
    monkeypatch.setattr(compat, "has_platform", lambda platform: False)
    assert compat.platform() == "gpu"


def test_info_and_doctor(gpu, monkeypatch, capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "CUDA          built with CUDA 13.0 for 75 90" in out
    assert "on CUDA       all 9 kernels agree with XLA: measured now" in out
    monkeypatch.setattr(doctor, "_CUDA_ROUNDS", 2)
    assert main(["doctor", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "normal, CUDA (" in out and "of 8,388,608 mantissas): 0 of 1,048,576" in out
    assert "uniform [0, 1), CUDA: 0 of 131,072" in out
    assert "No difference found" in out
    monkeypatch.setattr(doctor, "_cuda_round", lambda check, index: (np.zeros(8, np.uint32), 1))
    assert main(["doctor", "--quick"]) == 1
    out = capsys.readouterr().out
    assert "DIFFERENT" in out and "Kernels that differ from XLA are not used" in out


def test_doctor_without_the_cuda_part(gpu, monkeypatch, capsys):
    monkeypatch.setattr(_native, "load_cuda", lambda: (None, "it is not built (test)"))
    assert doctor._cuda_results([]) == []
    assert "The CUDA kernels were NOT checked: it is not built (test)." in capsys.readouterr().out


def test_doctor_where_the_kernels_do_not_run(gpu, monkeypatch, capsys):
    def broken(check, index):
        raise jax.errors.JaxRuntimeError("INTERNAL: no kernel image")

    monkeypatch.setattr(doctor, "_cuda_round", broken)
    (result,) = doctor._cuda_results(doctor._checks(quick=True))
    assert result.failed
    assert "The CUDA kernels do not run: INTERNAL: no kernel image" in capsys.readouterr().out


def test_the_module_is_not_loaded_without_a_gpu():
    code = """
        import sys, jax, seedbed as sb
        sb.ensemble(lambda key: jax.random.normal(key, (3,)), 2)(jax.random.key(0))
        print("seedbed._cuda" in sys.modules)
    """
    assert run_python(code).split() == ["False"]


def test_the_module():
    if not CUDA_BUILT:
        if os.environ.get("SEEDBED_REQUIRE_CUDA") == "1":
            pytest.fail("SEEDBED_REQUIRE_CUDA=1, but seedbed._cuda is not built")
        pytest.skip("built without CUDA")
    assert _cuda.version() == sb.__version__ and _cuda.plan_version() == _native.PLAN_VERSION
    assert set(_cuda.registrations()) == {_native.TARGET}
    assert set(_cuda.type_registrations()) == {"seedbed_cuda_fill_state_v1"}
    assert "90" in _cuda.architectures().split()
    make = sb.ensemble(init, 3)
    draws = make.plan(jax.random.key(0)).draws
    if draws:
        assert _cuda.launches(_native.encode(draws), 1000) == 1
    with pytest.raises(ValueError, match="plan has 0 words"):
        _cuda.launches(np.zeros(0, np.int64), 1)
    with pytest.raises(ValueError, match="size must be >= 0, got -1"):
        _cuda.launches(np.zeros(4, np.int64), -1)
