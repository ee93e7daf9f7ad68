"""First-generation Spatial Transcriptomics: a table of counts, a table of spots and a picture.

Counts: one row per spot named ``<x>x<y>``, padded with zeros or not, one column per gene (or the other way round: the
axis whose names look like spots decides). Spots: ``x y new_x new_y pixel_x pixel_y [selected]``; ``pixel_x`` is the
image's column, ``pixel_y`` its row, origin top left. The count table may cover the whole array, background included:
what counts are the spots selected as lying under tissue that have a row of counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide
from stbench.slides.spot_names import plain_name, spot_name
from stbench.system.compressed import open_text

from .assemble import assemble, require_counts, unmatched
from .pitch import square_grid_pitch
from .reader import Opened, Reader, named_files

if TYPE_CHECKING:
    import pandas as pd

LONGEST_LINE = 4_000_000  # characters of a table's line that are looked at to recognise it


@dataclass(frozen=True)
class CountTable:
    counts: Any  # scipy CSR, (n_spots, n_genes)
    spots: list[str]  # "<x>x<y>", without padding
    genes: list[str]


def read(
    slide_id: str,
    patient: str,
    *,
    counts: Path,
    spots: Path,
    image: Path,
    labels: Path | None = None,
    image_scale: float = 1.0,
    pitch_um: float | None = None,
    spot_diameter_um: float | None = None,
) -> Slide:
    """Read one section; spots are in the order of the count table.

    ``pitch_um`` is the distance of neighbouring spots along an axis of a square array; with it the size of a pixel is
    estimated, without it that stays unknown. ``image_scale``: pixels of the image per pixel of the spot table.
    Raises ``UserError`` for a file that is missing or malformed, or when the files do not belong together.
    """
    table = read_counts(counts)
    under_tissue = read_spots(spots)
    rows, positions, notes = _join(table, under_tissue, counts, spots)
    kept = under_tissue.iloc[positions]
    centres = kept[["pixel_x", "pixel_y"]].to_numpy(dtype=np.float64)
    measured = ["new_x", "new_y"] if {"new_x", "new_y"} <= set(kept.columns) else ["x", "y"]
    um_per_px = None
    if pitch_um is not None:
        pitch_px = square_grid_pitch(kept[measured].to_numpy(dtype=np.float64), centres)
        um_per_px = None if pitch_px is None else pitch_um / pitch_px
    spot_ids = [table.spots[row] for row in rows]
    return assemble(
        slide_id,
        patient,
        counts=table.counts[rows],
        genes=table.genes,
        spot_ids=spot_ids,
        array_xy=kept[["x", "y"]].to_numpy(dtype=np.int64),
        centres=centres,
        image=SlideImage.from_file(image, image_scale),
        um_per_px=um_per_px,
        um_per_px_from=f"the spots' pitch of {pitch_um:g} µm" if um_per_px is not None else "",
        spot_diameter_px=None if um_per_px is None or spot_diameter_um is None else spot_diameter_um / um_per_px,
        labels=None if labels is None else _labels(labels, spot_ids),
        notes=notes,
    )


def _join(
    table: CountTable, under_tissue: pd.DataFrame, counts: Path, spots: Path
) -> tuple[list[int], list[int], list[str]]:
    """Rows of the count table and of the spot table that belong together, in the order of the count table."""
    place = {name: position for position, name in enumerate(under_tissue["name"])}
    rows = [row for row, name in enumerate(table.spots) if name in place]
    n = len(place)
    if 2 * len(rows) < n or not rows:
        counted, selected = unmatched(table.spots, list(place))
        raise UserError(
            f"only {len(rows)} of the {n} spots under tissue in {spots} have a row in {counts} (a row is named "
            f"{counted}, a spot {selected}) - the two files do not belong together: check the names"
        )
    notes = []
    if len(rows) < n:
        notes.append(f"{n - len(rows)} of {n} spots under tissue have no counts and are left out")
    return rows, [place[table.spots[row]] for row in rows], notes


def read_counts(path: Path) -> CountTable:
    """The table of counts, spots as rows whatever way round the file has it."""
    with open_text(path) as text:
        header_line = text.readline().rstrip("\r\n")
        separator = "\t" if "\t" in header_line else ","
        header = [_name(field) for field in header_line.split(separator)]
        if len(header) < 2:
            raise UserError(
                f"{path} is not a table of counts: its first line has no tab and no comma - "
                "give spots x genes, tab-separated, with a header of gene names"
            )
        names, matrix, columns = _table_body(path, text, header, separator)
    if _are_spots(columns) and not _are_spots(names):
        matrix, names, columns = matrix.T.tocsr(), columns, names
    spots = [plain_name(name) for name in names]
    if None in spots:
        raise UserError(
            f"{path}: the row name '{names[spots.index(None)][:40]}' is not of the form <x>x<y>, as in 10x21 - "
            "check the table"
        )
    if all(_is_number(name) for name in columns):
        raise UserError(f"{path} has no header: its first line holds numbers instead of gene names - add the header")
    plain = [name for name in spots if name is not None]
    _refuse_repeated(plain, "spot", path)
    _refuse_repeated(columns, "gene", path)
    return CountTable(matrix, plain, columns)


def _table_body(path: Path, text: Any, header: list[str], separator: str) -> tuple[list[str], Any, list[str]]:
    """Row names, values (CSR) and column names, read line by line: dense only one row at a time."""
    from scipy import sparse

    names: list[str] = []
    values: list[np.ndarray] = []
    indices: list[np.ndarray] = []
    columns = header[1:]
    for number, line in enumerate(text, start=2):
        if not line.strip():
            continue
        name, _, rest = line.rstrip("\r\n").partition(separator)
        if not names and rest.count(separator) + 1 == len(header):
            columns = header  # R writes no name above the row names
        row = _numbers(rest, columns, separator, f"{path}, line {number}")
        nonzero = np.flatnonzero(row)
        names.append(_name(name))
        indices.append(nonzero)
        values.append(row[nonzero])
    if not names:
        raise UserError(f"{path} has a header but no rows - it is cut off: fetch it again")
    data = np.concatenate(values)
    require_counts(data, str(path))
    pointers = np.concatenate([[0], np.cumsum([len(row) for row in indices])])
    matrix = sparse.csr_matrix((data, np.concatenate(indices), pointers), shape=(len(names), len(columns)))
    return names, matrix, columns


def _numbers(text: str, columns: list[str], separator: str, place: str) -> np.ndarray:
    n_fields = text.count(separator) + 1
    if n_fields != len(columns):
        raise UserError(
            f"{place} has {n_fields} values where the header names {len(columns)} columns - "
            "the file is cut off or malformed: fetch it again"
        )
    try:
        row = np.fromstring(text, sep=separator)  # an order of magnitude faster than converting field by field
    except ValueError:
        row = np.empty(0)
    if len(row) == len(columns):
        return row
    for column, field in zip(columns, text.split(separator), strict=True):
        if not _is_number(field):
            raise UserError(
                f"{place}: the value of {column} is '{field[:20]}', not a number - counts are whole numbers"
            )
    raise UserError(f"{place} cannot be read as numbers - counts are whole numbers")


def read_spots(path: Path) -> pd.DataFrame:
    """The spots under tissue: columns as in the file, x and y rounded to integers, and ``name`` = ``<x>x<y>``."""
    frame = _read_table(path, {"x", "y", "pixel_x", "pixel_y"}, "x y new_x new_y pixel_x pixel_y [selected]")
    numeric = [name for name in ("x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected") if name in frame]
    for name in numeric:
        frame[name] = _numeric(frame[name], path)
    if "selected" in frame:
        frame = frame[frame["selected"] != 0]
    if frame.empty:
        raise UserError(f"{path} selects no spot as lying under tissue - check its column 'selected'")
    lacking = frame[numeric].isna().any(axis=1)
    if lacking.any():
        raise UserError(
            f"{path}: {int(lacking.sum())} of {len(frame)} spots have no position (NaN) - complete or remove them"
        )
    frame = frame.assign(x=np.rint(frame["x"]).astype(np.int64), y=np.rint(frame["y"]).astype(np.int64))
    frame["name"] = [spot_name(x, y) for x, y in zip(frame["x"], frame["y"], strict=True)]
    _refuse_repeated(frame["name"].tolist(), "spot", path)
    return frame.reset_index(drop=True)


def _labels(path: Path, spot_ids: list[str]) -> list[str | None]:
    """A pathologist's label per spot. The file's x and y are measured positions; its pixels are another system's."""
    frame = _read_table(path, {"x", "y", "label"}, "x y label")
    for name in ("x", "y"):
        frame[name] = _numeric(frame[name], path)
    # a file that writes NA where it has no position writes it where it has no label; else a region may be called so
    absent = ("", "NA", "nan", "NaN") if frame[["x", "y"]].isna().any(axis=None) else ("",)
    frame = frame.dropna(subset=["x", "y"])  # first: rounding NaN would give all such rows one and the same name
    nearest = np.rint(frame[["x", "y"]].to_numpy(dtype=np.float64)).astype(np.int64)
    names = [spot_name(x, y) for x, y in nearest]
    _refuse_repeated(names, "spot", path)
    label = {name: str(value) for name, value in zip(names, frame["label"], strict=True) if value not in absent}
    if label.keys().isdisjoint(spot_ids):
        ours, theirs = unmatched(spot_ids, names)
        raise UserError(
            f"{path} labels none of the section's spots (they are named as {ours}, its rows {theirs}) - it belongs to "
            "another section: check its name"
        )
    return [label.get(name) for name in spot_ids]


def _read_table(path: Path, needed: set[str], form: str) -> pd.DataFrame:
    import pandas as pd

    with open_text(path) as text:
        first = text.readline()
        text.seek(0)
        separator = "\t" if "\t" in first else "," if "," in first else r"\s+"
        try:
            frame = pd.read_csv(text, sep=separator, converters={"label": str})  # a region may be called NA or 01
        except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
            reason = reason_of(error)
            raise UserError(f"{path} is not a table ({reason}) - give one with the columns {form}") from error
    frame.columns = [_name(str(name)) for name in frame.columns]
    missing = needed - set(frame.columns)
    if missing:
        raise UserError(
            f"{path} lacks the columns {', '.join(sorted(missing))} (its first line is '{first.strip()[:60]}') - "
            f"it needs a header with {form}"
        )
    return frame


def _numeric(column: pd.Series, path: Path) -> pd.Series:
    import pandas as pd

    numbers = pd.to_numeric(column, errors="coerce")
    words = column[numbers.isna() & column.notna()]
    if len(words):
        raise UserError(
            f"{path}: the column {column.name} holds '{str(words.iloc[0])[:20]}', not a number - correct it"
        )
    return numbers


def _refuse_repeated(names: list[str], what: str, path: Path) -> None:
    if len(set(names)) == len(names):
        return
    seen: set[str] = set()
    first = next(name for name in names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    raise UserError(
        f"{path} names the {what} {first} more than once ({len(names) - len(set(names))} repeated in all) - "
        f"each {what} must stand there once"
    )


def _are_spots(names: list[str]) -> bool:
    return 2 * sum(plain_name(name) is not None for name in names) > len(names)


def _name(field: str) -> str:
    return field.strip().strip('"')


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _open(slide_id: str, patient: str, values: dict[str, Any]) -> Opened:
    return partial(read, slide_id, patient, **values), named_files(values)


def _recognises(path: Path) -> str | None:
    if not path.is_file():
        return None
    try:
        with open_text(path) as text:
            lines = [text.readline(LONGEST_LINE), text.readline(LONGEST_LINE)]
    except (UserError, OSError):  # of another kind, or it may not be read: not for this question to say
        return None
    separator = "\t" if "\t" in lines[0] else ","
    names = [_name(field) for field in lines[0].split(separator)[1:]]
    first_row = _name(lines[1].partition(separator)[0])
    if plain_name(first_row) is None and not (names and _are_spots(names)):
        return None
    return "it is a table whose rows or columns are named as spots, <x>x<y>"


READER = Reader(
    name="legacy-st",
    what="a table of counts with spots named <x>x<y> (first-generation Spatial Transcriptomics)",
    source="counts",
    open=_open,
    recognises=_recognises,
    other_paths=("spots", "image"),
    optional_paths=("labels",),
    numbers=("image_scale", "pitch_um", "spot_diameter_um"),
)
