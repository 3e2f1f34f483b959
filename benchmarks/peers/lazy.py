"""The peers of the lazy table. Data only."""

from __future__ import annotations

from .roster import Peer

# Members of one step of the loop that is written with jax.
_CHUNK = 2048

PEERS = {
    "lazy_map": Peer(
        "seedbed, lazy.map",
        "unstored:mapped",
        "`seedbed.ensemble(init, n).lazy(key).map(fn)`",
        ("seedbed",),
        True,
    ),
    "jax_map": Peer(
        "jax, lax.map",
        "unstored:jax_mapped",
        "`jax.jit` of `jax.lax.map(lambda key: fn(init(key)), jax.random.split(key, n), "
        f"batch_size={_CHUNK})`",
        ("jax",),
        True,
        options={"chunk": _CHUNK},
    ),
    "whole_map": Peer(
        "seedbed, whole",
        "unstored:whole",
        "`jax.jit(jax.vmap(fn))(seedbed.ensemble(init, n)(key))`: all members are there at once",
        ("seedbed",),
        True,
    ),
    "lazy_member": Peer(
        "seedbed, lazy[i]",
        "unstored:member",
        "`seedbed.ensemble(init, n).lazy(key)[i]`, each time another member",
        ("seedbed",),
        True,
    ),
    "jax_member": Peer(
        "jax, fold_in",
        "unstored:jax_member",
        "`jax.jit(lambda key, i: init(jax.random.fold_in(key, i)))(key, i)`, which takes members "
        "below 2^32 only",
        ("jax",),
        True,
    ),
}
