"""The leaderboard ranks like with like: common trials, one protocol a section, versions apart."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CONTROLS, METHODS, STNET, Fake, change_specs, laid_over, make_results, rename_trials

from stbench.errors import UserError
from stbench.reports import leaderboard
from stbench.reports.numbers.common_trials import overview, share_trials, standings, tidy
from stbench.reports.page.leaderboard import overview_table
from stbench.reports.sections.merge import load_merged
from stbench.reports.sections.read import load
from stbench.reports.tables.standings import METRIC, board_table, lead

BLEEP, MCLSTEXP = METHODS[5], METHODS[0]
MEAN = CONTROLS[0]
RIDGE = CONTROLS[4]
SLICES = ["B4", "C2", "C3", "C4"]


def _run(place: Path, *methods: Fake, **changes: Any) -> Path:
    return make_results(place, methods=methods, **{"slices": SLICES, **changes})


def _edit_summary(place: Path, change: Callable[[pd.DataFrame], None]) -> None:
    summary = pd.read_csv(place / "summary.csv", dtype=str, keep_default_na=False)
    change(summary)
    summary.to_csv(place / "summary.csv", index=False)


def _edit_run(place: Path, **changes: Any) -> None:
    record = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps(record | changes))


def _section_facts(place: Path, **changes: Any) -> None:
    record = json.loads((place / "run.json").read_text())
    (section,) = record["sections"]
    (place / "run.json").write_text(json.dumps(record | {"sections": [laid_over(section, changes)]}))


def _newer(place: Path) -> None:
    """Other trials under the same names, of a later run."""
    rename_trials(place, "-newer")
    _edit_run(place, created="2025-06-01T12:00:00+0000")


def _unfinished(method: Fake, slices: list[str], seed: int = 0) -> dict[tuple[str, str, int], tuple[str, str]]:
    return {(method.name, name, seed): ("failed", "out of memory") for name in slices}


def test_ranks_are_those_of_the_means_over_the_common_trials(tmp_path: Path) -> None:
    first = _run(tmp_path / "a", STNET, MCLSTEXP)
    second = _run(tmp_path / "b", BLEEP, RIDGE, states=_unfinished(BLEEP, ["C4"]), seed=1)
    (section,) = load_merged([first, second])
    one = standings(section)
    assert one.common == {(name, "0") for name in ("B4", "C2", "C3")}
    rows = pd.concat([pd.read_csv(place / "summary.csv") for place in (first, second)])
    rows = rows[rows["slice"].isin(["B4", "C2", "C3"]) & (rows["state"] == "finished")]
    for metric, best_is_high in (("pcc_acg", True), ("strict_pcc_acg", True), ("mse", False), ("mae", False)):
        means = rows.groupby("method")[metric].mean()
        table = one.table.set_index("method")
        np.testing.assert_allclose(table[metric], means.reindex(table.index), rtol=1e-12)
        np.testing.assert_allclose(
            table[f"{metric}_sd"], rows.groupby("method")[metric].std(ddof=1).reindex(table.index), rtol=1e-9
        )
        expected = sorted(["stnet", "mclstexp", "bleep"], key=lambda name: means[name], reverse=best_is_high)
        ranks = table[f"{metric}_rank"].dropna().sort_values()
        assert list(ranks.index) == expected
        assert list(ranks) == [1, 2, 3]
    assert table.loc["colour_ridge", ["ranked", "n_common", "n_trials"]].tolist() == [False, 3, 4]
    assert table.loc["bleep", ["n_slices", "n_common"]].tolist() == [3, 3]


def test_seeds_are_averaged_within_a_slice_before_slices_are(tmp_path: Path) -> None:
    (section,) = load_merged([_run(tmp_path / "a", STNET, BLEEP, seeds=(0, 1, 2))])
    one = standings(section)
    assert len(one.common) == 12
    rows = pd.read_csv(tmp_path / "a" / "summary.csv")
    over_seeds = rows[rows["method"] == "bleep"].groupby("slice")["mae"].mean()
    row = one.table.set_index("method").loc["bleep"]
    assert row["mae"] == pytest.approx(over_seeds.mean())
    assert row["mae_sd"] == pytest.approx(over_seeds.std(ddof=1))


def test_an_entry_with_one_seed_is_ranked_on_that_seed_with_the_others(tmp_path: Path) -> None:
    places = [_run(tmp_path / "a", STNET, seeds=(0, 1, 2)), _run(tmp_path / "b", BLEEP, seeds=(0,))]
    (section,) = load_merged(places)
    one = standings(section)
    assert one.table["ranked"].all()
    assert one.common == {(name, "0") for name in SLICES}
    shown = {row[0].text: row[3].text for row in board_table(one).blocks[0]}
    assert shown == {"STnet": "4 of 12", "BLEEP": "4 of 4"}


def test_an_entry_with_less_than_half_of_the_slices_is_listed_and_not_ranked(tmp_path: Path) -> None:
    states = _unfinished(BLEEP, ["C2", "C3", "C4"])
    (section,) = load_merged([_run(tmp_path / "a", STNET, MCLSTEXP, BLEEP, states=states)])
    one = standings(section)
    assert len(one.common) == 4
    assert one.table.set_index("method")["ranked"].to_dict() == {"stnet": True, "mclstexp": True, "bleep": False}
    (last,) = [row for row in board_table(one).blocks[0] if row[0].text == "BLEEP"]
    assert [cell.text for cell in last[:5]] == ["BLEEP", "–", "1/4", "0 of 1", "–"]
    assert "BLEEP (1/4 slices)" in lead(one)[-1]


def test_a_method_whose_correlation_is_undefined_has_no_rank_in_it(tmp_path: Path) -> None:
    flat = Fake("flat", "Flat", None)
    (section,) = load_merged([_run(tmp_path / "a", STNET, flat)])
    table = standings(section).table.set_index("method")
    assert np.isnan(table.loc["flat", "pcc_acg_rank"])
    assert table.loc["flat", "strict_pcc_acg_rank"] == 2
    assert table.loc["stnet", "pcc_acg_rank"] == 1


def test_equals_share_the_better_rank_and_the_sentence_says_so(tmp_path: Path) -> None:
    place = _run(tmp_path / "a", STNET, BLEEP, MCLSTEXP)

    def level(table: pd.DataFrame) -> None:
        table.loc[table["method"] != "bleep", METRIC] = "0.9"

    _edit_summary(place, level)
    one = standings(load_merged([place])[0])
    assert one.table.set_index("method")[f"{METRIC}_rank"].to_dict() == {"stnet": 1, "mclstexp": 1, "bleep": 3}
    assert lead(one)[0].startswith("STnet and mclSTExp are level and first of 3 methods by strict PCC (ACG): 0.9000")


def test_without_methods_controls_are_ranked_and_oracles_are_not(tmp_path: Path) -> None:
    (section,) = load_merged([_run(tmp_path / "a", MEAN, CONTROLS[1], RIDGE)])
    one = standings(section)
    assert one.table.set_index("method")[f"{METRIC}_rank"].dropna().to_dict() == {"colour_ridge": 1, "training_mean": 2}
    assert "Only controls are here" in " ".join(lead(one))


def test_where_nothing_finished_nothing_is_ranked_and_it_is_said(tmp_path: Path) -> None:
    (section,) = load_merged([_run(tmp_path / "a", STNET, states=_unfinished(STNET, SLICES))])
    one = standings(section)
    assert not one.table["ranked"].any()
    assert lead(one) == ["Nothing can be ranked: no method has finished at least half of the slices."]
    assert board_table(one).blocks[0][0][1].text == "–"


TRIALS = st.frozensets(st.tuples(st.sampled_from("ABCDEF"), st.sampled_from("012")))


@given(st.lists(TRIALS, max_size=6), st.integers(1, 6))
def test_whoever_is_ranked_finished_every_common_trial(sets: list, n_slices: int) -> None:
    finished = {f"entry{i}": trials for i, trials in enumerate(sets)}
    ranked, common = share_trials(finished, n_slices)
    assert all(common <= finished[entry] for entry in ranked)
    if ranked:
        assert common == frozenset.intersection(*(finished[entry] for entry in ranked))
        assert 2 * len({name for name, _ in common}) >= n_slices
    for entry in finished.keys() - set(ranked):  # nobody is left out who could join
        assert 2 * len({name for name, _ in finished[entry] & common}) < n_slices or not finished[entry] & common


def test_versions_of_a_method_are_entries_of_their_own(tmp_path: Path) -> None:
    old = _run(tmp_path / "old", STNET, BLEEP)
    new = _run(tmp_path / "new", STNET, seed=7)
    _newer(new)
    with pytest.raises(UserError, match="different trials"):
        load([old, new])
    (section,) = load_merged([new, old])
    assert section.entries["label"].tolist() == ["STnet (version 2 of 2)", "STnet (version 1 of 2)", "BLEEP"]
    table = standings(section).table
    for place, version in ((old, "version 1 of 2"), (new, "version 2 of 2")):
        rows = pd.read_csv(place / "summary.csv")
        (row,) = [of for _, of in table.iterrows() if version in of["tags"]]
        assert row["mse"] == pytest.approx(rows.loc[rows["method"] == "stnet", "mse"].mean())


def test_versions_of_which_each_has_other_slices_are_told_apart_by_their_code(tmp_path: Path) -> None:
    places = [
        _run(tmp_path / "a", STNET, slices=["B4", "C2"]),
        _run(tmp_path / "b", STNET, slices=["C3", "C4"]),
    ]

    def plan(place: Path, source: str) -> None:
        change_specs(place, lambda spec: replace(spec, method_source=source))

    plan(places[0], "one"), plan(places[1], "one")
    (section,) = load_merged(places)
    assert section.entries["label"].tolist() == ["STnet"]
    plan(places[1], "two")
    (section,) = load_merged(places)
    assert len(section.entries) == 2


def test_the_same_trials_in_two_directories_count_once(tmp_path: Path) -> None:
    (section,) = load_merged([_run(tmp_path / "a", STNET, BLEEP), _run(tmp_path / "b", STNET)])
    assert section.entries["label"].tolist() == ["STnet", "BLEEP"]
    assert len(section.rows) == 8


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: _edit_summary(place, lambda t: t.__setitem__("n_spots", "299")), "slice B4 .* has spots 300 in"),
        (lambda place: _edit_summary(place, lambda t: t.__setitem__("n_genes", "61")), "slice B4 .* has genes 60 in"),
        (lambda place: _section_facts(place, slides={"C3": {"key": "other"}}), "slice C3 .* has the content kC3 in"),
        (
            lambda place: _section_facts(place, target={"formula": "other"}),
            r"the target of her2st, loso, spot-log10-cp10k has the formula log10\(1",
        ),
    ],
)
def test_other_spots_genes_or_content_of_a_slice_are_refused_with_both_directories(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    first, second = _run(tmp_path / "a", STNET), _run(tmp_path / "b", BLEEP)
    damage(second)
    with pytest.raises(UserError, match=message) as refused:
        load_merged([first, second])
    assert "\n" not in str(refused.value)
    assert str(first) in str(refused.value)
    assert str(second) in str(refused.value)


def test_other_training_slices_are_another_question(tmp_path: Path) -> None:
    places = [_run(tmp_path / "a", STNET), _run(tmp_path / "b", BLEEP)]
    for place, train in zip(places, (["C2", "C3"], ["C2", "C3", "C4"]), strict=True):
        fold = {"name": "B4", "test": ["B4"], "train": train, "same_patient": [], "statement": "B4 held out"}
        _section_facts(place, folds=[fold])
    with pytest.raises(UserError, match=r"slice B4 .* has the training slices C2, C3 \(2\) in .* C2, C3, C4 \(3\)"):
        load_merged(places)


def test_other_sections_are_not_compared(tmp_path: Path) -> None:
    places = [_run(tmp_path / "a", STNET), _run(tmp_path / "b", STNET, split="lopo", n_genes=70)]
    assert [section.split for section in load_merged(places)] == ["loso", "lopo"]


def test_the_mean_rank_is_over_sections_that_have_everybody(tmp_path: Path) -> None:
    places = [
        _run(tmp_path / "a", replace(STNET, level=0.1), replace(BLEEP, level=0.9)),
        _run(tmp_path / "b", replace(STNET, level=0.9), replace(BLEEP, level=0.1), split="lopo"),
        _run(tmp_path / "c", replace(STNET, level=0.9), target="lognorm"),
    ]
    placed = [standings(section) for section in load_merged(places)]
    table = overview(placed, METRIC).set_index("title")
    assert table.drop(columns="tags").loc["BLEEP"].tolist()[:2] == [1, 2]
    assert table["mean_rank"].to_dict() == {"STnet": 1.5, "BLEEP": 1.5}
    assert table.attrs["sections"] == ["her2st-loso-spot-log10-cp10k", "her2st-lopo-spot-log10-cp10k"]
    shown = {row[0].text: [cell.text for cell in row[1:]] for row in overview_table(placed).blocks[0]}
    assert shown["BLEEP"] == ["1 of 2", "2 of 2", "–", "1.50"]
    only = overview([placed[2], standings(load_merged([_run(tmp_path / "d", BLEEP, split="lopo")])[0])], METRIC)
    assert only["mean_rank"].isna().all()


def test_the_newest_version_stands_in_the_overview(tmp_path: Path) -> None:
    old = _run(tmp_path / "old", replace(STNET, level=0.9), replace(BLEEP, level=0.5))
    new = _run(tmp_path / "new", replace(STNET, level=0.1))
    _newer(new)
    (section,) = load_merged([old, new])
    table = overview([standings(section)], METRIC)
    assert table.set_index("title")[section.name].to_dict() == {"BLEEP": 2, "STnet": 3}
    assert not any("version" in tag for tags in table["tags"] for tag in tags)
    shown = {row[0].text: row[1].text for row in overview_table([standings(section)]).blocks[0]}
    assert shown == {"BLEEP": "2 of 3", "STnet": "3 of 3"}


def test_the_table_is_tidy_and_says_where_each_number_is_from(tmp_path: Path) -> None:
    places = [_run(tmp_path / "a", STNET, BLEEP), _run(tmp_path / "b", MCLSTEXP, MEAN)]
    files = leaderboard(places, tmp_path / "out")
    table = pd.read_csv(files.table)
    columns = ["dataset", "split", "target", "method", "entry", "metric", "mean", "sd", "n_slices", "n_common", "rank"]
    assert list(table.columns) == [*columns, "run", "created", "versions", "machine", "kind"]
    assert not table.duplicated(["dataset", "split", "target", "entry", "metric"]).any()
    assert len(table) == 4 * 6
    about = table.drop_duplicates("method").set_index("method")
    assert about["run"].to_dict() == {"stnet": "a", "bleep": "a", "mclstexp": "b", "training_mean": "b"}
    assert about.loc["stnet", "versions"] == "python 3.11.2, stbench 0.1.0, torch 2.4.0"
    assert about.loc["stnet", "machine"] == "system Linux 6.1, cores 2"
    assert sorted(table.loc[table["metric"] == "mse", "rank"].dropna()) == [1, 2, 3]
    pd.testing.assert_frame_equal(
        table[["mean", "sd"]], tidy([standings(s) for s in load_merged(places)])[["mean", "sd"]], check_exact=False
    )


def test_the_page_holds_every_section_and_nothing_from_data_unescaped(tmp_path: Path) -> None:
    bad = Fake("bad", "<script>alert(1)</script>", 0.1)
    places = [_run(tmp_path / "a", STNET, bad), _run(tmp_path / "b", BLEEP, STNET, split="lopo")]
    files = leaderboard(places, tmp_path / "out")
    page = files.page.read_text()
    assert "<script>alert" not in page
    assert "Ranks across sections" in page
    assert "leave one slice out" in page
    assert "leave one patient out" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert [title for title, _ in files.headlines] == [
        "HER2+, leave one slice out, spot-log10-cp10k",
        "HER2+, leave one patient out, spot-log10-cp10k",
    ]
    again = leaderboard(places, tmp_path / "again")
    assert again.page.read_bytes() == files.page.read_bytes()


def test_the_command_says_who_is_first_and_where_the_page_is(tmp_path: Path, stbench_command: Callable) -> None:
    words = ("--methods", "training_mean,colour_ridge", "--dataset", "demo", "--slices", "P1a,P2a")
    run = stbench_command("run", *words, "--preset", "quick", "--no-mlflow", "--out", tmp_path / "r")
    assert run.code == 0, run.err
    done = stbench_command("leaderboard", tmp_path / "r", "--out", tmp_path / "board")
    assert done.code == 0, done.err
    assert "Ridge on colour is first of 2 controls by strict PCC (ACG)" in done.out
    assert (tmp_path / "board" / "leaderboard.html").is_file()
    refused = stbench_command("leaderboard", tmp_path)
    assert refused.code == 2
    assert "is not a results directory" in refused.err
