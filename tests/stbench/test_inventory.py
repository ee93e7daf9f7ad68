"""What is listed and checked of a dataset."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import upstream

from stbench.data.inventory import check_dataset, list_dataset
from stbench.datasets.cscc import CSCC
from stbench.datasets.her2st import HER2ST
from stbench.errors import UserError
from stbench.reports.figures.slide_picture import draw_slide
from stbench.slides.slide import Slide


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return upstream.write_cscc(tmp_path / "data")


def drop_tables(root: Path, *names: str) -> None:
    for name in names:
        for path in (root / "GSE144240_RAW").glob(f"*{name}_stdata*"):
            path.unlink()


def test_a_listing_counts_what_is_there_and_explains_what_is_not(root: Path) -> None:
    drop_tables(root, "P2_ST_rep1", "P9_ST_rep3")
    listing = list_dataset(CSCC(root))
    assert (len(listing.present), listing.n_expected) == (10, 12)
    assert [gone.id for gone in listing.missing] == ["P2_ST_rep1", "P9_ST_rep3"]
    assert listing.n_spots == 8_671 - 666 - 1182
    assert listing.n_genes == 171
    assert listing.place == root / "GSE144240_RAW"
    assert "GSE144240" in listing.how_to_get


def test_a_dataset_that_is_not_there_is_listed_with_how_to_get_it() -> None:
    listing = list_dataset(HER2ST(None))
    assert listing.present == ()
    assert (listing.n_spots, listing.n_genes, listing.place) == (None, 785, None)
    assert "almaan/her2st" in listing.how_to_get


def test_a_check_reads_every_slice_and_draws_it(root: Path, tmp_path: Path) -> None:
    steps: list[tuple[int, int, str]] = []

    def draw(slide: Slide, message: str) -> Path:
        return draw_slide(slide, tmp_path / "pictures" / f"{slide.id}.png", message, max_side=200)

    names = ["P2_ST_rep1", "P10_ST_rep1"]
    report = check_dataset(CSCC(root), names, draw, lambda *step: steps.append(step))
    assert report.sound
    assert [check.id for check in report.slices] == names
    assert steps == [(0, 2, "P2_ST_rep1"), (1, 2, "P10_ST_rep1"), (2, 2, "")]
    for check in report.slices:
        assert check.errors == []
        assert check.n_spots == 18
        assert check.image_size == (420, 420)
        assert check.picture is not None
        assert check.picture.read_bytes().startswith(b"\x89PNG")
        # the copies are miniature: the published number of spots is missed, and windows cross the small image's border
        assert any("published dataset has" in notice for notice in check.notices)
        assert any("cross the image's border" in notice for notice in check.notices)


def test_a_bad_slice_is_reported_and_does_not_stop_the_others(root: Path) -> None:
    table = next((root / "GSE144240_RAW").glob("*P2_ST_rep1_stdata*"))
    table.write_bytes(table.read_bytes()[:500])
    image = next((root / "GSE144240_RAW").glob("*P2_ST_rep2.jpg.gz"))
    image.write_bytes(gzip.compress(gzip.decompress(image.read_bytes())[:300]))
    report = check_dataset(CSCC(root), ["P2_ST_rep1", "P2_ST_rep2", "P2_ST_rep3"])
    assert not report.sound
    assert [bool(check.errors) for check in report.slices] == [True, True, False]
    assert "truncated" in report.slices[0].errors[0]


def test_an_image_that_cannot_be_decoded_is_an_error_of_its_slice(root: Path, tmp_path: Path) -> None:
    image = next((root / "GSE144240_RAW").glob("*P2_ST_rep2.jpg.gz"))
    image.write_bytes(gzip.compress(gzip.decompress(image.read_bytes())[:3000]))
    report = check_dataset(
        CSCC(root), ["P2_ST_rep2", "P2_ST_rep3"], lambda slide, _: draw_slide(slide, tmp_path / f"{slide.id}.png")
    )
    assert [bool(check.errors) for check in report.slices] == [True, False]
    assert "cannot be read as an image" in report.slices[0].errors[0]


def test_a_panel_gene_that_no_slice_lists_is_an_error_of_the_dataset(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = CSCC(root)
    monkeypatch.setattr(dataset, "panel", lambda: [*CSCC().panel(), "NOWHERE"])
    report = check_dataset(dataset, ["P2_ST_rep1", "P2_ST_rep2"])
    assert not report.sound
    assert "1 of 172 panel genes are in none of the slices present: NOWHERE" in report.problems[0].text


def test_an_unknown_slice_is_refused_with_the_nearest_name(root: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'P2_ST_rep"):
        check_dataset(CSCC(root), ["P2_ST_rep"])


def test_nothing_present_is_not_sound(tmp_path: Path) -> None:
    assert not check_dataset(CSCC(tmp_path)).sound
