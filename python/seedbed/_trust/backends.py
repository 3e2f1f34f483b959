"""Which backend runs: ``SEEDBED_BACKEND``, what is installed, and what the key allows."""

from __future__ import annotations

import os
from typing import Any

from .._jax import compat, generators
from .._plan import Plan
from .._run import native

CHOICES = ("auto", "native", "reference")


def requested() -> str:
    """The value of ``SEEDBED_BACKEND`` (``auto`` when unset).

    Raises:
        ValueError: the value is not one of `CHOICES`.
    """
    choice = os.environ.get("SEEDBED_BACKEND") or "auto"
    if choice not in CHOICES:
        raise ValueError(
            f"SEEDBED_BACKEND is {choice!r}; accepted are {', '.join(map(repr, CHOICES))}"
        )
    return choice


def why_reference(foreign: Any | None, effects: bool) -> str | None:
    """Why the native backend may not make this ensemble's draws, or None if it may.

    Args:
        foreign: an implementation of keys that is not threefry2x32's, if one is used.
        effects: whether the init function has side effects.

    Raises:
        RuntimeError: ``SEEDBED_BACKEND=native`` and the extension cannot be used.
    """
    choice = requested()
    if choice == "reference":
        return "SEEDBED_BACKEND=reference"
    platform = compat.platform()
    module, problem = native.load_cuda() if platform == "cuda" else native.load()
    if module is None:
        if choice == "native":
            compiler = "SEEDBED_CUDA=ON" if platform == "cuda" else "a C++17 compiler"
            raise RuntimeError(
                f"SEEDBED_BACKEND=native, but {problem}. Install a wheel with the extension, "
                f"build one with {compiler}, or set SEEDBED_BACKEND=auto."
            )
        return problem
    if foreign is not None:
        shown = generators.shown(foreign)
        return f"the key is of type {shown}, the native cipher is 'threefry2x32'"
    if platform not in ("cpu", "cuda"):
        return f"jax computes on {platform!r}, the native kernels are for 'cpu' and 'cuda'"
    if not compat.partitionable():
        return "jax_threefry_partitionable is off"
    if effects:
        return "init has side effects (printing or callbacks), which run as JAX runs them"
    if "bits" not in kernels():
        return "the native cipher does not give this jax's bits (`seedbed info` says more)"
    return None


def why_elsewhere(platform: str | None) -> str | None:
    """Why arguments that are bound to a device of another platform are jax's, or None."""
    if platform is None:
        return None
    return f"arguments are on {platform!r}, and kernels were chosen for {compat.platform()!r}"


def why_watched() -> str | None:
    """Why jax has to see what becomes of each key, or None if it need not."""
    if not generators.keys_watched():
        return None
    return "jax_debug_key_reuse is on, and a custom call would hide what becomes of the keys"


def why_jaxs_cipher() -> str | None:
    """Why calls of the cipher alone, outside of ensembles, are jax's, or None if they are native.

    Raises:
        RuntimeError: as `why_reference` does.
    """
    platform = compat.platform()
    if platform != "cpu" and requested() != "reference":
        return f"jax computes on {platform!r}, native calls of the cipher are for 'cpu'"
    return why_reference(None, effects=False)


def why_unscheduled(plan: Plan) -> str | None:
    """Why the device cannot make a plan's draws, or None if it can."""
    if compat.platform() != "cuda":
        return None
    cuda, problem = native.load_cuda()
    if cuda is None:
        return problem
    draws = (*plan.draws, *plan.fills.values())
    try:
        for chosen in plan.by_stream.values():
            cuda.launches(native.encode(tuple(draws[i] for i in chosen)), 1)
    except ValueError as error:
        return str(error)
    return None


def kernels() -> frozenset[str]:
    """Names of the native kernels that agree with the installed jax on this machine."""
    from . import selfcheck  # of no use before a plan is made

    return selfcheck.trusted()
