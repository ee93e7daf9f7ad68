"""The reader of first-generation tables, on tables written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import upstream

from stbench.datasets.readers import legacy_st
from stbench.errors import UserError
from stbench.slides.checks import validate
from stbench.slides.slide import Slide

COUNTS = "\tA\tB\tC\n2x3\t1\t0\t5\n3x3\t0\t2\t0\n9x9\t7\t7\t7\n2x4\t4\t0\t0\n"
SPOTS = (
    "x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected\n"
    "2\t4\t2.1\t4.0\t110\t300\t1\n"
    "3\t3\t3.0\t2.9\t200\t190\t1\n"
    "2\t3\t2.0\t3.0\t100\t200\t1\n"
    "9\t9\t9.0\t9.0\t300\t310\t0\n"
    "4\t4\t4.0\t4.0\t300\t300\t1\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    upstream.write_text(tmp_path / "counts.tsv", COUNTS)
    upstream.write_text(tmp_path / "spots.tsv", SPOTS)
    upstream.write_picture(tmp_path / "image.jpg", upstream.tissue_image(400, 380, np.random.default_rng(0)))
    return tmp_path


def read(folder: Path, **changes: object) -> Slide:
    files = {"counts": folder / "counts.tsv", "spots": folder / "spots.tsv", "image": folder / "image.jpg"}
    return legacy_st.read("S1", "P1", **{**files, **changes})  # type: ignore[arg-type]


def test_selected_spots_that_have_counts_are_kept_in_the_order_of_the_counts(folder: Path) -> None:
    slide = read(folder)
    validate(slide)
    assert slide.spot_ids == ["2x3", "3x3", "2x4"]
    assert slide.genes == ["A", "B", "C"]
    np.testing.assert_array_equal(slide.adata.X.toarray(), [[1, 0, 5], [0, 2, 0], [4, 0, 0]])
    np.testing.assert_array_equal(slide.centres, [[100, 200], [200, 190], [110, 300]])
    np.testing.assert_array_equal(slide.array_xy, [[2, 3], [3, 3], [2, 4]])
    assert slide.adata.obs["array_row"].tolist() == [3, 3, 4]
    assert slide.adata.X.dtype == np.int32
    assert slide.notes == ("S1: 1 of 4 spots under tissue have no counts and are left out",)
    assert slide.um_per_px is None


def test_the_pixel_size_follows_from_the_pitch_of_the_measured_positions(folder: Path) -> None:
    slide = read(folder, pitch_um=200.0, spot_diameter_um=100.0)
    assert slide.um_per_px == pytest.approx(2.0, rel=1e-6)  # pixel = 100 (new - 1), in both axes
    assert slide.adata.uns["spatial"]["S1"]["scalefactors"]["spot_diameter_fullres"] == pytest.approx(50.0)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "A\tB\tC\n2x3\t1\t0\t5\n3x3\t0\t2\t0\n9x9\t7\t7\t7\n2x4\t4\t0\t0\n", id="no name above the row names"
        ),
        pytest.param("\t2x3\t3x3\t9x9\t2x4\nA\t1\t0\t7\t4\nB\t0\t2\t7\t0\nC\t5\t0\t7\t0\n", id="transposed"),
        pytest.param(",A,B,C\n2x3,1,0,5\n3x3,0,2,0\n9x9,7,7,7\n2x4,4,0,0\n", id="commas"),
        pytest.param(
            '""\t"A"\t"B"\t"C"\n"2x3"\t1\t0\t5\n"3x3"\t0\t2\t0\n"9x9"\t7\t7\t7\n"2x4"\t4\t0\t0\n', id="quotes"
        ),
        pytest.param(COUNTS.replace("\n", "\r\n"), id="line ends of Windows"),
        pytest.param(COUNTS.replace("\t1\t", "\t1.0\t"), id="counts written as 1.0"),
        pytest.param("\ufeff" + COUNTS, id="byte-order mark"),
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_the_same_table_in_another_dress_reads_the_same(folder: Path, text: str, zipped: bool) -> None:
    upstream.write_text(folder / "counts.tsv", text, zipped)  # the name says .tsv in either case
    slide = read(folder)
    assert slide.spot_ids == ["2x3", "3x3", "2x4"]
    assert slide.genes == ["A", "B", "C"]
    np.testing.assert_array_equal(slide.adata.X.toarray(), [[1, 0, 5], [0, 2, 0], [4, 0, 0]])


def test_fractional_indices_are_rounded_and_a_table_without_selected_selects_all(folder: Path) -> None:
    text = "x\ty\tpixel_x\tpixel_y\n2.02\t3.97\t110\t300\n2.98\t3.0\t200\t190\n2\t3\t100\t200\n"
    upstream.write_text(folder / "spots.tsv", text)
    slide = read(folder)
    assert slide.spot_ids == ["2x3", "3x3", "2x4"]
    np.testing.assert_array_equal(slide.array_xy, [[2, 3], [3, 3], [2, 4]])


def test_an_image_at_another_scale_keeps_positions_at_full_resolution(folder: Path) -> None:
    slide = read(folder, image_scale=0.5)
    assert slide.image.full_resolution_size == (800, 760)
    np.testing.assert_array_equal(slide.centres[0], [100, 200])


def test_labels_are_joined_on_rounded_positions_and_rows_of_nan_are_dropped(folder: Path) -> None:
    text = (
        "Row.names\tx\ty\tpixel_x\tpixel_y\tlabel\n"
        "a\t2.1\t3.95\t9999\t9999\tconnective tissue\n"
        "b\t1.98\t3.01\t1\t1\tinvasive cancer\n"
        "c\tNA\tNA\tNA\tNA\tundetermined\n"
        "d\tNA\tNA\tNA\tNA\tundetermined\n"
        "e\t3.0\t3.0\t1\t1\tNA\n"
    )
    labels = upstream.write_text(folder / "labels.tsv", text)
    slide = read(folder, labels=labels)
    values = [value if isinstance(value, str) else None for value in slide.adata.obs["label"]]
    assert values == ["invasive cancer", None, "connective tissue"]
    assert slide.centres[0].tolist() == [100, 200]


def test_labels_of_another_section_are_refused(folder: Path) -> None:
    labels = upstream.write_text(folder / "labels.tsv", "x\ty\tlabel\n50\t50\tstroma\n")
    with pytest.raises(UserError, match=r"labels\.tsv labels none"):
        read(folder, labels=labels)


def test_padded_names_are_the_same_spots(tmp_path: Path) -> None:
    header = "\tA\tB\n"
    plain = upstream.write_text(tmp_path / "plain.tsv", header + "7x12\t3\t1\n10x2\t0\t4\n")
    padded = upstream.write_text(tmp_path / "padded.tsv", header + "007x012\t3\t1\n010x002\t0\t4\n")
    assert legacy_st.read_counts(padded).spots == ["7x12", "10x2"] == legacy_st.read_counts(plain).spots
    twice = upstream.write_text(tmp_path / "twice.tsv", header + "007x012\t3\t1\n7x12\t0\t4\n")
    with pytest.raises(UserError, match="names the spot 7x12 more than once"):
        legacy_st.read_counts(twice)


def test_spots_that_do_not_match_are_shown_from_both_sides(tmp_path: Path) -> None:
    counts = upstream.write_text(tmp_path / "counts.tsv", "\tA\tB\n7x12\t3\t1\n8x12\t0\t4\n")
    spots = upstream.write_text(tmp_path / "spots.tsv", "x\ty\tpixel_x\tpixel_y\n1\t2\t10\t10\n1\t3\t10\t20\n")
    image = upstream.write_picture(tmp_path / "image.jpg", np.zeros((40, 40, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=r"only 0 of the 2 spots .* \(a row is named 7x12, a spot 1x2\)"):
        legacy_st.read("S", "P", counts=counts, spots=spots, image=image)


def test_counts_that_are_whole_but_for_rounding_are_rounded_and_said(tmp_path: Path) -> None:
    counts = upstream.write_text(tmp_path / "counts.tsv", "\tA\tB\n1x2\t2.9999998\t1\n1x3\t0\t4.0001\n")
    spots = upstream.write_text(tmp_path / "spots.tsv", "x\ty\tpixel_x\tpixel_y\n1\t2\t10\t10\n1\t3\t10\t20\n")
    image = upstream.write_picture(tmp_path / "image.jpg", np.zeros((40, 40, 3), dtype=np.uint8))
    slide = legacy_st.read("S", "P", counts=counts, spots=spots, image=image)
    np.testing.assert_array_equal(slide.adata.X.toarray(), [[3, 1], [0, 4]])
    assert slide.notes == (
        "S: counts are whole but for rounding (largest distance to a whole number 0.0001) and have been rounded",
    )
