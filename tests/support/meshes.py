"""What the tests of sharding share: meshes, arrays on them, and comparison with jax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from helpers import as_words, assert_same_bits, native_problem

SIZE = 4
KEY = jax.random.key(7)
KINDS = ["Explicit", "Auto"]


def mesh_of(kind="Explicit", shape=(4,), names=("x",)):
    return jax.make_mesh(shape, names, axis_types=(getattr(AxisType, kind),) * len(shape))


def put(array, mesh, *spec):
    return jax.device_put(array, NamedSharding(mesh, P(*spec)))


def scaled(key, scale=1.0):
    return scale * jax.random.normal(key, (8,)), jax.random.bits(key, (3,)), jnp.ones(5)


def whole(tree):
    """The arrays on one device, keys as their words."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(np.asarray(as_words(leaf)).view(_plain(leaf))), tree
    )


def _plain(leaf):
    return np.uint32 if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf.dtype


def assert_as_jax(got, jaxs, alone, places=True):
    """Equal to one of jax's two results, and laid out as the first."""
    assert_same_bits(whole(got), whole(jaxs), either=whole(alone), weak=False)
    if places:
        for one, other in zip(jax.tree.leaves(got), jax.tree.leaves(jaxs), strict=True):
            assert jax.typeof(one) == jax.typeof(other)
            assert one.sharding.is_equivalent_to(other.sharding, one.ndim)


def on_one(args):
    """The same arrays on one device, as types without a mesh."""

    def one(x):
        words = jnp.asarray(as_words(x).view(_plain(x)))
        typed = jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
        return jax.random.wrap_key_data(words, impl=jax.random.key_impl(x)) if typed else words

    return [one(x) for x in args]


def stacked(mesh):
    """A key for each member, one on each device."""
    return put(jax.random.split(KEY, SIZE), mesh, "x")


# What XLA draws on a mesh, it rounds in its own way; what is native has the bits of one device.
assert_same = functools.partial(assert_same_bits, ulps=3 if native_problem() else 0)


def specs(tree):
    """How the arrays in a pytree are laid out: the specs, without Nones at the end."""
    return jax.tree.map(_entries, tree)


def _entries(leaf):
    spec = list(leaf.sharding.spec)
    while spec and spec[-1] is None:
        spec.pop()
    return P(*spec)


def assert_lie(tree, mesh, where):
    """Whether arrays lie as specs say, one for all or a tree of them."""
    if isinstance(where, P):
        where = jax.tree.map(lambda leaf: where, tree)
    for leaf, spec in zip(jax.tree.leaves(tree), jax.tree.leaves(where), strict=True):
        # XLA leaves out axes of length one.
        assert leaf.sharding.is_equivalent_to(NamedSharding(mesh, spec), leaf.ndim)
