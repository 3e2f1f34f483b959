"""seedbed: very large ensembles of JAX models, initialised in one fused custom call."""

import importlib as _importlib
import typing as _typing
from types import ModuleType as _ModuleType

__version__ = "0.1.0"

from . import prng as prng
from ._accelerate import accelerate as accelerate
from ._ensemble import Ensemble as Ensemble
from ._ensemble import ensemble as ensemble
from ._plan import Plan as Plan
from ._selfcheck import SelfCheckWarning as SelfCheckWarning

if _typing.TYPE_CHECKING:
    from . import adapters as adapters
    from . import filters as filters
    from . import nn as nn
    from . import random as random

# Imported when they are first used: most programs need few of them.
_MODULES = ("adapters", "filters", "nn", "random")

__all__ = [
    "Ensemble",
    "Plan",
    "SelfCheckWarning",
    "accelerate",
    "adapters",
    "ensemble",
    "filters",
    "nn",
    "prng",
    "random",
]


def __getattr__(name: str) -> _ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
