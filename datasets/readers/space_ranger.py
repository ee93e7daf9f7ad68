"""The output folder of 10x Genomics' Space Ranger (Visium), of any version, with or without the full-resolution image.

Counts: a feature-barcode matrix as HDF5 (version 2 or 3) or as a folder of matrix, barcodes and features (1, 2 or 3
columns). Positions: a table with or without header, or parquet; its pixel **row** stands before its pixel **column**.
Files that end in ``.gz`` may be plain text and the other way round. Positions come from the pixel columns only: the
array may be rotated against the image.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from stbench.compressed import existing, locked_hdf5, open_binary, open_text
from stbench.errors import UserError
from stbench.geometry import Evidence, OffTissue
from stbench.image import Level, SlideImage
from stbench.scalars import as_number
from stbench.slide import Slide
from stbench.user_paths import unset_variables

from .assemble import assemble, require_counts, unique_symbols, unmatched
from .pitch import nearest_neighbour_pitch

if TYPE_CHECKING:
    import pandas as pd

VISIUM_PITCH_UM = 100.0  # centre to centre, hexagonal; spots are 55 µm wide

POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
POSITION_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
WHOLE = ("in_tissue", "array_row", "array_col")
_LOGICAL = {"TRUE": 1, "True": 1, True: 1, "FALSE": 0, "False": 0, False: 0}
MADE_BY_SPACE_RANGER = (
    "tissue_hires_image",
    "tissue_lowres_image",
    "aligned_fiducials",
    "aligned_tissue_image",
    "detected_tissue_image",
    "cytassist_image",
)
PICTURE_SUFFIXES = (".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg", ".svs", ".ndpi")


@dataclass(frozen=True)
class SpaceRangerFiles:
    """The files of one section, wherever they lie."""

    counts: Path  # .h5, or the folder of a matrix
    positions: Path
    scale_factors: Path
    image: Path
    level: Level
    smaller: Path | None = None  # the next smaller picture of the section, to check that the two belong together
    smaller_level: Level = "hires"
    barcodes: Path | None = None  # keep only these, in this order: for a raw matrix
    labels: Path | None = None  # a table with the barcode in its first column
    label_column: str | None = None
    passed_over: tuple[Path, ...] = ()  # pictures beside the matrix whose name does not say that they are the image

    @property
    def filtered(self) -> bool:
        """Whether the matrix is said to hold the spots under tissue alone."""
        return self.barcodes is not None or "filtered" in self.counts.name

    def paths(self) -> tuple[Path, ...]:
        """Every file that the slide depends on."""
        counts = _matrix_files(self.counts) if self.counts.is_dir() else (self.counts,)
        others = (self.positions, self.scale_factors, self.image, self.smaller, self.barcodes, self.labels)
        return (*counts, *(path for path in others if path is not None))


# --- finding -------------------------------------------------------------------------------------------------------


def find(folder: Path, image: Path | None = None) -> SpaceRangerFiles:
    """The files in ``folder``; ``image`` names the full-resolution one if it is not in there as ``[..]image.<tif|..>``.

    Raises ``UserError`` that names what is missing, and where there is such a folder near by.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"is not a folder: it does not exist{unset_variables(folder)}"
        raise UserError(f"{folder} {what} - give the output folder of Space Ranger")
    _point_to_the_right_folder(folder)
    spatial = _one(folder, ("spatial", "*_spatial"), "folder spatial/")
    full = image or _full_resolution(folder)
    found = from_parts(find_counts(folder), spatial, full)
    return found if full is not None else replace(found, passed_over=tuple(_pictures(folder)))


def _point_to_the_right_folder(folder: Path) -> None:
    """Refuse a folder that is not one section's output, where the right one lies near it, with its path."""
    if _is_output(folder):
        return
    for place in (folder, folder / "outs"):  # Visium HD bins its counts; each bin is laid out as a Visium section
        bins = place if place.name == "binned_outputs" else place / "binned_outputs"
        squares = [square for square in _folders(bins) if _is_output(square)]
        if squares:
            usual = next((square for square in squares if square.name == "square_016um"), squares[-1])
            raise UserError(
                f"{folder} is a Visium HD run ({_names(squares)}) - name one of its bins, for example {usual}"
            )
    inside = [place for place in (folder / "outs", *_folders(folder)) if _is_output(place)]
    inside = inside or [place / "outs" for place in _folders(folder) if _is_output(place / "outs")]
    inside = list(dict.fromkeys(inside)) or [place for place in [folder.absolute().parent] if _is_output(place)]
    if len(inside) == 1:
        raise UserError(f"{folder} is not the output folder of Space Ranger - did you mean {inside[0]}?")
    if inside:
        some = ", ".join(str(place) for place in inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise UserError(f"{folder} holds {len(inside)} sections ({some}) - name one, or list them in a manifest")


def _is_output(folder: Path) -> bool:
    """A place of positions and a matrix side by side, whatever they are called in full."""
    return folder.is_dir() and any(folder.glob("*spatial/")) and any(folder.glob("*bc_matri*"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def from_parts(
    counts: Path,
    spatial: Path,
    image: Path | None = None,
    barcodes: Path | None = None,
    labels: Path | None = None,
    label_column: str | None = None,
) -> SpaceRangerFiles:
    """The same for parts that do not lie in one folder. Without ``image`` the hires, else the lowres one is taken."""
    positions = _first(spatial, POSITIONS)
    if positions is None:
        raise UserError(
            f"{spatial} has no positions of spots (looked for {', '.join(POSITIONS)}) - complete the folder"
        )
    scale_factors = _first(spatial, ("scalefactors_json.json",))
    if scale_factors is None:
        raise UserError(f"{spatial} has no scalefactors_json.json - complete the folder")
    hires = _first(spatial, ("tissue_hires_image.png", "tissue_hires_image.jpg"))
    lowres = _first(spatial, ("tissue_lowres_image.png", "tissue_lowres_image.jpg"))
    level: Level = "full" if image is not None else "hires" if hires is not None else "lowres"
    chosen = image or hires or lowres
    if chosen is None:
        raise UserError(
            f"there is no image: {spatial} has neither tissue_hires_image.png nor tissue_lowres_image.png, and no "
            "full-resolution image lies beside it - add one of them"
        )
    smaller = (hires or lowres) if level == "full" else lowres if level == "hires" else None
    smaller_level: Level = "hires" if smaller is not None and smaller == hires else "lowres"
    return SpaceRangerFiles(
        counts, positions, scale_factors, chosen, level, smaller, smaller_level, barcodes, labels, label_column
    )


def find_counts(folder: Path) -> Path:
    """The filtered matrix in ``folder``, else the raw one; HDF5 before a folder of three files."""
    for kind in ("filtered", "raw"):
        files = sorted(folder.glob(f"*{kind}_feature_bc_matrix.h5")) + sorted(
            folder.glob(f"*{kind}_gene_bc_matrices_h5.h5")
        )
        if len(files) > 1:
            raise UserError(f"{folder} holds several matrices ({_names(files)}) - keep the one of this section")
        if files:
            return files[0]
        for name in (f"{kind}_feature_bc_matrix", f"{kind}_count_matrix"):
            if is_matrix_folder(folder / name):
                return folder / name
    raise UserError(
        f"{folder} has no counts (looked for filtered_feature_bc_matrix.h5 and filtered_feature_bc_matrix/) - add them"
    )


def is_matrix_folder(folder: Path) -> bool:
    return folder.is_dir() and all(_matrix_part(folder, names) for names in _MATRIX_PARTS)


_MATRIX_PARTS = (("matrix.mtx",), ("barcodes.tsv",), ("features.tsv", "genes.tsv"))


def _matrix_part(folder: Path, names: tuple[str, ...]) -> Path | None:
    return _first(folder, tuple(name + suffix for name in names for suffix in (".gz", "")))


def _matrix_files(folder: Path) -> tuple[Path, Path, Path]:
    parts = [_matrix_part(folder, names) for names in _MATRIX_PARTS]
    missing = [names[0] for names, part in zip(_MATRIX_PARTS, parts, strict=True) if part is None]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)} (each may end in .gz) - complete the folder")
    return cast(tuple[Path, Path, Path], tuple(parts))


def _full_resolution(folder: Path) -> Path | None:
    """A picture named ``image`` or ``..._image`` in the folder itself; those in spatial/ are never full resolution."""
    found = [path for path in _pictures(folder) if path.name.lower().split(".")[0].split("_")[-1] == "image"]
    if len(found) > 1:
        raise UserError(f"{folder} holds several full-resolution images ({_names(found)}) - keep one, or name it")
    return found[0] if found else None


def _pictures(folder: Path) -> list[Path]:
    """Pictures in the folder itself that Space Ranger did not make."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.lower().removesuffix(".gz").endswith(PICTURE_SUFFIXES)
        if path.name.lower().split(".")[0] not in MADE_BY_SPACE_RANGER
    ]


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _one(folder: Path, patterns: Sequence[str], what: str) -> Path:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]
    if not found:
        raise UserError(f"{folder} has no {what} - give the output folder of Space Ranger")
    if len(found) > 1:
        raise UserError(f"{folder} has several of what should be one {what} ({_names(found)}) - keep one")
    return found[0]


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)


# --- reading -------------------------------------------------------------------------------------------------------


def read(slide_id: str, patient: str, files: SpaceRangerFiles, *, pitch_um: float = VISIUM_PITCH_UM) -> Slide:
    """Read one section; spots are those under tissue, in the order of the matrix.

    Raises ``UserError`` for a file that is missing or malformed, or when the files do not belong together.
    """
    factors = read_scale_factors(files.scale_factors)
    matrix, barcodes, symbols = read_matrix(files.counts)
    notes: list[str] = []
    if files.barcodes is not None:
        matrix, barcodes = _only(matrix, barcodes, files.barcodes, files.counts)
    positions = read_positions(files.positions)
    rows = _join(barcodes, positions, files, notes)
    placed = positions.loc[[barcodes[row] for row in rows]]
    centres = placed[["pxl_col_in_fullres", "pxl_row_in_fullres"]].to_numpy(dtype=np.float64)
    genes, repeated = unique_symbols(symbols)
    if repeated:
        notes.append(f"{repeated} gene symbols repeat; the first of each keeps the name")
    if "regist_target_img_scalef" in factors and files.level != "full":
        notes.append("a CytAssist run: its small image may be the instrument's own, not H&E - look at it")
    if files.passed_over:
        notes.append(
            f"{_names(files.passed_over)} beside the matrix is not taken for the full-resolution image, as it is not "
            "called image.tif or ..._image.tif: name it with 'image' in a manifest if it is"
        )
    return assemble(
        slide_id,
        patient,
        counts=matrix[rows],
        genes=genes,
        spot_ids=[barcodes[row] for row in rows],
        array_xy=placed[["array_col", "array_row"]].to_numpy(dtype=np.int64),
        centres=centres,
        image=_image(files, factors),
        evidence=Evidence(_smaller(files, factors), _off_tissue(barcodes, positions, files)),
        um_per_px=_um_per_px(factors, centres, pitch_um),
        spot_diameter_px=factors.get("spot_diameter_fullres"),
        labels=None if files.labels is None else _labels(files, [barcodes[row] for row in rows]),
        notes=notes,
    )


def _join(barcodes: list[str], positions: pd.DataFrame, files: SpaceRangerFiles, notes: list[str]) -> list[int]:
    """Rows of the matrix that are spots under tissue."""
    in_tissue = dict(zip(positions.index.astype(str), positions["in_tissue"], strict=True))
    _require_one_section(barcodes, list(in_tissue), files)
    placed = [row for row, barcode in enumerate(barcodes) if barcode in in_tissue]
    if 2 * len(placed) < len(barcodes) or not placed:
        ours, theirs = unmatched(barcodes, list(in_tissue))
        raise UserError(
            f"only {len(placed)} of the {len(barcodes)} barcodes of {files.counts} have a position in "
            f"{files.positions} ({ours} there, {theirs} here) - the two files do not belong together"
        )
    rows = [row for row in placed if in_tissue[barcodes[row]] == 1]
    if not rows:
        raise UserError(f"{files.positions} has no spot under tissue (in_tissue is never 1) - check that column")
    if len(placed) < len(barcodes):
        notes.append(f"{len(barcodes) - len(placed)} of {len(barcodes)} barcodes have no position and are left out")
    uncounted = int((positions["in_tissue"] == 1).sum()) - len(rows)
    if uncounted:
        notes.append(f"{uncounted} spots under tissue have no counts and are left out")
    return rows


def _require_one_section(barcodes: list[str], placed: list[str], files: SpaceRangerFiles) -> None:
    """Refuse a matrix of several sections beside the positions of one.

    All sections have the same barcodes, so that the rows of another section would find positions too; ``spaceranger
    aggr`` tells sections apart by the number behind a barcode.
    """
    suffixes, known = _suffixes(barcodes), _suffixes(placed)
    if len(suffixes) > 1 and not set(suffixes) <= set(known):
        strange = next(barcode for barcode in barcodes if barcode.rpartition("-")[2] not in known)
        raise UserError(
            f"{files.counts} holds several sections (barcodes end in {_listed(suffixes)}), {files.positions} is of one "
            f"({_listed(known)}; {strange} has no position) - give the matrix of this section, from before 'aggr'"
        )


def _suffixes(barcodes: list[str]) -> list[str]:
    return list(dict.fromkeys(barcode.rpartition("-")[2] for barcode in barcodes if "-" in barcode))


def _listed(suffixes: list[str]) -> str:
    named = [f"-{suffix}" for suffix in suffixes[:6]] + ["..."] * (len(suffixes) > 6)
    return ", ".join(named) or "nothing"


def _image(files: SpaceRangerFiles, factors: dict[str, float]) -> SlideImage:
    if files.level != "full":
        scale = _factor(factors, f"tissue_{files.level}_scalef", files.scale_factors)
        return SlideImage.from_file(files.image, scale, files.level)
    return SlideImage.from_file(files.image)


def _smaller(files: SpaceRangerFiles, factors: dict[str, float]) -> tuple[SlideImage, ...]:
    """The next smaller picture of the section, where its scale is known."""
    scale = factors.get(f"tissue_{files.smaller_level}_scalef", 0.0)
    if files.smaller is None or not (np.isfinite(scale) and scale > 0):
        return ()
    return (SlideImage.from_file(files.smaller, scale, files.smaller_level),)


def _off_tissue(barcodes: list[str], positions: pd.DataFrame, files: SpaceRangerFiles) -> OffTissue | None:
    """Barcodes of a filtered matrix that should not be in it. Those without any position have been counted before."""
    if not files.filtered:
        return None
    off = positions.index[positions["in_tissue"] != 1].intersection(barcodes)
    return OffTissue(len(off), len(barcodes), str(files.counts), str(files.positions))


def _um_per_px(factors: dict[str, float], centres: np.ndarray, pitch_um: float) -> float | None:
    if "microns_per_pixel" in factors:  # Visium HD says it
        return factors["microns_per_pixel"]
    pitch_px = nearest_neighbour_pitch(centres)
    return None if pitch_px is None else pitch_um / pitch_px


def read_scale_factors(path: Path) -> dict[str, float]:
    """The numbers in ``scalefactors_json.json``, be they written as texts or as lists of one (R writes both)."""
    with open_text(path) as text:
        try:
            content = json.load(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path} is not valid JSON ({error}) - fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no scale factors (not a JSON object) - fetch it again")
    numbers = {name: as_number(value) for name, value in content.items()}
    return {name: number for name, number in numbers.items() if number is not None}  # newer versions also record names


def _factor(factors: dict[str, float], name: str, path: Path) -> float:
    value = factors.get(name)
    if value is None or not (np.isfinite(value) and value > 0):
        raise UserError(f"{path} has no usable {name} (it says {value}) - without it the image has no known scale")
    return value


def read_positions(path: Path) -> pd.DataFrame:
    """Positions of all spots of the array, indexed by barcode, with the columns of ``POSITION_COLUMNS``."""
    import pandas as pd

    with open_binary(existing(path)) as stream:
        parquet = stream.read(4) == b"PAR1"
    if parquet:
        try:
            frame = pd.read_parquet(path)
        except (OSError, ValueError) as error:
            raise UserError(f"{path} is a damaged parquet file ({_one_line(error)}) - fetch it again") from error
        if frame.index.name == "barcode":  # pandas puts a column that was its index back there
            frame = frame.reset_index()
    else:
        frame = _positions_table(path)
    missing = [name for name in POSITION_COLUMNS if name not in frame]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)} - it needs {', '.join(POSITION_COLUMNS)}")
    for name in POSITION_COLUMNS[1:]:
        numbers = pd.to_numeric(frame[name].map(lambda value: _LOGICAL.get(value, value)), errors="coerce")
        wrong = numbers.isna()
        if wrong.any():
            first, value = frame["barcode"][wrong].iloc[0], frame[name][wrong].iloc[0]
            raise UserError(
                f"{path}: {name} of {first} is not a number ({value!s}) - correct it or fetch the file again"
            )
        if name in WHOLE:
            wrong = numbers != numbers.round()
            if name == "in_tissue":
                wrong |= ~numbers.isin([0, 1])
            if wrong.any():
                first, value = frame["barcode"][wrong].iloc[0], frame[name][wrong].iloc[0]
                form = "0 or 1" if name == "in_tissue" else "an integer"
                raise UserError(f"{path}: {name} of {first} is {value!s}, not {form} - the columns may be exchanged")
            numbers = numbers.astype("int64")
        frame[name] = numbers
    if frame["barcode"].duplicated().any():
        twice = frame["barcode"][frame["barcode"].duplicated()].iloc[0]
        raise UserError(f"{path} names the spot {twice} more than once - each barcode must stand there once")
    return frame.set_index(frame["barcode"].astype(str))


def _positions_table(path: Path) -> pd.DataFrame:
    """Old versions write no header, new ones do, and the name does not say which: the first line does."""
    import pandas as pd

    with open_text(path) as text:
        fields = [field.strip() for field in next(csv.reader([text.readline()]), [])]
        headed = set(POSITION_COLUMNS) <= set(fields)  # further columns do no harm
        if not headed and len(fields) != len(POSITION_COLUMNS):
            raise UserError(
                f"{path} is not a table of positions (its first line has {len(fields)} fields separated by commas) - "
                f"it needs {', '.join(POSITION_COLUMNS)}"
            )
        # by the positions: in_tissue may be 1, 1.0, TRUE, with or without quotes
        headless = all(as_number(field) is not None for field in fields[2:])
        text.seek(0)
        try:
            if headless:
                return pd.read_csv(
                    text, header=None, names=POSITION_COLUMNS, skipinitialspace=True, converters={"barcode": str.strip}
                )
            return pd.read_csv(text, skipinitialspace=True, converters={"barcode": str.strip}).rename(columns=str.strip)
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            raise UserError(f"{path} is not a table ({_one_line(error)}) - fetch it again") from error


def _only(matrix: Any, barcodes: list[str], chosen: Path, counts: Path) -> tuple[Any, list[str]]:
    """The rows named in the file ``chosen``, in its order."""
    wanted = _lines(chosen)
    row = {barcode: position for position, barcode in enumerate(barcodes)}
    absent = [barcode for barcode in wanted if barcode not in row]
    if absent:
        raise UserError(
            f"{len(absent)} of the {len(wanted)} barcodes of {chosen}, the first is {absent[0]}, are not in {counts} "
            f"(which has {unmatched(barcodes, wanted)[0]}) - the two do not belong together"
        )
    return matrix[[row[barcode] for barcode in wanted]], wanted


def _labels(files: SpaceRangerFiles, barcodes: list[str]) -> list[str | None]:
    import pandas as pd

    assert files.labels is not None
    with open_text(files.labels) as text:
        separator = "\t" if "\t" in text.readline() else ","
        text.seek(0)
        frame = pd.read_csv(text, sep=separator, dtype=str, keep_default_na=False)
        frame = frame.set_index(frame.columns[0])
    if files.label_column not in frame:
        raise UserError(
            f"{files.labels} has no column '{files.label_column}' (but {', '.join(map(str, frame.columns))}) - name one"
        )
    column = frame[files.label_column]
    label = {str(name): value.strip() for name, value in column.items() if value.strip()}
    if label.keys().isdisjoint(barcodes):
        ours, theirs = unmatched(barcodes, list(label))
        raise UserError(
            f"{files.labels} labels none of the section's spots (they are named as {ours}, its rows {theirs}) - "
            "it belongs to another section"
        )
    return [label.get(barcode) for barcode in barcodes]


# --- matrices ------------------------------------------------------------------------------------------------------


def read_matrix(path: Path) -> tuple[Any, list[str], list[str]]:
    """Counts (CSR, spots x genes), barcodes and gene symbols of the features that are gene expression."""
    if path.is_dir():
        matrix, barcodes, symbols, kinds = _read_mex(*_matrix_files(path))
    else:
        matrix, barcodes, symbols, kinds = _read_h5(path)
    require_counts(matrix.data, str(path))
    if len(set(barcodes)) < len(barcodes):
        seen: set[str] = set()
        twice = next(one for one in barcodes if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: barcodes occur more than once (the first is {twice}) - each must stand there once")
    if kinds is not None:
        expression = [column for column, kind in enumerate(kinds) if kind == "Gene Expression"]
        if not expression:
            raise UserError(f"{path} has no feature of type 'Gene Expression' - it is not a matrix of genes")
        matrix, symbols = matrix[:, expression], [symbols[column] for column in expression]
    return matrix, barcodes, symbols


def _read_mex(matrix_path: Path, barcodes_path: Path, features_path: Path) -> tuple[Any, list[str], list[str], Any]:
    from scipy import sparse
    from scipy.io import mmread

    barcodes = [line.strip('"') for line in _lines(barcodes_path)]
    rows = [[field.strip('"') for field in line.split("\t")] for line in _lines(features_path)]
    widths = {len(row) for row in rows}
    if len(widths) > 1 or max(widths) > 6:
        raise UserError(
            f"{features_path} has rows of {sorted(widths)} columns - it must have the same 1, 2 or 3 throughout"
        )
    symbols = [row[0] if len(row) == 1 else row[1] for row in rows]  # one column: symbols only
    kinds = [row[2] for row in rows] if max(widths) >= 3 else None
    with open_binary(existing(matrix_path)) as stream:
        try:
            matrix = sparse.csr_matrix(mmread(stream).T)
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            raise UserError(
                f"{matrix_path} is not a Matrix Market file ({_one_line(error)}) - fetch it again"
            ) from error
    if matrix.shape != (len(barcodes), len(symbols)):
        if matrix.shape == (len(symbols), len(barcodes)):
            raise UserError(f"{matrix_path} has barcodes as rows - transpose it: features are rows, barcodes columns")
        raise UserError(
            f"{matrix_path} is {matrix.shape[1]} x {matrix.shape[0]}, but there are {len(symbols)} features in "
            f"{features_path.name} and {len(barcodes)} barcodes in {barcodes_path.name} - they do not belong together"
        )
    return matrix, barcodes, symbols, kinds


def _lines(path: Path) -> list[str]:
    with open_text(existing(path)) as text:
        lines = [line.rstrip("\r\n") for line in text]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise UserError(f"{path} has no lines - fetch it again")
    return lines


def _read_h5(path: Path) -> tuple[Any, list[str], list[str], Any]:
    import h5py
    from scipy import sparse

    existing(path)
    try:
        with h5py.File(path, "r") as file:
            group, symbols, kinds = _h5_features(path, file)
            n_genes, n_barcodes = (int(length) for length in group["shape"][:])
            barcodes = _strings(group["barcodes"])
            # genes x barcodes by columns is barcodes x genes by rows
            arrays = (group["data"][:], group["indices"][:], group["indptr"][:])
            matrix = sparse.csr_matrix(arrays, shape=(n_barcodes, n_genes))
    except BlockingIOError as error:
        raise locked_hdf5(path) from error
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is not a feature-barcode matrix in HDF5 ({_one_line(error)}) - fetch it again"
        ) from error
    if len(barcodes) != n_barcodes or len(symbols) != n_genes:
        raise UserError(
            f"{path}: {n_genes} x {n_barcodes} counts do not fit its lists of genes and barcodes - fetch it again"
        )
    return matrix, barcodes, symbols, kinds


def _h5_features(path: Path, file: Any) -> tuple[Any, list[str], list[str] | None]:
    if "matrix" in file:
        group = file["matrix"]
        features = group["features"]
        kinds = _strings(features["feature_type"]) if "feature_type" in features else None
        return group, _strings(features["name"]), kinds
    genomes = [name for name in file if "gene_names" in file[name]]
    if len(genomes) != 1:
        what = f"several genomes ({', '.join(genomes)})" if genomes else "no group 'matrix'"
        raise UserError(f"{path} has {what} - give the filtered_feature_bc_matrix.h5 of one genome")
    return file[genomes[0]], _strings(file[genomes[0]]["gene_names"]), None


def _strings(dataset: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
