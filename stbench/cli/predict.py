"""``stbench predict``: trained models on a new image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import UserError
from ..system.locate import data_root
from ..system.user_paths import expanded
from .completion import complete_methods
from .console import out, say_once, with_bar
from .lists import words
from .options import DataOption, DeviceOption


def predict(
    model: Annotated[
        list[Path],
        typer.Option(
            "--model",
            metavar="DIR",
            help="A model folder (RESULTS/trials/KEY/model); repeated, folds or seeds of one method are averaged.",
        ),
    ],
    slide: Annotated[
        str,
        typer.Option(
            "--slide",
            metavar="IMAGE|PATH",
            help="An H&E image, or a section with spots: a maker's folder, .h5ad, cohort.",
        ),
    ],
    to: Annotated[Path, typer.Option("--out", metavar="FILE.h5ad", help="The file to write.")],
    method: Annotated[
        str | None,
        typer.Option(
            "--method",
            metavar="NAME",
            help="Where --model is a results directory: all models of this method.",
            autocompletion=complete_methods,
        ),
    ] = None,
    slice_name: Annotated[
        str | None, typer.Option("--slice", metavar="NAME", help="Which slice, where --slide has several.")
    ] = None,
    spots: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Positions of the spots: CSV, TSV or Parquet with x and y, or .h5ad."),
    ] = None,
    pitch_um: Annotated[
        float | None, typer.Option(metavar="UM", help="Lay a grid over the tissue, of this pitch in µm (100).")
    ] = None,
    grid: Annotated[
        Literal["hexagonal", "square"] | None, typer.Option(help="Shape of that grid (hexagonal, as Visium).")
    ] = None,
    um_per_px: Annotated[
        float | None, typer.Option(metavar="UM", help="Width of a pixel of the image in µm, where its file has none.")
    ] = None,
    genes: Annotated[str | None, typer.Option(metavar="A,B", help="Write these genes alone.")] = None,
    data: DataOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Predict the expression of a new slide from its image, at given spots or on a grid over the tissue."""
    for name, number in (("--pitch-um", pitch_um), ("--um-per-px", um_per_px)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise UserError(f"{name} {number:g} is no length - give a positive number of µm")
    if spots is not None and (pitch_um is not None or grid is not None):
        raise UserError("--spots gives the spots, --pitch-um and --grid lay a grid - give one or the other")

    from ..inference.chosen import model_directories
    from ..inference.file import chosen_genes, predicted_table, require_new_file, write_table
    from ..inference.predict import models_that_agree, predict_slide
    from ..inference.section import (
        PITCH_UM,
        Grid,
        notes_of_image,
        notes_of_spots,
        open_section,
        with_given_spots,
        with_grid,
    )

    require_new_file(to, [expanded(slide), *([] if spots is None else [spots])])
    directories = model_directories(model, method)
    models = models_that_agree(directories)
    chosen, notes = chosen_genes(models, None if genes is None else words(genes, "--genes"))
    section = open_section(slide, slice_name, data_root(data), um_per_px)
    notes += notes_of_image(section)
    if spots is not None:
        section, found = with_given_spots(section, spots)
    elif section.n_spots and pitch_um is None and grid is None:
        found = notes_of_spots(section)
    else:
        laid = Grid(PITCH_UM if pitch_um is None else pitch_um, grid or "hexagonal")
        section, found = with_grid(section, laid, models)
    notes += found
    prediction = with_bar(
        "predicting", lambda tell: predict_slide(directories, models, section, device, on_progress=tell)
    )
    notes = list(dict.fromkeys([*notes, *prediction.notes]))
    write_table(to, predicted_table(section, models, prediction, chosen, notes))
    say_once(notes)
    first, n_models = models[0], len(models)
    average = f", mean of {n_models} models with their spread in layers['std']" if n_models > 1 else ""
    out.print(
        f"{section.id}: {section.n_spots:,} spots x {len(chosen)} genes by {first.title} trained on "
        f"{first.dataset_title}{average}; target {first.target}: {first.formula}",
        soft_wrap=True,
    )
    out.print(f"prediction: {to}", soft_wrap=True)
