"""Settings that every test runs under; they must come before jax is imported."""

import contextlib
import os

# Four devices on one processor, for the tests of sharding.
_DEVICES = "--xla_force_host_platform_device_count=4"
if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

import seedbed as sb
from helpers import backend_name, native_problem, oracle
from models import small

# Shapes that line up by accident hide mistakes; nothing in the tests relies on it.
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "ci", max_examples=25, derandomize=True, deadline=None, print_blob=True, database=None
)
hypothesis.settings.register_profile("deep", max_examples=500, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# Files whose cases have a program of jax's compiled, which takes most of the suite's time. Both
# ends run them (`tools/run_tests.sh`).
COSTLY = frozenset(
    "accelerate adapter_brainstate adapter_equinox adapter_haiku adapter_linen adapter_nnx "
    "adapters arithmetic checked collective collective_atomic collective_errors "
    "collective_filters collective_hostile collective_nested collective_reset "
    "collective_states donate ensemble equivalence execute export failed generators hostile "
    "key_reuse match numbers pickled prng recorded run run_hostile run_states "
    "run_transformations same sampler_functions samplers sealed selfcheck settings sharding "
    "sharding_random streams transformations zoo_brainstate zoo_equinox zoo_haiku zoo_linen "
    "zoo_nnx".split()
)


def pytest_collection_modifyitems(config, items):
    """With SEEDBED_SHARE=i/n, every n-th case of the costly files, from the i-th on.

    Tests of one case stay together, because they compile the same things.
    """
    share, shares = map(int, os.environ.get("SEEDBED_SHARE", "1/1").split("/"))
    cases: dict[str, dict[str, int]] = {}
    kept, left = [], []
    for item in items:
        place = 0
        if item.path.stem.removeprefix("test_") in COSTLY:
            case = item.callspec.id if hasattr(item, "callspec") else item.name
            numbers = cases.setdefault(item.path.stem, {})
            place = numbers.setdefault(case, len(numbers)) - (share - 1)
        (left if place % shares else kept).append(item)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def pytest_report_header() -> str:
    return f"jax {jax.__version__}, seedbed backend: {backend_name()}"


@pytest.fixture
def key():
    """A typed key."""
    return jax.random.key(20)


@pytest.fixture(params=["alone", "set_mesh"])
def entered(request):
    """Enters a mesh, which its arrays do without, or leaves it."""

    def enter(mesh):
        return jax.set_mesh(mesh) if request.param == "set_mesh" else contextlib.nullcontext()

    return enter


@pytest.fixture
def native():
    """Skips where the native backend does not run; a failure if it was required."""
    problem = native_problem()
    if problem:
        if os.environ.get("SEEDBED_REQUIRE_NATIVE") == "1" and "SEEDBED_BACKEND" not in problem:
            pytest.fail(f"SEEDBED_REQUIRE_NATIVE=1, but {problem}")
        pytest.skip(f"needs the native backend: {problem}")


@pytest.fixture(scope="session")
def expected():
    """What nine members of the small init must be, for `key`."""
    return oracle(small, 9, jax.random.key(20))


@pytest.fixture
def make():
    """A new ensemble of nine members of the small init."""
    return sb.ensemble(small, 9)
