"""Alarms: signs that a trial's number does not mean what it seems to, looked for after every trial of a method.

None of them changes or hides a number; each is one sentence in the trial's state and in the report.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..errors import MethodFailed
from ..method import Method, OracleSlide, TestSlide
from .pieces import pieces_of_genes

FLAT_SHARE = 0.05  # of the truth's variance
NEAR_CHANCE = 0.02  # relative distance of a contrastive loss from that of guessing
CHANCE_RANK = 0.45  # mean rank of a spot among the keys for its own patch, as a share; guessing gives 0.5
SAME_OUTPUT = 1e-6  # largest change, relative to the predictions' spread, that counts as none
BATCH_TOLERANCE = 1e-4
FAR = 10  # times the target's range: predictions farther outside of it are not on its scale
GREW = 10  # times its first value: a training loss that ends above that has diverged
SAMPLE = 64  # spots that are predicted again, where a method predicts single spots


@dataclass(frozen=True)
class Alarm:
    """A sign that a number does not mean what it seems to.

    ``kind`` is the same for all trials, so that it can be counted over them; ``text`` says it with this trial's
    numbers.
    """

    kind: str
    text: str


def after_training(method: Method, history: Mapping[int, Mapping[str, float]]) -> Iterator[Alarm]:
    """Alarms on the training itself.

    Parameters
    ----------
    method : Method
        The trained method. It may have an attribute ``diagnostics``, a mapping of names to numbers, two of which are
        understood: ``contrastive_batch``, the batch size N of a contrastive loss (guessing costs ln N), and
        ``retrieval_rank``, the mean rank, as a share in [0, 1], of a training spot's own key among the keys for its
        patch (guessing gives 0.5).
    history : mapping of int to mapping of str to float
        The logged values of each epoch.

    Yields
    ------
    Alarm
        One for each sign that is found, none for a healthy training.

    Raises
    ------
    MethodFailed
        If the diagnostics are not names and numbers.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> [alarm.text for alarm in after_training(SimpleNamespace(), {1: {"loss": 0.5}, 2: {"loss": 40.0}})]
    ['the loss grew from 0.5 to 40']
    """
    for epoch, values in history.items():
        wrong = [name for name, value in values.items() if not math.isfinite(value)]
        if wrong:
            yield Alarm("a training value was not finite", f"{wrong[0]} was not finite in epoch {epoch}")
            break
    diagnostics = _diagnostics(method)
    losses = [values["loss"] for _, values in sorted(history.items()) if "loss" in values]
    if len(losses) > 1 and 0 < GREW * float(losses[0]) < float(losses[-1]) < math.inf:
        yield Alarm("the training diverged", f"the loss grew from {losses[0]:.3g} to {losses[-1]:.3g}")
    if "contrastive_batch" in diagnostics and losses:
        chance = math.log(diagnostics["contrastive_batch"])
        if abs(losses[-1] - chance) <= NEAR_CHANCE * chance:
            yield Alarm(
                "the contrastive loss is that of guessing",
                f"the contrastive loss ended at {losses[-1]:.3f}, within 2 % of guessing "
                f"(ln {diagnostics['contrastive_batch']:.0f} = {chance:.3f})",
            )
    rank = diagnostics.get("retrieval_rank")
    if rank is not None and rank >= CHANCE_RANK:
        yield Alarm(
            "retrieval is no better than guessing",
            f"for a training patch its own spot ranks at {rank:.2f} of all keys on average; guessing gives 0.50",
        )


def on_another_scale(slide: str, prediction: np.ndarray, truth: np.ndarray) -> Iterator[Alarm]:
    """An alarm if predictions of a slide lie far outside the target's range, as those of a diverged training do.

    Parameters
    ----------
    slide : str
        Name of the slice, for the text.
    prediction, truth : ndarray of shape (n_spots, n_genes)
        On the target's scale.

    Yields
    ------
    Alarm
        If a prediction is beyond the target's range by more than ``FAR`` times that range.

    Examples
    --------
    >>> truth = np.array([[0.0], [1.0]])
    >>> [alarm.kind for alarm in on_another_scale("B1", 20 * truth, truth)]
    ["predictions lie far outside the target's range"]
    >>> list(on_another_scale("B1", 2 * truth, truth))
    []
    """
    low, high = float(truth.min()), float(truth.max())
    reach = max(float(prediction.max()) - high, low - float(prediction.min()))
    if reach > FAR * max(high - low, float(np.finfo(np.float32).tiny)):
        yield Alarm(
            "predictions lie far outside the target's range",
            f"{slide}: predictions from {prediction.min():.3g} to {prediction.max():.3g}, the target from {low:.3g} to "
            f"{high:.3g}",
        )


def spots_to_ask_again(method: Method, slide: TestSlide, rng: np.random.Generator) -> np.ndarray | None:
    """Which spots of a slide are predicted once more, without the others.

    Parameters
    ----------
    method : Method
        Whether it declares that it looks at whole slides is asked.
    slide : TestSlide
        What was predicted.
    rng : numpy.random.Generator
        Chooses the spots, at most ``SAMPLE``.

    Returns
    -------
    ndarray of shape (n_chosen,) or None
        int64, ascending. ``None`` for a slide of too few spots to leave any out, and for a method whose idea it is to
        look at the others.
    """
    if slide.n_spots < 3 or method.needs.whole_slide:
        return None
    return np.sort(rng.choice(slide.n_spots, size=min(SAMPLE, slide.n_spots // 2 + 1), replace=False))


def after_prediction(
    slide: TestSlide, prediction: np.ndarray, truth: np.ndarray, again: tuple[np.ndarray, np.ndarray] | None = None
) -> Iterator[Alarm]:
    """Alarms on the prediction of one slide.

    Parameters
    ----------
    slide : TestSlide
        What was predicted.
    prediction, truth : ndarray of shape (n_spots, n_genes)
        On the target's scale.
    again : tuple of ndarray of shape (n_chosen,) and ndarray of shape (n_chosen, n_genes), optional
        Spots that were predicted once more without the others (:func:`spots_to_ask_again`), and what that gave.

    Yields
    ------
    Alarm
        If the prediction is flat in most genes, or if that of a spot depends on the other spots of its batch.
    """
    of_truth, of_prediction = _variances(truth), _variances(prediction)
    varying = of_truth > 0
    ratio = of_prediction[varying] / of_truth[varying]
    flat = int((ratio < FLAT_SHARE).sum())
    if flat > varying.sum() / 2:
        yield Alarm(
            "the prediction hardly varies in most genes",
            f"{slide.id}: variance under 5 % of the truth's in {flat} of {int(varying.sum())} genes",
        )
    if again is None:
        return
    spots, alone = again
    change = float(np.abs(alone - prediction[spots]).max())
    if change > BATCH_TOLERANCE * max(1.0, float(prediction.std())):
        yield Alarm(
            "the prediction of a spot depends on the other spots of its batch",
            f"{slide.id}: predictions change by up to {change:.2g} with which other spots are predicted beside",
        )


def _variances(values: np.ndarray) -> np.ndarray:
    """(n_genes,) float64."""
    parts = [values[:, part].var(axis=0, dtype=np.float64) for part in pieces_of_genes(*values.shape)]
    return np.concatenate(parts)


def after_exchange(slide: TestSlide, prediction: np.ndarray, exchanged: np.ndarray) -> Iterator[Alarm]:
    """An alarm if exchanging patches between spots changes nothing: the image is not used.

    Parameters
    ----------
    slide : TestSlide
        What was predicted. Slides of fewer than three spots are not judged, as two spots may look alike.
    prediction, exchanged : ndarray of shape (n_spots, n_genes)
        The prediction, and that with exchanged patches (:func:`stbench.scores.exchange.exchanged_slide`).

    Yields
    ------
    Alarm
        If no value moves by more than ``SAME_OUTPUT`` times the prediction's standard deviation.
    """
    if slide.n_spots < 3:
        return  # two spots may look alike
    spread = float(prediction.std()) or 1.0
    if np.abs(exchanged - prediction).max() <= SAME_OUTPUT * spread:
        yield Alarm(
            "the prediction does not depend on the image",
            f"{slide.id}: exchanging the patches between spots changes nothing",
        )


def _diagnostics(method: Method) -> dict[str, float]:
    declared = getattr(method, "diagnostics", {})
    try:
        numbers = {str(name): float(value) for name, value in declared.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise MethodFailed(f"its diagnostics are {declared!r:.100}, not names and numbers") from error
    if not numbers.get("contrastive_batch", 1) > 0:
        raise MethodFailed(f"its contrastive_batch is {numbers['contrastive_batch']}, not the size of a batch")
    return numbers


def part_of(slide: TestSlide, spots: np.ndarray) -> TestSlide:
    """A slide with only some of its spots.

    Parameters
    ----------
    slide : TestSlide
        The whole slide.
    spots : ndarray of shape (n_chosen,)
        Rows of its arrays.

    Returns
    -------
    TestSlide
        Of the same kind.
    """
    margins = None if slide.margins is None else slide.margins[spots]
    part = replace(
        slide,
        patches=slide.patches[spots],
        array_xy=slide.array_xy[spots],
        pixel_xy=slide.pixel_xy[spots],
        margins=margins,
    )
    return replace(part, total_counts=part.total_counts[spots]) if isinstance(part, OracleSlide) else part
