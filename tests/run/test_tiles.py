"""Blocks of draws: each has the bits that the whole has there, and one program makes them all."""

import functools
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import plan_reference as ref
from helpers import assert_same_bits
from meshes import mesh_of
from seedbed._plan import (
    Draw,
    KeyMode,
    KeyPath,
    Kind,
    Level,
    can_tile,
    float_params,
    key_path,
    make_draw,
    node,
    params,
    rows_of,
)
from seedbed._run import fill, portable

pytestmark = [pytest.mark.shared, pytest.mark.usefixtures("native")]

SIZE = 3
LEVELS = (Level(5, (2, 0)), Level(2**40, (2**33, -1)))
BATCHED = key_path((3, 2), node(1), LEVELS)
BELOW = float(np.nextafter(np.float32(-1), np.float32(0)))
NORMAL = {"span": 2.0, "low": BELOW, "factor": 2**0.5}
UNIT = {"span": 1.0, "low": 0.0}


def drawn(kind, path=BATCHED, shape=(3, 2, 4, 6)):
    """Draws of a kind, in each form."""
    bits32, bits64 = functools.partial(float_params, kind, 32), functools.partial(params, kind)
    if kind is Kind.KEY:
        return [Draw(kind, path, 1, 32, "uint32", (*path.batch, 2))]
    if kind is Kind.BITS:
        return [make_draw(kind, path, n, f"uint{n}", shape) for n in (8, 16, 32, 64)]
    if kind is Kind.TABLE:
        table = np.arange(128, dtype=np.uint16).tobytes()
        return [make_draw(kind, path, 8, "float16", shape, (1,)).replace(table=table)]
    if kind is Kind.CONSTANT:
        return [make_draw(kind, path, 16, "uint16", shape, (40007,))]
    if kind is Kind.RANDINT:
        given = bits64(span=1000, multiplier=296, first=5)
        return [make_draw(kind, path, n, f"int{n}", shape, given) for n in (32, 64)]
    if kind in (Kind.UNIFORM, Kind.NORMAL, Kind.BERNOULLI):
        over = NORMAL if kind is Kind.NORMAL else UNIT
        over = over | {"p": 0.3} if kind is Kind.BERNOULLI else over
        dtypes = ("bool", "bool") if kind is Kind.BERNOULLI else ("float32", "float64")
        return [
            make_draw(kind, path, n, dtype, shape, float_params(kind, n, **over))
            for n, dtype in zip((32, 64), dtypes, strict=True)
        ]
    return [make_draw(kind, path, 32, "float32", shape, bits32())]


def operands(mode, size=SIZE):
    """Keys and members as a mode reads them."""
    keys = np.random.default_rng(3).integers(0, 2**32, (size, 2), np.uint32)
    members = {
        KeyMode.RANGE: np.array([0, 2**32 - 2], np.uint32),
        KeyMode.INDICES: keys[::-1] % np.uint32(1000),
    }
    return keys if mode == KeyMode.MEMBER_KEYS else keys[0], members.get(mode)


def blocks_of(draw, tile):
    return list(itertools.product(*map(range, rows_of(draw, tile).blocks)))


def taken(whole, tile, numbers, lead=1):
    """The block of an array whose first dimensions are not cut."""
    cuts = (slice(n * one, (n + 1) * one) for n, one in zip(numbers, tile, strict=True))
    return np.asarray(whole)[(slice(None),) * lead + tuple(cuts)]


def words(*numbers):
    return jnp.array([*itertools.chain(*numbers)], jnp.uint32)


@pytest.mark.parametrize("tile", [(3, 2, 4, 2), (3, 1, 2, 6), (1, 2, 1, 3), (3, 2, 4, 6)], ids=str)
@pytest.mark.parametrize("kind", Kind, ids=lambda kind: kind.name.lower())
def test_every_kind(kind, tile):
    with jax.enable_x64(True):
        draws = tuple(drawn(kind))
        if kind is Kind.KEY:
            tile = (*tile[:2], 2)
        mode = KeyMode(kind % 4)
        keys, members = operands(mode)
        whole = jax.jit(lambda: fill.call(draws, mode, SIZE, keys, members))()
        made = jax.jit(
            lambda numbers: fill.call(
                draws, mode, SIZE, keys, members, (tile,) * len(draws), numbers
            )
        )
        for numbers in blocks_of(draws[0], tile):
            got = made(words(*(numbers,) * len(draws)))
            assert_same_bits(got, [jnp.array(taken(one, tile, numbers)) for one in whole])
        assert made._cache_size() == 1


@pytest.mark.parametrize("mode", KeyMode, ids=lambda mode: mode.name.lower())
def test_whole_draws_beside_blocks(mode):
    draws = (drawn(Kind.NORMAL)[0], drawn(Kind.KEY)[0], drawn(Kind.BITS)[2])
    tiles = ((3, 2, 4, 2), None, (1, 2, 4, 3))
    keys, members = operands(mode)
    whole = fill.call(draws, mode, SIZE, keys, members)
    got = fill.call(draws, mode, SIZE, keys, members, tiles, words((0, 0, 0, 2), (1, 0, 0, 1)))
    cut = [taken(whole[0], tiles[0], (0, 0, 0, 2)), taken(whole[2], tiles[2], (1, 0, 0, 1))]
    assert_same_bits(got, [jnp.array(cut[0]), whole[1], jnp.array(cut[1])])


@st.composite
def cut_draws(draw):
    """A draw, of which a reshape may have merged dimensions or split them, and a tile."""
    batch = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 6]), max_size=2)))
    inner = tuple(draw(st.lists(st.sampled_from([1, 2, 3, 4, 5, 8, 17, 24]), max_size=3)))
    strides = st.sampled_from([0, 1, 3, 2**35, -1])
    levels = [
        Level(draw(st.integers(0, 2**64 - 1)), tuple(draw(strides) for _ in batch))
        for _ in range(draw(st.integers(0, 2)))
    ]
    path, shape = key_path(batch, node(1), levels), (*batch, *inner)
    if len(shape) > 1 and draw(st.booleans()):
        at = draw(st.integers(0, len(shape) - 2))
        shape = (*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :])
    kind = draw(st.sampled_from([Kind.KEY, Kind.BITS, Kind.RANDINT, Kind.NORMAL]))
    form = draw(st.integers(0, 2)) if kind is Kind.BITS else 0
    made = drawn(kind, path, shape)[form]
    tile = [draw(st.sampled_from([d for d in range(1, n + 1) if n % d == 0])) for n in made.shape]
    return made, tuple(tile)


@hypothesis.settings(max_examples=60)
@hypothesis.given(cut_draws(), st.sampled_from(KeyMode), st.randoms())
def test_random_draws(cut, mode, random):
    draw, tile = cut
    hypothesis.assume(can_tile(draw, tile))
    keys, members = operands(mode)
    (whole,) = jax.jit(lambda: fill.call((draw,), mode, SIZE, keys, members))()
    make = jax.jit(lambda numbers: fill.call((draw,), mode, SIZE, keys, members, (tile,), numbers))
    for numbers in random.sample(blocks := blocks_of(draw, tile), min(len(blocks), 5)):
        assert_same_bits(make(words(numbers)), [jnp.array(taken(whole, tile, numbers))])


@hypothesis.settings(max_examples=10)
@hypothesis.given(cut_draws(), st.sampled_from(KeyMode), st.randoms())
def test_in_jaxs_own_operations(cut, mode, random):
    draw, tile = cut
    hypothesis.assume(can_tile(draw, tile))
    keys, members = operands(mode)
    members = keys if members is None else members
    options = {"draws": (draw,), "mode": mode, "size": SIZE, "tiles": (tile,)}
    make = jax.jit(lambda numbers: portable.fill(keys, members, numbers, **options))
    for numbers in random.sample(blocks := blocks_of(draw, tile), min(len(blocks), 3)):
        want = fill.call((draw,), mode, SIZE, keys, members, (tile,), words(numbers))
        assert_same_bits(make(words(numbers)), want, ulps=3 * (draw.kind is Kind.NORMAL))


FAR = [
    ((2**20, 2**13), (4, 2**10), (2**18 - 1, 5)),
    ((2**16, 3, 2**16), (8, 1, 2), (2**13 - 1, 2, 9)),
    ((2**33,), (2**5,), (2**28 - 1,)),
]


@pytest.mark.parametrize(("shape", "tile", "numbers"), FAR, ids=str)
def test_counters_of_more_than_32_bits(shape, tile, numbers):
    """Of draws that no memory holds."""
    draw = drawn(Kind.BITS, KeyPath(), shape)[2]
    key = np.array([[5, 7]], np.uint32)
    places = [n * one + np.arange(one) for n, one in zip(numbers, tile, strict=True)]
    flat = np.ravel_multi_index(np.meshgrid(*places, indexing="ij"), shape).astype(np.uint64)
    assert flat.max() >> np.uint64(32)
    one, two = ref.threefry(*key[0], flat >> np.uint64(32), flat & np.uint64(0xFFFFFFFF))
    want = [jnp.array(one ^ two)[None]]
    options = (KeyMode.MEMBER_KEYS, 1, key, None, (tile,), words(numbers))
    assert_same_bits(fill.call((draw,), *options), want)
    got = jax.jit(functools.partial(portable.fill, draws=(draw,), mode=0, size=1, tiles=(tile,)))(
        key, key, words(numbers)
    )
    assert_same_bits(got, want)


# --- transformations ----------------------------------------------------------------------

CUT = (drawn(Kind.NORMAL)[0], drawn(Kind.KEY)[0])
TILES = ((3, 1, 4, 3), (1, 2, 2))
ALL_BLOCKS = [(*one, *other) for one in blocks_of(CUT[0], TILES[0]) for other in [(2, 0, 0)]]


def block(keys, numbers, mode=KeyMode.ALL):
    return fill.call(CUT, mode, SIZE, keys, None, TILES, numbers)


def test_batches():
    keys = jnp.array(operands(KeyMode.MEMBER_KEYS, 4)[0])
    numbers = jnp.array(ALL_BLOCKS, jnp.uint32)
    for many in (keys, jnp.stack([keys, keys + 1])):
        vmapped = functools.reduce(lambda f, _: jax.vmap(f, (0, None)), many.shape[1:], block)
        got = jax.jit(vmapped)(many, numbers[3])
        for at in np.ndindex(*many.shape[:-1]):
            assert_same_bits([leaf[at] for leaf in got], block(many[at], numbers[3]))
    both = jax.jit(jax.vmap(block))(keys, numbers)
    apart = jax.jit(jax.vmap(block, (None, 0)))(keys[0], numbers)
    for i in range(4):
        assert_same_bits([leaf[i] for leaf in both], block(keys[i], numbers[i]))
        assert_same_bits([leaf[i] for leaf in apart], block(keys[0], numbers[i]))


@pytest.mark.parametrize("kind", ["Auto", "Explicit"])
def test_in_shard_map(kind):
    """Each device makes its block, by its place in the mesh: no program knows which."""
    draw, tile = drawn(Kind.NORMAL)[0], (3, 1, 2, 6)
    mesh = mesh_of(kind, (2, 2), ("x", "y"))

    def local(key):
        along = [jax.lax.axis_index(name).astype(jnp.uint32) for name in ("x", "y")]
        numbers = jnp.stack([jnp.uint32(0), *along, jnp.uint32(0)])
        return fill.call((draw,), KeyMode.ALL, SIZE, key, None, (tile,), numbers)

    key = jnp.array(operands(KeyMode.ALL)[0])
    out = P(None, None, "x", "y", None)
    made = jax.jit(jax.shard_map(local, mesh=mesh, in_specs=P(), out_specs=[out]))
    (got,) = made(key)
    (want,) = fill.call((draw,), KeyMode.ALL, SIZE, key)
    assert_same_bits(jnp.array(np.asarray(got)), want)
    assert "all-" not in made.lower(key).compile().as_text()


def test_exported_programs_need_no_extension():
    keys, numbers = jnp.array(operands(KeyMode.ALL)[0]), jnp.array(ALL_BLOCKS[3], jnp.uint32)
    made = jax.export.export(jax.jit(block))(keys, numbers)
    assert "custom_call" not in made.mlir_module()
    got = made.call(keys, numbers)
    assert_same_bits(got, block(keys, numbers), ulps=3)


# --- what can be cut, and what is refused -------------------------------------------------


def test_rows_are_as_long_as_can_be():
    weights = drawn(Kind.BITS, KeyPath(), (6, 4, 10))[2]
    assert rows_of(weights, (3, 4, 10)).inner == 120
    assert rows_of(weights, (3, 2, 10)).dims == (3,)
    cut = rows_of(weights, (6, 4, 5))
    assert (cut.dims, cut.counters, cut.inner) == ((24,), (10,), 5)
    stacked = drawn(Kind.BITS, key_path((6,), node(1), [Level(0, (1,))]), (6, 4, 10))[2]
    cut = rows_of(stacked, (3, 4, 5))
    assert (cut.dims, cut.counters, cut.levels) == ((3, 4), (0, 10), (Level(0, (1, 0)),))


def test_what_cannot_be_cut():
    stacked = key_path((6,), node(1), [Level(0, (1,))])
    merged = drawn(Kind.BITS, stacked, (24,))[2]  # rows of 4
    for tile, good in [(24, 1), (12, 1), (8, 1), (4, 1), (2, 1), (6, 0), (3, 0), (5, 0), (0, 0)]:
        assert can_tile(merged, (tile,)) is bool(good), tile
    keys = drawn(Kind.KEY, stacked)[0]
    assert can_tile(keys, (3, 2)) and not can_tile(keys, (3, 1))
    assert not can_tile(merged, (4, 1)) and not can_tile(merged, (-4,))
    assert can_tile(merged.replace(shape=(0, 8), inner=0), (0, 4))


def test_errors():
    draw, key = drawn(Kind.BITS)[2], jnp.array(operands(KeyMode.ALL)[0])
    call = functools.partial(fill.call, (draw,), KeyMode.ALL, SIZE, key, None)
    with pytest.raises(ValueError, match=r"of shape \(3, 2, 4, 6\), has no blocks of shape \(2, "):
        call(((2, 2, 4, 6),), words((0, 0, 0, 0)))
    for numbers in (None, words((0, 0, 0)), jnp.zeros(4, jnp.int32), jnp.zeros((1, 4), jnp.uint32)):
        with pytest.raises(ValueError, match=r"blocks must be uint32\[4\], a number a dimension"):
            call(((3, 2, 4, 2),), numbers)
    with pytest.raises(jax.errors.JaxRuntimeError, match=r"blocks\[3\] must be below 3, got 3"):
        jax.block_until_ready(call(((3, 2, 4, 2),), words((0, 0, 0, 3))))
    assert_same_bits(call((None,), None), call())
