"""The code in the documentation runs, as it stands."""

import re
from pathlib import Path

import jax
import pytest

import seedbed as sb
from helpers import ROOT

PAGES = ["README.md", "docs/modules.md"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page: str):
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
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target
