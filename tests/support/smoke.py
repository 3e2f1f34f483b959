"""Checks an installed package from outside the repository: `python smoke.py native|reference`."""

import os
import sys

import jax
import jax.numpy as jnp
import numpy as np

import seedbed as sb


def init(key):
    weight, bias = jax.random.split(key)
    return {
        "weight": jax.nn.initializers.he_normal()(weight, (64, 33)),
        "bias": jax.random.uniform(bias, (33,), minval=-0.5, maxval=0.5),
        "gain": jnp.ones(33),
    }


expected = sys.argv[1]
key = jax.random.key(0)
make = sb.ensemble(init, 7)
plan = make.plan(key)
print(plan.explain())
assert (plan.reference is None) == (expected == "native"), plan.reference
ours, theirs = make(key), jax.jit(jax.vmap(init))(jax.random.split(key, 7))
for name in theirs:
    a, b = np.asarray(ours[name]), np.asarray(theirs[name])
    assert a.shape == b.shape and a.dtype == b.dtype, name
    assert (a.view(np.uint32) == b.view(np.uint32)).all(), name
if os.environ.get("SEEDBED_REQUIRE_CUDA") == "1":
    from seedbed import _cuda
    from seedbed._run import native

    launches = _cuda.launches(native.encode(plan.draws), 7)
    assert launches == 1, launches
    print(f"CUDA part: toolkit {_cuda.toolkit()}, for {_cuda.architectures()}")
print(f"smoke test on jax {jax.__version__}: 7 members, {expected}, 0 differing bits")
