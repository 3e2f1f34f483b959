"""The native backend: loads the extension, encodes plans, binds the custom call."""

from __future__ import annotations

import functools
import importlib
from types import ModuleType
from typing import Any

import jax
import numpy as np

from .._jax import ask_xla, compat
from .._plan import MEMBER, RECORDS, Draw, KeyMode, Node, Shape, rows_of

# Must equal the version the extension reports: a stale build would misread plans.
PLAN_VERSION = 6
TARGET = "seedbed_fill_v1"
CIPHER_TARGET = "seedbed_threefry_v1"
_MAGIC = 0x5EEDBED0


@functools.cache
def load() -> tuple[ModuleType | None, str]:
    """The extension module, or None and the reason why there is none."""
    try:
        module = importlib.import_module("seedbed._cpu")
    except ImportError as error:
        return None, f"the extension is not built ({error})"
    if problem := _stale(module):
        return None, problem
    handlers = module.registrations()
    types = getattr(module, "type_registrations", None)
    compat.register_ffi_target(TARGET, handlers[TARGET], platform="cpu", types=types, batched=True)
    compat.register_ffi_target(CIPHER_TARGET, handlers[CIPHER_TARGET], platform="cpu")
    return module, ""


@functools.cache
def load_cuda() -> tuple[ModuleType | None, str]:
    """The module with the CUDA kernels, or None and the reason why there is none.

    To be called where jax has a CUDA device only: nobody else needs to load it.
    """
    module, problem = load()
    if module is None:
        return None, problem
    try:
        cuda = importlib.import_module("seedbed._cuda")
    except ImportError as error:
        return (
            None,
            f"the CUDA part of the extension is not built ({module.without_cuda() or error})",
        )
    if problem := _stale(cuda):
        return None, problem
    compat.register_ffi_target(
        TARGET,
        cuda.registrations()[TARGET],
        platform="cuda",
        types=cuda.type_registrations,
        batched=True,
    )
    return cuda, ""


def version() -> str:
    """The package's version."""
    from .. import __version__

    return __version__


def _stale(module: ModuleType) -> str:
    """What is wrong with a module that was built for another version of the package, or nothing."""
    built = (module.version(), module.plan_version())
    if built == (version(), PLAN_VERSION):
        return ""
    return (
        f"the extension is of version {built[0]} (plan {built[1]}), the package of "
        f"{version()} (plan {PLAN_VERSION}): reinstall seedbed"
    )


# The shape of the blocks of each draw that are to be made, or None for the whole of it; no tuple at
# all if all are made whole.
Tiles = tuple[Shape | None, ...]


def encode(draws: tuple[Draw, ...], tiles: Tiles = ()) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The draws, or blocks of them, as the words that `csrc/plan.h` describes.

    Raises:
        ValueError: a draw has no blocks of that shape that could be made (`_plan.can_tile`).
    """
    nodes = _number_nodes(draws)
    layouts = []
    blocks: list[int] = []
    for draw, tile in zip(draws, tiles or (None,) * len(draws), strict=True):
        layout = rows_of(draw, tile)
        if layout is None:
            raise ValueError(f"{draw}, of shape {draw.shape}, has no blocks of shape {tile}")
        layouts.append((layout, len(blocks)))
        blocks += layout.blocks
    words: list[int] = [_MAGIC, PLAN_VERSION, len(nodes) - 1, len(draws), len(blocks), *blocks]
    for node, number in nodes.items():
        if node.parent is not None:
            assert nodes[node.parent] < number
            words += [nodes[node.parent], node.index]
    for draw, (layout, first) in zip(draws, layouts, strict=True):
        constants, table = params(draw), draw.table + b"\0" * (-len(draw.table) % 8)
        words += [
            draw.kind,
            draw.word_bits,
            draw.itemsize,
            layout.inner,
            0,  # first counter
            nodes[draw.key.node],
            len(constants),
            len(layout.dims),
            len(layout.levels),
            len(table) // 8,
            len(layout.parts),
            *layout.dims,
            *layout.counters,
        ]
        for level in layout.levels:
            words += [level.base, *level.strides]
        for part in layout.parts:
            words += [part.dim, first + part.axis, part.divisor, part.count]
        words += constants
        words += np.frombuffer(table, "<i8").tolist()
    return np.array([word & 0xFFFFFFFFFFFFFFFF for word in words], np.uint64).view(np.int64)


def params(draw: Draw) -> tuple[int, ...]:
    """The parameters of a draw, and those that XLA is asked for here."""
    asked = RECORDS[draw.kind].asked
    if not asked or draw.word_bits != 64:
        return draw.params
    known = {"near": ask_xla.log1p_near}
    found = np.array([known[name]() for name in asked], np.float64)
    return *draw.params, *found.view(np.uint64).tolist()


def _number_nodes(draws: tuple[Draw, ...]) -> dict[Node, int]:
    """The key nodes that the draws hang from: the member's key is 0, parents before children."""
    numbers = {draws[0].key.node.root if draws else MEMBER: 0}
    for draw in draws:
        node, chain = draw.key.node, []
        while node not in numbers:
            chain.append(node)
            assert node.parent is not None
            node = node.parent
        for node in reversed(chain):
            numbers[node] = len(numbers)
    return numbers


def call(
    draws: tuple[Draw, ...],
    mode: KeyMode,
    size: int,
    keys: jax.Array,
    members: jax.Array | None = None,
) -> list[jax.Array]:
    """All draws of all members: one array of shape ``(size, *draw.shape)`` each.

    Args:
        draws: what to make; all from the same key of a member.
        keys: ``uint32[size, 2]`` member keys (mode `MEMBER_KEYS`) or ``uint32[2]`` root key.
        members: ``uint32[2]`` the first member (`RANGE`), ``uint32[size, 2]`` every member
            (`INDICES`), high word first; None in the modes `MEMBER_KEYS` and `ALL`.
    """
    results = [compat.abstract((size, *draw.shape), draw.dtype) for draw in draws]
    fill = jax.ffi.ffi_call(TARGET, results, vmap_method="broadcast_all")
    # The call has three operands in every mode; one made for the purpose would have to be filled.
    operands = (keys, keys if members is None else members, keys)
    return list(fill(*operands, mode=np.int64(mode), size=np.int64(size), plan=encode(draws)))
