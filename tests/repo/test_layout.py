"""Rules of the source tree: who imports whom, what importing costs, how long files are."""

import ast
import importlib
import inspect
import json
import re
from pathlib import Path

import pytest

import seedbed as sb
from helpers import ROOT, load_file, load_tool, run_python

pytestmark = pytest.mark.end("newest")

PACKAGE = ROOT / "python" / "seedbed"
MODULES = sorted(PACKAGE.rglob("*.py"))
FRAMEWORKS = ("flax", "equinox", "haiku", "brainstate", "torch", "optax")

# The files and folders of benchmarks/, from the ground up: each imports from those before it. The
# report stands before what measures: it knows results alone.
BENCHMARKS = (
    *("case", "environment", "result", "peers", "tables", "roofline", "store", "report"),
    *("worker", "measure", "gpu", "", "__main__"),
)

ROOMS = load_tool("rooms")
conftest = load_file("conftest", ROOT / "tests/conftest.py")


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


def private_jax(source: str) -> set[str]:
    """Private modules of jax that a file imports, and private attributes of what it imports."""
    tree = ast.parse(source)
    found = {name for name in imports(source) if name.startswith(("jax._", "jaxlib._"))}
    jaxs = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            jaxs |= {alias.asname or "jax" for alias in node.names if alias.name[:3] == "jax"}
        elif (
            isinstance(node, ast.ImportFrom) and not node.level and (node.module or "")[:3] == "jax"
        ):
            jaxs |= {alias.asname or alias.name for alias in node.names}
            found |= {alias.name for alias in node.names if alias.name.startswith("_")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            root: ast.AST = node.value
            while isinstance(root, (ast.Attribute, ast.Call)):
                root = root.value if isinstance(root, ast.Attribute) else root.func
            if isinstance(root, ast.Name) and root.id in jaxs and node.attr[:2] != "__":
                found.add(ast.unparse(node))
    return found


def test_rooms_import_only_from_rooms_below_them_and_only_what_these_hand_out():
    found = ROOMS.arrows()
    assert len({(arrow.source, arrow.target) for arrow in found}) > 50
    assert not ROOMS.faults(found)
    up = {(arrow.source, arrow.target) for arrow in found} & set(ROOMS.UP)
    assert up == set(ROOMS.UP) and len(up) <= 3 and all(ROOMS.UP.values())


def test_every_folder_is_a_room_that_says_what_it_knows():
    folders = {path.parent.relative_to(PACKAGE) for path in MODULES}
    rooms = {Path(*room.split(".")) for room in ROOMS.ROOMS if room and not _is_file(room)}
    assert folders == {Path(), *rooms}
    for folder in folders:
        source = (PACKAGE / folder / "__init__.py").read_text(encoding="utf-8")
        said = ast.get_docstring(ast.parse(source))
        assert said, folder
        if folder.name.startswith("_"):
            assert "Nothing here knows" in " ".join(said.split()), folder


def _is_file(room):
    return PACKAGE.joinpath(*room.split(".")).with_suffix(".py").is_file()


@pytest.mark.parametrize(
    "file, line, fault",
    [
        ("_trace/fold.py", "from .._plan import Draw", "up: _trace/fold.py takes Draw of _plan"),
        ("_plan/draw.py", "from .. import _match", "up: _plan/draw.py takes all of _match"),
        ("_jax/compat.py", "from ..random import seed", "up: _jax/compat.py takes seed of random"),
        (
            "adapters/equinox.py",
            "from .._match.keys import RULES",
            "not handed out: adapters/equinox.py takes keys of _match",
        ),
        (
            "_match/choose.py",
            "def f():\n    from .._plan import _named",
            "not handed out: _match/choose.py takes _named of _plan",
        ),
    ],
)
def test_the_check_of_arrows_can_fail(file, line, fault, tmp_path):
    for path in MODULES:
        copy = tmp_path / path.relative_to(PACKAGE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        copy.write_text(f"{text}\n{line}\n" if str(path.relative_to(PACKAGE)) == file else text)
    assert ROOMS.faults(ROOMS.arrows(tmp_path), tmp_path) == [fault]


def benchmark_faults(folder: Path) -> list[str]:
    """Imports within ``benchmarks/`` of what comes later in its flow."""
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        module = ".".join(path.relative_to(folder).with_suffix("").parts)
        is_package = path.name == "__init__.py"
        source = module.removesuffix("__init__").rstrip(".")
        for base, name in ROOMS.imported(source, is_package, path.read_text(encoding="utf-8")):
            mine, other = (dotted.split(".")[0] for dotted in (source, base or name))
            if BENCHMARKS.index(other) > BENCHMARKS.index(mine):
                wrong.append(f"{path.relative_to(folder)} imports {other}")
    return wrong


def test_benchmarks_import_only_what_comes_before_them():
    found = {path.name.removesuffix(".py") for path in (ROOT / "benchmarks").glob("*")}
    assert found - {"__init__", "__pycache__", "README.md", "results"} == {*BENCHMARKS} - {""}
    for folder in {path.parent for path in (ROOT / "benchmarks").rglob("*.py")}:
        source = (folder / "__init__.py").read_text(encoding="utf-8")
        assert "Nothing" in (ast.get_docstring(ast.parse(source)) or ""), folder
    assert not benchmark_faults(ROOT / "benchmarks")


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("peers/roster.py", "from ..report import page", "peers/roster.py imports report"),
        ("peers/__init__.py", "from .. import tables", "peers/__init__.py imports tables"),
        (
            "tables/cases.py",
            "def f():\n    from ..report.pages import ABOUT",
            "tables/cases.py imports report",
        ),
        ("report/pages.py", "from ..measure import measure", "report/pages.py imports measure"),
        ("worker.py", "from . import measure", "worker.py imports measure"),
        ("case.py", "from .peers import PEERS", "case.py imports peers"),
    ],
)
def test_the_check_of_benchmarks_can_fail(file, line, fault, tmp_path):
    for path in (ROOT / "benchmarks").rglob("*.py"):
        copy = tmp_path / path.relative_to(ROOT / "benchmarks")
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8")
        added = f"{text}\n{line}\n" if copy == tmp_path / file else text
        copy.write_text(added, encoding="utf-8")
    assert benchmark_faults(tmp_path) == [fault]


def test_planning_imports_no_backend():
    planning = {"_base", "_jax", "_trace", "_plan", "_match"}
    for arrow in ROOMS.arrows():
        assert arrow.source not in planning or arrow.target in planning, arrow


def test_only_one_room_touches_jax_in_private():
    offenders = {
        str(path.relative_to(PACKAGE)): found
        for path in MODULES
        if "_jax" not in path.parts and (found := private_jax(path.read_text(encoding="utf-8")))
    }
    assert not offenders


def test_only_adapters_import_a_framework():
    for path in MODULES:
        if "adapters" not in path.parts:
            roots = {name.split(".")[0] for name in imports(path.read_text(encoding="utf-8"))}
            assert not roots & set(FRAMEWORKS), path


def test_the_checks_of_imports_can_fail():
    source = (
        "from jax._src import core\nimport jax\nfrom jax.interpreters import mlir as m\n"
        "import flax.nnx\nm._lowerings['x'] = jax.random.key(0)._trace\nself._own = 1"
    )
    assert private_jax(source) == {"jax._src", "m._lowerings", "jax.random.key(0)._trace"}
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


def long_files(folder: Path) -> list[str]:
    found = [path for kind in ("py", "cc", "cu", "h") for path in folder.rglob(f"*.{kind}")]
    return [path.name for path in found if len(path.read_text(encoding="utf-8").splitlines()) > 400]


@pytest.mark.parametrize("folder", ["python", "csrc", "tests", "benchmarks", "tools", "examples"])
def test_files_are_short(folder, tmp_path):
    assert any((ROOT / folder).iterdir()) and long_files(ROOT / folder) == []
    (tmp_path / "test_long.py").write_text("\n" * 401, encoding="utf-8")
    assert long_files(tmp_path) == ["test_long.py"]


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


def test_every_public_module_says_what_is_public():
    folders = [path for path in MODULES if not _private(path) and path.parent.name != "cli"]
    names = [path.relative_to(PACKAGE.parent).with_suffix("").parts for path in folders]
    names = [".".join(part for part in one if part != "__init__") for one in names]
    assert {"seedbed", "seedbed.nn", "seedbed.adapters.nnx", "seedbed.filters"} <= {*names}
    for name in names:
        try:
            module = importlib.import_module(name)
        except ImportError:  # a framework that is not here
            assert name.startswith("seedbed.adapters.")
            continue
        shown = {*dir(module)} - {"__version__", *importlib.import_module(name).__all__}
        assert shown <= ({*FRAMEWORKS, "linen", "nnx"} if name == "seedbed.adapters" else set())
        assert all(hasattr(module, one) for one in module.__all__)
        assert sorted({*module.__all__}) == sorted(module.__all__)
    own = {name for name, value in vars(sb.nn).items() if not inspect.ismodule(value)}
    assert {name for name in own if name[0] != "_"} == {*sb.nn.__all__}


def _private(path):
    return any(part[0] == "_" and part != "__init__" for part in path.with_suffix("").parts)


class _Item:
    """A test as pytest collects it, as far as sharing it out goes."""

    def __init__(self, stem, name, *marks):
        self.path, self.name, self.marks = Path(f"{stem}.py"), name, marks

    def get_closest_marker(self, name):
        return next((mark for mark in self.marks if mark.name == name), None)


def test_every_test_runs_on_one_end_at_least():
    shared, mark = pytest.mark.shared.mark, pytest.mark
    items = [_Item("plain", "a"), *(_Item("shared", name, shared) for name in "abcde")]
    items += [
        _Item("new", "a", mark.end("newest").mark),
        _Item("old", "a", mark.end("oldest").mark),
    ]
    items += [_Item("core", name, shared, mark.reference("oldest").mark) for name in "abc"]
    items += [_Item("model", name, shared, mark.reference("newest").mark) for name in "abc"]
    whole = [_Item("rounded", name, mark.shared("newest").mark) for name in "abc"]
    newest, oldest = (set(conftest.shared_out(items + whole, end)[0]) for end in conftest.ENDS)
    assert newest | oldest == {*items, *whole} and newest & oldest == {items[0], whole[1]}
    assert {*whole} <= newest
    again = [conftest.shared_out(items, end, on_reference=True) for end in conftest.ENDS]
    assert [[(item.path.stem, item.name) for item in kept] for kept, _ in again] == [
        [("model", name) for name in "abc"],
        [("core", "b")],
    ]
    assert all(len(kept) + len(left) == len(items) for kept, left in again)


def test_marks_on_test_files_name_an_end():
    found = []
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        found += [name for _, name in re.findall(r'mark\.(end|reference|shared)\("(\w+)"\)', text)]
    assert len(found) > 30 and set(found) <= {*conftest.ENDS}


def test_tests_stand_in_the_room_that_they_test():
    rooms = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir()}
    rooms -= {"support", "__pycache__"}
    assert rooms == {
        *("adapters", "cuda", "ensemble", "gpu", "match", "native"),
        *("nn", "random", "repo", "run", "store", "trace", "trust"),
    }
    assert [path.name for path in (ROOT / "tests").glob("*.py")] == ["conftest.py"]
