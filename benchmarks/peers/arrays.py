"""The peers that are not JAX: one call for each leaf, with the member axis in front.

Each function takes a case and returns a `Call`. Both libraries draw a leaf of all members at
once from one generator, so a member's values depend on how many members there are; that is
less than the JAX peers promise, and what their users do.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

from ..case import Case, Leaf
from .roster import Call, Unavailable

# Variance times fan-in. (The rescaling for truncation does not concern a plain normal.)
_GAIN = {"he_normal": 2.0, "lecun_normal": 1.0}


def _standard_deviation(leaf: Leaf) -> float:
    return 0.02 if leaf.sampler == "embedding" else sqrt(_GAIN[leaf.sampler] / leaf.shape[-2])


def numpy(case: Case) -> Call:
    import numpy as np

    methods = {
        "bits": lambda rng, shape: rng.integers(0, 1 << 32, shape, np.uint32),
        "uniform": lambda rng, shape: rng.random(shape, np.float32),
        "normal": lambda rng, shape: rng.standard_normal(shape, np.float32),
        "normal_float64": lambda rng, shape: rng.standard_normal(shape),
    }
    _refuse(case, set(methods))

    def run(rng: Any) -> dict[str, Any]:
        return {
            leaf.name: methods[leaf.sampler](rng, (case.members, *leaf.shape))
            for leaf in case.leaves
        }

    return Call(lambda seed: np.random.Generator(np.random.SFC64(seed)), run)


def torch(case: Case, in_place: bool = False) -> Call:
    """One draw for each leaf into new memory; ``in_place``: into that of the call before."""
    import torch

    def normal(leaf: Leaf, tensor: Any) -> Any:
        # Scaled by the draw itself: a multiplication afterwards would cost another pass.
        return tensor.normal_(0.0, _standard_deviation(leaf))

    methods: dict[str, Any] = {
        "bits": lambda leaf, tensor: tensor.random_(-(1 << 31), 1 << 31),
        "uniform": lambda leaf, tensor: tensor.uniform_(),
        "normal": lambda leaf, tensor: tensor.normal_(),
        "normal_float64": lambda leaf, tensor: tensor.normal_(),
        "truncated_normal": lambda leaf, tensor: torch.nn.init.trunc_normal_(tensor),
        "he_normal": normal,
        "lecun_normal": normal,
        "embedding": normal,
        "zeros": lambda leaf, tensor: tensor.zero_(),
        "ones": lambda leaf, tensor: tensor.fill_(1.0),
    }
    _refuse(case, set(methods))
    old: dict[str, Any] = {}

    def tensor(leaf: Leaf) -> Any:
        if leaf.name in old:
            return old[leaf.name]
        dtypes = {"bits": torch.int32, "normal_float64": torch.float64}
        dtype = dtypes.get(leaf.sampler, torch.float32)
        return torch.empty((case.members, *leaf.shape), dtype=dtype)

    def run(generator: Any) -> dict[str, Any]:
        made = {leaf.name: methods[leaf.sampler](leaf, tensor(leaf)) for leaf in case.leaves}
        if in_place:
            old.update(made)
        return made

    return Call(torch.manual_seed, run, lambda: {"threads": torch.get_num_threads()})


def _refuse(case: Case, known: set[str]) -> None:
    missing = sorted({leaf.sampler for leaf in case.leaves} - known)
    if missing:
        raise Unavailable(f"it has no {', '.join(missing)}")
