"""A prediction as an ``.h5ad`` file that scanpy and squidpy draw on its image at once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..data.h5ad_content import h5ad_content
from ..errors import UserError, unknown
from ..models.facts import ModelFacts
from ..slides.image import reduced
from ..slides.scanpy_picture import HIRES, LOWRES, scanpy_pictures
from ..slides.slide import Slide
from ..system.files import replacing
from .predict import Prediction
from .section import diameter_of

if TYPE_CHECKING:
    from anndata import AnnData


def chosen_genes(models: Sequence[ModelFacts], wanted: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The genes to write, and what to say of those that are wanted and that no model predicts.

    ``None``: the whole panel. Raises ``UserError`` where no gene is left.
    """
    panel = models[0].genes
    if wanted is None:
        return list(panel), []
    known = set(panel)
    found = [gene for gene in dict.fromkeys(wanted) if gene in known]
    absent = [gene for gene in dict.fromkeys(wanted) if gene not in known]
    if not found:
        raise unknown(f"gene of {models[0].title}'s panel", absent[0] if absent else "", panel)
    if not absent:
        return found, []
    which = ", ".join(absent[:10]) + (" ..." if len(absent) > 10 else "")
    return found, [
        f"{len(absent)} of {len(found) + len(absent)} genes are not of the model's panel of {len(panel)} and are left "
        f"out: {which}"
    ]


def predicted_table(
    slide: Slide, models: Sequence[ModelFacts], prediction: Prediction, genes: Sequence[str], notes: Sequence[str]
) -> AnnData:
    """``X`` the prediction, ``layers["std"]`` its spread between models; positions, picture, and where it is from."""
    import anndata
    import pandas as pd

    first = models[0]
    place = {gene: number for number, gene in enumerate(first.genes)}
    columns = [place[gene] for gene in genes]
    obs = pd.DataFrame(
        {
            "array_row": slide.array_xy[:, 1],
            "array_col": slide.array_xy[:, 0],
            "in_tissue": np.ones(slide.n_spots, dtype=np.int64),
        },
        index=pd.Index(slide.spot_ids, name="spot", dtype=object),
    )
    table = anndata.AnnData(
        X=np.ascontiguousarray(prediction.mean[:, columns]),
        obs=obs,
        var=pd.DataFrame(index=pd.Index(genes, name="gene")),
    )
    if prediction.std is not None:
        table.layers["std"] = np.ascontiguousarray(prediction.std[:, columns])
    table.obsm["spatial"] = slide.centres
    hires = slide.image.thumbnail(HIRES)
    longest = max(slide.image.full_resolution_size)
    pictures = {"hires": hires, "lowres": reduced(hires, LOWRES)}
    table.uns["spatial"] = scanpy_pictures(slide.id, pictures, longest, diameter_of(slide))
    table.uns["stbench"] = {
        "method": first.name,
        "preset": first.preset,
        "variant": first.variant,
        "target": first.target,
        "target_formula": first.formula,
        "image": slide.image.name,
        "um_per_px": np.nan if slide.um_per_px is None else slide.um_per_px,
        "window_px": prediction.window.covered,
        "patch_px": first.patch_px,
        "notes": list(notes),
        "models": [json.dumps(asdict(facts)) for facts in models],  # model.json of each
        "stbench": __version__,
    }
    return table


def require_new_file(path: Path, inputs: Sequence[Path]) -> None:
    """``UserError`` where the file that is to be written has another ending, is a folder or is one of ``inputs``."""
    if path.suffix.lower() != ".h5ad":
        raise UserError(f"--out {path} is written as AnnData - give a name that ends in .h5ad")
    if path.is_dir():
        raise UserError(f"--out {path} is a folder - give the name of a file in it, predicted.h5ad")
    if any(path.exists() and given.exists() and path.samefile(given) for given in inputs):
        raise UserError(f"--out {path} is a file that is read - give another name")


def write_table(path: Path, table: AnnData) -> None:
    """In one step: an earlier file stays until the new one is whole."""
    content = h5ad_content(table)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
