"""A section stored as AnnData (``.h5ad``) in the convention that scanpy and squidpy share for Visium.

``obsm["spatial"]`` are (x, y) in full-resolution pixels, ``uns["spatial"][library]`` holds small images and their
scales. ``X`` may hold anything, so raw counts are looked for, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.compressed import existing
from stbench.errors import UserError, unknown
from stbench.image import Level, SlideImage
from stbench.slide import Slide, count_fault

from .assemble import assemble, unique_symbols
from .legacy_st import SPOT_NAME
from .pitch import nearest_neighbour_pitch
from .space_ranger import VISIUM_PITCH_UM

if TYPE_CHECKING:
    from anndata import AnnData

LIBRARY_COLUMNS = ("library_id", "library", "batch", "sample", "region")
SYMBOL_COLUMNS = ("gene_name", "feature_name", "gene_symbols", "gene_symbol", "symbol")


def read(
    slide_id: str,
    patient: str,
    path: Path,
    *,
    image: Path | None = None,
    library: str | None = None,
    label: str | None = None,
    pitch_um: float | None = None,
) -> Slide:
    """Read one section, or the section ``library`` of several in one file; spots are in the file's order.

    ``image`` is the full-resolution image; else the file that the object names is used where it exists, else the larger
    small image inside. ``label`` is the column of ``obs`` with a label per spot. ``pitch_um`` is the distance of
    neighbouring spots; without it that of Visium is taken where the array is Visium's, else the pixel size is unknown.
    """
    adata = _open(path)
    spatial = adata.uns.get("spatial", {})
    libraries = {name: content for name, content in spatial.items() if isinstance(content, Mapping)}
    library = _library(path, libraries, library)
    adata = _section(path, adata, libraries, library)
    notes: list[str] = []
    centres = _centres(path, adata)
    keep = _in_tissue(path, adata)
    counts, names, where = _counts(path, adata)
    if where != "X":
        notes.append(f"raw counts are taken from {where}; X holds something else")
    genes = _genes(adata, names, notes)
    content = libraries.get(library, {}) if library is not None else {}
    factors = {name: float(value) for name, value in dict(content.get("scalefactors", {})).items() if _is_number(value)}
    array_xy = _array_xy(path, adata)[keep]
    diameter = factors.get("spot_diameter_fullres")
    return assemble(
        slide_id,
        patient,
        counts=counts[np.flatnonzero(keep)],
        genes=genes,
        spot_ids=[str(name) for name in adata.obs_names[keep]],
        array_xy=array_xy,
        centres=centres[keep],
        image=_image(path, image, content, factors),
        um_per_px=_um_per_px(factors, array_xy, centres[keep], pitch_um),
        spot_diameter_px=diameter,
        labels=_labels(path, adata, label, keep),
        notes=notes,
    )


def _open(path: Path) -> AnnData:
    import anndata

    with _hdf5(path):
        pass
    try:
        adata = anndata.read_h5ad(path)
    except Exception as error:  # what anndata raises for an encoding that it does not know is private to it
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} cannot be read as AnnData ({reason}) - write it again with anndata") from error
    if adata.n_obs == 0 or adata.n_vars == 0:
        raise UserError(f"{path} has {adata.n_obs} spots and {adata.n_vars} genes - give a file with both")
    if not adata.obs_names.is_unique:
        twice = adata.obs_names[adata.obs_names.duplicated()][0]
        raise UserError(f"{path} names the spot {twice} more than once - make obs_names unique")
    return adata


def named_image(path: Path, library: str | None = None) -> Path | None:
    """The image file that the object names as its source, if it is there; reads no counts."""
    import h5py

    with _hdf5(path) as file:
        spatial = file.get("uns/spatial")
        if not isinstance(spatial, h5py.Group):
            return None
        libraries = [name for name, content in spatial.items() if isinstance(content, h5py.Group)]
        section = spatial.get(library if library is not None else next(iter(libraries), ""))
        named = section.get("metadata/source_image_path") if isinstance(section, h5py.Group) else None
        return None if named is None else _beside(path, named.asstr()[()])


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    import h5py

    if not h5py.is_hdf5(existing(path)):
        raise UserError(f"{path} is not an .h5ad file (not HDF5) - give a file written by AnnData")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:200]}) - fetch it again") from error


def _beside(path: Path, named: str) -> Path | None:
    source = path.parent / named  # an absolute path stays what it is
    return source if source.is_file() else None


def _library(path: Path, libraries: Mapping[str, Any], wanted: str | None) -> str | None:
    if wanted is not None:
        if wanted not in libraries:
            raise unknown(f"library in {path}", wanted, libraries)
        return wanted
    if len(libraries) > 1:
        raise UserError(
            f"{path} holds several sections ({', '.join(sorted(libraries))}) - "
            "name one of them with 'library' in a manifest, one [[slide]] each"
        )
    return next(iter(libraries), None)


def _section(path: Path, adata: AnnData, libraries: Mapping[str, Any], library: str | None) -> AnnData:
    """The spots of ``library``: all, unless there are several sections in one object."""
    if len(libraries) < 2:
        return adata
    for column in LIBRARY_COLUMNS:
        if column in adata.obs:
            of_library = adata.obs[column].astype(str).to_numpy() == library
            if of_library.any():
                return adata[of_library].copy()
    raise UserError(
        f"{path} holds several sections, but no column of obs says which spots are of {library} - "
        f"add one named {LIBRARY_COLUMNS[0]}"
    )


def _centres(path: Path, adata: AnnData) -> np.ndarray:
    if "spatial" not in adata.obsm:
        raise UserError(f"{path} has no obsm['spatial'] - add the spots' pixel centres (x, y) at full resolution")
    centres = np.asarray(adata.obsm["spatial"])
    if centres.ndim != 2 or centres.shape[1] != 2 or centres.dtype.kind not in "iuf":
        raise UserError(
            f"{path}: obsm['spatial'] is {centres.shape} {centres.dtype}, not (spots, 2) numbers - correct it"
        )
    return centres.astype(np.float64)


def _in_tissue(path: Path, adata: AnnData) -> np.ndarray:
    if "in_tissue" not in adata.obs:
        return np.ones(adata.n_obs, dtype=bool)
    keep = _integers(path, adata, "in_tissue") == 1
    if not keep.any():
        raise UserError(f"{path} has no spot under tissue (obs['in_tissue'] is never 1) - check that column")
    return keep


def _array_xy(path: Path, adata: AnnData) -> np.ndarray:
    """(n_spots, 2): array column, array row. First-generation names say it, whatever a converter wrote into obs."""
    matches = [SPOT_NAME.fullmatch(str(name)) for name in adata.obs_names]
    if all(matches):
        return np.array([[int(match[1]), int(match[2])] for match in matches if match is not None], dtype=np.int64)
    if "array_col" not in adata.obs or "array_row" not in adata.obs:
        raise UserError(f"{path} lacks obs['array_row'] and obs['array_col'] - add the spots' indices on the array")
    return np.stack([_integers(path, adata, name) for name in ("array_col", "array_row")], axis=1)


def _integers(path: Path, adata: AnnData, column: str) -> np.ndarray:
    import pandas as pd

    values = pd.to_numeric(adata.obs[column].astype(object), errors="coerce").to_numpy(dtype=np.float64)
    if not np.array_equal(values, np.rint(values)):  # NaN is unequal to itself
        raise UserError(f"{path}: obs['{column}'] does not hold integers - correct that column")
    return values.astype(np.int64)


def _counts(path: Path, adata: AnnData) -> tuple[Any, list[str], str]:
    """The first of X, layers["counts"], layers["raw"], raw.X that holds non-negative integers."""
    from scipy import sparse

    candidates = {"X": (adata.X, adata.var_names)}
    candidates |= {
        f"layers['{name}']": (adata.layers[name], adata.var_names) for name in ("counts", "raw") if name in adata.layers
    }
    if adata.raw is not None:
        candidates["raw.X"] = (adata.raw.X, adata.raw.var_names)
    faults = []
    for where, (matrix, names) in candidates.items():
        if matrix is None:
            continue
        values = matrix.data if sparse.issparse(matrix) else np.asarray(matrix)
        fault = count_fault(values)
        if fault is None:
            return sparse.csr_matrix(matrix), [str(name) for name in names], where
        faults.append(f"{where}: {fault}")
    raise UserError(
        f"{path} holds no raw counts ({'; '.join(faults) or 'X is empty'}) - "
        "put non-negative integers into X or layers['counts']"
    )


def _genes(adata: AnnData, names: list[str], notes: list[str]) -> list[str]:
    """Unique gene symbols; Ensembl identifiers are replaced where the object says their symbols."""
    if 2 * sum(name.startswith("ENS") for name in names) > len(names):
        for column in SYMBOL_COLUMNS:
            if column in adata.var and len(names) == adata.n_vars:
                symbols = adata.var[column].astype(object)
                names = [
                    str(symbol) if isinstance(symbol, str) and symbol else name
                    for symbol, name in zip(symbols, names, strict=True)
                ]
                notes.append(f"genes are named by var['{column}'] instead of their Ensembl identifiers")
                break
    genes, repeated = unique_symbols(names)
    if repeated:
        notes.append(f"{repeated} gene symbols repeat; the first of each keeps the name")
    return genes


def _image(path: Path, given: Path | None, content: Mapping[str, Any], factors: Mapping[str, float]) -> SlideImage:
    if given is not None:
        return SlideImage.from_file(given)
    named = dict(content.get("metadata", {})).get("source_image_path")
    source = None if named is None else _beside(path, str(named))
    if source is not None:
        return SlideImage.from_file(source)
    images = dict(content.get("images", {}))
    # the last is HEST-1k's name for its only small image
    choices: tuple[tuple[str, Level], ...] = (
        ("hires", "hires"),
        ("lowres", "lowres"),
        ("downscaled_fullres", "lowres"),
    )
    for name, level in choices:
        if name in images and np.size(images[name]):
            scale = factors.get(f"tissue_{name}_scalef")
            if scale is None:
                raise UserError(
                    f"{path} has a {name} image but no tissue_{name}_scalef - without it its scale is unknown"
                )
            return SlideImage.from_array(_eight_bits(path, name, np.asarray(images[name])), scale, level)
    missing = f"; the image that it names, {named}, is not there" if named is not None else ""
    raise UserError(
        f"{path} holds no image in uns['spatial']{missing} - name the full-resolution image with 'image' in a manifest"
    )


def _eight_bits(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """RGB, 8 bits: embedded images are uint8, or floating point from 0 to 1."""
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        raise UserError(f"{path}: the {name} image has the shape {array.shape}, not (height, width, 3) - replace it")
    array = array[..., :3]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        return np.rint(array * 255).astype(np.uint8)
    raise UserError(
        f"{path}: the {name} image is {array.dtype} up to {array.max():g}, neither uint8 nor 0 to 1 - convert it"
    )


def _um_per_px(
    factors: Mapping[str, float], array_xy: np.ndarray, centres: np.ndarray, pitch_um: float | None
) -> float | None:
    if "microns_per_pixel" in factors:
        return factors["microns_per_pixel"]
    pitch_px = nearest_neighbour_pitch(centres)
    if pitch_px is None:
        return None
    if pitch_um is not None:
        return pitch_um / pitch_px
    diameter = factors.get("spot_diameter_fullres", 0.0)
    hexagonal = bool((array_xy.sum(axis=1) % 2 == 0).all())
    # Space Ranger states a diameter of 55 to 65 µm at 100 µm pitch
    is_visium = hexagonal and diameter > 0 and 1.4 < pitch_px / diameter < 2.0
    return VISIUM_PITCH_UM / pitch_px if is_visium else None


def _labels(path: Path, adata: AnnData, column: str | None, keep: np.ndarray) -> list[str | None] | None:
    if column is None:
        return None
    if column not in adata.obs:
        raise unknown(f"column of obs in {path}", column, map(str, adata.obs.columns))
    values = adata.obs[column].astype(object)[keep]
    return [value if isinstance(value, str) else None for value in values]


def _is_number(value: Any) -> bool:
    return np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf"
