"""seedbed: very large ensembles of JAX models, initialised in one fused custom call."""

import importlib as _importlib
import os as _os
import typing as _typing

__version__ = "0.1.0"

from . import prng as prng
from ._ensemble.ensemble import Ensemble as Ensemble
from ._ensemble.ensemble import ensemble as ensemble
from ._plan import Plan as Plan

if _typing.TYPE_CHECKING:
    from . import adapters as adapters
    from . import filters as filters
    from . import nn as nn
    from . import random as random
    from ._ensemble.lazy import Lazy as Lazy
    from ._ensemble.single import Single as Single
    from ._ensemble.single import single as single
    from ._random.accelerate import accelerate as accelerate
    from ._store.format import StoreError as StoreError
    from ._store.saved import Saved as Saved
    from ._store.saved import load as load
    from ._trace import GlobalRandomWarning as GlobalRandomWarning
    from ._trust.selfcheck import SelfCheckWarning as SelfCheckWarning
    from .cli._race import bench as bench

if _os.environ.get("SEEDBED_LOG"):
    from ._base import log as _log

    _log.show(_os.environ["SEEDBED_LOG"])

# Imported when they are first used: most programs need few of them.
_MODULES = ("adapters", "filters", "nn", "random")
_ELSEWHERE = {
    "accelerate": "_random.accelerate",
    "bench": "cli._race",
    "GlobalRandomWarning": "_trace",
    "load": "_store.saved",
    "Saved": "_store.saved",
    "SelfCheckWarning": "_trust.selfcheck",
    "Lazy": "_ensemble.lazy",
    "Single": "_ensemble.single",
    "single": "_ensemble.single",
    "StoreError": "_store.format",
}

__all__ = [
    "Ensemble",
    "GlobalRandomWarning",
    "Lazy",
    "Plan",
    "Saved",
    "SelfCheckWarning",
    "Single",
    "StoreError",
    "accelerate",
    "adapters",
    "bench",
    "ensemble",
    "filters",
    "load",
    "nn",
    "prng",
    "random",
    "single",
]


def __getattr__(name: str) -> _typing.Any:
    if name in _MODULES:
        return _importlib.import_module(f"{__name__}.{name}")
    if name not in _ELSEWHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(_importlib.import_module(f"{__name__}.{_ELSEWHERE[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
