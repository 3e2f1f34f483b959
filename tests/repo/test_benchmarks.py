"""benchmarks/: the tables are consistent and one tiny case runs. Nothing about time."""

import importlib
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.end("newest")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)


def test_every_case_names_known_peers_and_samplers():
    from benchmarks import measure, peers
    from benchmarks.peers import on_jax
    from benchmarks.tables import cases

    names = [case.name for case in cases.CASES]
    assert len(set(names)) == len(names)
    for case in cases.CASES:
        for variant in (case, measure.QUICK.shrink(case)):
            assert set(variant.peers) <= set(peers.PEERS), case.name
            expected = set()
            if case.table in ("draws", "ensembles"):
                expected = {"seedbed", "jax", "jax_unrolled", "zeros"}
            if case.table == "modules":
                expected = {"nn", "nn_ensemble", "nn_jax", "brainstate"}
            if case.table == "frameworks":
                name = case.name.split("-")[0]
                expected = {f"{name}_{way}" for way in peers.FRAMEWORKS[name][1]}
            assert expected <= set(variant.peers), case.name
            assert case.ours in variant.peers, case.name
            assert {leaf.sampler for leaf in variant.leaves} <= set(on_jax.SAMPLERS), case.name
            assert "{" not in variant.heading, case.name
        assert set(case.baselines) <= set(case.peers), case.name
    for peer in peers.PEERS.values():
        module, factory = peer.factory.split(":")
        home = importlib.import_module(f"benchmarks.peers.{module}")
        assert callable(getattr(home, factory)), peer.label


def test_models_have_the_shapes_of_their_leaves():
    from benchmarks.peers import on_jax
    from benchmarks.tables import cases

    (case,) = cases.select(["transformer"])
    shapes = jax.eval_shape(on_jax.init(case), np.zeros(2, np.uint32))
    assert {name: leaf.shape for name, leaf in shapes.items()} == {
        leaf.name: leaf.shape for leaf in case.leaves
    }
    assert len(case.leaves) == 51


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--case", "nosuch"], "matches no case"), (["--peer", "nosuch"], "is in no case")],
)
def test_unknown_names_are_refused(arguments, message, capsys):
    from benchmarks.__main__ import main

    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_the_page_has_a_word_on_every_table():
    from benchmarks import __main__, report
    from benchmarks.tables import cases

    assert set(report.ABOUT) == {*cases.TABLES, __main__.ROOFLINE, __main__.STORE}


def test_one_tiny_case_runs_and_its_bits_agree(tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--rounds",
        "1",
        "--case",
        "draw-bits",
    ]
    command += ["--peer", "seedbed", "--peer", "jax", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "draws.json").read_text())["cases"]
    assert {peer["status"] for peer in case["peers"].values()} == {"ok"}
    assert case["peers"]["seedbed"]["same_bits"] is True
    assert len(case["peers"]["seedbed"]["warm_wall"]) == 1
    assert "random bits" in (tmp_path / "draws.md").read_text()


def test_the_modules_table_runs_and_its_bits_agree(tmp_path):
    """Module and function make the same bits as jax; brainstate runs, or the table says why not."""
    command = [sys.executable, "-m", "benchmarks", "modules", "--quick", "--rounds", "1"]
    command += ["--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (case,) = json.loads((tmp_path / "modules.json").read_text())["cases"]
    peers = case["peers"]
    assert [peers[name]["same_bits"] for name in ("nn", "nn_ensemble", "nn_jax")] == [True] * 3
    if importlib.util.find_spec("brainstate"):
        assert peers["brainstate"]["values"] == peers["nn"]["values"]
    else:
        assert peers["brainstate"]["status"] == "skip"
        assert "brainstate" in peers["brainstate"]["reason"]
    assert "seedbed.nn wall" in done.stdout


def test_a_framework_runs_beside_its_adapter_and_their_bits_agree(tmp_path):
    """The adapter makes the framework's bits, or the table says what is not installed."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1"]
    command += ["--case", "equinox-mlp-8", "--case", "haiku-mlp-8", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "frameworks.json").read_text())
    for case, name in zip(run["cases"], ("equinox", "haiku"), strict=True):
        peers = case["peers"]
        assert set(peers) == {f"{name}_adapter", f"{name}_own"}
        for peer in peers.values():
            if importlib.util.find_spec(name):
                assert peer["same_bits"] is True
            else:
                assert peer["status"] == "skip" and name in peer["reason"]
    assert "`eqx.filter_vmap(Model)`" in done.stdout
