"""Controls that look at an image without learning one: colours, and features of a frozen encoder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from pydantic import Field

from stbench.errors import UserError
from stbench.method import MethodConfig, Run, TestSlide, TrainingSlide
from stbench.system.files import reading_tensors

from ..layers.nearest import mean_of_nearest, negative_cosines
from ..layers.once_per_slide import once_per_slide
from ..layers.ridge import fit_principal_ridge, fit_ridge, predict_ridge, standardisation

if TYPE_CHECKING:
    from torch import nn
from .control import Control, colours, joined_targets


class RidgeConfig(MethodConfig):
    alpha: float | None = Field(
        None,
        gt=0,
        description="ridge penalty per training spot, on standardised features; none: each gene has the best of "
        "0.001 to 100 by squared error on training slides left out in turn (in at most five groups)",
    )


class ColourRidge(Control):
    """Ridge regression on colour statistics of the whole patch: mean, standard deviation and quantiles per channel."""

    name = "colour_ridge"
    title = "Ridge on colour"
    Config = RidgeConfig

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        features = [colours(slide) for slide in slides]
        self.learnt = fit_ridge(features, [slide.target for slide in slides], self.config.alpha)

    def predict(self, slide: TestSlide) -> np.ndarray:
        return predict_ridge(self.learnt, colours(slide))


class FeatureConfig(MethodConfig):
    encoder: str = Field(
        "densenet121",
        description="frozen image encoder: of 'stbench encoders list', each with its own scaling of pixels, crop and "
        "pooling, or torchvision's or timm's, scaled as for ImageNet",
    )
    # random by default: a control must run everywhere, and features of an untrained network are a strong floor
    weights: str = Field(
        "random",
        description="its weights: random, pretrained (as published), imagenet, or a .pth or .safetensors file",
    )
    patch_px: int = Field(224, ge=2, description="side of the window around a spot, in full-resolution pixels")
    input_px: int | None = Field(
        None, ge=32, description="side of the image that the encoder sees; none: that of its training (224 as a rule)"
    )
    own_input_px: ClassVar[bool] = True  # none is the encoder's, not patch_px
    draw: int = Field(0, description="which random network, where weights are random; it is the same in all folds")


class FeatureRidgeConfig(FeatureConfig, RidgeConfig):
    pass


class FeaturePCARidgeConfig(FeatureConfig):
    components: int = Field(256, ge=1, description="principal components, at most one per training spot; HEST-1k: 256")
    penalty: float | None = Field(
        None,
        gt=0,
        description="ridge penalty in all, as scikit-learn counts it; none: 100 / (components x genes), as HEST-1k",
    )


class FeatureKNNConfig(FeatureConfig):
    k: int = Field(50, ge=1, description="training spots that are averaged; all of them where there are fewer")


class FeatureControl(Control):
    """A control on the features of a frozen encoder, which is part of what is saved."""

    presets = {"quick": {"encoder": "resnet18", "input_px": 64}}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.encoder: nn.Module | None = None

    @property
    def weights_label(self) -> str:
        from stbench.training.pretrained import weights_label

        if "weights" not in self.facts:  # afterwards the file that they came from may be gone
            self.facts["weights"] = weights_label(self.config.encoder, self.config.weights)
        return str(self.facts["weights"])

    def start(self, run: Run) -> None:
        """Build the encoder, at the beginning of ``fit``."""
        from ..layers.frozen_features import frozen_encoder

        config = self.config
        self.encoder = frozen_encoder(config.encoder, config.weights, config.draw, run, config.input_px)
        self.facts = {"weights": self.weights_label}

    def features(self, slide: TestSlide) -> np.ndarray:
        """(n_spots, n_features) float32."""
        from stbench.training.encoder_input import own_input

        from ..layers.frozen_features import encode

        encoder, config = self.encoder, self.config
        if encoder is None:
            raise UserError(f"{self.name} has not been trained - call fit first, or load a saved model")
        network = (config.encoder, self.weights_label, config.draw, str(next(encoder.parameters()).device))
        return once_per_slide(
            slide,
            (*network, config.patch_px, config.input_px),
            lambda: encode(encoder, slide, config.patch_px, own_input(config.encoder, config.input_px)),
        )

    def save(self, directory: Path) -> None:
        from safetensors.torch import save_model

        if self.encoder is None:
            raise UserError(f"{self.name} has not been trained - call fit first, or load a saved model")
        super().save(directory)
        save_model(self.encoder, str(directory / "encoder.safetensors"))

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        import torch
        from safetensors.torch import load_model

        from stbench.training.device import seeded
        from stbench.training.encoders import build_encoder

        from ..layers.frozen_features import freeze

        control = super().load(directory, device)
        with seeded(torch.device("cpu"), 0):  # the initial values are replaced, and the global generator stays as it is
            module = build_encoder(control.config.encoder, "random").module
        with reading_tensors(directory / "encoder.safetensors"):
            load_model(module, directory / "encoder.safetensors")
        control.encoder = freeze(module, device)
        return control


class FeatureRidge(FeatureControl):
    """Ridge regression on the features of a frozen image encoder."""

    name = "feature_ridge"
    title = "Ridge on encoder features"
    Config = FeatureRidgeConfig

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.start(run)
        features = [self.features(slide) for slide in slides]
        self.learnt = fit_ridge(features, [slide.target for slide in slides], self.config.alpha)

    def predict(self, slide: TestSlide) -> np.ndarray:
        return predict_ridge(self.learnt, self.features(slide))


class FeaturePCARidge(FeatureControl):
    """Ridge regression on 256 principal components of a frozen encoder's features: the probe of HEST-1k's benchmark.

    After github.com/mahmoodlab/HEST (src/hest/bench/benchmark.py and trainer.py, commit 0512f57; Jaume et al. 2024):
    features are standardised, reduced by PCA, and regressed with the penalty 100 / (components x genes). There no
    intercept is fitted. Features are centred, so the weights, and every gene's correlation on a slide, are the same
    with one; without it predictions would lack the genes' levels, which errors and correlations over genes look at.
    """

    name = "feature_pca_ridge"
    title = "PCA + ridge on encoder features"
    Config = FeaturePCARidgeConfig

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.start(run)
        features = [self.features(slide) for slide in slides]
        targets = [slide.target for slide in slides]
        self.learnt = fit_principal_ridge(features, targets, self.config.components, self.config.penalty)

    def predict(self, slide: TestSlide) -> np.ndarray:
        return predict_ridge(self.learnt, self.features(slide))


class FeatureKNN(FeatureControl):
    """The mean of the ``k`` training spots of highest cosine similarity between features of a frozen image encoder.

    Features are standardised on the training spots first: what all patches have in common would dominate the cosine.
    """

    name = "feature_knn"
    title = "kNN on encoder features"
    Config = FeatureKNNConfig
    inference_fields = frozenset({"k"})

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.start(run)
        features = np.concatenate([self.features(slide) for slide in slides])
        centre, scale = standardisation(features)
        self.learnt = {"centre": centre, "scale": scale, "target": joined_targets(slides)}
        self.learnt["keys"] = self._directions(features)

    def predict(self, slide: TestSlide) -> np.ndarray:
        queries = self._directions(self.features(slide))
        return mean_of_nearest(queries, self.learnt["keys"], self.learnt["target"], self.config.k, negative_cosines)

    def _directions(self, features: np.ndarray) -> np.ndarray:
        """Standardised features at length 1, float32; a zero vector stays one."""
        standardised = (features - self.learnt["centre"]) / self.learnt["scale"]
        length = np.linalg.norm(standardised, axis=1, keepdims=True)
        return (standardised / np.maximum(length, 1e-12)).astype(np.float32)
