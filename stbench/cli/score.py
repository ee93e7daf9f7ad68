"""``stbench score``: predictions of others in the same table, without running their code."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..data.target_names import DEFAULT_TARGET
from ..errors import UserError
from .completion import complete_dataset, complete_split, complete_target
from .console import out, say_once
from .gene_panels import PanelOptions
from .options import DataOption, FoldsOption, PanelFromOption, PanelOption, PatchUmOption
from .recording import is_recorded, record_in_mlflow
from .setting import Setting, prepare_setting
from .summary import print_summary


def score(
    predictions: Annotated[list[Path], typer.Argument(metavar="PREDICTIONS.h5ad...")],
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="NAME|PATH",
            help="The dataset that was predicted.",
            autocompletion=complete_dataset,
        ),
    ],
    name: Annotated[
        str, typer.Option("--name", metavar="NAME", help="The method's name; its earlier scores are replaced.")
    ],
    results: Annotated[Path, typer.Option("--out", metavar="RESULTS", help="Results directory, new or that of a run.")],
    title: Annotated[str | None, typer.Option(help="The method's name as printed in tables (NAME).")] = None,
    split: Annotated[
        str,
        typer.Option(
            help="The split that the training slices followed, as you declare: loso, lopo, kfold.",
            autocompletion=complete_split,
        ),
    ] = "loso",
    folds: FoldsOption = None,
    target: Annotated[
        str, typer.Option(help="Target: the scale that the predictions are on.", autocompletion=complete_target)
    ] = DEFAULT_TARGET,
    seed: Annotated[int, typer.Option(help="Seed of the predictions, to tell several apart.")] = 0,
    slice_column: Annotated[
        str | None, typer.Option("--slice-column", metavar="COLUMN", help="Column of obs that names the slice (slice).")
    ] = None,
    slices: Annotated[
        str | None, typer.Option("--slices", metavar="A,B", help="The dataset's slices (those of RESULTS, else all).")
    ] = None,
    panel: PanelOption = None,
    panel_from: PanelFromOption = None,
    data: DataOption = None,
    patch_um: PatchUmOption = None,
) -> None:
    """Score predictions made elsewhere, one .h5ad file per slice, with the same metrics and in the same table."""
    from ..external.predictions import read_predictions
    from ..external.submission import (
        Submission,
        alarms_of,
        earlier_slices,
        require_name,
        require_same_protocol,
        score_submission,
        scores_kept,
    )
    from ..results.summary import write_summary

    require_name(name)
    if "," in split:
        raise UserError(f"--split {split} names several splits - predictions are of one")
    options = PanelOptions(panel, panel_from, dataset, data, slices, split, folds, patch_um)
    options.check_one_list("predictions are scored on one list")
    chosen = slices
    if chosen is None:
        present = earlier_slices(results, options.name(), split, target)
        if present:
            chosen = ",".join(present)
            out.print(f"slices as in {results}: {', '.join(present)}", soft_wrap=True)
    setting = Setting(
        dataset=dataset,
        split=split,
        folds=folds,
        seeds=str(seed),
        slices=chosen,
        panel=panel,
        panel_from=panel_from,
        data=data,
        patch_um=patch_um,
        device="cpu",
        results=results,
        mlflow=False,
    )
    setting.check()
    prepared, data_spec, chosen_panel = prepare_setting(setting, target)
    declared_folds = setting.split_folds(prepared)[split]
    require_same_protocol(results, prepared, declared_folds, split)
    submitted = read_predictions(predictions, prepared, split, slice_column, only_some=slices is not None)
    say_once([f"{prediction.slice}: {note}" for prediction in submitted.values() for note in prediction.notes])
    submission = Submission(name, title or name, split, seed, submitted)
    keys, n_new = score_submission(
        results, prepared, data_spec, declared_folds, submission, "stbench " + shlex.join(sys.argv[1:])
    )
    if chosen_panel is not None:
        chosen_panel.write(results)
    summary = write_summary(results)
    if is_recorded(results):
        record_in_mlflow(results)
    print_summary(summary[summary["key"].isin(keys)])
    n_earlier = len(keys) - n_new
    out.print(
        f"{len(keys)} of {len(declared_folds)} folds scored{f' ({n_earlier} already were)' if n_earlier else ''}; "
        "you declare that their test slices were left out of training",
        soft_wrap=True,
    )
    say_once(scores_kept(summary, keys))
    say_once(
        f"{alarm.kind}: {alarm.text}" for prediction in submitted.values() for alarm in alarms_of(prediction, prepared)
    )
    out.print(f"results: {results}   now: stbench report {shlex.quote(str(results))}", soft_wrap=True)
