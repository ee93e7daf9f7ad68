"""Prepared data: right, made once, safe under two processes, and made again when damaged."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from stbench.data.cache import panel_counts
from stbench.data.physical import unknown_sizes
from stbench.data.prepare import prepare
from stbench.data.prepared import PreparedDataset
from stbench.data.targets import target
from stbench.dataset import Missing, SlideSource
from stbench.errors import DamagedFileError, UserError
from stbench.results.run_record import SectionRecord
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide

GENES = ["A", "B", "C"]
CENTRES = np.array([[20.7, 20.2], [50.0, 40.0], [3.0, 70.0]])


def _slide(slide_id: str) -> Slide:
    rng = np.random.default_rng(sum(map(ord, slide_id)))
    counts = scipy.sparse.csr_matrix(rng.poisson(3, (3, 4)))
    obs = pd.DataFrame({"array_row": [0, 0, 1], "array_col": [0, 1, 0], "in_tissue": 1}, index=["s0", "s1", "s2"])
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=["C", "A", "Z", "B"]))
    adata.obsm["spatial"] = CENTRES
    adata.uns["spatial"] = {slide_id: {"scalefactors": {}, "metadata": {}}}
    picture = rng.integers(0, 256, (100, 80, 3)).astype(np.uint8)
    return Slide(slide_id, f"patient of {slide_id}", adata, SlideImage.from_array(picture), um_per_px=0.5)


class Toy:
    """A dataset of two slices made in memory; ``reads`` counts how often a slide was really read."""

    name = "toy"
    title = "Toy"
    slices = ("S1", "S2", "S3")
    patch_px = 16
    how_to_get = "It is made by its test."
    citation = ""
    reads = 0

    def __init__(self, root: Path | None = None) -> None:
        self.file = root

    def patient(self, slice_id: str) -> str:
        return f"patient of {slice_id}"

    def panel(self) -> list[str]:
        return GENES

    def _read(self, slice_id: str) -> Slide:
        Toy.reads += 1
        return _slide(slice_id)

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        files = (self.file,) if self.file is not None else ()
        sources = [SlideSource(i, self.patient(i), lambda i=i: self._read(i), files) for i in ("S1", "S2")]
        return sources, [Missing("S3", "nobody made it")]


@pytest.fixture(autouse=True)
def count_reads() -> None:
    Toy.reads = 0


def _prepare(cache: Path, **more: object) -> PreparedDataset:
    return prepare(Toy(), "spot-log10-cp10k", cache, **more)  # type: ignore[arg-type]


def test_patches_counts_positions_and_target_are_those_of_the_slide(tmp_path: Path) -> None:
    data = _prepare(tmp_path)
    slide, raw = data.slides["S1"], _slide("S1")
    expected = raw.adata[:, GENES].X.toarray()
    np.testing.assert_array_equal(slide.counts, expected)
    np.testing.assert_array_equal(slide.total_counts, raw.adata.X.toarray().sum(axis=1))
    np.testing.assert_array_equal(slide.target, target("spot-log10-cp10k")(expected, slide.total_counts))
    np.testing.assert_array_equal(slide.array_xy, [[0, 0], [1, 0], [0, 1]])
    np.testing.assert_array_equal(slide.pixel_xy, CENTRES)
    picture = raw.image.read()
    np.testing.assert_array_equal(slide.patches[0], picture[20 - 8 : 20 + 8, 20 - 8 : 20 + 8])  # the centre is floored
    assert slide.spot_ids == ("s0", "s1", "s2")
    assert data.coverage() == "2/3"
    assert [gone.id for gone in data.missing] == ["S3"]


def test_a_window_over_the_border_is_white_there_and_counted(tmp_path: Path) -> None:
    slide = _prepare(tmp_path).slides["S1"]
    assert slide.n_padded == 1
    assert (slide.patches[2][:, :5] == 255).all()


def test_arrays_cannot_be_written_to(tmp_path: Path) -> None:
    slide = _prepare(tmp_path).slides["S1"]
    for array in (slide.patches, slide.target, slide.counts):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_a_slide_is_read_once_and_then_opened(tmp_path: Path) -> None:
    first = _prepare(tmp_path)
    second = _prepare(tmp_path)
    assert Toy.reads == 2
    np.testing.assert_array_equal(first.slides["S2"].patches, second.slides["S2"].patches)


def test_another_target_does_not_read_the_slides_again(tmp_path: Path) -> None:
    _prepare(tmp_path)
    data = prepare(Toy(), "lognorm", tmp_path)
    assert Toy.reads == 2
    slide = data.slides["S1"]
    np.testing.assert_array_equal(slide.target, target("lognorm")(slide.counts, slide.total_counts))


@pytest.mark.parametrize("harm", ["truncate", "alter", "delete"])
def test_a_damaged_entry_is_made_again_with_a_notice(tmp_path: Path, harm: str) -> None:
    before = np.array(_prepare(tmp_path).slides["S1"].patches)
    (path,) = (tmp_path / "slides").glob("toy-S1-*/patches.npy")
    content = bytearray(path.read_bytes())
    if harm == "truncate":
        path.write_bytes(content[:-100])
    elif harm == "alter":
        content[-1] ^= 1
        path.write_bytes(content)
    else:
        path.unlink()
    data = _prepare(tmp_path)
    assert any("S1" in notice and "made again" in notice for notice in data.notices)
    np.testing.assert_array_equal(data.slides["S1"].patches, before)
    assert _prepare(tmp_path).notices == ()


def test_a_damaged_target_is_made_again(tmp_path: Path) -> None:
    before = _prepare(tmp_path).slides["S1"].target
    (path,) = (tmp_path / "targets").glob("toy-S1-*/target.npy")
    path.write_bytes(path.read_bytes()[:-1])
    data = _prepare(tmp_path)
    assert any("made again" in notice for notice in data.notices)
    np.testing.assert_array_equal(data.slides["S1"].target, before)


def test_changed_source_files_give_another_key(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    first = prepare(Toy(source), "spot-log10-cp10k", tmp_path).slides["S1"].key
    source.write_text("two")
    assert prepare(Toy(source), "spot-log10-cp10k", tmp_path).slides["S1"].key != first


def test_a_planned_trial_refuses_data_that_changed(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("one")
    keys = {name: slide.key for name, slide in prepare(Toy(source), "lognorm", tmp_path / "a").slides.items()}
    source.write_text("two")
    with pytest.raises(UserError, match="have changed since this run was planned"):
        prepare(Toy(source), "lognorm", tmp_path / "b", keys=keys)


def _prepare_in_a_process(cache: Path) -> str:
    return _prepare(cache).slides["S1"].key


def test_two_processes_may_prepare_at_once(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        keys = pool.map(_prepare_in_a_process, [tmp_path, tmp_path])
    assert keys[0] == keys[1]
    assert len(list((tmp_path / "slides").glob("toy-S1-*"))) == 1
    assert _prepare(tmp_path).notices == ()


def test_slices_can_be_chosen(tmp_path: Path) -> None:
    assert list(_prepare(tmp_path, slices=["S2"]).slides) == ["S2"]
    with pytest.raises(UserError, match="did you mean 'S1'"):
        _prepare(tmp_path, slices=["S1x"])
    with pytest.raises(UserError, match="S3 of toy is not there: nobody made it"):
        _prepare(tmp_path, slices=["S3"])


def test_spots_that_the_published_dataset_has_not_are_said_wherever_the_data_are_used(tmp_path: Path) -> None:
    class Published(Toy):
        expected_spots = MappingProxyType({"S1": 3, "S2": 3_798})

    def notices(dataset: Toy) -> list[str]:
        prepared = prepare(dataset, "lognorm", tmp_path)
        return list(SectionRecord.of(prepared, (), "loso").notices)  # which the report tells

    for _ in ("made", "found in the cache"):
        said = "S2 has 3 spots, where the published dataset has 3,798: another release, or a filtered copy"
        assert notices(Published()) == [said]
    assert notices(Toy()) == []


def test_a_size_of_pixels_that_is_not_known_is_said_where_slices_are_compared() -> None:
    assert unknown_sizes({"S1": 0.5, "S2": 0.5}) is None
    assert unknown_sizes({"S1": None}) is None
    assert "unknown in S2: whether" in str(unknown_sizes({"S1": 0.5, "S2": None}))
    assert "unknown in all slices" in str(unknown_sizes({"S1": None, "S2": None}))


def test_a_gene_that_a_slides_file_does_not_list_counts_zero() -> None:
    counts, total = panel_counts(_slide("S1"), ["NOT THERE", "A"])
    assert (counts[:, 0] == 0).all()
    np.testing.assert_array_equal(counts[:, 1], _slide("S1").adata[:, "A"].X.toarray().ravel())
    np.testing.assert_array_equal(total, _slide("S1").adata.X.toarray().sum(axis=1))


def test_a_test_slide_carries_no_expression(tmp_path: Path) -> None:
    slide = _prepare(tmp_path).slides["S1"].for_test()
    for name in ("target", "counts", "total_counts", "genes"):
        assert not hasattr(slide, name)


def test_slides_are_handed_out_with_a_key_of_their_patches(tmp_path: Path) -> None:
    """It follows the patches alone: not the target, the cache's folder or the opening."""
    first, second = _prepare(tmp_path / "a").slides.values()
    again = _prepare(tmp_path / "b").slides["S1"]
    leaked = first.for_leak(0)
    given = (first.for_training(), first.for_test(), first.for_test(oracle=True), leaked, leaked.truth)
    assert {slide.content for slide in given} == {again.for_test().content}
    assert first.for_test().content != second.for_test().content
    assert all(isinstance(slide.content, str) and replace(slide).content is None for slide in given)


def test_an_unwritable_cache_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("stbench.data.cache.np.save", denied)
    with pytest.raises(UserError, match="permission denied"):
        _prepare(tmp_path)
    assert not list((tmp_path / "slides").glob("toy-*"))


def test_slides_are_not_changed_in_place() -> None:
    slide = _slide("S1")
    assert replace(slide, id="S9").id == "S9"
    with pytest.raises(AttributeError):
        slide.id = "S9"  # type: ignore[misc]


def test_patches_that_are_cut_while_they_are_mapped_end_in_words_and_are_made_again(tmp_path: Path) -> None:
    """The operating system would end the process at the first page that is gone."""
    prepared = _prepare(tmp_path)
    patches = next(tmp_path.glob("slides/toy-S1-*/patches.npy"))
    whole = patches.read_bytes()
    with patches.open("r+b") as stream:
        stream.truncate(200)
    for give in (prepared.slides["S1"].for_training, prepared.slides["S1"].for_test):
        with pytest.raises(DamagedFileError, match=r"patches\.npy was cut while it was in use: 200 of .* bytes"):
            give()
    prepared.slides["S2"].for_training()
    again = _prepare(tmp_path)
    assert any("have been made again" in notice for notice in again.notices)
    assert patches.read_bytes() == whole
    again.slides["S1"].for_training()
    with pytest.raises(DamagedFileError):  # still mapped, though its name leads to another
        prepared.slides["S1"].for_training()
