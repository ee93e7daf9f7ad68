"""The part of the report that compares clusters with labelled regions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from synthetic import CONTROLS, METHODS, make_results

from stbench.reports.figures import canvas
from stbench.reports.parts.domains.maps import COLOURS, colours_of, domains_figure, matched
from stbench.reports.parts.domains.part import OBSERVED, over_runs, over_slices, part, runs_of_clustering
from stbench.reports.parts.part import Context
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.sections.trial_files import trial_table
from stbench.reports.tables.markdown import markdown

FEW = (METHODS[0], METHODS[1], CONTROLS[0])  # mclstexp, stnet, training_mean
ARI = {"mclstexp": 0.3, "stnet": 0.1, "training_mean": 0.0}
LABELS = np.array(["tumour"] * 6 + ["stroma"] * 4 + ["immune"] * 2, dtype=object)


@pytest.fixture
def section(tmp_path: Path) -> Callable[..., Section]:
    """Results with labels on B1 and C1 (not on B2), ARI as given (and 0.1 more on C1), spread over K-means' seeds."""

    def one(**changes: object) -> Section:
        settings: dict = {"methods": FEW, "slices": ["B1", "B2", "C1"], **changes}
        results = make_results(tmp_path / "run", **settings)
        rows = pd.read_csv(results / "summary.csv")
        for row in rows[(rows["state"] == "finished") & (rows["slice"] != "B2")].itertuples():
            trial = results / "trials" / row.key
            table = pd.DataFrame({"kmeans_seed": range(10)}).merge(
                pd.DataFrame({"of": ["prediction", "truth"]}), how="cross"
            )
            table["ari"] = table["of"].map({"prediction": ARI[row.method], "truth": 0.2})
            table["ari"] += (table["kmeans_seed"] - 4.5) / 100 + (0.1 if row.slice == "C1" else 0)
            table.assign(slice=row.slice, k=3, n_spots=len(LABELS), nmi=table["ari"] + 0.1).to_csv(
                trial / "domains.csv"
            )
            spots = pd.DataFrame({"slice": row.slice, "spot": [f"s{i}" for i in range(len(LABELS))], "label": LABELS})
            spots["x"], spots["y"] = np.arange(len(LABELS)) * 10.0, 5.0
            spots["cluster_truth"] = pd.Series(LABELS).map({"tumour": 2, "stroma": 0, "immune": 1})  # other numbers
            spots["cluster_prediction"] = 0
            spots.to_parquet(trial / "domains.parquet")
        (found,) = load([results])
        return found

    return one


def _row(made: object, label: str) -> list[str]:
    (line,) = [line for line in markdown(made.tables[0]).splitlines() if line.startswith(f"| {label}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_clusters_are_matched_with_the_labels_that_they_overlap_most() -> None:
    labels = np.array(["a", "a", "a", "b", "b", "c"], dtype=object)
    assert matched(np.array([2, 2, 0, 0, 0, 1]), labels) == {2: "a", 0: "b", 1: "c"}
    # each label once, also where another cluster would overlap it more
    assert matched(np.array([0, 0, 1, 1, 1, 1]), np.array(["a"] * 4 + ["b"] * 2, dtype=object)) == {0: "a", 1: "b"}
    assert matched(np.zeros(6, dtype=int), labels) == {0: "a"}


def test_frequent_labels_have_colours_of_their_own() -> None:
    names = pd.Series([f"l{i}" for i in range(13) for _ in range(20 - i)])
    colours = colours_of(names)
    assert colours["l0"] == COLOURS[0]
    assert len(set(colours.values())) == 13


def test_scores_are_means_over_slices_with_the_range_over_starts(section: Callable[..., Section]) -> None:
    of = section(seeds=(0, 1))
    table = over_slices(of, runs_of_clustering(trial_table(of, "domains.csv")), ["B1", "C1"])
    best = table[table["label"] == "mclSTExp"].iloc[0]
    assert best["ari"] == pytest.approx(0.35)
    assert (best["ari_low"], best["ari_high"]) == pytest.approx((0.305, 0.395))
    assert best["ari_first"] == pytest.approx(0.305)
    assert table.loc[OBSERVED, "ari"] == pytest.approx(0.25)
    assert table["complete"].all()


def test_one_slice_has_the_mean_and_the_range_of_its_runs() -> None:
    runs = pd.DataFrame(
        {
            "column": "a",
            "slice": "S",
            "kmeans_seed": [0, 1, 2],
            "k": 3,
            "n_spots": 9,
            "ari": [0.1, 0.4, 0.1],
            "nmi": [0, 0, 0.3],
        }
    )
    (row,) = over_runs(runs).to_dict("records")
    assert (row["ari"], row["ari_low"], row["ari_high"], row["ari_first"]) == pytest.approx((0.2, 0.1, 0.4, 0.1))
    assert row["nmi"] == pytest.approx(0.1)


@pytest.mark.usefixtures("saved_pictures")
def test_the_lead_names_the_best_method_beside_the_measured_expression(section: Callable[..., Section]) -> None:
    lead = part(of := section(), Context([of])).lead
    assert lead[0] == (
        "On 2 labelled slices, clusters of the predictions of mclSTExp agree best of 2 methods with the labels: ARI "
        "0.35 (1: the same regions, 0: chance); clusters of the measured expression reach 0.25."
    )
    assert "moves by up to 0.09" in lead[1]
    assert any("Labelled are 2 of 3 slices: B1, C1" in sentence for sentence in lead)
    assert any("H&E picture is missing" in sentence for sentence in lead)


def test_an_unfinished_method_is_not_called_best(section: Callable[..., Section]) -> None:
    of = section(states={("mclstexp", "C1", 0): ("failed", "out of memory")})
    made = part(of, Context([of]))
    assert "STnet agree best of 1 method " in made.lead[0]
    assert _row(made, "mclSTExp")[1] == "1/2 †"


def test_printed_values_stand_beside_ours_only_when_asked_for(section: Callable[..., Section]) -> None:
    of = section()
    assert "printed" not in markdown(part(of, Context([of])).tables[0]).lower().replace("what the paper prints", "")
    made = part(of, Context([of], compare_paper=True))
    assert _row(made, "mclSTExp")[-2] == "0.280"  # (0.381 + 0.179) / 2
    assert _row(made, "observed")[-2] == "0.148"  # (0.162 + 0.134) / 2
    assert "printed 0.381" in markdown(made.tables[1])


def test_the_map_colours_clusters_as_their_labels(section: Callable[..., Section]) -> None:
    of = section()
    spots = trial_table(of, "domains.parquet")
    entries = list(of.entries.index[:2])
    index = pd.MultiIndex.from_product([[OBSERVED, *entries], ["B1", "C1"]])
    scores = pd.DataFrame({"ari": np.linspace(0.1, 0.6, 6), "nmi": 0.5}, index=index)
    with canvas.drawing():
        drawn = domains_figure(of, spots, scores, ["B1", "C1"], entries, {})
    maps = {axes.get_label(): axes for axes in drawn.axes}
    assert len(maps) == 2 * 4
    colour = colours_of(spots["label"])
    expected = [colour[label] for label in LABELS]
    for what in ("labels", "observed"):  # the observed clusters have other numbers but are the same regions
        (circles,) = maps[f"B1, {what}"].collections
        assert [to_hex(of_spot) for of_spot in circles.get_facecolor()] == expected
    (flat,) = maps[f"C1, {entries[0]}"].collections
    assert {to_hex(of_spot) for of_spot in flat.get_facecolor()} == {colour["tumour"]}
    assert maps["C1, observed"].get_title() == "ARI 0.20 NMI 0.50"
    assert maps["B1, labels"].get_title() == ""


def test_without_labels_there_is_no_part(tmp_path: Path) -> None:
    (of,) = load([make_results(tmp_path / "none", methods=FEW, slices=["B4", "C2"])])
    assert part(of, Context([of])) is None
