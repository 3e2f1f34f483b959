"""Shows what is installed, which backend and instruction set are in force, and why."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import jax

from .. import __version__
from .._ensemble import ensemble
from .._jax import compat, generators, known
from .._run import native
from .._trust import backends, selfcheck
from . import OK, USAGE, WRONG, _text


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the same as JSON")


def run(args: argparse.Namespace) -> int:
    with warnings.catch_warnings():
        # What it says is one of the lines.
        warnings.simplefilter("ignore", selfcheck.SelfCheckWarning)
        found, code = collect()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"seedbed {found['seedbed']}")
        print(_text.fields(_lines(found)))
        for error in found["errors"]:
            print(f"\nerror: {error}", file=sys.stderr)
    return code


def collect() -> tuple[dict[str, Any], int]:
    """Everything that ``info`` shows, as data for JSON, and the exit code."""
    found: dict[str, Any] = {
        "seedbed": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {known.machine()}",
        **known.versions(),
        "environment": {
            name: os.environ.get(name) for name in ("SEEDBED_BACKEND", "SEEDBED_ISA", "XLA_FLAGS")
        },
        "errors": [],
    }
    code = OK
    try:
        found["devices"] = [str(device) for device in jax.devices()]
    except RuntimeError as error:
        found["errors"].append(f"jax cannot start: {error}")
        return found, WRONG
    found["cores"], found["xla_threads"] = _cores(), _xla_threads()
    found["cuda"] = _cuda()
    module, problem = native.load()
    found["extension"] = None if module is None else module.__file__
    found["extension_problem"] = problem or None
    found["target"] = native.TARGET if module is not None else None
    found["isas"] = [] if module is None else list(module.isas())
    for step in (_isa, _backend, _self_check, _target):
        try:
            found.update(step(module))
        except ValueError as error:
            code = max(code, USAGE)
            found["errors"] += [] if str(error) in found["errors"] else [str(error)]
        except RuntimeError as error:
            code = max(code, WRONG)
            found["errors"] += [] if str(error) in found["errors"] else [str(error)]
    checks = [found.get(name) or {} for name in ("self_check", "self_check_cuda")]
    unused = any(check.get("differing") or check.get("lacking") for check in checks)
    if found.get("target_runs") is False or unused:
        code = max(code, WRONG)
    return found, code


def _cuda() -> str:
    """Whether the CUDA kernels are there and may be used."""
    platform = compat.platform()
    if platform != "cuda":
        if importlib.util.find_spec("seedbed._cuda") is None:
            module, _ = native.load()
            why = "there is no extension" if module is None else module.without_cuda()
            return f"not in this build ({why or 'its file is missing'})"
        return f"built, not loaded: jax computes on {platform!r}"
    module, problem = native.load_cuda()
    if module is None:
        return f"not usable: {problem}"
    return f"built with CUDA {module.toolkit()} for {module.architectures()}"


def _isa(module: Any) -> dict[str, Any]:
    return {"isa": None if module is None else module.isa()}


def _backend(module: Any) -> dict[str, Any]:
    """What runs here, and what ``auto`` comes to when ``SEEDBED_BACKEND`` asks for another."""
    chosen, why = _resolve()
    forced = os.environ.pop("SEEDBED_BACKEND", None)
    try:
        automatic, why_automatic = _resolve()
    finally:
        if forced is not None:
            os.environ["SEEDBED_BACKEND"] = forced
    return {"backend": chosen, "why": why, "auto": automatic, "why_auto": why_automatic}


def _resolve() -> tuple[str, str]:
    foreign = generators.foreign([generators.default()])
    reason = backends.why_reference(foreign, effects=False)
    if reason is not None:
        return "reference", reason
    return "native", f"SEEDBED_BACKEND={backends.requested()}, and the extension is usable"


def _self_check(module: Any) -> dict[str, Any]:
    if module is None:
        return {"self_check": None}
    found = {"self_check": _verdict("cpu")}
    if compat.platform() == "cuda" and native.load_cuda()[0] is not None:
        found["self_check_cuda"] = _verdict("cuda")
    return found


def _verdict(platform: str) -> dict[str, Any]:
    found = selfcheck.report(platform)
    return {
        "trusted": sorted(found.trusted),
        "differing": list(found.differing),
        "lacking": list(found.lacking),
        "source": found.source,
        "verdict": str(found),
    }


def _target(module: Any) -> dict[str, Any]:
    """Whether the custom call can be executed: registration alone does not show it."""
    if backends.why_reference(None, effects=False) is not None:
        return {"target_runs": None}
    make = ensemble.ensemble(lambda key: jax.random.bits(key, (3,)), 2)
    key = jax.random.key(0, impl="threefry2x32")
    try:
        ours = make(key)
    except jax.errors.JaxRuntimeError as error:
        return {"target_runs": False, "target_problem": str(error)}
    theirs = jax.vmap(lambda key: jax.random.bits(key, (3,)))(jax.random.split(key, 2))
    return {"target_runs": bool((ours == theirs).all())}


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _xla_threads() -> int | None:
    """Threads of XLA's pool for work inside one operation, or None where it cannot be seen."""
    names = []
    for path in Path("/proc/self/task").glob("*/comm"):
        try:
            names.append(path.read_text(encoding="utf-8").strip())
        except OSError:  # a thread that has just ended
            continue
    return sum(name.startswith("tf_XLAEigen") for name in names) or None


def _lines(found: dict[str, Any]) -> list[tuple[str, str]]:
    """The fields that a person reads, in order."""
    environment = found["environment"]
    lines = [
        ("python", found["python"]),
        ("jax", f"{found['jax']}, jaxlib {found['jaxlib']}"),
    ]
    if "cores" not in found:
        return lines
    available = ", ".join(found.get("isas", []))
    isa = found.get("isa") or ("not usable" if available else "none")
    forced = f" (SEEDBED_ISA={environment['SEEDBED_ISA']})" if environment["SEEDBED_ISA"] else ""
    runs = {True: "runs", False: "does not run", None: "not used"}[found.get("target_runs")]
    threads = f"{found['cores']} cores"
    if found["xla_threads"]:
        threads += f", {found['xla_threads']} threads in XLA's pool"
    backend = found.get("backend", "not usable")
    lines += [
        ("devices", ", ".join(found["devices"])),
        ("extension", found["extension"] or f"none: {found['extension_problem']}"),
        ("instructions", f"{isa}{forced}" + (f", available: {available}" if available else "")),
        ("FFI target", f"{found['target']}, {runs}" if found["target"] else "none"),
        ("threads", threads),
        ("CUDA", found["cuda"]),
        ("backend", f"{backend} ({found['why']})" if "why" in found else backend),
    ]
    if environment["SEEDBED_BACKEND"] not in (None, "", "auto") and "auto" in found:
        lines.append(("auto", f"would be {found['auto']} ({found['why_auto']})"))
    if environment["XLA_FLAGS"]:
        lines.append(("XLA_FLAGS", environment["XLA_FLAGS"]))
    check = found.get("self_check")
    lines.append(("self-check", check["verdict"] if check else "nothing to check"))
    if check := found.get("self_check_cuda"):
        lines.append(("on CUDA", check["verdict"]))
    return lines
