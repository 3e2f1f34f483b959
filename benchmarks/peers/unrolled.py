"""Switches this process to jax's own unrolled CPU lowering of threefry.

jax has two lowerings of the threefry primitive: a rolled loop, which is its default on the CPU,
and an unrolled one, which gives the same bits several times faster and may become the default
in any release. It is the peer to beat. It is reached through private names, so it belongs to
the benchmarks and not to the package, and a jax that has moved them makes the peer unavailable
with a reason, not wrong.
"""

from __future__ import annotations

import importlib
from typing import Any

from .roster import Unavailable

# Newest first: where jax releases keep the primitive.
_MODULES = ("jax._src.random.threefry2x32", "jax._src.prng")
_UNROLLED, _CPU = "_threefry2x32_lowering_rule", "_threefry2x32_cpu_lowering_rule"


def _rules() -> Any:
    """The module that holds the primitive and both lowering rules."""
    for name in _MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        if all(hasattr(module, attribute) for attribute in ("threefry2x32_p", _UNROLLED, _CPU)):
            return module
    import jax

    raise Unavailable(
        f"jax {jax.__version__} has no {_UNROLLED} beside {_CPU} in {' or '.join(_MODULES)}"
    )


def lowering() -> str:
    """Which lowering this process uses: ``rolled`` or ``unrolled``."""
    import jax
    import numpy as np

    text = jax.jit(jax.random.bits).lower(np.zeros(2, np.uint32)).as_text()
    return "rolled" if "stablehlo.while" in text else "unrolled"


def install() -> None:
    """Makes the unrolled lowering this process's own. Call it before anything is compiled.

    Raises:
        Unavailable: this jax has no such lowering, or does not use it when told to.
    """
    module = _rules()
    try:
        from jax._src.interpreters import mlir
    except ImportError as error:
        raise Unavailable(f"jax's lowering rules cannot be replaced: {error}") from None
    # Out of line, as jax registers it for the other platforms: much cheaper to compile.
    mlir.register_lowering(
        module.threefry2x32_p, getattr(module, _UNROLLED), platform="cpu", inline=False
    )
    if lowering() != "unrolled":
        raise Unavailable("jax still lowers threefry as a loop after its rule was replaced")
