"""Self-check: which native kernels agree with the installed XLA, found out before the first use.

The kernels repeat XLA's float arithmetic operation by operation. Another XLA, or one told to
use other instructions, may compute otherwise, and then a kernel must not be used. So each
kernel makes the values of every fixed case (`_trust.cases.CASES`), 4,096 or more each, and their
digest is compared with that of XLA's values:

- shipped ones (``_jax.known.json``), for the jaxlib releases and processors they were made on:
  this is the usual way, takes about a millisecond and compiles nothing;
- otherwise those of an earlier measurement on this machine, read from the cache directory;
- otherwise XLA is run once, and its digests are put into that directory.

Float64 normals call the C library's ``log``, as XLA does. Where that is not the one that the
shipped digests were made with, XLA is run as well.

A kernel whose digests differ is not trusted. The planner then leaves that step to XLA, on
top of an earlier step that is trusted, so numbers stay right and only time is lost.
"""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._base.record import Record
from .._jax import compat, known, lowering
from .._plan import ALL_KERNELS, CUDA_KERNELS, RECORDS, Draw, KeyMode, Kind, kernel_of
from .._run import native
from .cases import CASES, KNOWN_ANSWERS

Digests = dict[str, str]

_KEY = (0x5EEDBED0, 0x9E3779B9)
_FORMAT = 1

# The cases of the kernel whose last bits are the C library's, and those for CUDA.
_LIBRARY = "normal64"
_LIBRARY_CASES = tuple(draw for draw in CASES if draw.needs == _LIBRARY)
_CUDA_CASES = tuple(draw for draw in CASES if draw.needs in CUDA_KERNELS)

# Kernels that contain another one's arithmetic, in order. The comparison that ends a bernoulli
# draw would hide nearly every difference in its uniform.
_BUILT_ON = {
    kernel_of(kind, bits): kernel_of(record.built_on, bits)
    for kind, record in RECORDS.items()
    if record.built_on is not None
    for bits, _ in record.forms
}


class SelfCheckWarning(RuntimeWarning):
    """A native kernel differs from XLA on this machine and is not used."""


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
    module.run_plan(native.encode(draws), KeyMode.MEMBER_KEYS, 1, key, members, views, isa=isa)
    return out


def cuda_values(draws: tuple[Draw, ...]) -> list[np.ndarray[Any, Any]]:
    """What the CUDA kernels make of ``draws`` for one member with a fixed key."""
    with lowering.xla_on("cuda"):
        call = functools.partial(native.call, draws, KeyMode.MEMBER_KEYS, 1)
        made = jax.jit(call)(np.array([_KEY], np.uint32))
        return [np.asarray(array)[0] for array in made]


def digests(values: list[np.ndarray[Any, Any]], cases: tuple[Draw, ...] = CASES) -> Digests:
    """One digest for each kernel over the values of its cases."""
    kernels = sorted({draw.needs for draw in cases})
    sums = {kernel: hashlib.blake2b(digest_size=16) for kernel in kernels}
    for draw, array in zip(cases, values, strict=True):
        sums[draw.needs].update(array.tobytes())
    return {kernel: made.hexdigest() for kernel, made in sums.items()}


# --- XLA's values -------------------------------------------------------------------------


def measure(module: Any, platform: str = "cpu") -> Digests:
    """XLA's digests on this machine: compiles and runs every case on a device of the platform."""
    from .._run.formula import chain

    cases = _CUDA_CASES if platform == "cuda" else CASES
    floats = [draw for draw in cases if draw.needs != "bits"]
    plain = tuple(
        Draw(Kind.BITS, draw.key, draw.inner, draw.word_bits, f"uint{draw.word_bits}", draw.shape)
        for draw in floats
    )
    from_words = native_values(module, plain)

    def every_case(root: jax.Array, supplied: list[jax.Array]) -> list[jax.Array]:
        remaining = iter(supplied)
        return [
            _random(draw, root) if draw.needs == "bits" else chain(draw)(next(remaining))
            for draw in cases
        ]

    with lowering.xla_on(platform):
        root = jax.random.wrap_key_data(jnp.array(_KEY, jnp.uint32), impl="threefry2x32")
        made = jax.jit(every_case)(root, from_words)
        return digests([np.asarray(array) for array in made], cases)


def _random(draw: Draw, root: jax.Array) -> jax.Array:
    """A draw of words or integers by `jax.random`: its definition of them may change as well."""
    key = jax.random.fold_in(root, draw.key.node.index)
    if draw.kind is Kind.RANDINT:
        return jax.random.randint(key, draw.shape, -7, 1000, draw.dtype)
    return jax.random.bits(key, draw.shape, draw.dtype)


# --- what XLA's values should be ----------------------------------------------------------


def why_measure(module: Any) -> str | None:
    """Why XLA's arithmetic here may not be that of the shipped digests, or None."""
    # The kernels called avx2 need, beside AVX2, the fused multiply-add that XLA then uses.
    if known.machine() == "x86_64" and "avx2" not in module.isas():
        return "the processor has no fused multiply-add"
    return known.why_altered()


def _expected(module: Any) -> tuple[Digests, str]:
    """XLA's digests, and how they were come by."""
    library = digests(native_values(module, _LIBRARY_CASES), _LIBRARY_CASES)[_LIBRARY]
    reason = why_measure(module) or known.why_unknown()
    if reason is None:
        golden = known.facts()["digests"]
        if golden.get(_LIBRARY) == library:
            return golden, f"golden values for jaxlib {known.versions()['jaxlib']}"
        reason = "the C library's log has no golden values"
    from . import cache  # golden values spare most processes what it imports

    situation = {
        "format": _FORMAT,
        "seedbed": module.version(),
        "isas": list(module.isas()),
        "processor": cache.processor(),
        "log": library,
        **known.situation(),
    }
    return _measured(module, "cpu", situation, reason)


def _expected_of_cuda(module: Any) -> tuple[Digests, str]:
    """Those of XLA on this machine's first CUDA device, and how they were come by."""
    device = compat.first_device("cuda")
    situation = {
        "format": _FORMAT,
        "seedbed": module.version(),
        "device": device.device_kind,
        "platform": device.client.platform_version,
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        **known.situation(),
    }
    return _measured(module, "cuda", situation, "no golden values for GPUs")


def _measured(
    module: Any, platform: str, situation: Mapping[str, Any], reason: str
) -> tuple[Digests, str]:
    from . import cache

    path = cache.path_of(situation)
    kernels = CUDA_KERNELS if platform == "cuda" else ALL_KERNELS
    cached = cache.read(path, situation, kernels)
    if cached is not None:
        return cached, f"measured earlier on this machine ({reason}), kept in {path}"
    measured = measure(module, platform)
    kept = cache.write(path, situation, measured)
    return measured, f"measured now ({reason}), {f'kept in {path}' if kept else 'not kept'}"


# --- the verdict --------------------------------------------------------------------------


class Report(Record):
    """The outcome of the self-check.

    Attributes:
        trusted: the kernels that may be used.
        differing: the kernels that may not, as they give other values.
        source: where XLA's values came from.
        lacking: the kernels that may not, as the source has no values for them.
    """

    trusted: frozenset[str]
    differing: tuple[str, ...]
    source: str
    lacking: tuple[str, ...] = ()

    def __str__(self) -> str:
        if not (self.differing or self.lacking):
            return f"all {len(self.trusted)} kernels agree with XLA: {self.source}"
        differ, no_digest = ", ".join(self.differing), ", ".join(self.lacking)
        said = [f"differ from XLA, so not used: {differ}"] if differ else []
        said += [f"have no digest, so not used: {no_digest}"] if no_digest else []
        return f"{'; '.join(said)}: {self.source}"


_lock = threading.Lock()
_reports: dict[str, Report] = {}


def report(platform: str = "cpu") -> Report:
    """The outcome of the self-check of the kernels for ``cpu`` or ``cuda``, once a process.

    Raises:
        RuntimeError: there are no kernels to check.
        ValueError: ``SEEDBED_ISA`` names no instruction set of this machine.
    """
    with _lock:
        if platform in _reports:
            return _reports[platform]
        module, problem = native.load()
        if platform == "cuda":
            problem = native.load_cuda()[1]
        if module is None or problem:
            raise RuntimeError(problem)
        compare = _compare_cuda if platform == "cuda" else _compare
        found = _reports[platform] = compare(module)
    # After the verdict is kept, and outside the lock: a filter may turn the warning into an error.
    if found.differing or found.lacking:
        warnings.warn(_message(found), SelfCheckWarning, stacklevel=2)
    return found


def trusted() -> frozenset[str]:
    """Names of the kernels (`_plan.plan.ALL_KERNELS`) that give the installed XLA's bits, on every
    platform that a program planned now may run on."""
    if compat.platform() != "cuda":
        return report().trusted
    found = report("cuda").trusted
    return found & report().trusted if compat.has_platform("cpu") else found


def _compare(module: Any) -> Report:
    module.isa()  # An unknown SEEDBED_ISA is the user's mistake, not a kernel's.
    if known_answers(module):
        return Report(frozenset(), tuple(sorted(ALL_KERNELS)), "known answers of the cipher")
    # What a float64 kernel needs to know of XLA may have to be asked, too.
    return _verdict(
        ALL_KERNELS, lambda: digests(native_values(module, CASES)), lambda: _expected(module)
    )


def _compare_cuda(module: Any) -> Report:
    try:
        mine = digests(cuda_values(_CUDA_CASES), _CUDA_CASES)
    except jax.errors.JaxRuntimeError as error:  # a driver that is too old, say
        problem = f"the kernels do not run ({error})"
        return Report(frozenset(), tuple(sorted(CUDA_KERNELS)), problem)
    return _verdict(CUDA_KERNELS, lambda: mine, lambda: _expected_of_cuda(module))


def _verdict(
    kernels: frozenset[str], make: Callable[[], Digests], ask: Callable[[], tuple[Digests, str]]
) -> Report:
    try:
        mine = make()
        expected, source = ask()
    except Exception as error:  # whatever stops XLA here must not stop the program
        bits = frozenset(["bits"])
        problem = f"XLA could not be asked ({type(error).__name__}: {error})"
        return Report(bits, tuple(sorted(kernels - bits)), problem)
    lacking = mine.keys() - expected.keys()
    agree = {kernel for kernel in mine if mine[kernel] == expected.get(kernel)}
    for kernel, base in _BUILT_ON.items():
        if base not in agree:
            agree.discard(kernel)
        if base in lacking:
            lacking.add(kernel)
    differing = mine.keys() - agree - lacking
    return Report(frozenset(agree), tuple(sorted(differing)), source, tuple(sorted(lacking)))


def _message(found: Report) -> str:
    why = {
        "they do not give XLA's bits": found.differing,
        "there is no digest of XLA's values for them": found.lacking,
    }
    said = "; or as ".join(f"{reason}: {', '.join(them)}" for reason, them in why.items() if them)
    return (
        f"native kernels not used here, as {said} ({found.source}). "
        "Numbers stay right: XLA makes these draws itself, which is slower. "
        "`seedbed doctor` shows details."
    )
