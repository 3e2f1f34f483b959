"""The models that are initialised, as lists of leaves. Data only; imported without jax."""

from __future__ import annotations

from dataclasses import replace

from ..case import Leaf


def mlp(*widths: int) -> tuple[Leaf, ...]:
    """Dense layers with zero biases: he_normal, and lecun_normal for the last."""
    leaves = []
    for layer, shape in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        sampler = "lecun_normal" if layer == len(widths) - 2 else "he_normal"
        leaves += [
            Leaf(f"weight{layer}", sampler, shape),
            Leaf(f"bias{layer}", "zeros", shape[1:]),
        ]
    return tuple(leaves)


def block(width: int) -> tuple[Leaf, ...]:
    """One pre-norm block of a decoder."""
    return (
        *(Leaf(name, "lecun_normal", (width, width)) for name in ("query", "key", "value", "out")),
        Leaf("up", "he_normal", (width, 4 * width)),
        Leaf("up_bias", "zeros", (4 * width,)),
        Leaf("down", "lecun_normal", (4 * width, width)),
        Leaf("down_bias", "zeros", (width,)),
        *(Leaf(f"norm{i}_scale", "ones", (width,)) for i in range(2)),
        *(Leaf(f"norm{i}_bias", "zeros", (width,)) for i in range(2)),
    )


def transformer(width: int, layers: int, vocabulary: int, length: int) -> tuple[Leaf, ...]:
    """A decoder: token and position embeddings, blocks, an output head."""
    leaves = [
        Leaf("tokens", "embedding", (vocabulary, width)),
        Leaf("positions", "embedding", (length, width)),
    ]
    for layer in range(layers):
        leaves += [replace(leaf, name=f"block{layer}_{leaf.name}") for leaf in block(width)]
    return (*leaves, Leaf("head", "lecun_normal", (width, vocabulary)))


def linears(*widths: int) -> tuple[Leaf, ...]:
    """The states of `seedbed.nn.Sequential` of `Linear` layers, by path."""
    leaves = []
    for layer, (inputs, outputs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        leaves += [
            Leaf(f"layers.{layer}.weight", "linear", (outputs, inputs)),
            Leaf(f"layers.{layer}.bias", "zeros", (outputs,)),
        ]
    return tuple(leaves)


def many_leaves(count: int) -> tuple[Leaf, ...]:
    """Many small layers: compile time is nearly all of what users wait for."""
    return tuple(Leaf(f"weight{i}", "lecun_normal", (16, 16)) for i in range(count))
