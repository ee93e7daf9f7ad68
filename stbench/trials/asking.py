"""Predictions of several slides, and what is asked of a trained method beside its predictions.

A method whose every call has a price, as that of a TOML file starts a process, has ``predict_slides(slides)``, which
gives their predictions in order: it is asked twice for a trial, however many slides are tested. Slides are made one by
one, as they are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..method import Method, TestSlide
from ..scores.alarms import part_of, spots_to_ask_again
from ..scores.exchange import exchanged_slide


@dataclass(frozen=True)
class Again:
    """What a method predicts when it is asked again, by slice."""

    exchanged: Mapping[str, np.ndarray | None]  # with patches exchanged between spots; None: a slide of one spot
    parts: Mapping[str, tuple[np.ndarray, np.ndarray]]  # some spots alone: which, and their prediction


def predict_all(method: Method, slides: Iterable[TestSlide]) -> list[np.ndarray]:
    """The prediction of each slide."""
    if hasattr(method, "predict_slides"):
        return list(method.predict_slides(slides))
    return [method.predict(slide) for slide in slides]


def predict_again(
    method: Method,
    seen: Mapping[str, TestSlide],
    dataset: str,
    seed: int,
    generator: Callable[[str], np.random.Generator] | None,
) -> Again:
    """Ask for each slide with its patches exchanged (:mod:`stbench.scores.exchange`), then for some of its spots alone.

    ``generator(name)`` draws the spots (:func:`stbench.scores.alarms.spots_to_ask_again`); without it there are none.
    """
    spots: dict[str, np.ndarray] = {}
    if generator is not None:
        drawn = {name: spots_to_ask_again(method, slide, generator(name)) for name, slide in seen.items()}
        spots = {name: chosen for name, chosen in drawn.items() if chosen is not None}
    several = [name for name, slide in seen.items() if slide.n_spots > 1]

    def questions() -> Iterator[TestSlide]:
        for name in several:
            yield exchanged_slide(seen[name], dataset, seed)
        for name, chosen in spots.items():
            yield part_of(seen[name], chosen)

    answers = predict_all(method, questions()) if several or spots else []
    exchanged = dict.fromkeys(seen) | dict(zip(several, answers[: len(several)], strict=True))
    parts = zip(spots.items(), answers[len(several) :], strict=True)
    return Again(exchanged, {name: (chosen, predicted) for (name, chosen), predicted in parts})
