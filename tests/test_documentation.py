"""Documentation is held against the tree: what a page links to, and every file and module that it names, is there."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    str(path.relative_to(ROOT)) for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"))
)
FOLDERS = ("stbench", "methods", "datasets", "reports", "tests", "docs", "benchmarks")
# what releases looked like is told in the changelog: files that it names may have gone since
OF_TODAY = [page for page in PAGES if page != "CHANGELOG.md"]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def links(page: str) -> set[str]:
    """Where a page's links lead that stay within the repository, pictures included."""
    found = re.findall(r"\]\(([^)\s]+)\)", text_of(page))
    return {link for link in found if not link.startswith(("http://", "https://", "mailto:"))}


def heading_names(page: Path) -> set[str]:
    """What ``#...`` of a link may name: headings as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def places(page: str) -> set[str]:
    """Files and folders of this repository that a page names: ``stbench/scores/``, ``methods/stnet.py``."""
    named = re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", text_of(page))
    return {name for name in named if "*" not in name}


def module_names(page: str) -> set[str]:
    """Modules, and names in modules, that a page names: ``stbench.method``, ``stbench.torch_method.TorchMethod``."""
    return set(re.findall(r"\bstbench(?:\.\w+)+", text_of(page)))


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or stands in one."""
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    module, _, attribute = name.rpartition(".")
    return bool(module) and exists(module) and hasattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("page", PAGES)
def test_every_link_within_the_repository_leads_somewhere(page: str) -> None:
    for link in links(page):
        path, _, heading = link.partition("#")
        place = (ROOT / page).parent / path if path else ROOT / page
        assert place.exists(), f"{page} links to {link}"
        assert not heading or heading in heading_names(place), f"{page} links to {link}, and has no such heading"


@pytest.mark.parametrize("page", OF_TODAY)
def test_every_file_that_is_named_is_there(page: str) -> None:
    assert {name for name in places(page) if not (ROOT / name).exists()} == set()


@pytest.mark.parametrize("page", OF_TODAY)
def test_every_module_that_is_named_is_there(page: str) -> None:
    assert {name for name in module_names(page) if not exists(name)} == set()


def test_something_is_looked_at() -> None:
    """Or a page that is written in another style would pass without being read."""
    assert links("README.md") >= {"docs/architecture.md", "docs/precision.md"}
    assert len(places("docs/architecture.md")) > 30
    assert "stbench.torch_method.TorchMethod" in module_names("README.md")
    assert not exists("stbench.scores.nothing")
    assert not exists("stbench.nothing.more")
