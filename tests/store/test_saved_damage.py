"""Stores that are damaged, foreign, newer or unfinished: a clear error, and never other data."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
import stores
from helpers import assert_same_bits
from seedbed._store import format as _format

pytestmark = pytest.mark.end("newest")

TREE = {
    "w": jax.random.normal(jax.random.key(0), (11, 3)),
    "zero": jnp.zeros((11, 2), jnp.int8),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "store"
    stores.write(path, TREE, chunk=4, inner=2, made_from={"key": "threefry 0 0", "size": "11"})
    return path


@pytest.fixture
def store(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "store")
    return tmp_path / "store"


def flip(file, at, bit=0):
    data = bytearray(file.read_bytes())
    data[at] ^= 1 << bit
    file.write_bytes(data)


def manifest(store, **changes):
    """The manifest with some entries changed, and the digest of that."""
    file = store / _format.NAME
    fields = json.loads(file.read_text())
    del fields["digest"]
    fields.update(changes)
    fields["digest"] = _format._digest(fields)
    file.write_text(json.dumps(fields))


# --- data -------------------------------------------------------------------------------

# Of a chunk of `w`: two pieces of 24 bytes and a checksum, their places, a checksum.
SHARD = 2 * 28 + 2 * 16 + 4


@pytest.mark.parametrize(
    ("at", "what"), [(0, "Digest mismatch"), (26, "Digest mismatch"), (60, "shard index")], ids=str
)
def test_a_bit_that_flipped_is_an_error(store, at, what):
    flip(store / "w/c.1.0", at)
    saved = sb.load(store)
    with pytest.raises(sb.StoreError, match=rf"leaf \['w'\] among the members 4 to 4: .*{what}"):
        saved[4]
    for ask in (
        lambda: saved[3:9],
        lambda: saved.leaf("w")[[4, 0]],
        lambda: list(saved),
        lambda: list(saved.chunks()),
        lambda: saved.to(jax.sharding.SingleDeviceSharding(jax.devices()[0])),
    ):
        with pytest.raises(sb.StoreError, match="is damaged"):
            ask()
    # What is not damaged is read all the same.
    assert_same_bits(saved[8:], jax.tree.map(lambda x: x[8:], TREE))
    assert_same_bits(saved.leaf("zero")[:], TREE["zero"])
    with pytest.raises(sb.StoreError, match=rf"members 4 to 7: .*{what}") as error:
        saved.verify(progress=False)
    assert str(store / "w" / "c.1.0") in str(error.value)


def test_a_checksum_that_flipped_is_an_error(store):
    flip(store / "w/c.1.0", SHARD - 1, 7)
    with pytest.raises(sb.StoreError, match="shard index"):
        sb.load(store)[5]


def test_a_file_that_is_missing_is_not_read_as_zeros(store):
    (store / "zero/c.2.0").unlink()
    saved = sb.load(store)
    said = r"the file zero/c.2.0, of the members 8 to 10 of the leaf \['zero'\], is missing"
    for ask in (lambda: saved[9], lambda: saved[:], lambda: saved.leaf("zero")[[10]]):
        with pytest.raises(sb.StoreError, match=said):
            ask()
    with pytest.raises(sb.StoreError, match=said):
        saved.verify(progress=False)
    assert saved[7]["zero"].tolist() == [0, 0]


@pytest.mark.parametrize("length", [0, 10, SHARD - 1, SHARD + 1])
def test_a_file_of_another_length_is_an_error(store, length):
    file = store / "w/c.0.0"
    file.write_bytes((file.read_bytes() + b"\0")[:length])
    said = rf"w/c.0.0, of the members 0 to 3 .* is of {length} bytes instead of {SHARD}"
    saved = sb.load(store)
    for ask in (lambda: saved[0], lambda: saved.verify(progress=False)):
        with pytest.raises(sb.StoreError, match=said):
            ask()


def test_verify_names_all_that_is_damaged_up_to_a_screen(store):
    sb.load(store).verify()
    (store / "notes.txt").write_text("files that are none of the store's are left alone")
    (store / "w/c.9.0").write_bytes(b"also here")
    sb.load(store).verify(progress=False)
    flip(store / "w/c.0.0", 3)
    (store / "w/c.2.0").unlink()
    (store / "zero/zarr.json").unlink()
    with pytest.raises(sb.StoreError) as error:
        sb.load(store).verify(progress=False)
    said = str(error.value).splitlines()
    assert len(said) == 3 and all("is damaged" in line for line in said)
    assert "w/c.0.0" in said[0] and "zero/zarr.json" in said[1] and "w/c.2.0" in said[2]


def test_verify_reads_the_disk_and_not_what_was_read_before(store):
    saved = sb.load(store)
    saved[:]
    flip(store / "w/c.0.0", 3)
    with pytest.raises(sb.StoreError, match="Digest mismatch"):
        saved.verify(progress=False)


def test_many_damaged_files_are_counted(tmp_path):
    stores.write(tmp_path / "s", jnp.arange(30), chunk=1, inner=1)
    for file in (tmp_path / "s" / "result").glob("c.*"):
        file.unlink()
    with pytest.raises(sb.StoreError) as error:
        sb.load(tmp_path / "s").verify(progress=False)
    assert str(error.value).splitlines()[-1] == "... and 20 more"


# --- what describes it ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"float32"', '"uint32"', "data_type"),
        ("[11,3]", "[12,3]", "shape"),
        ('"chunk_shape":[4,3]', '"chunk_shape":[2,3]', "chunk_shape|codecs"),
        ('"endian":"little"', '"endian":"big"', "codecs"),
        ('"separator":"."', '"separator":"/"', "chunk_key_encoding"),
        ('{"name":"crc32c"}', '{"name":"gzip"}', "codecs"),
        ("{", "[", "JSON|json"),
    ],
)
def test_an_array_that_is_not_what_the_manifest_says_is_an_error(store, old, new, said):
    file = store / "w/zarr.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    saved = sb.load(store)
    for ask in (lambda: saved[0], lambda: saved[:], lambda: saved.verify(progress=False)):
        with pytest.raises(sb.StoreError, match=rf"w/zarr.json is missing, damaged.*({said})"):
            ask()


@pytest.mark.parametrize(
    "change",
    [{"dtype": "object"}, {"dtype": "str"}, {"shape": [1] * 40}, {"shape": [1 << 40] * 8}],
    ids=str,
)
def test_an_array_that_cannot_be_is_an_error(store, change):
    fields = json.loads((store / _format.NAME).read_text())
    fields["leaves"][0].update(change)
    manifest(store, leaves=fields["leaves"])
    with pytest.raises(sb.StoreError, match="is damaged"):
        sb.load(store)[0]


def test_a_manifest_is_checked_by_its_digest(store):
    opened = sb.load(store)
    file = store / _format.NAME
    file.write_text(file.read_text().replace('"w"', '"v"', 1))
    for ask in (lambda: sb.load(store), lambda: opened.verify(progress=False)):
        with pytest.raises(sb.StoreError, match="seedbed.json is damaged: .* digest"):
            ask()
    manifest(store, made_from={})
    with pytest.raises(sb.StoreError, match="was replaced by another store since it was opened"):
        opened.verify(progress=False)


@pytest.mark.parametrize("size", [1 << 60, 1 << 61])
def test_nothing_is_allocated_for_what_is_not_there(store, size):
    manifest(store, size=size)
    saved = sb.load(store)
    with pytest.raises(sb.StoreError, match="zarr.json is missing, damaged, or not of the array"):
        saved.leaf("w")[0]
    # Also where the array says so too.
    file = store / "w/zarr.json"
    file.write_text(file.read_text().replace("[11,3]", f"[{size},3]"))
    for ask in (lambda: saved.leaf("w")[:], lambda: next(saved.leaf("w").chunks(1 << 40))):
        with pytest.raises(sb.StoreError, match="instead of|is missing"):
            ask()


@pytest.mark.parametrize(
    "changes",
    [
        *({"size": 0}, {"size": -3}, {"size": True}, {"size": "11"}, {"size": 1 << 63}),
        *({"chunk": 12}, {"inner": 5}, {"inner": 0}, {"leaves": []}, {"leaves": None}),
        *({"leaves": [{}]}, {"leaves": 3}, {"made_from": 3}, {"tree": 7}, {"tree": [1]}),
        *({"tree": {"list": [0, 0]}}, {"tree": {"list": [0, 1, 2]}}, {"tree": {"list": [0]}}),
        *({"tree": {"list": [-1, 0]}}, {"tree": {"dict": [[[], 0]]}}, {"tree": "w"}),
    ],
    ids=str,
)
def test_a_manifest_that_makes_no_sense_is_an_error(store, changes):
    manifest(store, **changes)
    with pytest.raises(sb.StoreError, match="seedbed.json is damaged: "):
        sb.load(store)


@pytest.mark.parametrize("name", ["../other/w", "/etc", "", "w/../../other", "a\0b"])
def test_leaves_lie_within_the_store(store, name):
    fields = json.loads((store / _format.NAME).read_text())
    fields["leaves"][0]["name"] = name
    manifest(store, leaves=fields["leaves"])
    with pytest.raises(sb.StoreError, match="a leaf's folder cannot be"):
        sb.load(store)


def test_links_do_not_lead_out_of_the_store(store, tmp_path):
    shutil.move(store / "w", tmp_path / "elsewhere")
    (store / "w").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(sb.StoreError, match=r"the folder w .* is a link to .*elsewhere', outside"):
        sb.load(store)[0]
    # The whole may be behind one.
    (tmp_path / "link").symlink_to(store)
    assert sb.load(tmp_path / "link").leaf("zero")[3].tolist() == [0, 0]


def test_keys_of_an_unknown_kind_are_an_error(store):
    fields = json.loads((store / _format.NAME).read_text())
    fields["leaves"][0]["impl"] = "of tomorrow"
    manifest(store, leaves=fields["leaves"])
    with pytest.raises(sb.StoreError, match=r"keys of 'of tomorrow' in the leaf \['w'\]"):
        sb.load(store)


def test_a_newer_format_is_named(store):
    manifest(store, format=2)
    with pytest.raises(sb.StoreError, match="has the format 2, and this seedbed reads format 1"):
        sb.load(store)


@pytest.mark.parametrize("text", ["", "[]", "3", "null", "{}", "{", "[" * 10**5, '"format"'])
def test_a_manifest_that_is_none_is_an_error(store, text):
    (store / _format.NAME).write_text(text)
    with pytest.raises(sb.StoreError, match="seedbed.json is damaged"):
        sb.load(store)
    (store / _format.NAME).write_bytes(b"\xff\xfe")
    with pytest.raises(sb.StoreError, match="seedbed.json is damaged"):
        sb.load(store)


# --- other folders ----------------------------------------------------------------------


def test_what_is_no_store_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        sb.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(sb.StoreError, match="no ensemble that seedbed saved: it has no seedbed"):
        sb.load(tmp_path / "empty")
    (tmp_path / "file").write_text("")
    with pytest.raises(sb.StoreError, match="it is a file"):
        sb.load(tmp_path / "file")
    (tmp_path / "group").mkdir()
    (tmp_path / "group" / "zarr.json").write_text("{}")
    with pytest.raises(sb.StoreError, match="is an array or a group of zarr"):
        sb.load(tmp_path / "group")
    (tmp_path / "odd" / _format.NAME).mkdir(parents=True)
    with pytest.raises(sb.StoreError, match="it has no seedbed.json"):
        sb.load(tmp_path / "odd")
    for wrong in (None, 3, ["x"]):
        with pytest.raises(TypeError, match="`path` must be a path of a folder"):
            sb.load(wrong)


def test_a_checkpoint_of_something_else_is_named(tmp_path):
    checkpoint = pytest.importorskip("orbax.checkpoint")
    with checkpoint.StandardCheckpointer() as writer:
        writer.save(tmp_path / "other", TREE)
    with pytest.raises(sb.StoreError, match="is a checkpoint of Orbax that holds something else"):
        sb.load(tmp_path / "other")


def test_an_unfinished_store_says_how_it_is_finished(store):
    partial = store.rename(store.with_name("store.partial"))
    for path in (store, partial):
        with pytest.raises(sb.StoreError, match=r"store' is unfinished: .*'store.partial'.*`save`"):
            sb.load(path)


# --- anything ---------------------------------------------------------------------------


def test_no_flipped_byte_gives_other_data(whole, tmp_path):
    chance = np.random.default_rng(0)
    store = tmp_path / "store"
    shutil.copytree(whole, store)
    outcomes = {"the same": 0, "an error": 0}
    for file in sorted(one for one in store.rglob("*") if one.is_file()):
        original = file.read_bytes()
        for _ in range(20):
            data = bytearray(original)
            data[chance.integers(len(data))] ^= chance.integers(1, 256)
            file.write_bytes(data)
            try:
                saved = sb.load(store)
                read = saved[:]
                assert saved.made_from == {"key": "threefry 0 0", "size": "11"}
            except sb.StoreError as error:
                assert str(store) in str(error)
                outcomes["an error"] += 1
            else:
                assert_same_bits(read, TREE)
                outcomes["the same"] += 1
        file.write_bytes(original)
    assert sum(outcomes.values()) == 180 and outcomes["an error"] > 140
