"""What the tests of streams compare: keys and states of streams as plain numbers."""

import jax
import jax.numpy as jnp
import numpy as np


def words(key):
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return tuple(int(word) for word in np.asarray(key).ravel())


def nth(key, number):
    return words(jax.random.fold_in(key, number))


def plain(state):
    return (*map(int, state.key_data), state.impl, state.count)
