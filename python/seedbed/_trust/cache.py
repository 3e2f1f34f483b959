"""Digests of XLA's values that were measured on this machine, kept on disk for later processes.

``SEEDBED_CACHE`` says where: a folder, or ``off`` for nowhere. By default it is ``seedbed`` in the
user's folder of caches.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# A file for each jaxlib, set of flags and build that was used here; older ones are removed.
KEPT = 16


def processor() -> str:
    """A digest of the processor's model and features."""
    lines = {platform.processor()}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = ("model name", "flags", "Features", "CPU part")
            lines |= {line for line in file if line.startswith(names)}
    return hashlib.blake2b("".join(sorted(lines)).encode(), digest_size=8).hexdigest()


def folder() -> Path | None:
    """Where the digests are kept; None if they are not, or without a home directory."""
    chosen = os.environ.get("SEEDBED_CACHE", "")
    if chosen == "off":
        return None
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(base) if os.path.isabs(base) else Path.home() / ".cache") / "seedbed"
    except RuntimeError:
        return None


def path_of(situation: Mapping[str, Any]) -> Path | None:
    """Where the digests for a situation are kept; None if they are not."""
    inside = folder()
    if inside is None:
        return None
    name = hashlib.blake2b(json.dumps(situation, sort_keys=True).encode(), digest_size=8)
    return inside / f"selfcheck-{name.hexdigest()}.json"


def read(
    path: Path | None, situation: Mapping[str, Any], kernels: frozenset[str]
) -> dict[str, str] | None:
    """The kernels' digests in a file of the cache, or None if there are none that can be used."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["digests"]
        usable = content["situation"] == situation and found.keys() == kernels
        return dict(found) if usable else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def write(path: Path | None, situation: Mapping[str, Any], found: dict[str, str]) -> bool:
    """Keeps digests for later processes; a full or read-only disk only costs time later."""
    if path is None:
        return False
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another process may be doing the same: whole files replace each other.
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with open(handle, "w", encoding="utf-8") as file:
            json.dump({"situation": situation, "digests": found}, file, indent=1)
        os.replace(temporary, path)
        for old in _files(path.parent)[KEPT:]:
            _remove(old)
    except OSError:
        if temporary is not None:
            _remove(Path(temporary))
        return False
    return True


def clear() -> tuple[Path | None, int]:
    """Removes all digests: the folder that they were in, and how many files went."""
    inside = folder()
    found = [] if inside is None else _files(inside)
    return inside, sum(map(_remove, found))


def _files(inside: Path) -> list[Path]:
    """The files of the cache, newest first; nobody else's."""
    dated = []
    for path in inside.glob("selfcheck-*.json"):
        with contextlib.suppress(OSError):  # another process may be clearing up, too
            dated.append((path.stat().st_mtime, path))
    return [path for _, path in sorted(dated, reverse=True)]


def _remove(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.unlink()
        return True
    return False
