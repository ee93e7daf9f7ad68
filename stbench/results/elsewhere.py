"""Planning trials of trained models: each predicts the slices of a dataset that it was not trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .. import registry
from ..data.splits import Fold
from ..data.transfer import ALL, SPLIT, training_name
from ..errors import UserError
from ..models.facts import ModelFacts
from ..models.folder import find_model, reference_of
from ..training.foundation.table import pathology_encoder
from ..trials.spec import DataSpec, TrialSpec
from ..trials.transferred import model_digest

ALIKE = {  # what models must have in common to stand in one table: fact to what a message calls it
    "dataset": "the training dataset",
    "target": "the target",
    "formula": "the target's formula",
    "genes": "the panel",
    "patch_px": "the side of a patch",
    "patch_um": "the side of a window in µm",
}


@dataclass(frozen=True)
class GivenModel:
    """A trained model: its folder, and what it says of itself."""

    folder: Path
    facts: ModelFacts

    @classmethod
    def read(cls, path: Path) -> GivenModel:
        """The model in ``path``, a model folder or a trial's. Nothing of it but its facts is read."""
        folder = find_model(path).resolve()
        return cls(folder, ModelFacts.read(folder))

    @property
    def fold(self) -> str:
        """Of the transfer: which slices of its dataset it was trained on."""
        return ALL if self.facts.split == SPLIT else f"{self.facts.split}-{self.facts.fold}"

    @property
    def entry(self) -> tuple[object, ...]:
        """What a reader tells it from others by; the digest of its content is not part of it."""
        facts = self.facts
        return facts.name, facts.preset, facts.variant, facts.weights, facts.precision, self.fold, facts.seed

    def trained_on(self) -> tuple[str, ...]:
        """Its training slices, as they are called beside the tested ones."""
        return tuple(training_name(self.facts.dataset, name) for name in self.facts.train)

    def patients(self) -> dict[str, str]:
        """Of these slices, as they are called beside the tested ones."""
        name = self.facts.dataset
        return {training_name(name, each): training_name(name, self.facts.patients[each]) for each in self.facts.train}


def read_models(paths: Sequence[Path]) -> list[GivenModel]:
    """The models of ``paths``, which can stand in one table.

    Raises ``UserError`` where one is none, is given twice, or was trained to another end than the first.
    """
    models = [GivenModel.read(path) for path in paths]
    first = models[0]
    known: dict[object, GivenModel] = {}
    for model in models:
        for fact, what in ALIKE.items():
            mine, its = getattr(first.facts, fact), getattr(model.facts, fact)
            if mine != its:
                shown = "" if fact == "genes" else f" ({mine} and {its})"
                raise UserError(
                    f"{first.folder} and {model.folder} differ in {what}{shown} - evaluate them apart, each with an "
                    "--out of its own"
                )
        twin = known.setdefault(model.entry, model)
        if twin is not model:
            same = "are the same model" if twin.folder == model.folder else f"are both {model.facts.label}"
            raise UserError(f"{twin.folder} and {model.folder} {same} - give one of them")
    return models


def folds_of(models: Sequence[GivenModel], tested: Sequence[str], at_hand: bool) -> list[Fold]:
    """One for each set of training slices: all ``tested`` slices, predicted by the models that were trained on them.

    ``at_hand``: whether the training slices are; a fold names those alone. Raises ``UserError`` where two models of
    one fold were trained on different slices.
    """
    folds: dict[str, tuple[GivenModel, Fold]] = {}
    for model in models:
        first, _ = folds.setdefault(
            model.fold, (model, Fold(model.fold, tuple(tested), model.trained_on() if at_hand else (), ()))
        )
        if set(first.facts.train) != set(model.facts.train):
            raise UserError(
                f"{first.folder} and {model.folder} are both of fold {model.fold} and were trained on different slices "
                "- evaluate them apart, each with an --out of its own"
            )
    return [fold for _, fold in folds.values()]


def specs_of_models(
    models: Sequence[GivenModel],
    folds: Sequence[Fold],
    data_spec: DataSpec,
    patients: Mapping[str, str],
    device: str,
) -> list[TrialSpec]:
    """The trials of ``models``; ``patients`` of every slice of the joined data."""
    by_name = {fold.name: fold for fold in folds}
    return [_spec(model, by_name[model.fold], data_spec, patients, device) for model in models]


def _spec(model: GivenModel, fold: Fold, data_spec: DataSpec, patients: Mapping[str, str], device: str) -> TrialSpec:
    facts = model.facts
    encoder = pathology_encoder(str(facts.config.get("encoder", "")))
    reference = reference_of(facts, model.folder)
    return TrialSpec(
        method=reference,
        name=facts.name,
        method_source=registry.source_digest(registry.method(reference)),
        title=facts.title,
        kind=facts.kind,
        oracle=facts.oracle,
        preset=facts.preset,
        variant=facts.variant,
        config=facts.config,
        weights=facts.weights,
        data=data_spec,
        split=SPLIT,
        fold=fold.name,
        train=fold.train,
        test=fold.test,
        patients={name: patients[name] for name in (*fold.train, *fold.test)},
        seed=facts.seed,
        device=device,
        precision=facts.precision,
        leak=facts.leak,
        origin=registry.origin(reference),
        encoder="" if encoder is None else encoder.digest,
        model=str(model.folder),
        model_digest=model_digest(facts),
    )
