"""The GPU that is measured: what it is, its clock while it works, and what bounds a draw on it."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

# Operations that one multiprocessor issues in a clock, by pipe (compute capabilities 8.6 to 9.0):
# integer logic and additions; integer multiplications; floating point with these; all together.
RATES = {"alu": 64, "imad": 64, "fma": 128, "issue": 128}
# The cipher of one element and its xor: 73 integer operations, counted in its definition.
DEFAULT_OPS = {"alu": 73}


def query(*fields: str) -> list[str]:
    """What nvidia-smi says of the first GPU; nothing where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [value.strip() for value in (done.stdout.splitlines() or [""])[0].split(",")]


def describe(device: Any) -> dict[str, Any]:
    """The device that jax computes on, as plain data."""
    fields = ("name", "driver_version", "memory.total", "clocks.max.sm", "clocks.max.memory")
    found = dict(zip(fields, query(*fields), strict=False))
    return {
        "platform": device.platform,
        "name": device.device_kind,
        "processors": getattr(device, "core_count", None),
        "compute_capability": getattr(device, "compute_capability", None),
        **({"nvidia_smi": found} if found else {}),
    }


def memory_bytes() -> float:
    found = query("memory.total")
    return float(found[0]) * (1 << 20) if found and found[0] else float("inf")


class Clock:
    """Reads the clock of the multiprocessors, in MHz, while it is entered."""

    def __init__(self, seconds: float = 0.02) -> None:
        self.samples: list[int] = []
        self._seconds = seconds
        self._read = _reader()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Clock:
        if self._read is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._read is not None:
            self._thread.join()

    def median(self) -> float | None:
        return statistics.median(self.samples) if self.samples else None

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            try:
                self.samples.append(int(self._read()))
            except Exception:  # of a driver that does not tell
                return


def _reader() -> Any:
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return lambda: pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
    except Exception:  # it is not installed, or there is no driver
        return (lambda: query("clocks.sm")[0]) if query("clocks.sm") else None


def issue_seconds(
    elements: int, ops: Mapping[str, float], processors: int | None, mhz: float | None
) -> float | None:
    """The least time in which the operations of so many elements can be issued.

    Args:
        ops: operations of one element, by the names of `RATES`.
    """
    if not processors or not mhz:
        return None
    clocks = max((ops[name] / RATES[name] for name in ops if name in RATES), default=0.0)
    return elements * clocks / (processors * mhz * 1e6)
