"""Adapters: ensembles of models written with another framework.

``sb.adapters.nnx``, ``linen``, ``equinox``, ``haiku`` and ``brainstate`` are imported when they
are first used; ``import seedbed`` imports no framework.
"""

from __future__ import annotations

import importlib
from types import ModuleType

# Adapter: (the module it needs, the package to install).
FRAMEWORKS = {
    "brainstate": ("brainstate", "brainstate"),
    "equinox": ("equinox", "equinox"),
    "haiku": ("haiku", "dm-haiku"),
    "linen": ("flax.linen", "flax"),
    "nnx": ("flax.nnx", "flax"),
}


def __getattr__(name: str) -> ModuleType:
    if name not in FRAMEWORKS:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; there are adapters for "
            f"{', '.join(FRAMEWORKS)}"
        )
    needed, package = FRAMEWORKS[name]
    try:
        importlib.import_module(needed)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"`seedbed.adapters.{name}` needs {needed}, which cannot be imported ({error}); "
            f"install it with: pip install {package}"
        ) from error
    except Exception as error:  # often an AttributeError of jax, in a version that does not fit
        raise ImportError(
            f"`seedbed.adapters.{name}` needs {needed}, which is installed and fails to import, "
            f"with {type(error).__name__}: {error}. Do the versions of {package} and jax fit?"
        ) from error
    return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *FRAMEWORKS])
