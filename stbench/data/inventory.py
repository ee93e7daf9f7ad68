"""What data are here, and whether they are sound: what ``stbench data list`` and ``stbench data check`` report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..dataset import OTHER_RELEASE, Dataset, Missing, SlideSource, expected_spots
from ..errors import UserError, unknown
from ..slides.checks import Problem, check_slide, panel_problems
from ..slides.slide import Slide
from ..system.wording import shortened
from .physical import in_words, patch_um_of, unknown_sizes, window_of

Draw = Callable[[Slide, str], Path]  # of a slide and what is most wrong with it: the picture that was made


@dataclass(frozen=True)
class Listing:
    """What is known of a dataset without reading it."""

    name: str
    title: str
    present: tuple[str, ...]  # slices, in fold order
    missing: tuple[Missing, ...]
    n_spots: int | None  # of the slices present, where the dataset knows its numbers
    n_genes: int | None  # in the panel; None: only reading the slides would tell
    place: Path | None  # the folder under which all present files lie; None: nothing is there, or there are no files
    how_to_get: str
    citation: str

    @property
    def n_expected(self) -> int:
        return len(self.present) + len(self.missing)


@dataclass(frozen=True)
class SliceCheck:
    """One slice after reading it. ``None`` where the slice could not be read."""

    id: str
    patient: str
    problems: tuple[Problem, ...]
    n_spots: int | None = None
    n_genes: int | None = None
    median_counts: float | None = None  # of a spot, over all genes
    um_per_px: float | None = None
    um_per_px_from: str = ""  # in a few words
    image_level: str | None = None
    image_size: tuple[int, int] | None = None  # width, height
    image_file: Path | None = None  # None: it is embedded, or there is no file
    n_padded: int | None = None  # windows that cross the image's border
    notes: tuple[str, ...] = ()
    picture: Path | None = None

    @property
    def errors(self) -> list[str]:
        return [problem.text for problem in self.problems if problem.severity == "error"]

    @property
    def notices(self) -> list[str]:
        return [problem.text for problem in self.problems if problem.severity == "notice"]

    @property
    def verdict(self) -> Literal["errors", "notices", "sound"]:
        if self.errors:
            return "errors"
        return "notices" if self.notices or self.notes else "sound"

    def facts(self) -> dict[str, Any]:
        """What is known of the slice, JSON-able (docs/data.md)."""
        width, height = self.image_size or (None, None)
        return {
            "id": self.id,
            "patient": self.patient,
            "verdict": self.verdict,
            "spots": self.n_spots,
            "genes": self.n_genes,
            "median_counts": _json_number(self.median_counts),
            "um_per_px": _json_number(self.um_per_px),
            "um_per_px_from": self.um_per_px_from or None,
            "image": {
                "level": self.image_level,
                "width": width,
                "height": height,
                "file": None if self.image_file is None else str(self.image_file),
            },
            "padded": self.n_padded,
            "errors": self.errors,
            "notices": self.notices,
            "notes": list(self.notes),
            "picture": None if self.picture is None else str(self.picture),
        }


def _json_number(value: float | None) -> float | None:
    """JSON knows no NaN and no infinity."""
    return None if value is None or not np.isfinite(value) else float(value)


@dataclass(frozen=True)
class CheckReport:
    """The outcome of checking a dataset: slice by slice, then what concerns all of them."""

    name: str
    title: str
    slices: tuple[SliceCheck, ...]
    missing: tuple[Missing, ...]
    problems: tuple[Problem, ...]  # of the dataset as a whole

    @property
    def sound(self) -> bool:
        problems = [*self.problems, *(problem for check in self.slices for problem in check.problems)]
        return bool(self.slices) and all(problem.severity != "error" for problem in problems)

    def facts(self) -> dict[str, Any]:
        """The same as an object of JSON (docs/data.md)."""
        return {
            "dataset": self.name,
            "title": self.title,
            "sound": self.sound,
            "slices": [check.facts() for check in self.slices],
            "missing": [{"id": gone.id, "reason": gone.reason} for gone in self.missing],
            "errors": [problem.text for problem in self.problems if problem.severity == "error"],
            "notices": [problem.text for problem in self.problems if problem.severity == "notice"],
        }


def list_dataset(dataset: Dataset) -> Listing:
    """What is there of ``dataset``; no image and no counts are read. Raises ``UserError`` for a path of nothing."""
    sources, missing = dataset.find()
    panel = getattr(dataset, "listed_panel", dataset.panel)()
    counted = [expected_spots(dataset).get(source.id) for source in sources]
    return Listing(
        name=dataset.name,
        title=dataset.title,
        present=tuple(source.id for source in sources),
        missing=tuple(missing),
        n_spots=sum(n for n in counted if n is not None) if counted and None not in counted else None,
        n_genes=None if panel is None else len(panel),
        place=_common_folder(sources),
        how_to_get=dataset.how_to_get,
        citation=dataset.citation,
    )


def _common_folder(sources: Sequence[SlideSource]) -> Path | None:
    folders = [str(path.parent.absolute()) for source in sources for path in source.files]
    return Path(os.path.commonpath(folders)) if folders else None


def check_dataset(
    dataset: Dataset,
    slices: Sequence[str] | None = None,
    draw: Draw | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> CheckReport:
    """Read every slice that is present (or those named in ``slices``) and check it; a bad one does not stop the others.

    ``draw`` is called with each slide whose image and positions can be read, sound or not (spots beyond the border are
    worth seeing), and what is most wrong with it, in words (empty: nothing); it returns the picture that it made.
    """
    sources, missing = getattr(dataset, "find_all", dataset.find)()
    if slices is not None:
        for name in slices:
            if name not in dataset.slices:
                raise unknown(f"slice of {dataset.name}", name, dataset.slices)
        sources = [source for source in sources if source.id in slices]
        missing = [gone for gone in missing if gone.id in slices]
    expected = expected_spots(dataset)
    checks: list[SliceCheck] = []
    genes: dict[str, list[str]] = {}
    for position, source in enumerate(sources):
        if on_progress is not None:
            on_progress(position, len(sources), source.id)
        try:
            slide = source.read()
        except UserError as error:
            checks.append(SliceCheck(source.id, source.patient, (Problem("error", str(error)),)))
            continue
        genes[source.id] = slide.genes
        checks.append(_check(slide, dataset, expected.get(source.id), draw))
    if on_progress is not None:
        on_progress(len(sources), len(sources), "")
    checks, problems = _on_panel(dataset, checks, genes)
    sizes = unknown_sizes({check.id: check.um_per_px for check in checks if check.n_spots is not None})
    problems += [] if sizes is None else [Problem("notice", sizes)]
    return CheckReport(dataset.name, dataset.title, tuple(checks), tuple(missing), tuple(problems))


def _on_panel(
    dataset: Dataset, checks: list[SliceCheck], genes: Mapping[str, list[str]]
) -> tuple[list[SliceCheck], list[Problem]]:
    """The checks, with what is to be said of each slice on the panel; and what is to be said of the panel itself."""
    if not genes:
        return checks, []
    try:
        panel: Sequence[str] = getattr(dataset, "panel_of", lambda _: dataset.panel())(genes)
    except UserError as error:
        return checks, [Problem("error", str(error))]
    checks = [
        replace(check, problems=(*check.problems, *panel_problems(genes[check.id], panel)))
        if check.id in genes
        else check
        for check in checks
    ]
    problems = [Problem("notice", text) for text in getattr(dataset, "panel_notices", ())]
    listed = set().union(*genes.values())
    unseen = [gene for gene in panel if gene not in listed]
    if unseen:
        text = f"{len(unseen)} of {len(panel)} panel genes are in none of the slices present: {shortened(unseen, 5)}"
        problems.append(Problem("error", text))
    return checks, problems


def _check(slide: Slide, dataset: Dataset, expected: int | None, draw: Draw | None) -> SliceCheck:
    problems = check_slide(slide)
    sound = all(problem.severity != "error" for problem in problems)
    try:
        slide.image.thumbnail(200)  # decodes it: an image that is cut off has a sound header
    except UserError as error:
        told = [problem for problem in problems if problem.text != str(error)]
        return SliceCheck(slide.id, slide.patient, (Problem("error", str(error)), *told))
    if expected is not None and slide.n_spots != expected:
        problems.append(Problem("notice", f"{slide.n_spots:,} spots, {OTHER_RELEASE.format(expected)}"))
    n_padded = None
    try:
        window = window_of(slide, dataset)
        n_padded = int(slide.image.crossing(slide.centres, window).sum()) if sound else None
        if (patch_um := patch_um_of(dataset)) is not None:
            problems.append(Problem("notice", in_words(slide, window, patch_um)))
    except UserError as error:  # no window of that physical size
        problems.insert(0, Problem("error", str(error)))
    if n_padded:
        text = f"{n_padded} of {slide.n_spots} windows of {window.side:.4g} px cross the image's border and are padded"
        problems.append(Problem("notice", text))
    return SliceCheck(
        id=slide.id,
        patient=slide.patient,
        problems=tuple(problems),
        n_spots=slide.n_spots,
        n_genes=len(slide.genes),
        median_counts=_median_counts(slide),
        um_per_px=slide.um_per_px,
        um_per_px_from=slide.um_per_px_from,
        image_level=slide.image.level,
        image_size=slide.image.size,
        image_file=slide.image.path,
        n_padded=n_padded,
        notes=slide.notes,
        picture=draw(slide, _most_wrong(problems)) if draw is not None and _can_be_drawn(slide) else None,
    )


def _most_wrong(problems: Sequence[Problem]) -> str:
    """The first error, else the first notice that may make numbers wrong; empty: neither."""
    errors = [problem.text for problem in problems if problem.severity == "error"]
    return next(iter([*errors, *(problem.text for problem in problems if problem.lasting)]), "")


def _median_counts(slide: Slide) -> float | None:
    matrix = slide.adata.X
    return None if matrix is None or not slide.n_spots else float(np.median(np.asarray(matrix.sum(axis=1))))


def _can_be_drawn(slide: Slide) -> bool:
    centres = slide.adata.obsm.get("spatial")
    return centres is not None and np.shape(centres) == (slide.n_spots, 2) and bool(np.isfinite(centres).all())
