"""``--patch-um``: the same field of view on every slide and for every method; without it nothing is another."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import tifffile

from stbench import registry
from stbench.cli.method_choices import with_whole_windows
from stbench.data.cache import slide_key
from stbench.data.inventory import check_dataset
from stbench.data.physical import window_of, with_patch_um
from stbench.data.prepare import prepare
from stbench.data.prepared import PreparedDataset
from stbench.dataset import Missing, SlideSource
from stbench.errors import UserError
from stbench.method import configure
from stbench.results.plan import MethodChoice
from stbench.slides.cutting import Window
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide

GENES = ["A", "B", "C"]
CENTRES = np.array([[60.7, 50.2], [50.0, 40.0], [3.0, 70.0], [70.0, 55.0]])
UM_PER_PX: dict[str, float | None] = {"fine": 0.5, "coarse": 1.0, "unknown": None}


def made(name: str) -> Slide:
    rng = np.random.default_rng(len(name))
    obs = pd.DataFrame({"array_row": [0, 0, 1, 1], "array_col": [0, 1, 0, 1], "in_tissue": 1}, index=list("wxyz"))
    adata = anndata.AnnData(scipy.sparse.csr_matrix(rng.poisson(3, (4, 3))), obs=obs, var=pd.DataFrame(index=GENES))
    adata.obsm["spatial"] = CENTRES
    adata.uns["spatial"] = {name: {"scalefactors": {}, "metadata": {}}}
    image = SlideImage.from_array(rng.integers(0, 256, (100, 80, 3)).astype(np.uint8))
    return Slide(name, f"patient {name}", adata, image, UM_PER_PX[name], um_per_px_from="its maker's word")


class Scales:
    """Slides of several resolutions."""

    name, title, slices, patch_px, how_to_get, citation = "scales", "Scales", tuple(UM_PER_PX), 16, "", ""

    def __init__(self, root: Path | None = None) -> None:
        pass

    def patient(self, slice_id: str) -> str:
        return f"patient {slice_id}"

    def panel(self) -> list[str]:
        return GENES

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        return [SlideSource(name, self.patient(name), lambda name=name: made(name)) for name in self.slices], []


def prepared(cache: Path, patch_um: float | None, slices: tuple[str, ...] = ("fine", "coarse")) -> PreparedDataset:
    return prepare(with_patch_um(Scales(), patch_um), "lognorm", cache, slices)


def test_a_window_has_the_pixels_that_its_slides_resolution_gives_and_patches_have_one_size(tmp_path: Path) -> None:
    data = prepared(tmp_path, 20)
    assert (data.name, data.title, data.patch_um) == ("scales@20um", "Scales, windows of 20 µm", 20)
    for name, side in (("fine", 40.0), ("coarse", 20.0)):
        slide = data.slides[name]
        expected, n_padded = made(name).image.cut(CENTRES, Window(side, 16))
        np.testing.assert_array_equal(slide.patches, expected)
        np.testing.assert_array_equal(slide.margins, made(name).image.margins(CENTRES, Window(side, 16)))
        assert (slide.window_px, slide.n_padded, slide.facts()["window_px"]) == (side, n_padded, side)
        assert slide.notes[-1] == (
            f"{name}: windows of 20 µm are {side:.1f} px ({UM_PER_PX[name]:g} µm per px, from its maker's word), "
            "resampled to patches of 16 px"
        )


def test_a_window_of_as_many_pixels_as_the_patch_is_cut_as_it_is(tmp_path: Path) -> None:
    slide = prepared(tmp_path, 16.3, ("coarse",)).slides["coarse"]
    np.testing.assert_array_equal(slide.patches, made("coarse").image.cut(CENTRES, 16)[0])
    assert slide.notes[-1].endswith("and are cut as they are")
    assert slide.window_px == 16


def test_without_the_option_keys_are_what_they_were(tmp_path: Path) -> None:
    """The digest stands in the keys of trials that were run before there was the option."""
    plain = Scales()
    source = plain.find()[0][0]
    assert slide_key(plain, source, GENES) == "c835210fb063000dd88fbdf3a23e599b"
    keys = {prepared(tmp_path, size, ("fine",)).slides["fine"].key for size in (None, 8, 20, 20.5)}
    assert len(keys) == 4
    assert slide_key(plain, source, GENES) in keys


def test_a_slide_of_unknown_resolution_is_asked_for_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"slice unknown: how many µm a pixel is .* give um_per_px in"):
        prepared(tmp_path, 20, ("unknown",))
    path = tmp_path / "tagged.tif"
    tifffile.imwrite(
        path, made("fine").image.read(), photometric="rgb", resolution=(20_000, 20_000), resolutionunit="centimeter"
    )
    tagged = replace(made("unknown"), image=SlideImage.from_file(path))
    with pytest.raises(UserError, match=r"give um_per_px \(by the XResolution of its TIFF tags, .*, 0\.5\) in"):
        window_of(tagged, with_patch_um(Scales(), 20))
    found = {check.id: check for check in check_dataset(with_patch_um(Scales(), 20)).slices}
    assert any("give um_per_px" in text for text in found["unknown"].errors)
    assert found["fine"].errors == []
    assert any("windows of 20 µm are 40.0 px" in text for text in found["fine"].notices)


@pytest.mark.parametrize("size", [0.4, 60.0])
def test_a_window_smaller_than_a_pixel_or_larger_than_the_image_is_refused(size: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"and its image 100 px - check um_per_px"):
        prepared(tmp_path, size, ("fine",))


@pytest.mark.parametrize("size", [0.0, -3.0, float("nan"), float("inf")])
def test_what_is_no_size_is_refused(size: float) -> None:
    with pytest.raises(UserError, match="is no size of a window"):
        with_patch_um(Scales(), size)


def test_every_method_sees_the_whole_window_at_the_size_of_its_own_input() -> None:
    histogene, stnet, mean = (registry.method(name) for name in ("histogene", "stnet", "training_mean"))
    base = MethodChoice("histogene", histogene, "published", {}, configure(histogene))
    other = MethodChoice("histogene", histogene, "published", {"lr": 0.5}, configure(histogene), trained_by=base)
    named = MethodChoice("stnet", stnet, "published", {"patch_px": 100}, configure(stnet, changes={"patch_px": 100}))
    control = MethodChoice("training_mean", mean, "published", {}, configure(mean))
    found = with_whole_windows([base, other, named, control], 224)
    assert (found[0].config.patch_px, found[0].config.input_px) == (224, 112)  # its own 112 px, of the whole window
    assert found[1].trained_by is found[0]
    assert found[2].config == named.config  # asked for by name
    assert found[3].config == control.config
    both = replace(base, changes={"patch_um": 50.0}, config=configure(histogene, changes={"patch_um": 50.0}))
    with pytest.raises(UserError, match=r"--patch-um and histogene\.patch_um both set"):
        with_whole_windows([both], 224)


def test_numbers_with_and_without_stand_in_sections_of_their_own(tmp_path: Path, stbench_command: Callable) -> None:
    words = ("run", "--methods", "colour_ridge", "--dataset", "demo", "--slices", "P1a,P2a", "--no-mlflow")
    assert stbench_command(*words, "--out", tmp_path / "r").code == 0
    with_size = stbench_command(*words, "--patch-um", 40, "--out", tmp_path / "r")
    assert with_size.code == 0
    said = with_size.out + with_size.err
    assert "P1a: windows of 40 µm are 40.0 px (1 µm per px), resampled to patches of 64 px" in said
    run = json.loads((tmp_path / "r" / "run.json").read_text(encoding="utf-8"))
    assert {(section["dataset"]["name"], section["patch_um"]) for section in run["sections"]} == {
        ("demo", None),
        ("demo@40um", 40.0),
    }
    assert len(run["trials"]) == 4
    assert run["superseded"] == {}
    summary = pd.read_csv(tmp_path / "r" / "summary.csv")
    assert summary.groupby("dataset")["pcc_acg"].first().nunique() == 2

    from stbench.reports.sections.read import load
    from stbench.reports.tables.main import slides_table
    from stbench.reports.words.warnings import _windows

    by_name = {section.dataset: section for section in load([tmp_path / "r"])}
    assert "px of 40 µm" in slides_table(by_name["demo@40um"]).columns
    assert "px of 40 µm" not in slides_table(by_name["demo"]).columns
    (said,) = _windows(by_name["demo@40um"], pd.DataFrame())
    assert "P1a (40.0 px)" in said
    assert list(_windows(by_name["demo"], pd.DataFrame())) == []
