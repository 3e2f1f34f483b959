"""Which backend runs: ``SEEDBED_BACKEND``, what is installed, and what the key allows."""

from __future__ import annotations

import os

import jax

from . import _compat, _native, _selfcheck

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


def why_reference(key_impl: str, effects: bool) -> str | None:
    """Why the native backend may not make this ensemble's draws, or None if it may.

    Raises:
        RuntimeError: ``SEEDBED_BACKEND=native`` and the extension cannot be used.
    """
    choice = requested()
    if choice == "reference":
        return "SEEDBED_BACKEND=reference"
    module, problem = _native.load()
    if module is None:
        if choice == "native":
            raise RuntimeError(
                f"SEEDBED_BACKEND=native, but {problem}. Install a wheel with the extension, "
                "build one with a C++17 compiler, or set SEEDBED_BACKEND=auto."
            )
        return problem
    if not _compat.is_threefry(key_impl):
        return f"the key is of type {key_impl!r}, the native cipher is 'threefry2x32'"
    if jax.default_backend() != "cpu":
        return f"jax computes on {jax.default_backend()!r}, the native kernels are for 'cpu'"
    if not _compat.partitionable():
        return "jax_threefry_partitionable is off"
    if effects:
        return "init has side effects (printing or callbacks), which run as JAX runs them"
    if "bits" not in kernels():
        return "the native cipher does not give this jax's bits (`seedbed info` says more)"
    return None


def kernels() -> frozenset[str]:
    """Names of the native kernels that agree with the installed jax on this machine."""
    return _selfcheck.trusted()
