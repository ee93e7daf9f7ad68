"""The noise ceiling against simulations whose rates are known, against the demo's known truth, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prepared import prepared_slide

from stbench.data.prepared import PreparedDataset, PreparedSlide
from stbench.data.targets import TARGETS, Target, target
from stbench.datasets.demo.dataset import ceiling, expression
from stbench.errors import UserError
from stbench.scores.ceiling import COLUMNS, full_depth, gene_ceilings, noise_ceiling, read_ceiling, write_ceiling

N_SPOTS, N_GENES = 400, 120
N_MEASURED = 2 * N_GENES  # genes, of which the panel is a part


def rates(seed: int, depth: float) -> tuple[np.ndarray, np.ndarray]:
    """Gamma-distributed rates of panel genes, (n_spots, n_genes), and of all other genes, (n_spots, 1)."""
    rng = np.random.default_rng(seed)
    mean = np.exp(rng.normal(np.log(1.0), 1.0, N_GENES))
    shape = np.exp(rng.uniform(np.log(0.5), np.log(8.0), N_GENES))
    of_spot = depth * np.exp(rng.normal(0, 0.3, (N_SPOTS, 1)))
    panel = mean * rng.gamma(shape, 1 / shape, (N_SPOTS, N_GENES)) * of_spot
    return panel, panel.sum(axis=1, keepdims=True)


def draw(panel: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    counts = rng.poisson(panel)
    return counts, counts.sum(axis=1) + rng.poisson(other)[:, 0]


def known_ceiling(panel: np.ndarray, other: np.ndarray, of: Target, draws: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """By repeated sampling from the rates: r of the target's expected value with fresh measurements, and its MSE."""
    rng = np.random.default_rng(99)
    expected = np.mean([of(*draw(panel, other, rng), N_MEASURED) for _ in range(draws)], axis=0, dtype=np.float64)
    r, squared = [], []
    for _ in range(20):
        measured = of(*draw(panel, other, rng), N_MEASURED).astype(np.float64)
        r.append([np.corrcoef(expected[:, g], measured[:, g])[0, 1] for g in range(panel.shape[1])])
        squared.append(((expected - measured) ** 2).mean(axis=0))
    return np.mean(r, axis=0), np.mean(squared, axis=0) / (1 + 1 / draws)  # less the sampling error of ``expected``


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("depth", [0.5, 2.0, 8.0])
def test_the_ceiling_is_what_a_predictor_that_knows_the_rates_reaches(name: str, depth: float) -> None:
    panel, other = rates(1, depth)
    truth, floor = known_ceiling(panel, other, target(name))
    counts, totals = draw(panel, other, np.random.default_rng(2))
    found = gene_ceilings(counts, totals, target(name), np.random.default_rng(3), n_measured=N_MEASURED)
    bias = np.nanmean(found["ceiling_r"] - truth)
    assert -0.02 < bias < 0.06  # too high rather than too low, as the module says
    assert np.corrcoef(found["ceiling_r"], truth)[0, 1] > 0.75  # a gene scatters
    lowest = 0.84 if name == "spot-ln-cpm" else 0.88
    assert lowest < found["mse_floor"].mean() / floor.mean() < 1.03


def test_additive_noise_of_known_reliability_is_recovered() -> None:
    """A target linear in the counts, rates of mean 4 and variance 4: half of the variance is signal, at full depth."""
    linear = Target("linear", "the count itself", lambda counts, total_counts, n_measured: counts)
    rng = np.random.default_rng(4)
    panel = rng.gamma(4.0, 1.0, (20_000, 6))
    counts = rng.poisson(panel)
    found = gene_ceilings(counts, counts.sum(axis=1), linear, rng, repeats=4)
    assert found["reliability"] == pytest.approx(np.full(6, 0.5), abs=0.03)
    assert found["mse_floor"] == pytest.approx(np.full(6, 4.0), rel=0.06)  # the Poisson variance: the mean rate


def test_the_demo_s_estimate_is_the_ceiling_of_its_drawn_rates() -> None:
    """The demo draws a gamma rate around each expected count and a Poisson count around the rate."""
    truth, genes = expression.slide_truth("P1a"), expression.genes()
    rng = np.random.default_rng(5)
    shape = np.broadcast_to(1 / genes.dispersion, truth.expected.shape)
    rate = truth.expected * genes.dispersion * rng.standard_gamma(shape)
    panel, other = rate[:, genes.in_panel], rate[:, ~genes.in_panel].sum(axis=1, keepdims=True)
    known, floor = known_ceiling(panel, other, target("spot-log10-cp10k"))
    found = gene_ceilings(*draw(panel, other, rng), target("spot-log10-cp10k"), rng)
    assert np.nanmean(found["ceiling_r"]) == pytest.approx(known.mean(), abs=0.04)
    assert found["mse_floor"].mean() == pytest.approx(floor.mean(), rel=0.1)


def test_on_the_demo_the_estimate_lies_above_what_a_predictor_can_know() -> None:
    """The demo's dispersion is chance that no image shows; thinning cannot tell it from signal, so it bounds."""
    counts, panel = expression.slide_counts("P1a"), expression.genes().in_panel
    found = gene_ceilings(counts[:, panel], counts.sum(axis=1), target("spot-log10-cp10k"), np.random.default_rng(6))
    best = ceiling.best_reachable("P1a")
    gap = found["ceiling_r"] - best["best_r"].to_numpy()
    assert (gap > -0.1).mean() > 0.97  # a gene's estimate scatters by about 0.1
    means = best.assign(ceiling=found["ceiling_r"]).groupby("programme")["ceiling"].mean()
    assert means["visible"] > means["noise"] + 0.1


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), mean=st.floats(0.01, 20), name=st.sampled_from(list(TARGETS)))
def test_ceilings_are_between_0_and_1_and_errors_within_the_variance(seed: int, mean: float, name: str) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(mean * rng.gamma(1.0, 1.0, (30, 8)))
    counts[:, 3], counts[5] = 0, 0
    totals = counts.sum(axis=1) + rng.poisson(mean, 30)
    found = gene_ceilings(counts, totals, target(name), rng, 2, N_MEASURED)
    measured = target(name)(counts, totals, N_MEASURED).astype(np.float64)
    varies = np.ptp(measured, axis=0) > 0
    assert np.isnan(found["ceiling_r"]).tolist() == (~varies).tolist()
    assert ((found["ceiling_r"][varies] >= 0) & (found["ceiling_r"][varies] <= 1)).all()
    assert (found["mse_floor"] >= 0).all()
    assert (found["mse_floor"] <= measured.var(axis=0) + 1e-9).all()
    assert (found["ceiling_r"][found["at_zero"]] == 0).all()


@pytest.mark.parametrize("name", TARGETS)
def test_deeper_sequencing_raises_the_ceiling(name: str) -> None:
    means = []
    for depth in (0.25, 1.0, 4.0, 16.0):
        counts, totals = draw(*rates(7, depth), np.random.default_rng(8))
        found = gene_ceilings(counts, totals, target(name), np.random.default_rng(9), 3, N_MEASURED)
        means.append(np.nanmean(found["ceiling_r"]))
    assert means == sorted(means)
    assert means[-1] > means[0] + 0.2


def test_halves_of_correlation_one_third_make_a_whole_of_one_half() -> None:
    assert full_depth(np.array([0.0, 1 / 3, 1.0])) == pytest.approx([0.0, 0.5, 1.0])


def test_a_gene_with_one_count_has_no_ceiling_above_zero_and_is_flagged() -> None:
    counts = np.full((50, 2), 5)
    counts[:, 0] = 0
    counts[7, 0] = 1
    found = gene_ceilings(counts, counts.sum(axis=1), target("spot-log10-cp10k"), np.random.default_rng(0))
    assert found["at_zero"][0]
    assert found["ceiling_r"][0] == 0


def test_counts_are_thinned_ten_times_unless_told_otherwise() -> None:
    counts = np.random.default_rng(0).poisson(3, (30, 4)).astype(np.int32)
    totals = counts.sum(axis=1)
    found, ten = (
        gene_ceilings(counts, totals, target("lognorm"), np.random.default_rng(1), **repeats)
        for repeats in ({}, {"repeats": 10})
    )
    for name in found:
        np.testing.assert_array_equal(found[name], ten[name])


def test_totals_below_the_panel_s_counts_are_refused() -> None:
    with pytest.raises(ValueError, match="sums over all genes"):
        gene_ceilings(np.ones((3, 2), dtype=int), np.ones(3, dtype=int), target("lognorm"), np.random.default_rng(0))


def slide(name: str, key: str, seed: int = 0) -> PreparedSlide:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(2.0, 1.0, (40, 5))).astype(np.int32)
    totals = counts.sum(axis=1).astype(np.int64)
    return replace(prepared_slide(counts, totals, target("lognorm")(counts, totals), name), key=key)


def dataset(*slides: PreparedSlide) -> PreparedDataset:
    by_name = {one.id: one for one in slides}
    return PreparedDataset(
        "toy", "Toy", target("lognorm"), tuple(f"G{i}" for i in range(5)), 2, by_name, tuple(by_name), ()
    )


def test_a_file_is_written_once_and_made_again_for_changed_slices_only(tmp_path: Path) -> None:
    data = dataset(slide("A1", "ka"), slide("B1", "kb", 1))
    path = write_ceiling(tmp_path, data, repeats=2)
    assert path == tmp_path / "evidence" / "ceiling-toy-lognorm.parquet"
    before, stamp = read_ceiling(path), path.stat().st_mtime_ns
    assert tuple(before.columns) == COLUMNS
    assert len(before) == 10
    write_ceiling(tmp_path, data, repeats=2)
    assert path.stat().st_mtime_ns == stamp
    write_ceiling(tmp_path, dataset(slide("B1", "changed", 2), slide("C1", "kc", 3)), repeats=2)
    after = read_ceiling(path)
    assert sorted(set(after["slice"])) == ["A1", "B1", "C1"]
    assert len(after) == 15
    kept = [table[table["slice"] == "A1"].reset_index(drop=True) for table in (before, after)]
    pd.testing.assert_frame_equal(*kept)
    b1 = [table.loc[table["slice"] == "B1", "mse_floor"].to_numpy() for table in (before, after)]
    assert not np.array_equal(*b1)


def test_other_repeats_or_another_seed_make_everything_again(tmp_path: Path) -> None:
    data = dataset(slide("A1", "ka"))
    one = read_ceiling(write_ceiling(tmp_path, data, repeats=2))
    two = read_ceiling(write_ceiling(tmp_path, data, seed=1, repeats=3))
    assert set(two["n_repeats"]) == {3}
    assert not np.array_equal(one["reliability"], two["reliability"])


def test_numbers_depend_on_the_slice_alone_and_not_on_its_company(tmp_path: Path) -> None:
    alone = read_ceiling(write_ceiling(tmp_path / "a", dataset(slide("B1", "kb"))))
    both = read_ceiling(write_ceiling(tmp_path / "b", dataset(slide("A1", "ka", 5), slide("B1", "kb"))))
    pd.testing.assert_frame_equal(alone, both[both["slice"] == "B1"].reset_index(drop=True))


def test_a_table_that_is_none_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "ceiling.parquet"
    path.write_text("no table")
    with pytest.raises(UserError, match="not a table of noise ceilings"):
        read_ceiling(path)
    pd.DataFrame({"a": [1]}).to_parquet(path)
    with pytest.raises(UserError, match="not a table of noise ceilings"):
        read_ceiling(path)


def test_a_slide_s_genes_are_named_in_the_order_of_its_panel() -> None:
    one = replace(slide("A1", "ka"), genes=tuple("VWXYZ"))
    table = noise_ceiling(one, target("lognorm"), np.random.default_rng(0), repeats=1)
    assert list(table["gene"]) == list("VWXYZ")
    assert set(table["n_spots"]) == {40}


def test_of_a_slide_of_very_many_spots_some_evenly_spread_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(4, 2.0, (400, 3))).astype(np.int32)
    whole = prepared_slide(counts, counts.sum(axis=1), counts.astype(np.float32))
    part = prepared_slide(counts[::4], counts[::4].sum(axis=1), counts[::4].astype(np.float32))
    monkeypatch.setattr("stbench.scores.ceiling.MOST_SPOTS", 100)
    found = noise_ceiling(whole, target("lognorm"), np.random.default_rng(1))
    pd.testing.assert_frame_equal(found, noise_ceiling(part, target("lognorm"), np.random.default_rng(1)))
    assert (found["n_spots"] == 100).all()
