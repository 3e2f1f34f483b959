"""`save_members` and `load_members`: module trees on disk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import as_words, assert_same_bits
from modules import stream_position, values
from seedbed._store import write

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("tensorstore")
pytestmark = [pytest.mark.end("newest"), pytest.mark.usefixtures("in_use")]

SIZE = 7
KEY = jax.random.key(77)
nn = sb.nn


class Various(nn.Module):
    """Values of several arrays, one of them of keys."""

    def __init__(self):
        super().__init__()
        self.b = nn.State(None)
        self.a = nn.ParamState(None)

    def init_state(self, scale=1.0):
        key = sb.random.next_key()
        noise = jax.random.normal(key, (2,)) * scale
        self.b.value = {"z": noise, "a": (jax.random.split(key, 2),)}
        self.a.value = jax.random.uniform(sb.random.next_key(), (3, 2))


def layers():
    return nn.Sequential(nn.Linear(3, 4), nn.GRUCell(4, 2))


def several():
    return {"one": nn.Linear(2, 3), "two": [Various()]}


def held(target):
    return {path: jax.tree.map(as_words, value) for path, value in values(target).items()}


def initialised(make, *args, **options):
    """All members, made in memory with the stream at `KEY`."""
    with sb.random.stream(KEY):
        return nn.vmap_init_all_states(make(), *args, axis_size=SIZE, **options)


def single(make):
    return nn.init_all_states(make())


def rows(target, index):
    return {path: jax.tree.map(lambda a: a[index], value) for path, value in held(target).items()}


def assert_equal(found, wanted):
    assert found.keys() == wanted.keys()
    for path, value in found.items():
        assert_same_bits(value, wanted[path])


def files(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def interrupt(patch, number):
    """Makes saves fail at a chunk."""
    begun = write._Writer.begun

    def failing(self, chunk, start, count):
        if start // self.place.manifest.chunk == number:
            raise RuntimeError("interrupted")
        return begun(self, chunk, start, count)

    patch.setattr(write._Writer, "begun", failing)


@pytest.mark.parametrize("make", [layers, Various, several])
def test_members_made_on_the_way_are_those_of_a_call_in_memory(make, tmp_path):
    wanted, target = initialised(make), single(make)
    before = held(target)
    with sb.random.stream(KEY):
        saved = nn.save_members(target, tmp_path / "s", axis_size=SIZE, chunk_size=3)
        after = as_words(sb.random.next_key())
    with sb.random.stream(KEY):
        sb.random.next_key()  # one key of the stream
        assert_same_bits(after, as_words(sb.random.next_key()))
    assert_equal(held(target), before)
    assert saved.size == SIZE and set(saved.shapes) == set(before)

    position = stream_position()
    assert nn.load_members(target, tmp_path / "s") is target
    assert_equal(held(target), held(wanted))
    for index in (-2, [6, 0], slice(1, 6, 2), np.array([3])):
        nn.load_members(target, tmp_path / "s", index)
        assert_equal(held(target), rows(wanted, index))
    assert stream_position() == position


@pytest.mark.parametrize("make", [layers, several])
def test_what_is_in_memory_is_saved(make, tmp_path):
    net = initialised(make)
    nn.save_members(net, tmp_path / "s", chunk_size=2)
    # The same bytes, whoever makes them.
    with sb.random.stream(KEY):
        nn.save_members(make(), tmp_path / "t", axis_size=SIZE, chunk_size=2)
    one, other = files(tmp_path / "s"), files(tmp_path / "t")
    assert {n for n in one if one[n] != other[n]} == {n for n in one if n.name == "seedbed.json"}
    assert_equal(held(nn.load_members(single(make), tmp_path / "s")), held(net))


def test_members_along_another_axis(tmp_path):
    net = nn.Linear(3, 2)
    initialised(lambda: net, out_states={1: net.weight})
    assert net.weight.shape == (2, SIZE, 3)
    saved = nn.save_members(net, tmp_path / "s", chunk_size=4)
    assert_same_bits(saved[:]["weight"], jnp.moveaxis(net.weight.value, 1, 0))
    before = net.weight.value
    nn.load_members(net, tmp_path / "s")
    assert_same_bits(net.weight.value, jnp.moveaxis(before, 1, 0))
    assert nn.vmap(net, in_axes=None)(jnp.ones(3)).shape == (SIZE, 2)


@pytest.mark.parametrize("spec", [("x",), (None, "x"), ()])
def test_members_on_several_devices(spec, tmp_path):
    mesh = jax.make_mesh((8,), ("x",))
    places = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
    with sb.random.stream(KEY):
        net = nn.vmap_init_all_states(nn.Linear(3, 8), axis_size=16, out_shardings=places)
    saved = nn.save_members(net, tmp_path / "s", chunk_size=5)
    for name, value in held(net).items():
        assert_same_bits(as_words(saved[:][name]), value)


def test_members_that_read_their_own_of_a_state(tmp_path):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.State(jnp.arange(8.0))
            self.w = nn.State(None)

        def init_state(self):
            self.w.value = jax.random.normal(sb.random.next_key(), (3,)) * self.scale.value

    wanted, target = Scaled(), Scaled()
    with sb.random.stream(KEY):
        nn.vmap_init_all_states(wanted, axis_size=8, in_states=wanted.scale)
    with sb.random.stream(KEY):
        options = {"in_states": target.scale, "chunk_size": 3}
        saved = nn.save_members(target, tmp_path / "s", axis_size=8, **options)
    assert_same_bits(saved[:]["w"], wanted.w.value)
    assert target.scale.members is None and target.w.value is None


@pytest.mark.parametrize("number", range(4))
def test_an_interrupted_save_goes_on(number, tmp_path):
    net = initialised(layers)

    def made(path):
        return nn.save_members(layers(), path, axis_size=SIZE, chunk_size=2)

    def kept(path):
        return nn.save_members(net, path, chunk_size=2)

    for name, save in (("made", made), ("kept", kept)):
        path = tmp_path / name
        with sb.random.stream(KEY):
            save(tmp_path / f"{name}-whole")
        with sb.random.stream(KEY):
            with pytest.MonkeyPatch.context() as patch:
                interrupt(patch, number)
                with pytest.raises(RuntimeError, match="interrupted"):
                    save(path)
            assert not path.exists()
            save(path)  # the key that it was begun with is the stream's again
        assert files(path) == files(tmp_path / f"{name}-whole")


def test_another_content_is_refused(tmp_path):
    net = initialised(layers)
    nn.save_members(net, tmp_path / "s")
    nn.save_members(net, tmp_path / "s")  # is there
    net.layers[0].bias.value = net.layers[0].bias.value + 1
    with pytest.raises(FileExistsError, match="values was"):
        nn.save_members(net, tmp_path / "s")
    nn.save_members(net, tmp_path / "s", overwrite=True)
    with pytest.raises(FileExistsError, match="key was not there"):
        nn.save_members(net, tmp_path / "s", axis_size=SIZE)


def test_parts_and_arguments(tmp_path):
    with sb.random.stream(KEY):
        parts = nn.save_members(
            Various(), tmp_path / "s", 3.0, axis_size=SIZE, chunk_size=2, part=(1, 2)
        )
        assert parts is None
    with sb.random.stream(KEY):
        nn.save_members(Various(), tmp_path / "s", 3.0, axis_size=SIZE, chunk_size=2, part=(0, 2))
    net = nn.load_members(single(Various), tmp_path / "s")
    assert_equal(held(net), held(initialised(Various, 3.0)))


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.ParamState(init=jax.random.normal, shape=(2,))
        self.count = nn.NonBatchState(jnp.zeros(()))

    def init_state(self):
        self.count.value = jnp.zeros(())


def test_what_members_share_is_refused(tmp_path):
    position = stream_position()
    with pytest.raises(ValueError, match="'count' has one value that all members share"):
        nn.save_members(Counting(), tmp_path / "s", axis_size=3)
    assert stream_position() == position
    net = nn.vmap_init_all_states(Counting(), axis_size=3)
    with pytest.raises(ValueError, match="'count' has one value that all members share"):
        nn.save_members(net, tmp_path / "s")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_saved(tmp_path):
    path = tmp_path / "s"
    with pytest.raises(ValueError, match="must hold one number of members"):
        nn.save_members(nn.Linear(3, 2), path)
    with pytest.raises(ValueError, match="must hold one number of members"):
        nn.save_members(single(layers), path)
    with pytest.raises(TypeError, match="without `axis_size`"):
        nn.save_members(initialised(layers), path, 1.0)
    with pytest.raises(ValueError, match="axis_size must be a positive integer"):
        nn.save_members(layers(), path, axis_size=0)
    with pytest.raises(ValueError, match="`chunk_size`"):
        nn.save_members(layers(), path, axis_size=3, chunk_size=4)
    with pytest.raises(TypeError, match="target"):
        nn.save_members(3, path)

    @jax.jit
    def traced(x):
        with sb.random.stream(KEY):
            nn.save_members(layers(), path, axis_size=3)
        return x

    with pytest.raises(TypeError, match="call it outside"):
        traced(1.0)
    assert not list(tmp_path.iterdir())


def test_what_does_not_fit_changes_nothing(tmp_path):
    path = tmp_path / "s"
    nn.save_members(initialised(lambda: nn.Linear(3, 2)), path)

    class Other(nn.Module):
        def __init__(self, **states):
            super().__init__()
            for name, value in states.items():
                setattr(self, name, nn.State(value))

    weight, bias = jnp.ones((2, 3)), jnp.ones(2)
    for target, said in (
        (nn.Linear(2, 2), "'weight' is float32 of shape .2, 2. in each member, and what is stored"),
        (Other(weight=weight, bias=bias.astype(jnp.bfloat16)), "'bias' is bfloat16"),
        (Other(weight=weight), "holds the state 'bias', which `target` has not"),
        (Other(weight=weight, bias=bias, more=bias), "has the state 'more', which .* lacks"),
        (Other(weight={"a": weight}, bias=bias), "'weight' is made of a, and what is stored"),
        ({"net": nn.Linear(3, 2)}, "has the state 'net.bias', which .* lacks"),
    ):
        before = held(target) if not isinstance(target, (nn.Linear, dict)) else None
        with pytest.raises(ValueError, match=said):
            nn.load_members(target, path)
        if before is not None:
            assert_equal(held(target), before)
    net = nn.Linear(3, 2)
    for index, error in ((SIZE, IndexError), (True, TypeError), ([], ValueError), ("a", TypeError)):
        with pytest.raises(error):
            nn.load_members(net, path, index)
    with pytest.raises(FileNotFoundError):
        nn.load_members(net, tmp_path / "none")
    # A piece that is damaged comes to light when it is read, and then nothing was written either.
    file = path / "weight" / "c.0.0.0"
    file.write_bytes(bytes(len(file.read_bytes())))
    nn.init_all_states(net)
    before = held(net)
    with pytest.raises(sb.StoreError):
        nn.load_members(net, path)
    assert_equal(held(net), before)


def test_numbers_wider_than_jax_would_make_them(tmp_path):
    net = initialised(lambda: nn.Linear(3, 2))
    wide = np.asarray(net.weight.value, np.float64) + 1 / 3
    net.weight.value = wide
    saved = nn.save_members(net, tmp_path / "wide", chunk_size=3)
    with pytest.raises(ValueError, match="saved as float64, and jax would make 32 bits of it"):
        saved[:]
    with jax.enable_x64(True):
        np.testing.assert_array_equal(saved[:]["weight"], wide)


def test_what_other_processes_hold_is_refused(tmp_path, monkeypatch):
    net = initialised(lambda: nn.Linear(3, 2))
    kind = type(net.weight.value)
    monkeypatch.setattr(kind, "is_fully_addressable", property(lambda array: array.ndim < 3))
    with pytest.raises(ValueError, match="'weight' lies on devices of several processes"):
        nn.save_members(net, tmp_path / "x")
    assert not [*tmp_path.iterdir()]
