"""The arithmetic of the report's tables, against numbers worked out by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import STNET

from stbench.reports.numbers.means import (
    board_of,
    box_statistics,
    eligible,
    leaderboard,
    replicates,
    seed_deviations,
    slice_scores,
    with_published,
)
from stbench.results.summary_schema import METRICS

ENTRIES = pd.DataFrame(
    {"kind": ["method", "method", "control"], "method": ["stnet", "bleep", "mean"], "oracle": False},
    index=pd.Index(["stnet", "bleep", "mean"], name="entry"),
)


def rows(*scores: tuple[str, int, str, float | None]) -> pd.DataFrame:
    """(entry, seed, slice, PCC (ACG)) each; ``None``: the trial failed. The other metrics are the negative of it."""
    table = pd.DataFrame(scores, columns=["entry", "seed", "slice", "pcc_acg"])
    table["pcc_acg"] = table["pcc_acg"].astype(float)
    table["state"] = ["failed" if score[3] is None else "finished" for score in scores]
    table["key"] = [f"{entry}-{seed}-{name}" for entry, seed, name, _ in scores]
    for metric in METRICS[1:]:
        table[metric] = -table["pcc_acg"]
    return table


COMPLETE = rows(
    ("stnet", 0, "A", 0.10), ("stnet", 1, "A", 0.30), ("stnet", 0, "B", 0.40), ("stnet", 1, "B", 0.80),
    ("bleep", 0, "A", 0.50), ("bleep", 1, "A", 0.50), ("bleep", 0, "B", 0.10), ("bleep", 1, "B", 0.10),
    ("mean", 0, "A", math.nan), ("mean", 1, "A", math.nan), ("mean", 0, "B", math.nan), ("mean", 1, "B", math.nan),
)  # fmt: skip


def test_means_are_over_seeds_first_then_over_slices() -> None:
    # stnet has three seeds on A and one on B: (0.1 + 0.2 + 0.3) / 3 = 0.2 and 0.6, so 0.4; over all rows it were 0.3
    uneven = rows(("stnet", 0, "A", 0.1), ("stnet", 1, "A", 0.2), ("stnet", 2, "A", 0.3), ("stnet", 0, "B", 0.6))
    scores = slice_scores(uneven).set_index("slice")
    assert scores["pcc_acg"].to_dict() == pytest.approx({"A": 0.2, "B": 0.6})
    assert scores["n_seeds"].to_dict() == {"A": 3, "B": 1}
    assert leaderboard(uneven, ENTRIES.loc[["stnet"]], ["A", "B"]).loc["stnet", "pcc_acg"] == pytest.approx(0.4)


def test_spread_over_slices_and_over_seeds_are_different_numbers() -> None:
    board = leaderboard(COMPLETE, ENTRIES, ["A", "B"])
    # slices: 0.2 and 0.6; seeds: (0.1 + 0.4) / 2 = 0.25 and (0.3 + 0.8) / 2 = 0.55
    assert board.loc["stnet", "pcc_acg"] == pytest.approx(0.4)
    assert board.loc["stnet", "pcc_acg_sd"] == pytest.approx(0.4 / math.sqrt(2))
    assert board.loc["stnet", "pcc_acg_sd_seeds"] == pytest.approx(0.3 / math.sqrt(2))
    assert board.loc["bleep", "pcc_acg_sd_seeds"] == pytest.approx(0.0)


def test_one_slice_or_one_seed_has_no_spread() -> None:
    board = leaderboard(rows(("stnet", 0, "A", 0.1)), ENTRIES.loc[["stnet"]], ["A"])
    assert np.isnan(board.loc["stnet", "pcc_acg_sd"])
    assert np.isnan(board.loc["stnet", "pcc_acg_sd_seeds"])


def test_a_seed_that_lacks_a_slice_stays_out_of_the_spread_over_seeds() -> None:
    both = [("stnet", 0, "A", 0.1), ("stnet", 0, "B", 0.3), ("stnet", 2, "A", 0.2), ("stnet", 2, "B", 0.4)]
    table = rows(*both, ("stnet", 1, "A", 0.5))
    # seeds 0 and 2 have both slices: means 0.2 and 0.3
    assert seed_deviations(table).loc["stnet", "pcc_acg"] == pytest.approx(0.1 / math.sqrt(2))


def test_the_best_method_is_marked_and_a_lower_error_is_better() -> None:
    board = leaderboard(COMPLETE, ENTRIES, ["A", "B"])
    assert board["pcc_acg_best"].to_dict() == {"stnet": True, "bleep": False, "mean": False}
    assert board["mse_best"].to_dict() == {"stnet": True, "bleep": False, "mean": False}  # -0.4 against -0.3
    assert board["pcc_heg_best"].to_dict() == {"stnet": False, "bleep": True, "mean": False}


def test_a_tie_marks_both() -> None:
    board = leaderboard(rows(("stnet", 0, "A", 0.1), ("bleep", 0, "A", 0.1)), ENTRIES.iloc[:2], ["A"])
    assert board["pcc_acg_best"].tolist() == [True, True]


def test_a_control_is_never_marked_best() -> None:
    board = leaderboard(rows(("stnet", 0, "A", 0.1), ("mean", 0, "A", 0.9)), ENTRIES.iloc[[0, 2]], ["A"])
    assert board["pcc_acg_best"].to_dict() == {"stnet": True, "mean": False}


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_method_with_a_failed_trial_is_counted_and_not_ranked(seeds: tuple[int, ...]) -> None:
    scores: list[tuple[str, int, str, float | None]] = [
        (entry, seed, name, 0.9) for entry in ("stnet", "bleep") for seed in seeds for name in "AB"
    ]
    scores[2 * len(seeds) - 1] = ("stnet", seeds[-1], "B", None)
    board = leaderboard(rows(*scores), ENTRIES.iloc[:2], ["A", "B"])
    assert board.loc["stnet", ["n_trials", "of_trials"]].tolist() == [2 * len(seeds) - 1, 2 * len(seeds)]
    assert board.loc["stnet", "n_slices"] == (1 if len(seeds) == 1 else 2)
    assert board["complete"].to_dict() == {"stnet": False, "bleep": True}
    assert board["pcc_acg_best"].to_dict() == {"stnet": False, "bleep": True}


def test_a_method_that_was_never_planned_on_a_slice_is_not_complete() -> None:
    board = leaderboard(
        rows(("stnet", 0, "A", 0.9), ("bleep", 0, "A", 0.1), ("bleep", 0, "B", 0.1)), ENTRIES.iloc[:2], ["A", "B"]
    )
    assert board["complete"].to_dict() == {"stnet": False, "bleep": True}


def test_a_metric_undefined_on_a_slice_is_counted_and_not_ranked() -> None:
    table = rows(
        ("stnet", 0, "A", 0.9), ("stnet", 0, "B", math.nan), ("bleep", 0, "A", 0.1), ("bleep", 0, "B", 0.2)
    )  # fmt: skip
    board = leaderboard(table, ENTRIES.iloc[:2], ["A", "B"])
    assert board.loc["stnet", "pcc_acg"] == pytest.approx(0.9)
    assert board.loc["stnet", ["pcc_acg_slices", "n_slices"]].tolist() == [1, 2]
    assert board["complete"].all()
    assert eligible(board, "pcc_acg").to_dict() == {"stnet": False, "bleep": True}
    assert board["pcc_acg_best"].to_dict() == {"stnet": False, "bleep": True}


def test_a_metric_undefined_for_one_seed_is_undefined_for_the_slice() -> None:
    scores = slice_scores(rows(("stnet", 0, "A", 0.9), ("stnet", 1, "A", math.nan)))
    assert np.isnan(scores.loc[0, "pcc_acg"])
    assert scores.loc[0, "n_seeds"] == 2


def test_published_numbers_stand_beside_their_dataset_and_split_only() -> None:
    board = leaderboard(COMPLETE, ENTRIES, ["A", "B"])
    printed = pd.DataFrame(
        [("her2st", "loso", "pcc_acg", "stnet", 0.0561, 0.017, "a paper", "")],
        columns=["dataset", "split", "metric", "method", "mean", "spread", "source", "note"],
    )
    here = with_published(board, printed, "her2st", "loso")
    assert here.loc["stnet", "pcc_acg_published"] == 0.0561
    assert np.isnan(here.loc["bleep", "pcc_acg_published"])
    assert "pcc_acg_published" not in with_published(board, printed, "her2st", "lopo")
    assert "pcc_acg_published" not in with_published(board, printed, "cscc", "loso")


def test_a_box_is_quartiles_and_whiskers_of_the_genes_mean_over_seeds() -> None:
    # over seeds: 0, 1, 2, 3, 10; quartiles 1, 2, 3; whiskers end at the last genes within 1 - 3 and 3 + 3
    first, second = [0.0, 1.0, 2.0, 2.0, 9.0], [0.0, 1.0, 2.0, 4.0, 11.0]
    genes = pd.DataFrame(
        {
            "entry": "stnet",
            "slice": "A",
            "seed": [0] * 5 + [1] * 5,
            "gene": [*"abcde"] * 2,
            "r": first + second,
        }
    )
    box = box_statistics(genes).iloc[0]
    assert box[["q1", "median", "q3", "low", "high", "n_genes"]].tolist() == [1, 2, 3, 0, 3, 5]
    assert box["mean"] == pytest.approx((np.mean(first) + np.mean(second)) / 2)


def test_a_box_agrees_with_matplotlib_and_leaves_undefined_genes_out() -> None:
    from matplotlib.cbook import boxplot_stats

    values = np.random.default_rng(0).standard_t(3, 201)
    genes = pd.DataFrame({"entry": "stnet", "slice": "A", "seed": 0, "gene": [f"g{i}" for i in range(202)]})
    genes["r"] = [*values, math.nan]
    box = box_statistics(genes).iloc[0]
    expected = boxplot_stats(values)[0]
    ours = [box[name] for name in ("q1", "median", "q3", "low", "high", "mean", "n_genes")]
    theirs = [expected[name] for name in ("q1", "med", "q3", "whislo", "whishi", "mean")]
    assert ours == pytest.approx([*theirs, 201])


def test_a_slice_without_any_defined_gene_has_no_box() -> None:
    genes = pd.DataFrame({"entry": "mean", "slice": "A", "seed": 0, "gene": ["a", "b"], "r": [math.nan, math.nan]})
    assert box_statistics(genes).empty


def test_replicates_are_read_for_each_slice_in_fold_order(load_fake) -> None:
    section = load_fake(slices=["B4", "C2", "C3"])
    table = replicates(section)
    assert table["slice"].tolist() == ["B4", "C2", "C3"]
    assert table["same_patient"].tolist() == [0, 1, 1]


def test_the_leaderboard_of_a_section_is_computed_once(load_fake) -> None:
    section = load_fake(methods=(STNET,))
    assert board_of(section) is board_of(section)
    fewer = replace(section, rows=section.rows[section.rows["slice"] != "B4"])
    assert board_of(fewer)["n_slices"].tolist() == [2]
    assert board_of(section)["n_slices"].tolist() == [3]
