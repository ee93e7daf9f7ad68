"""How tests show that each option of a method does something: it changes the prediction of a trained method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from stbench.method import Method, MethodConfig, TestSlide, TrainingSlide

Settings = dict[str, Any]
# option to cases: what is changed, and beside which settings
Options = Mapping[str, Sequence[tuple[Settings, Settings]]]

# of methods that retrieve
TESTED_ELSEWHERE = {
    "patch_px": "of the windows that a dataset cuts: a method is given them",
    "padding": "likewise",
    "weights": "tests/stbench/test_encoders.py",
    "compile": "changes no number: tests/stbench/test_training.py",
}


def assert_every_option_is_tried(options: Options, config: type[MethodConfig]) -> None:
    assert sorted([*options, *TESTED_ELSEWHERE]) == sorted(config.model_fields)


def every_option(options: Options) -> pytest.MarkDecorator:
    """Runs a test with each case, as ``changes`` and ``beside``."""
    return pytest.mark.parametrize(
        ("changes", "beside"),
        [case for cases in options.values() for case in cases],
        ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()) or "defaults",
    )


class Predictions:
    """What a method under some settings, trained on the other slides, predicts for the last; each is trained once."""

    def __init__(
        self,
        train: Callable[..., Method],
        slides: Sequence[TrainingSlide],
        hide_expression: Callable[[TrainingSlide], TestSlide],
    ) -> None:
        self.train = train
        *self.training, test = slides
        self.test = hide_expression(test)
        self._known: dict[str, np.ndarray] = {}

    def anew(self, settings: Settings) -> np.ndarray:
        return self.train(self.training, **settings).predict(self.test)

    def __call__(self, settings: Settings) -> np.ndarray:
        name = repr(sorted(settings.items()))
        if name not in self._known:
            self._known[name] = self.anew(settings)
        return self._known[name]

    def assert_repeatable(self) -> None:
        """Or a prediction that differs would say nothing of the option that was changed."""
        np.testing.assert_array_equal(self.anew({}), self({}))

    def assert_changed(self, changes: Settings, beside: Settings) -> None:
        prediction = self(beside | changes)
        assert prediction.shape == self({}).shape
        assert np.isfinite(prediction).all()
        assert np.abs(prediction - self(beside)).max() > 1e-4
