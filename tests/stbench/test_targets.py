"""Targets: the published formulas by hand, scanpy's by scanpy, and the values that real sections are known to have."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbench.errors import UserError
from stbench.targets import TARGETS, target

COUNTS = np.array([[0, 1, 5, 94], [0, 0, 0, 0], [2, 2, 2, 2]])
TOTAL = np.array([200, 7, 8])


def random_counts(seed: int, n_spots: int = 20, n_genes: int = 30) -> np.ndarray:
    counts = np.random.default_rng(seed).poisson(0.8, (n_spots, n_genes))
    counts[3] = 0
    counts[:, 5] = 0
    return counts


def test_there_are_three_targets_and_each_prints_its_formula() -> None:
    assert list(TARGETS) == ["spot-log10-cp10k", "gene-log10-cp10k", "lognorm"]
    for name, entry in TARGETS.items():
        assert entry.name == name
        assert "10000 × count" in entry.formula
    assert "log10" in target("spot-log10-cp10k").formula
    assert "ln(" in target("lognorm").formula


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


@pytest.mark.parametrize("name", list(TARGETS))
@given(seed=st.integers(0, 1000))
def test_every_target_is_finite_and_zero_exactly_where_the_count_is(name: str, seed: int) -> None:
    counts = random_counts(seed)
    values = target(name)(counts, counts.sum(axis=1) + 3)
    assert np.isfinite(values).all()
    np.testing.assert_array_equal(values == 0, counts == 0)


@pytest.mark.parametrize("name", list(TARGETS))
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
        entry(counts, total)
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
    spot = target("spot-log10-cp10k")(counts, total).astype(float)
    assert spot[:, panel.index("FASN")].mean() == pytest.approx(1.103653, abs=1e-6)
    assert (~spot.any(axis=1)).sum() == 2
