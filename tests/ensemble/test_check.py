"""Bad input: each a clear error that names the argument, what came and what is accepted."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import assert_same_bits, oracle, split

normal = jax.random.normal


class Init:
    """An init function that knows whether it was called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, key, *args):
        self.calls += 1
        return normal(key, (6,))


@pytest.fixture
def init():
    return Init()


def fresh_init(key):
    return normal(key, (6,))


# --- size -------------------------------------------------------------------------------


# Rows 1, 3 and 4: bool, None, floats, strings and arrays.
@pytest.mark.parametrize(
    "size",
    [True, False, np.True_, None, 1.0, 2.5, "2", np.float32(2), [3], jnp.int32(2), np.array(2)],
    ids=repr,
)
def test_size_must_be_an_integer(init, size):
    with pytest.raises(TypeError, match="`size` must be a positive integer") as error:
        sb.ensemble(init, size)
    assert repr(size) in str(error.value) and type(size).__name__ in str(error.value)


# Rows 2 and 6: nothing, less than nothing, and more than any memory.
@pytest.mark.parametrize("size", [0, -1, -(2**40), 2**48, 2**63, 2**64, np.int64(-2)])
def test_size_must_be_possible(init, size):
    with pytest.raises(ValueError, match=rf"`size` must be at least 1.*got {size}"):
        sb.ensemble(init, size)


@pytest.mark.parametrize("size", [np.int64(2), np.uint8(2), 2])
def test_size_may_be_a_numpy_integer(key, size):
    # Row 4.
    assert sb.ensemble(fresh_init, size)(key).shape == (2, 6)


def test_size_is_static():
    # Row 5.
    def outer(size):
        return sb.ensemble(fresh_init, size)(jax.random.key(0))

    with pytest.raises(TypeError, match="`size` must be known when the program is traced"):
        jax.jit(outer)(3)


@pytest.mark.parametrize("bad", [None, 3, "init", fresh_init(jax.random.key(0))], ids=type)
def test_init_must_be_callable(bad):
    with pytest.raises(TypeError, match="`init` must be a function"):
        sb.ensemble(bad, 3)


# --- memory -----------------------------------------------------------------------------


def test_more_than_this_machine_has(key):
    # Rows 6 and 8: refused with the bytes asked for and the leaves, before anything is made.
    make = sb.ensemble(lambda key: {"big": normal(key, (2**19, 8)), "small": key}, 2**26)
    with pytest.raises(
        MemoryError, match=r"`size` is too large.*1,125,900,\d+,\d+,\d+ bytes"
    ) as error:
        make(key)
    assert "['big'] (67108864, 524288, 8) float32" in str(error.value)
    assert make.member(key, 2**26 - 1)["big"].shape == (2**19, 8)


def test_more_than_can_be_counted(key):
    # Row 10.
    make = sb.ensemble(lambda key: normal(key, (2**30,)), 2**40)
    with pytest.raises(OverflowError, match="`size` is too large"):
        make(key)
    assert make.members(key, slice(0, 0)).shape == (0, 2**30)


def test_bits_of_more_than_jax_survives(key):
    # Row 8: jax itself dies of this one.
    make = sb.ensemble(lambda key: jax.random.bits(key, (2**36,)), 3)
    with pytest.raises(MemoryError, match="bytes are free"):
        make(key)


def test_nothing_is_left_behind_by_a_refusal(key):
    # Row 7.
    make = sb.ensemble(lambda key: normal(key, (2**30,)), 2**20)
    before = np.asarray(jax.random.key_data(key)).copy()
    for _ in range(2):
        with pytest.raises(MemoryError):
            make(key)
    assert (np.asarray(jax.random.key_data(key)) == before).all()
    assert_same_bits(sb.ensemble(fresh_init, 3)(key), oracle(fresh_init, 3, key))


# --- keys -------------------------------------------------------------------------------


# Row 22, and what else is no key.
NO_KEYS = {
    "none": None,
    "seed": 0,
    "list": [0, 1],
    "empty": {},
    "string": "key",
    "int32": np.zeros(2, np.int32),
    "float": jnp.zeros(2),
    "three words": np.zeros(3, np.uint32),
    "one word": np.zeros((), np.uint32),
    "no words": np.zeros(0, np.uint32),
    "wide words": np.zeros(2, np.uint64),
    "transposed": np.zeros((2, 5), np.uint32),
}


@pytest.mark.parametrize("name", NO_KEYS)
@pytest.mark.parametrize("method", ["__call__", "plan", "member", "members", "stream"])
def test_what_is_not_a_key(init, name, method):
    make = sb.ensemble(init, 5)
    extra = {"member": (0,), "members": (slice(2),)}.get(method, ())
    options = {"chunk_size": 2} if method == "stream" else {}
    with pytest.raises(TypeError, match=r"`key(\[0\])?` must be one key .*size=5 keys; got"):
        getattr(make, method)(NO_KEYS[name], *extra, **options)
    assert init.calls == 0


def test_key_and_index_swapped(init, key):
    make = sb.ensemble(init, 5)
    with pytest.raises(TypeError, match="`i` must be an integer; got a key .the key comes first"):
        make.member(3, key)
    with pytest.raises(TypeError, match="`index` must be a slice .* got keys .they come first"):
        make.members([0, 1], jax.random.split(key, 5))


@pytest.mark.parametrize("count", [1, 4, 6, 0])
def test_a_stack_of_keys_of_another_length(init, key, count):
    # Row 23.
    make = sb.ensemble(init, 5)
    for keys in (split(key, count), jax.random.key_data(split(key, count))):
        with pytest.raises(ValueError, match=rf"`key` must be .*; got keys of shape \({count},\)"):
            make(keys)
    with pytest.raises(ValueError, match=r"got keys of shape \(5, 2\)"):
        make(jax.random.split(key, (5, 2)))
    assert init.calls == 0


def test_two_keys_are_not_one_legacy_key(init, key):
    # Row 23: uint32[2, 2] is two keys.
    with pytest.raises(ValueError, match=r"got keys of shape \(2,\)"):
        sb.ensemble(init, 3)(jax.random.key_data(split(key, 2)))


def test_a_deleted_key():
    # Row 24.
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        make = sb.ensemble(fresh_init, 3)
        make(key)
        key.delete()
        with pytest.raises(RuntimeError, match="deleted"):
            make(key)


def test_legacy_keys_refused_by_setting(key):
    # Row 21: jax decides, when init uses the key.
    with jax.legacy_prng_key("error"):
        with pytest.raises(ValueError, match="[Ll]egacy"):
            sb.ensemble(fresh_init, 3)(jax.random.key_data(key))


def test_a_legacy_key_under_another_default(init):
    # Its words are right for jax's own default, so the message names the setting.
    setting = r"uint32 with a last axis of 4 under jax_default_prng_impl='rbg'$"
    words = jax.random.PRNGKey(0)
    with jax.default_prng_impl("rbg"):
        with pytest.raises(TypeError, match=rf"`key` must be one key .* shape \(2,\), .*{setting}"):
            sb.ensemble(init, 5)(words)
        with pytest.raises(TypeError, match=rf"`key\['a'\]` must be one key .*{setting}"):
            sb.ensemble(init, 5).member({"a": words}, 0)
        with pytest.raises(TypeError, match=rf"`key` must be one key .*{setting}"):
            sb.random.stream(words)
        with pytest.raises(TypeError, match=rf"`n` must be one key .*{setting}"):
            sb.random.seed(words)
        state = sb.random.StreamState(np.zeros(2, np.uint32), None, 0)
        with pytest.raises(ValueError, match=r"of shape \(4,\) under jax_default.*'rbg'; got .2,."):
            sb.random.set_state(state)
    with pytest.raises(TypeError, match=r"with a last axis of 2$"):
        sb.ensemble(init, 5)(np.zeros(4, np.uint32))
    assert init.calls == 0


# --- members ----------------------------------------------------------------------------


@pytest.mark.parametrize("i", [5, -6, 2**40, 2**70, np.int64(5), jnp.int32(7)], ids=str)
def test_member_out_of_range(init, key, i):
    with pytest.raises(IndexError, match=rf"`i` is {int(i)}, out of range .*size=5"):
        sb.ensemble(init, 5).member(key, i)
    assert init.calls == 0


@pytest.mark.parametrize("i", [True, 1.0, "1", None, slice(1), [1], jnp.float32(1), jnp.arange(2)])
def test_member_must_be_an_integer(init, key, i):
    with pytest.raises(TypeError, match="`i` must be an integer"):
        sb.ensemble(init, 5).member(key, i)
    assert init.calls == 0


@pytest.mark.parametrize(
    "index", [[5], [0, -6], np.array([1, 9]), jnp.array([-7]), [2**40], [2**64 - 1]], ids=str
)
def test_members_out_of_range(init, key, index):
    with pytest.raises(IndexError, match="`index` contains .*size=5"):
        sb.ensemble(init, 5).members(key, index)
    assert init.calls == 0


@pytest.mark.parametrize(
    "index",
    [1, None, "01", 1.0, [0.0], [True, False], [[1]], np.zeros((1, 1), int), {1}, jnp.arange(2.0)],
    ids=str,
)
def test_members_must_be_integers(init, key, index):
    with pytest.raises(TypeError, match="`index` must be a slice or a one-dimensional array"):
        sb.ensemble(init, 5).members(key, index)
    assert init.calls == 0


def test_chunk_size(init, key):
    make = sb.ensemble(init, 5)
    for bad, error in ((0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError)):
        with pytest.raises(error, match="`chunk_size` must be"):
            make.stream(key, chunk_size=bad)
    assert init.calls == 0


# --- arguments --------------------------------------------------------------------------


def test_in_axes_with_the_wrong_number_of_entries(init, key):
    with pytest.raises(ValueError, match="`in_axes` has 1 entries for 2 arguments after the key"):
        sb.ensemble(init, 3, in_axes=(0,))(key, jnp.zeros(3), jnp.zeros(3))
    assert init.calls == 0


@pytest.mark.parametrize("axis", [True, 0.0, "0"])
def test_in_axes_of_another_type(init, key, axis):
    with pytest.raises(TypeError, match="`in_axes` must consist of integers and None"):
        sb.ensemble(init, 3, in_axes=(axis,))(key, jnp.zeros(3))
    assert init.calls == 0


def test_in_axes_that_do_not_fit(init, key):
    with pytest.raises(ValueError, match=r"`in_axes` maps axis 1 of args\[0\], which has shape"):
        sb.ensemble(init, 3, in_axes=1)(key, jnp.zeros(3))
    with pytest.raises(ValueError, match=r"maps axis 0 of args\[0\]\['w'\], of length 4, over siz"):
        sb.ensemble(init, 3, in_axes=0)(key, {"w": jnp.zeros(4)})
    with pytest.raises(ValueError, match="`in_axes` maps axis 0 .*shape"):
        sb.ensemble(init, 3, in_axes=0)(key, 1.0)
    with pytest.raises(ValueError, match="`in_axes` must be None, an integer, or a tuple whose"):
        sb.ensemble(init, 3, in_axes=({"other": 0},))(key, {"w": jnp.zeros(3)})
    assert init.calls == 0


@pytest.mark.parametrize("bad", ["relu", object(), print, b"bytes"], ids=type)
def test_arguments_must_be_arrays(init, key, bad):
    with pytest.raises(TypeError, match=r"arguments of `init` must be arrays .*args\[0\]\['x'\]"):
        sb.ensemble(init, 3)(key, {"x": bad})
    assert init.calls == 0


def test_the_wrong_number_of_arguments(key):
    with pytest.raises(TypeError, match=r"`init` is called .* here with 1 argument\(s\) after the"):
        sb.ensemble(lambda key: normal(key, (3,)), 3)(key, 1.0)
    with pytest.raises(TypeError, match="here with 0 argument.*missing a required argument: 'sc"):
        sb.ensemble(lambda key, scale: normal(key, (3,)), 3)(key)


# --- traced indices ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "size"),
    [
        (np.array([2**32, 2**32 + 1], np.uint64), 2**33),  # becomes [0, 1]
        (np.array([2**32 - 1, 2**32]), 2**33),
        (np.array([5], np.uint32), 2**32 + 1),
        (np.array([2**31]), 2**31 + 1),  # becomes [-2**31]
        (np.array([1], np.int8), 2**31 + 1),
    ],
    ids=str,
)
def test_traced_indices_that_wrap(key, index, size):
    # Where a compiled function begins, jax keeps the low 32 bits, and what was lost is not seen.
    make = sb.ensemble(fresh_init, size)
    message = rf"`{{}}` is traced and of dtype u?int32, .* size={size} members wrap.*jax.enable_x64"
    with pytest.raises(TypeError, match=message.format("index")):
        jax.jit(make.members)(key, index)
    with pytest.raises(TypeError, match=message.format("i")):
        jax.jit(make.member)(key, index[-1])


def test_traced_indices_beyond_32_bits(key):
    # The way out, and the last that 32 bits hold.
    def words(key):
        return jax.random.bits(key, (2,), "uint32")

    def two(start):
        return make.members(key, start + jnp.arange(2, dtype=start.dtype))

    make = sb.ensemble(words, 2**33)
    for kind in (np.int64, np.uint64):
        index = np.array([2**32 - 1, 2**32, 2**32 + 1, 0], kind)
        expected = make.members(key, index)
        with jax.enable_x64(True):
            assert_same_bits(jax.jit(make.members)(key, index), expected)
            assert_same_bits(jax.jit(make.member)(key, index[2]), make.member(key, 2**32 + 1))
            assert_same_bits(jax.jit(two)(index[0]), expected[:2])
    make = sb.ensemble(words, 2**32)
    index = np.array([2**32 - 1, 2**31, 0], np.uint32)
    assert_same_bits(jax.jit(make.members)(key, index), expected_of(make, key, index))
    make = sb.ensemble(words, 2**31)
    index = np.array([2**31 - 1, -1, -(2**31)], np.int32)
    assert_same_bits(jax.jit(make.members)(key, index), expected_of(make, key, index))


def expected_of(make, key, index):
    return jnp.stack([make.member(key, int(i)) for i in index])


# --- after an error ---------------------------------------------------------------------


def test_after_an_error_everything_still_works(key):
    failing = [True]

    def init(key):
        if failing:
            raise RuntimeError("not yet")
        return normal(key, (6,))

    make = sb.ensemble(init, 3)
    with pytest.raises(RuntimeError, match="not yet"):
        make(key)
    failing.clear()
    assert_same_bits(make(key), oracle(fresh_init, 3, key))


def test_every_message_says_what_is_accepted():
    with pytest.raises(TypeError) as error:
        sb.ensemble(fresh_init, 3)(0)
    assert re.search(r"jax\.random\.key\(0\).*got 0 of type int", str(error.value))
