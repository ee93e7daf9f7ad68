"""A user's own sections: described by a manifest, or given as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import upstream

from stbench.data.inventory import check_dataset
from stbench.dataset import Dataset
from stbench.datasets.manifest import open_dataset_path
from stbench.datasets.own_dataset import common_genes
from stbench.errors import UserError
from stbench.slides.checks import validate

MANIFEST = """\
name = "mine"
title = "My sections"
patch_px = 32
panel = ["A", "B"]

[[slide]]
id = "S1"
patient = "P1"
reader = "legacy-st"
counts = "s1/counts.tsv"
spots = "s1/spots.tsv"
image = "s1/image.jpg"
pitch_um = 200

[[slide]]
id = "S2"
patient = "P2"
reader = "space-ranger"
folder = "s2"

[[slide]]
id = "S3"
patient = "P2"
reader = "h5ad"
file = "s3.h5ad"
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    counts = "\tA\tB\tC\n1x1\t11\t0\t5\n2x1\t3\t12\t0\n1x2\t4\t0\t9\n"
    spots = "x\ty\tpixel_x\tpixel_y\n1\t1\t100\t100\n2\t1\t200\t100\n1\t2\t100\t200\n"
    upstream.write_text(tmp_path / "s1/counts.tsv", counts)
    upstream.write_text(tmp_path / "s1/spots.tsv", spots)
    upstream.write_picture(tmp_path / "s1/image.jpg", upstream.tissue_image(300, 300, np.random.default_rng(0)))
    section = upstream.VisiumSection("S2", 12, np.random.default_rng(0))
    section.genes = ["C", "B", "A", "D", *section.genes[4:]]
    section.write_h5(tmp_path / "s2/filtered_feature_bc_matrix.h5")
    section.write_spatial(tmp_path / "s2/spatial")
    path = tmp_path / "mine.toml"
    path.write_text(MANIFEST)
    slide = open_dataset_path(tmp_path / "s2").find()[0][0].read()
    slide.adata.uns["spatial"][slide.id]["metadata"]["source_image_path"] = "s2/spatial/tissue_hires_image.png"
    slide.adata.obsm["spatial"] *= upstream.HIRES
    slide.adata.write_h5ad(tmp_path / "s3.h5ad")
    return path


def test_a_manifest_is_a_dataset(manifest: Path) -> None:
    dataset = open_dataset_path(manifest)
    assert isinstance(dataset, Dataset)
    assert (dataset.name, dataset.title, dataset.patch_px) == ("mine", "My sections", 32)
    assert dataset.slices == ("S1", "S2", "S3")
    assert [dataset.patient(name) for name in dataset.slices] == ["P1", "P2", "P2"]
    assert dataset.panel() == ["A", "B"]
    sources, missing = dataset.find()
    assert missing == []
    for source in sources:
        slide = source.read()
        validate(slide, panel=dataset.panel())
        assert slide.id == source.id
        assert source.files
        assert all(path.is_file() for path in source.files)
    assert sources[0].read().um_per_px == pytest.approx(2.0)
    assert sources[0].parameters["pitch_um"] == 200
    assert check_dataset(dataset).sound


def test_a_panel_of_all_genes_is_what_the_slides_share_in_the_order_of_the_first(manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace('panel = ["A", "B"]', 'panel = "all"'))
    assert open_dataset_path(manifest).panel() == ["A", "B", "C"]


def test_a_panel_may_be_a_file_beside_the_manifest(manifest: Path) -> None:
    (manifest.parent / "genes.txt").write_text("# my genes\nB\n\nA\n")
    manifest.write_text(MANIFEST.replace('panel = ["A", "B"]', 'panel = "genes.txt"'))
    assert open_dataset_path(manifest).panel() == ["B", "A"]


def test_a_single_file_or_folder_is_a_dataset_of_one_slide(manifest: Path) -> None:
    for path, name in ((manifest.parent / "s2", "s2"), (manifest.parent / "s3.h5ad", "s3")):
        dataset = open_dataset_path(path)
        assert dataset.slices == (name,)
        slide = dataset.find()[0][0].read()
        validate(slide, panel=dataset.panel())
        assert dataset.panel() == slide.genes


def edited(old: str, new: str) -> str:
    assert old in MANIFEST
    return MANIFEST.replace(old, new)


MISTAKES = {
    "not TOML": ("name = mine\n", "not valid TOML"),
    "no name": (edited('name = "mine"\n', ""), "lacks name"),
    "a name that is no file name": (edited('"mine"', '"my/data"'), "may hold only letters"),
    "a misspelt key": (edited("patch_px", "patch_pix"), "did you mean 'patch_px'?"),
    "a misspelt key of a slide": (edited("counts =", "count ="), "did you mean 'counts'?"),
    "a key of another reader": (edited('folder = "s2"', 'folder = "s2"\nspots = "x"'), "unknown key for the reader"),
    "a misspelt reader": (edited("legacy-st", "legacy_st"), "did you mean 'legacy-st'?"),
    "no reader": (edited('reader = "legacy-st"\n', ""), "lacks reader"),
    "no patient": (edited('patient = "P1"\n', ""), "lacks patient"),
    "a path that is left out": (edited('spots = "s1/spots.tsv"\n', ""), "lacks spots"),
    "a path that leads nowhere": (edited("s1/spots.tsv", "s1/spot.tsv"), "does not exist"),
    "a folder that is not there": (edited('folder = "s2"', 'folder = "s4"'), "does not exist - correct folder in"),
    "an id given twice": (edited('"S2"', '"S1"'), "two slides have the id 'S1'"),
    "an odd patch": (edited("patch_px = 32", "patch_px = 33"), "not an even number"),
    "a patch in words": (edited("patch_px = 32", 'patch_px = "32"'), "not an even number"),
    "a negative pitch": (edited("pitch_um = 200", "pitch_um = -200"), "not a positive number"),
    "an empty panel": (edited('["A", "B"]', "[]"), "panel must be"),
    "a gene given twice": (edited('["A", "B"]', '["A", "A"]'), "names A twice"),
    "a panel file that is not there": (edited('["A", "B"]', '"genes.txt"'), "does not exist"),
    "no slides": ('name = "mine"\n', "describes no slide"),
    "one slide instead of a list": ('name = "mine"\n[slide]\nid = "S1"\n', "describes no slide"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_manifest(manifest: Path, mistake: str) -> None:
    text, said = MISTAKES[mistake]
    manifest.write_text(text)
    with pytest.raises(UserError) as caught:
        open_dataset_path(manifest).find()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(manifest.parent) in str(caught.value)


def test_sections_without_a_common_gene_have_no_panel(manifest: Path) -> None:
    (manifest.parent / "s1/counts.tsv").write_text("\tENSG1\n1x1\t5\n2x1\t4\n1x2\t3\n")
    manifest.write_text(MANIFEST.replace('panel = ["A", "B"]', 'panel = "all"'))
    with pytest.raises(UserError, match="no gene in common"):
        open_dataset_path(manifest).panel()


def test_other_files_are_not_datasets(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="not a dataset"):
        open_dataset_path(tmp_path / "data.csv")
    with pytest.raises(UserError, match="does not exist"):
        open_dataset_path(tmp_path / "mine.toml")


def test_a_manifest_saved_by_windows_is_read(manifest: Path) -> None:
    manifest.write_bytes(b"\xef\xbb\xbf" + MANIFEST.replace("\n", "\r\n").encode())
    assert open_dataset_path(manifest).slices == ("S1", "S2", "S3")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["mine.toml", "genes.txt", "s1/counts.tsv", "s1/spots.tsv"])
def test_text_in_utf_16_is_said_to_be_that(manifest: Path, name: str, encoding: str) -> None:
    manifest.write_text(MANIFEST.replace('panel = ["A", "B"]', 'panel = "genes.txt"'))
    (manifest.parent / "genes.txt").write_text("A\nB\n")
    path = manifest.parent / name
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(UserError, match=f"{path.name} is text in UTF-16, not UTF-8 - save it as UTF-8"):
        open_dataset_path(manifest).find()[0][0].read()


def test_text_in_latin_1_is_said_with_its_byte(manifest: Path) -> None:
    manifest.write_bytes(MANIFEST.replace("My sections", "Gewebe, größer").encode("latin-1"))
    with pytest.raises(UserError, match=r"mine.toml is not text in UTF-8 \(it has the byte f6\)"):
        open_dataset_path(manifest)


def test_home_and_variables_are_replaced_in_paths(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(manifest.parent))
    monkeypatch.setenv("SECTIONS", str(manifest.parent))
    monkeypatch.delenv("ELSEWHERE", raising=False)
    (manifest.parent / "genes.txt").write_text("B\nA\n")
    text = MANIFEST.replace('"s1/counts.tsv"', '"~/s1/counts.tsv"').replace('"s2"', '"${SECTIONS}/s2"')
    manifest.write_text(text.replace('panel = ["A", "B"]', 'panel = "$SECTIONS/genes.txt"'))
    dataset = open_dataset_path(manifest)
    assert dataset.panel() == ["B", "A"]
    assert [source.id for source in dataset.find()[0]] == ["S1", "S2", "S3"]
    manifest.write_text(MANIFEST.replace('"s2"', '"$ELSEWHERE/s2"'))
    with pytest.raises(UserError, match="the environment variable ELSEWHERE is not set"):
        open_dataset_path(manifest).find()


def test_common_genes_are_counted_and_too_few_of_them_refused() -> None:
    human = [f"GENE{i}" for i in range(1000)]
    few = [*human[:400], *(f"x{i}" for i in range(500))]
    panel, notices = common_genes("mine", {"S1": human, "S2": few})
    assert panel == human[:400]
    assert notices == [
        'panel = "all" are the 400 genes common to all 2 slices, 44 % of those of S2 (they list: S1 1,000, S2 900)'
    ]
    assert common_genes("mine", {"S1": human, "S2": human[:600]})[1] == []
    assert common_genes("mine", {"S1": ["A", "B"], "S2": ["B", "A", "C"]}) == (["A", "B"], [])  # all of a small one
    mouse = [name.title() for name in human]
    with pytest.raises(UserError) as caught:
        common_genes("mine", {"S1": human, "S2": human, "S3": [*human[:9], *mouse]})
    said = (
        "only 9 genes in common (they list: S1 1,000, S2 1,000, S3 1,009) - S3 writes Gene9, S1 GENE9, as of mouse and"
    )
    assert said in str(caught.value)


def test_the_slice_that_cannot_be_read_is_named_where_the_panel_needs_all(manifest: Path) -> None:
    manifest.write_text(MANIFEST.replace('panel = ["A", "B"]', 'panel = "all"'))
    (manifest.parent / "s1/counts.tsv").write_text("\tA\tB\tC\n1x1\t1\n")
    with pytest.raises(UserError, match=r"^slice S1: "):
        open_dataset_path(manifest).panel()


@pytest.mark.parametrize("panel", ['"all"', '["A", "B"]'])
def test_a_bad_slice_does_not_stop_the_check_of_the_others(manifest: Path, panel: str) -> None:
    manifest.write_text(MANIFEST.replace('["A", "B"]', panel))
    (manifest.parent / "s1/counts.tsv").write_text("\tA\tB\tC\n1x1\t1\n")
    (manifest.parent / "s3.h5ad").unlink()
    report = check_dataset(open_dataset_path(manifest))
    assert [(check.id, bool(check.errors)) for check in report.slices] == [("S1", True), ("S2", False), ("S3", True)]
    assert "line 2 has 1 values" in report.slices[0].errors[0]
    assert "s3.h5ad does not exist" in report.slices[2].errors[0]
    assert not report.sound


def test_the_check_shows_every_slice_and_ends_with_2(manifest: Path, stbench_command: Callable, tmp_path: Path) -> None:
    (manifest.parent / "s1/counts.tsv").write_text("\tA\tB\tC\n1x1\t1\n")
    done = stbench_command("data", "check", manifest, "--out", tmp_path / "pictures")
    assert done.code == 2
    assert "3/3 slices checked" in done.out
    for name in ("S1", "S2", "S3"):
        assert f"\n{name} " in done.out
    assert "error S1: " in done.out


def test_a_path_near_the_right_one_points_to_it(manifest: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is a folder with mine.toml, s3.h5ad - name one of them"):
        open_dataset_path(manifest.parent)
    with pytest.raises(UserError, match="give the folder of Space Ranger that it is in"):
        open_dataset_path(manifest.parent / "s2/filtered_feature_bc_matrix.h5")
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr/zarr.json").write_text("{}")
    with pytest.raises(UserError, match="is a Zarr store"):
        open_dataset_path(tmp_path / "s.zarr")
    (manifest.parent / "S3.H5AD").write_bytes((manifest.parent / "s3.h5ad").read_bytes())
    assert open_dataset_path(manifest.parent / "S3.H5AD").slices == ("S3",)
