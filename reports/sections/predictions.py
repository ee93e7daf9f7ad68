"""The predicted slices of a section: where they are, and chosen genes of one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from stbench.errors import UserError
from stbench.system.compressed import locked_hdf5
from stbench.trials.outcome import damaged, find, read_ended

from .section import Section, records


@dataclass(frozen=True)
class PredictedGenes:
    """Some genes of one slice, in the order asked for; spots in the order of the file."""

    truth: np.ndarray  # (n_spots, n_chosen) float64
    prediction: np.ndarray  # (n_spots, n_chosen) float64
    pixel_xy: np.ndarray  # (n_spots, 2) float64, full resolution


def prediction_files(section: Section) -> Mapping[tuple[str, str], Path]:
    """(entry, slice) to the file of the lowest seed that finished; a trial that wrote none is left out."""
    first = of_lowest_seed(section.rows[section.rows["state"] == "finished"]).drop_duplicates(["entry", "slice"])
    files = {
        (row.entry, row.slice): Path(row.directory) / "trials" / row.key / "predictions" / f"{row.slice}.h5ad"
        for row in records(first)
    }
    for trial in {path.parents[1] for path in files.values()}:
        read_ended(trial)  # one that wrote its predictions must have them
    return {about: path for about, path in files.items() if path.is_file()}


def of_lowest_seed(rows: pd.DataFrame) -> pd.DataFrame:
    """Of each entry and slice the rows of its lowest seed, by number: 2 comes before 10. A seed may be without one."""
    number = pd.Series([int(seed) if str(seed).isdigit() else 0 for seed in rows["seed"]], index=rows.index)
    return rows[number == number.groupby([rows["entry"], rows["slice"]]).transform("min")]


def which_seed(section: Section) -> str:
    """What a caption says of :func:`prediction_files` where there are several seeds; nothing where there is one."""
    seeds = set(section.rows.loc[section.rows["state"] == "finished", "seed"])
    return "; of several seeds, predictions of the lowest that finished" if len(seeds) > 1 else ""


def read_genes(path: Path, genes: Sequence[str]) -> PredictedGenes:
    """``genes`` of a prediction that a trial wrote. Raises ``UserError`` where the file cannot be read."""
    import h5py
    from anndata.io import read_elem

    find(path.parents[1], f"predictions/{path.name}")
    try:
        # only what is needed: the rest of an AnnData file takes longer to open than these two matrices
        with h5py.File(path) as file:
            columns_of = read_elem(file["var"]).index
            columns = columns_of.get_indexer(list(genes))
            truth, prediction = (np.asarray(read_elem(file[name])) for name in ("layers/truth", "X"))
            pixel_xy = np.asarray(read_elem(file["obsm/spatial"]), dtype=float)
            if not (truth.shape == prediction.shape == (len(pixel_xy), len(columns_of))):
                raise ValueError(f"X is {prediction.shape}, truth {truth.shape}, positions {pixel_xy.shape}")
    except BlockingIOError as error:
        raise locked_hdf5(path) from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError) as error:  # h5py raises all of these
        raise damaged(path.parents[1], f"predictions/{path.name}", f"cannot be read ({error})") from error
    if (columns < 0).any():
        absent = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
        raise UserError(
            f"{path} does not predict {', '.join(absent[:3])} - run the same command again to write it anew"
        )
    return PredictedGenes(truth[:, columns].astype(float), prediction[:, columns].astype(float), pixel_xy)
