"""Programs on one key that show every use of the cipher, for keys and lowerings of any kind."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P

# Around the widths of vectors, of pairs of them, and of the blocks that loops are cut into.
EDGES = (0, 1, 7, 8, 15, 16, 17, 31, 33, 63, 65, 127, 1023, 2049)


def words(dtype):
    def draw(key):
        return [jax.random.bits(key, (n,), dtype) for n in EDGES]

    return draw


def shapes(key):
    sizes = [(), (1, 1), (3, 0, 2), (2, 3, 5)]
    keys = jax.random.split(key, len(sizes))
    return [jax.random.bits(k, size, "uint16") for k, size in zip(keys, sizes, strict=True)]


def splits(key):
    sizes = [(), 0, 1, (2, 3), 17, (3, 0), 64]
    return [jax.random.split(jax.random.fold_in(key, i), n) for i, n in enumerate(sizes)]


def folds(key):
    data = jnp.array([0, 1, 2**31, 2**32 - 1], jnp.uint32)
    keys = jax.random.split(key, 4)
    over = jax.vmap(jax.random.fold_in)(keys, data)
    one = jax.vmap(jax.random.fold_in, (None, 0))(key, data)
    each = jax.vmap(jax.random.fold_in, (0, None))(keys, 5)
    table = jax.vmap(jax.vmap(jax.random.fold_in, (None, 0)), (0, None))(keys, data)
    return (
        over,
        one,
        each,
        table,
        jax.random.fold_in(key, 2**32 - 3),
        jax.random.fold_in(key, data[2]),
    )


def vmaps(key):
    keys = jax.random.split(key, (2, 3))
    draw = functools.partial(jax.random.bits, shape=(4,), dtype="uint8")
    none = keys[:, :0]
    inner_last = jax.vmap(jax.vmap(lambda k: jax.random.split(k, 2), 0, 1), 1)(keys)
    return (
        jax.vmap(jax.vmap(draw))(keys),
        jax.vmap(jax.vmap(draw, 0, 1), 1, 2)(keys),
        (jax.vmap(jax.vmap(draw))(none), inner_last),
    )


def loops(key):
    def step(carry, _):
        carry, sub = jax.random.split(carry)
        return carry, jax.random.bits(sub, (3,))

    last, rows = lax.scan(step, key, length=4)
    walked = lax.while_loop(
        lambda s: s[1] < 3, lambda s: (jax.random.fold_in(s[0], s[1]), s[1] + 1), (key, 0)
    )
    mapped = lax.map(lambda k: jax.random.uniform(k, (2,)), jax.random.split(key, 3))
    return last, rows, walked, mapped


def branches(key):
    flag = jax.random.bits(key) % 2 == 0
    one = lax.cond(flag, lambda k: jax.random.bits(k, (5,)), lambda k: jnp.zeros(5, "uint32"), key)
    two = lax.switch(
        jax.random.randint(key, (), 0, 3),
        [lambda k, i=i: jax.random.bits(jax.random.fold_in(k, i)) for i in range(3)],
        key,
    )
    return one, two


def gradient(key):
    @jax.checkpoint
    def loss(x):
        return (jnp.sin(x) * jax.random.normal(key, x.shape)).sum()

    x = jax.random.uniform(jax.random.fold_in(key, 1), (6,))
    return jax.grad(loss)(x), jax.jvp(loss, (x,), (jnp.ones_like(x),))[1]


def samplers(key):
    k = jax.random.split(key, 4)
    return (
        jax.random.normal(k[0], (33,)),
        jax.random.gamma(k[1], jnp.array([0.5, 2.0])),
        jax.random.categorical(k[2], jnp.arange(5.0)),
        jax.random.permutation(k[3], 9),
    )


def sharded(key):
    mesh = jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))

    def part(keys):
        mine = jax.random.fold_in(keys[0], lax.axis_index("d"))
        return jax.random.bits(mine, (1, 5)), jax.random.split(keys[1], (1, 2))

    return jax.shard_map(part, mesh=mesh, in_specs=P("d"), out_specs=P("d"))(
        jax.random.split(key, 8)
    )


PROGRAMS = {
    **{dtype: words(dtype) for dtype in ("uint8", "uint16", "uint32", "uint64")},
    **{f.__name__: f for f in (shapes, splits, folds, vmaps, loops, branches, gradient, samplers)},
    "sharded": sharded,
}


@functools.cache
def expected(name: str):
    """What the program gives for the threefry key of seed 42, as jax compiles it."""
    key = jax.random.key(42)
    with jax.enable_x64(name == "uint64"):
        if not name.startswith("uint"):
            return jax.jit(PROGRAMS[name])(key)
        # Fewer words of a key are the first of more; that spares jax a compilation for each.
        longest = jax.random.bits(key, (max(EDGES),), name)
        return [longest[:n] for n in EDGES]
