"""Predictions that were made elsewhere: read from AnnData files and put into the order of the slides they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pandas as pd

from ..data.prepared import PreparedDataset, PreparedSlide
from ..errors import UserError, reason_of, unknown
from ..slides.spot_names import indices_in_names
from ..system.compressed import existing, locked_hdf5
from ..system.finite import not_finite
from ..system.scalars import as_text, single
from ..system.wording import shortened

if TYPE_CHECKING:
    from anndata import AnnData

SLICE_COLUMN = "slice"
NAMED_GENES = 10  # of those that are missing, in a note


class Predicted(Protocol):
    """What must be known of a slide to put predictions of it into its order; a prepared slide is one."""

    @property
    def id(self) -> str: ...
    @property
    def n_spots(self) -> int: ...
    @property
    def spot_ids(self) -> tuple[str, ...]: ...
    @property
    def genes(self) -> tuple[str, ...]: ...
    @property
    def array_xy(self) -> np.ndarray: ...  # (n_spots, 2) int64


@dataclass(frozen=True)
class ExternalPrediction:
    """What somebody's method predicts of one slice, spots and genes in the prepared slide's order."""

    slice: str
    values: np.ndarray  # (n_spots, n_genes) float32; a gene that was not predicted is NaN in every spot
    notes: tuple[str, ...]  # what a reader of the scores must know
    source: str  # the file, and how its spots were matched

    @cached_property
    def digest(self) -> str:
        """BLAKE2b-128 of the values: the same for the same predictions in whatever order, file or type."""
        return hashlib.blake2b(np.ascontiguousarray(self.values).tobytes(), digest_size=16).hexdigest()


def read_predictions(
    paths: Sequence[Path],
    data: PreparedDataset,
    split: str,
    slice_column: str | None = None,
    only_some: bool = False,
) -> dict[str, ExternalPrediction]:
    """The predictions in ``paths`` of the slices of ``data``, in fold order.

    A file holds one slice, named by ``uns["slice"]``, by ``uns["stbench"]["slice"]`` or by the file itself, or several,
    told apart by a column of ``obs`` (``slice_column``; without it ``slice``, where there is one). ``X`` are the
    predictions on the scale of ``data.target``; nothing else of the file is used. Spots are matched by name, padded
    with zeros or not, else by ``obs[array_row, array_col]``; genes by name. With ``only_some``, slices of the dataset
    that are not in ``data`` are skipped.

    Raises ``UserError`` for a slice that is unknown or given twice, for a spot without a prediction, a value that is
    not finite, and a file that states another dataset, target or split.
    """
    found: dict[str, ExternalPrediction] = {}
    for path in paths:
        for name, section in _sections(path, slice_column):
            if only_some and name in data.expected and name not in data.slides:
                continue
            slide = _slide(name, path, data)
            if name in found:
                raise UserError(f"slice {name} is predicted in {found[name].source} and again in {path} - give it once")
            _require_same_question(section, path, data, split)
            found[name] = match(section, slide, path)
    return {name: found[name] for name in data.slides if name in found}


def read_prediction(path: Path, slide: Predicted) -> ExternalPrediction:
    """The prediction of one slice in a file of its own. Raises ``UserError`` as :func:`read_predictions`."""
    return match(_read(path), slide, path)


def match(section: AnnData, slide: Predicted, path: Path) -> ExternalPrediction:
    """The predictions of one slice in the order of ``slide``; ``path`` is for messages."""
    columns, notes = _match_genes(section, slide, path)
    rows, how, remarks = _match_spots(section, slide, path)
    notes += remarks
    if section.n_obs > slide.n_spots:
        notes.append(f"{section.n_obs - slide.n_spots} predicted spots that the slide does not have are ignored")
    known = columns >= 0
    values = np.full((slide.n_spots, len(slide.genes)), np.nan, dtype=np.float32)
    values[:, known] = _numbers(section, rows, columns[known], slide, path)
    bad = not_finite(values[:, known])
    if bad is not None:
        raise UserError(
            f"{path}: {bad.count} predicted values of slice {slide.id} are NaN or infinite (first: spot "
            f"{slide.spot_ids[bad.row]}, gene {np.array(slide.genes)[known][bad.column]}) - every spot and gene needs "
            "a number; leave out a gene that is not predicted"
        )
    return ExternalPrediction(slide.id, values, tuple(notes), f"{path}, spots matched by {how}")


def _sections(path: Path, slice_column: str | None) -> Iterator[tuple[str, AnnData]]:
    """The slices in one file, each with its name."""
    adata = _read(path)
    column = slice_column or SLICE_COLUMN
    if column in adata.obs:
        names = adata.obs[column]
        if names.isna().any():
            raise UserError(f"{path}: {int(names.isna().sum())} spots have no {column} in obs - name the slice of each")
        names = names.astype(str)
        for name in dict.fromkeys(names):
            yield name, adata[(names == name).to_numpy()]
    elif slice_column is not None:
        raise unknown(f"column of obs in {path}", slice_column, map(str, adata.obs.columns))
    else:
        yield _name_in_uns(adata) or path.stem, adata


def _read(path: Path) -> AnnData:
    import anndata
    import h5py

    if not h5py.is_hdf5(existing(path)):
        raise UserError(f"{path} is not an .h5ad file (not HDF5) - give a file written by AnnData")
    try:
        adata = anndata.read_h5ad(path)
    except BlockingIOError as error:
        raise locked_hdf5(path) from error
    except Exception as error:  # what anndata raises for an encoding that it does not know is private to it
        reason = reason_of(error)
        raise UserError(f"{path} cannot be read as AnnData ({reason}) - write it again with anndata") from error
    if adata.X is None or adata.n_obs == 0 or adata.n_vars == 0:
        layers = f" (there are layers: {', '.join(adata.layers)})" if len(adata.layers) else ""
        raise UserError(
            f"{path} holds no predictions in X{layers} - X must have one row per spot and one column per gene"
        )
    return adata


def _name_in_uns(adata: AnnData) -> str | None:
    for place in (adata.uns, _ours(adata)):
        name = as_text(place.get("slice"))
        if name is not None:
            return name
    return None


def _ours(adata: AnnData) -> Mapping[str, Any]:
    """What stbench itself writes into the predictions of a trial."""
    record = adata.uns.get("stbench", {})
    return record if isinstance(record, Mapping) else {}


def _slide(name: str, path: Path, data: PreparedDataset) -> PreparedSlide:
    if name in data.slides:
        return data.slides[name]
    absent = {gone.id: gone.reason for gone in data.missing}
    if name in data.expected:
        raise UserError(
            f"{path} predicts slice {name} of {data.name}, which is not among the slices here"
            f"{f' ({absent[name]})' if name in absent else ''} - leave it out, or choose with --slices"
        )
    hint = f"in {path}: name the file after its slice, or the column of obs that names it (--slice-column)"
    raise unknown(f"slice of {data.name}", name, data.slides, hint)


def _require_same_question(section: AnnData, path: Path, data: PreparedDataset, split: str) -> None:
    for what, ours in (("dataset", data.name), ("target", data.target.name), ("split", split)):
        stated = single(_ours(section).get(what))
        if stated is not None and str(stated) != ours:
            raise UserError(f"{path} states the {what} {stated}, not {ours} - give --{what} {stated}")


def _match_genes(section: AnnData, slide: Predicted, path: Path) -> tuple[np.ndarray, list[str]]:
    """(n_genes,) int: the column of each panel gene, -1 where there is none; notes."""
    given, panel = pd.Index(section.var_names.astype(str)), pd.Index(slide.genes)
    twice = given[given.duplicated() & given.isin(panel)]
    if len(twice):
        raise UserError(f"{path} has several columns for gene {twice[0]} - predict each gene once")
    ours = given.isin(panel)
    if not ours.any():
        turned = pd.Index(section.obs_names.astype(str)).isin(panel).any()
        hint = "X has genes as rows: transpose it" if turned else "use the panel's gene names as var_names"
        raise UserError(
            f"{path}: none of the {len(panel)} panel genes is among its {len(given)} genes (it has "
            f"{', '.join(given[:3])}, ...; the panel {', '.join(panel[:3])}, ...) - {hint}"
        )
    columns = np.full(len(panel), -1)
    columns[panel.get_indexer(given[ours])] = np.flatnonzero(ours)
    missing = tuple(panel[columns < 0])
    notes = []
    if missing:
        named = shortened(missing, NAMED_GENES)
        verb = "is" if len(missing) == 1 else "are"
        notes.append(f"{len(missing)} of {len(panel)} genes {verb} missing: {named}; scored as the training mean")
    if not ours.all():
        notes.append(f"{int((~ours).sum())} predicted genes that are not in the panel are ignored")
    return columns, notes


def _match_spots(section: AnnData, slide: Predicted, path: Path) -> tuple[np.ndarray, str, list[str]]:
    """(n_spots,) int: the row of each spot of the slide; what it was found by; notes.

    By name, else by the numbers x and y in names of the form ``<x>x<y>`` (HEST-1k pads them with zeros), else by
    ``array_row`` and ``array_col``. Names of that form win over the two columns, which HEST-1k fills the other way
    round.
    """
    in_names = indices_in_names(section.obs_names)
    in_columns = _array_columns(section)
    ways = [("name", pd.Index(section.obs_names.astype(str)), pd.Index(slide.spot_ids))]
    if in_names is not None:
        ways.append(("the x and y in their names", _pairs(in_names), _pairs(slide.array_xy)))
    elif in_columns is not None:
        ways.append(("array_row and array_col", _pairs(in_columns), _pairs(slide.array_xy)))
    complaints: list[tuple[int, str]] = []
    for how, given, wanted in ways:
        twice = given[given.duplicated() & given.isin(wanted)]
        if len(twice):
            text = f"spots of slice {slide.id} occur more than once by {how} ({_place(twice[0])})"
            complaints.append((slide.n_spots, text))
            continue
        rows = given.get_indexer(wanted)
        lost = np.flatnonzero(rows < 0)
        if not len(lost):
            return rows, how, _axes_notes(in_names, in_columns, slide, how)
        turned = None if in_columns is None or in_names is not None else _pairs(in_columns[:, ::-1])
        if turned is not None and turned.is_unique and wanted.isin(turned).all():
            raise UserError(
                f"{path}: array_row and array_col of slice {slide.id} are exchanged (all its spots are found the other "
                "way round) - array_col is x, the first number of a spot's name, and array_row y: exchange the two"
            )
        strange = section.obs_names[np.setdiff1d(np.arange(section.n_obs), rows)]
        theirs = strange[0] if len(strange) else section.obs_names[0]
        text = (
            f"{len(lost)} of {slide.n_spots} spots of slice {slide.id} have no prediction (first: "
            f"{slide.spot_ids[lost[0]]}; the file has {theirs})"
        )
        complaints.append((len(lost), text))
    raise UserError(
        f"{path}: {min(complaints)[1]} - predict every spot once, named in obs_names as the slide names it or placed "
        "by array_row and array_col in obs"
    )


def _array_columns(section: AnnData) -> np.ndarray | None:
    """(n, 2) float64: array_col, array_row; NaN where there is no number. ``None`` without the two columns."""
    if not {"array_row", "array_col"} <= set(section.obs.columns):
        return None
    columns = [section.obs[name].astype(object) for name in ("array_col", "array_row")]
    return np.stack(
        [pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan) for column in columns], 1
    )


def _pairs(xy: np.ndarray) -> pd.MultiIndex:
    return pd.MultiIndex.from_arrays(list(np.asarray(xy, dtype=np.float64).T))


def _place(name: str | tuple[float, float]) -> str:
    """A spot that a message names, by its name or by its place on the array."""
    return name if isinstance(name, str) else f"array_row {name[1]:.0f}, array_col {name[0]:.0f}"


def _axes_notes(in_names: np.ndarray | None, in_columns: np.ndarray | None, slide: Predicted, how: str) -> list[str]:
    """What is to be said of which number is x where two readings are possible."""
    if in_names is not None and in_columns is not None:
        exchanged = np.array_equal(in_columns[:, ::-1], in_names) and not np.array_equal(in_columns, in_names)
        return ["array_row holds x and array_col y, as HEST-1k writes them; spots are matched by name"] * exchanged
    if how != "array_row and array_col" or indices_in_names(slide.spot_ids) is None:
        return []
    places = {(int(x), int(y)) for x, y in slide.array_xy}
    if places != {(y, x) for x, y in places} or all(x == y for x, y in places):
        return []
    return [
        "spots are matched by array_row and array_col, which fit either way round: that array_col is x, the first "
        "number of a spot's name, is taken on trust"
    ]


def _numbers(section: AnnData, rows: np.ndarray, columns: np.ndarray, slide: Predicted, path: Path) -> np.ndarray:
    """The chosen rows and columns of ``X`` as dense float32."""
    from scipy import sparse

    matrix: Any = section.X
    matrix = matrix.tocsr() if sparse.issparse(matrix) else np.asarray(matrix)
    if matrix.dtype.kind not in "fiub":
        raise UserError(f"{path}: X of slice {slide.id} holds values of type {matrix.dtype} - predictions are numbers")
    chosen = matrix[rows][:, columns]
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused as such
        return np.asarray(chosen.toarray() if sparse.issparse(chosen) else chosen).astype(np.float32)
