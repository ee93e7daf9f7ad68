"""Fixtures that the whole suite shares: real data where they are at hand, and small slides made on the spot."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from stbench.datasets.readers import legacy_st
from stbench.method import TestSlide, TrainingSlide
from stbench.method_checks.subject import red_slide
from stbench.slides.slide import Slide

if sys.version_info < (3, 12) and "slipcover" in sys.modules:  # which counts the lines that are run
    # taking counters out of code that ran often, 1.1.0 raises a KeyError in it now and then; left in, they cost little
    sys.modules["slipcover"].Slipcover.deinstrument_seen = lambda self: None  # type: ignore[attr-defined]

# how long an example takes says more of what else the machine does than of the code; a test that must not hang has a
# deadline of its own
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


@pytest.fixture(autouse=True, scope="session")
def nothing_waits_for_the_disk() -> Iterator[None]:
    """Files are flushed against power cuts, which no test makes; the disk would be waited for thousands of times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # a descriptor that is none is still refused
        yield


@pytest.fixture(autouse=True, scope="session")
def interrupts_are_heard() -> Iterator[None]:
    """As in a terminal, also where a shell started the tests in the background, in which it lets Ctrl-C be ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True, scope="session")
def tables_of_mlflow_are_made_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """MLflow works for seconds at the tables of an empty SQLite file: its first one is kept, others are copies."""
    from stbench.results.tracking import store

    make, kept = store._make, tmp_path_factory.mktemp("tables") / "mlflow.db"

    def make_or_copy(path: Path) -> None:
        from mlflow.store.db import utils

        work = utils._initialize_tables

        def tables(engine: Any) -> None:
            if kept.exists():
                shutil.copyfile(kept, engine.url.database)
                return
            work(engine)
            engine.dispose()
            shutil.copyfile(engine.url.database, kept)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(utils, "_initialize_tables", tables)
            make(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_make", make_or_copy)
        yield


@pytest.fixture(autouse=True)
def threads_kept() -> Iterator[None]:
    """As many threads for torch after a test as before it: numba, which scanpy imports, takes all cores for OpenMP.

    With another number sums are taken in another order, and what a later test trains has other last digits.
    """
    torch = sys.modules.get("torch")
    before = None if torch is None else torch.get_num_threads()
    yield
    if before is not None and torch.get_num_threads() != before:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of real sections named by STBENCH_DATA; tests that ask for it are skipped where there is none."""
    place = os.environ.get("STBENCH_DATA")
    if not place or not Path(place).is_dir():
        pytest.skip("real sections are not at hand: set STBENCH_DATA to a folder that holds her2st/, visium/ and mob/")
    return Path(place).resolve()


@pytest.fixture
def labelled_section(data_root: Path) -> Callable[[str], Slide]:
    """``read("B1")``: a HER2+ section with the pathologist's labels. None of these has an image here, and labels need
    none: C2's stands in, as a slide must have one."""
    data = data_root / "her2st" / "data"

    def read(name: str) -> Slide:
        return legacy_st.read(
            name,
            name[0],
            counts=data / f"ST-cnts/{name}.tsv.gz",
            spots=data / f"ST-spotfiles/{name}_selection.tsv",
            labels=data / f"ST-pat/lbl/{name}_labeled_coordinates.tsv",
            image=data / "ST-imgs/C/C2/5714_HE_BT_C2.jpg",
        )

    return read


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's own cache; one cache for the session keeps prepared data shared between tests."""
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("STBENCH_CACHE", str(base / "stbench-cache"))


def _training_slide(
    slide_id: str, patient: str, n_spots: int, n_genes: int, side: int, rng: np.random.Generator
) -> TrainingSlide:
    """A slide of which a method that looks at the image can learn a gene; its array positions start at 0."""
    slide = red_slide(slide_id, patient, n_spots, n_genes, side, rng)
    array_xy = slide.array_xy - 1
    return replace(slide, array_xy=array_xy, pixel_xy=array_xy * 100.0 + 60.0)


@pytest.fixture(scope="session")
def make_training_slides() -> Callable[..., list[TrainingSlide]]:
    """``make(n_slides=3, n_spots=20, n_genes=6, side=32, seed=0)``: slides S0, S1, ... of patients P0, P0, P1, ..."""

    def make(
        n_slides: int = 3, n_spots: int = 20, n_genes: int = 6, side: int = 32, seed: int = 0
    ) -> list[TrainingSlide]:
        rng = np.random.default_rng(seed)
        return [_training_slide(f"S{i}", f"P{i // 2}", n_spots, n_genes, side, rng) for i in range(n_slides)]

    return make


@pytest.fixture(scope="session")
def hide_expression() -> Callable[[TrainingSlide], TestSlide]:
    """The test side of a training slide: the same patches and positions without any expression."""

    def hide(slide: TrainingSlide) -> TestSlide:
        return TestSlide(slide.id, slide.patient, slide.patches, slide.array_xy, slide.pixel_xy, slide.um_per_px)

    return hide


NO_PICTURE = {
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1pt" height="1pt" viewBox="0 0 1 1"></svg>',
    **dict.fromkeys(("png", "webp"), b""),
}


@pytest.fixture
def unsaved_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made as always, and neither laid out nor saved, which takes most of a report's time.

    For tests that look at what a report says. That figures can be saved is shown by those that look at figures. All is
    made in this process, as another would save them.
    """
    from stbench.reports.figures import canvas
    from stbench.reports.page import report

    monkeypatch.setattr(canvas, "rendered", lambda figure, forms, foot="": {form: NO_PICTURE[form] for form in forms})
    monkeypatch.setattr(report, "fitting_processes", lambda sections: 1)


@dataclass(frozen=True)
class Outcome:
    """What a command line did: exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def stbench_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """``stbench_command("run", "--methods", ...)``: the command line in this process, wide enough not to wrap."""
    from stbench.cli import console, main

    monkeypatch.setenv("COLUMNS", "300")
    for each in (console.out, console.err):  # which keep the width that the variable had when they were imported
        monkeypatch.setattr(each, "_width", 300)

    def command(*words: object) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(word) for word in words])
        printed = capsys.readouterr()
        return Outcome(int(left.value.code or 0), printed.out, printed.err)

    return command
