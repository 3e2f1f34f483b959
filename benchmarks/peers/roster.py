"""Who is measured: the table of peers. Data only; imported without jax.

A peer's factory lives in another file of this folder and runs in the peer's own process. It takes
the case and the peer's options and returns a `Call`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    """One way to make an ensemble.

    Attributes:
        same_bits: whether it promises the numbers of ``jax.vmap(init)(split(key, n))``.
        env: variables of its process.
        one_thread: whether its process may use one processor only.
        huge_pages: whether its process may have huge pages where it asks for them.
        options: keyword arguments of its factory.
        processes: how many it runs in, which make one result together.
    """

    label: str
    factory: str
    description: str
    requires: tuple[str, ...] = ()
    same_bits: bool = False
    env: dict[str, str] = field(default_factory=dict)
    one_thread: bool = False
    huge_pages: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    processes: int = 1

    @property
    def is_seedbed(self) -> bool:
        return self.label.startswith("seedbed")


# glibc then asks for huge pages for every large block, which seedbed does for its own outputs.
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}

PEERS = {
    "seedbed": Peer(
        "seedbed", "on_jax:seedbed", "`seedbed.ensemble(init, n)(key)`", ("seedbed",), True
    ),
    "jax": Peer(
        "jax",
        "on_jax:raw",
        "`jax.jit(lambda key: jax.vmap(init)(jax.random.split(key, n)))`, jax as installed",
        ("jax",),
        True,
    ),
    "jax_unrolled": Peer(
        "jax, unrolled threefry",
        "on_jax:raw",
        "the same with jax's own unrolled lowering of threefry on the CPU, which is in its source "
        "but not its default",
        ("jax",),
        True,
        options={"unrolled": True},
    ),
    "jax_unrolled_huge_pages": Peer(
        "jax, unrolled, huge pages",
        "on_jax:raw",
        "the same in a process with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`",
        ("jax",),
        True,
        _HUGE_PAGES,
        options={"unrolled": True},
    ),
    "jax_philox": Peer(
        "jax, philox2x32",
        "on_jax:raw",
        "jax with keys of `philox2x32`, as installed its fastest generator (another stream)",
        ("jax",),
        options={"impl": "philox2x32"},
    ),
    "jax_rbg": Peer(
        "jax, rbg",
        "on_jax:raw",
        "jax with keys of type `rbg` (another stream)",
        ("jax",),
        options={"impl": "rbg"},
    ),
    "equinox": Peer(
        "equinox",
        "on_jax:equinox",
        "`eqx.filter_jit` of `eqx.filter_vmap(Model)`",
        ("equinox",),
        True,
    ),
    "nnx": Peer(
        "flax nnx",
        "on_jax:nnx",
        "`jax.jit` of `nnx.split_rngs` + `nnx.vmap` (another key chain)",
        ("flax",),
    ),
    "linen": Peer(
        "flax linen",
        "on_jax:linen",
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
        "arrays:numpy",
        "one call of a `Generator(SFC64)` method, its fastest bit generator; one thread",
        ("numpy",),
    ),
    "torch": Peer(
        "torch",
        "arrays:torch",
        "one in-place draw for each leaf, over all members at once",
        ("torch",),
    ),
    "zeros": Peer(
        "jnp.zeros",
        "on_jax:zeros",
        "jitted zeros of the same shapes: nothing is drawn, so it is the floor",
        ("jax",),
    ),
    "zeros_huge_pages": Peer(
        "jnp.zeros, huge pages",
        "on_jax:zeros",
        "the same in a process with `GLIBC_TUNABLES=glibc.malloc.hugetlb=1`",
        ("jax",),
        False,
        _HUGE_PAGES,
    ),
}

# --- variants: one way under other conditions ------------------------------------------------

# Numbers of members that the same number of values is made by.
GROUPS = (64, 512, 4096, 65536)
# Instruction sets with kernels of their own on x86-64, the best one first.
ISAS = ("avx512", "avx2", "baseline")
_TYPED = {"typed": True}


def _vary(name: str, label: str, description: str, **changes: Any) -> Peer:
    return replace(PEERS[name], label=label, description=description, **changes)


PEERS |= {
    f"seedbed_by_{members}": _vary(
        "seedbed",
        f"seedbed, {members:,} members",
        f"seedbed with as many values in all, by {members:,} members",
        factory="variants:regrouped",
        same_bits=False,
        options={"members": members},
    )
    for members in GROUPS
}
PEERS |= {
    f"{name}_one_leaf": _vary(
        name,
        f"{PEERS[name].label}, one leaf",
        f"{PEERS[name].label} with as many values in all, in one leaf of one member",
        factory="variants:one_leaf",
        same_bits=False,
        options={"of": name},
    )
    for name in ("seedbed", "zeros")
}
PEERS |= {
    f"{name}_one_thread": _vary(
        name,
        f"{PEERS[name].label}, one thread",
        f"{PEERS[name].label} in a process that may use one processor",
        one_thread=True,
    )
    for name in ("seedbed", "jax_unrolled", "zeros")
}
PEERS |= {
    f"seedbed_{isa}_{threads}": _vary(
        "seedbed",
        f"seedbed, {isa}, {threads} thread{'s' * (threads == 'all')}",
        f"seedbed with `SEEDBED_ISA={isa}`, {threads} thread{'s' * (threads == 'all')}",
        factory="variants:on_isa",
        env={"SEEDBED_ISA": isa},
        one_thread=threads == "one",
    )
    for isa in ISAS
    for threads in ("one", "all")
}
PEERS |= {
    "seedbed_donate": _vary(
        "seedbed",
        "seedbed, donate",
        "`make = seedbed.ensemble(init, n, donate=True); new = make(key, old)`",
        factory="variants:donating",
    ),
    "seedbed_small_pages": _vary(
        "seedbed",
        "seedbed, no huge pages",
        "seedbed in a process that gets no huge pages (`prctl(PR_SET_THP_DISABLE)`)",
        huge_pages=False,
    ),
    "jax_donate": _vary(
        "jax",
        "jax, donate",
        "`jax.jit` of the same as jax, the old ensemble among the donated arguments",
        factory="variants:jax_donating",
    ),
    "jax_unrolled_donate": _vary(
        "jax_unrolled",
        "jax, unrolled, donate",
        "the same with the unrolled lowering",
        factory="variants:jax_donating",
    ),
    "zeros_donate": _vary(
        "zeros",
        "jnp.zeros, donate",
        "jitted zeros, the old arrays donated",
        factory="variants:zeros_donating",
    ),
    "torch_in_place": _vary(
        "torch",
        "torch, in place",
        "torch, drawn into the tensors that are there",
        options={"in_place": True},
    ),
    "seedbed_typed": _vary(
        "seedbed", "seedbed, typed key", "seedbed with `jax.random.key(...)`", options=_TYPED
    ),
    "jax_typed": _vary("jax", "jax, typed key", "jax with `jax.random.key(...)`", options=_TYPED),
    "empty": _vary(
        "zeros",
        "empty function",
        "a compiled `jax.jit` of a function of the key that returns zeros of the same shapes",
        factory="variants:empty",
    ),
}
PEERS["empty_typed"] = _vary(
    "empty", "empty function, typed key", "the same with `jax.random.key(...)`", options=_TYPED
)

# --- frameworks ------------------------------------------------------------------------------

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
