"""`save`: what is on disk is what the call makes, for whoever reads it."""

import functools
import os
import subprocess
import sys
import textwrap
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import as_words, load_tool

faults = load_tool("store_faults")
ocp = pytest.importorskip("orbax.checkpoint")
tensorstore = pytest.importorskip("tensorstore")

KEY = jax.random.key(3)
SIZE = 23


class Pair(NamedTuple):
    left: object
    right: object


def init(key, scale):
    w, b, k, n = jax.random.split(key, 4)
    return {
        "layers": [
            {"w": jax.random.normal(w, (3, 5)), "b": jnp.zeros(5, jnp.bfloat16)},
            Pair(jax.random.bernoulli(b, 0.5, (4,)), (None, jax.random.normal(b, (2,)) * scale)),
        ],
        "mlp/~/linear": {"keys": jax.random.split(k, 2), "count": jax.random.randint(n, (), 0, 9)},
        "none": jnp.zeros((0, 3)),
    }


def small(key):
    return {"w": jax.random.normal(key, (4, 2)), "b": jax.random.uniform(key)}


def read(path, name="result"):
    """A leaf, by TensorStore."""
    store = {"driver": "file", "path": str(path / name)}
    return tensorstore.open({"driver": "zarr3", "kvstore": store}).result().read().result()


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A store, and what must be in it."""
    path = tmp_path_factory.mktemp("stored") / "new" / "store"
    make = sb.ensemble(init, SIZE, in_axes=0)
    scale = jnp.arange(SIZE, dtype=jnp.float32)
    make.save(path, KEY, scale, chunk_size=5)
    return path, make(KEY, scale)


def words_of(tree):
    return [as_words(leaf) for leaf in jax.tree.leaves(tree)]


def assert_holds(tree, want):
    got, wanted = words_of(tree), words_of(want)
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_orbax_reads_it(stored):
    path, want = stored
    assert_holds(ocp.PyTreeCheckpointer().restore(path), want)
    got = ocp.StandardCheckpointer().restore(path)
    assert_holds(got, want)
    assert got["layers"][1]["right"][0] is None


def test_orbax_reads_it_onto_a_mesh(tmp_path):
    make = sb.ensemble(small, 16)
    make.save(tmp_path / "x", KEY, chunk_size=6)
    mesh = jax.make_mesh((8,), ("members",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("members"))
    like = jax.eval_shape(make, KEY)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), like)
    got = ocp.StandardCheckpointer().restore(tmp_path / "x", target)
    assert got["w"].sharding == sharding
    assert_holds(got, make(KEY))


ALONE = """
    import sys
    sys.modules["seedbed"] = None  # cannot be imported
    import numpy as np, orbax.checkpoint as ocp, jax, tensorstore, zarr
    path, want = sys.argv[1], np.load(sys.argv[2])
    leaves = jax.tree_util.tree_leaves_with_path(ocp.PyTreeCheckpointer().restore(path))
    names = {".".join(str(k.key if hasattr(k, "key") else k.idx) for k in p): x for p, x in leaves}
    assert names.keys() == set(want.files), names.keys()
    for name, leaf in names.items():
        def check(got):
            assert got.tobytes() == want[name].tobytes(), name
        check(np.asarray(leaf))
        store = {"driver": "file", "path": f"{path}/{name}"}
        check(tensorstore.open({"driver": "zarr3", "kvstore": store}).result().read().result())
        if leaf.dtype != "bfloat16":
            check(zarr.open_array(f"{path}/{name}", mode="r")[...])
"""


def test_others_read_it_without_seedbed(stored, tmp_path):
    pytest.importorskip("zarr")
    path, want = stored
    names = [leaf.name for leaf in sb_manifest(path).leaves]
    np.savez(tmp_path / "want.npz", **dict(zip(names, words_of(want), strict=True)))
    code = [sys.executable, "-c", textwrap.dedent(ALONE), path, tmp_path / "want.npz"]
    done = subprocess.run(code, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def sb_manifest(path):
    from seedbed._store import format

    return format.read(path)


def test_manifest(stored):
    path, _ = stored
    manifest = sb_manifest(path)
    assert (manifest.size, manifest.chunk) == (SIZE, 5)
    keys = manifest.leaves[-2]
    assert (keys.name, keys.shape, keys.dtype) == ("mlp/~/linear.keys", (2, 2), "uint32")
    assert keys.impl == "threefry2x32"
    assert manifest.made_from["key"] == "threefry2x32 [0, 3]"
    assert sorted(path.parent.iterdir()) == [path]


def test_nothing_of_the_moment_is_in_it(stored, tmp_path):
    path, _ = stored
    again = tmp_path / "other name"
    make = sb.ensemble(init, SIZE, in_axes=0)
    make.save(again, KEY, jnp.arange(SIZE, dtype=jnp.float32), chunk_size=5)
    assert faults.tree(again) == faults.tree(path)


@pytest.mark.parametrize("chunk", [1, 4, 22, 23, None])
def test_any_chunk_size(chunk, tmp_path):
    make = sb.ensemble(small, SIZE)
    make.save(tmp_path / "x", KEY, chunk_size=chunk)
    assert_holds(ocp.PyTreeCheckpointer().restore(tmp_path / "x"), make(KEY))
    manifest = sb_manifest(tmp_path / "x")
    assert manifest.chunk == (chunk or SIZE) and manifest.chunk % manifest.inner == 0


@pytest.mark.end("newest")
@pytest.mark.parametrize(
    "size, member_bytes, chunk, inner",
    [
        (10**6, 4, 10**6, 500_000),
        (70_000, 172_000, 780, 12),
        (10_000, 1_200_000, 111, 1),
        (997, 100_000, 980, 20),
        (5, 10**9, 1, 1),
        (7, 0, 7, 7),
    ],
)
def test_sizes_are_chosen_by_bytes(size, member_bytes, chunk, inner):
    from seedbed._ensemble import saving

    assert saving._sizes(None, size, member_bytes) == (chunk, inner)


def test_an_array_alone_is_called_result(tmp_path):
    make = sb.ensemble(lambda key: jax.random.normal(key, (3,)), 7)
    make.save(tmp_path / "x", KEY, chunk_size=3)
    np.testing.assert_array_equal(read(tmp_path / "x"), make(KEY))


@pytest.mark.end("newest")
def test_nothing_but_arrays_without_elements(tmp_path):
    make = sb.ensemble(lambda key: [jnp.zeros((0, 3)), jax.random.normal(key, (2, 0))], 7)
    make.save(tmp_path / "x", KEY, chunk_size=3)
    make.save(tmp_path / "x", KEY, chunk_size=3)
    assert read(tmp_path / "x", "1").shape == (7, 2, 0)


@pytest.mark.parametrize("keys", ["legacy", "stacked", "several"])
def test_keys_of_all_kinds(keys, tmp_path):
    key = {
        "legacy": jax.random.PRNGKey(5),
        "stacked": jax.random.split(KEY, SIZE),
        "several": {"a": KEY, "b": jax.random.split(KEY, SIZE)},
    }[keys]

    def draws(key):
        return sum(jax.random.normal(one, (8,)) for one in jax.tree.leaves(key))

    make = sb.ensemble(draws, SIZE)
    make.save(tmp_path / "x", key, chunk_size=6)
    np.testing.assert_array_equal(read(tmp_path / "x"), make(key))


@pytest.mark.end("newest")
def test_watched_keys_are_used_up(tmp_path):
    with jax.debug_key_reuse(True):
        key = jax.random.key(9)
        sb.ensemble(jax.random.normal, 7).save(tmp_path / "x", key, chunk_size=3)
        with pytest.raises(jax.errors.KeyReuseError):
            jax.random.normal(key)


@pytest.mark.end("newest")
def test_keys_that_draw_for_all_are_made_whole(tmp_path):
    make = sb.ensemble(small, 7)
    key = jax.random.key(3, impl="rbg")
    with pytest.raises(ValueError, match="'rbg'.* depend on how many members.*chunk_size=7"):
        make.save(tmp_path / "x", key, chunk_size=3)
    assert not [*tmp_path.iterdir()]
    make.save(tmp_path / "x", key, chunk_size=7)
    np.testing.assert_array_equal(read(tmp_path / "x", "w"), make(key)["w"])


@pytest.mark.end("newest")
@pytest.mark.parametrize(
    "dtype",
    ["bool", "int4", "int8", "uint16", "float16", "bfloat16", "float8_e5m2", "complex64", "int64"],
)
def test_types(dtype, tmp_path):
    with jax.enable_x64(dtype == "int64"):
        make = sb.ensemble(
            lambda key: jax.random.randint(key, (3, 3), 0, 2).astype(dtype), SIZE, donate=True
        )
        make.save(tmp_path / "x", KEY, chunk_size=4)
        want = sb.ensemble(make.init, SIZE)(KEY)
    got = read(tmp_path / "x")
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got.astype("complex64"), np.asarray(want).astype("complex64"))


@pytest.mark.end("newest")
def test_types_that_zarr_does_not_have(tmp_path):
    make = sb.ensemble(lambda key: {"a": {"b": jnp.zeros(2, jnp.uint4)}}, 3)
    with pytest.raises(TypeError, match=r"\['a'\]\['b'\] is of dtype uint4, which zarr"):
        make.save(tmp_path / "x", KEY)
    assert not [*tmp_path.iterdir()]


@pytest.mark.end("newest")
def test_two_chunks_are_in_memory(tmp_path, monkeypatch):
    def large(key):
        return [jax.random.normal(key, (7, 31)), jax.random.uniform(key, (7, 37))]

    seen, run = [], sb.Ensemble._run

    def watched(self, call):
        out = run(self, call)
        arrays = [x for x in jax.live_arrays() if x.shape[1:] in [(7, 31), (7, 37)]]
        seen.append(sum({x.unsafe_buffer_pointer(): x.nbytes for x in arrays}.values()))
        return out

    monkeypatch.setattr(sb.Ensemble, "_run", watched)
    sb.ensemble(large, 100).save(tmp_path / "x", KEY, chunk_size=10)
    member = 4 * 7 * (31 + 37)
    assert len(seen) == 10 and max(seen) == 20 * member


@pytest.mark.end("newest")
def test_parts_in_any_order(stored, tmp_path):
    path, _ = stored
    make = sb.ensemble(init, SIZE, in_axes=0)
    scale = jnp.arange(SIZE, dtype=jnp.float32)
    save = functools.partial(make.save, tmp_path / "x", KEY, scale, chunk_size=5)
    # Seven parts of five chunks: some have none.
    returned = [save(part=(i, 7)) for i in (3, 6, 0, 5, 1, 2)]
    assert returned == [None] * 6 and not (tmp_path / "x").exists()
    assert save(part=(4, 7)) is not None
    assert save(part=(0, 7)) is not None
    faults.same(tmp_path / "x", faults.tree(path))


@pytest.mark.end("newest")
def test_many_at_once(tmp_path):
    make = sb.ensemble(small, 60)
    make.save(tmp_path / "alone", KEY, chunk_size=5)
    failed = []

    def run(part):
        try:
            make.save(tmp_path / "x", KEY, chunk_size=5, part=part)
        except BaseException as error:  # noqa: B036
            failed.append(error)

    threads = [threading.Thread(target=run, args=[part]) for part in [(0, 2), (1, 2), (1, 2), None]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    faults.same(tmp_path / "x", faults.tree(tmp_path / "alone"))


@pytest.mark.end("newest")
def test_paths_of_all_kinds(tmp_path, monkeypatch):
    make = sb.ensemble(small, 3)
    monkeypatch.chdir(tmp_path)
    make.save("relative [1]*", KEY)
    assert (tmp_path / "relative [1]*" / "w").is_dir()
    os.symlink(tmp_path / "there", tmp_path / "link")
    make.save(tmp_path / "link", KEY)
    assert (tmp_path / "there" / "seedbed.json").exists() and (tmp_path / "link").is_symlink()
