"""Controls that look at no image: the mean, the depth, the position, the nearest section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from stbench.errors import NotApplicable
from stbench.method import MethodConfig, Needs, OracleSlide, Run, TestSlide, TrainingSlide

from ..layers.nearest import mean_of_nearest, plane_distances

if TYPE_CHECKING:
    pass
from .control import Control, joined_targets, name_order, normalised_positions


class TrainingMean(Control):
    """Every spot gets each gene's mean over all training spots (slides weigh by their spots)."""

    name = "training_mean"
    title = "Training mean"

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.learnt = {"mean": joined_targets(slides).mean(axis=0, dtype=np.float64)}

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
        target = joined_targets(slides)
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

    Positions are array positions stretched per slide to the unit square (:func:`normalised_positions`).
    """

    name = "position_knn"
    title = "Position kNN"
    Config = PositionKNNConfig
    inference_fields = frozenset({"k"})

    @property
    def needs(self) -> Needs:
        return Needs(whole_slide=True)  # the slide's extent normalises the position of each spot

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        positions = np.concatenate([normalised_positions(slide) for slide in slides])
        self.learnt = {"positions": positions, "target": joined_targets(slides)}

    def predict(self, slide: TestSlide) -> np.ndarray:
        positions, target = self.learnt["positions"], self.learnt["target"]
        return mean_of_nearest(normalised_positions(slide), positions, target, self.config.k, plane_distances)


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
        self.learnt = {f"positions/{slide.id}": normalised_positions(slide) for slide in slides}
        self.learnt |= {f"target/{slide.id}": np.asarray(slide.target) for slide in slides}

    def predict(self, slide: TestSlide) -> np.ndarray:
        patients = self.facts["patients"]
        own = sorted((name for name in patients if patients[name] == slide.patient), key=name_order)
        if not own:
            raise NotApplicable(f"no training slice is of slice {slide.id}'s patient {slide.patient}")
        before = [name for name in own if name_order(name) < name_order(slide.id)]
        replicate = before[-1] if before else own[0]
        positions, target = self.learnt[f"positions/{replicate}"], self.learnt[f"target/{replicate}"]
        return mean_of_nearest(normalised_positions(slide), positions, target, self.config.k, plane_distances)
