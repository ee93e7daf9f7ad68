"""The three benchmark datasets are found and read in every upstream layout, traps included."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import upstream

from stbench.dataset import Dataset, Missing, SlideSource
from stbench.datasets.alex10x import Alex10x
from stbench.datasets.cscc import CSCC
from stbench.datasets.her2st import HER2ST
from stbench.slides.checks import validate
from stbench.slides.slide import Slide


@pytest.fixture(scope="module")
def her2st(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upstream.write_her2st(tmp_path_factory.mktemp("her2st"))


@pytest.fixture(scope="module")
def cscc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upstream.write_cscc(tmp_path_factory.mktemp("cscc"))


@pytest.fixture(scope="module")
def alex10x(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return upstream.write_alex10x(tmp_path_factory.mktemp("alex10x"))


def slides_of(dataset: Dataset) -> dict[str, Slide]:
    """All slices, each complete and sound."""
    sources, missing = dataset.find()
    assert missing == []
    assert [source.id for source in sources] == list(dataset.slices)
    slides = {source.id: source.read() for source in sources}
    for source in sources:
        validate(slides[source.id], panel=dataset.panel())
        assert all(path.is_file() for path in source.files)
        assert source.patient == slides[source.id].patient == dataset.patient(source.id)
    return slides


@pytest.mark.parametrize(
    ("dataset", "n_slices", "n_spots", "n_genes", "patients"),
    [
        (HER2ST(), 32, 11_548, 785, {"A": 5, "B": 6, "C": 6, "D": 6, "E": 3, "F": 3, "G": 3}),
        (CSCC(), 12, 8_671, 171, {"P2": 3, "P5": 3, "P9": 3, "P10": 3}),
        (Alex10x(), 9, 25_914, 685, {"block-A": 2}),
    ],
    ids=["her2st", "cscc", "alex10x"],
)
def test_the_totals_are_those_of_the_published_benchmark(
    dataset: Any, n_slices: int, n_spots: int, n_genes: int, patients: dict[str, int]
) -> None:
    assert isinstance(dataset, Dataset)
    assert len(dataset.slices) == n_slices
    assert sum(dataset.expected_spots[name] for name in dataset.slices) == n_spots
    assert len(set(dataset.panel())) == len(dataset.panel()) == n_genes
    counted = Counter(dataset.patient(name) for name in dataset.slices)
    assert {patient: n for patient, n in counted.items() if n > 1} == patients


def test_slices_stand_in_the_published_fold_order() -> None:
    assert [HER2ST.slices[fold] for fold in (0, 5, 11, 17, 23, 26, 30)] == ["A2", "B1", "C1", "D1", "E1", "F1", "G2"]
    assert [CSCC.slices[fold] for fold in (0, 3, 6, 9)] == ["P2_ST_rep1", "P5_ST_rep1", "P9_ST_rep1", "P10_ST_rep1"]
    assert Alex10x.slices[-3:] == ("block1", "block2", "FFPE")


def test_her2st_is_read_in_the_repositorys_layout(her2st: Path) -> None:
    slides = slides_of(HER2ST(her2st))
    assert {slide.n_spots for slide in slides.values()} == {16}
    assert slides["D5"].adata.X.sum(axis=1).min() == 0
    assert slides["A2"].um_per_px == pytest.approx(200 / 45, rel=1e-3)
    assert slides["B1"].um_per_px == pytest.approx(200 / 60, rel=1e-3)
    assert {name for name, slide in slides.items() if "label" in slide.adata.obs} == set(upstream.LABELLED)
    for name in upstream.LABELLED:
        assert slides[name].adata.obs["label"].notna().all()


def test_both_layouts_of_her2st_hold_the_same(her2st: Path, tmp_path: Path) -> None:
    repository = slides_of(HER2ST(her2st))
    archives = slides_of(HER2ST(upstream.write_her2st(tmp_path, layout="zenodo")))
    for name, slide in repository.items():
        other = archives[name]
        assert slide.spot_ids == other.spot_ids
        assert slide.genes == other.genes
        assert (slide.adata.X != other.adata.X).nnz == 0
        np.testing.assert_array_equal(slide.centres, other.centres)
        assert slide.adata.obs.equals(other.adata.obs)


def test_her2st_is_found_from_the_folder_itself_and_under_other_names(her2st: Path, tmp_path: Path) -> None:
    assert len(HER2ST(her2st / "her2st").find()[0]) == 32
    assert len(HER2ST(her2st / "her2st" / "data").find()[0]) == 32
    (tmp_path / "Her2st").symlink_to(her2st / "her2st")
    assert len(HER2ST(tmp_path).find()[0]) == 32


def test_part_of_her2st_is_used_and_the_rest_is_explained(her2st: Path, tmp_path: Path) -> None:
    data = tmp_path / "her2st" / "data"
    shutil.copytree(her2st / "her2st" / "data", data)
    (data / "ST-cnts/B1.tsv.gz").unlink()
    (data / "ST-spotfiles/B2_selection.tsv").unlink()
    shutil.rmtree(data / "ST-imgs/B/B3")
    shutil.copy(data / "ST-imgs/B/B5/1234_HE_B5_small.jpg", data / "ST-imgs/B/B4/second.jpg")
    sources, missing = HER2ST(tmp_path).find()
    assert len(sources) == 28
    assert "no counts" in reason(missing, "B1")
    assert "no spot file" in reason(missing, "B2")
    assert "no image" in reason(missing, "B3")
    assert "several files" in reason(missing, "B4")


def test_an_encrypted_archive_that_was_not_unpacked_is_explained(tmp_path: Path) -> None:
    (tmp_path / "count-matrices.zip").write_bytes(b"PK")
    _, missing = HER2ST(tmp_path).find()
    assert len(missing) == 32
    assert "7-Zip" in missing[0].reason
    assert "passwords" in missing[0].reason


def test_cscc_keeps_the_selected_spots_that_have_counts(cscc: Path) -> None:
    slides = slides_of(CSCC(cscc))
    assert {slide.n_spots for slide in slides.values()} == {18}
    assert all(slide.um_per_px is None for slide in slides.values())
    assert all((slide.array_xy.sum(axis=1) % 2 == 0).all() for slide in slides.values())
    assert all("1 of 19 spots under tissue have no counts" in slide.notes[0] for slide in slides.values())


def test_cscc_is_found_from_the_folder_itself_and_in_the_repackaged_layout(cscc: Path, tmp_path: Path) -> None:
    assert len(CSCC(cscc / "GSE144240_RAW").find()[0]) == 12
    (tmp_path / "CSCC_data").symlink_to(cscc)
    assert len(CSCC(tmp_path).find()[0]) == 12


def test_a_cscc_file_of_another_sample_with_a_similar_name_is_not_taken(cscc: Path, tmp_path: Path) -> None:
    folder = tmp_path / "GSE144240_RAW"
    shutil.copytree(cscc / "GSE144240_RAW", folder)
    (folder / "GSM4284316_P2_ST_rep1_stdata.tsv.gz").rename(folder / "GSM4284316_P12_ST_rep1_stdata.tsv.gz")
    sources, missing = CSCC(tmp_path).find()
    assert len(sources) == 11
    assert "*P2_ST_rep1_stdata.tsv[.gz]" in reason(missing, "P2_ST_rep1")


def test_a_cscc_archive_that_was_not_unpacked_is_explained(tmp_path: Path) -> None:
    (tmp_path / "GSE144240_RAW.tar").write_bytes(b"x")
    assert "tar -xf" in CSCC(tmp_path).find()[1][0].reason


def test_alex10x_is_read_from_archives_and_space_ranger_folders(alex10x: Path) -> None:
    slides = slides_of(Alex10x(alex10x))
    assert {slide.n_spots for slide in slides.values()} == {20}
    assert slides["CID4290"].image.level == "hires"
    assert slides["FFPE"].image.level == "full"
    assert slides["CID4290"].adata.obs["label"].value_counts().to_dict() == {"Invasive cancer": 10, "Stroma": 10}
    assert not any("antibody" in gene for gene in slides["block1"].genes)


def test_alex10x_is_read_in_the_repackaged_layout(tmp_path: Path) -> None:
    sections = slides_of(Alex10x(upstream.write_alex10x(tmp_path, layout="mclstexp")))
    assert {slide.image.level for slide in sections.values()} == {"full"}
    assert {slide.n_spots for slide in sections.values()} == {20}


def test_both_layouts_of_alex10x_hold_the_same_counts_in_the_same_order(alex10x: Path, tmp_path: Path) -> None:
    one = sources_of(Alex10x(alex10x))
    two = sources_of(Alex10x(upstream.write_alex10x(tmp_path, layout="mclstexp")))
    for name in ("1142243F", "CID4290", "block1"):
        first, second = one[name].read(), two[name].read()
        assert first.spot_ids == second.spot_ids
        assert first.genes == second.genes
        assert (first.adata.X != second.adata.X).nnz == 0


def test_half_of_an_archive_is_explained(alex10x: Path, tmp_path: Path) -> None:
    shutil.copytree(alex10x / "filtered_count_matrices", tmp_path / "filtered_count_matrices")
    sources, missing = Alex10x(tmp_path).find()
    assert sources == []
    assert "spatial.tar.gz" in reason(missing, "CID4290")
    assert "V1_Breast_Cancer_Block_A_Section_1" in reason(missing, "block1")


@pytest.mark.parametrize("dataset", [HER2ST(), CSCC(), Alex10x()], ids=["her2st", "cscc", "alex10x"])
def test_without_a_data_folder_every_slice_is_missing(dataset: Dataset) -> None:
    sources, missing = dataset.find()
    assert sources == []
    assert [gone.id for gone in missing] == list(dataset.slices)


def sources_of(dataset: Dataset) -> dict[str, SlideSource]:
    return {source.id: source for source in dataset.find()[0]}


def reason(missing: list[Missing], name: str) -> str:
    return next(gone.reason for gone in missing if gone.id == name)
