"""Rules of the source tree: who imports whom, what importing costs, how long files are."""

import ast
import json
from pathlib import Path

import pytest

import conftest
from helpers import ROOT, run_python

PACKAGE = ROOT / "python" / "seedbed"
MODULES = sorted(PACKAGE.rglob("*.py"))
FRAMEWORKS = ("flax", "equinox", "haiku", "brainstate", "torch", "optax")

# What each stage may import: only stages whose data it consumes, never one that follows it.
STAGES = {
    "_compat": set(),
    "_generators": {"_compat"},
    "_record": set(),
    "_draw": {"_record"},
    "_golden": set(),
    "_lookup": {"_compat", "_golden", "_lowering"},
    "_fold": {"_compat", "_lookup"},
    "_same": {"_compat", "_record"},
    "_steps": {"_draw", "_fold", "_record", "_same"},
    "_flatten": {"_compat", "_fold", "_same"},
    "_finite": set(),
    "_trace": {"_compat", "_finite", "_flatten"},
    "_meaning": {"_compat", "_draw", "_fold", "_lookup", "_record", "_trace"},
    "_match_keys": {"_draw", "_fold", "_generators", "_meaning", "_trace"},
    "_match_draws": {"_compat", "_draw", "_fold", "_lookup", "_meaning", "_trace"},
    "_match_table": {"_compat", "_draw", "_fold", "_meaning", "_rounding", "_trace"},
    "_match": {
        *("_compat", "_draw", "_fold", "_meaning", "_trace"),
        *("_match_draws", "_match_keys", "_match_table"),
    },
    "_plan": {"_draw", "_pickling", "_record", "_steps"},
    "_rounding": {"_compat", "_fold", "_lookup", "_meaning", "_trace"},
    "_build": {
        *("_compat", "_draw", "_fold", "_meaning"),
        *("_plan", "_record", "_rounding", "_steps", "_trace"),
    },
    "_native": {"_compat", "_draw", "_lookup"},
    "_lowering": {"_compat"},
    "_cipher": {
        *("_backends", "_compat", "_draw", "_generators", "_lookup"),
        *("_lowering", "_native", "_places"),
    },
    "_accelerate": {"_backends", "_cipher", "_compat", "_lowering"},
    "prng": {"_cipher", "_compat", "_generators", "_lowering"},
    "_sampler_call": {"_backends", "_compat", "_places"},
    "_samplers": {
        *("_backends", "_cipher", "_compat", "_draw", "_lowering", "_match", "_places"),
        *("_build", "_generators", "_sampler_call", "_steps", "_trace", "prng"),
    },
    "_reference": {"_compat", "_places", "_same"},
    "_fill": {"_compat", "_draw", "_lowering", "_native", "_portable"},
    "_portable": {"_cases", "_compat", "_draw", "_native"},
    "_execute": {
        *("_compat", "_fill", "_native", "_places", "_plan"),
        *("_reference", "_same", "_steps"),
    },
    "_places": {"_compat"},
    "_check": {"_compat", "_finite", "_generators", "_places", "_plan"},
    "_prepare": {
        *("_backends", "_build", "_compat", "_generators", "_match", "_plan"),
        *("_same", "_trace"),
    },
    "_donate": {"_compat", "_plan"},
    "_undo": set(),
    "_pickling": set(),
    "_stream": {"_compat", "_generators", "_undo"},
    "filters": set(),
    "random": {"_compat", "_generators", "_samplers", "_stream", "_undo"},
}

# The modules of `seedbed.nn`: each imports only from those before it, and from these stages.
NN = (
    *("_tap", "_draft", "_describe", "_pickle", "_state_checks", "_state", "_traverse", "_keys"),
    *("_methods", "_module", "_foreign", "_finish", "_members", "_inputs", "_commit", "_calls"),
    *("_assign", "_collective", "_tree_args", "_loop", "_run", "_split", "_take", "_layers"),
)
NN_STAGES = {
    *(
        "_check",
        "_compat",
        "_donate",
        "_ensemble",
        "_generators",
        "_pickling",
        "_places",
        "_same",
        "_stream",
        "_trace",
        "_undo",
        "filters",
        "random",
    ),
}


def imports(source: str) -> set[str]:
    """Names of the modules that a file imports, relative ones with their dots."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            if node.level and not node.module:
                found |= {base + alias.name for alias in node.names}
            else:
                found.add(base)
    return found


def siblings(source: str) -> set[str]:
    return {name[1:] for name in imports(source) if name.startswith("._")} - {"__version__"}


def private_jax(source: str) -> set[str]:
    return {name for name in imports(source) if name.startswith(("jax._", "jaxlib._"))}


@pytest.mark.parametrize("stage", STAGES)
def test_stages_import_one_way(stage):
    found = siblings((PACKAGE / f"{stage}.py").read_text(encoding="utf-8"))
    assert found <= STAGES[stage], f"{stage} must not import {found - STAGES[stage]}"


def test_nn_imports_one_way():
    assert set(NN) == {path.stem for path in (PACKAGE / "nn").glob("_*.py")} - {"__init__"}
    for position, name in enumerate(NN):
        source = (PACKAGE / "nn" / f"{name}.py").read_text(encoding="utf-8")
        relative = {found for found in imports(source) if found.startswith(".")}
        within = {found[1:] for found in relative if not found.startswith("..")}
        assert within <= set(NN[:position]), name
        assert {found[2:] for found in relative if found.startswith("..")} <= NN_STAGES, name


def test_adapters_import_the_object_that_joins_the_stages():
    # Never a stage of planning or a backend: an adapter is a caller of `ensemble`.
    allowed = {"_check", "_compat", "_ensemble", "_generators", "_pickling", "_plan", "_trace"}
    allowed |= {"_stream", "_undo", "filters", "nn", "nn._members"}
    for path in (PACKAGE / "adapters").glob("*.py"):
        found = {
            name[2:] for name in imports(path.read_text(encoding="utf-8")) if name.startswith("..")
        }
        assert found <= allowed, f"{path.name} must not import {found - allowed}"


def test_planning_imports_no_backend():
    reached, pending = set(), ["_build", "_plan", "_match", "_trace"]
    while pending:
        module = pending.pop()
        reached.add(module)
        found = siblings((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
        pending += found - reached
    assert not reached & {"_native", "_reference", "_backends", "_execute", "_ensemble", "_cpu"}


def test_only_one_file_imports_from_jax_in_private():
    offenders = {
        path.name: found
        for path in MODULES
        if (found := private_jax(path.read_text(encoding="utf-8"))) and path.name != "_compat.py"
    }
    assert not offenders


def test_only_adapters_import_a_framework():
    for path in MODULES:
        if "adapters" not in path.parts:
            roots = {name.split(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
            assert not roots & set(FRAMEWORKS), path


def test_the_checks_of_imports_can_fail():
    source = (
        "from jax._src import core\nfrom . import _native\nfrom ._execute import x\nimport flax.nnx"
    )
    assert private_jax(source) == {"jax._src"}
    assert siblings(source) == {"_native", "_execute"}
    assert "flax.nnx" in imports(source)


_LOADED = """
    import json, sys
    {first}
    import seedbed
    print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def test_importing_seedbed_imports_no_framework():
    loaded = set(json.loads(run_python(_LOADED.format(first=""))))
    assert {"jax", "seedbed"} <= loaded and not loaded & set(FRAMEWORKS)


def test_the_check_of_loaded_modules_can_fail():
    pytest.importorskip("equinox")
    loaded = set(json.loads(run_python(_LOADED.format(first="import equinox"))))
    assert "equinox" in loaded & set(FRAMEWORKS)


def test_importing_seedbed_touches_no_device():
    # A program may still choose its platform and its devices afterwards.
    out = run_python(
        """
        import jax, seedbed
        jax.config.update("jax_num_cpu_devices", 3)
        print(len(jax.devices()))
        """,
        XLA_FLAGS="",
    )
    assert out.split() == ["3"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_files_are_short(path: Path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 450


def test_every_module_says_what_it_is():
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree) or not tree.body, path


def test_the_public_names():
    import seedbed as sb

    public = {name for name in vars(sb) if not name.startswith("_")}
    assert {"ensemble", "Ensemble", "Plan"} <= public
    for name in ("ensemble", "Ensemble", "Plan"):
        assert getattr(sb, name).__doc__


def test_every_test_file_runs_on_one_end_at_least():
    script = (ROOT / "tools" / "run_tests.sh").read_text(encoding="utf-8")
    listed = {
        name: script.split(f'{name}="')[1].split('"')[0].split()
        for name in ("newest_only", "oldest_only", "core", "models")
    }
    shared = conftest.COSTLY
    assert shared and all(listed.values())
    for name in (*(name for names in listed.values() for name in names), *shared):
        assert (ROOT / "tests" / f"test_{name}.py").is_file(), name
    # Of what is shared each end has a part, so that both have to run it.
    newest, oldest = ({*listed[f"{end}_only"]} for end in ("newest", "oldest"))
    assert not shared & (newest | oldest) and not newest & oldest
