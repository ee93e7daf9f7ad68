"""The reader of HEST samples, on miniatures in the makers' layout whose spots are painted on the slide."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from spoilt_files import accepted_or_refused, part_replaced, replacements

from stbench.datasets.readers.hest.files import find
from stbench.datasets.readers.hest.sample import read
from stbench.datasets.readers.table import recognised
from stbench.errors import UserError
from stbench.slides.checks import check_slide
from stbench.slides.cutting import Window
from stbench.slides.slide import Slide

PITCH_UM, UM = 100.0, 1.25
PITCH = PITCH_UM / UM  # px
SIDE_UM = 112.0  # of a patch


@dataclass
class Sample:
    """A Visium sample as HEST writes it: 30 spots, of which three lie beside the tissue."""

    root: Path
    name: str = "TENX13"
    metadata: dict[str, Any] = field(default_factory=dict)
    order: np.ndarray = field(init=False)  # of the patches

    def __post_init__(self) -> None:
        rng = np.random.default_rng(2)
        row, column = np.arange(30) // 5, 2 * (np.arange(30) % 5) + (np.arange(30) // 5) % 2
        self.places = np.column_stack([column, row])
        self.centres = np.column_stack([120.4 + column * PITCH / 2, 110.7 + row * PITCH * np.sqrt(3) / 2])
        self.counts = rng.poisson(9, (30, 5))
        self.names = [f"ACGT{i:02d}-1" for i in range(30)]
        self.size = (600, 560)
        image = np.full((self.size[1], self.size[0], 3), 235, dtype=np.uint8)
        image[60:540, 60:560] = (190, 110, 160)
        for (x, y), colour in zip(np.floor(self.centres).astype(int), self.colours, strict=True):
            image[y - 8 : y + 8, x - 8 : x + 8] = colour
        self.image = image
        self.order = rng.permutation(27)
        self.metadata = {
            "id": self.name, "patient": "Patient 7", "st_technology": "Visium", "inter_spot_dist": 100.0,
            "spot_diameter": 55.0, "pixel_size_um_estimated": UM * 1.001, "pixel_size_um_embedded": UM / 10,
            "fullres_px_width": self.size[0], "fullres_px_height": self.size[1], "subseries": None,
        } | self.metadata  # fmt: skip

    @property
    def colours(self) -> np.ndarray:
        number = np.arange(30)
        return np.column_stack([20 + 5 * number, 90 - 3 * number, 200 - 4 * number]).astype(np.uint8)

    @property
    def expression(self) -> Path:
        return self.root / "st" / f"{self.name}.h5ad"

    @property
    def patches(self) -> Path:
        return self.root / "patches" / f"{self.name}.h5"

    def write(self, folder: str = "st", barcode: str = "barcode") -> Sample:
        for part in (folder, "wsis", "patches", "metadata"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        adata = AnnData(sparse.csr_matrix(self.counts.astype(np.float32)))
        adata.obs_names, adata.var_names = self.names, [f"G{i}" for i in range(5)]
        adata.obs["in_tissue"], adata.obs["array_row"], adata.obs["array_col"] = True, *self.places[:, ::-1].T
        adata.obs["pxl_col_in_fullres"], adata.obs["pxl_row_in_fullres"] = self.centres.T
        adata.obsm["spatial"] = self.centres
        small = self.image[::2, ::2]
        factors = {"tissue_downscaled_fullres_scalef": 0.5, "spot_diameter_fullres": 55.0 / UM}
        adata.uns["spatial"] = {"ST": {"images": {"downscaled_fullres": small}, "scalefactors": factors}}
        adata.write_h5ad(self.root / folder / f"{self.name}.h5ad")
        # the tags are ten times too small, as in some of the collection
        per_cm = 10_000 / (UM / 10)
        tifffile.imwrite(
            self.root / "wsis" / f"{self.name}.tif", self.image, tile=(64, 64), photometric="rgb",
            resolution=(per_cm, per_cm), resolutionunit="CENTIMETER",
        )  # fmt: skip
        (self.root / "metadata" / f"{self.name}.json").write_text(json.dumps(self.metadata))
        self.write_patches(barcode)
        return self

    def write_patches(self, barcode: str = "barcode") -> None:
        """Of the spots on tissue, in an order of their own, resampled to 224 px."""
        from PIL import Image

        side = SIDE_UM / UM
        corners = np.rint(self.centres[self.order] - side / 2).astype(int)
        framed = Image.fromarray(np.pad(self.image, ((100, 100), (100, 100), (0, 0)), constant_values=255))
        boxes = [(x + 100, y + 100, x + 100 + side, y + 100 + side) for x, y in corners]
        images = [np.asarray(framed.resize((224, 224), Image.Resampling.BICUBIC, box=box)) for box in boxes]
        with h5py.File(self.patches, "w") as file:
            file.create_dataset("img", data=np.stack(images), chunks=(1, 224, 224, 3))
            file["coords"] = corners
            file[barcode] = np.array([[self.names[i]] for i in self.order], dtype="S")


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return Sample(tmp_path / "hest").write()


def read_sample(sample: Sample, **options: Any) -> Slide:
    return read("S1", "P1", find(sample.expression, "S1"), **options)


def painted(slide: Slide, colours: np.ndarray, px: int = 8) -> None:
    windows, _ = slide.image.cut(slide.centres, px)
    middle = windows[:, px // 2 - 1 : px // 2 + 1, px // 2 - 1 : px // 2 + 1].astype(int)
    np.testing.assert_allclose(middle, np.broadcast_to(colours[:, None, None].astype(int), middle.shape), atol=3)


def test_a_sample_is_read_over_its_whole_slide_image(sample: Sample) -> None:
    slide = read_sample(sample)
    assert slide.spot_ids == sample.names
    np.testing.assert_array_equal(slide.adata.X.toarray(), sample.counts)
    np.testing.assert_allclose(slide.centres, sample.centres)
    painted(slide, sample.colours)
    assert slide.um_per_px == pytest.approx(UM, rel=1e-6), "as the array's pitch says"
    assert slide.um_per_px_from == "the spots' pitch of 100 µm"
    assert slide.image.size == sample.size
    assert any("its metadata say pixel_size_um_embedded 0.125" in note for note in slide.notes)
    told = [problem.text for problem in check_slide(slide)]
    assert any("0.1 times the 1.25 µm that the slide is read with" in text for text in told)
    assert not any("spot_diameter" in text for text in told)


@pytest.mark.parametrize(("folder", "barcode"), [("st", "barcode"), ("adata", "barcodes")])
def test_without_the_image_windows_are_cut_from_the_patches(tmp_path: Path, folder: str, barcode: str) -> None:
    sample = Sample(tmp_path / "hest").write(folder, barcode)
    (sample.root / "wsis/TENX13.tif").unlink()
    whole = read("S1", "P1", find(sample.root / folder / "TENX13.h5ad", "S1", sample_image(sample)))
    slide = read("S1", "P1", find(sample.root / folder / "TENX13.h5ad", "S1"))
    assert slide.spot_ids == sample.names[:27]
    assert any("3 of 30 spots have no patch and are left out" in note for note in slide.notes)
    assert any("windows are cut from its patches (TENX13.h5)" in note for note in slide.notes)
    painted(slide, sample.colours[:27])
    np.testing.assert_array_equal(slide.adata.X.toarray(), sample.counts[:27])
    ours, padded = slide.image.cut(slide.centres, 88)
    theirs, _ = whole.image.cut(slide.centres, 88)
    assert padded == 0
    assert np.abs(ours.astype(int) - theirs).mean() < 3
    assert check_slide(slide) == []
    assert slide.image.thumbnail(300).shape == (280, 300, 3)
    ours, theirs = (image.thumbnail(100)[20:60, 20:60].astype(int) for image in (slide.image, whole.image))
    assert np.median(np.abs(ours - theirs)) < 5
    with pytest.raises(UserError, match=r"a window of 112 .* is larger than the patches .* \(89.\d+ px\)"):
        slide.image.cut(slide.centres, 112)
    with pytest.raises(UserError, match="is larger than the patches"), slide.image.opened(Window.plain(112)):
        pass


def sample_image(sample: Sample) -> Path:
    path = sample.root / "he.tif"
    tifffile.imwrite(path, sample.image, photometric="rgb")
    return path


def test_without_any_picture_one_is_asked_for(sample: Sample) -> None:
    (sample.root / "wsis/TENX13.tif").unlink()
    sample.patches.unlink()
    with pytest.raises(UserError, match=r"neither wsis/TENX13.tif nor patches/TENX13.h5 .* --image"):
        read_sample(sample)


# --- the size of a pixel ----------------------------------------------------------------------------------------------

SIZES = {
    "her2st": (
        {"st_technology": "Spatial Transcriptomics"}, UM * 1.001, "pixel_size_um_estimated of its metadata", None,
    ),
    "cSCC": (
        {"st_technology": "Spatial Transcriptomics", "inter_spot_dist": 110.0, "spot_diameter": 150.0},
        None, "", "spots of 150 µm at a distance of 110 µm, which cannot be",
    ),
    "wrong by ten": (
        {"pixel_size_um_estimated": UM / 10},
        UM, "the spots' pitch of 100 µm", "a pixel is 1.25 µm wide, which is taken; its metadata say pixel_size_um_est",
    ),
    "Xenium, pooled": (
        {"st_technology": "Xenium", "inter_spot_dist": None, "pixel_size_um_embedded": UM * 1.002},
        UM * 1.001, "pixel_size_um_estimated of its metadata", None,
    ),
    "contradiction": (
        {"st_technology": "Xenium", "inter_spot_dist": None, "pixel_size_um_embedded": UM * 2},
        UM * 1.001, "pixel_size_um_estimated of its metadata", "its metadata contradict each other",
    ),
    "nothing": (
        {"st_technology": None, "inter_spot_dist": None, "pixel_size_um_estimated": float("nan"),
         "pixel_size_um_embedded": None},
        None, "", None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SIZES)
def test_the_sizes_of_a_pixel_are_held_against_each_other(tmp_path: Path, case: str) -> None:
    metadata, um, source, note = SIZES[case]
    slide = read_sample(Sample(tmp_path / "hest", metadata=metadata).write())
    assert slide.um_per_px == (None if um is None else pytest.approx(um, rel=1e-6))
    assert slide.um_per_px_from == source
    assert note is None or any(note in said for said in slide.notes)


# --- found and imported -----------------------------------------------------------------------------------------------


def test_samples_are_imported_by_file_and_by_folder_with_the_patient_of_the_metadata(
    sample: Sample, tmp_path: Path, stbench_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path / "data"))
    for place in (sample.expression, sample.root):
        found = recognised(place)
        assert found is not None
        assert found[0].name == "hest"
    done = stbench_command("data", "import", sample.expression, "--as", "mine")
    assert done.code == 0, done.err
    assert "Patient-7" in done.out + (tmp_path / "data/cohorts/mine/cohort.toml").read_text()
    done = stbench_command("data", "import", sample.root, "--as", "other", "--slice", "TENX13")
    assert done.code == 0, done.err
    for words in ((), ("--patient", "P"), ("--slice", "TENX99")):
        done = stbench_command("data", "import", sample.root, "--as", "third", *words)
        assert done.code == 2
        assert "--slice: " in done.err
        assert "one of its slices (TENX13)" in done.err
    Sample(tmp_path / "hest", "TENX14", {"patient": None}).write()
    done = stbench_command("data", "import", tmp_path / "hest/st/TENX14.h5ad", "--as", "mine")
    assert done.code == 2
    assert "--patient: is missing" in done.err


# --- spoilt files -----------------------------------------------------------------------------------------------------


def put(path: Path, text: str) -> None:
    path.write_text(text)


def edit_patches(name: str, edit: Callable[[np.ndarray], np.ndarray]) -> Callable[[Sample], None]:
    def spoil(sample: Sample) -> None:
        with h5py.File(sample.patches, "r+") as file:
            value = edit(file[name][...])
            del file[name]
            file[name] = value

    return spoil


SPOILT: dict[str, tuple[Callable[[Sample], None], str]] = {
    "barcodes in another order": (edit_patches("barcode", lambda names: names[::-1]), "do not lie around the spots"),
    "barcodes of another sample": (edit_patches("barcode", lambda names: np.char.add(b"X", names)), "none of the 30"),
    "a barcode twice": (edit_patches("barcode", lambda names: names[[0, *range(26)]]), "more than one patch"),
    "fewer barcodes": (edit_patches("barcode", lambda names: names[:5]), "and 5 barcodes, not"),
    "corners that are NaN": (edit_patches("coords", lambda xy: xy * np.nan), "fetch it again"),
    "corners of another number": (edit_patches("coords", lambda xy: xy[:3]), "corners (3, 2)"),
    "floating images": (edit_patches("img", lambda images: images / 255.0), "float64"),
    "grey images": (edit_patches("img", lambda images: images[..., 0]), "holds images (27, 224, 224)"),
    "no images": (lambda sample: h5py.File(sample.patches, "w").close(), "does not hold patches"),
    "no HDF5": (lambda sample: put(sample.patches, "no"), "TENX13.h5"),
    "metadata in prose": (lambda sample: put(sample.root / "metadata/TENX13.json", "x"), "not valid JSON"),
    "a list of metadata": (lambda sample: put(sample.root / "metadata/TENX13.json", "[]"), "not a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOILT)
def test_a_spoilt_sample_is_refused_in_one_line(sample: Sample, fault: str) -> None:
    (sample.root / "wsis/TENX13.tif").unlink()
    spoil, said = SPOILT[fault]
    spoil(sample)
    with pytest.raises(UserError) as refusal:
        read_sample(sample)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


values = st.none() | st.booleans() | st.floats() | st.integers(-1, 2**70) | st.text(max_size=5) | st.just([100.0])


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["st_technology", "inter_spot_dist", "spot_diameter", "pixel_size_um_estimated", "patient",
                          "pixel_size_um_embedded", "fullres_px_width"]),
    value=values,
    whole=st.booleans(),
)  # fmt: skip
def test_any_metadata_are_read_or_refused(sample: Sample, name: str, value: Any, whole: bool) -> None:
    wsi = sample.root / "wsis/TENX13.tif"
    files = find(sample.expression, "S1", wsi if whole else None)
    if not whole:
        files = type(files)(files.sample, files.expression, None, sample.patches, files.metadata)
    assert files.metadata is not None
    files.metadata.write_text(json.dumps({**sample.metadata, name: value}))
    with accepted_or_refused():
        slide = read("S1", "P1", files)
        assert slide.um_per_px is None or 0 < slide.um_per_px < float("inf")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(patches=st.booleans(), number=st.integers(0, 100), how=replacements)
def test_any_part_of_a_file_may_be_of_another_kind(sample: Sample, patches: bool, number: int, how: str) -> None:
    files = find(sample.expression, "S1")
    files = type(files)(files.sample, files.expression, None, sample.patches, files.metadata)
    with part_replaced(sample.patches if patches else sample.expression, number, how), accepted_or_refused():
        slide = read("S1", "P1", files)
        slide.image.cut(slide.centres[:3], 16)
