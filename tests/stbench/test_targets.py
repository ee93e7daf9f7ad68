"""Targets: the published formulas by hand, scanpy's by scanpy, and the values that real sections are known to have."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbench.data.target_names import DEFAULT_TARGET, TARGET_NAMES
from stbench.data.targets import TARGETS, target
from stbench.errors import UserError

COUNTS = np.array([[0, 1, 5, 94], [0, 0, 0, 0], [2, 2, 2, 2]])
TOTAL = np.array([200, 7, 8])


def random_counts(seed: int, n_spots: int = 20, n_genes: int = 30) -> np.ndarray:
    counts = np.random.default_rng(seed).poisson(0.8, (n_spots, n_genes))
    counts[3] = 0
    counts[:, 5] = 0
    return counts


N_MEASURED = 50  # genes on the slide, those of the panel among them
ZERO_FOR_NONE = ("spot-log10-cp10k", "gene-log10-cp10k", "lognorm", "spot-ln-cpm")  # a count of zero stays zero


def test_every_target_prints_its_formula() -> None:
    constants = {
        "spot-log10-cp10k": ("log10(", "10000 × count"),
        "gene-log10-cp10k": ("log10(", "10000 × count"),
        "lognorm": ("ln(", "10000 × count"),
        "spot-ln-cpm": ("ln(", "1000000 × count"),
        "stnet-logfreq": ("ln(", "(1 + count)"),
    }
    assert list(TARGETS) == list(constants)
    for name, entry in TARGETS.items():
        assert entry.name == name
        assert all(part in entry.formula for part in constants[name])


def test_the_names_that_the_command_line_offers_are_those_of_the_targets() -> None:
    assert tuple(TARGETS) == TARGET_NAMES
    assert DEFAULT_TARGET in TARGETS


def test_a_misspelt_target_is_answered_with_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'lognorm'"):
        target("log-norm")


def test_spot_scaling_by_hand() -> None:
    expected = [[0, 2.004321, 2.699838, 3.973174], [0] * 4, [3.398114] * 4]
    values = target("spot-log10-cp10k")(COUNTS, TOTAL)
    np.testing.assert_allclose(values, expected, atol=1e-6)
    assert values.dtype == np.float32


def test_gene_scaling_is_spot_scaling_of_the_transposed_matrix() -> None:
    counts = random_counts(0)
    by_gene = target("gene-log10-cp10k")(counts, counts.sum(axis=1))
    by_spot = target("spot-log10-cp10k")(counts.T, counts.sum(axis=0))
    np.testing.assert_array_equal(by_gene, by_spot.T)
    assert not by_gene[:, 5].any()
    np.testing.assert_allclose(
        target("gene-log10-cp10k")(COUNTS, TOTAL)[:, 1], np.log10(1 + np.array([1, 0, 2]) / 3 * 1e4), rtol=1e-6
    )


def test_lognorm_uses_the_total_over_all_genes() -> None:
    values = target("lognorm")(COUNTS, TOTAL)
    np.testing.assert_allclose(values[0], np.log(1 + 1e4 * COUNTS[0] / 200), rtol=1e-6)
    np.testing.assert_allclose(values[2], np.log(1 + 1e4 * COUNTS[2] / 8), rtol=1e-6)


def test_lognorm_is_scanpys() -> None:
    import anndata
    import scanpy

    counts = random_counts(1, n_genes=50)
    adata = anndata.AnnData(counts.astype(np.float64))
    with pytest.warns(UserWarning, match="zero counts"):
        scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    panel = [4, 40, 5, 17]
    values = target("lognorm")(counts[:, panel], counts.sum(axis=1))
    np.testing.assert_allclose(values, adata.X[:, panel], rtol=1e-6)


def test_counts_per_million_by_hand() -> None:
    expected = np.log1p(np.array([[0, 1e4, 5e4, 94e4], [0] * 4, [25e4] * 4]))
    np.testing.assert_allclose(target("spot-ln-cpm")(COUNTS, TOTAL), expected, rtol=1e-6)


def test_counts_per_million_follow_from_the_spot_wise_counts_per_ten_thousand() -> None:
    counts = random_counts(3)
    per_ten_thousand = 10.0 ** target("spot-log10-cp10k")(counts, counts.sum(axis=1)).astype(float) - 1
    values = target("spot-ln-cpm")(counts, counts.sum(axis=1))
    np.testing.assert_allclose(values, np.log1p(100 * per_ten_thousand), rtol=1e-5, atol=1e-4)


def test_log_frequency_by_hand() -> None:
    """ST-Net's formula on four genes that are all that was measured, so that the frequencies sum to 1."""
    values = target("stnet-logfreq")(COUNTS[:1], np.array([100]), 4)
    np.testing.assert_allclose(values, [[-4.64439106, -3.95124364, -2.85263133, -0.09051397]], rtol=1e-6)
    assert np.exp(values.astype(float)).sum() == pytest.approx(1, abs=1e-6)


def test_log_frequency_counts_all_genes_of_the_slide() -> None:
    """With further genes, and their counts, in the denominator the panel's frequencies sum to less than 1."""
    values = target("stnet-logfreq")(COUNTS, TOTAL, 10).astype(float)
    np.testing.assert_allclose(values, np.log((1 + COUNTS) / (10 + TOTAL[:, None])), rtol=1e-6)
    assert (np.exp(values).sum(axis=1) < 1).all()


def test_log_frequency_without_the_number_of_genes_is_refused() -> None:
    with pytest.raises(ValueError, match="n_measured"):
        target("stnet-logfreq")(COUNTS, TOTAL)


@pytest.mark.parametrize("name", list(TARGETS))
@given(seed=st.integers(0, 1000))
def test_every_target_is_finite(name: str, seed: int) -> None:
    counts = random_counts(seed)
    assert np.isfinite(target(name)(counts, counts.sum(axis=1) + 3, N_MEASURED)).all()


@pytest.mark.parametrize("name", ZERO_FOR_NONE)
@given(seed=st.integers(0, 1000))
def test_a_value_is_zero_exactly_where_the_count_is(name: str, seed: int) -> None:
    counts = random_counts(seed)
    values = target(name)(counts, counts.sum(axis=1) + 3)
    np.testing.assert_array_equal(values == 0, counts == 0)


@pytest.mark.parametrize("name", ZERO_FOR_NONE)
def test_a_slide_without_any_counts_is_all_zero(name: str) -> None:
    counts = np.zeros((3, 4), dtype=np.int32)
    np.testing.assert_array_equal(target(name)(counts, counts.sum(axis=1)), 0)


def test_what_undoes_each_scale_is_one_total_per_spot_or_gene() -> None:
    counts = random_counts(2) + 1
    spot = 10.0 ** target("spot-log10-cp10k")(counts, counts.sum(axis=1)).astype(float) - 1
    np.testing.assert_allclose(spot.sum(axis=1), 1e4, rtol=1e-5)
    gene = 10.0 ** target("gene-log10-cp10k")(counts, counts.sum(axis=1)).astype(float) - 1
    np.testing.assert_allclose(gene.sum(axis=0), 1e4, rtol=1e-5)


def test_counts_are_not_altered() -> None:
    counts, total = COUNTS.copy(), TOTAL.copy()
    for entry in TARGETS.values():
        entry(counts, total, N_MEASURED)
    np.testing.assert_array_equal(counts, COUNTS)
    np.testing.assert_array_equal(total, TOTAL)


def test_totals_of_another_slide_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        target("lognorm")(COUNTS, TOTAL[:2])


@pytest.mark.data
def test_section_b1_has_the_values_known_of_it(data_root: Path) -> None:
    """Mean, standard deviation, maximum, mean of GNAS and the five highest genes, measured by other code."""
    panel = resources.files("stbench.datasets.panels").joinpath("her2st.txt").read_text().split()
    table = pd.read_csv(data_root / "her2st" / "data" / "ST-cnts" / "B1.tsv.gz", sep="\t", index_col=0)
    assert table.shape == (295, 15109)
    counts, total = table[panel].to_numpy(), table.to_numpy().sum(axis=1)
    assert counts.sum() == 144_752
    assert counts.sum(axis=1)[:3].tolist() == [62, 29, 38]
    assert (counts == 0).mean() == pytest.approx(0.785858, abs=1e-6)
    known = {
        "spot-log10-cp10k": (0.318750, 0.649942, 3.494989, 1.183366, ["IGHA1", "IGKC", "CD74", "HLA-B", "TFF3"]),
        "gene-log10-cp10k": (0.425029, 0.841947, 3.823974, 0.809940, ["IGHA1", "IGKC", "BST2", "UBA52", "LMNA"]),
    }
    for name, (mean, std, highest, gnas, top) in known.items():
        values = target(name)(counts, total).astype(float)
        assert values.mean() == pytest.approx(mean, abs=1e-6)
        assert values.std() == pytest.approx(std, abs=1e-6)
        assert values.max() == pytest.approx(highest, abs=1e-6)
        assert values[:, panel.index("GNAS")].mean() == pytest.approx(gnas, abs=1e-6)
        assert [panel[g] for g in np.argsort(-values.mean(axis=0))[:5]] == top
    frequency = target("stnet-logfreq")(counts, total, table.shape[1]).astype(float)
    assert frequency.mean() == pytest.approx(-9.576446, abs=1e-6)
    assert frequency.std() == pytest.approx(0.466417, abs=1e-6)
    assert frequency.min() == pytest.approx(-10.649441, abs=1e-6)
    assert frequency.max() == pytest.approx(-4.410802, abs=1e-6)
    assert frequency[0].mean() == pytest.approx(-9.604878, abs=1e-6)
    million = target("spot-ln-cpm")(counts, total).astype(float)  # by pandas alone, from the table
    assert (million.mean(), million.std(), million.max()) == pytest.approx((1.707916, 3.315347, 12.652363), abs=1e-6)
    spot = target("spot-log10-cp10k")(counts, total).astype(float)
    assert spot[:, panel.index("FASN")].mean() == pytest.approx(1.103653, abs=1e-6)
    assert (~spot.any(axis=1)).sum() == 2
