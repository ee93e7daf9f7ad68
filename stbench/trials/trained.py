"""What a trial writes of its trained model, and a trained model called as its trial calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import NUMBERS
from ..method import Method, Needs, Run, TestSlide
from ..models.facts import ModelFacts, SlideFacts
from ..models.folder import TrainedModel
from ..slides.patch_colours import patch_colours
from ..system.calls import Calls
from ..system.environment import versions
from ..training.foundation.table import published_encoder
from .predictions import as_prediction
from .spec import TrialSpec, trial_seed

if TYPE_CHECKING:
    from ..data.prepared import PreparedDataset, PreparedSlide
    from ..system.precision import Precision


def model_facts(
    spec: TrialSpec,
    data: PreparedDataset,
    training: Sequence[PreparedSlide],
    needs: Needs,
    device: str,
    precision: Precision,
    scores: Mapping[str, Mapping[str, float | None]],
) -> ModelFacts:
    """Of the model that a trial trained; ``scores`` are those of its test slices."""
    transfer = data.transfer  # its training slices are called there as their own dataset calls them
    own = (lambda name: name) if transfer is None else transfer.own_name
    return ModelFacts(
        method=spec.method,
        origin=spec.origin or spec.method,
        name=spec.name,
        title=spec.title,
        kind=spec.kind,
        preset=spec.preset,
        variant=spec.variant,
        config=spec.config,
        method_source=spec.method_source,
        weights=spec.weights,
        licence=_licence(spec),
        dataset=data.name if transfer is None else transfer.trained,
        dataset_title=data.title if transfer is None else transfer.trained_title,
        split=spec.split,
        fold=spec.fold,
        seed=spec.seed,
        trial_seed=trial_seed(spec),
        train=tuple(map(own, spec.train)),
        test=spec.test,
        patients={own(name): own(patient) for name, patient in spec.patients.items()},
        genes=data.genes,
        target=data.target.name,
        formula=data.target.formula,
        patch_px=data.patch_px,
        patch_um=data.patch_um,
        slides={own(slide.id): _slide_facts(slide) for slide in training},
        precision=precision,
        device=device,
        key=spec.key,
        scores=scores,
        leak=needs.leak,
        oracle=needs.oracle,
        same_patient=needs.same_patient,
        stbench=versions()["stbench"],
        torch=versions()["torch"],
        numbers=NUMBERS,
    )


def _licence(spec: TrialSpec) -> str:
    """Of the pretrained weights that the model started from, as far as the table of encoders knows them."""
    row = published_encoder(str(spec.config.get("encoder", "")))
    if row is None or spec.weights.startswith(("none", "random")):
        return ""
    # a file may hold anything for a plain network, but only its own weights for an encoder of the table
    return row.licence if row.images == "slides" or spec.weights.startswith("imagenet") else ""


def _slide_facts(slide: PreparedSlide) -> SlideFacts:
    colours = patch_colours(slide.patches)
    return SlideFacts(
        n_spots=slide.n_spots,
        um_per_px=slide.um_per_px,
        window_px=slide.window_side,
        spot_diameter=slide.spot_diameter,
        image_level=slide.image_level,
        mean_rgb=colours.mean,
        std_rgb=colours.std,
    )


def as_in_its_trial(model: TrainedModel, tell: Callable[[str], object]) -> Method:
    """The model's method, guarded and seeded as its trial calls it, so that a slide is predicted as there.

    What ``predict`` returns is an array (n_spots, n_genes) float32, or ``MethodFailed``. ``tell`` hears what a call
    changed in the process, in words.
    """
    facts = model.facts
    run = Run(seed=facts.trial_seed)
    calls = Calls(facts.name, tell, lambda what: run.derive_seed("global", what))

    def read(value: Any, slide: TestSlide) -> np.ndarray:
        return as_prediction(value, slide, facts.genes, facts.name)

    return calls.guard(model.method, read)
