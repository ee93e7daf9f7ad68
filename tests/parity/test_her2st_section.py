"""A real HER2+ section, read, cut, normalised and scored here, equals what the published loaders make of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import golden
import numpy as np
import pytest

from stbench.data.prepare import prepare
from stbench.data.prepared import PreparedSlide
from stbench.datasets.her2st import HER2ST
from stbench.scores.metrics import SliceScore, score_slide

pytestmark = pytest.mark.data


@dataclass(frozen=True)
class Section:
    """One section as trials see it, on both published scales, and what is stored of it."""

    stored: dict[str, np.ndarray]
    genes: tuple[str, ...]
    by_spot: PreparedSlide  # target spot-log10-cp10k
    by_gene: PreparedSlide  # target gene-log10-cp10k


@pytest.fixture(scope="module", params=golden.files("her2st_"), ids=golden.name)
def section(request: pytest.FixtureRequest, data_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Section:
    path: Path = request.param
    slice_id = path.stem.removeprefix("her2st_")
    dataset = HER2ST(data_root)
    present, _ = dataset.find()
    if slice_id not in {source.id for source in present}:
        pytest.skip(f"section {slice_id} is not among the real sections at hand")
    cache = tmp_path_factory.mktemp("prepared")
    on_scale = {
        target: prepare(dataset, target, cache, slices=[slice_id])
        for target in ("spot-log10-cp10k", "gene-log10-cp10k")
    }
    return Section(
        stored=golden.read(path),
        genes=on_scale["spot-log10-cp10k"].genes,
        by_spot=on_scale["spot-log10-cp10k"].slides[slice_id],
        by_gene=on_scale["gene-log10-cp10k"].slides[slice_id],
    )


@pytest.fixture(scope="module")
def score(section: Section) -> SliceScore:
    """The stored prediction, made again by its rule, scored against the spot-wise scale."""
    rule = "0.3*spot + 0.5*RandomState(seed).standard_normal(shape)*spot.std()"
    assert str(section.stored["metric_prediction_rule"]) == rule
    spot = section.by_spot.target.astype(np.float64)
    noise = np.random.RandomState(int(section.stored["metric_noise_seed"])).standard_normal(spot.shape)
    return score_slide(spot, 0.3 * spot + 0.5 * noise * spot.std(), section.genes, spot.mean(axis=0))


def test_spots_come_in_the_order_of_the_count_table(section: Section) -> None:
    assert list(section.by_spot.spot_ids) == section.stored["spot_ids"].tolist()


def test_array_positions_are_those_in_the_spots_names(section: Section) -> None:
    np.testing.assert_array_equal(section.by_spot.array_xy, section.stored["positions"])


def test_pixel_centres_round_down_to_the_published_ones(section: Section) -> None:
    np.testing.assert_array_equal(np.floor(section.by_spot.pixel_xy), section.stored["centres"])


@pytest.mark.parametrize("scale", ["spot", "gene"])
def test_both_normalised_matrices_are_the_published_ones(section: Section, scale: str) -> None:
    values = {"spot": section.by_spot, "gene": section.by_gene}[scale].target
    np.testing.assert_allclose(values[:3], section.stored[f"{scale}_log10_cp10k_head"], rtol=1e-6)
    means = values.mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(means, section.stored[f"{scale}_log10_cp10k_gene_means"], rtol=0, atol=1e-6)


def test_no_window_of_a_section_crosses_its_border(section: Section) -> None:
    assert section.by_spot.n_padded == 0


def test_patches_have_the_published_colours(section: Section) -> None:
    """224 px windows, and 112 px windows as the centre of those."""
    patches = section.by_spot.patches
    assert patches.shape[1:] == (224, 224, 3)
    np.testing.assert_allclose(patches.mean(axis=(1, 2)), section.stored["patch224_rgb_means"], atol=1e-4)
    centre = patches[:, 56:168, 56:168]
    np.testing.assert_allclose(centre.mean(axis=(1, 2)), section.stored["patch112_rgb_means"], atol=1e-4)


def test_a_patch_is_stored_rows_first(section: Section) -> None:
    first_row = section.by_spot.patches[0, 56, 56:168]
    np.testing.assert_array_equal(first_row, section.stored["patch112_first_row_of_first_spot"])


@pytest.mark.parametrize("metric", ["pcc_acg", "pcc_heg", "mse", "mae"])
def test_the_paper_pack_gives_the_published_evaluations_numbers(
    section: Section, score: SliceScore, metric: str
) -> None:
    assert getattr(score, metric) == pytest.approx(float(section.stored[f"metric_{metric}"]), abs=1e-7)


def test_the_packs_agree_where_no_prediction_is_constant_and_genes_are_chosen_alike(score: SliceScore) -> None:
    """The training mean given to it was the section's own."""
    assert score.n_constant_prediction == 0
    assert score.strict_pcc_acg == score.pcc_acg
    assert score.strict_pcc_heg == score.pcc_heg
