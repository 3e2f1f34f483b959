"""What is known beforehand about XLA's arithmetic: facts shipped for released jaxlibs.

``known.json`` is made by ``tools/make_golden.py``, which runs XLA under each release. The
facts hold for that machine's kind of processor and for an XLA without flags that alter its
arithmetic; anything else has to be measured where it runs.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import platform
from pathlib import Path
from typing import Any

import jax
import jaxlib.version

PATH = Path(__file__).with_name("known.json")

# Flags of XLA that leave the arithmetic on the CPU alone. Any other one calls for a measurement.
_HARMLESS_FLAGS = (
    "--xla_force_host_platform_device_count",
    "--xla_dump_",
    "--xla_gpu_",
    "--xla_tpu_",
    "--xla_cpu_multi_thread_eigen",
)
# Settings of jax that do the same as flags.
_COMPILER_SETTINGS = ("jax_disable_most_optimizations", "jax_optimization_level")


def table() -> dict[str, dict[str, dict[str, Any]]]:
    """All shipped facts, by machine and jaxlib release."""
    with PATH.open(encoding="utf-8") as file:
        return dict(json.load(file)["machines"])


@functools.cache
def _here() -> dict[str, dict[str, Any]]:
    return table().get(machine(), {})


def machine() -> str:
    """Name of the processor's architecture."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(name, name)


def versions() -> dict[str, str]:
    """The releases that decide what is computed."""
    return {"jaxlib": jaxlib.version.__version__, "jax": jax.__version__}


def situation() -> dict[str, Any]:
    """Everything but the processor's features that XLA's arithmetic may depend on."""
    return {"machine": machine(), **versions(), "flags": _flags(), "settings": _settings()}


def why_unknown() -> str | None:
    """Why no facts are shipped for this release and architecture, or None if they are."""
    if not _here():
        return f"no golden values for {machine()}"
    for package, version in versions().items():
        if version not in _here():
            return f"no golden values for {package} {version}"
    return None


def why_altered() -> str | None:
    """What was set that may alter XLA's arithmetic, or None."""
    if flags := _flags():
        return f"XLA_FLAGS has {' '.join(flags)}"
    if settings := _settings():
        return f"{' and '.join(settings)} is set"
    return None


def facts() -> dict[str, Any]:
    """The facts for the running jaxlib (`why_unknown` is None): digests and the rest."""
    return _here()[versions()["jaxlib"]]


def log1p_near() -> float | None:
    """Where XLA changes between its two ways to ``log1p``, or None if it has to be asked."""
    if why_unknown() or why_altered():
        return None
    return facts().get("log1p_near")


def merges_factors() -> bool | None:
    """Whether XLA turns ``(x * a) * b`` into ``x * (a * b)``, or None if it has to be asked."""
    if why_unknown() or why_altered():
        return None
    return bool(facts()["merges_factors"])


def flat_rows() -> bool | None:
    """Whether XLA rounds normals in rows of 3, 4 and 5, and logarithms in rows of 2 to 8, as in any
    others, or None if it has to be asked."""
    if why_unknown() or why_altered():
        return None
    return bool(facts()["flat_rows"])


def _flags() -> list[str]:
    """XLA's flags that may alter arithmetic on the CPU. XLA reads a file if it gets a name."""
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("-"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = f"{text} {Path(text).read_text(encoding='utf-8')}"
    return [flag for flag in text.split() if not flag.startswith(_HARMLESS_FLAGS)]


def _settings() -> list[str]:
    values: dict[str, Any] = getattr(jax.config, "values", {})
    return [name for name in _COMPILER_SETTINGS if not _is_default(values.get(name))]


def _is_default(value: Any) -> bool:
    return value in (None, False) or getattr(value, "name", value) == "UNKNOWN"
