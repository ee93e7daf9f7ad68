"""``stbench evaluate``: trained models on a dataset that they were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import registry
from ..data.transfer import SPLIT, joint_name
from ..errors import UserError
from ..system.locate import data_root
from .completion import complete_dataset, complete_methods
from .console import say_once
from .engine_options import ONE_AT_A_TIME, EngineOptions
from .grouped import grouped
from .lists import words
from .options import DataOption, DeviceOption, DryRunOption, MlflowOption, RetryFailedOption, SlicesOption
from .running import require_usable, run_experiments
from .setting import Setting
from .transferring import Joined, TestedOptions, TrainedSide, join_datasets, refuse_itself

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..results.elsewhere import GivenModel
    from ..results.plan import Experiment, MethodChoice

NONE = "none"  # instead of a list of controls, or of the training dataset


@grouped("engine", EngineOptions)
def evaluate(
    model: Annotated[
        list[Path],
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A trained model: RESULTS/trials/KEY of a run with --save-models, a model folder, or all of RESULTS; "
            "repeatable.",
        ),
    ],
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="NAME|PATH",
            help="The dataset to test on: another one than the models were trained on.",
            autocompletion=complete_dataset,
        ),
    ],
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods", metavar="A,B", help="Of RESULTS: the models of these (all).", autocompletion=complete_methods
        ),
    ] = None,
    slices: SlicesOption = None,
    controls: Annotated[
        str,
        typer.Option(
            "--controls",
            metavar="A,B|none",
            help="Controls beside the models, trained on the same slices as they.",
            autocompletion=complete_methods,
        ),
    ] = "controls",
    trained_on: Annotated[
        str | None,
        typer.Option(
            "--trained-on",
            metavar="NAME|PATH|none",
            help="Where the models' training slices are, for the controls (the dataset that they name).",
            autocompletion=complete_dataset,
        ),
    ] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
    engine: EngineOptions = ONE_AT_A_TIME,
    results: Annotated[
        Path | None, typer.Option("--out", metavar="RESULTS", help="Results directory (results/TRAINED-to-TESTED).")
    ] = None,
    retry_failed: RetryFailedOption = False,
    mlflow: MlflowOption = True,
    dry_run: DryRunOption = False,
) -> None:
    """Test trained models on another dataset, over the genes that both have, beside controls. Resumes."""
    from ..results.elsewhere import read_models

    setting = Setting(
        dataset=dataset,
        split="loso",
        seeds="0",
        slices=slices,
        data=data,
        device=device,
        engine=engine,
        results=results,
        retry_failed=retry_failed,
        mlflow=mlflow,
        dry_run=dry_run,
    )
    engine.check(device)
    chosen = [] if controls == NONE else _controls(controls)
    models = read_models(_folders(model, methods))
    tested = TestedOptions(dataset=dataset, slices=slices, data=data)
    trained = _trained_side(models, trained_on, data)
    refuse_itself(trained.name, trained.origin or _origin(models[0], data), tested)
    directory = results or Path("results") / joint_name(trained.name, tested.opened.name)
    require_usable(directory, setting)
    joined = join_datasets(trained, tested, models[0].facts.target)
    _require_as_trained(models, joined)
    run_experiments(directory, setting, [_experiment(models, joined, chosen, device)])


def _folders(given: Sequence[Path], methods: str | None) -> list[Path]:
    """Of the models that were named."""
    from ..inference.chosen import models_of

    if methods is not None and not any((path / "run.json").is_file() for path in given):
        raise UserError(f"--methods {methods} chooses in a results directory - give one with --model, or leave it out")
    return models_of(given, None if methods is None else words(methods, "--methods"))


def _controls(names: str) -> list[str]:
    """The controls that are named. Raises ``UserError`` for a method that is none."""
    expanded = registry.expand_methods(names)
    for name in expanded:
        if registry.method(name).kind != "control":
            raise UserError(
                f"--controls {name} is no control: it would have to be trained - 'stbench run --test-dataset' trains "
                "methods and tests them on another dataset"
            )
    return expanded


def _trained_side(models: Sequence[GivenModel], trained_on: str | None, data: Path | None) -> TrainedSide:
    """What the models say of their training, with the slices where they are at hand."""
    from ..data.physical import with_patch_um

    facts = models[0].facts
    found = None
    slices = list(dict.fromkeys(name for model in models for name in model.facts.train))
    if trained_on != NONE:
        try:
            found = _training_data(models[0], trained_on, data)
            _require_slices(found[0], slices, facts.patch_px)
        except UserError as error:
            if trained_on is not None:
                raise
            found = None
            reason = str(error).partition(" - ")[0]
            say_once(
                [
                    f"the training slices of {facts.dataset_title} are not at hand ({reason}): no control is trained; "
                    "name their dataset with --trained-on"
                ]
            )
    return TrainedSide(
        name=facts.dataset,
        title=facts.dataset_title,
        genes=facts.genes,
        patch_px=facts.patch_px,
        patch_um=facts.patch_um,
        own_size=any(model.facts.config.get("patch_um") is not None for model in models),
        dataset=None if found is None else with_patch_um(found[0], facts.patch_um),
        origin="" if found is None else found[1],
        root=None if found is None else found[2],
        slices=slices,
        windows={
            name: (slide.window_px, slide.um_per_px) for model in models for name, slide in model.facts.slides.items()
        },
    )


def _training_data(model: GivenModel, named: str | None, data: Path | None) -> tuple[Dataset, str, Path | None]:
    """The dataset that a model was trained on, what the registry finds it by, and the folder it was found under.

    Where nothing is named it is that of the model's trial, if the model still lies there, else the one of its name.
    """
    from ..trials.spec import TrialSpec

    spec = model.folder.parent / "spec.json"
    if named is None and spec.is_file():
        where = TrialSpec.read(spec).data
        root = None if where.root is None else Path(where.root)
        return registry.dataset(where.dataset, root), where.dataset, root
    name = named or model.facts.dataset.partition("@")[0]
    root = data_root(data)
    return registry.dataset(name, root), registry.dataset_origin(name, root), root


def _origin(model: GivenModel, data: Path | None) -> str:
    """What the registry finds the training dataset by, wherever its slices are; empty where it finds none."""
    try:
        return _training_data(model, None, data)[1]
    except UserError:
        return ""


def _require_slices(dataset: Dataset, slices: Sequence[str], patch_px: int) -> None:
    """``UserError`` where slices that were trained on are not there, or the dataset has other windows now."""
    from ..data.prepare import choose, require_readable

    require_readable(choose(dataset, list(slices))[0])
    if dataset.patch_px != patch_px:
        raise UserError(
            f"{dataset.title} has patches of {dataset.patch_px} px, and the models were trained on {patch_px} - name "
            "the dataset as it was"
        )


def _require_as_trained(models: Sequence[GivenModel], joined: Joined) -> None:
    """``UserError`` where a training slice that is at hand is not what the models were trained on."""
    from ..data.transfer import training_name

    for model in models:
        for name, slide in model.facts.slides.items():
            here = joined.prepared.slides.get(training_name(model.facts.dataset, name))
            if here is not None and here.n_spots != slide.n_spots:
                raise UserError(
                    f"slice {name} of {model.facts.dataset_title} has {here.n_spots:,} spots here, and the model of "
                    f"{model.folder} was trained on {slide.n_spots:,} - name the dataset as it was with --trained-on, "
                    f"or leave the controls out with --trained-on {NONE}"
                )


def _experiment(models: Sequence[GivenModel], joined: Joined, controls: Sequence[str], device: str) -> Experiment:
    """The models' trials, and those of controls on the same training slices."""
    from ..results.elsewhere import folds_of, specs_of_models
    from ..results.plan import Experiment

    at_hand = bool(joined.training_slices)
    folds = folds_of(models, joined.tested_slices, at_hand)
    specs = specs_of_models(models, folds, joined.data_spec, joined.prepared.patients, device)
    presets = {model.facts.preset for model in models}
    given = {model.facts.name for model in models}  # a control that was given as a model stands for itself
    choices = [_choice(name, presets) for name in controls if at_hand and name not in given]
    seeds = sorted({model.facts.seed for model in models})
    return Experiment(joined.prepared, joined.data_spec, choices, SPLIT, folds, seeds, panel=joined.panel, models=specs)


def _choice(name: str, presets: set[str]) -> MethodChoice:
    """A control in the preset of the models, where they have one and it knows that, else as published."""
    from ..method import configure
    from ..results.plan import MethodChoice

    method = registry.method(name)
    preset = next(iter(presets)) if len(presets) == 1 and presets <= method.presets.keys() else "published"
    return MethodChoice(name, method, preset, {}, configure(method, preset))
