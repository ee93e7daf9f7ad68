"""A section stored as AnnData (``.h5ad``) in the convention that scanpy and squidpy share for Visium.

``obsm["spatial"]`` are (x, y) in full-resolution pixels, ``uns["spatial"][library]`` holds small images and their
scales. ``X`` may hold anything, so raw counts are looked for, never guessed.

Such files are written from R too (anndataR, zellkonverter), where a single number or text is a vector of one, and by
versions of anndata and squidpy that write ``None``, nullable columns, and rows of NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.colour import Colours, eight_bits
from stbench.compressed import existing, is_gzipped, locked_hdf5
from stbench.errors import UserError, unknown
from stbench.geometry import Evidence
from stbench.image import Level, SlideImage
from stbench.scalars import as_number, as_text
from stbench.slide import Slide
from stbench.spot_names import indices_in_names
from stbench.user_paths import expanded

from .assemble import assemble
from .h5ad_counts import counts_and_genes
from .pitch import nearest_neighbour_pitch
from .space_ranger import VISIUM_PITCH_UM

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

LIBRARY_COLUMNS = ("library_id", "library", "batch", "sample", "region")
SECTION_COLUMNS = LIBRARY_COLUMNS[:-1]  # a region may be a part of one section
IN_LIBRARY = ("images", "scalefactors", "metadata")
# the last is HEST-1k's name for its only small image
EMBEDDED: tuple[tuple[str, Level], ...] = (("hires", "hires"), ("lowres", "lowres"), ("downscaled_fullres", "lowres"))


def read(
    slide_id: str,
    patient: str,
    path: Path,
    *,
    image: Path | None = None,
    library: str | None = None,
    label: str | None = None,
    layer: str | None = None,
    pitch_um: float | None = None,
) -> Slide:
    """Read one section, or the section ``library`` of several in one file; spots are in the file's order.

    ``layer`` says where the raw counts are: ``"X"``, ``"raw.X"`` or the name of a layer; else they are looked for.
    ``image`` is the full-resolution image; else the file that the object names is used where it exists, else the larger
    small image inside. ``label`` is the column of ``obs`` with a label per spot. ``pitch_um`` is the distance of
    neighbouring spots; without it that of Visium is taken where the array is Visium's, else the pixel size is unknown.
    """
    adata = _open(path)
    libraries = _libraries(adata.uns.get("spatial"))
    library = _library(path, libraries, library)
    adata = _section(path, adata, libraries, library)
    notes: list[str] = []
    centres = _centres(path, adata)
    keep = _in_tissue(path, adata)
    counts, genes = counts_and_genes(path, adata, layer, notes)
    content = libraries.get(library, {}) if library is not None else {}
    factors = _numbers(_part(content, "scalefactors"))
    array_xy = _array_xy(path, adata, notes)
    _require_one_section(path, adata, array_xy, len(libraries), keep, notes)
    array_xy = array_xy[keep]
    return assemble(
        slide_id,
        patient,
        counts=counts[np.flatnonzero(keep)],
        genes=genes,
        spot_ids=[str(name) for name in adata.obs_names[keep]],
        array_xy=array_xy,
        centres=centres[keep],
        image=_image(path, image, content, factors),
        evidence=Evidence(_smaller(path, content, factors)),
        um_per_px=_um_per_px(factors, array_xy, centres[keep], pitch_um),
        spot_diameter_px=factors.get("spot_diameter_fullres"),
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
        libraries = _libraries(file.get("uns/spatial"))
        section = libraries.get(library if library is not None else next(iter(libraries), ""), {})
        named = _part(section, "metadata").get("source_image_path")
        if isinstance(named, h5py.Dataset):
            named = None if named.shape is None else named[()]  # a dataset without a shape is how None is written
        return _beside(path, as_text(named))


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    import h5py

    if not h5py.is_hdf5(existing(path)):
        packed = " (it is gzipped: unpack it)" if is_gzipped(path) else ""
        raise UserError(f"{path} is not an .h5ad file (not HDF5) - give a file written by AnnData{packed}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except BlockingIOError as error:
        raise locked_hdf5(path) from error
    except OSError as error:
        raise UserError(f"{path} is damaged ({' '.join(str(error).split())[:200]}) - fetch it again") from error


def _beside(path: Path, named: str | None) -> Path | None:
    """The file as named, or one of that name beside the object: paths of another machine lead nowhere here."""
    if named is None:
        return None
    # an absolute path stays what it is
    places = (path.parent / expanded(named), path.parent / PureWindowsPath(named).name)
    return next((place for place in places if place.is_file()), None)


def _libraries(spatial: Any, prefix: str = "") -> dict[str, Mapping[str, Any]]:
    """The sections of ``uns["spatial"]``, in memory or still in the file, by their keys.

    A key with a slash was written as one group inside another, ``a/b``.
    """
    libraries: dict[str, Mapping[str, Any]] = {}
    for name, content in spatial.items() if isinstance(spatial, Mapping) else ():
        if not isinstance(content, Mapping):
            continue  # CELLxGENE's flag is_single stands beside the library
        inner = {} if any(part in content for part in IN_LIBRARY) else _libraries(content, f"{prefix}{name}/")
        libraries |= inner or {f"{prefix}{name}": content}
    return libraries


def _part(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping inside a library; empty where there is none, or ``None``."""
    part = content.get(name)
    return part if isinstance(part, Mapping) else {}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of ``values`` that are one number each, be it written as text or as a vector of one."""
    numbers = {}
    for name, value in values.items():
        number = as_number(value)
        if number is not None:
            numbers[name] = number
    return numbers


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
    columns = [column for column in LIBRARY_COLUMNS if column in adata.obs]
    for column in columns:
        of_library = adata.obs[column].astype(str).to_numpy() == library
        if of_library.any():
            return adata[of_library].copy()
    named = [f"obs['{column}'] has {', '.join(_values(adata.obs[column]))}" for column in columns]
    raise UserError(
        f"{path} holds several sections, but no column of obs says which spots are of {library}"
        f"{' (' * bool(named)}{'; '.join(named)}{')' * bool(named)} - add one named {LIBRARY_COLUMNS[0]}"
    )


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
            "image, or one key of uns['spatial'] per section"
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


def _array_xy(path: Path, adata: AnnData, notes: list[str]) -> np.ndarray:
    """(n_spots, 2): array column, array row. First-generation names say it, whatever a converter wrote into obs."""
    columns = ("array_col", "array_row")
    named = indices_in_names(adata.obs_names)
    if named is None:
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


def _image(path: Path, given: Path | None, content: Mapping[str, Any], factors: Mapping[str, float]) -> SlideImage:
    if given is not None:
        return SlideImage.from_file(given)
    named = as_text(_part(content, "metadata").get("source_image_path"))
    source = _beside(path, named)
    if source is not None:
        return SlideImage.from_file(source)
    images = _part(content, "images")
    for name, level in EMBEDDED:
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


def _smaller(path: Path, content: Mapping[str, Any], factors: Mapping[str, float]) -> tuple[SlideImage, ...]:
    """The images inside the file, largest first, that are sound and of a known scale: to check the chosen one by."""
    images = _part(content, "images")
    found = []
    for name, level in EMBEDDED:
        array, scale = np.asarray(images.get(name, ())), factors.get(f"tissue_{name}_scalef", 0.0)
        if _is_colour(array) and np.isfinite(scale) and scale > 0:
            found.append(SlideImage.from_array(_eight_bits(path, name, array), scale, level))
    return tuple(found)


def _is_colour(array: np.ndarray) -> bool:
    """Whether an embedded image is what :func:`_eight_bits` takes."""
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.size == 0:
        return False
    return array.dtype == np.uint8 or (array.dtype.kind == "f" and bool(array.min() >= 0 and array.max() <= 1))


def _eight_bits(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """RGB, 8 bits, transparent parts white: embedded images are uint8, or floating point from 0 to 1."""
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2))
        what = f"the shape {array.shape}" + (" (greyscale)" if grey else "")
        raise UserError(f"{path}: the {name} image has {what}, not (height, width, 3) - replace it")
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        array = eight_bits(array, 1.0)
    if array.dtype != np.uint8:
        raise UserError(
            f"{path}: the {name} image is {array.dtype} up to {array.max():g}, neither uint8 nor 0 to 1 - convert it"
        )
    return Colours(alpha="unassociated" if array.shape[2] == 4 else None).rgb(array)


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
    return [None if missing else _label(value) for value, missing in _with_missing(adata.obs[column][keep])]


def _with_missing(column: pd.Series) -> Iterator[tuple[Any, bool]]:
    return zip(column.astype(object), column.isna(), strict=True)


def _label(value: Any) -> str | None:
    """A label as text; clusters are numbers, and those of a column with gaps are floating point."""
    text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    return text or None
