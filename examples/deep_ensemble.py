"""A deep ensemble: many networks, one regression, and how far they disagree.

There is no data in the middle. Every member fits the data that there is, and each does as it
likes where there is none, so the spread of the members says where not to trust their mean.
"""

import argparse

import jax
import jax.numpy as jnp
import optax
from matplotlib import pyplot as plt

import seedbed as sb


def truth(x):
    return jnp.sin(1.5 * x)


def toy_data(key, count=100):
    """Noisy points on [-4, 0] and [2, 4], nothing in between."""
    key_x, key_noise = jax.random.split(key)
    x = jax.random.uniform(key_x, (count, 1), minval=-4.0, maxval=2.0)
    x = jnp.where(x > 0, x + 2, x)
    return x, truth(x) + 0.1 * jax.random.normal(key_noise, x.shape)


def train(net, x, y, steps):
    """Trains all members at once; returns the trained net and the mean loss at every step."""
    definition, params = sb.nn.split(net)
    optimiser = optax.adam(3e-3)

    def loss(params):
        predictions = sb.nn.vmap(sb.nn.merge(definition, params), in_axes=None)(x)
        # Summed over members: each has its own parameters, so each gets its own gradient.
        return jnp.sum(jnp.mean((predictions - y) ** 2, axis=(1, 2)))

    def step(carry, _):
        params, state = carry
        value, gradient = jax.value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), value / net.members

    run = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))
    (params, _), losses = run((params, optimiser.init(params)))
    return sb.nn.merge(definition, params), losses


def plot(x, y, grid, curves, path):
    mean, std = curves.mean(axis=0), curves.std(axis=0)
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.plot(grid, curves[:10].T, color="0.75", linewidth=0.7)
    axis.fill_between(grid, mean - 2 * std, mean + 2 * std, alpha=0.3, label="± 2 std")
    axis.plot(grid, mean, label="mean of the members")
    axis.plot(grid, truth(grid), "k--", linewidth=0.8, label="truth")
    axis.plot(x, y, "k.", markersize=4, label="data")
    axis.set(xlabel="x", ylabel="y", ylim=(-3, 3), title=f"{len(curves)} networks")
    axis.legend(loc="lower center", ncols=4)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few members, little training")
    parser.add_argument("--out", default="deep_ensemble.png", help="where the figure goes")
    options = parser.parse_args()
    members, width, steps = (8, 32, 600) if options.small else (64, 64, 2000)

    sb.random.seed(0)
    x, y = toy_data(sb.random.next_key())
    first, middle, last = sb.nn.Linear(1, width), sb.nn.Linear(width, width), sb.nn.Linear(width, 1)
    net = sb.nn.Sequential(first, jax.nn.relu, middle, jax.nn.relu, last)
    sb.nn.vmap_init_all_states(net, axis_size=members)
    net, losses = train(net, x, y, steps)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, mean of {members} members")

    grid = jnp.linspace(-5, 5, 201)
    curves = sb.nn.vmap(net, in_axes=None)(grid[:, None])[..., 0]  # (members, 201)
    std = curves.std(axis=0)
    data, gap = std[(grid > -4) & (grid < 0)].mean(), std[(grid > 0.5) & (grid < 1.5)].mean()
    print(f"spread {data:.3f} at the data, {gap:.3f} in the gap")
    plot(x, y, grid, curves, options.out)


if __name__ == "__main__":
    main()
