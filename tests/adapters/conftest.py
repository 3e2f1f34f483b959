"""What tests of a framework change for as long as they run."""

import jax
import pytest


@pytest.fixture
def as_users_have_it():
    """jax as it is without this suite's settings, which brainstate needs, and its stream anew."""
    bs = pytest.importorskip("brainstate")
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        bs.random.seed(7)
        yield
