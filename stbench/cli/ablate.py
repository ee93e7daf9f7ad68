"""``stbench ablate``: a method with its parts changed one at a time, compared with the method as it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from .. import registry
from ..data.target_names import DEFAULT_TARGET, known_target
from ..readings import target_of
from .completion import complete_method
from .console import out
from .engine_options import ONE_AT_A_TIME, EngineOptions
from .grouped import grouped
from .lists import words
from .method_choices import require_weights
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

if TYPE_CHECKING:
    from ..results.ablation import Ablation


@grouped("engine", EngineOptions)
def ablate(
    method: Annotated[
        str,
        typer.Argument(metavar="METHOD", help="A name, path.py:Class, path.toml.", autocompletion=complete_method),
    ],
    dataset: DatasetOption,
    only: Annotated[
        str | None, typer.Option("--only", metavar="A,B", help="Only these switches (default: every registered one).")
    ] = None,
    sweep: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=A,B", help="Sweep a setting; repeat it for a grid of all combinations."),
    ] = None,
    max_variants: Annotated[
        int, typer.Option("--max-variants", min=1, help="Refuse more variants than this, the base included.")
    ] = 64,
    split: SplitOption = "loso",
    folds: FoldsOption = None,
    only_folds: OnlyFoldsOption = None,
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds; every variant is run once with each.")] = "0",
    preset: PresetOption = "published",
    target: PresetTargetOption = None,
    weights: WeightsOption = None,
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
        Path | None, typer.Option("--out", metavar="DIR", help="Results (results/DATASET-PRESET-ablate-METHOD).")
    ] = None,
    retry_failed: RetryFailedOption = False,
    mlflow: MlflowOption = True,
    dry_run: DryRunOption = False,
) -> None:
    """Change a method's parts one at a time. Variants that differ only at inference reuse the base's trained models,
    which are kept in its trials. Running the same command again resumes.
    """
    from ..results.ablation import choose_switches, grid, grid_size, parse_sweep, plan_ablation, refuse_above

    setting = Setting(
        dataset=dataset,
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
        mlflow=mlflow,
        dry_run=dry_run,
    )
    registry.known_methods(method)
    if target is not None:
        known_target(target)
    setting.check()
    chosen = registry.method(method)
    setting.check_precision([chosen])
    target = target or target_of(chosen, preset, dataset) or DEFAULT_TARGET
    switches = [] if sweep and only is None else list(choose_switches(chosen, only and words(only, "--only")))
    if sweep:
        sweeps = [parse_sweep(text) for text in sweep]
        out.print(f"grid of {grid_size(sweeps)}", soft_wrap=True)
        switches.append(grid(sweeps, max_variants))
    overrides = {} if weights is None else {"weights": weights}
    study = plan_ablation(method, chosen, switches, preset, dataset, target, overrides)
    _say(study)
    out.print(study.statement(), soft_wrap=True)
    refuse_above(study, max_variants)
    require_weights(*(configuration.choice.config for configuration in study.configurations))
    record = study.record(setting.precision_of(chosen))
    run_choices(setting, study.by_target(), f"{preset}-ablate-{chosen.name}", record)


def _say(study: Ablation) -> None:
    """Print every switch with its variants: what each costs, what it is, and the settings that it changes."""
    width = max(len(row.variant.name) for _, rows in study.switches for row in rows)
    for switch, rows in study.switches:
        title = f"{switch.title}, {switch.answers}" if switch.answers else switch.title
        out.print(Text.assemble((switch.name, "bold"), f": {title}"), soft_wrap=True)
        for row in rows:
            cost = "base" if row.is_base else "reuses a model" if row.configuration.reuses else "trains"
            change = f"  ({row.change})" if row.change else ""
            out.print(f"  {row.variant.name:<{width}}  {cost:<14}  {row.variant.words}{change}", soft_wrap=True)
