"""An ensemble that is never stored: whatever is asked of it is what the whole has there."""

import copy
import pickle
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import seedbed as sb
from helpers import assert_same_bits, oracle, split
from meshes import KINDS, mesh_of
from models import small, sweep
from plan_reference import fold, threefry

pytestmark = pytest.mark.end("newest")

SIZE = 11
HUGE = (1 << 48) - 1
EDGES = [0, 2**32 - 1, 2**32, 2**40 - 1, 2**48 - 2]


def words(key):
    a, b = jax.random.split(key)
    return {"a": jax.random.bits(a, (3,), "uint32"), "b": jax.random.bits(b, (5,), "uint32")}


def cipher(key, members):
    """What `words` makes for some members, by the bare cipher."""
    pair = np.asarray(jax.random.key_data(key)).reshape(1, 2)
    keys = fold(np.repeat(pair, len(members), axis=0), members)
    out = {}
    for number, (name, count) in enumerate((("a", 3), ("b", 5))):
        own = fold(keys, number)
        high, low = threefry(own[:, :1], own[:, 1:], np.zeros(1), np.arange(count)[None])
        out[name] = high ^ low
    return out


@pytest.fixture(scope="module")
def whole():
    return oracle(small, SIZE, jax.random.key(20))


@pytest.fixture
def ens(key):
    return sb.ensemble(small, SIZE).lazy(key)


def picked(tree, index):
    return jax.tree.map(lambda leaf: leaf[np.asarray(index, int)], tree)


@pytest.mark.parametrize(
    "index",
    [0, -1, np.int64(3), np.array(4), jnp.int32(5), [1, -1, 1], [], range(2, 9, 3), np.array([7])],
    ids=repr,
)
def test_members_by_number(ens, whole, index):
    expected = picked(whole, index)
    assert_same_bits(ens[index], expected, weak=False)
    assert_same_bits(ens.leaf("w")[index], expected["w"], weak=False)


@pytest.mark.parametrize(
    "index", [slice(None), slice(3, 7), slice(-2, None), slice(8, 2, -3), slice(4, 4)], ids=repr
)
def test_members_by_slice(ens, whole, index):
    assert_same_bits(ens[index], picked(whole, range(SIZE)[index]), weak=False)


def test_what_it_is(ens, whole):
    assert len(ens) == ens.size == SIZE and ens.paths == ("b", "step", "w")
    assert ens.nbytes == sum(leaf.nbytes for leaf in jax.tree.leaves(whole))
    assert repr(ens) == "Lazy(small, 11 members of 84 bytes, 924 bytes in all)"
    types = {name: (one.shape, one.dtype) for name, one in ens.shapes.items()}
    assert types == {name: (leaf.shape[1:], leaf.dtype) for name, leaf in whole.items()}
    leaf = ens.leaf("['w']")
    assert (leaf.path, leaf.shape, leaf.dtype) == ("w", (SIZE, 7, 2), np.float32)
    assert repr(leaf) == "LazyLeaf(w, float32[11, 7, 2], 616 bytes)"
    assert isinstance(ens, sb.Lazy) and sys.getsizeof(ens) < 200


def test_in_order(ens, whole):
    assert_same_bits(jnp_stacked(list(ens)), whole, weak=False)
    for size, lengths in ((4, [4, 4, 3]), (SIZE, [SIZE]), (None, [SIZE])):
        chunks = list(ens.chunks(size))
        assert [len(chunk["b"]) for chunk in chunks] == lengths
        joined = jax.tree.map(lambda *parts: jnp.concatenate(parts), *chunks)
        assert_same_bits(joined, whole, weak=False)


def jnp_stacked(members):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)


def test_made_whole(ens, key):
    assert_same_bits(ens.materialise(), sb.ensemble(small, SIZE)(key))
    again = sb.ensemble(small, SIZE, donate=True)
    assert_same_bits(again.lazy(key).materialise(), ens.materialise())
    assert_same_bits(again.lazy(key)[3], ens[3])


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg", "legacy", "unpartitionable"])
def test_keys_of_every_kind(impl):
    with jax.threefry_partitionable(impl != "unpartitionable"):
        typed = jax.random.key(3, impl=impl if "rbg" in impl else None)
        key = jax.random.PRNGKey(3) if impl == "legacy" else typed
        make = sb.ensemble(small, SIZE)
        whole = make(key)
        for ens in (make.lazy(key), make.lazy(split(key, SIZE))):
            assert_same_bits(ens[-2], picked(whole, SIZE - 2), weak=False)
            assert_same_bits(ens.leaf("b")[2:5], whole["b"][2:5], weak=False)
            assert_same_bits(ens.map(lambda member: member, 4), whole, weak=False)
            part = ens.map(lambda member: member["w"], 2, members=slice(3, 8))
            assert_same_bits(part, whole["w"][3:8], weak=False)


def test_leaves_are_made_alone(key):
    ens = sb.ensemble(small, 2**40).lazy(key)
    if ens.plan.reference is None:
        assert len(ens.plan.draws) == 2
        assert [draw.shape for draw in ens.leaf("b").plan.draws] == [(6,)]
        assert ens.leaf("step").plan.draws == ()
    assert ens.leaf("b")[2**39].shape == (6,) and ens.leaf("b") is not ens.leaf("b")
    single = sb.ensemble(lambda key: jax.random.normal(key, (3,)), 4).lazy(key)
    assert single.paths == ("result",) and single.leaf("result").leaf("result")[1].shape == (3,)


# --- beyond 2**32 -----------------------------------------------------------------------


@pytest.mark.reference("newest")
def test_members_of_every_number(key):
    ens = sb.ensemble(words, HUGE).lazy(key)
    expected = cipher(key, EDGES)
    assert_same_bits(ens[EDGES], expected, weak=False)
    assert_same_bits(ens[np.array(EDGES, np.uint64)], expected, weak=False)
    for place, i in enumerate(EDGES):
        assert_same_bits(ens[i], picked(expected, place), weak=False)
        assert_same_bits(ens.leaf("b")[i - HUGE], expected["b"][place], weak=False)
    across = slice(2**32 - 3, 2**32 + 4)
    expected = cipher(key, range(HUGE)[across])
    assert_same_bits(ens[across], expected, weak=False)
    for chunk in (1, 3, 7):
        assert_same_bits(ens.map(lambda m: m, chunk, members=across), expected, weak=False)
        carry = ens.reduce(times_three_plus_b, jnp.zeros(5, "uint32"), chunk, members=across)
        assert_same_bits(carry, folded(expected["b"]), weak=False)
    assert_same_bits(next(ens.chunks(4)), cipher(key, range(4)), weak=False)
    assert_same_bits(next(iter(ens)), picked(cipher(key, [0]), 0), weak=False)
    assert ens.nbytes == HUGE * 32 and "9.0 PB" in repr(ens)


def times_three_plus_b(carry, member):
    return carry * np.uint32(3) + member["b"]


def folded(rows):
    carry = np.zeros(rows.shape[1], np.uint32)
    for row in rows:
        carry = times_three_plus_b(carry, {"b": row})
    return carry


def test_traced_numbers(key):
    ens = sb.ensemble(words, 2**31).lazy(key)
    assert_same_bits(jax.jit(lambda i: ens[i])(2**31 - 1), ens[-1])
    assert_same_bits(jax.jit(lambda i: ens[i])(np.array([5, -1])), ens[[5, 2**31 - 1]])
    assert_same_bits(jax.vmap(lambda i: ens.leaf("a")[i])(jnp.arange(3)), ens.leaf("a")[:3])
    ens = sb.ensemble(words, 2**33).lazy(key)
    for index in (np.uint32([2**32 - 1, 0]), np.int32(3), np.int8([1])):
        with pytest.raises(TypeError, match="`index` is traced and of dtype u?int32, .* wrap"):
            jax.jit(lambda i: ens[i])(index)
    with jax.enable_x64(True):
        index = np.array([2**32 - 1, 2**32, 0])
        assert_same_bits(jax.jit(lambda i: ens[i])(index), ens[index])


# --- what is taken ----------------------------------------------------------------------


def test_arguments_and_keys_of_members(key):
    scale, shift = np.linspace(1, 2, SIZE, dtype=np.float32), np.float32(3)
    make = sb.ensemble(sweep, SIZE, in_axes=(0, None))
    whole = make(key, scale, shift)
    for given in (key, split(key, SIZE)):
        ens = make.lazy(given, scale, shift)
        assert_same_bits(ens[[-1, 2]], whole[np.array([-1, 2])], weak=False)
        for count in (1, 4, SIZE):
            assert_same_bits(ens.map(lambda member: member, count), whole, weak=False)
        part = ens.map(lambda member: member, 2, members=slice(4, 9))
        assert_same_bits(part, whole[4:9], weak=False)
    both = sb.ensemble(lambda keys: (small(keys["p"]), small(keys["q"])), SIZE)
    keys = {"p": key, "q": split(jax.random.key(1), SIZE)}
    assert_same_bits(both.lazy(keys).map(lambda member: member, 3), both(keys), weak=False)


@pytest.mark.parametrize("kind", KINDS)
def test_on_a_mesh(kind, key):
    mesh = mesh_of(kind)
    make = sb.ensemble(small, SIZE, out_shardings=NamedSharding(mesh, P("x")), pad=True)
    ens, one = make.lazy(key), sb.ensemble(small, 12).lazy(key)
    assert_same_bits(ens[3], one[3], weak=False)
    assert_same_bits(ens.leaf("w").materialise(), one.leaf("w").materialise(), weak=False)
    assert len(ens.leaf("w")[:8].sharding.device_set) == 4
    assert_same_bits(ens[:8], one[:8], weak=False)


def test_copies(ens):
    for again in (pickle.loads(pickle.dumps(ens)), copy.deepcopy(ens), copy.copy(ens)):
        assert repr(again) == repr(ens) and again is not ens
        assert_same_bits(again[4], ens[4])
        assert_same_bits(copy.deepcopy(again.leaf("w"))[4], ens[4]["w"])
        assert_same_bits(again.map(lambda member: member["b"]), ens.map(lambda member: member["b"]))


def test_threads(ens, whole):
    found = [None] * 4

    def look(place):
        found[place] = ens.map(lambda member: member, 4), ens.leaf("w")[place], ens[place]

    threads = [threading.Thread(target=look, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, (all_of_them, leaf, one) in enumerate(found):
        assert_same_bits(all_of_them, whole, weak=False)
        assert_same_bits(leaf, whole["w"][place], weak=False)
        assert_same_bits(one, picked(whole, place), weak=False)


def test_under_settings(key, whole):
    make = sb.ensemble(small, SIZE)
    zero = jnp.int32(0)

    def look(key):
        ens = make.lazy(key)
        steps = ens.reduce(lambda carry, member: carry + member["step"], zero)
        return ens[3], ens.leaf("w")[3:5], ens.map(lambda m: m["b"]), next(iter(ens)), steps

    expected = look(key)
    assert_same_bits(expected[2], whole["b"], weak=False)
    with jax.transfer_guard("disallow"):
        assert_same_bits(look(key), expected)
    with jax.debug_nans(True):
        assert_same_bits(look(key), expected)
    with jax.debug_key_reuse(True):
        fresh = jax.random.key(20)
        for _ in range(2):
            assert_same_bits(look(fresh), expected)
            assert_same_bits(make.lazy(fresh).materialise(), make(jax.random.key(20)))
        make(fresh)
        assert_same_bits(look(fresh), expected)
    with jax.enable_x64(True):
        ens = make.lazy(key)
        assert_same_bits(ens.map(lambda member: member), make(key), weak=False)
    assert_same_bits(jax.jit(look)(key), expected)


# --- bad input --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (1.0, TypeError, r"`index` must be an integer; got 1\.0 of type float"),
        (True, TypeError, r"`index` must be an integer; got True of type bool"),
        (None, TypeError, r"`index` must be an integer; got None"),
        (np.float32(1), TypeError, r"`index` must be an integer; got .* of type float32"),
        (jnp.array(True), TypeError, r"`index` must be an integer"),
        (
            [True, False],
            TypeError,
            r"one-dimensional array of integers; got an array of dtype bool",
        ),
        ([0.5], TypeError, r"one-dimensional array of integers; got an array of dtype float64"),
        ([[1, 2]], TypeError, r"one-dimensional array of integers; got .* shape \(1, 2\)"),
        ((1, 2), TypeError, r"takes one index, of members; got the 2 of \(1, 2\)"),
        ("w", TypeError, r"indexed by members; got 'w'. The leaf of that name is leaf\('w'\)"),
        (SIZE, IndexError, r"`index` is 11, out of range for an ensemble of size=11"),
        (-SIZE - 1, IndexError, r"`index` is -12, out of range"),
        (2**70, IndexError, r"`index` is 1180591620717411303424, out of range"),
        ([0, SIZE], IndexError, r"`index` contains 11, out of range"),
        (jax.random.key(0), TypeError, r"`index` must be an integer; got a key"),
    ],
    ids=repr,
)
def test_wrong_numbers(ens, index, error, message):
    for form in (ens, ens.leaf("w")):
        with pytest.raises(error, match=message):
            form[index]


def test_wrong_names(ens):
    with pytest.raises(KeyError, match="`path` 'v' is no leaf; there are b, step, w"):
        ens.leaf("v")
    with pytest.raises(TypeError, match="`path` must be a string"):
        ens.leaf(0)


@pytest.mark.parametrize(
    ("chunk", "error", "message"),
    [
        (0, ValueError, "`chunk_size` must be at least 1 .* got 0"),
        (-3, ValueError, "`chunk_size` must be at least 1 .* got -3"),
        (SIZE + 1, ValueError, "`chunk_size` must be at most 11, the number of members; got 12"),
        (True, TypeError, "`chunk_size` must be a positive integer .* got True"),
        (2.0, TypeError, "`chunk_size` must be a positive integer .* got 2.0"),
    ],
)
def test_wrong_chunks(ens, chunk, error, message):
    for ask in (
        lambda: ens.chunks(chunk),
        lambda: ens.map(lambda member: member, chunk),
        lambda: ens.reduce(lambda carry, member: carry, 0, chunk),
    ):
        with pytest.raises(error, match=message):
            ask()


def test_what_is_wrong_is_said_at_once(key):
    with pytest.raises(TypeError, match="`key` must be one key"):
        sb.ensemble(small, 2**40).lazy(7)
    with pytest.raises(TypeError, match="`init` is called as"):
        sb.ensemble(small, 2**40).lazy(key, 1.0)
    ens = sb.ensemble(small, 2**40).lazy(key)
    with pytest.raises(MemoryError, match="1099511627776 members of 84 bytes"):
        ens.materialise()
    for part in (slice(None), slice(None, None, 2), slice(None, 2**39)):
        with pytest.raises(MemoryError, match=r"`index` is too large .* members of 84 bytes"):
            ens[part]
    with pytest.raises(TypeError, match="is no array; `materialise` makes it"):
        np.asarray(ens)
