"""`seedbed demo`: what it measures, compares, draws and refuses."""

from __future__ import annotations

import sys

import jax
import numpy as np
import pytest

from seedbed.__main__ import main
from seedbed._ensemble import ensemble
from seedbed.cli import _measure, _model, demo

pytestmark = pytest.mark.end("newest")

PNG = b"\x89PNG\r\n\x1a\n"
SMALL = ["demo", "--size", "6", "--layers", "5", "3"]


def test_demo_measures_compares_and_draws(capsys, tmp_path):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    path = tmp_path / "picture.png"
    assert main([*SMALL, "--out", str(path)]) == 0
    out = capsys.readouterr().out
    assert f"6 members of MLP 5-3 ({_model.available()})" in out
    assert "made by" in out  # the plan
    for text in ("cold: compile and run", "warm: median of 7", "times"):
        assert text in out
    # Each member has 5*3 + 3 floats of 32 bits.
    assert f"differing bits: 0 of {6 * 18 * 32:,}" in out
    assert path.read_bytes().startswith(PNG)


@pytest.fixture
def no_processes(monkeypatch):
    measured = {"cold": 1.0, "output": 1000, "extra": None}
    monkeypatch.setattr(_measure, "in_fresh_process", lambda *args: measured)


def test_demo_without_matplotlib_carries_on(no_processes, capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "seedbed.cli._picture", raising=False)
    monkeypatch.delattr("seedbed.cli._picture", raising=False)
    path = tmp_path / "picture.png"
    assert main([*SMALL, "--out", str(path)]) == 0
    assert "pip install matplotlib" in capsys.readouterr().out
    assert not path.exists()


def test_demo_says_that_it_runs_the_reference(no_processes, capsys, monkeypatch):
    monkeypatch.setenv("SEEDBED_BACKEND", "reference")
    assert main([*SMALL, "--no-plot"]) == 0
    out = capsys.readouterr().out
    assert "native backend is NOT in use" in out
    assert "differing bits: 0 of" in out
    assert "peak memory" not in out  # not known here, so not shown


def test_demo_fails_if_a_bit_differs(no_processes, capsys, monkeypatch):
    class Wrong:
        def __init__(self, *args, **options):
            self.make = ensemble.Ensemble(*args, **options)
            self.plan = self.make.plan

        def __call__(self, key):
            leaves, tree = jax.tree.flatten(self.make(key))
            return tree.unflatten([leaves[0].at[0, 0].multiply(-1), *leaves[1:]])

    monkeypatch.setattr(ensemble, "ensemble", Wrong)
    assert main([*SMALL, "--no-plot"]) == 1
    negated = 5 if _model.available() == "equinox" else 1  # a row of weights, or one bias
    assert f"differing bits: {negated} of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers", "5"], "two widths or more"),
        (["--out", "/no/such/folder/x.png"], "no folder"),
    ],
)
def test_demo_refuses_before_any_work(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(demo, "_warm", None)
    assert main(["demo", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many"])
def test_demo_takes_positive_sizes(value, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["demo", f"--size={value}"])
    assert stopped.value.code == 2
    assert f"'{value}' is not a positive integer" in capsys.readouterr().err


@pytest.mark.parametrize("library", ["equinox", "plain JAX"])
def test_both_networks_are_native_and_compute_the_same_way(library, native):
    if library == "equinox":
        pytest.importorskip("equinox", reason="one of the two needs equinox")
    layers = [6, 7, 2]
    make = ensemble.ensemble(_model.make_init(layers, library), 4)
    key = jax.random.key(0)
    plan = make.plan(key)
    assert len(plan.native) == len(plan.outputs) == 4 and not plan.steps
    one = make.member(key, 0)
    x = np.ones((2, 6), np.float32)
    weights = [np.asarray(leaf) for leaf in jax.tree.leaves(one)]
    (a, b), (c, d) = (sorted(pair, key=np.ndim) for pair in (weights[:2], weights[2:]))
    if library == "equinox":
        b, d = b.T, d.T
    expected = np.maximum(x @ b + a, 0) @ d + c
    got = _model.apply(layers, library, one, jax.numpy.asarray(x))
    np.testing.assert_allclose(got, expected, rtol=1e-5)


def test_a_failed_measurement_says_why():
    with pytest.raises(RuntimeError, match=r"(?s)measuring seedbed failed.*size"):
        _measure.in_fresh_process("seedbed", -1, [5, 3], "plain JAX")
