"""Adapters: ensembles of models written with another framework.

``sb.adapters.nnx``, ``linen``, ``equinox``, ``haiku`` and ``brainstate`` are imported when they
are first used; ``import seedbed`` imports no framework.
"""

from __future__ import annotations

import importlib as _importlib
import sys as _sys
from types import ModuleType as _ModuleType

# Adapter: (the module it needs, the package to install).
FRAMEWORKS = {
    "brainstate": ("brainstate", "brainstate"),
    "equinox": ("equinox", "equinox"),
    "haiku": ("haiku", "dm-haiku"),
    "linen": ("flax.linen", "flax"),
    "nnx": ("flax.nnx", "flax"),
}

__all__ = ["FRAMEWORKS", "FrameworkError"]


class FrameworkError(AttributeError):
    """An adapter whose framework cannot be imported; caused by the ImportError.

    `hasattr` and completion pass over it, as over any name that is not there. Python has no
    exceptions that are an AttributeError and an ImportError: ``from seedbed.adapters import nnx``
    raises the ImportError itself, with the same words.
    """


def __getattr__(name: str) -> _ModuleType:
    if name not in FRAMEWORKS:
        raise AttributeError(
            f"module {__name__!r} has no attribute {name!r}; there are adapters for "
            f"{', '.join(FRAMEWORKS)}"
        )
    needed, package = FRAMEWORKS[name]
    adapter = f"`seedbed.adapters.{name}`"
    problem: Exception
    try:
        _importlib.import_module(needed)
    except ModuleNotFoundError as error:
        problem = error
        said = (
            f"{adapter} needs {needed}, which cannot be imported ({error}); install it with: "
            f"pip install {package}"
        )
    except Exception as error:  # often an AttributeError of jax, in a version that does not fit
        problem = error
        said = (
            f"{adapter} needs {needed}, which is installed and fails to import, with "
            f"{type(error).__name__}: {error}. Do the versions of {package} and jax fit?"
        )
    else:
        return _importlib.import_module(f"{__name__}.{name}")
    # An import statement asks for the name first, and would import the module next.
    asking = _sys._getframe(1).f_globals.get("__name__")
    raise (ImportError if asking == "importlib._bootstrap" else FrameworkError)(said) from problem


def __dir__() -> list[str]:
    return [*__all__, *FRAMEWORKS]
