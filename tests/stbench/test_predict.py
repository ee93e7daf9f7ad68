"""``stbench predict``: a trained model on an image that nobody measured, at given spots or on a grid."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import own_sections
import pandas as pd
import pytest
import tifffile
from PIL import Image

from stbench.cli import main
from stbench.datasets.demo import sections, tissue
from stbench.errors import UserError
from stbench.inference.spots import read_spots
from stbench.models.outside import colour_distance, unlike_in_colour
from stbench.slides.patch_colours import PatchColours, patch_colours

METHODS = "colour_ridge,histogene"
SMALL = {"epochs": 1, "width": 8, "heads": 1, "head_width": 8, "n_layers": 1}
TINY = [word for name, value in SMALL.items() for word in ("--set", f"histogene.{name}={value}")]


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    return int(left.value.code or 0)


def models_of(results: Path) -> Mapping[tuple[str, str], Path]:
    """The model folders by method and fold."""
    found = {}
    for path in results.glob("trials/*/model/model.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        found[facts["name"], facts["fold"]] = path.parent
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods trained on two sections of the demo, with their models."""
    os.environ["STBENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "stbench-cache")
    place = tmp_path_factory.mktemp("demo") / "r"
    common = ("--dataset", "demo", "--slices", "P1a,P1b", "--preset", "quick", "--no-mlflow", "--save-models")
    assert call("run", "--methods", METHODS, *TINY, *common, "--out", place) == 0
    return place


@pytest.fixture(scope="module")
def seventh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a section that the demo does not have: its image, with and without the size of a pixel, and spots.

    It is drawn by the demo's generator, of patient P2, from another seed.
    """
    folder = tmp_path_factory.mktemp("seventh")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "SLICES", (*sections.SLICES, "P2c"))
        drawn = sections.section("P2c")
    per_cm = (10_000 / tissue.UM_PER_PX,) * 2
    tifffile.imwrite(folder / "P2c.tif", drawn.image, resolution=per_cm, resolutionunit="CENTIMETER")
    Image.fromarray(drawn.image).save(folder / "P2c.png")
    array = {"array_col": drawn.array_xy[:, 0], "array_row": drawn.array_xy[:, 1]}
    spots = pd.DataFrame({"x": drawn.centres[:, 0], "y": drawn.centres[:, 1], **array})
    spots.to_csv(folder / "spots.csv", index=False)
    return folder


@pytest.fixture
def predict(tmp_path: Path, stbench_command: Callable) -> Callable[..., Any]:
    """``predict(*options)``: the command's end, with what it wrote."""

    def run(*options: object) -> Any:
        out = tmp_path / f"predicted{len(list(tmp_path.iterdir()))}.h5ad"
        done = stbench_command("predict", *options, "--out", out)
        assert done.code == 0, done.err
        table = anndata.read_h5ad(out)
        notes = list(table.uns["stbench"]["notes"])
        return SimpleNamespace(out=done.out, err=done.err, table=table, notes=notes, path=out)

    return run


def test_a_grid_and_given_spots_agree_where_they_share_spots(demo: Path, seventh: Path, predict: Callable) -> None:
    model = models_of(demo)["colour_ridge", "P1a"]
    grid = predict("--model", model, "--slide", seventh / "P2c.tif", "--pitch-um", 60, "--grid", "square")
    table = grid.table
    assert 100 < table.n_obs < 250
    assert any("60 µm has" in note for note in grid.notes)
    assert "a pixel of the image is 1 µm wide by its file's XResolution of its TIFF tags" in grid.notes
    some = table[::3]
    spots = seventh / "some.csv"
    positions = pd.DataFrame(some.obsm["spatial"], columns=["pixel_x", "pixel_y"])
    positions.assign(spot=list(some.obs_names)).to_csv(spots, index=False)
    given = predict("--model", model, "--slide", seventh / "P2c.png", "--um-per-px", 1, "--spots", spots)
    assert list(given.table.obs_names) == list(some.obs_names)
    np.testing.assert_array_equal(given.table.X, some.X)
    again = predict("--model", model, "--slide", seventh / "P2c.png", "--um-per-px", 1, "--spots", grid.path)
    np.testing.assert_array_equal(again.table.X, table.X)
    np.testing.assert_array_equal(again.table.obs[["array_col", "array_row"]], table.obs[["array_col", "array_row"]])


def test_the_file_is_as_scanpy_and_squidpy_want_it(demo: Path, seventh: Path, predict: Callable) -> None:
    done = predict("--model", models_of(demo)["colour_ridge", "P1a"], "--slide", seventh / "P2c.tif")
    table, about = done.table, done.table.uns["stbench"]
    assert list(table.uns["spatial"]) == ["P2c"]
    section = table.uns["spatial"]["P2c"]
    image = np.asarray(Image.open(seventh / "P2c.png"))
    np.testing.assert_array_equal(section["images"]["hires"], image)
    assert max(section["images"]["lowres"].shape) == 600
    assert section["scalefactors"]["tissue_hires_scalef"] == 1.0
    assert section["scalefactors"]["tissue_lowres_scalef"] == 0.6
    assert section["scalefactors"]["spot_diameter_fullres"] == 55.0  # of the spots that the model was trained on
    assert table.X.dtype == np.float32
    assert (about["method"], about["target"], about["window_px"]) == ("colour_ridge", "spot-log10-cp10k", 64)
    (model,) = map(json.loads, about["models"])
    assert (model["fold"], model["train"]) == ("P1a", ["P1b"])
    assert list(table.var_names) == model["genes"]


def test_squidpy_draws_it(demo: Path, seventh: Path, predict: Callable) -> None:
    squidpy = pytest.importorskip("squidpy", reason="squidpy is not installed: it is no dependency, and a heavy one")
    import matplotlib.pyplot as plt

    done = predict("--model", models_of(demo)["colour_ridge", "P1a"], "--slide", seventh / "P2c.tif")
    squidpy.pl.spatial_scatter(done.table, color=done.table.var_names[0])
    axes = plt.gcf().axes[0]
    assert len(axes.images) == 1
    assert axes.collections
    plt.close("all")


def test_several_models_are_averaged_with_their_spread(demo: Path, seventh: Path, predict: Callable) -> None:
    found = models_of(demo)
    both = [found["histogene", fold] for fold in ("P1a", "P1b")]
    slide = ("--slide", seventh / "P2c.tif", "--spots", seventh / "spots.csv")
    alone = [predict("--model", model, *slide) for model in both]
    assert all("std" not in done.table.layers for done in alone)
    values = np.stack([done.table.X for done in alone]).astype(np.float64)
    mean = predict("--model", both[0], "--model", both[1], *slide)
    np.testing.assert_allclose(mean.table.X, values.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(mean.table.layers["std"], values.std(axis=0, ddof=1), rtol=1e-5, atol=1e-7)
    assert mean.table.layers["std"].max() > 0
    assert "mean of 2 models with their spread in layers['std']" in mean.out
    by_method = predict("--model", demo, "--method", "histogene", *slide)
    np.testing.assert_array_equal(by_method.table.X, mean.table.X)


def test_an_image_of_another_scale_has_the_same_windows_and_says_so(
    demo: Path, seventh: Path, tmp_path: Path, predict: Callable
) -> None:
    model = models_of(demo)["colour_ridge", "P1a"]
    fine = tmp_path / "fine.png"
    with Image.open(seventh / "P2c.png") as picture:
        picture.resize((2000, 2000), Image.Resampling.NEAREST).save(fine)
    spots = pd.read_csv(seventh / "spots.csv")
    spots[["x", "y"]] *= 2
    spots.to_csv(tmp_path / "fine.csv", index=False)
    slide = ("--slide", seventh / "P2c.png", "--um-per-px", 1, "--spots", seventh / "spots.csv")
    plain = predict("--model", model, *slide)
    assert plain.notes == []
    other = predict("--model", model, "--slide", fine, "--um-per-px", 0.5, "--spots", tmp_path / "fine.csv")
    assert other.notes == [
        "a pixel of the image is 0.5 µm, in training it was 1",
        "windows of 64 µm, as in training, are 128.0 px here (0.5 µm per px, as given) and were resampled to 64 px",
    ]
    assert other.err.count("note: ") == 2
    unlike = np.abs(other.table.X - plain.table.X).mean() / np.std(plain.table.X, axis=0).mean()
    assert unlike < 0.1  # the finer image has edges of its own


def test_an_image_of_other_colours_says_so(demo: Path, seventh: Path, tmp_path: Path, predict: Callable) -> None:
    with Image.open(seventh / "P2c.png") as picture:
        Image.fromarray(np.asarray(picture)[..., ::-1] // 4).save(tmp_path / "dark.png")
    slide = ("--um-per-px", 1, "--spots", seventh / "spots.csv")
    done = predict("--model", models_of(demo)["colour_ridge", "P1a"], "--slide", tmp_path / "dark.png", *slide)
    (note,) = (note for note in done.notes if "colours" in note)
    assert "times the spread of the training patches away from theirs" in note
    assert f"note: {note}" in done.err


def test_genes_that_no_model_predicts_are_named(demo: Path, seventh: Path, predict: Callable) -> None:
    model = models_of(demo)["colour_ridge", "P1a"]
    slide = ("--slide", seventh / "P2c.tif", "--spots", seventh / "spots.csv")
    whole = predict("--model", model, *slide).table
    first, last = whole.var_names[0], whole.var_names[-1]
    some = predict("--model", model, *slide, "--genes", f"{last},UNKNOWN,{first}")
    assert list(some.table.var_names) == [last, first]
    np.testing.assert_array_equal(some.table.X, whole[:, [last, first]].X)
    assert "1 of 3 genes are not of the model's panel of 114 and are left out: UNKNOWN" in some.notes


def test_a_section_with_spots_of_its_own_is_predicted_there(demo: Path, predict: Callable) -> None:
    done = predict("--model", models_of(demo)["colour_ridge", "P1a"], "--slide", "demo", "--slice", "P1a")
    (trial,) = {path.parents[1] for path in demo.glob("trials/*/predictions/P1a.h5ad")} & {
        models_of(demo)["colour_ridge", "P1a"].parent
    }
    own = anndata.read_h5ad(trial / "predictions" / "P1a.h5ad")
    np.testing.assert_array_equal(done.table.X, own.X)
    assert list(done.table.obs_names) == list(own.obs_names)


def test_predictions_of_trials_have_a_picture_under_their_spots(demo: Path) -> None:
    path = next(iter(demo.glob("trials/*/predictions/P1a.h5ad")))
    table = anndata.read_h5ad(path)
    section = table.uns["spatial"]["P1a"]
    hires, factors = section["images"]["hires"], section["scalefactors"]
    assert max(hires.shape) == 300
    assert factors["tissue_hires_scalef"] == pytest.approx(0.3)
    assert factors["spot_diameter_fullres"] == 55.0
    x, y = np.floor(table.obsm["spatial"] * factors["tissue_hires_scalef"]).astype(int).T
    assert hires[y, x].mean() < 0.95 * hires[[0, 0, -1, -1], [0, -1, 0, -1]].mean()  # tissue, not glass


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--slide", "P2c.png", "--spots", "spots.csv"), "give it with --um-per-px (1 in training)"),
        (("--slide", "P2c.png"), "a grid has a pitch in µm - give it with --um-per-px"),
        (("--slide", "P2c.tif", "--um-per-px", "50"), "a pitch of 100 µm is 2.0 px"),
        (("--slide", "P2c.tif", "--um-per-px", "0"), "--um-per-px 0 is no length"),
        (("--slide", "gone.svs"), "gone.svs"),
        (("--slide", "demo"), "demo has 6 slices - choose one with --slice (P1a, P1b"),
        (("--slide", "demo", "--slice", "P9"), "unknown slice of demo 'P9'"),
        (("--slide", "P2c.tif", "--spots", "P2c.png"), "P2c.png is not text"),
        (("--slide", "P2c.tif", "--spots", "beyond.csv"), "1 of 2 spot centres lie outside"),
        (("--slide", "P2c.tif", "--spots", "nameless.csv"), "no columns of positions (it has a, b)"),
        (("--slide", "P2c.tif", "--spots", "spots.csv", "--grid", "square"), "give one or the other"),
        (("--slide", "P2c.tif", "--genes", "NONE"), "unknown gene of Ridge on colour's panel 'NONE'"),
    ],
)  # fmt: skip
def test_what_cannot_be_predicted_is_one_line_and_writes_nothing(
    demo: Path, seventh: Path, tmp_path: Path, stbench_command: Callable, options: tuple[str, ...], said: str
) -> None:
    (seventh / "beyond.csv").write_text("x,y\n500,500\n5000,500\n", encoding="utf-8")
    (seventh / "nameless.csv").write_text("a,b\n500,500\n", encoding="utf-8")
    words = [seventh / word if (seventh / word).is_file() or word == "gone.svs" else word for word in options]
    model = models_of(demo)["colour_ridge", "P1a"]
    done = stbench_command("predict", "--model", model, *words, "--out", tmp_path / "o.h5ad")
    assert done.code == 2
    (line,) = (line for line in done.err.splitlines() if not line.startswith("note: "))
    assert said in line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"oracle": True}, "it is given the total counts of the spots that it predicts (an oracle)"),
        ({"leak": "its keys hold them"}, "it sees the expression that it predicts (its keys hold them)"),
        ({"same_patient": True}, "it copies other sections of the same patient"),
    ],
)
def test_what_needs_more_than_an_image_is_refused(
    demo: Path, seventh: Path, tmp_path: Path, stbench_command: Callable, facts: dict[str, object], said: str
) -> None:
    copied = Path(shutil.copytree(models_of(demo)["colour_ridge", "P1a"], tmp_path / "model"))
    path = copied / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | facts), encoding="utf-8")
    done = stbench_command("predict", "--model", copied, "--slide", seventh / "P2c.tif", "--out", tmp_path / "o.h5ad")
    assert done.code == 2
    assert f"cannot predict from an image: {said}" in done.err


def test_models_that_differ_are_not_averaged(
    demo: Path, seventh: Path, tmp_path: Path, stbench_command: Callable
) -> None:
    found = models_of(demo)
    ridge = found["colour_ridge", "P1a"]
    command = ("predict", "--slide", seventh / "P2c.tif", "--out", tmp_path / "o.h5ad", "--model", ridge, "--model")
    assert (
        "differ in their method - only folds and seeds of one method"
        in stbench_command(*command, found["histogene", "P1a"]).err
    )
    assert "is the same model as" in stbench_command(*command, ridge.parent).err
    other = Path(shutil.copytree(found["colour_ridge", "P1b"], tmp_path / "other"))
    facts = json.loads((other / "model.json").read_text(encoding="utf-8"))
    for name, value in (("genes", facts["genes"][::-1]), ("target", "another"), ("patch_um", 50.0)):
        (other / "model.json").write_text(json.dumps(facts | {name: value}), encoding="utf-8")
        what = {"genes": "panel", "target": "target", "patch_um": "windows"}[name]
        assert f"differ in their {what}" in stbench_command(*command, other).err
    assert "choose a method of it with --method (colour_ridge, histogene)" in stbench_command(*command, demo).err


def test_the_file_of_an_earlier_prediction_stays_until_the_next_is_whole(
    demo: Path, seventh: Path, tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "o.h5ad"
    out.write_bytes(b"earlier")
    model = models_of(demo)["colour_ridge", "P1a"]
    command = ("predict", "--model", model, "--slide", seventh / "P2c.tif", "--spots")
    with monkeypatch.context() as patch:
        patch.setattr("stbench.system.files.flush", _full)
        assert "the disk is full" in stbench_command(*command, seventh / "spots.csv", "--out", out).err
    assert out.read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["o.h5ad"]
    for wrong, said in ((tmp_path, "ends in .h5ad"), (tmp_path / "o.csv", "ends in .h5ad")):
        assert said in stbench_command(*command, seventh / "spots.csv", "--out", wrong).err
    assert "is a file that is read - give another name" in stbench_command(*command, out, "--out", out).err


def _full(path: Path) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("method", ["colour_ridge", "histogene"])
def test_the_jpeg_of_a_held_out_section_gives_the_trials_own_prediction(
    tmp_path: Path, predict: Callable, method: str
) -> None:
    manifest = own_sections.write_manifest(tmp_path / "own", {"S1": "P1", "S2": "P2", "S3": "P3"})
    small = TINY if method == "histogene" else []
    common = ("--dataset", manifest, "--only-folds", "S3", "--no-mlflow", "--save-models")
    assert call("run", "--methods", method, *small, *common, "--out", tmp_path / "r") == 0
    (trial,) = (tmp_path / "r" / "trials").iterdir()
    own = anndata.read_h5ad(trial / "predictions" / "S3.h5ad")
    image, spots = (tmp_path / "own" / name for name in ("section2.jpg", "section2_spots.tsv"))
    done = predict("--model", trial, "--slide", image, "--spots", spots)
    assert list(done.table.obs_names) == list(own.obs_names)
    np.testing.assert_array_equal(done.table.X, own.X)
    assert "how large a pixel is is known neither of the image nor of the training slides" in done.notes


@pytest.mark.parametrize(
    "text",
    [
        "AA-1,0,0,0,10,20\nAC-1,1,3,5,30,40\nAG-1,1,4,6,50,60\n",
        "barcode,in_tissue,array_row,array_col,pxl_row_in_fullres,pxl_col_in_fullres\n"
        "AA-1,0,0,0,10,20\nAC-1,1,3,5,30,40\nAG-1,1,4,6,50,60\n",
        "spot\tx\ty\tpixel_x\tpixel_y\tselected\nAA-1\t0\t0\t20\t10\t0\nAC-1\t5\t3\t40\t30\t1\nAG-1\t6\t4\t60\t50\t1\n",
        ",x,y,array_col,array_row\nAC-1,40,30.0,5,3\nAG-1,60,50.0,6,4\n",
    ],
    ids=["Space Ranger 1", "Space Ranger 2", "first generation", "plain"],
)
def test_tables_of_positions_are_told_by_their_columns(tmp_path: Path, text: str) -> None:
    (tmp_path / "spots").write_text(text, encoding="utf-8")
    spots = read_spots(tmp_path / "spots")
    assert spots.names == ("AC-1", "AG-1")
    assert spots.centres.tolist() == [[40.0, 30.0], [60.0, 50.0]]
    assert spots.array_xy.tolist() == [[5, 3], [6, 4]]
    assert (spots.diameter, spots.notes) == (None, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y\n", "lists no spot on tissue"),
        ("x,y\n1,2\n3,\n", "spot 2 has no position"),
        ("x,y\n1,2\n3,east\n", "y must be numbers"),
        ("spot,x,y\nA,1,2\nA,3,4\n", "names the spot A more than once"),
        ("x,y,array_col,array_row\n1,2,0,0\n3,4,,0\n", "of a spot is missing"),
    ],
)
def test_positions_that_are_none_are_one_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "spots.csv").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as raised:
        read_spots(tmp_path / "spots.csv")
    assert "\n" not in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["colour_ridge", "histogene"])
def test_a_real_section_is_predicted_from_its_jpeg_as_by_its_trial(
    data_root: Path, tmp_path: Path, predict: Callable, method: str
) -> None:
    """Trained on five HER2+ sections, the sixth predicted."""
    small = [*TINY, "--set", "histogene.input_px=16"] if method == "histogene" else []
    common = ("--dataset", "her2st", "--data", data_root, "--only-folds", "C6", "--no-mlflow", "--save-models")
    assert call("run", "--methods", method, *small, *common, "--out", tmp_path / "r") == 0
    (trial,) = (tmp_path / "r" / "trials").iterdir()
    own = anndata.read_h5ad(trial / "predictions" / "C6.h5ad")
    (image,) = (data_root / "her2st" / "data" / "ST-imgs" / "C" / "C6").glob("*.jpg")
    given = predict(
        "--model", trial, "--slide", image, "--um-per-px", 0.6877, "--spots", trial / "predictions" / "C6.h5ad"
    )
    np.testing.assert_array_equal(given.table.X, own.X)
    assert not any("colours" in note for note in given.notes)


def test_colours_are_measured_in_the_spread_of_training() -> None:
    from stbench.models.facts import SlideFacts

    def slide(mean: float, std: float, n_spots: int = 100) -> SlideFacts:
        return SlideFacts(n_spots, 1.0, 64.0, 55.0, "full", (mean,) * 3, (std,) * 3)

    training = [slide(100.0, 6.0), slide(116.0, 6.0)]  # 8 apart from their middle: a spread of 10
    assert colour_distance(PatchColours((128.0,) * 3, (1.0,) * 3), training) == pytest.approx(2.0)
    assert colour_distance(PatchColours((108.0, 108.0, 148.0), (1.0,) * 3), training) == pytest.approx(4 / np.sqrt(3))
    assert unlike_in_colour(PatchColours((127.0,) * 3, (1.0,) * 3), training) == []
    (said,) = unlike_in_colour(PatchColours((138.0,) * 3, (1.0,) * 3), training)
    assert said.startswith("the image's colours (mean RGB 138, 138, 138) lie 3.0 times the spread")
    patches = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    patches[1] = (10, 20, 30)
    assert patch_colours(patches) == PatchColours((5.0, 10.0, 15.0), (5.0, 10.0, 15.0))
