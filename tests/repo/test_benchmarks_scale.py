"""benchmarks/: the table past one device runs, in several processes too. Nothing about time."""

import importlib.util
import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from helpers import ROOT, assert_same_bits

pytestmark = pytest.mark.end("newest")


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)


def test_forms_of_a_model_have_the_same_numbers():
    from dataclasses import replace

    from benchmarks.case import Leaf
    from benchmarks.peers import sharded
    from benchmarks.tables import cases

    (case,) = cases.select(["scale-unrolled-12"])
    leaves = (Leaf("up", "he_normal", (8, 16)), Leaf("down", "lecun_normal", (16, 8)))
    case = replace(case, leaves=leaves, layers=3)
    key = np.array([1, 2], np.uint32)
    made = {
        form: jax.jit(sharded._model(replace(case, form=form)))(key)
        for form in ("unrolled", "vmapped", "scanned")
    }
    layers = [made["unrolled"][f"layer{number}"] for number in range(3)]
    assert_same_bits(jax.tree.map(lambda *layer: np.stack(layer), *layers), made["vmapped"])
    assert_same_bits(made["scanned"], made["vmapped"])
    mesh = jax.make_mesh((2,), ("x",))
    for form, model in made.items():
        places = sharded._places(replace(case, form=form), mesh)
        assert jax.tree.structure(places) == jax.tree.structure(model), form
        parts = jax.tree.map(lambda place, leaf: place.shard_shape(leaf.shape), places, model)
        first = parts["layer0"] if form == "unrolled" else parts
        assert first["up"][-2:] == (8, 8) and first["down"][-2:] == (8, 8)


def test_answers_of_several_processes_become_one():
    from benchmarks.measure import Team

    class Answers:
        def __init__(self, *answers):
            self.given = iter(answers)

        def answer(self, timeout):
            return next(self.given)

    team = Team.__new__(Team)
    team.processes = [
        Answers({"wall": 1.0, "cpu": 0.5}, {"digest": "a"}, [10, 20], None),
        Answers({"wall": 3.0, "cpu": 0.25}, {"digest": "b"}, [30], None),
    ]
    assert team.answer() == {"wall": 3.0, "cpu": 0.75}
    assert team.answer() == {"digest": "a"}
    assert team.answer() == [10, 20, 30]
    assert team.answer() is None


def test_the_table_runs_and_its_bits_are_those_of_one_device(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "1"]
    command += ["--case", "scale-unrolled-12", "--case", "scale-ensemble", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "scale.json").read_text())
    for case in run["cases"]:
        for name, peer in case["peers"].items():
            if name.startswith("create_sharded"):
                framework = importlib.util.find_spec("flax")
                assert peer["status"] == ("ok" if framework else "skip")
                continue
            assert peer["status"] == "ok", peer
            # Plain jax on a mesh promises nothing of one device's bits.
            assert peer.get("same_bits") in ([None] if name.startswith("jit") else [True]), name
            assert peer["facts"]["collectives"] == 0, name
            assert len(peer["warm_wall"]) == 1
    (single, ensemble) = (case["peers"] for case in run["cases"])
    # Each process holds its half, and what is whole on every device.
    assert ensemble["sharded_by_2"]["held"] * 2 == ensemble["sharded_by_2"]["bytes"]
    assert single["single_by_2"]["held"] < single["single_by_2"]["bytes"]
    assert len(ensemble["sharded_by_2"]["peak_growth"]) in (0, 4)
    assert "seedbed.single, 2 processes of 2 devices" in done.stdout
    assert "Cold, CPU time beside seedbed's on as many devices" in done.stdout
