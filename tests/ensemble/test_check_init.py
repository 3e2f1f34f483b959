"""What an init function does wrong: no arrays, traced values that it keeps or asks, its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import seedbed as sb
from helpers import split

normal = jax.random.normal


@pytest.mark.parametrize(
    "bad", ["relu", print, object(), b"bytes", np.array(["a"]), np.array([None])], ids=type
)
def test_results_must_be_arrays(key, bad):
    make = sb.ensemble(lambda key: {"w": normal(key, (3,)), "f": [bad]}, 3)
    with pytest.raises(TypeError, match=r"`init` must return a pytree of arrays; \['f'\]\[0\] is"):
        make(key)


def test_a_stored_tracer(key):
    kept = []

    def init(key):
        kept.append(normal(key, (3,)))
        return kept[-1]

    with pytest.raises(TypeError, match="`init` stored a traced value outside itself"):
        sb.ensemble(init, 3)(key)


def test_decisions_on_traced_values(key):
    # Row 59.
    def init(key):
        return jnp.ones(3) if normal(key) > 0 else jnp.zeros(3)

    with pytest.raises(jax.errors.TracerBoolConversionError):
        sb.ensemble(init, 3)(key)


ERRORS = {
    "fold_in of -1": (lambda key: jax.random.fold_in(key, -1), OverflowError),
    "fold_in of 2**32": (lambda key: jax.random.fold_in(key, 2**32), OverflowError),
    "integer normal": (lambda key: normal(key, (3,), jnp.int32), (ValueError, TypeError)),
    "one-dimensional fan": (
        lambda key: jax.nn.initializers.glorot_uniform()(key, (3,)),
        ValueError,
    ),
    "their own": (lambda key: [][1], IndexError),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_of_init_pass_through(key, name):
    # Rows 18, 26 and 66.
    init, kind = ERRORS[name]
    with pytest.raises(kind) as direct:
        jax.vmap(init)(split(key, 3))
    with pytest.raises(type(direct.value)) as ours:
        sb.ensemble(init, 3)(key)
    assert str(ours.value).splitlines()[:1] == str(direct.value).splitlines()[:1]
