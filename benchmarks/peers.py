"""Who is measured: the table of peers. Data only; imported without jax.

A peer's factory lives in `benchmarks.jax_peers`, `benchmarks.modules`, `benchmarks.frameworks` or
`benchmarks.array_peers` and runs in the peer's own process. It takes the case and returns a `Call`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class Unavailable(Exception):
    """This peer cannot run here; the message is the reason that the report prints."""


@dataclass(frozen=True)
class Call:
    """How one peer makes one ensemble.

    Attributes:
        seed: turns the number of a round into the peer's key or generator; not timed.
        run: makes the ensemble and returns when it is ready; this is timed.
        facts: what the report should say about this peer, asked for after the first call.
    """

    seed: Callable[[int], Any]
    run: Callable[[Any], Any]
    facts: Callable[[], dict[str, Any]] = dict


@dataclass(frozen=True)
class Peer:
    """One way to make an ensemble."""

    label: str
    factory: str
    description: str
    requires: tuple[str, ...] = ()
    # Whether it promises the numbers of jax.vmap(init)(split(key, n)), bit for bit.
    same_bits: bool = False
    env: dict[str, str] = field(default_factory=dict)


# glibc then asks for huge pages for every large block, which seedbed does for its own outputs.
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

PEERS = {
    "seedbed": Peer(
        "seedbed", "jax_peers:seedbed", "`seedbed.ensemble(init, n)(key)`", ("seedbed",), True
    ),
    "jax": Peer(
        "jax",
        "jax_peers:raw",
        "`jax.jit(lambda key: jax.vmap(init)(jax.random.split(key, n)))`, jax as installed",
        ("jax",),
        True,
    ),
    "jax_unrolled": Peer(
        "jax, unrolled threefry",
        "jax_peers:unrolled",
        "the same with jax's own unrolled lowering of threefry on the CPU, which is in its source "
        "but not its default",
        ("jax",),
        True,
    ),
    "jax_unrolled_huge_pages": Peer(
        "jax, unrolled, huge pages",
        "jax_peers:unrolled",
        "the same in a process with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`",
        ("jax",),
        True,
        _HUGE_PAGES,
    ),
    "equinox": Peer(
        "equinox",
        "jax_peers:equinox",
        "`eqx.filter_jit` of `eqx.filter_vmap(Model)`",
        ("equinox",),
        True,
    ),
    "nnx": Peer(
        "flax nnx",
        "jax_peers:nnx",
        "`jax.jit` of `nnx.split_rngs` + `nnx.vmap` (another key chain)",
        ("flax",),
    ),
    "linen": Peer(
        "flax linen",
        "jax_peers:linen",
        "`jax.jit(jax.vmap(model.init))` (another key chain)",
        ("flax",),
    ),
    "nn": Peer(
        "seedbed.nn",
        "modules:collective",
        "`seedbed.nn.vmap_init_all_states(net, axis_size=n)`",
        ("seedbed",),
        True,
    ),
    "nn_ensemble": Peer(
        "seedbed.ensemble",
        "modules:ensemble",
        "`seedbed.ensemble` of the same draws, `seedbed.nn.init_function(net)`",
        ("seedbed",),
        True,
    ),
    "nn_jax": Peer(
        "jax, same draws",
        "modules:raw",
        "`jax.jit` of `jax.vmap` of `seedbed.nn.init_function(net)`",
        ("seedbed",),
        True,
    ),
    "brainstate": Peer(
        "brainstate",
        "modules:brainstate",
        "`brainstate.nn.vmap_init_all_states(net, axis_size=n)` on the equivalent module, which "
        "makes its parameters in `init_state` (another key chain)",
        ("brainstate",),
    ),
    "numpy": Peer(
        "numpy SFC64",
        "array_peers:numpy",
        "one call of a `Generator(SFC64)` method, its fastest bit generator; one thread",
        ("numpy",),
    ),
    "torch": Peer(
        "torch",
        "array_peers:torch",
        "one in-place draw for each leaf, over all members at once",
        ("torch",),
    ),
    "zeros": Peer(
        "jnp.zeros",
        "jax_peers:zeros",
        "jitted zeros of the same shapes: nothing is drawn, so it is the floor",
        ("jax",),
    ),
    "zeros_huge_pages": Peer(
        "jnp.zeros, huge pages",
        "jax_peers:zeros",
        "the same in a process with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`",
        ("jax",),
        False,
        _HUGE_PAGES,
    ),
}

# Framework: (the module it needs, {peer: how it makes an ensemble}); the first is seedbed's.
FRAMEWORKS = {
    "nnx": (
        "flax.nnx",
        {
            "adapter": "`seedbed.adapters.nnx.ensemble(Model, n)(rngs)`",
            "own": "`nnx.split_rngs(splits=n)` + `nnx.vmap`",
            "jitted": "`jax.jit` of the same",
        },
    ),
    "linen": (
        "flax.linen",
        {
            "adapter": "`seedbed.adapters.linen.ensemble(model, n)(key)`",
            "own": "`jax.jit(jax.vmap(model.init))` on split keys",
        },
    ),
    "equinox": (
        "equinox",
        {
            "adapter": "`seedbed.adapters.equinox.ensemble(Model, n)(key)`",
            "own": "`eqx.filter_jit` of `eqx.filter_vmap(Model)` on split keys",
        },
    ),
    "haiku": (
        "haiku",
        {
            "adapter": "`seedbed.adapters.haiku.ensemble(model, n)(key)`",
            "own": "`jax.jit(jax.vmap(model.init))` on split keys",
        },
    ),
    "brainstate": (
        "brainstate",
        {
            "adapter": "`seedbed.adapters.brainstate.vmap_init_all_states(net, axis_size=n)`",
            "own": "`brainstate.nn.vmap_init_all_states(net, axis_size=n)`",
        },
    ),
}
_LABELS = {"adapter": "seedbed, {}", "own": "{}, its own way", "jitted": "{}, jitted"}

for _framework, (_module, _ways) in FRAMEWORKS.items():
    for _way, _description in _ways.items():
        PEERS[f"{_framework}_{_way}"] = Peer(
            _LABELS[_way].format(_framework),
            f"frameworks:{_framework}_{_way}",
            _description,
            (_module, f"seedbed.adapters.{_framework}") if _way == "adapter" else (_module,),
            same_bits=True,
        )
