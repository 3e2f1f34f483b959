"""benchmarks/: the peers of the tables about limits, and comparing two results."""

import json

import jax
import numpy as np
import pytest

from helpers import ROOT, assert_same_bits, native_problem, run_python

pytestmark = pytest.mark.end("newest")


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)


@pytest.fixture
def case():
    from benchmarks.case import Case, Leaf

    leaves = (Leaf("w", "normal", (2, 6)), Leaf("b", "zeros", (6,)))
    return Case("tiny", "tiny", "donate", leaves, 8, ("seedbed",), ())


def _make(peer, case, numbers=(0,)):
    """What a peer makes of the rounds with these numbers, in turn."""
    import importlib

    from benchmarks.peers import PEERS

    module, factory = PEERS[peer].factory.split(":")
    home = importlib.import_module(f"benchmarks.peers.{module}")
    call = getattr(home, factory)(case, **PEERS[peer].options)
    return [call.run(call.seed(number)) for number in numbers]


def test_a_case_regrouped_makes_as_much(case):
    from benchmarks.case import Leaf

    assert case.regrouped(4).leaves[0] == Leaf("w", "normal", (24,))
    assert case.regrouped(4).members == 4
    one = case.in_one_leaf()
    assert (one.members, [leaf.shape for leaf in one.leaves]) == (1, [(2, 6 * 2 * 8)])


def test_peers_under_other_conditions_make_what_they_say(case):
    expected = _make("jax", case)[0]
    assert_same_bits(_make("seedbed_typed", case)[0], expected)
    assert_same_bits(_make("jax_typed", case)[0], expected)
    (zeros,) = _make("empty_typed", case)
    assert jax.tree.map(np.shape, zeros) == jax.tree.map(np.shape, expected)
    (by_64,) = _make("seedbed_by_64", case.regrouped(16))
    assert by_64["w"].shape == (64, 1)
    (one,) = _make("seedbed_one_leaf", case)
    assert one["w"].shape == (1, 2, 96)


@pytest.mark.parametrize("peer", ["seedbed_donate", "jax_donate"])
def test_peers_that_write_into_old_memory_make_the_same_numbers(peer, case):
    expected = _make("jax", case, (0, 1))[1]
    first, again = _make(peer, case, (0, 1))
    assert_same_bits(again, expected)
    assert first["w"].is_deleted() and not again["w"].is_deleted()


def test_other_generators_are_skipped_where_jax_has_none(case):
    from benchmarks.peers import Unavailable, on_jax

    (made,) = _make("jax_rbg", case)
    assert made["w"].shape == (8, 2, 6)
    with pytest.raises(Unavailable, match="no such generator"):
        on_jax.raw(case, impl="nosuch")


@pytest.mark.skipif(bool(native_problem()), reason="no native backend")
def test_an_instruction_set_of_another_machine_is_skipped(case, monkeypatch):
    from benchmarks.peers import Unavailable, variants

    monkeypatch.setenv("SEEDBED_ISA", "nosuch")
    with pytest.raises(Unavailable, match="not nosuch"):
        variants.on_isa(case)


def test_a_process_is_confined_before_it_imports_anything():
    out = run_python(
        f"""
        import ctypes, os, sys
        sys.path.insert(0, {str(ROOT)!r})
        from benchmarks.peers import PEERS
        from benchmarks.worker import _confine
        for name in ("seedbed_one_thread", "seedbed_small_pages"):
            _confine(PEERS[name])
        disabled = ctypes.CDLL(None).prctl(42, 0, 0, 0, 0)  # PR_GET_THP_DISABLE
        print(len(os.sched_getaffinity(0)), disabled, "jax" in sys.modules)
        """
    )
    assert out.split() == ["1", "1", "False"]


def _result(seedbed=(0.010, 0.020, 0.30), jax=(0.1, 0.1, 3.0), case="mlp", **more):
    def peer(wall, cpu, cold):
        return {"status": "ok", "warm_wall": [wall] * 3, "warm_cpu": [cpu], "cold_wall": [cold]}

    peers = {"seedbed": peer(*seedbed), "jax": peer(*jax)}
    cases = [{"name": case, "heading": case, "baselines": ["jax"], "peers": peers}]
    return {"table": "ensembles", "settings": {"quick": True}, "cases": cases} | more


def _lost(base, new):
    from benchmarks.report.compare import compare

    return {(one.peer, one.clock) for one in compare(base, new) if one.lost}


def test_a_loss_of_more_than_a_tenth_is_flagged():
    assert not _lost(_result(), _result())
    assert not _lost(_result(), _result(seedbed=(0.0109, 0.021, 0.32)))
    lost = _lost(_result(), _result(seedbed=(0.0112, 0.010, 0.34)))
    assert lost == {("seedbed", "warm_wall"), ("seedbed", "cold_wall")}


def test_a_slower_machine_is_no_loss_and_a_faster_one_hides_none():
    slow = _result(seedbed=(0.02, 0.04, 0.6), jax=(0.2, 0.2, 6.0))
    assert not _lost(_result(), slow)
    assert {clock for _, clock in _lost(slow, _result(seedbed=(0.02, 0.04, 0.6)))} == {
        "warm_wall",
        "warm_cpu",
        "cold_wall",
    }


def test_samples_that_others_disturbed_are_no_loss():
    new = _result()
    new["cases"][0]["peers"]["seedbed"]["warm_wall"] = [0.010, 0.018, 0.019]
    assert not _lost(_result(), new)


def test_a_peer_that_is_not_seedbed_is_no_loss():
    # Its own ratio is against itself, and it makes seedbed's time a gain.
    assert not _lost(_result(), _result(jax=(0.2, 0.2, 6.0)))


def test_peers_that_dropped_out_are_left_out():
    from benchmarks.report.compare import compare

    new = _result()
    new["cases"][0]["peers"]["jax"] = {"status": "over", "reason": "> 150 s"}
    changes = compare(_result(), new)
    assert {change.peer for change in changes} == {"seedbed"}
    assert {change.machine for change in changes} == {1.0}


@pytest.mark.parametrize(
    ("new", "message"),
    [
        (_result(table="draws"), "'ensembles' and of 'draws'"),
        (_result(case="other"), "share no case"),
    ],
)
def test_results_that_cannot_be_compared_are_refused(new, message):
    from benchmarks.report.compare import compare

    with pytest.raises(ValueError, match=message):
        compare(_result(), new)


def test_comparing_stored_results_prints_ratios_and_fails_on_a_loss(tmp_path, capsys):
    from benchmarks.__main__ import main

    base, same, slow = (tmp_path / f"{name}.json" for name in ("base", "same", "slow"))
    base.write_text(json.dumps(_result()))
    same.write_text(json.dumps(_result()))
    slow.write_text(json.dumps(_result(seedbed=(0.015, 0.020, 0.30))))
    assert main(["--compare", str(base), str(same)]) == 0
    assert "0 of 6 more than 10% slower." in capsys.readouterr().out
    assert main(["--compare", str(base), str(slow)]) == 1
    out = capsys.readouterr().out
    (line,) = (line for line in out.splitlines() if "**slower**" in line)
    assert line == "| mlp | seedbed | warm wall | 10.0 ms | 15.0 ms | 1.00 | 1.50 | **slower** |"
    base.write_text(json.dumps(_result(cases=[])))
    assert main(["--compare", str(base)]) == 2
    assert "holds no cases" in capsys.readouterr().err


def test_comparing_with_one_result_measures_its_cases_again(tmp_path, monkeypatch, capsys):
    from benchmarks import __main__
    from benchmarks.tables import cases

    base = tmp_path / "base.json"
    base.write_text(json.dumps(_result()))
    asked = []

    def run(chosen, settings, described, out):
        asked.append(([case.name for case in chosen], settings.quick))
        (out / "ensembles.json").write_text(json.dumps(_result()))
        return True

    monkeypatch.setattr(__main__, "_run_tables", run)
    assert __main__.main(["--compare", str(base), "--out", str(tmp_path)]) == 0
    assert asked == [(["mlp"], True)]
    assert cases.select(["mlp"])[0].table == "ensembles"


def test_all_is_every_table(monkeypatch):
    from benchmarks import __main__
    from benchmarks.tables import cases

    asked = []

    def tables(chosen, settings, described, out):
        asked.append(list(dict.fromkeys(case.table for case in chosen)))
        return True

    monkeypatch.setattr(__main__, "_run_tables", tables)
    monkeypatch.setattr(__main__, "_run_roofline", lambda *_: asked[-1].append("roofline"))
    monkeypatch.setattr(__main__, "_run_store", lambda *_: asked[-1].append("store") or True)
    for arguments in (["all"], []):
        assert __main__.main([*arguments, "--quick"]) == 0
    assert __main__.main(["roofline", "--quick"]) == 0
    assert __main__.main(["isa", "roofline", "--quick"]) == 0
    everything = [*cases.TABLES, "roofline", "store"]
    assert asked == [everything, everything, ["roofline"], ["isa", "roofline"]]


def _sample(name, least, isa="", threads=1, what="loop"):
    return {
        "name": name,
        "isa": isa,
        "threads": threads,
        "what": what,
        "least": least,
        "median": 2 * least,
    }


def test_the_roofline_holds_each_kernel_to_its_own_loops():
    from benchmarks.roofline.bounds import _arithmetic
    from benchmarks.roofline.page import page

    samples = [
        _sample("add", 0.25),  # 4 GHz
        _sample("bound: cipher", 1.25, "avx2"),
        _sample("bits, 32", 1.5, "avx2"),
        _sample("bound: transform", 1.0, "avx2"),
        _sample("normal", 3.0, "avx2"),
    ]
    bits, normal = _arithmetic(samples)
    assert (bits["cycles"], bits["loops"], bits["ghz"]) == (6.0, [5.0], 4.0)
    assert bits["fraction"] == pytest.approx(5 / 6)
    assert bits["counted"] == pytest.approx(105 / 3 / 8)
    assert normal["loops"] == [5.0, 4.0] and normal["fraction"] == pytest.approx(0.75)
    assert normal["counted"] == pytest.approx(105 / 3 / 8 + 65 / 2 / 8)
    memory = [_sample("touched", 0.5, threads=n, what="memory") for n in (1, 2)]
    run = {"arithmetic": [bits, normal], "memory": memory, "settings": {"megabytes": 16}}
    shown = page(run)
    assert "**avx2, 1 thread, 4.00 GHz**" in shown
    assert "| bits, 32 | 4.38 | 5.00 | 6.00 | 83% | 0.667 |" in shown
    assert "| normal | 8.44 | 5.00 + 4.00 | 12.00 | 75% | 0.333 |" in shown
    assert "| touched | 0.50 | 2.00 | 0.50 | 4.00 |" in shown
