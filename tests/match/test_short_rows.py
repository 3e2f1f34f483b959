"""Normals with an innermost dimension of 3, 4 or 5, which some XLA rounds by its own loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from seedbed._jax import ask_xla, known

# Rows are short by the newest jaxlib alone; on the oldest a part is enough.
pytestmark = pytest.mark.shared("newest")

KEY = jax.random.key(11)
SHAPES = [(3,), (4,), (5, 1), (2, 4, 5)]
INITS = {
    "normal": jax.random.normal,
    "scaled": lambda key, shape: 0.1 * jax.random.normal(key, shape),
    "shifted": lambda key, shape: 3 * jax.random.normal(key, shape) + 1,
    "truncated": lambda key, shape: jax.random.truncated_normal(key, -2.0, 2.0, shape),
    "he": lambda key, shape: jax.nn.initializers.he_normal()(key, (6, *shape)),
    "transposed": lambda key, shape: jax.random.normal(key, shape).T,
    "longer": lambda key, shape: jax.random.normal(key, shape)[..., None],
    "beside": lambda key, shape: (
        jax.random.normal(jax.random.fold_in(key, 1), shape),
        jax.random.normal(jax.random.fold_in(key, 2), (16, 8)),
    ),
}


def wrong(made, *oracles):
    """Elements whose bits are those of no oracle."""
    count = 0
    for leaf, *others in zip(*(jax.tree.leaves(one) for one in (made, *oracles)), strict=True):
        bits = np.asarray(leaf).view(np.int32)
        assert bits.shape == others[0].shape
        count += np.all(
            [bits != np.asarray(other).view(np.int32) for other in others], axis=0
        ).sum()
    return count


@pytest.mark.parametrize("name", INITS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_short_rows_of_an_ensemble(name, shape):
    def init(key):
        return INITS[name](key, shape)

    for members in (9, 257):
        keys = jax.random.split(KEY, members)
        made = sb.ensemble(init, members)(KEY)
        jitted = jax.jit(jax.vmap(init))(keys)
        if wrong(made, jitted):
            assert wrong(made, jitted, jax.vmap(init)(keys)) == 0


@pytest.mark.parametrize("shape", [(64, 3), (257, 5), (601, 3), (1000, 4), (258, 5, 1)], ids=str)
@pytest.mark.parametrize("name", ["normal", "truncated"])
def test_short_rows_of_the_ways_to_the_cipher(name, shape):
    def draw(key):
        return INITS[name](key, shape)

    def native(key):
        if name == "normal":
            return sb.random.normal(key, shape)
        return sb.random.truncated_normal(key, -2.0, 2.0, shape)

    oracles = jax.jit(draw)(KEY), draw(KEY)
    own = sb.prng.from_threefry(KEY)
    assert wrong(native(KEY), *oracles) == 0
    assert wrong(jax.jit(native)(KEY), *oracles) == 0
    assert wrong(draw(own), *oracles) == 0
    assert wrong(jax.jit(draw)(own), *oracles) == 0
    with sb.accelerate():
        assert wrong(jax.jit(lambda key: draw(key))(KEY), *oracles) == 0
    keys = jax.random.split(KEY, 3)
    batch = jax.jit(jax.vmap(draw))(keys), jax.vmap(draw)(keys)
    assert wrong(jax.jit(jax.vmap(native))(keys), *batch) == 0
    assert wrong(jax.jit(jax.vmap(draw))(sb.prng.from_threefry(keys)), *batch) == 0


def test_whether_rows_are_flat_is_shipped_for_this_release(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    if known.why_unknown():
        pytest.skip("no values are shipped for this release")
    assert known.flat_rows() == ask_xla.rows_as_flat()


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 1), (4,), (5,)], ids=str)
def test_short_rows_are_native_where_xla_makes_them_as_any_others(flat, shape, monkeypatch, native):
    monkeypatch.setattr(ask_xla, "flat_rows", lambda: flat)
    make = sb.ensemble(lambda key: jax.random.normal(key, shape), 3)
    (output,) = make.plan(KEY).outputs
    assert output.why.startswith("native" if flat else "XLA: mul of draw 0")


@pytest.mark.parametrize("shape", [(), (1,), (2,), (6,), (8, 16), (3, 8), (5, 7)], ids=str)
def test_other_rows_are_native_always(shape, monkeypatch, native):
    monkeypatch.setattr(ask_xla, "flat_rows", lambda: False)
    make = sb.ensemble(lambda key: jax.random.normal(key, shape), 3)
    assert make.plan(KEY).outputs[0].why == "native"


OF_WORD = [jax.random.exponential, jax.random.gumbel, jax.random.laplace]


@pytest.mark.parametrize("flat", [True, False, None])
@pytest.mark.parametrize("draw", OF_WORD)
def test_other_samplers_in_rows_of_2_to_8(draw, flat, monkeypatch, native):
    """None: an unknown release, which is not asked."""
    monkeypatch.setattr(known, "flat_rows", lambda: flat)
    shapes = [(8, 2), (5, 3, 1), (7,), (3, 8)]
    make = sb.ensemble(lambda key: [draw(key, shape) for shape in shapes], 3)
    whys = {output.why.partition(":")[0] for output in make.plan(KEY).outputs}
    assert whys == {"native" if flat else "XLA"}
    shapes = [(), (1,), (9,), (8, 9, 1), (36,)]
    make = sb.ensemble(lambda key: [draw(key, shape) for shape in shapes], 3)
    assert {output.why for output in make.plan(KEY).outputs} == {"native"}


def test_an_unknown_release_is_asked(monkeypatch):
    monkeypatch.setattr(known, "flat_rows", lambda: None)
    asked = []
    monkeypatch.setattr(ask_xla, "rows_as_flat", lambda: asked.append(1) or True)
    ask = ask_xla.flat_rows.__wrapped__
    assert ask() is True
    assert asked == [1]


def test_a_rounding_that_depends_on_the_row_is_noticed(monkeypatch):
    whole = ask_xla._asked

    def by_row(function, given):
        made = np.array(whole(function, given))
        if made.ndim == 2 and made.shape[1] == 4:
            made[-1, 0] = np.nextafter(made[-1, 0], np.float32(np.inf))
        return made

    monkeypatch.setattr(ask_xla, "_asked", by_row)
    assert ask_xla.rows_as_flat() is False


def test_words_of_short_rows_are_the_same_words():
    for shape in [(300, 3), (200, 8), (700, 1), (1000,)]:
        own = jax.jit(lambda key, shape=shape: jax.random.bits(key, shape))
        made = own(sb.prng.from_threefry(KEY))
        assert (made == jax.random.bits(KEY, shape)).all()
        assert made.dtype == jnp.uint32
