"""What packages are made of: one version, metadata, notices, and what a package index shows."""

import re
import tomllib
from pathlib import Path

import pytest

import seedbed as sb
from helpers import ROOT

pytestmark = pytest.mark.end("newest")

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = PYPROJECT["tool"]["hatch"]["metadata"]["hooks"]["fancy-pypi-readme"]


def test_the_version_stands_in_one_place():
    read = PYPROJECT["tool"]["scikit-build"]["metadata"]["version"]["input"]
    assert ROOT / read == ROOT / "python/seedbed/__init__.py"
    assert "version" in PYPROJECT["project"]["dynamic"] and "version" not in PYPROJECT["project"]
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    file, begin = re.search(
        r'^file\(STRINGS (\S+) version_line REGEX "(.*?)"', cmake, re.M
    ).groups()
    (line,) = (line for line in Path(ROOT, file).read_text().splitlines() if re.match(begin, line))
    assert line == f'__version__ = "{sb.__version__}"'
    recipe = (ROOT / "tools/conda/recipe.yaml").read_text(encoding="utf-8")
    assert f'\n  version: "{sb.__version__}"\n' in recipe
    numbers = re.findall(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert not numbers or numbers[0].split()[0] == sb.__version__


def test_every_notice_is_listed_and_packed():
    files = {path.name for path in Path(ROOT, "licenses").iterdir()} - {"README.md"}
    listed = re.findall(r"`(\w\S*\.txt)`", (ROOT / "licenses/README.md").read_text())
    assert set(listed) == files and {"nanobind.txt", "robin_map.txt", "xla.txt"} <= files
    packed = PYPROJECT["project"]["license-files"]
    assert {path for pattern in packed for path in ROOT.glob(pattern)} == {
        ROOT / "LICENSE",
        *Path(ROOT, "licenses").iterdir(),
    }
    assert PYPROJECT["project"]["license"] == "Apache-2.0"
    for file, beginning in (("LICENSE", "Apache License"), ("CITATION.cff", "cff-version: 1.2.0")):
        assert (ROOT / file).read_text(encoding="utf-8").lstrip().startswith(beginning)


def test_a_package_index_shows_the_readme_with_links_that_lead_somewhere():
    """As the build substitutes them; the pages themselves are followed in test_docs."""
    (fragment,) = README["fragments"]
    text = (ROOT / fragment["path"]).read_text(encoding="utf-8")
    relative = r"\]\((?!https?:|#)([^)#]+)[^)]*\)"
    assert len(re.findall(relative, text)) > 10
    for step in README["substitutions"]:
        text = re.sub(step["pattern"], step["replacement"], text)
    assert not re.findall(relative, text)
    (repository,) = {PYPROJECT["project"]["urls"]["Homepage"]}
    name = repository.removeprefix("https://github.com/")
    pictures = re.findall(r"!\[[^]]+\]\((.*?)\)", text)
    assert pictures
    for address in pictures:
        base = f"https://raw.githubusercontent.com/{name}/main/"
        assert (ROOT / address.removeprefix(base)).is_file(), address
    pages = [page for page in re.findall(r"\]\((http[^)]*)\)", text) if page not in pictures]
    assert len([page for page in pages if page.startswith(f"{repository}/blob/main/")]) > 10


def test_all_addresses_of_the_repository_are_the_same():
    home = PYPROJECT["project"]["urls"]["Homepage"]
    for address in PYPROJECT["project"]["urls"].values():
        assert address.startswith(home)
    for file in ("CITATION.cff", "SECURITY.md", ".github/ISSUE_TEMPLATE/config.yml"):
        assert home in (ROOT / file).read_text(encoding="utf-8")


def test_a_file_name_of_a_release_says_whether_it_holds_cuda_code():
    """Every wheel for Linux does, and none for another system."""
    build = PYPROJECT["tool"]["cibuildwheel"]
    assert build["linux"]["environment"]["SEEDBED_CUDA"] == "ON"
    assert build["linux"]["test-environment"]["SEEDBED_REQUIRE_CUDA"] == "1"
    assert build["macos"]["environment"]["SEEDBED_CUDA"] == "OFF"
    for settings in (build, build["linux"], build["macos"]):  # they replace one another
        assert settings["environment"]["SEEDBED_REQUIRE_NATIVE"] == "1"
    oldest = f"cp{PYPROJECT['project']['requires-python'].removeprefix('>=').replace('.', '')}-*"
    assert {oldest, f"{PYPROJECT['tool']['scikit-build']['wheel']['py-api']}-*"} <= {
        *build["build"]
    }
