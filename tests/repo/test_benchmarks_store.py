"""benchmarks/: the table of stores runs, and what is read is what was made. Nothing about time."""

import pytest

from helpers import ROOT

pytestmark = pytest.mark.end("newest")


@pytest.fixture(autouse=True)
def _from_the_root(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("way", ["seedbed", "orbax", "zarr", "npy"])
def test_what_is_written_is_what_was_made_whoever_reads_it(way, tmp_path, monkeypatch):
    from benchmarks.store import turns, ways, worker

    monkeypatch.setattr(worker, "_MEMBERS_READ", 1)
    if way == "zarr":
        pytest.importorskip("zarr")
    members, folder = 60, tmp_path / way
    made = worker.made(ways, way, folder, members)["digest"]
    written = worker.write(ways, way, folder, members)
    assert written["wall"] > 0
    readers = ("seedbed", "orbax", "zarr") if way == "seedbed" else (way,)
    for reader in readers:
        read = worker.read(ways, reader, folder, members)
        assert read["digest"] == made, reader
        assert min(read["first"], read["one"], read["all"]) > 0
    assert set(turns._FAST) < set(ways.WRITERS) and set(ways.READERS) < set(ways.WRITERS)


def test_a_process_of_its_own_answers_or_says_why_not(tmp_path):
    from benchmarks.store import turns

    wrote = turns.ask("write", "raw", tmp_path / "raw", 30)
    assert wrote["wall"] > 0 and (tmp_path / "raw/raw").stat().st_size >= 30 * 42634 * 4
    assert "FileExistsError" in turns.ask("write", "raw", tmp_path / "raw", 30)["failed"]


def test_the_page_says_what_failed_and_what_differs():
    from benchmarks.store.page import page

    wrote = {"wall": 2.0, "cpu": 1.0, "peak": 10**8}
    read = {"first": 0.1, "one": 0.01, "all": 1.0, "same_bytes": False}
    run = {
        "members": 10,
        "bytes": 10**9,
        "limit": 2 * 10**9,
        "writes": {"seedbed": [wrote, wrote], "raw": [{**wrote, "wall": 1.0}, wrote]},
        "reads": {"seedbed": read, "orbax": {"failed": "no room"}},
    }
    run["writes"]["zarr"] = [{"failed": "not there"}]
    text = page(run)
    assert "limited to 2 GB" in text
    assert "| 500 | 1.0 | 100 MB | 0.50 1.00 |" in text
    assert "| not there |" in text and "| no room |" in text
    assert "**DIFFERENT**" in text
