"""What trained models predict for the spots of an image: the mean of several, and how far they lie apart."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.patch_files import read_patches, write_patches
from ..data.prepared import PADDING, PADDING_RULE
from ..errors import MethodFailed, NotApplicable, UserError, said
from ..method import TestSlide
from ..models.facts import ModelFacts
from ..models.folder import find_model, read_model
from ..models.outside import unlike_in_colour
from ..slides.content import with_content
from ..slides.cutting import Window
from ..slides.patch_colours import patch_colours
from ..slides.slide import Slide
from ..system.files import file_digest, writing_to
from ..system.finite import not_finite
from ..system.locate import cache_root
from ..trials.attempt import warnings_noted
from ..trials.trained import as_in_its_trial
from .windows import fitting_window, training_slides


@dataclass(frozen=True)
class Prediction:
    """Of one slide by one model or several."""

    mean: np.ndarray  # (n_spots, n_genes) float32, on the target's scale
    std: np.ndarray | None  # float32, between models (n - 1); None: there was one
    notes: tuple[str, ...]
    window: Window


def models_that_agree(directories: Sequence[Path]) -> list[ModelFacts]:
    """What the folders' models say of themselves. ``UserError`` where they cannot be averaged, or predict no image."""
    models: list[ModelFacts] = []
    for directory in directories:
        facts = ModelFacts.read(find_model(directory))
        _require_of_images(facts, directory)
        models.append(facts)
    first = models[0]
    seen: dict[str, Path] = {}
    for facts, directory in zip(models, directories, strict=True):
        if facts.key in seen:
            raise UserError(f"{directory} is the same model as {seen[facts.key]} - give each once")
        seen[facts.key] = directory
        for what, mine, other in (
            ("method", facts.name, first.name),
            ("settings", [facts.preset, dict(facts.config)], [first.preset, dict(first.config)]),
            ("target", [facts.target, facts.formula], [first.target, first.formula]),
            ("panel", facts.genes, first.genes),
            ("windows", [facts.patch_px, facts.patch_um], [first.patch_px, first.patch_um]),
        ):
            if mine != other:
                raise UserError(
                    f"{directory} ({facts.label}) and {directories[0]} ({first.label}) differ in their {what} - "
                    "only folds and seeds of one method on one panel and target can be averaged"
                )
    return models


def _require_of_images(facts: ModelFacts, directory: Path) -> None:
    reason = ""
    if facts.oracle:
        reason = "it is given the total counts of the spots that it predicts (an oracle)"
    elif facts.leak:
        reason = f"it sees the expression that it predicts ({facts.leak})"
    elif facts.same_patient:
        reason = "it copies other sections of the same patient"
    if reason:
        raise UserError(f"{facts.title} ({directory}) cannot predict from an image: {reason}")


def predict_slide(
    directories: Sequence[Path],
    models: Sequence[ModelFacts],
    slide: Slide,
    device: str = "cpu",
    on_progress: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> Prediction:
    """Predict every spot of ``slide``.

    Parameters
    ----------
    directories : sequence of Path
        Model folders. One model is in memory at a time.
    models : sequence of ModelFacts
        What :func:`models_that_agree` found in them.
    slide : Slide
        Its counts are not looked at. Patches are cut once, into a file of the cache that is gone afterwards.
    device : str, default="cpu"
        ``auto`` chooses.
    on_progress : callable, optional
        Is told how many models have predicted, of how many, and which is next.

    Raises
    ------
    UserError
        If a model or the image cannot be read, or a method fails.
    """
    fitting = fitting_window(models, slide)
    notes = list(fitting.notes)
    with _cut(slide, fitting.window, notes) as seen:
        notes += unlike_in_colour(patch_colours(seen.patches), training_slides(models).values())
        mean = np.zeros((slide.n_spots, len(models[0].genes)))
        squares = np.zeros_like(mean)
        values = np.empty(0)
        for number, (directory, facts) in enumerate(zip(directories, models, strict=True), 1):
            on_progress(number - 1, len(models), facts.label)
            values = _predicted(directory, facts, seen, slide, device, notes)
            # Welford's: the sum of squares of large values would lose the small differences between models
            before = values - mean
            mean += before / number
            squares += before * (values - mean)
        on_progress(len(models), len(models), "")
    if len(models) == 1:
        return Prediction(values, None, _each_once(notes), fitting.window)
    std = np.sqrt(squares / (len(models) - 1)).astype(np.float32)
    return Prediction(mean.astype(np.float32), std, _each_once(notes), fitting.window)


@contextmanager
def _cut(slide: Slide, window: Window, notes: list[str]) -> Iterator[TestSlide]:
    """What methods see of the slide, as of a test slide; its patches are in a file while it lasts."""
    cache = cache_root()
    with writing_to(cache):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="predict-", dir=cache) as folder:
            place = Path(folder)
            n_padded = write_patches(place, slide, window, PADDING)
            if n_padded:
                notes.append(f"windows that cross the border of the image: {n_padded}; {PADDING_RULE}")
            np.save(place / "pixel_xy.npy", slide.centres, allow_pickle=False)  # a part of what tells patches apart
            digests = {path.name: file_digest(path) for path in place.iterdir()}
            patches, content = read_patches(place, slide.centres, digests)
            margins = slide.image.margins(slide.centres, window) if n_padded else None
            seen = TestSlide(
                slide.id, slide.patient, patches, slide.array_xy, slide.centres, slide.um_per_px, margins=margins
            )
            yield with_content(seen, content)


def _predicted(
    directory: Path, facts: ModelFacts, seen: TestSlide, slide: Slide, device: str, notes: list[str]
) -> np.ndarray:
    model = read_model(directory, device)
    notes += model.notices
    try:
        with warnings_noted(notes.append):
            values = as_in_its_trial(model, notes.append).predict(seen)
    except (UserError, MethodFailed, NotApplicable) as error:
        raise UserError(f"model {facts.label} cannot predict {slide.id}: {error}") from error
    except Exception as error:  # a stranger's method may fail in any way
        raise UserError(f"model {facts.label} failed on {slide.id}: {said(error)}") from error
    wrong = not_finite(values)
    if wrong is not None:
        raise UserError(
            f"model {facts.label} predicted {wrong.count} values for {slide.id} that are NaN or infinite "
            f"(first: spot {slide.spot_ids[wrong.row]}, gene {facts.genes[wrong.column]})"
        )
    return values


def _each_once(notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(" ".join(note.split()) for note in notes))
