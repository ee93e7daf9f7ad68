"""Trials that are tested on another dataset than they were trained on, and models that were trained elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from .. import registry
from ..data.joining import Side, WindowsOfAnother, join
from ..data.panel import Panel
from ..data.physical import with_patch_um
from ..data.prepared import PreparedDataset
from ..errors import PlaceError, UserError
from ..method import Method, Needs, TestSlide
from ..models.facts import ModelFacts
from ..models.folder import TrainedModel, read_model
from ..system.files import value_digest
from .spec import TestedSpec, TrialSpec


def open_joined(
    trained: tuple[str, str | None, float | None],
    tested: TestedSpec,
    panel: Panel,
    target: str,
    cache: Path,
    keys: Mapping[str, str],
) -> PreparedDataset:
    """The prepared slides of both datasets of a transfer, as they were planned.

    Parameters
    ----------
    trained : tuple of str, str or None, float or None
        What the registry finds the training dataset by (empty: it is not at hand), the folder that it was found under,
        and the side of its windows in micrometres.
    tested : TestedSpec
        The dataset that is tested.
    panel : Panel
        The genes that both share.
    target : str
        Name of the target.
    cache : Path
        Where prepared slides are.
    keys : mapping of str to str
        Slice, as the joined dataset calls it, to the key of its prepared content.
    """
    dataset, root, patch_um = trained
    opened = WindowsOfAnother(
        registry.dataset(tested.dataset, None if tested.root is None else Path(tested.root)),
        tested.patch_px,
        tested.patch_um,
    )
    side = Side(opened, tested.slices, {name: keys[name] for name in tested.slices})
    theirs = None
    if dataset:
        own_name = tested.transfer.own_name
        of_training = {own_name(name): key for name, key in keys.items() if name not in tested.slices}
        own = with_patch_um(registry.dataset(dataset, None if root is None else Path(root)), patch_um)
        theirs = Side(own, list(of_training), of_training).prepare(panel, target, cache)
    return join(theirs, side.prepare(panel, target, cache), tested.transfer, panel)


def model_digest(facts: ModelFacts) -> str:
    """Of what a model predicts with: its files, its settings and the order of its genes."""
    files = {name: record.digest for name, record in facts.files.items()}
    return value_digest([files, dict(facts.config), facts.genes])


def open_model(spec: TrialSpec, device: str) -> TrainedModel:
    """The trained model that a trial predicts with. Raises ``PlaceError`` where it is not the one that was planned."""
    try:
        model = read_model(Path(spec.model), device)
    except PlaceError:
        raise
    except UserError as error:
        raise PlaceError(str(error)) from error
    if model_digest(model.facts) != spec.model_digest:
        raise PlaceError(f"{spec.model} is another model than when this trial was planned - run the same command again")
    return model


def needs_of(model: TrainedModel) -> Needs:
    """What a trained model needs, as it declared it when it was trained: its weights' file may be gone since."""
    facts = model.facts
    return Needs(oracle=facts.oracle, same_patient=facts.same_patient, leak=facts.leak)


def on_genes(method: Method, panel: Sequence[str], genes: Sequence[str]) -> Method:
    """``method``, which predicts the genes of ``panel``, predicting those of ``genes``, which the panel has, alone."""
    return method if tuple(panel) == tuple(genes) else cast(Method, ChosenGenes(method, panel, genes))


class ChosenGenes:
    """A trained method of whose prediction some columns are taken; all else of it is as it is."""

    def __init__(self, method: Method, panel: Sequence[str], genes: Sequence[str]) -> None:
        place = {gene: number for number, gene in enumerate(panel)}
        self._method, self._columns = method, [place[gene] for gene in genes]

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._method, name)
        if name == "predict_slides":  # of a method that is asked for all slides at once
            return lambda slides: [self._chosen(prediction) for prediction in value(slides)]
        return value

    def predict(self, slide: TestSlide) -> np.ndarray:
        """(n_spots, n_genes) float32"""
        return self._chosen(self._method.predict(slide))

    def _chosen(self, prediction: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(prediction[:, self._columns])
