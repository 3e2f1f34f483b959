"""`seedbed bench` and `sb.bench`, `seedbed explain`: what they find, show and refuse."""

from __future__ import annotations

import importlib
import io
import json
import os
import pickle
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from seedbed.__main__ import main
from seedbed._base.pickling import Packed
from seedbed._jax import compat, lowering
from seedbed.cli import _measure, _race, _worker

pytestmark = pytest.mark.end("newest")

PNG = b"\x89PNG\r\n\x1a\n"
MODELS = """
import os
import sys
import time

import jax
import jax.numpy as jnp


def mlp(key, scale):
    print("said by the model")
    w, b = jax.random.split(key)
    return {"w": scale * jax.random.normal(w, (8, 6)), "b": jnp.zeros(6), "key": b}


def slow(key):
    time.sleep(100)


def ends(key):
    sys.stderr.write("a last word")
    os._exit(3)


def broken(key):
    raise ZeroDivisionError("of the model")
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    (tmp_path / "bench_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("bench_models", None)


def job(init, *args, members=3):
    settings = {name: getattr(jax.config, name) for name in _race.SETTINGS}
    return _worker.Job(Packed(init), members, args, None, 0, settings)


# --- in processes -------------------------------------------------------------------------


def test_the_command_measures_every_way_in_processes_of_their_own(models, capsys):
    pytest.importorskip("matplotlib", reason="the picture needs matplotlib")
    command = ["bench", "bench_models:mlp", "--members", "3", "--args", "0.5", "--rounds", "2"]
    assert main([*command, "--starts", "2", "--json", "b.json", "--plot", "b.png"]) == 0
    out = capsys.readouterr().out
    for text in ("3 members, ", "seedbed is", "writing zeros", "median of 2 first calls"):
        assert text in out
    assert (models / "b.png").read_bytes().startswith(PNG)
    found = json.loads((models / "b.json").read_text())
    assert found["name"] == "bench_models:mlp" and found["facts"]["separate"]
    (result,) = found["results"]
    assert result["members"] == 3 and list(result["ways"]) == list(_measure.MORE_WAYS)
    for way, told in result["ways"].items():
        assert len(told["cold"]) == len(told["warm"]) == 2 and min(told["cold"]) > 0
        assert told["output"] == 3 * (8 * 6 + 6 + 2) * 4 and told["extra"] is None
        assert not told["reason"]
        assert told.get("differing", 0) == 0, way
    assert sum("differing" in told for told in result["ways"].values()) == 3


def test_a_way_that_takes_too_long_or_ends_is_dropped_with_a_reason(models):
    module = importlib.import_module("bench_models")
    cases = ((module.slow, 1, "> 1 s"), (module.ends, 60, "status 3: a last word"))
    for init, limit, said in cases:
        process = _race.Process(_race._sent(job(init)), "seedbed", limit)
        with pytest.raises(_race.Dropped, match=said):
            process.ask("call")
        process.close()
        process._process.wait(10)


def test_a_worker_says_in_a_line_what_was_raised(models):
    sent = _race._sent(job(importlib.import_module("bench_models").broken))
    answers, cached = io.BytesIO(), jax.config.jax_enable_compilation_cache
    _worker.serve(io.BytesIO(pickle.dumps(("start", (sent, "zeros")))), answers)
    jax.config.update("jax_enable_compilation_cache", cached)
    assert pickle.loads(answers.getvalue()) == ("failed", "ZeroDivisionError: of the model")


def test_only_what_means_the_same_elsewhere_is_sent(models, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    module = importlib.import_module("bench_models")
    sent = pickle.loads(_race._sent(job(module.mlp, 2.0)))
    assert sent.init.value is module.mlp and sent.args == (2.0,)
    assert _race._sent(job(sb.nn.init_function(sb.nn.Linear(3, 2)))) is not None
    monkeypatch.setattr(module.mlp, "__module__", "__main__")
    monkeypatch.setattr(sys.modules["__main__"], "mlp", module.mlp, raising=False)
    assert _race._sent(job(module.mlp)) is None
    assert _race._sent(job(lambda key: key)) is None


# --- here ---------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(_race, "_sent", lambda job: None)


def test_a_local_function_is_measured_here_and_its_cold_starts_are_not(here):
    def init(key, by, shift):
        return by * jax.random.normal(key, (7,)) + shift["to"]

    by = jnp.arange(4.0)
    found = sb.bench(init, 4, by, {"to": 1.0}, in_axes=(0, None), rounds=1, seed=3)
    ways = found.results[0]["ways"]
    assert [len(told["warm"]) for told in ways.values()] == [1, 1, 1, 1]
    assert not any(told["cold"] for told in ways.values())
    assert found.same_bits and "cold starts were not measured" in repr(found)
    page = found._repr_html_()
    assert page.count("<table>") == 1 and "jit(vmap(init))" in page


def test_numbers_of_members_and_module_trees(here):
    net = sb.nn.Sequential(sb.nn.Linear(5, 4), sb.nn.Linear(4, 2))
    found = sb.bench(net, (2, 3), rounds=1)
    assert [result["members"] for result in found.results] == [2, 3]
    assert found.same_bits and json.loads(found.json())["name"].startswith("Sequential")
    assert "2 members, " in repr(found) and "3 members, " in repr(found)


def test_own_arrays_of_an_adapters_ensemble(here):
    eqx = pytest.importorskip("equinox")
    made = sb.adapters.equinox.ensemble(eqx.nn.MLP, 1)
    found = sb.bench(made, 3, 4, 2, 8, 1, rounds=1)
    assert found.same_bits and found.facts["member_bytes"] == 4 * (5 * 8 + 9 * 2)


def test_modules_of_nnx_say_what_to_measure():
    nnx = pytest.importorskip("flax.nnx")
    with pytest.raises(TypeError, match="returns nnx.state"):
        sb.bench(sb.adapters.nnx.ensemble(nnx.Linear, 1), 3, 4, 2)


def test_a_bit_that_is_not_jaxs_is_found(here, monkeypatch):
    make_call = _measure.make_call

    def wrong(way, *given):
        call = make_call(way, *given)
        return (lambda: jax.tree.map(jnp.negative, call())) if way == "seedbed" else call

    monkeypatch.setattr(_measure, "make_call", wrong)
    found = sb.bench(lambda key: jax.random.uniform(key, (5,)), 2, rounds=1)
    assert found.same_bits is False and "10 bits differ" in repr(found)


def test_what_jax_has_not_is_said_and_the_rest_is_measured(here, monkeypatch):
    def gone():
        raise NotImplementedError("jax 99 has one lowering of threefry only")

    monkeypatch.setattr(lowering, "unrolled_threefry", gone)
    found = sb.bench(lambda key: jax.random.uniform(key, (5,)), 2, rounds=1)
    assert "jax, threefry unrolled: jax 99 has one lowering" in repr(found)
    assert found.same_bits and found.results[0]["ways"]["zeros"]["warm"]


def test_jaxs_ways_are_jaxs_while_seedbed_is_in_its_lowerings():
    with sb.accelerate():
        drawn = job(lambda key: jax.random.bits(key, (9,)))
        workers = [_worker.Worker(drawn, way) for way in _measure.WAYS]
        ours, theirs = (worker.digest() for worker in workers)
    assert ours == theirs


def test_the_unrolled_lowering_is_in_force_inside_of_the_block_alone():
    def loops():
        text = jax.jit(lambda key: jax.random.bits(key)).lower(np.zeros(2, np.uint32)).as_text()
        return "stablehlo.while" in text

    table = lowering._mlir._platform_specific_lowerings["cpu"]
    before = table[compat.random_primitives["cipher"]]
    with pytest.raises(ZeroDivisionError), lowering.unrolled_threefry():
        assert not loops()
        raise ZeroDivisionError
    assert table[compat.random_primitives["cipher"]] is before and loops()


# --- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "options", "error", "said"),
    [
        ((3, 8), {}, TypeError, "`init` is 3 of type int, and no function init"),
        ((sb.ensemble(jax.random.normal, 2), 8), {}, TypeError, "is an ensemble already"),
        ((jax.random.normal, 0), {}, ValueError, "`n`"),
        ((jax.random.normal, [2, 1.5]), {}, TypeError, "`n`"),
        ((jax.random.normal, ()), {}, ValueError, "`n` must be a number of members"),
        ((jax.random.normal, 8), {"rounds": 0}, ValueError, "`rounds`"),
        ((jax.random.normal, 8), {"limit": 0}, ValueError, "`limit` must be a positive number"),
        ((lambda: 3, 8), {}, TypeError, "positional argument"),
    ],
)
def test_what_cannot_be_measured_is_an_error_before_anything_runs(given, options, error, said):
    with pytest.raises(error, match=said):
        sb.bench(*given, **options)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["bench", "bench_models:mpl"], 2, "did you mean mlp?"),
        (["bench", "bench_models:broken"], 1, "bench_models:broken raised the above"),
        (["bench", "bench_models:mlp", "--json", "no/b.json"], 2, "--json: no folder"),
        (["explain", "bench_models:broken"], 1, "ZeroDivisionError: of the model"),
        (["explain", "bench_models:mlp"], 2, "scale"),
    ],
)
def test_what_the_commands_refuse(models, capsys, arguments, code, said):
    assert main(arguments) == code
    assert said in capsys.readouterr().err


def test_a_picture_without_matplotlib_is_refused_before_anything_runs(models, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "seedbed.cli._curves", None)
    monkeypatch.delattr("seedbed.cli._curves", raising=False)
    assert main(["bench", "bench_models:mlp", "--args", "1.0", "--plot", "b.png"]) == 2
    assert "--plot needs matplotlib" in capsys.readouterr().err
    assert not os.path.exists("b.png")


def test_members_on_the_command_line_are_positive_numbers(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "a:b", "--members", "4,0"])
    assert "'0' is not a positive integer" in capsys.readouterr().err


# --- explain ------------------------------------------------------------------------------


def test_explain_shows_the_plan_and_makes_nothing(models, capsys):
    assert main(["explain", "bench_models:mlp", "--members", "1000000000", "--args", "2"]) == 0
    out = capsys.readouterr().out
    assert "native: constant" in out and "made by" in out
    assert "1,000,000,000 members: 224 GB" in out
