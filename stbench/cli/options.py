"""Options that several commands have, declared once; each command gives its own default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..data.target_names import DEFAULT_TARGET, TARGET_NAMES
from .completion import complete_dataset, complete_precision, complete_preset, complete_splits, complete_target

DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        metavar="NAME|PATH",
        help="her2st, cscc, alex10x, demo, a cohort of your own, or a path.",
        autocompletion=complete_dataset,
    ),
]
DatasetArgument = Annotated[str, typer.Argument(metavar="NAME|PATH", autocompletion=complete_dataset)]
SlicesOption = Annotated[str | None, typer.Option("--slices", metavar="A,B", help="Only these slices.")]
PanelOption = Annotated[
    str | None,
    typer.Option(
        "--panel",
        metavar="FILE|NAME|hvg:N|svg:N|common",
        help="Genes to predict instead of the dataset's own: a file, another dataset's panel, the N most variable "
        "(hvg) or most spatially structured (svg), or all that are common.",
    ),
]
PanelFromOption = Annotated[
    str | None,
    typer.Option(
        "--panel-from",
        metavar="training|all",
        help="Slices that hvg and svg look at: the training slices of each fold (default), or all, test slices too.",
    ),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the data (STBENCH_DATA, else the user's data folder)."),
]

PatchUmOption = Annotated[
    float | None,
    typer.Option(
        "--patch-um",
        metavar="X",
        help="Side of the windows in µm, on every slide and for all methods; resampled to the dataset's patch_px.",
    ),
]

SplitOption = Annotated[
    str,
    typer.Option(
        help="loso (leave one slice out), lopo (one patient), kfold; several with commas.",
        autocompletion=complete_splits,
    ),
]
FoldsOption = Annotated[int | None, typer.Option(help="Number of folds of kfold (5).")]
OnlyFoldsOption = Annotated[
    str | None,
    typer.Option(
        "--only-folds", metavar="A2,B1", help="Run these folds now. All are planned, and tables count what is missing."
    ),
]
TargetOption = Annotated[
    str,
    typer.Option(help=f"Scale that is predicted: {', '.join(TARGET_NAMES)}.", autocompletion=complete_target),
]
PresetTargetOption = Annotated[
    str | None,
    typer.Option(
        help=f"Scale that is predicted: {', '.join(TARGET_NAMES)}. Default: {DEFAULT_TARGET}, or what a method's "
        "released code or text predicts under --preset released or paper.",
        show_default=False,
        autocompletion=complete_target,
    ),
]
PresetOption = Annotated[
    str,
    typer.Option(
        help="published (the recommended, faithful reading), released (the released code's values, faults and "
        "all), paper (the text's), quick (minutes on a CPU). All but published are labelled wherever numbers appear.",
        autocompletion=complete_preset,
    ),
]
WeightsOption = Annotated[
    str | None, typer.Option("--weights", metavar="random|PATH", help="Encoder weights instead of the published ones.")
]

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        help="auto or fp32 (PyTorch's defaults), tf32 (in matrix products too), bf16; the last two where safe.",
        autocompletion=complete_precision,
    ),
]
UnsafePrecisionOption = Annotated[
    bool,
    typer.Option(
        "--allow-unsafe-precision", help="Run methods in a --precision not known to be safe for them; labelled."
    ),
]
RetryFailedOption = Annotated[bool, typer.Option("--retry-failed", help="Run failed trials again.")]
MlflowOption = Annotated[bool, typer.Option(help="Record in MLflow (MLFLOW_TRACKING_URI, else a SQLite file).")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what would be run, and roughly what it would take, and stop.")
]

ResultsArgument = Annotated[list[Path], typer.Argument(metavar="RESULTS...")]
