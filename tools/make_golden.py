"""Adds the installed jaxlib's facts to ``python/seedbed/_jax/known.json``.

    python tools/make_golden.py

Run it once for each supported jaxlib, in an environment with that release, on a machine
whose processor has fused multiply-add, without XLA_FLAGS. It runs every fixed case of the
self-check through XLA, asks every instruction set of the extension for the same values, and
writes nothing unless all are equal.
"""

from __future__ import annotations

import json
import sys

import jax
import numpy as np

from seedbed._jax import ask_xla, known, lowering
from seedbed._run import native as _native
from seedbed._trust import cases, selfcheck


def main() -> int:
    module, problem = _native.load()
    if module is None:
        print(f"the extension is needed: {problem}", file=sys.stderr)
        return 2
    reason = selfcheck.why_measure(module)
    if reason is not None:
        print(f"golden values cannot be made here: {reason}", file=sys.stderr)
        return 2
    measured = selfcheck.measure(module)
    for isa in module.isas():
        values = selfcheck.native_values(module, cases.CASES, isa)
        native = selfcheck.digests(values)
        differing = [kernel for kernel in native if native[kernel] != measured[kernel]]
        if differing:
            print(f"{isa} differs from XLA: {', '.join(differing)}", file=sys.stderr)
            return 1
    machines = known.table() if known.PATH.exists() else {}
    releases = machines.setdefault(known.machine(), {})
    release = known.versions()["jaxlib"]
    with lowering.xla_on("cpu"):
        flat_rows = ask_xla.rows_as_flat()
    releases[release] = {
        "digests": measured,
        "flat_rows": flat_rows,
        "log1p_near": ask_xla.log1p_bound(),
        "merges_factors": _merges_factors(),
    }
    machines[known.machine()] = dict(sorted(releases.items(), key=_release_order))
    known.PATH.write_text(json.dumps({"machines": machines}, indent=1) + "\n", encoding="utf-8")
    print(f"jaxlib {release}: {', '.join(module.isas())} equal to XLA")
    return 0


def _merges_factors() -> bool:
    x, a, b = np.float32(0.7), np.float32(0.3), np.float32(1.1)
    with lowering.xla_on("cpu"):
        return bool(np.asarray(jax.jit(lambda x: (x * a) * b)(x)) == x * (a * b))


def _release_order(item: tuple[str, object]) -> list[int]:
    return [int(part) for part in item[0].split(".")]


if __name__ == "__main__":
    sys.exit(main())
