"""A sweep: one population of spiking neurons at many gains of its input, all in one run.

Every member has a gain of its own, which it reads in `init_state` as if it were the only one. All
members get the same current, which rises and falls.
"""

import argparse

import jax
import jax.numpy as jnp
from matplotlib import pyplot as plt

import seedbed as sb

DT = 0.5  # ms


class Population(sb.nn.Module):
    """LIF neurons with random input weights, whose mean is the gain."""

    def __init__(self, size, gain):
        self.gain = gain
        self.neurons = sb.nn.LIF(size, dt=DT)

    def init_state(self):
        spread = 1 + 0.1 * jax.random.normal(sb.random.next_key(), (self.neurons.size,))
        self.weights = sb.nn.ParamState(self.gain.value * spread)

    def __call__(self, current):
        return self.neurons(self.weights.value * current)


def simulate(net, currents):
    """Runs all members over the currents; returns spikes of shape (steps, members, neurons)."""
    definition, hidden, fixed = sb.nn.split(net, sb.nn.HiddenState, ...)

    def step(hidden, current):
        now = sb.nn.merge(definition, hidden, fixed)
        spikes = sb.nn.vmap(now, in_axes=None)(current)
        return sb.nn.split(now, sb.nn.HiddenState, ...)[1], spikes

    return jax.lax.scan(step, hidden, currents)[1]


def plot(spikes, gains, path):
    figure, axes = plt.subplots(
        len(gains), 1, figsize=(7, 1 + len(gains)), sharex=True, layout="constrained"
    )
    for axis, member, gain in zip(axes, spikes.transpose(1, 0, 2), gains, strict=True):
        step, neuron = jnp.nonzero(member)
        axis.plot(step * DT, neuron, "k|", markersize=2)
        axis.set(ylabel=f"gain {gain:.2f}", yticks=[])
    axes[-1].set_xlabel("time (ms)")
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="few neurons, a short run")
    parser.add_argument("--out", default="lif_sweep.png", help="where the figure goes")
    options = parser.parse_args()
    size, milliseconds = (20, 100) if options.small else (100, 400)

    sb.random.seed(0)
    gains = jnp.linspace(0.5, 2.0, 7)
    gain = sb.nn.State(gains)
    net = Population(size, gain)
    sb.nn.vmap_init_all_states(net, axis_size=len(gains), in_states=gain)
    time = jnp.arange(0, milliseconds, DT)
    spikes = simulate(net, 1.2 + 0.4 * jnp.sin(2 * jnp.pi * time / 100))
    rates = spikes.mean(axis=(0, 2)) / (DT / 1000)
    for one, rate in zip(gains, rates, strict=True):
        print(f"gain {one:.2f}  {rate:6.1f} Hz")
    plot(spikes, gains, options.out)


if __name__ == "__main__":
    main()
