"""Made-up results directories for the tests of the report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from synthetic import CONTROLS, METHODS, make_results

from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section

# tests of the figures themselves, of the page as a whole, and of names that a figure must be able to show
SAVED = ("test_figures", "test_names_survive", "test_page", "test_processes", "test_slide_picture")
FEW = (METHODS[0], METHODS[1], CONTROLS[0], CONTROLS[1], CONTROLS[4])


@pytest.fixture
def saved_pictures() -> None:
    """Asked for by a test that looks at files of figures."""


@pytest.fixture(autouse=True)
def _only_where_they_are_looked_at(request: pytest.FixtureRequest) -> None:
    if request.path.stem not in SAVED and "saved_pictures" not in request.fixturenames:
        request.getfixturevalue("unsaved_pictures")


@pytest.fixture
def load_fake(tmp_path: Path) -> Callable[..., Section]:
    """The only section of a made-up results directory; by default two methods and three controls on three slices."""

    def one(**changes: Any) -> Section:
        settings: dict[str, Any] = {"methods": FEW, "slices": ["B4", "C2", "C3"], **changes}
        (section,) = load([make_results(tmp_path / "run", **settings)])
        return section

    return one
