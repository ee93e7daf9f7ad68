"""``stbench run``: methods on a dataset, fold by fold."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .. import registry
from ..data.target_names import known_target
from .completion import complete_dataset, complete_methods
from .engine_options import ONE_AT_A_TIME, EngineOptions
from .grouped import grouped
from .method_choices import by_target, choose_methods, require_weights, require_words
from .options import (
    DataOption,
    DatasetOption,
    DeviceOption,
    DryRunOption,
    FoldsOption,
    MlflowOption,
    OnlyFoldsOption,
    PanelFromOption,
    PanelOption,
    PatchUmOption,
    PrecisionOption,
    PresetOption,
    PresetTargetOption,
    RetryFailedOption,
    SlicesOption,
    SplitOption,
    UnsafePrecisionOption,
    WeightsOption,
)
from .running import run_choices
from .setting import Setting


@grouped("engine", EngineOptions)
def run(
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            metavar="A,B",
            help="Names, path.py:Class, path.toml, or all, published, controls.",
            autocompletion=complete_methods,
        ),
    ],
    dataset: DatasetOption,
    test_dataset: Annotated[
        str | None,
        typer.Option(
            "--test-dataset",
            metavar="NAME|PATH",
            help="Train on all slices of --dataset, and test on this one, over the genes that both have.",
            autocompletion=complete_dataset,
        ),
    ] = None,
    test_slices: Annotated[
        str | None, typer.Option("--test-slices", metavar="A,B", help="Only these slices of --test-dataset.")
    ] = None,
    split: SplitOption = "loso",
    folds: FoldsOption = None,
    only_folds: OnlyFoldsOption = None,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds; every trial is run once with each.")] = "0",
    preset: PresetOption = "published",
    target: PresetTargetOption = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", metavar="METHOD.FIELD=VALUE", help="Change a setting; repeatable.")
    ] = None,
    weights: WeightsOption = None,
    encoders: Annotated[
        str | None,
        typer.Option(metavar="A,B@PATH", help="Run each method with an encoder once with each of these."),
    ] = None,
    slices: SlicesOption = None,
    panel: PanelOption = None,
    panel_from: PanelFromOption = None,
    data: DataOption = None,
    patch_um: PatchUmOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    allow_unsafe_precision: UnsafePrecisionOption = False,
    engine: EngineOptions = ONE_AT_A_TIME,
    results: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Results directory (results/DATASET-PRESET).")
    ] = None,
    retry_failed: RetryFailedOption = False,
    save_models: Annotated[
        bool, typer.Option("--save-models", help="Keep every trained model in its trial's directory.")
    ] = False,
    mlflow: MlflowOption = True,
    dry_run: DryRunOption = False,
) -> None:
    """Run methods on a dataset, fold by fold. Running the same command again resumes."""
    setting = Setting(
        dataset=dataset,
        test_dataset=test_dataset,
        test_slices=test_slices,
        split=split,
        folds=folds,
        only_folds=only_folds,
        seeds=seeds,
        slices=slices,
        panel=panel,
        panel_from=panel_from,
        data=data,
        patch_um=patch_um,
        device=device,
        precision=precision,
        allow_unsafe_precision=allow_unsafe_precision,
        engine=engine,
        results=results,
        retry_failed=retry_failed,
        save_models=save_models,
        mlflow=mlflow,
        dry_run=dry_run,
    )
    require_words(methods, change or [], encoders)
    if target is not None:
        known_target(target)
    setting.check()
    setting.check_precision([registry.method(name) for name in registry.expand_methods(methods)])
    chosen = choose_methods(methods, preset, dataset, change or [], weights, encoders)
    require_weights(*(choice.config for choice in chosen))
    run_choices(setting, by_target(chosen, dataset, target), preset)
