"""The code in the documentation runs, as it stands."""

import re
import tempfile
from pathlib import Path

import jax
import pytest

import seedbed as sb
from helpers import ROOT

pytestmark = pytest.mark.end("oldest")

PAGES = ["README.md", *sorted(f"docs/{path.name}" for path in Path(ROOT, "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page: str, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # not left behind
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert blocks
    scope: dict = {"__name__": "__main__"}
    state = sb.random.get_state()
    try:
        # As a reader has jax set up, not as strictly as the tests have it.
        with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
            for block in blocks:
                line = text[: text.index(block)].count("\n")
                exec(compile("\n" * line + block, page, "exec"), scope)
    finally:
        sb.random.set_state(state)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *Path(ROOT).glob("docs/*.md")])
def test_links_between_pages_lead_somewhere(page):
    path = ROOT / page
    text = re.sub(
        r"^```.*?^```|`[^`\n]+`\(", "", path.read_text(encoding="utf-8"), flags=re.M | re.S
    )
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_every_row_of_the_comparison_links_tests_that_exist():
    text = (ROOT / "docs/brainstate.md").read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| ")]
    header, _, *rows = rows
    columns = header.count("|")
    linked = 0
    for row in rows:
        assert len(re.findall(r"(?<!\\)\|", row)) == columns, row
        if re.fullmatch(r"\| \*\*[^|*]+\*\* \| \| \| \|", row):
            continue  # the name of a group
        links = re.findall(r"\[`(\w+)`\]\(\.\./tests/(\w+/\w+\.py)\)", row.split(" | ")[-1])
        assert links, row
        for name, file in links:
            source = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"^def {name}\(", source, re.MULTILINE), f"{file} has no {name}"
        linked += len(links)
    assert linked >= 40


@pytest.mark.parametrize("page", ["README.md", "docs/gpu.md"])
def test_a_page_says_at_once_whether_the_cuda_part_has_run_on_a_gpu(page):
    ran = any((ROOT / "benchmarks/results/gpu").glob("*/*.json"))
    first = (ROOT / page).read_text(encoding="utf-8").splitlines()[:15]
    says = [line for line in first if re.search(r"\*\*Nothing .* has run on a GPU yet", line)]
    assert len(says) == (not ran)
