"""Initialising anew into the memory of an old ensemble: `ensemble(..., donate=True)`, `nn`."""

import pickle
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import Tagged, assert_same_bits, oracle

pytestmark = pytest.mark.shared

normal = jax.random.normal
SIZE = 5


def init(key, scale=2.0):
    w, r, k = jax.random.split(key, 3)
    return {
        "w": normal(w, (7, 2)),
        "zeros": jnp.zeros(6),
        "residual": jnp.tanh(scale * normal(r, (8,))),
        "key": k,
        "bits": jax.random.bits(w, (9,), jnp.uint8),
    }


def pointers(tree):
    leaves = [jax.random.key_data(x) if _key(x) else x for x in leaves_of(tree)]
    return {leaf.unsafe_buffer_pointer() for leaf in leaves}


def _key(leaf):
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def leaves_of(tree):
    return jax.tree.leaves(tree)


@pytest.fixture
def old():
    return sb.ensemble(init, SIZE)(jax.random.key(99))


@pytest.fixture
def make():
    return sb.ensemble(init, SIZE, donate=True)


def test_same_numbers_in_the_same_memory(make, old):
    for seed in range(3):
        key = jax.random.key(seed)
        before, given = pointers(old), leaves_of(old)
        old = make(key, old)
        assert_same_bits(old, oracle(init, SIZE, key))
        assert all(leaf.is_deleted() for leaf in given)
        assert pointers(old) == before


def test_arguments_follow(make, old):
    key = jax.random.key(4)
    assert_same_bits(make(key, old, 3.0), oracle(lambda key: init(key, 3.0), SIZE, key))


def test_an_argument_that_is_not_read_may_be_what_is_given_up(key):
    def ignoring(key, x):
        return normal(key, (3,))

    old = sb.ensemble(ignoring, SIZE)(key, 1.0)
    x = jnp.arange(4.0)
    new = sb.ensemble(ignoring, SIZE, donate=True)(key, old, x)
    assert_same_bits(new, oracle(lambda key: normal(key, (3,)), SIZE, key))
    assert old.is_deleted() and not x.is_deleted()


def test_members_need_no_old_ensemble(make, old):
    key = jax.random.key(6)
    want = oracle(init, SIZE, key)
    assert_same_bits(make.member(key, 3), jax.tree.map(lambda leaf: leaf[3], want))
    assert_same_bits(make.members(key, slice(1, 3)), jax.tree.map(lambda leaf: leaf[1:3], want))
    pieces = list(make.stream(key, chunk_size=4))
    assert_same_bits(pieces[1], jax.tree.map(lambda leaf: leaf[4:], want))
    assert len(make.plan(key).outputs) == 5
    assert not any(leaf.is_deleted() for leaf in leaves_of(old))


def test_inside_of_a_trace(make, old):
    key = jax.random.key(7)
    want = oracle(init, SIZE, key)
    assert_same_bits(jax.jit(make)(key, old), want)
    assert not any(leaf.is_deleted() for leaf in leaves_of(old))
    keys = jax.random.split(key, 2)
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), old)
    second = jax.tree.map(lambda leaf: leaf[1], jax.vmap(make)(keys, stacked))
    assert_same_bits(second, oracle(init, SIZE, keys[1]))


def test_copies_donate_too(make):
    copy = pickle.loads(pickle.dumps(make))
    assert copy.donate and repr(copy) == "ensemble(init, 5, donate=True)"


REFUSED = {
    "structure": (
        ValueError,
        r"`old` must be .* with the leaves \['bits'\], \['key'\], .*; got the array itself",
        lambda old: old["w"],
    ),
    "numpy": (
        TypeError,
        r"`old\['w'\]` must be a jax.Array, .*; got a value of type ndarray",
        lambda old: {**old, "w": np.asarray(old["w"])},
    ),
    "shape": (
        ValueError,
        r"`old\['w'\]` must have shape \(5, 7, 2\) and dtype float32; got shape \(4, 7, 2\)",
        lambda old: {**old, "w": old["w"][:4]},
    ),
    "dtype": (
        ValueError,
        r"`old\['w'\]` must have shape .* and dtype float32; got shape .* and dtype int32",
        lambda old: {**old, "w": old["w"].astype(jnp.int32)},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(make, old, name):
    kind, message, change = REFUSED[name]
    with pytest.raises(kind, match=message):
        make(jax.random.key(0), change(old))
    assert not any(leaf.is_deleted() for leaf in leaves_of(old))


def test_old_is_missing(make):
    with pytest.raises(TypeError, match=r"called as make\(key, old, \*args\).*`old` is missing"):
        make(jax.random.key(0))


def test_old_was_given_up_before(make, old):
    make(jax.random.key(0), old)
    with pytest.raises(ValueError, match=r"`old\['bits'\]` has been deleted or donated already"):
        make(jax.random.key(0), old)


def test_one_array_twice():
    make = sb.ensemble(lambda key: (normal(key, (3,)), jnp.ones(3)), 2, donate=True)
    one = jnp.zeros((2, 3))
    with pytest.raises(
        ValueError, match=r"`old\[1\]` has the same memory as another leaf of `old`"
    ):
        make(jax.random.key(0), (one, one))
    make = sb.ensemble(lambda key, x: normal(key, (3,)) + x[0], 2, donate=True)
    with pytest.raises(ValueError, match=r"`old` has the same memory as the key or an argument"):
        make(jax.random.key(0), one, one)
    assert not one.is_deleted()
    twice = jax.device_put(one, one.sharding)  # another object
    make = sb.ensemble(lambda key: (normal(key, (3,)), jnp.ones(3)), 2, donate=True)
    with pytest.raises(ValueError, match=r"`old\[1\]` has the same memory as another leaf"):
        make(jax.random.key(0), (one, twice))
    assert not one.is_deleted()


def test_transformations_of_a_call_leave_the_old_alone(make, old, key):
    want = oracle(init, SIZE, key)["w"]
    scaled = jax.vmap(lambda i: make(key, old)["w"] * i)(jnp.ones(2))
    assert_same_bits(scaled[1], want)
    program = jax.make_jaxpr(lambda: make(key, old)["w"])()
    for _ in range(2):
        assert_same_bits(jax.core.eval_jaxpr(program.jaxpr, program.consts)[0], want)
    assert not any(leaf.is_deleted() for leaf in leaves_of(old))


def test_memory_that_is_there_is_not_asked_for(monkeypatch, key):
    def large(key):
        return normal(key, (1 << 13, 1 << 10))

    old = sb.ensemble(large, 2)(key)  # 64 MiB
    want = np.asarray(old)
    monkeypatch.setattr("seedbed._ensemble.check._available_memory", lambda: 1 << 20)
    assert_same_bits(sb.ensemble(large, 2, donate=True)(key, old), want)


def _places(array):
    return {shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards}


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
@pytest.mark.parametrize("spec", [("d",), (), (None, "d")], ids=["members", "whole", "elements"])
@pytest.mark.parametrize("keys", ["one", "stacked"])
def test_old_on_several_devices(keys, spec, kind):
    def init(key):
        return normal(key, (8,))

    mesh = jax.make_mesh((4,), ("d",), axis_types=(getattr(jax.sharding.AxisType, kind),))
    place = jax.NamedSharding(mesh, jax.P(*spec))
    key, split = jax.random.key(0), lambda key: jax.random.split(key, 4)
    if keys == "stacked":
        key, split = jax.device_put(split(key), jax.NamedSharding(mesh, jax.P("d"))), jnp.copy
    made = jax.jit(lambda old, key: jax.vmap(init)(split(key)), donate_argnums=0, keep_unused=True)
    make = sb.ensemble(init, 4, donate=True)
    for _ in range(2):
        old, others = (jax.device_put(jnp.zeros((4, 8)), place) for _ in range(2))
        memory = _places(old)
        with warnings.catch_warnings():  # where no memory is reused, on an explicit mesh
            warnings.filterwarnings("ignore", "Some donated buffers were not usable")
            new, want = make(key, old), made(others, key)
        assert_same_bits(np.asarray(new), np.asarray(want))
        assert new.sharding.device_set == want.sharding.device_set
        alike = place.is_equivalent_to(new.sharding, 2)
        assert not alike or _places(new) == memory
        if kind == "Explicit":
            assert new.sharding.is_equivalent_to(want.sharding, 2)
            assert old.is_deleted() == others.is_deleted()
        else:  # where XLA lays out what is native as it likes
            assert old.is_deleted() or not alike


def test_memory_on_several_devices_is_given_up_once():
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    old = jax.device_put(jnp.zeros((4, 3)), jax.NamedSharding(mesh, jax.P("d")))
    twice = jax.device_put(old, old.sharding)  # another object
    part = old.addressable_shards[2].data
    make = sb.ensemble(lambda key: (normal(key, (3,)), jnp.ones(3)), 4, donate=True)
    with pytest.raises(ValueError, match=r"`old\[1\]` has the same memory as another leaf"):
        make(jax.random.key(0), (old, twice))
    make = sb.ensemble(lambda key, x: normal(key, (3,)) + x[0], 4, donate=True)
    for argument in (twice, part):
        with pytest.raises(ValueError, match=r"`old` has the same memory as the key or an arg"):
            make(jax.random.key(0), old, argument)
    assert not old.is_deleted() and not part.is_deleted()


class Static:
    """Metadata that is made anew in each trace."""

    def __eq__(self, other):
        return False

    __hash__ = None


def test_only_arrays_are_compared():
    def model(key):
        return Tagged(normal(key, (3,)), Static())

    old = sb.ensemble(model, 2)(jax.random.key(0))
    new = sb.ensemble(model, 2, donate=True)(jax.random.key(1), old)
    assert_same_bits(new.value, oracle(lambda key: normal(key, (3,)), 2, jax.random.key(1)))


def test_donate_must_be_a_bool():
    with pytest.raises(TypeError, match="`donate` must be True or False; got 'yes' of type str"):
        sb.ensemble(init, 2, donate="yes")
    with pytest.raises(TypeError, match="`donate` must be True or False; got 1 of type int"):
        sb.nn.vmap_init_all_states(sb.nn.Linear(2, 3), axis_size=2, donate=1)


# --- modules ------------------------------------------------------------------------------


def net():
    return sb.nn.Sequential(sb.nn.Linear(6, 7), sb.nn.Linear(7, 2))


def values(module):
    return {path: state.value for path, state in module.states().items()}


def test_a_module_in_its_old_memory():
    sb.random.seed(3)
    want = values(sb.nn.vmap_init_all_states(net(), axis_size=SIZE))
    sb.random.seed(2)
    module = sb.nn.vmap_init_all_states(net(), axis_size=SIZE, donate=True)
    before = values(module)
    memory = pointers(before)
    sb.random.seed(3)
    sb.nn.vmap_init_all_states(module, axis_size=SIZE, donate=True)
    assert_same_bits(values(module), want)
    assert all(leaf.is_deleted() for leaf in leaves_of(before))
    assert pointers(values(module)) == memory


def test_states_of_another_size_are_kept():
    module = sb.nn.vmap_init_all_states(net(), axis_size=SIZE)
    before = values(module)
    sb.nn.vmap_init_all_states(module, axis_size=SIZE + 1, donate=True)
    assert not any(leaf.is_deleted() for leaf in leaves_of(before))
    assert module.layers[0].weight.shape == (SIZE + 1, 7, 6)


class Averaged(sb.nn.Module):
    """A copy of the weights that only training changes."""

    def __init__(self):
        self.weight = sb.nn.ParamState(jnp.zeros(3))
        self.average = sb.nn.State(jnp.zeros(3))

    def init_state(self):
        self.weight.value = normal(sb.random.next_key(), (3,))


def test_a_value_that_another_state_keeps_is_not_given_up():
    module = sb.nn.vmap_init_all_states(Averaged(), axis_size=2)
    module.average.value = module.weight.value
    before = np.asarray(module.weight.value)
    sb.nn.vmap_init_all_states(module, axis_size=2, donate=True)
    assert_same_bits(module.average.value, before)
    assert (np.asarray(module.weight.value) != before).any()


class Reader(sb.nn.Module):
    """Adds its old value to its new one."""

    def __init__(self):
        self.total = sb.nn.State(jnp.zeros(3))
        self.fresh = sb.nn.ParamState(jnp.zeros(3))

    def init_state(self):
        self.fresh.value = normal(sb.random.next_key(), (3,))
        self.total.value = self.total.value + 1.0


def test_an_old_value_that_is_read_is_not_given_up():
    module = sb.nn.vmap_init_all_states(Reader(), axis_size=2, in_states=None)
    total, fresh = module.total.value, module.fresh.value
    sb.nn.vmap_init_all_states(module, axis_size=2, in_states=module.total, donate=True)
    assert not total.is_deleted() and fresh.is_deleted()
    assert_same_bits(module.total.value, total + 1.0)


def test_a_call_that_is_refused_gives_up_nothing():
    module = sb.nn.vmap_init_all_states(net(), axis_size=SIZE)
    before = values(module)
    where = {9: module.layers[0].weight}
    with pytest.raises(ValueError, match=r"`out_states` puts the members .* at axis 9"):
        sb.nn.vmap_init_all_states(module, axis_size=SIZE, out_states=where, donate=True)
    assert not any(leaf.is_deleted() for leaf in leaves_of(before))
    assert_same_bits(values(module), before)
