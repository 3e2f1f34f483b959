"""The native CPU extension (C++, csrc/cpu/module.cc). It is optional: see `_run.native`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

def registrations() -> dict[str, dict[str, Any]]:
    """FFI targets by name, each a dict of stages for `jax.ffi.register_ffi_target`."""

def type_registrations() -> dict[str, dict[str, Any]]:
    """FFI state types by name, for `jax.ffi.register_ffi_type`; register them first."""

def isa() -> str:
    """The instruction set in use: the best one, or the one that SEEDBED_ISA names.

    Raises:
        ValueError: SEEDBED_ISA names a set that is unknown or that this machine lacks.
    """

def isas() -> list[str]:
    """The instruction sets that this machine can run, best first."""

def without_cuda() -> str:
    """Why the build that made the extension left the CUDA part out; empty if it made it too."""

def version() -> str:
    """The version of the package that the extension was built for."""

def plan_version() -> int:
    """The version of the plan encoding that the extension reads."""

def run_plan(
    plan: NDArray[np.int64],
    mode: int,
    size: int,
    keys: NDArray[np.uint32],
    members: NDArray[np.uint32],
    outputs: list[NDArray[Any]],
    isa: str | None = None,
    threads: int = 1,
    blocks: NDArray[np.uint32] | None = None,
) -> None:
    """Runs an encoded plan (csrc/plan.h) without JAX, with the custom call's checks.

    Args:
        plan: the encoded plan, one-dimensional.
        mode: a `_plan.KeyMode`.
        size: members in a group, N below.
        keys: uint32[..., N, 2] member keys, else uint32[..., 2] root keys.
        members: uint32[..., N, 2] indices, else uint32[..., 2]; where they are not read, anything.
        outputs: for each draw a writable C-contiguous array with items of the draw's size.
        isa: one of `isas()`; None for `isa()`.
        threads: how many threads work, at least 1.
        blocks: which blocks to make, if the plan has blocks of draws.

    Raises:
        ValueError: the plan is malformed, or a buffer does not fit it.
    """

def transform(
    params: NDArray[np.float32] | NDArray[np.float64],
    bits: NDArray[np.uint32] | NDArray[np.uint64],
    out: NDArray[np.float32] | NDArray[np.float64],
    isa: str | None = None,
    kind: int = 3,
) -> None:
    """The value of each random word, of its width, by the code that draws use.

    Args:
        params: those of the kind, as numbers (`_run.native.params`).
        bits: the words.
        out: as many values.
        kind: a `_plan.Kind` of floats; normals, unless said otherwise.

    Raises:
        ValueError: the kind makes no floats, or an array does not fit.
    """

def threefry(
    keys: NDArray[np.uint32],
    counters: NDArray[np.uint32],
    out: NDArray[np.uint32],
    isa: str | None = None,
) -> None:
    """threefry2x32-20 of word pairs: `out[i]` from `keys[i]` and `counters[i]`; all [n, 2]."""
