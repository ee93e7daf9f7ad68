"""The part on significance, and the headline: what a test over patients can say, and plainly what it cannot."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import CONTROLS, METHODS, STNET, Fake, make_results

from stbench.reports.numbers.means import leaderboard, with_exchanged
from stbench.reports.numbers.significance import against_best, comparable
from stbench.reports.parts.part import Context, Part
from stbench.reports.parts.significance.part import part
from stbench.reports.published.table1 import published
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.tables.main import leaderboard_notes
from stbench.reports.words.headline import headline
from stbench.reports.words.significance import QUESTION

MEAN, ORACLE, COLOUR = CONTROLS[0], CONTROLS[1], CONTROLS[4]
BEST = METHODS[0]
TWO = (BEST, STNET)
BLOCKS = ["B1", "B2", "C1", "C2", "C3", "C4"]  # two patients of two and four slices


@pytest.fixture
def load_fake(load_fake: Callable[..., Section]) -> Callable[..., Section]:
    """Tables of genes are not looked at here."""
    return partial(load_fake, with_genes=False)


def made(section: Section, *others: Section) -> Part:
    found = part(section, Context([section, *others]))
    assert found is not None
    return found


def board(section: Section) -> pd.DataFrame:
    return leaderboard(section.rows, section.entries, section.slices)


def set_by_slice(section: Section, method: str, values: dict[str, float]) -> None:
    mine = section.rows["method"] == method
    section.rows.loc[mine, "pcc_acg"] = section.rows.loc[mine, "slice"].map(values)


def table(found: Part, name: str) -> dict[str, list[str]]:
    """Cells' text by the first column, of all blocks."""
    (of,) = [table for table in found.tables if table.name == name]
    return {row[0].text: [cell.text for cell in row[1:]] for block in of.blocks for row in block}


def test_two_patients_can_tell_nobody_apart_and_the_part_says_why(load_fake) -> None:
    section = load_fake(methods=TWO, slices=BLOCKS)
    found = made(section)
    assert found.title == QUESTION
    assert found.lead[0].startswith(
        "mclSTExp and STnet cannot be told apart on 2 patients (the smallest p that 2 patients can give is 0.5)."
    )
    assert (
        "but cannot be told apart from it on 2 patients (the smallest p that 2 patients can give is 0.5)."
        in headline(section, board(section))[0]
    )


def test_a_comparison_is_by_patient_after_the_mean_over_seeds(load_fake) -> None:
    section = load_fake(methods=TWO, slices=BLOCKS, seeds=(0, 1))
    patient_b, patient_c = dict.fromkeys(["B1", "B2"], 0.5), dict.fromkeys(["C1", "C2", "C3", "C4"], 0.2)
    set_by_slice(section, "mclstexp", patient_b | patient_c)
    set_by_slice(section, "stnet", dict.fromkeys(BLOCKS, 0.1))
    second = (section.rows["method"] == "stnet") & (section.rows["seed"].astype(str) == "1")
    section.rows.loc[second, "pcc_acg"] = 0.3  # STnet is 0.1 with one seed and 0.3 with the other: 0.2
    cells = table(made(section), "comparisons")["STnet"]
    assert cells[0] == "0.1500"  # (0.3 + 0) / 2 patients, not 0.1 over six slices
    # with one patient tied, every pattern of signs gives the same sum: p is 1, though 0.5 was possible
    assert cells[2:] == ["1", "1", "0.5", "0.5", "1/2 (1 tied)", "2/6 (4 tied)"]


def test_seven_patients_are_enough_for_one_comparison_and_for_the_best_of_all_but_not_to_pick_one_of_six(
    load_fake,
) -> None:
    one = load_fake(methods=TWO, slices=None)
    assert made(one).lead[0].startswith("mclSTExp and STnet are told apart on 7 patients (p = 0.016).")
    assert headline(one, board(one))[0].endswith(", and is told apart from it on 7 patients (p = 0.016).")
    six = load_fake(methods=(*METHODS, COLOUR), slices=None)
    best = "is better than each of the 5 others on 7 patients (the largest p = 0.016)."
    found = made(six)
    assert found.lead[0].startswith(f"By PCC (ACG) mclSTExp {best}")
    assert found.lead[1].startswith("mclSTExp and the best control, Colour ridge, are told apart (p = 0.016).")
    assert headline(six, board(six))[0].endswith(f", and {best}")
    against_control = headline(six, board(six))[1]
    assert "Colour ridge" in against_control
    assert against_control.endswith("(higher on 32 of 32 slices), told apart on 7 patients (p = 0.016).")
    assert {tuple(cells[2:6]) for cells in table(found, "comparisons").values()} == {
        ("0.016", "0.094", "0.016", "0.094")  # after Holm no single pair could be picked out
    }


def test_one_equal_rival_is_enough_to_spoil_the_claim_and_is_named(load_fake) -> None:
    section = load_fake(methods=METHODS, slices=None)
    patients = {name: section.patients[name] for name in section.slices}
    set_by_slice(section, "mclstexp", {name: 0.4 for name in patients})
    set_by_slice(
        section, "bleep", {name: 0.4 - 0.01 * (of not in "AB") + 0.01 * (of in "AB") for name, of in patients.items()}
    )
    set_by_slice(
        section, "stnet", {name: 0.4 - 0.02 * (of in "CD") + 0.011 * (of in "EFG") for name, of in patients.items()}
    )
    rivals = "is not shown to be better than BLEEP and STnet on 7 patients (the largest p = "
    assert f", but {rivals}" in headline(section, board(section))[0]
    found = made(section)
    assert found.lead[0].startswith(f"By PCC (ACG) mclSTExp {rivals}")
    limit = "(the smallest p that 7 patients can give in 5 comparisons is 0.078)"
    assert f"cannot be told apart on 7 patients {limit}." in found.lead[1]


def test_a_lead_over_slices_that_is_none_over_patients_is_not_taken_for_one(load_fake) -> None:
    # patients B, C and D have six slices each, the other four together fourteen: by patient the rival is ahead
    section = load_fake(methods=(*TWO, COLOUR), slices=None)
    lead = {name: 0.05 if section.patients[name] in "BCD" else -0.04 for name in section.slices}
    set_by_slice(section, "mclstexp", {name: 0.3 + of for name, of in lead.items()})
    for rival in ("stnet", "colour_ridge"):
        set_by_slice(section, rival, dict.fromkeys(section.slices, 0.3))
    first, control = headline(section, board(section))[:2]
    assert first.endswith(", but is not ahead of STnet where every patient counts the same, on 7 patients.")
    assert "It is above the best control, Colour ridge" in control
    assert control.endswith(", but not where every patient counts the same, on 7 patients.")
    assert "By patient STnet is 0.0014 ahead of mclSTExp in PCC (ACG)." in made(section).lead[0]


def test_enough_patients_without_a_difference_are_not_told_apart(load_fake) -> None:
    section = load_fake(methods=TWO, slices=None)
    names = section.slices
    set_by_slice(section, "mclstexp", {name: 0.2 + 0.1 * (section.patients[name] in "ACE") for name in names})
    set_by_slice(section, "stnet", {name: 0.2 + 0.1 * (section.patients[name] in "BD") for name in names})
    found = made(section)
    assert found.lead[0].startswith("mclSTExp and STnet are not told apart on 7 patients (p = 1).")
    assert ", but is not told apart from it on 7 patients" in headline(section, board(section))[0]


def test_one_patient_is_no_test(load_fake) -> None:
    section = load_fake(methods=METHODS[:3], slices=["C2", "C3", "C4"])
    found = made(section)
    assert found.lead[0].startswith(
        "mclSTExp and STnet cannot be told apart by any test: all slices are of one patient."
    )
    assert all(cells[2:6] == ["–"] * 4 for cells in table(found, "comparisons").values())
    notes = " ".join(found.tables[0].notes)
    assert "it says nothing about new patients" in notes
    assert [picture.name for picture in found.pictures] == ["wins"]  # ranks on one patient would only repeat it


def test_patients_that_were_not_recorded_are_not_invented(load_fake) -> None:
    section = load_fake(methods=TWO, slices=BLOCKS)
    section.patients.update(dict.fromkeys(BLOCKS, ""))  # type: ignore[attr-defined]
    found = made(section)
    assert "the slices' patients were not recorded" in found.lead[0]
    assert any("count as one patient together" in sentence for sentence in found.lead)


def test_only_complete_entries_are_compared_and_the_others_are_named(load_fake) -> None:
    section = load_fake(
        methods=(*METHODS[:3], MEAN, ORACLE, COLOUR), slices=BLOCKS, states={("stnet", "C2", 0): ("failed", "x")}
    )
    found = made(section)
    assert list(table(found, "comparisons")) == ["HisToGene", "Colour ridge"]
    assert set(table(found, "ranks")) == {"mclSTExp", "HisToGene", "Colour ridge"}
    said = " ".join(found.lead)
    assert "not every slice and seed has finished: STnet (5/6 slices × seeds)." in said
    assert "is not defined on every slice: Training mean (defined on 0/6)." in said
    assert "Depth oracle" not in said + " ".join(table(found, "ranks"))


def test_too_few_complete_entries_are_told_and_a_single_one_has_no_part(load_fake) -> None:
    section = load_fake(methods=(STNET, MEAN), slices=BLOCKS)
    found = made(section)
    assert found.lead[0].startswith("Nothing can be compared: fewer than two entries are complete")
    assert not found.tables
    assert set(found.frames["comparisons.csv"]["metric"]) >= {"mse"}  # by MSE they can be
    alone = load_fake(methods=(STNET,), slices=BLOCKS)
    assert part(alone, Context([alone])) is None


def test_where_only_controls_ran_they_are_compared(load_fake) -> None:
    found = made(load_fake(methods=(MEAN, ORACLE, COLOUR, CONTROLS[2]), slices=BLOCKS))
    assert found.lead[0].startswith("Colour ridge and Position kNN cannot be told apart on 2 patients")


def test_holm_counts_the_comparisons_of_the_table(load_fake) -> None:
    section = load_fake(methods=(*METHODS, COLOUR), slices=None)
    tested = against_best(comparable(section, board(section), "pcc_acg"), board(section), "pcc_acg")
    assert [pair.role for pair in tested] == ["method"] * 5 + ["best control"]
    assert all(pair.smallest_p == pytest.approx(6 * 2 / 2**7) for pair in tested)
    assert all(pair.p >= pair.comparison.test.p for pair in tested)


def test_of_errors_the_lowest_is_the_best(load_fake) -> None:
    section = load_fake(methods=(*METHODS, COLOUR), slices=BLOCKS)
    frame = made(section).frames["comparisons.csv"]
    mse = section.rows.groupby("entry")["mse"].mean()
    of_mse = frame[frame["metric"] == "mse"]
    assert set(of_mse["entry"]) == {mse.idxmin()}
    assert (of_mse["difference"] < 0).any()
    assert (of_mse["patients_won"] >= 1).all()


def test_the_files_hold_every_metric_and_pair(load_fake) -> None:
    section = load_fake(methods=(*METHODS, COLOUR), slices=BLOCKS, seeds=(0, 1))
    frames = made(section).frames
    assert set(frames) == {"best.csv", "comparisons.csv", "ranks.csv", "variance.csv", "wins.csv"}
    assert all(frame["metric"].nunique() == 6 for frame in frames.values())
    assert len(frames["wins.csv"]) == 6 * 7 * 6
    shares = frames["variance.csv"].groupby("metric")["share"].sum()
    assert shares.to_numpy() == pytest.approx(np.ones(6))
    assert "seed" in set(frames["variance.csv"]["source"])


def test_the_variance_sentence_names_the_seed_where_it_matters(load_fake) -> None:
    section = load_fake(methods=TWO, slices=BLOCKS, seeds=(0, 1))
    section.rows["pcc_acg"] = 0.2 + 0.1 * (section.rows["seed"].astype(str) == "1")
    assert any("comes from (a rough guess from so little): seed" in sentence for sentence in made(section).lead)


@pytest.mark.usefixtures("saved_pictures")
def test_figures_are_drawn_with_what_the_ranks_can_say(load_fake) -> None:
    few = made(load_fake(methods=(*TWO, COLOUR), slices=BLOCKS))
    assert [picture.name for picture in few.pictures] == ["ranks", "wins"]
    assert "On 2 patients Nemenyi's test cannot separate any two." in few.pictures[0].caption
    assert "On 2 patients Nemenyi's test cannot separate any two." in few.lead
    full = made(load_fake(methods=METHODS, slices=None))
    assert "Nemenyi's critical difference on 7 patients is 2.85" in full.pictures[0].caption  # 2.850 √(6 × 7 / (6 × 7))
    assert any("By mean rank mclSTExp is told apart from" in sentence for sentence in full.lead)
    assert sum(len(picture.forms["svg"]) for picture in full.pictures) < 300_000


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_very_long_name_leaves_the_figures_room(load_fake) -> None:
    endless = Fake("mine", "A method whose name " + "goes on and on " * 8, 0.2, changes={"epochs": 10, "patch_px": 112})
    found = made(load_fake(methods=(*TWO, endless), slices=BLOCKS))
    assert [picture.name for picture in found.pictures] == ["ranks", "wins"]


def both(tmp_path: Path, target: str) -> list[Section]:
    """The same three methods on two datasets: seven and four patients."""
    names = ("her2st", "cscc")
    targets = {"her2st": "spot-log10-cp10k", "cscc": target}
    return [
        section
        for name in names
        for section in load(
            [make_results(tmp_path / name, METHODS[:3], dataset=name, target=targets[name], with_genes=False)]
        )
    ]


def test_several_datasets_give_one_test_with_all_their_patients(tmp_path: Path) -> None:
    her2st, cscc = both(tmp_path, "spot-log10-cp10k")
    found = made(her2st, cscc)
    (row,) = [cells for name, cells in table(found, "datasets").items() if name == "STnet"]
    # eleven patients of one sign: 2 / 2^11; two comparisons
    assert row[2:] == ["11", "0.00098", "0.002", "0.002"]
    assert any("are told apart on 11 patients of 2 datasets together (p = 0.002" in sentence for sentence in found.lead)
    assert set(found.frames["datasets.csv"]["dataset"]) == {"her2st", "cscc"}
    assert found.tables[2].columns[1:3] == ("HER2+, 32/32 slices", "cSCC, 12/12 slices")


def test_different_targets_never_mix(tmp_path: Path) -> None:
    her2st, cscc = both(tmp_path, "lognorm")
    assert "datasets.csv" not in made(her2st, cscc).frames


def test_the_leaderboard_points_to_the_tests(load_fake) -> None:
    section = load_fake(methods=TWO, slices=BLOCKS)
    notes = leaderboard_notes(section, with_exchanged(board(section), section.rows), published().iloc[:0])
    assert QUESTION in notes[0]
    alone = load_fake(methods=(STNET,), slices=BLOCKS)
    without = leaderboard_notes(alone, with_exchanged(board(alone), alone.rows), published().iloc[:0])
    assert QUESTION not in without[0]


@pytest.mark.usefixtures("saved_pictures")
def test_the_same_results_give_the_same_part(load_fake) -> None:
    section = load_fake(methods=(*METHODS, COLOUR), slices=BLOCKS)
    first, again = made(section), made(section)
    assert first.lead == again.lead
    assert first.tables == again.tables
    assert [picture.forms["svg"] for picture in first.pictures] == [picture.forms["svg"] for picture in again.pictures]
