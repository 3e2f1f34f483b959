"""When adapters and frameworks are imported, and what is said of one that is not there."""

import json

import pytest

import seedbed as sb
from helpers import run_python
from seedbed.adapters import FRAMEWORKS

pytestmark = [pytest.mark.shared, pytest.mark.reference("newest")]

ROOTS = {needed.split(".")[0] for needed, _ in FRAMEWORKS.values()}


def loaded(before: str = "", after: str = "") -> set[str]:
    lines = ["import json, sys", before, "import seedbed", after]
    return set(json.loads(run_python("\n".join([*lines, "print(json.dumps(list(sys.modules)))"]))))


def test_importing_seedbed_imports_no_framework_and_no_adapter():
    found = loaded(after="dir(seedbed.adapters); seedbed.adapters.FRAMEWORKS")
    assert "seedbed.adapters" in found
    assert not {name.split(".")[0] for name in found} & ROOTS
    assert not found & {f"seedbed.adapters.{name}" for name in FRAMEWORKS}


def test_an_adapter_imports_its_framework_only():
    # This also shows that the test above can fail.
    pytest.importorskip("equinox")
    found = loaded(after="seedbed.adapters.equinox.ensemble")
    assert {"equinox", "seedbed.adapters.equinox"} <= found
    assert not {name.split(".")[0] for name in found} & (ROOTS - {"equinox"})


def test_seedbed_after_a_framework():
    pytest.importorskip("equinox")
    found = loaded(before="import equinox", after="seedbed.adapters.equinox.ensemble")
    assert "seedbed.adapters.equinox" in found


def errors(prepare: str) -> dict[str, list[str]]:
    """What each adapter raises in a process where ``prepare`` came first."""
    out = run_python(
        f"""
        import json, sys
        import seedbed as sb
        {prepare}
        raised = {{}}
        for name in sb.adapters.FRAMEWORKS:
            try:
                getattr(sb.adapters, name)
            except Exception as error:
                raised[name] = [type(error).__name__, str(error), repr(error.__cause__)]
        print(json.dumps(raised))
        """
    )
    return dict(json.loads(out))


def test_a_missing_framework_names_the_package_to_install():
    raised = errors(f"sys.modules.update(dict.fromkeys({sorted(ROOTS)}))")
    assert set(raised) == set(FRAMEWORKS)
    for name, (kind, message, cause) in raised.items():
        needed, package = FRAMEWORKS[name]
        assert kind == "FrameworkError"
        assert f"`seedbed.adapters.{name}` needs {needed}" in message
        assert message.endswith(f"pip install {package}")
        assert cause.startswith("ModuleNotFoundError")


def test_a_broken_framework_shows_what_is_wrong_with_it():
    raised = errors(
        """
        class Broken:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in ("flax", "haiku"):
                    raise ImportError("cannot import name 'linear_util' from 'jax'")
                if name.split(".")[0] in ("equinox", "brainstate"):
                    raise RuntimeError("this needs another jax")
        sys.meta_path.insert(0, Broken())
        """
    )
    assert set(raised) == set(FRAMEWORKS)
    for name, (kind, message, _) in raised.items():
        wrong = "needs another jax" if name in ("equinox", "brainstate") else "'linear_util'"
        assert kind == "FrameworkError" and wrong in message
        assert "is installed and fails to import" in message and "pip install" not in message


def test_a_missing_framework_is_a_name_that_is_not_there():
    out = run_python(
        f"""
        import inspect, json, rlcompleter, sys
        sys.modules.update(dict.fromkeys({sorted(ROOTS)}))
        import seedbed as sb
        assert not hasattr(sb.adapters, "nnx") and getattr(sb.adapters, "nnx", None) is None
        found = dict(inspect.getmembers(sb.adapters))
        completer = rlcompleter.Completer({{"sb": sb}})
        assert completer.complete("sb.adapters.", 0)
        from seedbed.adapters import *
        try:
            from seedbed.adapters import haiku
        except ImportError as error:
            print(json.dumps([sorted(found), str(error)]))
        """
    )
    found, message = json.loads(out)
    assert "FrameworkError" in found and not {*FRAMEWORKS} & {*found}
    assert message.endswith("pip install dm-haiku")


def test_unknown_adapters():
    with pytest.raises(AttributeError, match="no attribute 'torch'; there are adapters for brains"):
        sb.adapters.torch  # noqa: B018
    assert not hasattr(sb.adapters, "_missing")


def test_the_adapters_are_listed():
    assert set(FRAMEWORKS) <= set(dir(sb.adapters))
