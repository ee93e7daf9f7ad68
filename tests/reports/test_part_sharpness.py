"""The part of the report that says how flat and how smooth the predictions are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import marks_of
from synthetic import CONTROLS, METHODS, make_results

from stbench.reports.figures import canvas
from stbench.reports.parts.part import Context
from stbench.reports.parts.sharpness import measures, over_genes, part, sharpness_figure
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.tables.markdown import markdown

FEW = (METHODS[0], METHODS[1], CONTROLS[0], CONTROLS[1])  # mclstexp, stnet, training_mean, depth_oracle
RATIO = {"mclstexp": 0.31, "stnet": 0.5, "training_mean": 0.0, "depth_oracle": 1.2}


@pytest.fixture
def section(tmp_path: Path) -> Callable[..., Section]:
    """Results whose predictions have RATIO of the truth's spread (times a scatter over genes)."""

    def one(ratio: Mapping[str, float] = RATIO, moran: float = 0.6, **changes: object) -> Section:
        settings: dict = {"methods": FEW, "slices": ["B4", "C2", "C3"], "n_genes": 41, **changes}
        results = make_results(tmp_path / "run", **settings)
        rows = pd.read_csv(results / "summary.csv")
        for row in rows[rows["state"] == "finished"].itertuples():
            path = results / "trials" / row.key / "genes.parquet"
            genes = pd.read_parquet(path)
            n = len(genes)
            truth = np.linspace(0.5, 1.5, n)
            constant = ratio[row.method] == 0
            genes["sd_truth"] = truth
            genes["sd_prediction"] = truth * ratio[row.method] * np.linspace(0.5, 1.5, n)  # the median gene: the ratio
            genes["spearman"] = np.nan if constant else 0.2
            genes["moran_truth"] = np.linspace(0.04, 0.24, n)
            genes["moran_prediction"] = np.nan if constant else moran
            genes["ssim"] = 0.1
            genes.loc[0, ["sd_truth", "moran_truth", "ssim"]] = [0.0, np.nan, np.nan]  # one gene is constant in truth
            genes.to_parquet(path, index=False)
        (found,) = load([results])
        return found

    return one


def _row(made: object, label: str) -> list[str]:
    (line,) = [line for line in markdown(made.tables[0]).splitlines() if line.startswith(f"| {label}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.usefixtures("saved_pictures")
def test_the_lead_gives_the_best_methods_share_of_the_truths_spread(section: Callable[..., Section]) -> None:
    made = part(of := section(), Context([of]))
    assert "mclSTExp" in made.lead[0]
    assert "31%" in made.lead[0]
    assert "flatter than the tissue" in made.lead[0]
    assert "Moran's I 0.60 against 0.14" in made.lead[0]


@pytest.mark.parametrize(
    ("ratio", "moran", "words"),
    [
        (1.0, 0.6, "about as varied as the tissue"),
        (2.0, 0.01, "more varied than the tissue, and neighbouring spots are less alike"),
    ],
)
def test_the_lead_says_what_is_there(section: Callable[..., Section], ratio: float, moran: float, words: str) -> None:
    of = section(RATIO | {"mclstexp": ratio}, moran)
    assert words in part(of, Context([of])).lead[0]


def test_the_table_holds_medians_over_genes_and_means_over_slices(section: Callable[..., Section]) -> None:
    of = section()
    made = part(of, Context([of]))
    expected = np.median(0.5 * np.linspace(0.5, 1.5, 41)[1:])
    assert _row(made, "STnet")[2] == f"{expected:.2f}"
    assert _row(made, "STnet")[3] == "0.60"
    level = np.median(np.linspace(0.04, 0.24, 41)[1:])
    assert _row(made, "STnet")[4] == f"{0.6 / level:.2f}"
    assert _row(made, "measured expression")[3] == f"{level:.2f}"


def test_a_constant_prediction_has_no_spread_and_no_smoothness(section: Callable[..., Section]) -> None:
    row = _row(part(of := section(), Context([of])), "Training mean")
    assert row[2] == "0.00"
    assert row[3:6] == ["–", "–", "–"]


def test_genes_that_are_constant_in_truth_are_left_out(section: Callable[..., Section]) -> None:
    genes = measures(section().genes)
    assert "GENE0" not in set(genes["gene"])
    assert np.isfinite(genes["sd_ratio"]).all()


def test_seeds_are_averaged_before_slices(section: Callable[..., Section]) -> None:
    by_slice = over_genes(measures(section(seeds=(0, 1)).genes))
    assert len(by_slice) == len(FEW) * 3
    assert not by_slice.duplicated(["entry", "slice"]).any()


def test_an_incomplete_entry_is_marked_and_not_called_best(section: Callable[..., Section]) -> None:
    of = section(states={("mclstexp", "C2", 0): ("failed", "out of memory")})
    made = part(of, Context([of]))
    assert "STnet" in made.lead[0]
    assert _row(made, "mclSTExp")[1] == "2/3 †"


def test_the_figure_draws_a_box_for_every_entry_and_the_truth(section: Callable[..., Section]) -> None:
    of = section()
    by_gene = (
        measures(of.genes)
        .groupby(["entry", "gene"], observed=True)[["sd_ratio", "moran_prediction"]]
        .mean()
        .reset_index()
    )
    truth = pd.Series(np.linspace(0.04, 0.24, 40))
    with canvas.drawing():
        drawn = sharpness_figure(of, by_gene, truth)
    spread, smoothness = drawn.axes
    assert [label.get_text() for label in spread.get_yticklabels()] == ["measured expression", *of.entries["label"]]
    boxes = [box.get_path().get_extents() for group in spread.containers for box in group.boxes]
    low = {round((box.y0 + box.y1) / 2): box.x0 for box in boxes}
    place = 1 + list(of.entries["method"]).index("stnet")
    q1 = np.quantile(0.5 * np.linspace(0.5, 1.5, 41)[1:], 0.25)
    assert low[place] == pytest.approx(q1)
    assert smoothness.lines[-1].get_xdata()[0] == pytest.approx(truth.median())


def test_a_box_without_width_is_drawn_as_the_entrys_mark(section: Callable[..., Section]) -> None:
    of = section(moran=0.6)  # the same in all genes, so that no box could be seen
    with canvas.drawing():
        drawn = sharpness_figure(of, measures(of.genes), pd.Series(np.linspace(0.04, 0.24, 40)))
    seen = {(round(x, 3), y) for x, y in marks_of(drawn.axes[1])}
    flat = measures(of.genes).groupby("entry", observed=True)["moran_prediction"].count()
    places = {place for place, entry in enumerate(of.entries.index, start=1) if flat.get(entry, 0)}
    assert {"mclstexp", "stnet"} <= set(of.entries["method"].iloc[[place - 1 for place in places]])
    assert seen == {(0.6, place) for place in places}


def test_results_without_these_columns_say_so(tmp_path: Path) -> None:
    (of,) = load([make_results(tmp_path / "old", methods=FEW, slices=["B4", "C2"])])
    made = part(of, Context([of]))
    assert "run them again" in made.lead[0]
    assert not made.tables


def test_without_any_gene_table_there_is_no_part(tmp_path: Path) -> None:
    (of,) = load([make_results(tmp_path / "none", methods=FEW, slices=["B4", "C2"], with_genes=False)])
    assert part(of, Context([of])) is None
