"""`save`: what it refuses, and that it says why; nothing is touched then."""

import io
import json
import os
import shutil
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import load_tool

pytestmark = pytest.mark.end("newest")
faults = load_tool("store_faults")
orbax = pytest.importorskip("orbax.checkpoint")

KEY = jax.random.key(3)


def init(key, *args):
    return {"w": jax.random.normal(key, (4, 2)), "b": sum(map(jnp.sum, args), jnp.zeros(()))}


@pytest.fixture
def make():
    return sb.ensemble(init, 10)


@pytest.mark.parametrize(
    "options, kind, says",
    [
        ({"chunk_size": 0}, ValueError, "`chunk_size` must be at least 1"),
        ({"chunk_size": -1}, ValueError, "`chunk_size` must be at least 1"),
        ({"chunk_size": 11}, ValueError, "`chunk_size` must be at most size=10; got 11"),
        ({"chunk_size": True}, TypeError, "`chunk_size` must be a positive integer.*True"),
        ({"chunk_size": 2.0}, TypeError, "`chunk_size` must be a positive integer.*2.0"),
        ({"progress": 1}, TypeError, "`progress` must be True or False; got 1"),
        ({"overwrite": "yes"}, TypeError, "`overwrite` must be True or False; got 'yes'"),
        ({"part": 1}, TypeError, "`part` must be None or .i, n.*got 1 of type int"),
        ({"part": (1,)}, TypeError, "`part` must be None or .i, n"),
        ({"part": (0.0, 2)}, TypeError, "`part` must be None or .i, n"),
        ({"part": (True, 2)}, TypeError, "`part` must be None or .i, n"),
        ({"part": (2, 2)}, ValueError, "0 <= i < n; got .2, 2."),
        ({"part": (-1, 2)}, ValueError, "0 <= i < n; got .-1, 2."),
        ({"part": (0, 0)}, ValueError, "0 <= i < n; got .0, 0."),
        ({"path": 5}, TypeError, "`path` must be a str or a path of a folder; got 5 of type int"),
        ({"path": b"x"}, TypeError, "`path` must be a str or a path.*got b'x' of type bytes"),
        ({"path": None}, TypeError, "`path` must be a str"),
        ({"path": ""}, ValueError, "`path` must be the path of a new folder; got ''"),
        ({"path": "/"}, ValueError, "`path` must be the path of a new folder; got '/'"),
        ({"path": "a\0b"}, ValueError, "`path` must be the path of a new folder"),
        ({"path": "gs://a/b"}, ValueError, "`path` must be on a file system that is mounted"),
        ({"path": "x.partial"}, ValueError, "`path` must not end in '.partial'"),
        ({"key": 3}, TypeError, "`key` must be"),
    ],
)
def test_arguments(make, options, kind, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, key = options.pop("path", "x"), options.pop("key", KEY)
    with pytest.raises(kind, match=says):
        make.save(path, key, **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "leaves, says",
    [
        ({}, "returns no arrays"),
        ({"a.b": 0, "a": {"b": 0}}, r"\['a'\]\['b'\] and \['a.b'\] would both be named 'a.b'"),
        ({"": 0}, r"leaf \[''\] would be stored in a folder named ''"),
        ({"..": 0}, r"leaf \['..'\] would be stored in a folder named '..'"),
        ({"a/../../b": 0}, "would be stored in a folder named"),
        ({"/etc": 0}, "would be stored in a folder named"),
        ({"a//b": 0}, "would be stored in a folder named"),
        ({"a\\b": 0}, "would be stored in a folder named"),
        ({"a\0b": 0}, "would be stored in a folder named"),
        ({"\udc80": 0}, "would be stored in a folder named"),
        ({"x" * 300: 0}, "would be stored in a folder named"),
        ({"seedbed": {"json": 0}}, "would be stored in a folder named 'seedbed.json'"),
        ({"_METADATA": 0}, "would be stored in a folder named '_METADATA'"),
        ({"array_metadatas": 0}, "would be stored in a folder named 'array_metadatas'"),
        ({"zarr.json/x": 0}, "would be stored in a folder named 'zarr.json/x'"),
        ({"a": 0, "a/b": 0}, r"leaf \['a/b'\] would be in the folder of the leaf \['a'\]"),
    ],
)
def test_names(leaves, says, tmp_path):
    def named(key):
        return jax.tree.map(lambda _: jax.random.normal(key, (2,)), leaves)

    path = tmp_path / "in" / "x"
    with pytest.raises(ValueError, match=says):
        sb.ensemble(named, 3).save(path, KEY)
    assert not [*tmp_path.iterdir()]


def test_names_that_are_odd_and_fine(tmp_path):
    names = [
        "a b",
        "?x=1#",
        "ä",
        "%2e%2e",
        "c.0.0",
        "new\nline",
        "*",
        "a/b/c",
        "d",
        "ocdbt.process_0",
    ]

    def named(key):
        return {name: jax.random.normal(key, (2,)) for name in names}

    sb.ensemble(named, 3).save(tmp_path / "x", KEY)
    assert [*tmp_path.iterdir()] == [tmp_path / "x"]
    found = [one.parent.relative_to(tmp_path / "x") for one in tmp_path.rglob("zarr.json")]
    assert sorted(map(str, found)) == sorted(names)
    got = orbax.PyTreeCheckpointer().restore(tmp_path / "x")
    for name, leaf in sb.ensemble(named, 3)(KEY).items():
        np.testing.assert_array_equal(got[name], leaf)


def test_traced(make, tmp_path):
    for call in (jax.jit(lambda key: make.save(tmp_path / "x", key)), jax.eval_shape):
        with pytest.raises(TypeError, match="`save` writes files, which a function that is being"):
            if call is jax.eval_shape:
                call(lambda: make.save(tmp_path / "x", KEY))
            else:
                call(KEY)
    assert not [*tmp_path.iterdir()]


def test_laid_out(tmp_path):
    mesh = jax.make_mesh((2,), ("m",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("m"))
    with pytest.raises(ValueError, match="out_shardings=.*Save one without: its members are the"):
        sb.ensemble(init, 10, out_shardings=sharding).save(tmp_path / "x", KEY)


@pytest.mark.parametrize("missing", ["orbax.checkpoint", "tensorstore"])
def test_without_the_extra(make, missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing}, which is not .*install 'seedbed\[save\]'"):
        make.save(tmp_path / "in" / "x", KEY)
    assert not [*tmp_path.iterdir()]


# --- what is there already --------------------------------------------------------------

CONSTANT = 2.0


def other(key, *args):
    return {"w": CONSTANT * jax.random.normal(key, (4, 2)), "b": init(key, *args)["b"]}


def renamed(key, *args):
    made = init(key, *args)
    return {"v": made["w"], "b": made["b"]}


def saved(path, key=KEY, size=10, function=init, args=(), in_axes=None, **options):
    make = sb.ensemble(function, size, in_axes=in_axes)
    return make.save(path, key, *args, **{"chunk_size": 3, **options})


ARRAY = jnp.arange(10.0)
DIFFERENT = {
    "key": ({"key": jax.random.key(4)}, r"key was threefry2x32 \[0, 3\], now is .* \[0, 4\]"),
    "impl": (
        {"key": jax.random.key(3, impl=sb.prng.impl)},
        "key was threefry2x32 .*, now is seedbed",
    ),
    "keys": ({"key": jax.random.split(KEY, 10)}, r"now is threefry2x32 10, \w+"),
    "size": ({"size": 11}, "size was 10, now is 11"),
    "chunk": ({"chunk_size": 4}, "chunk_size was 3, now is 4"),
    "init": ({"function": other}, "init was init, traced as .*, now is other, traced as"),
    "names": ({"function": renamed}, "result was 2 arrays"),
    "arguments": ({"args": (ARRAY + 1,)}, r"args was \[0\], .*, now is \[0\]"),
    "fewer arguments": ({"args": ()}, "args was .*, now is none"),
    "axes": ({"in_axes": 0}, r"in_axes was \(None,\), now is \(0,\)"),
}


@pytest.mark.parametrize("state", ["whole", "partial"])
@pytest.mark.parametrize("what", DIFFERENT)
def test_of_other_origin(what, state, tmp_path):
    path = tmp_path / "x"
    there = path if state == "whole" else tmp_path / "x.partial"
    saved(path, args=(ARRAY,), part=None if state == "whole" else (0, 2))
    before = faults.tree(tmp_path)
    options, says = DIFFERENT[what]
    kind = FileExistsError if state == "whole" else sb_store_error()
    with pytest.raises(kind, match=f"(?s){there}.*{says}.*overwrite=True"):
        saved(path, **{"args": (ARRAY,), **options})
    assert faults.tree(tmp_path) == before
    saved(tmp_path / "alone", **{"args": (ARRAY,), **options})
    saved(path, **{"args": (ARRAY,), **options}, overwrite=True)
    faults.same(path, faults.tree(tmp_path / "alone"))


def sb_store_error():
    from seedbed._store.format import StoreError

    return StoreError


@pytest.mark.parametrize(
    "setting, says",
    [
        ("jax_threefry_partitionable", "jax_threefry_partitionable was True, now is False"),
        ("jax_enable_x64", "jax_enable_x64 was False, now is True"),
    ],
)
def test_under_other_settings(setting, says, tmp_path):
    saved(tmp_path / "x")
    value = getattr(jax.config, setting)
    jax.config.update(setting, not value)
    try:
        with pytest.raises(FileExistsError, match=says):
            saved(tmp_path / "x")
    finally:
        jax.config.update(setting, value)


@pytest.mark.parametrize("name", ["seedbed", "jax", "jaxlib", "platform", "backend"])
def test_by_others(name, tmp_path):
    saved(tmp_path / "x", part=(0, 2))
    file = tmp_path / "x.partial" / "seedbed.json"
    fields = json.loads(file.read_text())
    fields["made_from"][name] = "other"
    fields.pop("digest", None)
    from seedbed._store import format

    if hasattr(format, "_digest"):
        fields["digest"] = format._digest(fields)
    file.write_text(json.dumps(fields))
    with pytest.raises(sb_store_error(), match=f"{name} was other, now is "):
        saved(tmp_path / "x")


def test_what_is_no_store_is_left_alone(make, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis").write_text("mine")
    (tmp_path / "x.partial").mkdir()
    (tmp_path / "x.partial" / "thesis").write_text("mine")
    before = faults.tree(tmp_path)
    for name, overwrite in [(n, o) for n in ("file", "folder", "x") for o in (False, True)]:
        with pytest.raises(FileExistsError, match=f"{name}.*(left alone|move it away)"):
            make.save(tmp_path / name, KEY, overwrite=overwrite)
    with pytest.raises(OSError, match="file"):
        make.save(tmp_path / "file" / "x", KEY)
    assert faults.tree(tmp_path) == before


def test_a_damaged_store_is_made_anew_when_asked(make, tmp_path):
    path = tmp_path / "x"
    make.save(path, KEY, chunk_size=3)
    want = faults.tree(path)
    (path / "w" / "c.1.0.0").unlink()
    with pytest.raises(
        sb_store_error(), match="damaged: files of the members from 3 on.*1 chunks.*overwrite="
    ):
        make.save(path, KEY, chunk_size=3)
    make.save(path, KEY, chunk_size=3, overwrite=True)
    faults.same(path, want)


def test_a_manifest_that_is_damaged_is_left_alone(make, tmp_path):
    make.save(tmp_path / "x", KEY)
    (tmp_path / "x" / "seedbed.json").write_text("{")
    with pytest.raises(sb_store_error(), match="damaged"):
        make.save(tmp_path / "x", KEY, overwrite=True)
    assert (tmp_path / "x" / "w").exists()


def test_the_old_one_is_kept_until_the_new_one_is_whole(make, tmp_path):
    path = tmp_path / "x"
    make.save(path, KEY, chunk_size=3)
    old = faults.tree(path)
    assert make.save(path, jax.random.key(5), chunk_size=3, overwrite=True, part=(0, 2)) is None
    assert faults.tree(path) == old
    make.save(path, jax.random.key(5), chunk_size=3, overwrite=True)
    new = faults.tree(path)
    assert new != old and [*tmp_path.iterdir()] == [path]
    # Killed between the two renames, and after them.
    shutil.copytree(path, tmp_path / ".x.seedbed-old")
    make.save(path, jax.random.key(5), chunk_size=3)
    faults.same(path, new)
    path.rename(tmp_path / "x.partial")
    shutil.copytree(tmp_path / "x.partial", tmp_path / ".x.seedbed-old")
    make.save(path, jax.random.key(5), chunk_size=3)
    faults.same(path, new)


def test_a_folder_that_is_empty_is_in_nobodys_way(make, tmp_path):
    (tmp_path / "x.partial").mkdir()
    (tmp_path / ".x.seedbed-old").mkdir()
    make.save(tmp_path / "x", KEY)
    assert [*tmp_path.iterdir()] == [tmp_path / "x"]


def test_leftovers_of_killed_processes(make, tmp_path):
    path = tmp_path / "x"
    make.save(path, KEY, chunk_size=3)
    want = faults.tree(path)
    shutil.rmtree(path)
    make.save(path, KEY, chunk_size=3, part=(0, 2))
    (tmp_path / "x.partial" / "w" / "c.3.0.0.__lock").write_bytes(b"half")
    (tmp_path / ".x.seedbed-new-0011").mkdir()
    make.save(path, KEY, chunk_size=3)
    faults.same(path, want)


# --- what is seen -----------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress(make, tmp_path, monkeypatch, capsys):
    pytest.importorskip("rich")
    make.save(tmp_path / "quiet", KEY, chunk_size=3)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    shown = {}
    for progress in (True, False):
        monkeypatch.setattr(sys, "stderr", Terminal())
        make.save(tmp_path / f"shown{progress}", KEY, chunk_size=3, progress=progress)
        shown[progress] = sys.stderr.getvalue()
    assert "10 of 10 members" in shown[True] and "/s" in shown[True]
    assert shown[False] == ""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    make.save(tmp_path / "plain", KEY, chunk_size=3)
    assert sys.stderr.getvalue() == ""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only(make, tmp_path):
    folder = tmp_path / "read only"
    folder.mkdir(mode=0o555)
    with pytest.raises(PermissionError, match="read only"):
        make.save(folder / "x", KEY)
