"""Made-up results directories for the tests of the report."""

import pickle
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


DEFAULTS: dict[str, Any] = {"methods": FEW, "slices": ["B4", "C2", "C3"]}


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """The section of a made-up results directory, pickled: the same settings make the same, and are read once."""
    known: dict[str, bytes] = {}

    def pickled(**settings: Any) -> bytes:
        asked = repr(sorted(settings.items()))
        if asked not in known:
            (section,) = load([make_results(tmp_path_factory.mktemp("made-up") / "run", **settings)])
            known[asked] = pickle.dumps(section)
        return known[asked]

    return pickled


@pytest.fixture
def load_fake(loaded: Callable[..., bytes]) -> Callable[..., Section]:
    """The only section of a made-up results directory; by default two methods and three controls on three slices.

    The section is the test's own, which may change it; its directory is not.
    """

    def own(**changes: Any) -> Section:
        section: Section = pickle.loads(loaded(**(DEFAULTS | changes)))
        return section

    return own


@pytest.fixture
def load_own_fake(tmp_path: Path) -> Callable[..., Section]:
    """As ``load_fake``, of a directory that the test may write into."""

    def own(**changes: Any) -> Section:
        (section,) = load([make_results(tmp_path / "run", **(DEFAULTS | changes))])
        return section

    return own
