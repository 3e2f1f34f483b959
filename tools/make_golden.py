"""Adds the installed jaxlib's digests to ``python/seedbed/_golden.json``.

    python tools/make_golden.py

Run it once for each supported jaxlib, in an environment with that release, on a machine
whose processor has fused multiply-add, without XLA_FLAGS. It runs every fixed case of the
self-check through XLA, asks every instruction set of the extension for the same values, and
writes nothing unless all are equal.
"""

from __future__ import annotations

import json
import sys

import jaxlib
from seedbed import _native, _selfcheck


def main() -> int:
    module, problem = _native.load()
    if module is None:
        print(f"the extension is needed: {problem}", file=sys.stderr)
        return 2
    situation = _selfcheck.surroundings(module)
    # Every release counts as known here: only the machine and the flags can be wrong.
    known = {situation[package]: {} for package in ("jax", "jaxlib")}
    reason = _selfcheck.why_not_golden(situation, known)
    if reason is not None:
        print(f"golden values cannot be made here: {reason}", file=sys.stderr)
        return 2
    measured = _selfcheck.measure(module)
    for isa in module.isas():
        values = _selfcheck.native_values(module, _selfcheck.CASES, isa)
        native = _selfcheck.digests(values)
        differing = [kernel for kernel in native if native[kernel] != measured[kernel]]
        if differing:
            print(f"{isa} differs from XLA: {', '.join(differing)}", file=sys.stderr)
            return 1
    path = _selfcheck.GOLDEN
    machines = _selfcheck.golden() if path.exists() else {}
    releases = machines.setdefault(_selfcheck.machine(), {})
    releases[jaxlib.__version__] = measured
    machines[_selfcheck.machine()] = dict(sorted(releases.items(), key=_release_order))
    path.write_text(json.dumps({"machines": machines}, indent=1) + "\n", encoding="utf-8")
    print(f"jaxlib {jaxlib.__version__}: {', '.join(module.isas())} equal to XLA")
    return 0


def _release_order(item: tuple[str, object]) -> list[int]:
    return [int(part) for part in item[0].split(".")]


if __name__ == "__main__":
    sys.exit(main())
