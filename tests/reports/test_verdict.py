"""The headline and the warnings say what the numbers say, and say it only where it is so."""

from dataclasses import replace

import pandas as pd
import pytest
from synthetic import CONTROLS, METHODS, STNET, Fake

from stbench.reports.numbers.means import leaderboard
from stbench.reports.sections.section import Section
from stbench.reports.words.headline import headline, wins_between
from stbench.reports.words.warnings import badges, warnings
from stbench.results.run_record import TrialIdentity, TrialRecord

MEAN, ORACLE = CONTROLS[0], CONTROLS[1]
BEST, COLOUR = METHODS[0], CONTROLS[4]


def board(section: Section) -> pd.DataFrame:
    return leaderboard(section.rows, section.entries, section.slices)


def said(section: Section) -> str:
    return " ".join(headline(section, board(section)))


def warned(section: Section) -> str:
    return " ".join(warnings(section, board(section)))


def set_scores(section: Section, method: str, metric: str, values: list[float]) -> None:
    section.rows.loc[section.rows["method"] == method, metric] = values


def test_it_names_the_best_method_its_lead_and_the_best_control(load_fake) -> None:
    section = load_fake(methods=(BEST, STNET, COLOUR, CONTROLS[2]))
    set_scores(section, "mclstexp", "pcc_acg", [0.30, 0.20, 0.25])
    set_scores(section, "stnet", "pcc_acg", [0.10, 0.21, 0.17])
    set_scores(section, "colour_ridge", "pcc_acg", [0.20, 0.20, 0.20])
    set_scores(section, "position_knn", "pcc_acg", [0.10, 0.10, 0.10])
    text = said(section)
    assert "mclSTExp has the highest mean PCC (ACG) of 2 methods: 0.2500, 0.0900 above STnet" in text
    assert "(higher on 2 of 3 slices)" in text
    assert (
        "It is above the best control, Colour ridge (0.2000), by 0.0500 (higher on 2 of 3 slices, level on 1)." in text
    )


def test_it_says_when_the_best_method_does_not_beat_the_best_control(load_fake) -> None:
    section = load_fake(methods=(STNET, COLOUR))
    set_scores(section, "stnet", "pcc_acg", [0.1, 0.1, 0.1])
    set_scores(section, "colour_ridge", "pcc_acg", [0.3, 0.2, 0.1])
    assert "It does not beat the best control, Colour ridge (0.2000), and is 0.1000 below it" in said(section)


@pytest.mark.parametrize(
    ("mse", "verdict"), [(0.1, "It beats the training mean"), (0.9, "It does not beat the training mean")]
)
def test_it_is_compared_with_the_training_mean_by_mse(load_fake, mse: float, verdict: str) -> None:
    section = load_fake(methods=(STNET, MEAN))
    set_scores(section, "stnet", "mse", [mse] * 3)
    assert verdict in said(section)


def test_an_oracle_is_told_but_is_not_the_best_control(load_fake) -> None:
    section = load_fake(methods=(STNET, ORACLE, COLOUR))
    set_scores(section, "depth_oracle", "pcc_acg", [0.9] * 3)
    text = said(section)
    assert "the best control, Colour ridge" in text
    assert "Depth oracle, an oracle that sees what no method may, has 0.9000." in text


def test_a_method_that_failed_somewhere_is_not_called_best(load_fake) -> None:
    section = load_fake(methods=(BEST, STNET, MEAN), states={("mclstexp", "C2", 0): ("failed", "out of memory")})
    assert said(section).startswith("STnet, the only one of 2 methods that is complete,")
    assert "1 failed" in warned(section)
    assert "Incomplete and therefore not ranked: mclSTExp (2/3 slices × seeds)." in warned(section)


def test_nothing_is_claimed_where_nothing_finished(load_fake) -> None:
    states = {("stnet", name, 0): ("failed", "no weights") for name in ("B4", "C2", "C3")}
    section = load_fake(methods=(STNET,), states=states)
    assert said(section).startswith("No trial of a method has finished")


def test_controls_alone_are_called_controls(load_fake) -> None:
    section = load_fake(methods=(MEAN, COLOUR, ORACLE))
    assert said(section).startswith("Only controls were run. The best of them by PCC (ACG) is Colour ridge with 0.")
    only_mean = load_fake(methods=(MEAN,))
    assert said(only_mean).startswith("Only controls were run, and none has a PCC (ACG) on every slice.")


def test_a_method_without_any_control_is_said_to_have_no_frame(load_fake) -> None:
    text = said(load_fake(methods=(STNET,)))
    assert "No control was run, so nothing frames this number from below." in text
    assert "whether it beats predicting each gene's mean is not known" in text


def test_slices_patients_and_replicates_are_counted(load_fake) -> None:
    section = load_fake(methods=(STNET,), slices=["B4", "C2", "C3", "C4"])
    assert "This is 4 of the dataset's 32 slices of 2 patients, not the full benchmark." in said(section)
    assert "On 3 of 4 test slices the training set held 2 other slices of the same patient" in said(section)
    assert badges(section) == [("4/32 slices", "warn"), ("replicates in training", "warn")]


def test_leave_one_patient_out_is_patient_disjoint(load_fake) -> None:
    section = load_fake(methods=(STNET,), split="lopo")
    assert "No training slice is of a test slice's patient." in said(section)
    assert ("patient-disjoint", "good") in badges(section)
    assert "Replicates" not in warned(section)


def test_a_count_of_replicates_that_was_not_recorded_is_not_taken_for_none(load_fake) -> None:
    section = load_fake(methods=(STNET,))
    section.rows["same_patient_training_slices"] = float("nan")
    assert "was not recorded" in said(section)
    assert ("replicates: not recorded", "warn") in badges(section)


def test_random_weights_presets_hires_images_and_padding_are_warned_of(load_fake) -> None:
    quick = Fake("stnet", "STnet", 0.1, preset="quick", weights="random")
    slides = {"B4": {"n_padded": 7}, "C2": {"image_level": "hires"}}
    section = load_fake(methods=(quick, MEAN), facts={"slides": slides, "notices": ["prepared data were made again"]})
    text = warned(section)
    assert "Random encoder weights: STnet." in text
    assert "Preset quick, not the published settings: STnet." in text
    assert "not from full resolution: C2 (hires)." in text
    assert "7 patches cross the image's border; parts of a window outside the image are white (255): B4 (7)." in text
    assert "prepared data were made again" in text
    assert "STnet (quick, random weights): peak memory was measured for the whole process (3 trials)." in text


def test_a_clean_full_run_has_no_warning(load_fake) -> None:
    section = load_fake(methods=(METHODS[2], MEAN), dataset="alex10x", slices=None, split="lopo")
    assert warnings(section, board(section)) == []


def test_missing_gene_tables_are_warned_of(load_fake) -> None:
    assert "3 finished trials have no per-gene table" in warned(load_fake(methods=(METHODS[2],), with_genes=False))


def test_wins_are_counted_on_slices_that_both_have(load_fake) -> None:
    section = load_fake(methods=(BEST, STNET), states={("stnet", "C2", 0): ("failed", "x")})
    a, b = section.entries.index
    done = section.rows["state"] == "finished"
    section.rows.loc[done, "pcc_acg"] = section.rows["entry"].map({a: 0.1, b: 0.2})[done]
    assert wins_between(section, a, b) == (0, 0, 2)
    assert wins_between(section, b, a) == (2, 0, 2)


def test_trials_that_a_later_plan_replaced_are_told(load_own_fake) -> None:
    section = load_own_fake()
    (run,) = section.runs
    identity = TrialIdentity(
        dataset=section.dataset,
        target=section.target,
        split=section.split,
        fold="A2",
        method="mine",
        preset="quick",
        variant="",
        weights="none",
        seed=0,
        precision="fp32",
    )
    elsewhere = identity.model_copy(update={"dataset": "other"})
    (run.directory / "trials" / "ended").mkdir()
    asked = {"ended": identity, "never-run": identity, "elsewhere": elsewhere}
    superseded = {key: TrialRecord(identity=identity, label=key) for key, identity in asked.items()}
    record = run.record.model_copy(update={"superseded": superseded})
    told = replace(section, runs=(replace(run, record=record),))
    assert any(text.startswith("1 earlier trial of the same methods") for text in warnings(told, board(told)))
    assert not any("earlier trial" in text for text in warnings(section, board(section)))
