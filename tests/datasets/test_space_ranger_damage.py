"""Damaged and altered output of Space Ranger: a slide, or one line that says what is wrong; never a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import ten_x
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stbench.datasets.readers import space_ranger
from stbench.errors import UserError
from stbench.slides.checks import check_slide
from stbench.slides.slide import Slide

QUICK = settings(
    max_examples=40,
    deadline=10_000,  # nothing hangs
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
LAYOUTS = ("list", "csv", "mex", "bins", "cells")
MATRIX = "filtered_feature_bc_matrix.h5"
odd_values = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=5),
    st.lists(st.integers(), max_size=2), st.just(10**400),
)  # fmt: skip
OTHER_ARRAYS: tuple[Callable[[np.ndarray], Any], ...] = (
    lambda values: values.astype(np.float64) + 0.5 if values.dtype.kind in "iuf" else values,
    lambda values: np.full(len(values), np.nan),
    lambda values: np.array(["text"] * len(values), dtype="S"),
    lambda values: values[:-1],
    lambda values: np.concatenate([values, values[:1]]),
    lambda values: values[::-1].copy(),
    lambda values: np.repeat(values[:1], len(values)),
    lambda values: -1 - values if values.dtype.kind in "iu" else values,
    lambda values: values.astype(np.int64) * 10**9 if values.dtype.kind in "iu" else values,
    lambda values: values.reshape(1, -1),
    lambda values: values[:0],
    lambda values: values[0],
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One folder of each layout, all of which are read."""
    base = tmp_path_factory.mktemp("sound")
    section, bins = ten_x.visium(), ten_x.binned(16)
    numbers = list(range(1, 65))
    outlines = {
        number: [[[x - 3, y - 3], [x + 3, y - 3], [x, y + 6], [x - 3, y - 3]]]
        for number, (x, y) in zip(numbers, bins.centres.tolist(), strict=True)
    }
    return {
        "list": ten_x.write_outs(base / "list", section, "list"),
        "csv": ten_x.write_outs(base / "csv", section),
        "mex": ten_x.write_outs(base / "mex", section, mex=True),
        "bins": ten_x.write_bins(base / "square_016um", bins),
        "cells": ten_x.write_cells(base / "outs", replace(bins), numbers, outlines),
    }


@pytest.fixture
def copied(sound: dict[str, Path], tmp_path: Path) -> Callable[[str], Path]:
    """``copied("csv")``: a fresh copy of that layout."""

    def copy(layout: str) -> Path:
        place = tmp_path / sound[layout].name
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(sound[layout], place)
        return place

    return copy


def accepted(folder: Path) -> bool:
    """Whether the folder is read to the end; what is refused is refused in one line that says what to do."""
    try:
        slide = space_ranger.read("S", "P", space_ranger.find(folder))
    except UserError as error:
        message = str(error)
    else:
        return usable(slide)
    assert "\n" not in message
    assert " - " in message
    return False


def usable(slide: Slide) -> bool:
    errors = [problem.text for problem in check_slide(slide) if problem.severity == "error"]
    assert all("\n" not in text for text in errors)
    if not errors:
        slide.image.cut(slide.centres, ten_x.PAINTED)
    return not errors


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 20)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_that_are_damaged_below_are_read(copied: Callable[[str], Path], layout: str) -> None:
    assert accepted(copied(layout))


@QUICK
@given(
    layout=st.sampled_from(LAYOUTS),
    which=st.integers(0, 20),
    how=st.sampled_from(["cut", "overwritten", "gone", "empty", "another's", "a folder"]),
    where=st.floats(0, 1),
    noise=st.binary(min_size=1, max_size=40),
)
def test_files_cut_overwritten_exchanged_or_gone(
    copied: Callable[[str], Path], layout: str, which: int, how: str, where: float, noise: bytes
) -> None:
    folder = copied(layout)
    files = files_in(folder)
    path = files[which % len(files)]
    content = bytearray(path.read_bytes())
    at = int(where * len(content))
    path.unlink()
    if how == "cut":
        path.write_bytes(content[:at])
    elif how == "overwritten":
        content[at : at + len(noise)] = noise
        path.write_bytes(content)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "another's":
        shutil.copy(files[(which + 1) % len(files)], path)
    elif how == "a folder":
        path.mkdir()
    accepted(folder)


@QUICK
@given(
    form=st.sampled_from(["csv", "list", "parquet"]),
    order=st.permutations(range(6)),
    column=st.integers(0, 5),
    row=st.integers(0, 70),
    value=odd_values,
    whole_column=st.booleans(),
    named=st.booleans(),
)
def test_positions_with_columns_exchanged_or_other_values(
    copied: Callable[[str], Path],
    form: str,
    order: list[int],
    column: int,
    row: int,
    value: object,
    whole_column: bool,
    named: bool,
) -> None:
    folder = copied("csv")
    section = ten_x.visium()
    frame = ten_x.positions(section).astype(object)
    values = frame.iloc[:, column].tolist()
    values = [value] * len(values) if whole_column else [*values[:row], value, *values[row + 1 :]]
    frame[frame.columns[column]] = pd.Series(values, dtype=object)
    exchanged = frame.iloc[:, order]
    if not named:  # the values are, their names are not
        exchanged = exchanged.set_axis(frame.columns, axis=1)
    (folder / "spatial/tissue_positions.csv").unlink()
    if form == "parquet":
        try:
            exchanged.infer_objects().to_parquet(folder / "spatial/tissue_positions.parquet", index=False)
        except (ValueError, TypeError, OverflowError):  # pyarrow has no type for these values
            exchanged.astype(str).to_parquet(folder / "spatial/tissue_positions.parquet", index=False)
    else:
        path = folder / f"spatial/tissue_positions{'_list' if form == 'list' else ''}.csv"
        exchanged.to_csv(path, index=False, header=form == "csv")
    accepted(folder)


@QUICK
@given(
    part=st.sampled_from(
        ["data", "indices", "indptr", "shape", "barcodes", *(f"features/{n}" for n in ("id", "name", "feature_type"))]
    ),
    other=st.sampled_from([*OTHER_ARRAYS, None]),
    layout=st.sampled_from(["csv", "bins"]),
)
def test_matrices_whose_parts_are_of_other_types_lengths_and_values(
    copied: Callable[[str], Path], part: str, other: Callable[[np.ndarray], Any] | None, layout: str
) -> None:
    folder = copied(layout)
    with h5py.File(folder / MATRIX, "r+") as file:
        values = file[f"matrix/{part}"][:]
        del file[f"matrix/{part}"]
        if other is None:
            file.create_group(f"matrix/{part}")
        else:
            file[f"matrix/{part}"] = other(values)
    accepted(folder)


@QUICK
@given(
    changes=st.dictionaries(
        st.sampled_from([*ten_x.binned(16).factors, "other"]),
        odd_values.filter(lambda value: value != 10**400),
        max_size=4,
    ),
    huge=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
)
def test_scale_factors_of_any_value(
    copied: Callable[[str], Path], changes: dict[str, object], huge: bool, layout: str
) -> None:
    folder = copied(layout)
    path = folder / "spatial/scalefactors_json.json"
    text = json.dumps({**json.loads(path.read_text()), **changes})
    path.write_text(text.replace("}", ', "microns_per_pixel": 1' + "0" * 400 + "}") if huge else text)
    accepted(folder)


def test_a_matrix_that_claims_more_than_it_can_hold_takes_no_memory(copied: Callable[[str], Path]) -> None:
    folder = copied("csv")
    for part in ("data", "barcodes"):
        shutil.copy(folder / "raw_feature_bc_matrix.h5", folder / MATRIX)
        with h5py.File(folder / MATRIX, "r+") as file:
            dtype = file[f"matrix/{part}"].dtype
            del file[f"matrix/{part}"]
            file.create_dataset(f"matrix/{part}", shape=(10**12,), dtype=dtype, chunks=(1000,))
        with pytest.raises(UserError, match="more than a file of its size can hold"):
            space_ranger.read("S", "P", space_ranger.find(folder))


def test_a_line_that_is_longer_than_the_header_moves_no_column(copied: Callable[[str], Path]) -> None:
    folder = copied("csv")
    path = folder / "spatial/tissue_positions.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], *(f"1,{line}" for line in lines[1:])]))
    with pytest.raises(UserError, match="is not a table"):
        space_ranger.read("S", "P", space_ranger.find(folder))
    assert pd.read_csv(path).index[0] == 1  # what pandas does unasked


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_matrix_whose_gzip_stream_ends_early_does_not_end_the_process(
    copied: Callable[[str], Path], kept: float
) -> None:
    """Scipy reads it in compiled code, which no exception of Python's may cross."""
    path = copied("mex") / "filtered_feature_bc_matrix/matrix.mtx.gz"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(UserError, match=r"matrix.mtx.gz ends too early"):
        space_ranger.read("S", "P", space_ranger.find(path.parents[1]))
    path.write_bytes(content[:30] + bytes(len(content) - 30))
    with pytest.raises(UserError, match=r"matrix.mtx.gz is a damaged gzip file"):
        space_ranger.read("S", "P", space_ranger.find(path.parents[1]))
