"""`save`, interrupted: the same call goes on, and what it leaves is what one without a fault does.

`tools/store_faults.py` does the same many times.
"""

import os
import shutil
import signal
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import seedbed as sb
from helpers import load_tool
from seedbed._store.format import StoreError

pytestmark = pytest.mark.end("newest")
faults = load_tool("store_faults")
pytest.importorskip("orbax.checkpoint")


@pytest.fixture(scope="module")
def want(tmp_path_factory):
    """All files of a save that nothing interrupted."""
    path = tmp_path_factory.mktemp("want") / "whole"
    faults.save(path)
    return faults.tree(path)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed(number, want, tmp_path):
    count = 4 if number == signal.SIGKILL else 1
    assert faults.kills(tmp_path, count, want, number=number).startswith(f"{count} kills")


def test_raises_in_some_chunk(tmp_path):
    faults.save(tmp_path / "checked", faults.checked)
    want = faults.tree(tmp_path / "checked")
    chunks = range(0, faults.CHUNKS, 11)  # the first and the last are among them
    assert chunks[-1] == faults.CHUNKS - 1
    assert "each of 3" in faults.exceptions(tmp_path, chunks, want)


def test_several_writers_one_of_them_killed(want, tmp_path):
    assert "one killed: they said" in faults.writers(tmp_path, 3, want)


def test_a_full_disk(want):
    folder = os.environ.get("SEEDBED_SMALL_DISK")
    if folder is None:
        pytest.skip("needs SEEDBED_SMALL_DISK, an empty folder on a file system of 20 MB")
    assert "errors 28, 28" in faults.full(Path(folder), want)


def test_files_that_may_not_be_that_long(want, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # A chunk of the weights is of 64 KB.
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
        with pytest.raises(OSError, match="File too large, while writing '.*x.partial'"):
            faults.save(tmp_path / "x")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert not (tmp_path / "x").exists()
    faults.save(tmp_path / "x")
    faults.same(tmp_path / "x", want)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")
def test_interrupted_from_the_keyboard(want, tmp_path, monkeypatch):
    run, made = sb.Ensemble._run, []

    def interrupted(self, call):
        made.append(call)
        if len(made) == 9:
            signal.raise_signal(signal.SIGINT)
        return run(self, call)

    monkeypatch.setattr(sb.Ensemble, "_run", interrupted)
    # A test run that was started in the background ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            faults.save(tmp_path / "x")
    finally:
        signal.signal(signal.SIGINT, before)
    faults.save(tmp_path / "x")
    # Eight were made before, of which none is made again.
    assert len(made) == 9 + faults.CHUNKS - 8
    faults.same(tmp_path / "x", want)


# What a callback does in the third chunk.
meanwhile = []


def _called(x):
    meanwhile.append(1)
    if len(meanwhile) == 3:
        act(meanwhile[0])
    return x


def act(partial):
    shutil.rmtree(partial)


def vanishing(key):
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    drawn = jax.random.uniform(key)
    return {"w": jax.pure_callback(_called, shape, drawn, vmap_method="broadcast_all")}


def test_the_folder_vanishes(tmp_path):
    meanwhile[:] = [tmp_path / "x.partial"]
    make = sb.ensemble(vanishing, 50)
    with pytest.raises(StoreError, match="x.partial', where .* was removed or changed meanwhile"):
        make.save(tmp_path / "x", jax.random.key(0), chunk_size=5)
    assert not (tmp_path / "x").exists()
    # What was written after that is no save that could be resumed, and nobody's but the user's.
    with pytest.raises(FileExistsError, match="move it away"):
        make.save(tmp_path / "x", jax.random.key(0), chunk_size=5)
    shutil.rmtree(tmp_path / "x.partial")
    make.save(tmp_path / "x", jax.random.key(0), chunk_size=5)
    assert [*tmp_path.iterdir()] == [tmp_path / "x"]
