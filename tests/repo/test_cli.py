"""The command line: what it prints, what it finds, and its exit codes."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from seedbed import __version__
from seedbed.__main__ import main
from seedbed._plan import ALL_KERNELS, Kind
from seedbed._run import native as _native
from seedbed._trust import selfcheck
from seedbed.cli import _measure, _oracle, _text, doctor, info

pytestmark = pytest.mark.end("newest")

CUDA_BUILT = importlib.util.find_spec("seedbed._cuda") is not None


@pytest.fixture
def no_extension(monkeypatch):
    monkeypatch.setattr(_native, "load", lambda: (None, "the extension is not built (a test)"))
    monkeypatch.delenv("SEEDBED_BACKEND", raising=False)


# --- the command line itself --------------------------------------------------------------


def run_module(*arguments):
    path = os.pathsep.join(filter(None, sys.path))
    command = [sys.executable, "-m", "seedbed", *arguments]
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_runs_as_a_module():
    done = run_module("--version")
    assert (done.returncode, done.stdout) == (0, f"seedbed {__version__}\n")


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["info", "--colour"], ["demo", "--size"]])
def test_a_wrong_command_line_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: seedbed" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert all(name in out for name in ("info", "doctor", "demo", "show", "verify"))


def test_an_error_of_the_package_is_not_swallowed(monkeypatch):
    def broken(args):
        raise ValueError("a bug")

    monkeypatch.setattr(info, "run", broken)
    with pytest.raises(ValueError, match="a bug"):
        main(["info"])


# --- info ---------------------------------------------------------------------------------


def test_info_shows_one_screen(extension, capsys, monkeypatch):
    monkeypatch.delenv("SEEDBED_BACKEND", raising=False)
    assert main(["info"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert len(out.splitlines()) < 24
    for text in (
        f"seedbed {__version__}",
        jax.__version__,
        extension.__file__,
        f"{extension.isa()}",
        f"available: {', '.join(extension.isas())}",
        "seedbed_fill_v1, runs",
        "cores",
        "built, not loaded: jax computes on 'cpu'"
        if CUDA_BUILT
        else "not in this build (SEEDBED_CUDA=",
        "native (SEEDBED_BACKEND=auto, and the extension is usable)",
        f"all {len(ALL_KERNELS)} kernels agree with XLA",
    ):
        assert text in out


def test_info_as_json_says_the_same(extension, capsys):
    assert main(["info", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seedbed"] == __version__
    assert found["isas"] == extension.isas()
    assert found["self_check"]["differing"] == []
    assert found["errors"] == []


def test_info_says_what_auto_would_be(extension, capsys, monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "reference (SEEDBED_BACKEND=reference)" in out
    assert "would be native" in out
    assert os.environ["SEEDBED_BACKEND"] == "reference"


def test_info_without_the_extension(no_extension, capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    assert "none: the extension is not built (a test)" in out
    assert "reference (the extension is not built (a test))" in out
    assert "nothing to check" in out


def test_info_native_asked_for_and_missing(no_extension, capsys, monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "native")
    assert main(["info"]) == 1
    assert "SEEDBED_BACKEND=native, but the extension is not built" in capsys.readouterr().err


def test_info_reports_an_unknown_backend(capsys, monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "fast")
    assert main(["info"]) == 2
    assert "SEEDBED_BACKEND is 'fast'; accepted are" in capsys.readouterr().err


def test_info_reports_an_unknown_instruction_set(extension):
    # The extension reads the variable once, so this needs a process.
    environment = {**os.environ, "SEEDBED_ISA": "mmx", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "seedbed", "info", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    found = json.loads(done.stdout)
    assert "isa" not in found and found["isas"] == extension.isas()
    assert any("SEEDBED_ISA" in error and "mmx" in error for error in found["errors"])


def test_info_shows_a_mismatch(extension, capsys, monkeypatch):
    verdict = selfcheck.Report(frozenset(["bits"]), ("normal32",), "a test")
    monkeypatch.setattr(selfcheck, "_reports", {"cpu": verdict})
    assert main(["info"]) == 1
    assert "differ from XLA, so not used: normal32: a test" in capsys.readouterr().out


# --- doctor -------------------------------------------------------------------------------


def test_doctor_quick_finds_nothing_and_says_it_is_a_subset(extension, capsys):
    assert main(["doctor", "--quick"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "only a subset" in out
    rows = {line[2:29].strip(): line for line in out.splitlines() if " of " in line}
    assert rows["normal"].count("0 of 524,288") == len(extension.isas())
    edges = (3 + 2 * 4) * 2 * doctor._NEAR_EDGES
    count = f"0 of {2**17 + edges:,}"
    assert rows["normal float64"].count(count) == len(extension.isas())
    assert "cipher, known answers" in rows and "truncated normal (-2, 2)" in rows
    assert "under jax.jit" in out
    assert "No difference found." in out


def test_doctor_without_quick_checks_every_mantissa():
    checks = {check.name: check for check in doctor._checks(quick=False)}
    for name in ("normal", "truncated normal (-2, 2)", "exponential", "gumbel", "laplace"):
        assert checks[name].exhaustive
    words = np.concatenate(list(doctor._words(None, checks["normal"])))
    assert words.dtype == np.uint32
    assert np.array_equal(words >> 9, np.arange(1 << 23))


def test_doctor_takes_as_many_words_as_it_is_told(extension, capsys, monkeypatch):
    checks = doctor._checks(True, 2**20 + 5)
    (check,) = (check for check in checks if check.name == "normal float64")
    sizes = [word.size for word in doctor._words(extension, check)]
    assert sizes[1:] == [2**19, 2**19, 5] and sum(sizes) == check.compared
    with pytest.raises(SystemExit):
        main(["doctor", "--words", "0"])
    assert "'0' is not a positive integer" in capsys.readouterr().err


def test_doctor_looks_around_every_change_of_a_float64_normal():
    (check,) = (check for check in doctor._checks(True, 0) if check.name == "normal float64")
    values = check.draw.floats()
    span, low = values["span"], values["low"]
    x = (
        np.sort((doctor._edges(check.draw) >> np.uint64(12)).astype(np.float64) * 2**-52) * span
        + low
    )
    w = -np.log1p(-x * x)
    for values, change in [(x * x, np.sqrt(2) - 1), (x * x, 1 - np.sqrt(0.5)), (w, 6.25), (w, 16)]:
        near = np.abs(values / change - 1) < 1e-9
        assert ((values < change) & near).any() and ((values > change) & near).any()
    assert x[0] == low and 1 > x[-1] >= 1 - 2**-51 and abs(x).min() < 1e-15


def test_doctor_counts_one_wrong_value(extension, capsys, monkeypatch):
    """A kernel that is wrong in one bit of one value, under one instruction set."""

    class Wrong:
        def __getattr__(self, name):
            return getattr(extension, name)

        def transform(self, params, bits, out, isa=None, kind=Kind.NORMAL):
            extension.transform(params, bits, out, isa=isa, kind=kind)
            if bits[0] == 0 and isa == "baseline":
                out.view(np.uint32)[5] ^= 1

    normal = next(check for check in doctor._checks(quick=True) if check.name == "normal")
    monkeypatch.setattr(_native, "load", lambda: (Wrong(), ""))
    monkeypatch.setattr(doctor, "_checks", lambda quick, words: [normal])
    monkeypatch.setattr(doctor, "_ensemble_results", lambda module: [])
    if "baseline" not in extension.isas():
        pytest.skip("needs the baseline kernels, which x86-64 has")
    assert main(["doctor", "--quick"]) == 1
    out = capsys.readouterr().out
    assert "1 of 524,288" in out
    assert "DIFFERENT: normal." in out


def test_doctor_without_the_extension(no_extension, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_init", lambda key: {"normal": jax.random.normal(key, (9,))})
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "no native extension to check: the extension is not built (a test)" in out
    assert "NOT checked" in out
    assert "ensemble of 64 called directly, reference: 0 of 576" in out


def test_doctor_quick_without_the_extension_says_so_at_once(no_extension, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_ensemble_results", None)  # nothing is made
    assert main(["doctor", "--quick"]) == 0
    assert "no native extension to check" in capsys.readouterr().out


def test_doctor_clears_the_cache_and_nothing_else(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("SEEDBED_CACHE", str(tmp_path))
    mine, other = tmp_path / "selfcheck-1.json", tmp_path / "notes.json"
    mine.touch(), other.touch()
    assert main(["doctor", "--clear-cache"]) == 0
    assert f"1 measurement(s) removed from {tmp_path}" in capsys.readouterr().out
    assert not mine.exists() and other.exists()
    monkeypatch.setenv("SEEDBED_CACHE", "off")
    assert main(["doctor", "--clear-cache"]) == 0
    assert "0 measurement(s) removed from no cache" in capsys.readouterr().out


def test_oracle_takes_either_of_jaxs_results():
    def init(key):
        return jax.random.uniform(key, (5,))

    keys = jax.random.split(jax.random.key(0), 3)
    right = jax.vmap(init)(keys)
    oracle = _oracle.Oracle(init, keys)
    assert oracle.count([0]) == 15
    assert oracle.differing([(0, right)]) == (0, 0)
    assert _oracle.Oracle(init, keys, [right + 1]).differing([(0, right)]) == (0, 0)
    wrong = np.array(right)
    wrong.view(np.uint32)[1, 2] ^= 5
    assert oracle.differing([(0, wrong)]) == (1, 2)


# --- text ---------------------------------------------------------------------------------


def test_table_and_fields():
    assert _text.table([["", "a"], ["name", "10"]]) == "         a\n  ----  --\n  name  10"
    assert _text.fields([("a", "1\n2"), ("long", "")]) == "  a     1\n        2\n  long"


@pytest.mark.parametrize(
    ("value", "text"), [(2.5e-5, "25 us"), (0.0421, "42.1 ms"), (1.534, "1.53 s")]
)
def test_seconds(value, text):
    assert _text.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7 bytes"), (1270, "1.27 kB"), (174_628_864, "175 MB"), (5.2e9, "5.2 GB")],
)
def test_size(value, text):
    assert _text.size(value) == text


def test_extra_memory_sees_a_result():
    made = []
    extra = _measure.extra_memory(lambda: made.append(np.ones(16 << 20, np.uint8)))
    if extra is None:
        pytest.skip("this system does not tell the peak of the resident memory")
    assert 0.9 < extra / (16 << 20) < 1.5


def test_progress_leaves_no_trace(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with _text.Progress(4) as progress:
        progress.advance(1, "normal")
        progress.advance(3, "normal")
    err = capsys.readouterr().err
    assert " 25%  normal" in err and "100%  normal" in err
    assert err.endswith("\r") and err.split("\r")[-2].strip() == ""


def test_progress_is_silent_in_a_file(capsys):
    with _text.Progress(1) as progress:
        progress.advance(1, "normal")
    assert capsys.readouterr().err == ""
