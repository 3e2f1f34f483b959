"""Self-check: which native kernels agree with the installed XLA, found out before the first use.

The kernels repeat XLA's float arithmetic operation by operation. Another XLA, or one told to
use other instructions, may compute otherwise, and then a kernel must not be used. So each
kernel makes about 4,096 values of every fixed case (`CASES`), and their digest is compared
with that of XLA's values:

- shipped ones (``_golden.json``), for the jaxlib releases and processors they were made on:
  this is the usual way, takes about a millisecond and compiles nothing;
- otherwise those of an earlier measurement on this machine, read from the cache directory;
- otherwise XLA is run once, and its digests are put into that directory.

A kernel whose digests differ is not trusted. The planner then leaves that step to XLA, on
top of an earlier step that is trusted, so numbers stay right and only time is lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np

from . import _compat, _native
from ._draw import Draw, KeyPath, Kind, Level
from ._meaning import words
from ._plan import ALL_KERNELS

Digests = dict[str, str]

COUNT = 4096
_KEY = (0x5EEDBED0, 0x9E3779B9)
_FORMAT = 1
GOLDEN = Path(__file__).with_name("_golden.json")

# Key, counter and result of threefry2x32 with 20 rounds, made with Random123's own C header.
KNOWN_ANSWERS = (
    ((0x00000000, 0x00000000), (0x00000000, 0x00000000), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x5EEDBED0, 0x9E3779B9), (0x00000000, 0x00000001), (0xBE3296C4, 0x38817100)),
    ((0x5EEDBED0, 0x9E3779B9), (0x00000001, 0x00000000), (0x189D6BF1, 0x40C1066E)),
    ((0x00000000, 0x00000001), (0x00000000, 0xFFFFFFFF), (0x45ECD01C, 0xEFFC9CBD)),
    ((0x00000001, 0x00000000), (0x80000000, 0x00000000), (0xE443B1C0, 0x35A872CF)),
    ((0x01234567, 0x89ABCDEF), (0xFEDCBA98, 0x76543210), (0x8EC29833, 0x0526F298)),
    ((0x7FFFFFFF, 0x80000001), (0x00000003, 0x00000005), (0xEB275ACC, 0x74E9D01E)),
)

# Flags of XLA that leave the arithmetic on the CPU alone. Any other one calls for a measurement.
_HARMLESS_FLAGS = (
    "--xla_force_host_platform_device_count",
    "--xla_dump_",
    "--xla_gpu_",
    "--xla_tpu_",
    "--xla_cpu_multi_thread_eigen",
)


class SelfCheckWarning(RuntimeWarning):
    """A native kernel differs from XLA on this machine and is not used."""


# --- the fixed cases ----------------------------------------------------------------------


def _draw(index: int, kind: Kind, word_bits: int, dtype: str, *params: int) -> Draw:
    path = KeyPath(levels=(Level(index),))
    return Draw(kind, path, COUNT, word_bits, dtype, (COUNT,), params)


def _floats(word_bits: int, *values: float) -> tuple[int, ...]:
    return words(values, np.float64 if word_bits == 64 else np.float32)


def _cases() -> tuple[Draw, ...]:
    """One draw or more for each kernel; a draw's key is the root key folded with its position."""
    infinity, below_one = math.inf, float(np.nextafter(np.float32(-1), np.float32(0)))
    root_two = float(np.float32(math.sqrt(2.0)))
    truncated = (1.9089994430541992, -0.9544997215270996, root_two, -1.9999998807907104)
    f32, f64 = np.dtype(np.float32).name, np.dtype(np.float64).name
    made: list[Draw] = []

    def add(kind: Kind, bits: int, dtype: str, params: tuple[int, ...] = ()) -> None:
        made.append(_draw(len(made), kind, bits, dtype, *params))

    for bits in (8, 16, 32, 64):
        add(Kind.BITS, bits, f"uint{bits}")
    # randint [-7, 1000): span, 2^32 mod span, first value as a 32-bit word.
    add(Kind.RANDINT, 32, "int32", (1007, (1 << 32) % 1007, (1 << 32) - 7))
    add(Kind.UNIFORM, 32, f32, _floats(32, 1.0, 0.0, 1.0, -0.0))
    add(Kind.UNIFORM, 32, f32, _floats(32, 15.0, -3.7, 1.0, -0.0))
    add(Kind.UNIFORM, 32, f32, _floats(32, 2.0, -1.0, 0.17, 0.3))
    add(Kind.NORMAL, 32, f32, _floats(32, 2.0, below_one, 1.0, -infinity, infinity, root_two, -0.0))
    add(Kind.NORMAL, 32, f32, _floats(32, *truncated, -truncated[3], 0.17, -0.0))
    add(Kind.NORMAL, 32, f32, _floats(32, *truncated, -truncated[3], 0.17, 0.3))
    add(Kind.BERNOULLI, 32, "bool", _floats(32, 1.0, 0.0, 0.3))
    add(Kind.UNIFORM, 64, f64, _floats(64, 1.0, 0.0, 1.0, -0.0))
    add(Kind.UNIFORM, 64, f64, _floats(64, 15.0, -3.7, 1.0, -0.0))
    add(Kind.UNIFORM, 64, f64, _floats(64, 2.0, -1.0, 0.17, 0.3))
    add(Kind.BERNOULLI, 64, "bool", _floats(64, 1.0, 0.0, 0.3))
    return tuple(made)


CASES = _cases()


def chain(draw: Draw) -> Callable[[jax.Array], jax.Array]:
    """The values of a float draw from its random words, in the operations that XLA gets.

    Args:
        draw: of kind ``UNIFORM``, ``NORMAL`` or ``BERNOULLI``.

    Returns:
        A function of ``uint32`` or ``uint64`` words, of any shape, to be jitted.
    """
    real: Any = np.float64 if draw.word_bits == 64 else np.float32
    unsigned: Any = np.uint64 if draw.word_bits == 64 else np.uint32
    drop, one = (12, 0x3FF0000000000000) if draw.word_bits == 64 else (9, 0x3F800000)
    span, low, *rest = (real(value) for value in draw.floats())

    def values(word: jax.Array) -> jax.Array:
        mantissa = jax.lax.shift_right_logical(word, jnp.full_like(word, drop))
        unit = jax.lax.bitcast_convert_type(mantissa | unsigned(one), real) - real(1)
        value = jnp.maximum(low, unit * span + low)
        if draw.kind is Kind.BERNOULLI:
            return jnp.less(value, rest[0])
        if draw.kind is Kind.NORMAL:
            factor, clip_low, clip_high = rest[:3]
            value = jax.lax.erf_inv(value)
            value = value if factor == 1 else value * factor
            if not math.isinf(clip_low):
                value = jnp.clip(value, clip_low, clip_high)
        scale, shift = rest[-2:]
        value = value if scale == 1 else value * scale
        return value if shift == 0 else jnp.add(value, shift)

    return values


# --- native values ------------------------------------------------------------------------


def known_answers(module: Any, isa: str | None = None) -> int:
    """How many of `KNOWN_ANSWERS` the extension's cipher gets wrong."""
    keys, counters, results = (
        np.array([answer[part] for answer in KNOWN_ANSWERS], np.uint32) for part in range(3)
    )
    out = np.zeros_like(results)
    module.threefry(keys, counters, out, isa=isa)
    return int((out != results).any(axis=1).sum())


def native_values(
    module: Any, draws: tuple[Draw, ...], isa: str | None = None
) -> list[np.ndarray[Any, Any]]:
    """What the extension makes of ``draws`` for one member with a fixed key."""
    key, members = np.array([_KEY], np.uint32), np.zeros(2, np.uint32)
    out = [np.zeros(draw.shape, draw.dtype) for draw in draws]
    # Booleans travel as bytes: not every NumPy dtype has a name in the extension.
    views = [array.view(f"u{array.itemsize}") for array in out]
    module.run_plan(_native.encode(draws), _native.KEYS, 1, key, members, views, isa=isa)
    return out


def digests(values: list[np.ndarray[Any, Any]]) -> Digests:
    """One digest for each kernel over the values of its `CASES`."""
    sums = {kernel: hashlib.blake2b(digest_size=16) for kernel in sorted(ALL_KERNELS)}
    for draw, array in zip(CASES, values, strict=True):
        sums[draw.needs].update(array.tobytes())
    return {kernel: made.hexdigest() for kernel, made in sums.items()}


# --- XLA's values -------------------------------------------------------------------------


def measure(module: Any) -> Digests:
    """XLA's digests on this machine: compiles and runs every case on the CPU."""
    floats = [draw for draw in CASES if draw.needs != "bits"]
    plain = tuple(
        Draw(Kind.BITS, draw.key, COUNT, draw.word_bits, f"uint{draw.word_bits}", draw.shape)
        for draw in floats
    )
    from_words = native_values(module, plain)

    def every_case(root: jax.Array, supplied: list[jax.Array]) -> list[jax.Array]:
        remaining = iter(supplied)
        return [
            _random(draw, root) if draw.needs == "bits" else chain(draw)(next(remaining))
            for draw in CASES
        ]

    with xla_on_cpu():
        root = jax.random.wrap_key_data(jnp.array(_KEY, jnp.uint32), impl="threefry2x32")
        made = jax.jit(every_case)(root, from_words)
        return digests([np.asarray(array) for array in made])


def _random(draw: Draw, root: jax.Array) -> jax.Array:
    """A draw of words or integers by `jax.random`: its definition of them may change as well."""
    key = jax.random.fold_in(root, draw.key.levels[0].base)
    if draw.kind is Kind.RANDINT:
        return jax.random.randint(key, draw.shape, -7, 1000, draw.dtype)
    return jax.random.bits(key, draw.shape, draw.dtype)


@contextlib.contextmanager
def xla_on_cpu() -> Iterator[None]:
    """Runs jax at once, compiled, on the CPU, whatever is being traced or configured outside."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_compat.compile_time_eval())
        stack.enter_context(jax.default_device(jax.local_devices(backend="cpu")[0]))
        for setting in (
            jax.enable_x64(True),
            jax.disable_jit(False),
            jax.threefry_partitionable(True),
            jax.transfer_guard("allow"),
            jax.debug_key_reuse(False),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        ):
            stack.enter_context(setting)
        yield


# --- what XLA's values should be ----------------------------------------------------------


def golden() -> dict[str, dict[str, Digests]]:
    """The shipped digests of XLA's values, by machine and jaxlib release."""
    with GOLDEN.open(encoding="utf-8") as file:
        return dict(json.load(file)["machines"])


def machine() -> str:
    """Name of the processor's architecture."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(name, name)


def _flags() -> list[str]:
    """XLA's flags that may alter arithmetic on the CPU. XLA reads a file if it gets a name."""
    text = os.environ.get("XLA_FLAGS", "").strip()
    if text and not text.startswith("-"):
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = f"{text} {Path(text).read_text(encoding='utf-8')}"
    return [flag for flag in text.split() if not flag.startswith(_HARMLESS_FLAGS)]


def surroundings(module: Any) -> dict[str, Any]:
    """Everything that XLA's values may depend on, as far as it can be known."""
    config: Any = jax.config
    compiler = ("jax_disable_most_optimizations", "jax_optimization_level")
    return {
        "format": _FORMAT,
        "seedbed": module.version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.version.__version__,
        "machine": machine(),
        "isas": list(module.isas()),
        "xla_flags": _flags(),
        "compiler": [name for name in compiler if not _is_default(config, name)],
    }


def _is_default(config: Any, name: str) -> bool:
    """Whether one of jax's compiler settings is as shipped, or unknown to this jax."""
    value = getattr(config, "values", {}).get(name)
    return value in (None, False) or getattr(value, "name", value) == "UNKNOWN"


def why_not_golden(situation: Mapping[str, Any], known: Mapping[str, Any]) -> str | None:
    """Why the shipped digests do not apply here, or None if they do."""
    if not known:
        return f"no golden values for {situation['machine']}"
    for package in ("jaxlib", "jax"):
        if situation[package] not in known:
            return f"no golden values for {package} {situation[package]}"
    # The name of the kernels that need, besides AVX2, the fused multiply-add that XLA would use.
    if situation["machine"] == "x86_64" and "avx2" not in situation["isas"]:
        return "the processor has no fused multiply-add"
    if situation["xla_flags"]:
        return f"XLA_FLAGS has {' '.join(situation['xla_flags'])}"
    if situation["compiler"]:
        return f"{' and '.join(situation['compiler'])} is set"
    return None


def _expected(module: Any) -> tuple[Digests, str]:
    """XLA's digests, and how they were come by."""
    situation = surroundings(module)
    known = golden().get(situation["machine"], {})
    reason = why_not_golden(situation, known)
    if reason is None:
        release: str = situation["jaxlib"]
        return known[release], f"golden values for jaxlib {release}"
    situation["processor"] = _processor()
    path = _cache_path(situation)
    cached = _read_cache(path, situation)
    if cached is not None:
        return cached, f"measured earlier on this machine ({reason}), kept in {path}"
    measured = measure(module)
    kept = _write_cache(path, situation, measured)
    return measured, f"measured now ({reason}), {f'kept in {path}' if kept else 'not kept'}"


# --- the cache on disk --------------------------------------------------------------------


def _processor() -> str:
    """A digest of the processor's model and features."""
    lines = {platform.processor()}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = ("model name", "flags", "Features", "CPU part")
            lines |= {line for line in file if line.startswith(names)}
    return hashlib.blake2b("".join(sorted(lines)).encode(), digest_size=8).hexdigest()


def _cache_path(situation: Mapping[str, Any]) -> Path | None:
    """Where the digests for a situation are kept; None without a home directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    except RuntimeError:
        return None
    name = hashlib.blake2b(json.dumps(situation, sort_keys=True).encode(), digest_size=8)
    return folder / "seedbed" / f"selfcheck-{name.hexdigest()}.json"


def _read_cache(path: Path | None, situation: Mapping[str, Any]) -> Digests | None:
    """The digests in a file of the cache, or None if there are none that can be used."""
    if path is None:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = content["digests"]
        usable = content["situation"] == situation and found.keys() == ALL_KERNELS
        return dict(found) if usable else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _write_cache(path: Path | None, situation: Mapping[str, Any], found: Digests) -> bool:
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
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False
    return True


# --- the verdict --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of the self-check.

    Attributes:
        trusted: the kernels that may be used.
        differing: the kernels that may not.
        source: where XLA's values came from.
    """

    trusted: frozenset[str]
    differing: tuple[str, ...]
    source: str

    def __str__(self) -> str:
        if not self.differing:
            return f"all {len(self.trusted)} kernels agree with XLA: {self.source}"
        return f"differ from XLA, so not used: {', '.join(self.differing)}: {self.source}"


_lock = threading.Lock()
_report: Report | None = None


def report() -> Report:
    """The outcome of the self-check, which runs once a process.

    Raises:
        RuntimeError: there is no extension to check.
        ValueError: ``SEEDBED_ISA`` names no instruction set of this machine.
    """
    global _report
    with _lock:
        if _report is not None:
            return _report
        module, problem = _native.load()
        if module is None:
            raise RuntimeError(problem)
        found = _report = _compare(module)
    # After the verdict is kept, and outside the lock: a filter may turn the warning into an error.
    if found.differing:
        warnings.warn(_message(found), SelfCheckWarning, stacklevel=2)
    return found


def trusted() -> frozenset[str]:
    """Names of the kernels (`_plan.ALL_KERNELS`) that give the installed XLA's bits."""
    return report().trusted


def _compare(module: Any) -> Report:
    module.isa()  # An unknown SEEDBED_ISA is the user's mistake, not a kernel's.
    if known_answers(module):
        return Report(frozenset(), tuple(sorted(ALL_KERNELS)), "known answers of the cipher")
    mine = digests(native_values(module, CASES))
    try:
        expected, source = _expected(module)
    except Exception as error:  # whatever stops XLA here must not stop the program
        bits = frozenset(["bits"])
        problem = f"XLA could not be asked ({type(error).__name__}: {error})"
        return Report(bits, tuple(sorted(ALL_KERNELS - bits)), problem)
    agree = frozenset(kernel for kernel in mine if mine[kernel] == expected.get(kernel))
    if "bits" not in agree:  # everything else is made of them
        agree = frozenset()
    return Report(agree, tuple(sorted(ALL_KERNELS - agree)), source)


def _message(found: Report) -> str:
    names = ", ".join(found.differing)
    return (
        f"native kernels not used here, as they do not give XLA's bits: {names} ({found.source}). "
        "Numbers stay right: XLA makes these draws itself, which is slower. "
        "`seedbed doctor` shows details."
    )
