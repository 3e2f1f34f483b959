"""The peers of the scale table, by number of devices and processes. Data only."""

from __future__ import annotations

from .roster import Peer

# Devices of one process; and processes, of `_EACH` devices each.
DEVICES = (1, 2, 4, 8)
_FEWER = {"partitioned": (2, 8), "create_sharded": (1, 2, 8)}
PROCESSES = (2, 4)
_EACH = 2

# Name: label, how, what it needs, whether it promises the numbers of one device.
_WAYS = {
    "single": (
        "seedbed.single",
        "`seedbed.single(init, out_shardings=...)(key)`",
        ("seedbed",),
        True,
    ),
    "sharded": (
        "seedbed.ensemble",
        "`seedbed.ensemble(init, n, out_shardings=...)(key)`",
        ("seedbed",),
        True,
    ),
    "partitioned": (
        "seedbed in jit",
        "`jax.jit(seedbed.ensemble(init, n), out_shardings=...)`: XLA partitions the call",
        ("seedbed",),
        True,
    ),
    # On a mesh jax has other last bits than on one device: what it makes there is shown, not held
    # to anything.
    "jit": (
        "jax.jit",
        "`jax.jit(init, out_shardings=...)`, for an ensemble of `jax.vmap(init)` on split keys",
        ("jax",),
        False,
    ),
    "create_sharded": (
        "nnx",
        "`nnx.jit` of the model, `nnx.get_partition_spec` and `with_sharding_constraint` "
        "(another key chain)",
        ("flax.nnx",),
        False,
    ),
}
_FACTORIES = {
    **{"single": "single", "sharded": "ensemble", "partitioned": "partitioned"},
    **{"jit": "jitted", "create_sharded": "nnx"},
}


def _peer(way: str, devices: int, processes: int = 1) -> Peer:
    label, how, requires, same_bits = _WAYS[way]
    where = f"{devices} device{'s' * (devices > 1)}"
    if processes > 1:
        where = f"{processes} processes of {where}"
    return Peer(
        f"{label}, {where}",
        f"sharded:{_FACTORIES[way]}",
        f"{how}, {where}",
        requires,
        same_bits,
        options={"devices": devices},
        processes=processes,
    )


PEERS = {
    f"{way}_{devices}": _peer(way, devices) for way in _WAYS for devices in _FEWER.get(way, DEVICES)
}
PEERS |= {
    f"{way}_by_{processes}": _peer(way, _EACH, processes)
    for way in ("single", "sharded")
    for processes in PROCESSES
}
