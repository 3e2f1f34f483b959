"""A small plan of every variant through the custom call, for compute-sanitizer to look at.

    compute-sanitizer --tool memcheck|racecheck|initcheck python tests/gpu/sanitize_small.py

Every buffer is an allocation of its own, so that what lies beyond one belongs to nobody. What is
made is compared too; the exit status is 1 if anything differs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cuda,cpu")
os.environ["XLA_PYTHON_CLIENT_ALLOCATOR"] = "platform"
os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "support"))

import jax
import numpy as np

import plan_reference as ref
from gpu import device
from plan_reference import Draw
from plans import NORMAL, TRUNCATED, VARIANTS, keys_of
from seedbed._run import native

NORMALS = {
    "normal": dict(kind=ref.NORMAL, word_bits=32, itemsize=4, params=NORMAL),
    "truncated": dict(kind=ref.NORMAL, word_bits=32, itemsize=4, params=TRUNCATED),
}


def plans() -> dict[str, tuple]:
    """Draws, number of members, keys, members' indices and where the keys come from."""
    draws = []
    for i, options in enumerate((VARIANTS | NORMALS).values()):
        draws += [Draw(**options, inner=n, prefix=(i, n)) for n in (0, 1, 3, 33, 100)]
        draws.append(Draw(**options, inner=5, dims=(3, 2), levels=((1, (2, 1)),)))
    keys = [Draw(ref.KEY, 32, 4), Draw(ref.KEY, 32, 4, dims=(40,), levels=((0, (1,)),))]
    names = ("bits8", "bits32", "bits64", "randint64_1_8", "table8_2", "constant2")
    some = {name: VARIANTS[name] for name in names} | NORMALS
    first = np.array([[0, 2**32 - 2], [7, 1]], np.uint32)
    cut = [Draw(**options, inner=9001, prefix=(1,)) for options in some.values()]
    rows = [
        Draw(**options, inner=3, dims=(1500,), levels=((0, (1,)),)) for options in some.values()
    ]
    return {
        "all variants": ([*draws, *keys], 3, keys_of(3), None, ref.MEMBER_KEYS),
        "rows that are cut": (cut, 2, keys_of(2), first, ref.RANGE),
        "many rows": (rows, 3, keys_of(1), first[None, [0, 1, 0]], ref.INDICES),
        "many members": ([*draws[:24], *keys], 70, keys_of(70), None, ref.MEMBER_KEYS),
    }


def main() -> int:
    module, why = native.load() if jax.default_backend() == "cpu" else native.load_cuda()
    if module is None:
        print(f"there are no kernels: {why}", file=sys.stderr)
        return 2
    wrong = 0
    for name, (draws, size, keys, members, mode) in plans().items():
        got = device.on_device(draws, size, keys, members, mode=mode)
        # Normals and ranges are compared elsewhere: XLA's own kernels need not be looked at.
        want = device.on_cpu(draws, size, keys, members, mode=mode)
        differing = [
            d
            for d, one, two in zip(draws, got, want, strict=True)
            if d.kind not in device.MODELS and (one != two).any()
        ]
        wrong += len(differing)
        print(f"{name}: {len(draws)} draws, {len(differing)} differ", *differing[:3], sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
