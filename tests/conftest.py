"""Settings that every test runs under; they must come before jax is imported."""

import contextlib
import os

# Eight devices on one processor, for the tests of sharding.
_DEVICES = "--xla_force_host_platform_device_count=8"
if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DEVICES}".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import hypothesis
import jax
import pytest

import seedbed as sb
from helpers import backend_name, native_problem, oracle
from models import small
from seedbed._run import native as _native

# Shapes that line up by accident hide mistakes; nothing in the tests relies on it.
jax.config.update("jax_numpy_rank_promotion", "raise")

hypothesis.settings.register_profile(
    "ci", max_examples=25, derandomize=True, deadline=None, print_blob=True, database=None
)
hypothesis.settings.register_profile("deep", max_examples=500, deadline=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# The two ends of the supported versions share work (`tools/run_tests.sh`): each runs what is marked
# so, as markers on the files say.
ENDS = ("newest", "oldest")


def pytest_addoption(parser):
    parser.addoption("--end", choices=ENDS, help="run this end's part of the suite")
    parser.addoption(
        "--on-reference", action="store_true", help="of it, what runs on the reference backend too"
    )


def pytest_collection_modifyitems(config, items):
    end = config.getoption("end")
    if end is None:
        return
    kept, left = shared_out(items, end, config.getoption("on_reference"))
    config.hook.pytest_deselected(items=left)
    items[:] = kept


def shared_out(items, end, on_reference=False):
    """The items that an end runs, and those that it leaves to the other.

    Of a file that is shared it has every second case, and all of them if the marker names it. Tests
    of one case stay together, because they compile the same things.
    """
    cases: dict[str, dict[str, int]] = {}
    kept, left = [], []
    for item in items:
        own, again = item.get_closest_marker("end"), item.get_closest_marker("reference")
        runs = own is None or own.args == (end,)
        if on_reference:
            runs = again is not None and again.args == (end,)
        # The adapters run there at one end alone, all of them.
        shared = item.get_closest_marker("shared")
        if shared and end not in shared.args and not (on_reference and end == "newest"):
            case = item.callspec.id if hasattr(item, "callspec") else item.name
            numbers = cases.setdefault(item.path.stem, {})
            place = numbers.setdefault(case, len(numbers))
            runs = runs and place % len(ENDS) == ENDS.index(end)
        (kept if runs else left).append(item)
    return kept, left


def pytest_report_header() -> str:
    return f"jax {jax.__version__}, seedbed backend: {backend_name()}"


@pytest.fixture
def key():
    """A typed key."""
    return jax.random.key(20)


@pytest.fixture
def seeded():
    """The stream of keys from its beginning, as the oracles have it."""
    sb.random.seed(11)


@pytest.fixture
def in_use(seeded):
    """A stream of which a key was taken, so that a position of zero is wrong."""
    sb.random.next_key()


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


@pytest.fixture
def extension():
    """The extension, whichever backend is in force."""
    found, problem = _native.load()
    if found is None:
        if os.environ.get("SEEDBED_REQUIRE_NATIVE") == "1":
            pytest.fail(f"SEEDBED_REQUIRE_NATIVE=1, but {problem}")
        pytest.skip(f"needs the extension: {problem}")
    return found


@pytest.fixture(scope="session")
def expected():
    """What nine members of the small init must be, for `key`."""
    return oracle(small, 9, jax.random.key(20))


@pytest.fixture
def make():
    """A new ensemble of nine members of the small init."""
    return sb.ensemble(small, 9)
