"""A section stored as AnnData (``.h5ad``) in the convention that scanpy and squidpy share for Visium.

``obsm["spatial"]`` are (x, y) in full-resolution pixels, ``uns["spatial"][library]`` holds small images and their
scales. ``X`` may hold anything, so raw counts are looked for, never guessed.

Such files are written from R too (anndataR, zellkonverter), where a single number or text is a vector of one, and by
versions of anndata and squidpy that write ``None``, nullable columns, and rows of NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.errors import UserError, unknown
from stbench.slides.evidence import Evidence
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide
from stbench.slides.spot_names import indices_in_names

from ..array_indices import indices_of_positions
from ..assemble import assemble
from .counts import counts_and_genes

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
from .file import libraries_of, library_of, numbers_of, open_file, part_of, require_unique
from .picture import section_image, smaller_pictures
from .scale import um_per_px_of

ImageOf = Callable[[Sequence[str], np.ndarray], SlideImage]

LIBRARY_COLUMNS = ("library_id", "library", "batch", "sample", "region")
SECTION_COLUMNS = LIBRARY_COLUMNS[:-1]  # a region may be a part of one section


def read(
    slide_id: str,
    patient: str,
    path: Path,
    *,
    image: Path | ImageOf | None = None,
    library: str | None = None,
    label: str | None = None,
    layer: str | None = None,
    pitch_um: float | None = None,
) -> Slide:
    """Read one section, or the section ``library`` of several in one file; spots are in the file's order.

    ``layer`` says where the raw counts are: ``"X"``, ``"raw.X"`` or the name of a layer; else they are looked for.
    ``image`` is the full-resolution image, or makes it for names and centres of the spots; else the file that the
    object names is used where it exists, else the larger small image inside. ``label`` is the column of ``obs`` with a
    label per spot. ``pitch_um`` is the distance of neighbouring spots; without it that of Visium is taken where the
    array is Visium's, else the pixel size is unknown.
    """
    adata = open_file(path)
    libraries = libraries_of(adata.uns.get("spatial"))
    wanted, library = library, library_of(path, libraries, _in_obs(adata), library)
    if wanted is not None or len(libraries) > 1:
        adata = _section(path, adata, libraries, library)
    require_unique(path, adata, library)
    notes: list[str] = []
    centres = _centres(path, adata)
    keep = _in_tissue(path, adata)
    counts, genes = counts_and_genes(path, adata, layer, notes)
    content = libraries.get(library, {}) if library is not None else {}
    factors = numbers_of(part_of(content, "scalefactors"))
    array_xy = _array_xy(path, adata, centres, notes)
    _require_one_section(path, adata, array_xy, len(libraries), keep, notes)
    array_xy = array_xy[keep]
    spot_ids = [str(name) for name in adata.obs_names[keep]]
    given = image(spot_ids, centres[keep]) if callable(image) else image
    um_per_px, um_per_px_from = um_per_px_of(factors, array_xy, centres[keep], pitch_um)
    return assemble(
        slide_id,
        patient,
        counts=counts[np.flatnonzero(keep)],
        genes=genes,
        spot_ids=spot_ids,
        array_xy=array_xy,
        centres=centres[keep],
        image=section_image(path, given, content, factors),
        evidence=Evidence(smaller_pictures(path, content, factors)),
        um_per_px=um_per_px,
        um_per_px_from=um_per_px_from,
        # against places that are made up a diameter would seem too large
        spot_diameter_px=factors.get("spot_diameter_fullres") if _has_array(adata) else None,
        labels=_labels(path, adata, label, keep),
        notes=notes,
    )


def _in_obs(adata: AnnData) -> set[str]:
    """What columns of obs call the sections."""
    return {
        str(value) for column in SECTION_COLUMNS if column in adata.obs for value in adata.obs[column].dropna().unique()
    }


def _section(path: Path, adata: AnnData, libraries: Mapping[str, Any], library: str | None) -> AnnData:
    """The spots of ``library``, one of perhaps several sections in one object."""
    columns = [column for column in LIBRARY_COLUMNS if column in adata.obs]
    for column in (*columns, *_columns_of_libraries(adata, set(libraries), columns)):
        of_library = (adata.obs[column].astype(str) == library).to_numpy()
        if of_library.all():
            return adata
        if of_library.any():
            return adata[of_library].copy()
    if len(libraries) < 2:
        return adata
    named = [f"obs['{column}'] has {', '.join(_values(adata.obs[column]))}" for column in columns]
    raise UserError(
        f"{path} holds several sections, but no column of obs says which spots are of {library}"
        f"{' (' * bool(named)}{'; '.join(named)}{')' * bool(named)} - add one named {LIBRARY_COLUMNS[0]}"
    )


def _columns_of_libraries(adata: AnnData, libraries: set[str], but: Sequence[str]) -> list[str]:
    """Columns of obs of any name whose values are the keys of the libraries."""
    others = [column for column in adata.obs if column not in but and adata.obs[column].nunique() == len(libraries)]
    return [column for column in others if set(adata.obs[column].dropna().astype(str)) == libraries]


def _values(column: pd.Series) -> list[str]:
    """The distinct values of a column as text, the missing ones left out; at most six."""
    found = [str(value) for value in dict.fromkeys(column.dropna().astype(str))]
    return found if len(found) <= 6 else [*found[:6], "..."]


def _require_one_section(
    path: Path, adata: AnnData, array_xy: np.ndarray, n_libraries: int, keep: np.ndarray, notes: list[str]
) -> None:
    """Refuse sections that were joined under one image: their spots would be cut out of one and the same picture."""
    if n_libraries > 1:  # the spots of one of them were chosen
        return
    sections = {column: _values(adata.obs[column][keep]) for column in SECTION_COLUMNS if column in adata.obs}
    several = {column: values for column, values in sections.items() if len(values) > 1}
    if not several:
        return
    column, values = next(iter(several.items()))
    said = f"obs['{column}'] names several sections ({', '.join(values)})"
    n_twice = keep.sum() - len(np.unique(array_xy[keep], axis=0))
    if n_twice:
        raise UserError(
            f"{path}: {said} and {n_twice} of {keep.sum()} spots lie where another one lies on the array, but "
            "uns['spatial'] has one image, from which all would be cut - write one file per section, each with its own "
            "image, or one key of uns['spatial'] per section; or choose one with --library, and name its --image"
        )
    notes.append(
        f"{said}, but there is one image: if it does not show all of them, give each section a file of its own"
    )


def _centres(path: Path, adata: AnnData) -> np.ndarray:
    """(n_spots, 2) float64; NaN where a spot has no position."""
    import pandas as pd
    from scipy import sparse

    if "spatial" not in adata.obsm:
        raise UserError(f"{path} has no obsm['spatial'] - add the spots' pixel centres (x, y) at full resolution")
    given = adata.obsm["spatial"]
    if hasattr(given, "columns"):  # a table: its columns may say which is which
        given = _x_before_y(given)
    elif sparse.issparse(given):
        given = given.toarray()
    try:
        centres = np.asarray(given)
        if centres.dtype.kind == "O":  # nullable numbers
            centres = np.where(pd.isna(centres), np.nan, centres)
        if centres.dtype.kind not in "iufO" or centres.ndim != 2 or centres.shape[1] != 2:
            raise ValueError
        return centres.astype(np.float64)
    except (ValueError, TypeError) as error:
        form = f"{np.shape(given)} {np.asarray(given).dtype}"
        raise UserError(f"{path}: obsm['spatial'] is {form}, not (spots, 2) numbers - correct it") from error


def _x_before_y(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of a table of positions with x first, where their names say which that is."""
    x_names, y_names = (
        ("x", "pxl_col_in_fullres", "pixel_x", "imagecol"),
        ("y", "pxl_row_in_fullres", "pixel_y", "imagerow"),
    )
    lower = {str(name).lower(): name for name in table.columns}
    x, y = (next((lower[name] for name in names if name in lower), None) for names in (x_names, y_names))
    return table if x is None or y is None else table[[x, y]]


def _in_tissue(path: Path, adata: AnnData) -> np.ndarray:
    if "in_tissue" not in adata.obs:
        return np.ones(adata.n_obs, dtype=bool)
    keep = _integers(path, adata, "in_tissue") == 1
    if not keep.any():
        raise UserError(f"{path} has no spot under tissue (obs['in_tissue'] is never 1) - check that column")
    return keep


def _has_array(adata: AnnData) -> bool:
    return {"array_row", "array_col"} <= set(adata.obs) or indices_in_names(adata.obs_names) is not None


def _made_up(centres: np.ndarray) -> np.ndarray:
    """Places on an array for spots of which only the positions are known; those without one are named by the check."""
    placed = np.isfinite(centres).all(axis=1)
    array_xy = np.zeros((len(centres), 2), dtype=np.int64)
    array_xy[placed] = indices_of_positions(centres[placed])
    return array_xy


def _array_xy(path: Path, adata: AnnData, centres: np.ndarray, notes: list[str]) -> np.ndarray:
    """(n_spots, 2): array column, array row. First-generation names say it, whatever a converter wrote into obs."""
    columns = ("array_col", "array_row")
    named = indices_in_names(adata.obs_names)
    if named is None:
        if not set(columns) & set(adata.obs):
            notes.append("obs has no array_row and array_col: places on an array are made up from the positions")
            return _made_up(centres)
        if not set(columns) <= set(adata.obs):
            raise UserError(f"{path} lacks obs['array_row'] and obs['array_col'] - add the spots' indices on the array")
        return np.stack([_integers(path, adata, name) for name in columns], axis=1)
    if set(columns) <= set(adata.obs):
        given = np.stack([_as_float(adata.obs[name]) for name in columns], axis=1)
        if np.array_equal(given, named[:, ::-1]) and not np.array_equal(given, named):
            notes.append(
                "array_row holds x and array_col y, as HEST-1k writes them; the spots' names say which is which"
            )
        elif not np.array_equal(given, named):
            first = int(np.argmax((given != named).any(axis=1)))
            notes.append(
                f"array_row and array_col are not what the spots' names say (the first is {adata.obs_names[first]}); "
                "the names are taken"
            )
    return named


def _as_float(column: pd.Series) -> np.ndarray:
    """A column of obs as float64, be it nullable, categorical, logical or text; NaN where it is no number."""
    import pandas as pd

    logical = {"TRUE": 1, "True": 1, "true": 1, "FALSE": 0, "False": 0, "false": 0}
    values = [logical.get(value, value) if isinstance(value, str) else value for value in column.astype(object)]
    return pd.to_numeric(pd.Series(values, dtype=object), errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _integers(path: Path, adata: AnnData, column: str) -> np.ndarray:
    given = adata.obs[column]
    missing = given.isna().to_numpy()
    if missing.any():
        first = adata.obs_names[int(np.argmax(missing))]
        raise UserError(
            f"{path}: {missing.sum()} of {adata.n_obs} spots (the first is {first}) have no value in obs['{column}'] - "
            "leave them out, or complete the column"
        )
    values = _as_float(given)
    wrong = ~np.isfinite(values) | (values != np.rint(values))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise UserError(
            f"{path}: obs['{column}'] does not hold integers ({given.iloc[first]!s} for {adata.obs_names[first]}) - "
            "correct that column"
        )
    return values.astype(np.int64)


def _labels(path: Path, adata: AnnData, column: str | None, keep: np.ndarray) -> list[str | None] | None:
    if column is None:
        return None
    if column not in adata.obs:
        raise unknown(f"column of obs in {path}", column, map(str, adata.obs.columns))
    return [None if missing else _label(value) for value, missing in _with_missing(adata.obs[column][keep])]


def _with_missing(column: pd.Series) -> Iterator[tuple[Any, bool]]:
    return zip(column.astype(object), column.isna(), strict=True)


def _label(value: Any) -> str | None:
    """A label as text; clusters are numbers, and those of a column with gaps are floating point."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text or None
