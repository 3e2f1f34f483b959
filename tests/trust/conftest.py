"""Processes that have not checked themselves, and releases of which nothing is known."""

import pytest

from seedbed._jax import known
from seedbed._trust import cases, selfcheck

UNKNOWN = {"jaxlib": "99.0.0", "jax": "99.0.0"}


@pytest.fixture
def fresh(extension, monkeypatch, tmp_path):
    """A process that has not checked itself yet, with a cache directory of its own."""
    monkeypatch.setattr(selfcheck, "_reports", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return extension


@pytest.fixture
def unknown_release(fresh, monkeypatch):
    """A jaxlib that no values are shipped for; a list that grows with every measurement."""
    monkeypatch.setattr(known, "versions", lambda: UNKNOWN)
    calls = []
    values = selfcheck.digests(selfcheck.native_values(fresh, cases.CASES))
    monkeypatch.setattr(
        selfcheck, "measure", lambda module, platform: calls.append(1) or dict(values)
    )
    return calls
