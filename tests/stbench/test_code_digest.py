"""Keys of trials survive what changes no number, and nothing else."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from stbench.system.code_digest import code_digest

METHOD = '''"""A method."""

from . import shared
from .blocks import scale
from .blocks import Settings


def predict(x):
    """Twice the input."""
    if x is None:
        raise ValueError(f"there is no input: {x}")
    return scale(x) * shared.FACTOR  # twice
'''
BLOCKS = """from dataclasses import dataclass

from pydantic import BaseModel, Field

LIMIT = 3.0


class Settings(BaseModel):
    rate: float = Field(0.1, gt=0, description="learning rate")


def scale(x, run=None):
    if run is not None:
        run.note("scaled")
    return min(x, LIMIT)
"""
SHARED = "FACTOR = 2\n"


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The digest of a method of a small package, with some of its files written anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    count = iter(range(1000))

    def of(**files: str) -> str:
        name = f"digested_{next(count)}"
        home = tmp_path / name
        home.mkdir()
        content = {"__init__": "", "method": METHOD, "blocks": BLOCKS, "shared": SHARED, **files}
        for module, text in content.items():
            (home / f"{module}.py").write_text(text, encoding="utf-8")
        return code_digest(home / "method.py", name, {name})

    return of


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Twice the input.", "The input, two times over."),
        ("  # twice", ""),
        ("there is no input: {x}", "give an input, not {x}"),
        ('"scaled"', '"the values were scaled"'),
        ('description="learning rate"', 'description="step of the optimiser"'),
        ("\n\n\ndef", "\n\ndef"),
    ],
)
def test_words_change_no_digest(digest: Callable[..., str], before: str, after: str) -> None:
    changed = {"method": METHOD.replace(before, after), "blocks": BLOCKS.replace(before, after)}
    assert changed != {"method": METHOD, "blocks": BLOCKS}
    assert digest(**changed) == digest()


def test_a_file_that_moves_changes_no_digest(digest: Callable[..., str]) -> None:
    method = METHOD.replace("from .blocks", "from .parts_of_it")
    assert digest(method=method, blocks="", parts_of_it=BLOCKS) == digest()


def test_a_definition_that_moves_to_another_file_changes_no_digest(digest: Callable[..., str]) -> None:
    method = METHOD.replace("from .blocks import Settings", "from .settings import Settings")
    of_settings = BLOCKS[BLOCKS.index("class Settings") : BLOCKS.index("def scale")]
    assert digest(method=method, settings=of_settings, blocks=BLOCKS.replace(of_settings, "")) == digest()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("LIMIT = 3.0", "LIMIT = 3.1"),
        ("FACTOR = 2", "FACTOR = 3"),
        ("min(x, LIMIT)", "max(x, LIMIT)"),
        ("Field(0.1,", "Field(0.2,"),
        ("gt=0", "ge=0"),
        ("if x is None", "if x is not None"),
        ("* shared.FACTOR", "/ shared.FACTOR"),
    ],
)
def test_what_is_computed_changes_the_digest(digest: Callable[..., str], before: str, after: str) -> None:
    files = {"method": METHOD, "blocks": BLOCKS, "shared": SHARED}
    changed = {name: text.replace(before, after) for name, text in files.items()}
    assert changed != files
    assert digest(**changed) != digest()


def test_digesting_code_imports_nothing_of_it(digest: Callable[..., str]) -> None:
    before = set(sys.modules)
    digest()
    assert not {name for name in set(sys.modules) - before if name.startswith("digested_")}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["stbench.encoders"], ["stbench.training.encoders"]),
        (["stbench.training"], ["stbench.training.loop", "stbench.training.device", "stbench.training.checkpoint"]),
    ],
)
def test_what_is_imported_by_an_old_name_is_followed_to_its_new_place(
    tmp_path: Path, old: list[str], new: list[str]
) -> None:
    digests = []
    for i, names in enumerate((old, new, [])):
        path = tmp_path / f"{i}.py"
        path.write_text("".join(f"from {name} import x\n" for name in names) + "FACTOR = 2\n")
        digests.append(code_digest(path, "", {"stbench"}))
    by_old, by_new, none = digests
    assert by_old == by_new != none
