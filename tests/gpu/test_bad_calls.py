"""What a plan or its buffers have wrong is an error of jax's, and the device goes on working."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import plan_reference as ref
from gpu import device
from plan_reference import Draw
from plans import NORMAL, VARIANTS, keys_of, table
from seedbed._run import native

DRAWS = [
    Draw(ref.BITS, 32, 4, 33, prefix=(3, 1)),
    Draw(ref.NORMAL, 32, 4, 50, params=NORMAL),
    Draw(**VARIANTS["table8_2"], inner=3, dims=(2,), levels=((0, (1,)),)),
]
SHAPES = [(4, 1, 33), (4, 1, 50), (4, 2, 3)]
DTYPES = [jnp.uint32, jnp.float32, jnp.uint16]
PLAN = ref.encode(DRAWS)


def attempt(keys=None, members=device.NONE, shapes=SHAPES, **attributes):
    keys = keys_of(4) if keys is None else keys
    results = [jax.ShapeDtypeStruct(s, t) for s, t in zip(shapes, DTYPES, strict=True)]
    call = jax.ffi.ffi_call(native.TARGET, results, vmap_method="broadcast_all")
    good = {"mode": np.int64(0), "size": np.int64(4), "plan": PLAN}
    run = jax.jit(lambda *given: call(*given, **(good | attributes)))
    return [np.asarray(x) for x in jax.block_until_ready(run(keys, members, keys))]


def spoilt(position: int, value: int) -> np.ndarray:
    plan = PLAN.copy()
    plan[position] = value
    return plan


BAD = {
    "expected the magic number": dict(plan=spoilt(0, 1)),
    "plan has version 7": dict(plan=spoilt(1, 7)),
    "plan ends early": dict(plan=PLAN[:-4]),
    "words too many": dict(plan=np.append(PLAN, 0)),
    "mode must be": dict(mode=np.int64(9)),
    "size must be": dict(size=np.int64(-4)),
    "expected S64 but got S32": dict(size=np.int32(4)),
    "result 1 must have 200 elements of 4 bytes": dict(shapes=[(4, 1, 33), (4, 51), (4, 2, 3)]),
    "`keys` must be U32": dict(keys=keys_of(3)),
    "`members` must be U32": dict(
        mode=np.int64(ref.RANGE), keys=keys_of(1)[0], members=np.zeros(3, np.uint32)
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_calls(message):
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        attempt(**BAD[message])
    got = attempt()
    want = device.expected(DRAWS, 4, keys_of(4))
    assert (got[0].ravel() == want[0].ravel()).all()
    assert (got[2].ravel() == want[2].ravel()).all()


def test_mutated_plans():
    """Any words at all: results or an error, never a crash or a hang."""
    accepted = 0
    for position in range(len(PLAN)):
        for value in (-1, 0, 3, 2**40):
            if position >= 20 and value > 0:  # the header and the first draw get all values
                continue
            try:
                attempt(plan=spoilt(position, value))
                accepted += 1
            except jax.errors.JaxRuntimeError as error:
                assert "seedbed" in str(error) or "plan" in str(error), error
    assert accepted > 0
    assert (attempt()[0].ravel() == device.expected(DRAWS, 4, keys_of(4))[0].ravel()).all()


def test_a_table_too_large_for_a_block_is_refused():
    """65,536 entries of 4 bytes: the message says what a block holds."""
    draw = Draw(ref.TABLE, 16, 4, 3, params=(0,), table=table(65536, 4))
    result = jax.ShapeDtypeStruct((4, 1, 3), jnp.uint32)
    call = jax.ffi.ffi_call(native.TARGET, [result], vmap_method="broadcast_all")
    given = {"mode": np.int64(0), "size": np.int64(4), "plan": ref.encode([draw])}
    run = jax.jit(lambda keys: call(keys, device.NONE, keys, **given))
    with pytest.raises(jax.errors.JaxRuntimeError, match="lookup table has 262144 bytes"):
        jax.block_until_ready(run(keys_of(4)))
