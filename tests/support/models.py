"""Init functions of real networks, one from each framework and one from none."""

from __future__ import annotations

import jax
import jax.numpy as jnp

WIDTHS = (6, 16, 16, 2)


def equinox_mlp(key):
    import equinox as eqx

    net = eqx.nn.MLP(WIDTHS[0], WIDTHS[-1], WIDTHS[1], depth=2, key=key)
    return eqx.filter(net, eqx.is_array)


def linen_mlp(key):
    import flax.linen as nn

    class MLP(nn.Module):
        @nn.compact
        def __call__(self, x):
            for width in WIDTHS[1:-1]:
                x = nn.relu(nn.Dense(width)(x))
            return nn.Dense(WIDTHS[-1])(x)

    return MLP().init(key, jnp.zeros((1, WIDTHS[0])))


def nnx_mlp(key):
    from flax import nnx

    class MLP(nnx.Module):
        def __init__(self, rngs):
            pairs = zip(WIDTHS[:-1], WIDTHS[1:], strict=True)
            self.layers = nnx.List([nnx.Linear(a, b, rngs=rngs) for a, b in pairs])

    return nnx.state(MLP(nnx.Rngs(params=key)), nnx.Param)


def transformer_block(key, width=16, heads=4):
    """Attention and feed-forward weights, the biases and the norms of one block."""
    he, glorot = jax.nn.initializers.he_normal(), jax.nn.initializers.glorot_uniform()
    query, project, up, down, position = jax.random.split(key, 5)
    return {
        "attention": {
            "qkv": jax.vmap(lambda key: glorot(key, (width, width)))(jax.random.split(query, 3)),
            "out": glorot(project, (heads, width // heads, width)),
        },
        "feed_forward": {
            "up": he(up, (width, 4 * width)),
            "up_bias": jnp.zeros(4 * width),
            "down": jax.random.normal(down, (4 * width, width)) / jnp.sqrt(8.0 * width),
            "down_bias": jnp.zeros(width),
        },
        "norm": {"scale": jnp.ones(width), "bias": jnp.zeros(width)},
        "position": 0.02 * jax.random.normal(position, (32, width)),
    }


MODELS = {
    "equinox": equinox_mlp,
    "flax.linen": linen_mlp,
    "flax.nnx": nnx_mlp,
    "none": transformer_block,
}
RANDOM_LEAVES = {"equinox": 6, "flax.linen": 3, "flax.nnx": 3, "none": 5}


def small(key):
    """Two draws and a constant."""
    w, b = jax.random.split(key)
    return {
        "w": jax.random.normal(w, (7, 2)),
        "b": jax.random.uniform(b, (6,)),
        "step": jnp.zeros((), jnp.int32),
    }


def sweep(key, scale, shift):
    """An init with an argument for every member and one for all."""
    return scale * jax.random.normal(key, (7,)) + shift
