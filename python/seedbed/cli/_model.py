"""The network of the demo: a multilayer perceptron, by equinox where it is installed."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import jax

LAYERS = (64, 128, 128, 128, 10)


def available() -> str:
    """Who builds the network: ``equinox`` or ``plain JAX``."""
    return "equinox" if importlib.util.find_spec("equinox") is not None else "plain JAX"


def make_init(layers: Sequence[int], library: str) -> Callable[[jax.Array], Any]:
    """The init function of one network: He-normal weights, the last layer LeCun-normal.

    Args:
        layers: widths, from the input to the output.
        library: one of the names that `available` returns.
    """
    return _equinox_init(layers) if library == "equinox" else _plain_init(layers)


def _initializer(last: bool, in_axis: int, out_axis: int) -> Any:
    family = jax.nn.initializers.lecun_normal if last else jax.nn.initializers.he_normal
    return family(in_axis=in_axis, out_axis=out_axis)


def _plain_init(layers: Sequence[int]) -> Callable[[jax.Array], Any]:
    def init(key: jax.Array) -> list[dict[str, jax.Array]]:
        made = []
        for depth, (width_in, width_out) in enumerate(zip(layers, layers[1:], strict=False)):
            key, weight_key, bias_key = jax.random.split(key, 3)
            draw = _initializer(depth == len(layers) - 2, in_axis=-2, out_axis=-1)
            bound = width_in**-0.5
            made.append(
                {
                    "weight": draw(weight_key, (width_in, width_out)),
                    "bias": jax.random.uniform(bias_key, (width_out,), minval=-bound, maxval=bound),
                }
            )
        return made

    return init


def _equinox_init(layers: Sequence[int]) -> Callable[[jax.Array], Any]:
    eqx: Any = importlib.import_module("equinox")

    def init(key: jax.Array) -> Any:
        made = []
        for depth, (width_in, width_out) in enumerate(zip(layers, layers[1:], strict=False)):
            key, layer_key, weight_key = jax.random.split(key, 3)
            layer = eqx.nn.Linear(width_in, width_out, key=layer_key)
            # equinox keeps weights as (out, in).
            draw = _initializer(depth == len(layers) - 2, in_axis=-1, out_axis=-2)
            weight = draw(weight_key, (width_out, width_in))
            made.append(eqx.tree_at(lambda layer: layer.weight, layer, weight))
        return eqx.filter(eqx.nn.Sequential(made), eqx.is_array)

    return init


def apply(layers: Sequence[int], library: str, params: Any, x: jax.Array) -> jax.Array:
    """One network on a batch of inputs: ``(batch, layers[0]) -> (batch, layers[-1])``."""
    arrays = jax.tree.leaves(params)  # by layer: weight, bias; plain dicts sort bias first
    for depth in range(len(layers) - 1):
        first, second = arrays[2 * depth : 2 * depth + 2]
        weight, bias = (first.T, second) if library == "equinox" else (second, first)
        x = x @ weight + bias[None, :]
        x = x if depth == len(layers) - 2 else jax.nn.relu(x)
    return x
