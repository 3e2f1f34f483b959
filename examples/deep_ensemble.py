"""A deep ensemble: many networks, one regression, and how far they disagree.

There is no data in the middle. Every member fits the data that there is, and each does as it
likes where there is none, so the spread of the members says where not to trust their mean.
"""

import argparse

import jax
import jax.numpy as jnp
import matplotlib
import optax
from matplotlib import pyplot as plt

import seedbed as sb

matplotlib.use("Agg")


def toy_data(key, count=100):
    """Points of a noisy sine on [-4, -1] and [1, 4], nothing in between."""
    key_x, key_side, key_noise = jax.random.split(key, 3)
    side = jnp.where(jax.random.bernoulli(key_side, 0.5, (count, 1)), 1.0, -1.0)
    x = side * jax.random.uniform(key_x, (count, 1), minval=1.0, maxval=4.0)
    return x, jnp.sin(1.5 * x) + 0.1 * jax.random.normal(key_noise, (count, 1))


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

    fit = jax.jit(lambda start: jax.lax.scan(step, start, length=steps))
    (params, _), losses = fit((params, optimiser.init(params)))
    return sb.nn.merge(definition, params), losses


def plot(x, y, grid, curves, path):
    mean, std = curves.mean(axis=0), curves.std(axis=0)
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    axis.plot(grid, curves[:10].T, color="0.75", linewidth=0.7)
    axis.fill_between(grid, mean - 2 * std, mean + 2 * std, alpha=0.3, label="± 2 std")
    axis.plot(grid, mean, label="mean of the members")
    axis.plot(grid, jnp.sin(1.5 * grid), "k--", linewidth=0.8, label="truth")
    axis.plot(x, y, "k.", markersize=4, label="data")
    axis.set(xlabel="x", ylabel="y", ylim=(-3, 3), title=f"{len(curves)} networks, 10 of them gray")
    axis.legend(loc="lower right")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few members, little training")
    parser.add_argument("--out", default="deep_ensemble.png", help="where the figure goes")
    options = parser.parse_args()
    members, width, steps = (8, 32, 400) if options.small else (64, 64, 2000)

    sb.random.seed(0)
    x, y = toy_data(sb.random.next_key())
    first, middle, last = sb.nn.Linear(1, width), sb.nn.Linear(width, width), sb.nn.Linear(width, 1)
    net = sb.nn.Sequential(first, jnp.tanh, middle, jnp.tanh, last)
    sb.nn.vmap_init_all_states(net, axis_size=members)
    net, losses = train(net, x, y, steps)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}, mean of {members} members")

    grid = jnp.linspace(-5, 5, 201)
    curves = sb.nn.vmap(net, in_axes=None)(grid[:, None])[..., 0]  # (members, 201)
    std, distance = curves.std(axis=0), jnp.abs(grid)
    data, gap = std[(distance > 1) & (distance < 4)].mean(), std[distance < 0.8].mean()
    print(f"spread {data:.3f} at the data, {gap:.3f} in the gap")
    plot(x, y, grid, curves, options.out)


if __name__ == "__main__":
    main()
