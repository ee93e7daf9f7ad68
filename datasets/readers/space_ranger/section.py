"""A section of a Space Ranger run: spots from its table of positions, counts from its matrix, and its best picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.slides.evidence import Evidence, OffTissue
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide
from stbench.system.compressed import existing, open_binary, open_text
from stbench.system.scalars import as_number

from ..assemble import assemble, unique_symbols, unmatched
from ..pitch import nearest_neighbour_pitch

if TYPE_CHECKING:
    import pandas as pd
from .files import SpaceRangerFiles, named_files
from .matrix import only_chosen, read_matrix

VISIUM_PITCH_UM = 100.0  # centre to centre, hexagonal; spots are 55 µm wide

POSITION_COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
WHOLE = ("in_tissue", "array_row", "array_col")
_LOGICAL = {"TRUE": 1, "True": 1, True: 1, "FALSE": 0, "False": 0, False: 0}


def read(slide_id: str, patient: str, files: SpaceRangerFiles, *, pitch_um: float = VISIUM_PITCH_UM) -> Slide:
    """Read one section; spots are those under tissue, in the order of the matrix.

    Raises ``UserError`` for a file that is missing or malformed, or when the files do not belong together.
    """
    factors = read_scale_factors(files.scale_factors)
    matrix, barcodes, symbols = read_matrix(files.counts)
    notes: list[str] = []
    if files.barcodes is not None:
        matrix, barcodes = only_chosen(matrix, barcodes, files.barcodes, files.counts)
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
            f"{named_files(files.passed_over)} beside the matrix is not taken for the full-resolution image: it is not "
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
        um_per_px_from=(
            "microns_per_pixel of scalefactors_json.json"
            if "microns_per_pixel" in factors
            else f"the spots' pitch of {pitch_um:g} µm"
        ),
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
            raise UserError(f"{path} is a damaged parquet file ({reason_of(error)}) - fetch it again") from error
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
            raise UserError(f"{path} is not a table ({reason_of(error)}) - fetch it again") from error


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
