"""Trivial ways to predict expression. They frame every score: what does not beat them has not learnt from the image."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field

from stbench.errors import NotApplicable, UserError
from stbench.files import read_object, reading_tensors, write_json
from stbench.method import MethodConfig, Needs, OracleSlide, Run, TestSlide, TrainingSlide

from .layers.nearest import mean_of_nearest, negative_cosines, plane_distances
from .layers.once_per_slide import once_per_slide
from .layers.ridge import fit_ridge, predict_ridge, standardisation

if TYPE_CHECKING:
    from torch import nn

QUANTILES = (0.1, 0.5, 0.9)  # of each colour channel


class Control(ABC):
    """What controls share: what one has learnt is a handful of arrays and facts, which are saved beside its config."""

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Literal["method", "control"]] = "control"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}

    def __init__(self, config: Any) -> None:
        self.config = config
        self.learnt: dict[str, np.ndarray] = {}
        self.facts: dict[str, Any] = {}  # JSON-able

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def weights_label(self) -> str:
        return "none"

    @abstractmethod
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None: ...

    @abstractmethod
    def predict(self, slide: TestSlide) -> np.ndarray: ...

    def save(self, directory: Path) -> None:
        from safetensors.numpy import save_file

        config = self.config.model_dump(mode="json")
        write_json(directory / "control.json", {"name": self.name, "config": config, "facts": self.facts})
        arrays = {key: np.ascontiguousarray(array) for key, array in self.learnt.items()}
        save_file(arrays, directory / "learnt.safetensors")

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        from safetensors.numpy import load_file

        if not (directory / "control.json").is_file():
            raise UserError(f"{directory} holds no saved control - give a trial's model folder")
        again = "restore it, or train again"
        saved = read_object(directory / "control.json", again)
        if not {"name", "config", "facts"} <= saved.keys():
            raise UserError(f"{directory / 'control.json'} is not a saved control - {again}")
        if saved["name"] != cls.name:
            raise UserError(f"{directory} holds {saved['name']}, not {cls.name} - load it as what it is")
        control = cls(cls.Config(**saved["config"]))
        control.facts = saved["facts"]
        with reading_tensors(directory / "learnt.safetensors"):
            control.learnt = load_file(directory / "learnt.safetensors")
        return control


class TrainingMean(Control):
    """Every spot gets each gene's mean over all training spots (slides weigh by their spots)."""

    name = "training_mean"
    title = "Training mean"

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.learnt = {"mean": _joined_targets(slides).mean(axis=0, dtype=np.float64)}

    def predict(self, slide: TestSlide) -> np.ndarray:
        return np.tile(self.learnt["mean"].astype(np.float32), (slide.n_spots, 1))


class DepthOracle(Control):
    """Per gene a least-squares line on log(1 + total count of the spot). It is told the test spots' total counts.

    Shows how much of a score is sequencing depth, which no image predictor is given.
    """

    name = "depth_oracle"
    title = "Depth (oracle)"

    @property
    def needs(self) -> Needs:
        return Needs(oracle=True)

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        depth = np.log1p(np.concatenate([slide.total_counts for slide in slides]))
        target = _joined_targets(slides)
        mean = target.mean(axis=0, dtype=np.float64)
        centred = depth - depth.mean()
        spread = centred @ centred
        slope = centred @ (target - mean) / spread if spread > 0 else np.zeros_like(mean)
        self.learnt = {"slope": slope, "intercept": mean - slope * depth.mean()}

    def predict(self, slide: TestSlide) -> np.ndarray:
        if not isinstance(slide, OracleSlide):
            raise TypeError(f"{self.name} predicts an OracleSlide, which carries the spots' total counts")
        depth = np.log1p(slide.total_counts)
        return (depth[:, None] * self.learnt["slope"] + self.learnt["intercept"]).astype(np.float32)


class PositionKNNConfig(MethodConfig):
    k: int = Field(50, ge=1, description="training spots that are averaged; all of them where there are fewer")


class PositionKNN(Control):
    """The mean of the ``k`` training spots nearest in position, over all training slides; it sees no image.

    Positions are array positions stretched per slide to the unit square (:func:`_normalised_positions`).
    """

    name = "position_knn"
    title = "Position kNN"
    Config = PositionKNNConfig
    inference_fields = frozenset({"k"})

    @property
    def needs(self) -> Needs:
        return Needs(whole_slide=True)  # the slide's extent normalises the position of each spot

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        positions = np.concatenate([_normalised_positions(slide) for slide in slides])
        self.learnt = {"positions": positions, "target": _joined_targets(slides)}

    def predict(self, slide: TestSlide) -> np.ndarray:
        positions, target = self.learnt["positions"], self.learnt["target"]
        return mean_of_nearest(_normalised_positions(slide), positions, target, self.config.k, plane_distances)


class NearestReplicateConfig(MethodConfig):
    k: int = Field(1, ge=1, description="spots of the replicate that are averaged")


class NearestReplicate(Control):
    """The target of the nearest spot, by normalised array position, of a training slide of the same patient.

    Of several such slides that next to the test slide in the order of their names, numbers as numbers, which is fold
    order in all datasets here: the one before it, else the one after. Shows what a replicate section gives away.
    """

    name = "nearest_replicate"
    title = "Nearest replicate"
    Config = NearestReplicateConfig
    inference_fields = frozenset({"k"})

    @property
    def needs(self) -> Needs:
        return Needs(same_patient=True, whole_slide=True)

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.facts = {"patients": {slide.id: slide.patient for slide in slides}}
        self.learnt = {f"positions/{slide.id}": _normalised_positions(slide) for slide in slides}
        self.learnt |= {f"target/{slide.id}": np.asarray(slide.target) for slide in slides}

    def predict(self, slide: TestSlide) -> np.ndarray:
        patients = self.facts["patients"]
        own = sorted((name for name in patients if patients[name] == slide.patient), key=_name_order)
        if not own:
            raise NotApplicable(f"no training slice is of slice {slide.id}'s patient {slide.patient}")
        before = [name for name in own if _name_order(name) < _name_order(slide.id)]
        replicate = before[-1] if before else own[0]
        positions, target = self.learnt[f"positions/{replicate}"], self.learnt[f"target/{replicate}"]
        return mean_of_nearest(_normalised_positions(slide), positions, target, self.config.k, plane_distances)


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
        features = [_colours(slide) for slide in slides]
        self.learnt = fit_ridge(features, [slide.target for slide in slides], self.config.alpha)

    def predict(self, slide: TestSlide) -> np.ndarray:
        return predict_ridge(self.learnt, _colours(slide))


class FeatureConfig(MethodConfig):
    encoder: str = Field("densenet121", description="frozen image encoder: a torchvision or timm name")
    # random by default: a control must run everywhere, and features of an untrained network are a strong floor
    weights: str = Field("random", description="its weights: random, imagenet, or a .pth or .safetensors file")
    patch_px: int = Field(224, ge=2, description="side of the window around a spot, in full-resolution pixels")
    input_px: int = Field(224, ge=32, description="side of the image that the encoder sees")
    draw: int = Field(0, description="which random network, where weights are random; it is the same in all folds")


class FeatureRidgeConfig(FeatureConfig, RidgeConfig):
    pass


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
        from stbench.encoders import weights_label

        if "weights" not in self.facts:  # afterwards the file that they came from may be gone
            self.facts["weights"] = weights_label(self.config.encoder, self.config.weights)
        return str(self.facts["weights"])

    def start(self, run: Run) -> None:
        """Build the encoder, at the beginning of ``fit``."""
        from .layers.frozen_features import frozen_encoder

        self.encoder = frozen_encoder(self.config.encoder, self.config.weights, self.config.draw, run)
        self.facts = {"weights": self.weights_label}

    def features(self, slide: TestSlide) -> np.ndarray:
        """(n_spots, n_features) float32."""
        from .layers.frozen_features import encode

        encoder, config = self.encoder, self.config
        if encoder is None:
            raise UserError(f"{self.name} has not been trained - call fit first, or load a saved model")
        network = (config.encoder, self.weights_label, config.draw, str(next(encoder.parameters()).device))
        return once_per_slide(
            slide.patches,
            (*network, config.patch_px, config.input_px),
            lambda: encode(encoder, slide, config.patch_px, config.input_px),
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

        from stbench.encoders import build_encoder
        from stbench.training import seeded

        from .layers.frozen_features import freeze

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
        self.learnt = {"centre": centre, "scale": scale, "target": _joined_targets(slides)}
        self.learnt["keys"] = self._directions(features)

    def predict(self, slide: TestSlide) -> np.ndarray:
        queries = self._directions(self.features(slide))
        return mean_of_nearest(queries, self.learnt["keys"], self.learnt["target"], self.config.k, negative_cosines)

    def _directions(self, features: np.ndarray) -> np.ndarray:
        """Standardised features at length 1, float32; a zero vector stays one."""
        standardised = (features - self.learnt["centre"]) / self.learnt["scale"]
        length = np.linalg.norm(standardised, axis=1, keepdims=True)
        return (standardised / np.maximum(length, 1e-12)).astype(np.float32)


def _joined_targets(slides: Sequence[TrainingSlide]) -> np.ndarray:
    """(spots of all slides, n_genes) float32."""
    return np.concatenate([slide.target for slide in slides])


def _normalised_positions(slide: TestSlide) -> np.ndarray:
    """(n_spots, 2) float64 in [0, 1]: per slide and axis, array positions minus their minimum over their extent.

    So slides of different arrays, resolutions and tissue sizes lie on each other. An axis without extent is 0.5.
    """
    positions = slide.array_xy.astype(np.float64)
    low, extent = positions.min(axis=0), np.ptp(positions, axis=0)
    return np.where(extent > 0, (positions - low) / np.where(extent > 0, extent, 1), 0.5)


def _name_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts names with their numbers as numbers: ``P2_rep2`` before ``P2_rep10``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def _colours(slide: TestSlide) -> np.ndarray:
    return once_per_slide(slide.patches, "colour statistics", lambda: colour_statistics(slide.patches))


def colour_statistics(patches: np.ndarray) -> np.ndarray:
    """(n_spots, 15) float64 from (n_spots, side, side, 3) uint8: per channel the mean, the standard deviation and the
    10 %, 50 % and 90 % quantiles (the smallest value that this share of the pixels does not exceed), in units of 255.
    """
    values = np.arange(256)
    channel = 256 * np.arange(3)
    n_pixels = patches.shape[1] * patches.shape[2]
    rows = []
    for patch in patches:
        # how often each value occurs in each channel gives all statistics exactly
        counts = np.bincount((patch + channel).ravel(), minlength=768).reshape(3, 256)
        total, squares = counts @ values, counts @ values**2
        std = np.sqrt(n_pixels * squares - total**2) / n_pixels
        not_above = np.cumsum(counts, axis=1)
        quantiles = [(not_above < share * n_pixels).sum(axis=1) for share in QUANTILES]
        rows.append(np.concatenate([total / n_pixels, std, *quantiles]))
    return np.stack(rows) / 255
