"""Patches that are cut from kept tiles are those of the array, byte for byte, whoever reads them and however."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from exchanging import predict_exchanged
from hypothesis import given, settings
from hypothesis import strategies as st

from stbench.audit import pictures
from stbench.audit.pictures import fingerprints
from stbench.data import patch_files
from stbench.data.physical import with_patch_um
from stbench.data.prepare import prepare
from stbench.errors import DamagedFileError, UserError
from stbench.method import TestSlide
from stbench.slides import tiles as tiles_module
from stbench.slides.cutting import Window
from stbench.slides.image import SlideImage
from stbench.slides.tiles import TILE, TiledPatches, Tiles, keep_tiles, tile_numbers
from stbench.system.wording import amount
from stbench.training.patch_bank import PatchBank
from stbench.training.windows import Windows, central_windows

WIDTH, HEIGHT = 700, 530


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def tiled(image: SlideImage, centres: np.ndarray, window: Window, pad: int = 255) -> TiledPatches:
    corners = window.corners(centres)
    with image.opened(window) as (pixels, scale):
        size = (pixels.shape[1], pixels.shape[0])
        numbers = tile_numbers(corners, window, scale, size)
        kept = np.zeros((int(numbers.max()) + 1, TILE, TILE, 3), dtype=np.uint8)
        keep_tiles(pixels, numbers, kept)
    return TiledPatches(Tiles(kept, numbers, size), corners, window, scale, pad)


@settings(max_examples=60, deadline=None)
@given(
    x=st.lists(st.floats(0, WIDTH - 1), min_size=1, max_size=4),
    y=st.lists(st.floats(0, HEIGHT - 1), min_size=4, max_size=4),
    side=st.floats(1, 600),
    px=st.integers(1, 40),
    scale=st.sampled_from([1.0, 0.31, 1.7]),
)
def test_patches_of_tiles_equal_those_of_the_image(
    painted: np.ndarray, x: list[float], y: list[float], side: float, px: int, scale: float
) -> None:
    image = SlideImage.from_array(painted, scale=scale, level="full" if scale == 1 else "hires")
    centres = np.array(list(zip(x, y, strict=False))) / scale
    for window in (Window(side, px), Window.plain(px)):
        np.testing.assert_array_equal(np.asarray(tiled(image, centres, window)), image.cut(centres, window)[0])


@pytest.fixture(scope="module")
def pair(painted: np.ndarray) -> tuple[TiledPatches, np.ndarray]:
    centres = np.random.default_rng(1).uniform((0, 0), (WIDTH, 250), (150, 2))  # some tiles are never needed
    image, window = SlideImage.from_array(painted), Window(60.5, 24)
    return tiled(image, centres, window), image.cut(centres, window)[0]


def test_it_is_read_as_the_array_is(pair: tuple[TiledPatches, np.ndarray]) -> None:
    lazy, array = pair
    assert (lazy.shape, lazy.dtype, len(lazy), lazy.ndim, lazy.nbytes) == (
        array.shape, array.dtype, len(array), array.ndim, array.nbytes,
    )  # fmt: skip
    mask = np.arange(len(array)) % 3 == 0
    keys = [
        0, -1, np.int64(7), slice(3, 90), slice(None, None, 7), slice(5, 5), [4, 2, 2], np.array([140, 0]), mask,
        (3, slice(2, 9)), (slice(2, 8), slice(1, 5), slice(0, 3)), (np.array([5, 1]), slice(None), 4), (..., 0),
        (slice(None), slice(2, 20), slice(3, 9)), (slice(None), slice(2, 20)), (slice(None), 3), slice(None),
        (slice(None), slice(1, 5), slice(1, 5), slice(None)), (slice(None), slice(None), slice(None), 1),
    ]  # fmt: skip
    for key in keys:
        np.testing.assert_array_equal(np.asarray(lazy[key]), array[key], err_msg=str(key))
    part, of_array = lazy[:, 4:20, 3:21], array[:, 4:20, 3:21]
    assert isinstance(part, TiledPatches)
    np.testing.assert_array_equal(np.asarray(part[:, 2:-2, 1:]), of_array[:, 2:-2, 1:])
    np.testing.assert_array_equal(part[11], of_array[11])
    np.testing.assert_array_equal(np.stack(list(part)), of_array)
    with pytest.raises(IndexError):
        lazy[150]


def test_tiles_that_no_window_needs_are_not_kept(pair: tuple[TiledPatches, np.ndarray]) -> None:
    lazy, _ = pair
    assert lazy.tiles.numbers.shape == (3, 3)
    assert (lazy.tiles.numbers[2] == -1).all()
    with pytest.raises(IndexError, match="no window lay on it"):
        lazy.tiles[slice(520, 530), slice(0, 10)]


def test_all_patches_are_not_cut_at_once_where_memory_is_short(
    pair: tuple[TiledPatches, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiles_module, "usable_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"all 150 patches at once .* read them in pieces"):
        np.asarray(pair[0])
    assert pair[0][:2].shape == (2, 24, 24, 3)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """The demo prepared with patches, and with tiles, which are forced."""
    from stbench import registry

    def prepared(folder: str) -> dict:
        demo = with_patch_um(registry.dataset("demo"), 400)  # some windows cross the border
        return dict(prepare(demo, "lognorm", tmp_path_factory.mktemp(folder), ["P1a", "P2a"]).slides)

    arrays = prepared("arrays")
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(patch_files, "LARGE", 0)
        patching.setattr(patch_files, "SMALLER", 100.0)
        return arrays, prepared("tiles")


def test_prepared_slides_hand_out_the_same_bytes_under_the_same_key(entries: tuple) -> None:
    arrays, tiles = entries
    for name, slide in arrays.items():
        other = tiles[name]
        assert isinstance(slide.patches, np.memmap)
        assert isinstance(other.patches, TiledPatches)
        np.testing.assert_array_equal(np.asarray(other.patches), slide.patches)
        assert (slide.n_padded > 0, other.key, other.n_padded) == (True, slide.key, slide.n_padded)
        np.testing.assert_array_equal(other.margins, slide.margins)
        assert other.patches_digest != tiles["P2a" if name == "P1a" else "P1a"].patches_digest


@pytest.mark.parametrize("padding", ["white", "black"])
@pytest.mark.parametrize("resident", [True, False])
def test_methods_are_given_the_same_tensors(entries: tuple, padding: str, resident: bool) -> None:
    import torch

    groups = [torch.tensor([3, 150, 7, 7]), slice(90, 120)]
    found = []
    for slides in entries:
        given = [slide.for_training() for slide in slides.values()]
        bank = PatchBank(given, 40, 32, "cpu", resident=resident, padding=padding)
        found.append([patches.numpy() for _, patches in bank.stream(groups)])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_looks_at_patches_sees_the_same(entries: tuple) -> None:
    one, other = (vars(fingerprints(slides)) for slides in entries)
    for name, values in one.items():
        np.testing.assert_array_equal(other[name], values, err_msg=name)
    for name, slide in entries[0].items():
        one, other = slide.for_test(), entries[1][name].for_test()
        np.testing.assert_array_equal(np.asarray(central_windows(other, 30).patches), central_windows(one, 30).patches)
        assert len(Windows.of(other, 30, "black")) == one.n_spots

        class Echo:
            """Predicts the first pixels of each patch."""

            def predict(self, given: TestSlide) -> np.ndarray:
                return np.stack([patch[0, :4, 0] for patch in given.patches]).astype(np.float32)

        np.testing.assert_array_equal(
            predict_exchanged(Echo(), one, "demo", 0), predict_exchanged(Echo(), other, "demo", 0)
        )


def test_a_file_of_tiles_that_was_cut_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stbench import registry

    monkeypatch.setattr(patch_files, "LARGE", 0)
    monkeypatch.setattr(patch_files, "SMALLER", 100.0)
    slide = prepare(registry.dataset("demo"), "lognorm", tmp_path, ["P1a"]).slides["P1a"]
    (file,) = tmp_path.glob("slides/*/tiles.npy")
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(DamagedFileError, match="was cut while it was in use"):
        slide.for_test()
    again = prepare(registry.dataset("demo"), "lognorm", tmp_path, ["P1a"])
    assert any("truncated or altered" in notice for notice in again.notices)
    assert replace(again.slides["P1a"], notes=()).n_spots == slide.n_spots


@pytest.mark.data
def test_a_real_section_is_the_same_either_way(data_root: Path) -> None:
    from stbench import registry

    (source,) = (source for source in registry.dataset("her2st", data_root).find()[0] if source.id == "C2")
    slide = source.read()
    window = Window(290.7, 224)
    centres = slide.centres[:60]
    np.testing.assert_array_equal(np.asarray(tiled(slide.image, centres, window)), slide.image.cut(centres, window)[0])


def test_a_slide_that_a_whole_slide_method_cannot_hold_is_told_before_training(
    entries: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stbench import registry
    from stbench.method import configure
    from stbench.trials import whole_slide

    slides = entries[0].values()
    histogene, stnet = registry.method("histogene"), registry.method("stnet")
    config = configure(histogene)
    assert whole_slide.too_large(histogene, config, slides, "cpu") is None
    largest = max(slide.n_spots for slide in slides)
    monkeypatch.setattr(whole_slide, "usable_memory", lambda: 12 * largest * 112**2 - 1)
    reason = whole_slide.too_large(histogene, config, slides, "cpu")
    assert reason is not None
    assert f"the {largest:,} of P1a take at least" in reason
    assert re.search(r"\(in GiB: patches [\d.,]+, expression [\d.,]+\)", reason)
    assert whole_slide.too_large(stnet, configure(stnet), slides, "cpu") is None
    monkeypatch.setattr(whole_slide, "usable_memory", lambda: 14 * largest * 112**2)
    assert whole_slide.too_large(histogene, config, slides, "cpu") is None
    written_out = configure(histogene, changes={"attention": "explicit"})
    every_pair = 16 * 8 * largest**2 * 4  # heads, layers
    monkeypatch.setattr(whole_slide, "usable_memory", lambda: every_pair)
    assert "pairs of spots" in str(whole_slide.too_large(histogene, written_out, slides, "cpu"))


def test_a_step_that_does_not_fit_is_told_with_both_sizes_and_the_remedy(
    entries: tuple, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stbench import registry
    from stbench.cli import running
    from stbench.cli.method_choices import choose_methods
    from stbench.method import configure
    from stbench.training.step_memory import step_bytes
    from stbench.trials import whole_slide

    slides = entries[0].values()
    largest = max(slides, key=lambda slide: slide.n_spots)
    hist2st, stnet = registry.method("hist2st"), registry.method("stnet")

    def told(method: Any, free: int, **changes: Any) -> str:
        monkeypatch.setattr(whole_slide, "usable_memory", lambda: free)
        return str(whole_slide.does_not_fit(method, configure(method, "quick", changes=changes), slides, "cpu"))

    size = largest.n_spots, len(largest.genes)
    kept, again = (
        step_bytes(hist2st, configure(hist2st, "quick", changes={"activation_checkpointing": setting}), *size)
        for setting in ("off", "on")
    )
    assert again < 0.9 * kept
    between, below = int((again + kept) / 2 / 0.75), int(0.8 * again)
    assert told(hist2st, 2**34) == told(hist2st, int(1.1 * kept / 0.75)) == "None"
    message = told(hist2st, between, activation_checkpointing="off")
    assert f"a training step on the {largest.n_spots:,} spots of P1a takes about {amount(kept)}, " in message
    assert f"{amount(between)} are free" in message
    assert f"--set hist2st.activation_checkpointing=on takes about {amount(again)} where" in message
    assert "as it will be, with the same numbers" in told(hist2st, between)
    assert "larger bins" in told(hist2st, below)
    assert told(hist2st, between, activation_checkpointing="on") == "None"
    assert "lower --set stnet.batch_size" in told(stnet, 2**20)

    choices = choose_methods("hist2st", "quick", "demo", ["hist2st.activation_checkpointing=off"], None, None)
    experiment = SimpleNamespace(methods=choices, data=SimpleNamespace(slides=dict(entries[0])))
    setting = SimpleNamespace(engine=SimpleNamespace(runs_here=True, slots_per_gpu=None), device="cpu")
    monkeypatch.setattr(whole_slide, "usable_memory", lambda: between)
    running._say_memory(setting, [experiment, experiment])  # of a run, and of --dry-run: once
    assert capsys.readouterr().out == f"Hist2ST: {message}\n"


def test_the_trial_of_such_a_method_fails_in_a_line_and_the_others_run(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stbench.trials import whole_slide

    monkeypatch.setattr(whole_slide, "usable_memory", lambda: 1000)
    words = ("--methods", "histogene,training_mean", "--dataset", "demo", "--slices", "P1a,P2a", "--preset", "quick")
    done = stbench_command("run", *words, "--device", "cpu", "--no-mlflow", "--out", tmp_path / "r")
    assert done.code == 1
    assert "HisToGene cannot be trained here: it learns all spots of a slide at once" in done.out
    summary = pd.read_csv(tmp_path / "r" / "summary.csv")
    assert set(zip(summary["method"], summary["state"], strict=True)) == {
        ("histogene", "failed"),
        ("training_mean", "finished"),
    }
    assert "larger bins" in summary.loc[summary["state"] == "failed", "reason"].iloc[0]


def test_of_a_slide_of_very_many_spots_a_part_is_compared_with_others(
    entries: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "LOOKED_AT", 30)
    prints = fingerprints(entries[1])
    rows = [spot.row for spot in prints.spots if spot.slice == "P1a"]
    step = -(-entries[1]["P1a"].n_spots // 30)
    assert rows == list(range(0, entries[1]["P1a"].n_spots, step))
    assert len(prints.flat) == len(prints.digest) == len(prints.spots)


@pytest.mark.slow
def test_a_run_on_tiles_has_the_numbers_and_the_trials_of_one_on_patches(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "--methods", "colour_ridge", "--dataset", "demo", "--slices", "P1a,P2a", "--no-mlflow")
    summaries = []
    for folder, smaller in (("patches", 0.5), ("tiles", 100.0)):
        monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / folder))
        monkeypatch.setattr(patch_files, "LARGE", 0 if folder == "tiles" else 2**31)
        monkeypatch.setattr(patch_files, "SMALLER", smaller)
        assert stbench_command(*words, "--out", tmp_path / f"run of {folder}").code == 0
        assert bool(list((tmp_path / folder).rglob("tiles.npy"))) is (folder == "tiles")
        table = pd.read_csv(tmp_path / f"run of {folder}" / "summary.csv")
        summaries.append(table[["key", "slice", "pcc_acg", "mse", "exchanged_pcc_acg"]])
    pd.testing.assert_frame_equal(*summaries)


def test_slides_of_nothing_but_glass_are_audited() -> None:
    """No patch is left to be compared."""
    from prepared import prepared_slide

    slides = {}
    for name in ("S", "T"):
        blank = prepared_slide(np.ones((3, 2), np.int32), np.full(3, 9), np.ones((3, 2), np.float32), name)
        slides[name] = replace(blank, patches=np.full((3, 64, 64, 3), 255, dtype=np.uint8))
    prints = fingerprints(slides)
    assert prints.flat.all()
    assert pictures._similar(prints) == []
