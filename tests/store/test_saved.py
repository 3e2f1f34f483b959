"""`load`: what was saved is read again, with the same bits, and nothing but what is asked for."""

import collections
import doctest
import os
import pickle
import shutil
import stat
import threading
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore

import seedbed as sb
import stores
from helpers import assert_same_bits, run_python, take
from seedbed._store import saved as _saved

pytestmark = pytest.mark.end("newest")

SIZE, CHUNK, INNER = 37, 16, 4


def result(size=SIZE):
    """Members of every kind of leaf."""
    normal = jax.random.normal(jax.random.key(0), (size, 3, 2))
    return {
        "layers": [{"w": normal, "b": normal[:, 0].astype(jnp.bfloat16)}, (normal[:, 1],)],
        "key": jax.random.split(jax.random.key(1), size),
        "legacy": jax.random.split(jax.random.PRNGKey(2), size),
        "own": jax.random.split(jax.random.key(3, impl=sb.prng.impl), size),
        "empty": jnp.zeros((size, 0, 2)),
        "none": None,
        "step": jnp.arange(size, dtype=jnp.int8),
        "even": jnp.arange(size) % 2 == 0,
        "zero": jnp.zeros((size, 5)),
        "z": jax.lax.complex(normal[..., 0], normal[..., 1]),
    }


class Layer(NamedTuple):
    weight: object
    bias: object


@pytest.fixture(scope="module")
def whole():
    return result()


@pytest.fixture(scope="module")
def path(whole, tmp_path_factory):
    store = tmp_path_factory.mktemp("stores") / "store"
    stores.write(store, whole, chunk=CHUNK, inner=INNER, made_from={"key": "0"})
    return store


@pytest.fixture
def saved(path):
    return sb.load(path)


@pytest.mark.parametrize("index", [0, 17, SIZE - 1, -1, -SIZE, np.int32(3), np.array(4)], ids=str)
def test_a_member_is_the_one_that_was_saved(saved, whole, index):
    assert_same_bits(saved[index], take(whole, int(index)))
    assert_same_bits(saved[jnp.int32(2)], take(whole, 2))


@pytest.mark.parametrize(
    "index",
    [
        *(slice(None), slice(3, 20), slice(None, None, -1), slice(30, 2, -7), slice(1, None, 5)),
        *(slice(5, 5), slice(9, 3), slice(16, 32), slice(SIZE, SIZE), slice(-3, 10**9)),
        *([], [36, 0, 0, -1, 5, 36], range(4, 30, 9), np.array([-37, 16, 15], np.int8)),
        *(np.array([1, 20], np.uint64), np.arange(36, -1, -1)),
    ],
    ids=str,
)
def test_members_come_stacked_in_the_order_asked_for(saved, whole, index):
    listed = np.arange(SIZE)[index if isinstance(index, slice) else np.asarray(index, np.int64)]
    assert_same_bits(saved[index], take(whole, listed))
    assert_same_bits(saved.leaf("layers.0.w")[index], whole["layers"][0]["w"][listed])


@pytest.mark.parametrize(
    ("index", "error"),
    [
        *((True, TypeError), (1.0, TypeError), (None, TypeError), ("zero", TypeError)),
        *((np.bool_(1), TypeError), ([0.5], TypeError), ([True, False], TypeError)),
        *((np.ones(SIZE, bool), TypeError), (np.zeros((1, 1), int), TypeError)),
        *((jax.random.key(0), TypeError), ([[1], [2, 3]], TypeError), (Ellipsis, TypeError)),
        *((SIZE, IndexError), (-SIZE - 1, IndexError), ([0, SIZE], IndexError)),
        *((2**64, IndexError), (np.array([-SIZE - 1]), IndexError)),
    ],
    ids=str,
)
def test_indices_are_refused_as_by_ensembles(saved, index, error):
    make = sb.ensemble(lambda key: jax.random.bits(key), SIZE)
    several = isinstance(index, list) or np.ndim(index) > 0
    with pytest.raises(error) as want:
        (make.members if several else make.member)(jax.random.key(0), index)
    for members in (saved, saved.leaf("zero")):
        with pytest.raises(error) as got:
            members[index]
        assert str(got.value) == str(want.value).replace("`i`", "`index`")


def test_an_index_is_of_members_alone_and_known(saved):
    with pytest.raises(TypeError, match=r"of members alone.*got the tuple \(1, 2\)"):
        saved[1, 2]
    with pytest.raises(TypeError, match="inside of a traced function"):
        jax.jit(lambda i: saved[i])(3)


def test_it_says_what_it_is(saved, path, whole):
    assert (saved.size, len(saved), saved.path) == (SIZE, SIZE, path)
    assert saved.made_from == {"key": "0"}
    assert saved.paths[:3] == ("empty", "even", "key") and "layers.1.0" in saved.paths
    types = jax.eval_shape(lambda: take(whole, 0))
    assert jax.tree.structure(saved.shapes) == jax.tree.structure(types)
    for one, other in zip(jax.tree.leaves(saved.shapes), jax.tree.leaves(types), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
    stored = jax.tree.map(lambda x: getattr(x, "_base_array", x), whole)
    assert saved.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(stored))
    lines = repr(saved).splitlines()
    assert lines[0] == f"Saved({str(path)!r}: 37 members of 106 bytes, 3.92 kB)"
    assert "  layers.0.w  float32 (3, 2)" in lines and len(lines) == 1 + len(saved.paths)


def test_repr_is_one_screen(tmp_path):
    stores.write(tmp_path / "s", [jnp.zeros((2, 3))] * 100, chunk=2, inner=1)
    lines = repr(sb.load(tmp_path / "s")).splitlines()
    assert len(lines) == 18 and lines[-1] == "  ... and 84 more"


def test_a_leaf_by_its_names(saved, whole):
    for name in ("layers.0.w", "['layers'][0]['w']"):
        leaf = saved.leaf(name)
        assert (leaf.shape, leaf.dtype, leaf.size) == ((SIZE, 3, 2), jnp.float32, SIZE)
        assert leaf.path == "layers.0.w" and leaf.nbytes == SIZE * 24
        assert repr(leaf) == "SavedLeaf(layers.0.w, float32[37, 3, 2], 888 bytes)"
    assert saved.leaf("key").shape == (SIZE,) and saved.leaf("key").dtype == whole["key"].dtype
    assert_same_bits(saved.leaf("own")[5], whole["own"][5])
    with pytest.raises(KeyError, match=r"'layers.0.v' is no leaf; there are layers.0.w"):
        saved.leaf("layers.0.v")
    with pytest.raises(TypeError, match="`path` must be a string"):
        saved.leaf(0)


@pytest.mark.parametrize("chunk", [None, 1, 5, 16, SIZE, 1000])
def test_chunks_are_all_members_in_order(saved, whole, chunk):
    step = chunk or CHUNK
    pieces = list(saved.chunks(chunk))
    assert len(pieces) == -(-SIZE // step)
    for number, piece in enumerate(pieces):
        assert_same_bits(piece, take(whole, slice(number * step, (number + 1) * step)))
    words = np.concatenate(list(saved.leaf("step").chunks(chunk)))
    assert words.tolist() == list(range(SIZE))


def test_chunks_are_checked_when_they_are_asked_for(saved):
    for wrong, error in ((0, ValueError), (1.5, TypeError), (True, TypeError), ("all", TypeError)):
        with pytest.raises(error, match="`chunk_size` must be"):
            saved.chunks(wrong)


def test_iteration_gives_the_members(saved, whole):
    members = list(saved)
    assert len(members) == SIZE
    assert_same_bits(members[19], take(whole, 19))
    assert [int(step) for step in saved.leaf("step")] == list(range(SIZE))


def test_a_result_that_is_an_array_has_a_name(tmp_path):
    stores.write(tmp_path / "s", jnp.arange(6.0).reshape(3, 2), chunk=3, inner=3)
    saved = sb.load(tmp_path / "s")
    assert saved.paths == ("result",) and saved[1].tolist() == [2.0, 3.0]
    assert saved.leaf("result")[2].tolist() == [4.0, 5.0]


# --- containers -------------------------------------------------------------------------


@pytest.fixture
def layers(tmp_path):
    tree = {"net": Layer(jnp.arange(6.0).reshape(2, 3), jnp.arange(2.0)), "step": jnp.arange(2)}
    stores.write(tmp_path / "layers", tree, chunk=2, inner=2)
    return tmp_path / "layers", tree


def test_other_containers_come_back_as_those_of_like(layers):
    path, tree = layers
    plain = sb.load(path)
    assert plain.paths == ("net.bias", "net.weight", "step")
    assert_same_bits(
        plain[1],
        {"net": tree["net"]._asdict(), "step": tree["step"]}
        | {
            "net": {"weight": tree["net"].weight[1], "bias": tree["net"].bias[1]},
            "step": tree["step"][1],
        },
    )
    for like in (tree, jax.tree.map(lambda _: "anything", tree), jax.eval_shape(lambda: tree)):
        again = sb.load(path, like=like)
        assert_same_bits(again[:], tree)
        assert_same_bits(pickle.loads(pickle.dumps(again))[:], tree)
        assert_same_bits(again.leaf("net.weight")[1], tree["net"].weight[1])


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"net": Layer(0, 0)}, r"it lacks \['step'\], with 2 leaves instead of 3"),
        ({"net": Layer(0, 0), "step": 0, "t": 0}, r"it has \['t'\], with 4 leaves instead of 3"),
        ({"net": {"bias": 0, "weight": 0}, "step": 0}, r"its leaf 0 is \['net'\]\['bias'\], where"),
        ({"net": [0, 0], "step": 0}, r"its leaf 0 is \['net'\]\[0\], where \['net'\].weight was"),
        ((), r"it lacks \['net'\].weight, with 0 leaves instead of 3"),
    ],
)
def test_like_of_another_structure_is_refused_where_it_differs(layers, like, message):
    with pytest.raises(ValueError, match=f"of the structure that was saved: {message}"):
        sb.load(layers[0], like=like)


def test_ordered_dicts_keep_their_order_as_like(tmp_path):
    tree = collections.OrderedDict(z=jnp.arange(2), a=jnp.arange(2) + 5)
    stores.write(tmp_path / "s", tree, chunk=2, inner=1)
    assert {k: int(v) for k, v in sb.load(tmp_path / "s")[1].items()} == {"z": 1, "a": 6}
    assert_same_bits(sb.load(tmp_path / "s", like=tree)[:], tree)
    again = pickle.loads(pickle.dumps(sb.load(tmp_path / "s")))
    assert int(again.leaf("a")[1]) == 6


# --- what it costs, and where it works --------------------------------------------------


def test_a_member_costs_kilobytes_and_opening_nothing(tmp_path):
    stores.write(tmp_path / "s", {"w": jnp.zeros((512, 4096))}, chunk=256, inner=4)

    def read():
        found = tensorstore.experimental_collect_matching_metrics(
            "/tensorstore/kvstore/file/bytes_read"
        )
        return sum(value["value"] for one in found for value in one["values"])

    before = read()
    saved = sb.load(tmp_path / "s")
    assert read() == before  # nothing but the manifest
    saved[300]
    once = read()
    # A piece of four members, where pieces are, and zarr.json; the store is of 8.4 MB.
    assert 4 * 16384 <= once - before < 4 * 16384 + 4096
    saved[301]
    assert read() - once <= 4 * 16384 + 2048


def test_a_file_system_that_is_read_only_will_do(path, whole, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(path, store)
    places = [store, *store.rglob("*")]
    for place in places:
        place.chmod(stat.S_IRUSR | (stat.S_IXUSR if place.is_dir() else 0))
    try:
        before = sorted(map(str, store.rglob("*")))
        saved = sb.load(os.fspath(store))
        assert_same_bits(saved[3], take(whole, 3))
        saved.verify(progress=False)
        assert sorted(map(str, store.rglob("*"))) == before
    finally:
        for place in places:
            place.chmod(stat.S_IRWXU)


def test_it_pickles_and_threads_share_it(saved, whole):
    again = pickle.loads(pickle.dumps(saved))
    assert repr(again) == repr(saved)
    leaf = pickle.loads(pickle.dumps(saved.leaf("z")))
    assert_same_bits(leaf[7], whole["z"][7])
    wrong, start = [], threading.Barrier(8)

    def work(number):
        try:
            start.wait()
            for index in range(number, SIZE, 8):
                assert_same_bits(again[index], take(whole, index))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_numbers_of_64_bits_are_read_as_such_or_refused(tmp_path):
    with jax.enable_x64(True):
        tree = {"a": jnp.arange(3.0) + 2**-40, "b": jnp.arange(3, dtype=jnp.int32)}
        stores.write(tmp_path / "s", tree, chunk=3, inner=1)
        assert_same_bits(sb.load(tmp_path / "s")[:], tree)
    saved = sb.load(tmp_path / "s")
    assert saved.shapes["a"].dtype == np.float64
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for ask in (
        lambda: saved[0],
        lambda: next(saved.chunks()),
        lambda: saved.leaf("a")[0],
        lambda: saved.to(sharding),
    ):
        with pytest.raises(ValueError, match=r"\['a'\] is saved as float64, and jax would make 32"):
            ask()
    assert saved.leaf("b")[:].tolist() == [0, 1, 2]
    saved.verify(progress=False)


def test_a_transfer_guard_lets_reading_pass(saved, whole):
    with jax.transfer_guard("disallow"):
        member = saved[3]
    assert_same_bits(member, take(whole, 3))


def test_without_tensorstore_an_error_says_what_to_install(path):
    out = run_python(
        f"""
        import sys
        sys.modules["tensorstore"] = None
        import seedbed as sb
        try:
            sb.load({str(path)!r})
        except ImportError as error:
            print(error)
        """
    )
    assert "read with tensorstore, which is not installed" in out
    assert "pip install 'seedbed[save]'" in out


@pytest.mark.skipif(not hasattr(sb.Ensemble, "save"), reason="the examples save")
def test_examples_in_the_documentation():
    results = doctest.testmod(_saved)
    assert not results.failed and results.attempted >= 8
