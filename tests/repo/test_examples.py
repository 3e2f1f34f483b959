"""examples/: every script runs at small size and shows what it says it shows."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.end("oldest")

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Those that take seconds as they are.
SHORT = {"sharded.py"}


def _run(name, *arguments):
    """What a script prints, as lists of the numbers of each line."""
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), "--small", *arguments]
    done = subprocess.run(
        command,
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    number = r"(?<![\w.])-?\d+(?:\.\d+)?"
    return [[float(x) for x in re.findall(number, line)] for line in done.stdout.splitlines()]


def _picture(path):
    """The pixels of an image that is not blank."""
    from matplotlib import image

    pixels = image.imread(path)
    assert pixels.ndim == 3 and min(pixels.shape[:2]) >= 300
    assert pixels[..., :3].std() > 0.05
    return pixels


def test_deep_ensemble_fits_the_data_and_disagrees_in_the_gap(tmp_path):
    pytest.importorskip("optax")
    (first, last, members), (data, gap) = _run("deep_ensemble.py", "--out", tmp_path / "e.png")
    assert members == 8
    assert last < first / 10
    assert gap > 3 * data
    height, width, _ = _picture(tmp_path / "e.png").shape
    assert width > height


def test_the_firing_rate_grows_with_the_gain(tmp_path):
    lines = _run("lif_sweep.py", "--out", tmp_path / "lif.png")
    gains, rates = zip(*lines, strict=True)
    assert list(gains) == sorted(gains) and len(gains) == 7
    assert rates[0] < 20 and rates[-1] > 100
    assert all(low < high for low, high in zip(rates, rates[1:], strict=False) if high > 0)
    _picture(tmp_path / "lif.png")


def test_a_population_improves_from_round_to_round():
    pytest.importorskip("optax")
    rounds, best, median, rates = zip(*_run("population.py"), strict=True)
    assert rounds == tuple(range(1, 7))
    assert best[-1] < best[0]
    assert median[-1] < median[0] / 2
    assert len(set(rates)) > 1


def test_each_device_holds_its_part():
    # Several processes: tests/ensemble/test_processes.py.
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / "sharded.py"), "--devices", "4"],
        env={name: value for name, value in os.environ.items() if name != "XLA_FLAGS"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    parts: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        name, leaf, *_, held = line.split()
        parts.setdefault(f"{name} {leaf}", []).append(held)
    distinct = {name: len(set(held)) for name, held in parts.items()}
    assert all(len(held) == 4 for held in parts.values())
    # The bias lies along one of two axes.
    assert distinct == {"ensemble b": 4, "ensemble w": 4, "single b": 2, "single w": 4}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_examples_are_listed_and_explain_their_options(path):
    assert f"({path.name})" in (EXAMPLES / "README.md").read_text()
    source = path.read_text()
    assert ("--small" in source) == (path.name not in SHORT)
    assert ("--out" in source) == ("savefig" in source)
