"""Tests on an NVIDIA GPU: ``SEEDBED_REQUIRE_GPU=1 python -m pytest tests/gpu``.

Where there is none all of them are skipped; with that variable they fail instead.
"""

import functools
import os

import jax
import pytest

from seedbed._run import native

REQUIRED = os.environ.get("SEEDBED_REQUIRE_GPU") == "1"
if REQUIRED:
    # tests/conftest.py has chosen the CPU, but nothing has asked for a device yet. Processes that
    # tests start choose for themselves.
    jax.config.update("jax_platforms", "cuda,cpu")
    # Several processes of tests may share the device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


@functools.cache
def problem() -> str:
    """Why the CUDA kernels cannot be tested here; empty if they can."""
    try:
        jax.devices("cuda")
    except RuntimeError as error:
        return f"jax has no CUDA device: {str(error).splitlines()[0]}"
    if jax.default_backend() == "cpu":
        return "jax computes on the CPU: set SEEDBED_REQUIRE_GPU=1 or JAX_PLATFORMS=cuda"
    module, why = native.load_cuda()
    return "" if module is not None else f"there are no CUDA kernels: {why}"


@pytest.fixture(scope="session", autouse=True)
def cuda():
    """The module of the CUDA kernels."""
    if problem():
        (pytest.fail if REQUIRED else pytest.skip)(problem())
    return native.load_cuda()[0]
