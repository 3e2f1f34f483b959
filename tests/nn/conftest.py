"""Inputs that several files of this folder run modules on."""

import jax
import pytest

from members import N


@pytest.fixture
def xs(key):
    """An input for each member."""
    return jax.random.normal(jax.random.fold_in(key, 99), (N, 3))
