"""Results directories are read into one section a protocol, and what cannot be ranked together is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from synthetic import CONTROLS, METHODS, STNET, Fake, make_results, rename_trials

from stbench.errors import UserError
from stbench.reports.published.table1 import published
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.sections.specs import weights_kind
from stbench.results.run_record import LAYOUT, RunRecord
from stbench.results.summary_schema import COLUMNS
from stbench.results.summary_schema import METRICS as METRIC_NAMES
from stbench.scores import exchange


def test_methods_stand_in_the_papers_order_then_others_then_controls_then_oracles(tmp_path: Path) -> None:
    mine = Fake("mine", "Mine", 0.3)
    (section,) = load([make_results(tmp_path, methods=(*CONTROLS[:3], mine, *METHODS), slices=["B4", "C2"])])
    titles = ["STnet", "HisToGene", "Hist2ST", "THItoGene", "BLEEP", "mclSTExp", "Mine"]
    assert section.entries["title"].tolist() == [*titles, "Training mean", "Position kNN", "Depth oracle"]


def test_slices_are_in_fold_order_and_counted_against_all_of_the_dataset(tmp_path: Path) -> None:
    (section,) = load([make_results(tmp_path, methods=(STNET,), slices=["C3", "B4", "A2"])])
    assert section.slices == ("A2", "B4", "C3")
    assert section.coverage == "3/32 slices"


def test_each_dataset_split_and_target_is_a_section_of_its_own(tmp_path: Path) -> None:
    places = [
        make_results(tmp_path / "a", methods=(STNET,), slices=["B4", "C2"]),
        make_results(tmp_path / "b", methods=(STNET,), slices=["B4", "C2"], split="lopo"),
        make_results(tmp_path / "c", methods=(STNET,), slices=["B4", "C2"], target="lognorm"),
        make_results(tmp_path / "d", methods=(STNET,), dataset="cscc"),
    ]
    sections = load(places)
    assert [section.name for section in sections] == [
        "her2st-loso-spot-log10-cp10k",
        "her2st-lopo-spot-log10-cp10k",
        "her2st-loso-lognorm",
        "cscc-loso-spot-log10-cp10k",
    ]
    assert all(len(section.entries) == 1 for section in sections)


def test_directories_of_one_section_are_merged_and_a_trial_in_both_counts_once(tmp_path: Path) -> None:
    first = make_results(tmp_path / "a", methods=(STNET, CONTROLS[0]), slices=["B4", "C2"])
    second = make_results(tmp_path / "b", methods=(METHODS[5], CONTROLS[0]), slices=["B4", "C2"])
    shutil.copytree(first, tmp_path / "c")
    (section,) = load([first, second, tmp_path / "c", first])
    assert section.entries["title"].tolist() == ["STnet", "BLEEP", "Training mean"]
    assert len(section.rows) == 6


def test_of_two_copies_of_a_trial_the_finished_one_counts(tmp_path: Path) -> None:
    states = {("stnet", "B4", 0): ("interrupted", "SIGINT")}
    stopped = make_results(tmp_path / "a", methods=(STNET,), slices=["B4", "C2"], states=states)
    whole = make_results(tmp_path / "b", methods=(STNET,), slices=["B4", "C2"])
    (section,) = load([stopped, whole])
    assert section.rows["state"].tolist() == ["finished", "finished"]


def test_two_outcomes_under_one_name_are_refused(tmp_path: Path) -> None:
    first = make_results(tmp_path / "a", methods=(STNET,), slices=["B4", "C2"])
    second = make_results(tmp_path / "b", methods=(STNET,), slices=["B4", "C2"])
    rename_trials(second, "-newer")
    with pytest.raises(UserError, match=r"stnet on slice B4, seed 0, has different trials in a .* and b .* apart"):
        load([first, second])


def test_one_slice_scored_over_different_genes_is_refused(tmp_path: Path) -> None:
    first = make_results(tmp_path / "a", methods=(STNET,), slices=["B4", "C2"], n_genes=60)
    second = make_results(tmp_path / "b", methods=(METHODS[5],), slices=["B4", "C2"], n_genes=70)
    with pytest.raises(UserError, match="slice B4 of her2st was scored with different spots or genes"):
        load([first, second])


def test_presets_variants_and_weights_of_one_method_are_rows_of_their_own(tmp_path: Path) -> None:
    variants = (
        STNET,
        Fake("stnet", "STnet", 0.1, preset="quick"),
        Fake("stnet", "STnet", 0.1, changes={"epochs": 10}),
    )
    (section,) = load([make_results(tmp_path, methods=variants, slices=["B4", "C2"])])
    assert section.entries["label"].tolist() == ["STnet", "STnet (quick)", "STnet (epochs=10)"]
    assert len(section.rows.groupby("entry")) == 3


def test_labels_that_would_be_equal_are_spelt_out(tmp_path: Path) -> None:
    variants = (STNET, Fake("stnet", "STnet", 0.1, weights="file (mine.pt 1234)"))
    for place, variant in zip("ab", variants, strict=True):
        make_results(tmp_path / place, methods=(variant,), slices=["B4", "C2"])
    rename_trials(tmp_path / "b", "-file")
    summary = pd.read_csv(tmp_path / "b" / "summary.csv")
    summary.assign(seed=1).to_csv(tmp_path / "b" / "summary.csv", index=False)
    (section,) = load([tmp_path / "a", tmp_path / "b"])
    assert section.entries["label"].is_unique
    assert section.entries["label"].str.contains("mine.pt").sum() == 1


def test_a_slice_may_be_called_na_or_007(tmp_path: Path) -> None:
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"], with_genes=False)
    summary = pd.read_csv(place / "summary.csv")
    summary["slice"] = ["NA", "007"]
    summary.to_csv(place / "summary.csv", index=False)
    (section,) = load([place])
    assert section.slices == ("NA", "007")


def test_notes_of_trials_are_gathered_once_with_their_number(tmp_path: Path) -> None:
    (section,) = load([make_results(tmp_path, methods=(STNET, METHODS[5]), slices=["B4", "C2"], seeds=(0, 1))])
    assert section.notes["note"].tolist() == ["peak memory was measured for the whole process"]
    assert section.notes["trials"].tolist() == [4]


def test_the_last_lines_of_a_failed_trials_log_are_kept(load_fake) -> None:
    section = load_fake(states={("stnet", "C2", 0): ("failed", "out of memory")})
    (log,) = section.logs.values()
    lines = log.splitlines()
    assert lines[-1] == "ERROR failed: out of memory"
    assert len(lines) == 15


def test_trials_that_are_not_there_any_more_leave_the_summary(tmp_path: Path) -> None:
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"], with_genes=False)
    shutil.rmtree(place / "trials")
    (section,) = load([place])
    assert len(section.rows) == 2
    assert len(section.without_genes) == 2


def test_a_summary_without_a_column_of_the_schema_is_refused(tmp_path: Path) -> None:
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"], with_genes=False)
    for column in COLUMNS:
        text = pd.read_csv(place / "summary.csv", dtype=str, keep_default_na=False).drop(columns=column.name)
        with pytest.raises(UserError, match=f"has no column {column.name} - .* writes it anew"):
            load([place], {place: text.to_csv(index=False)})


def test_columns_are_read_as_the_schema_says(tmp_path: Path) -> None:
    (section,) = load([make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"], with_genes=False)])
    kinds = {"text": "object", "number": "float64", "flag": "bool"}
    assert {column.name: str(section.rows[column.name].dtype) for column in COLUMNS} == {
        column.name: kinds[column.kind] for column in COLUMNS
    }
    scores = {column.name for column in COLUMNS if column.kind == "number"}
    assert {*METRIC_NAMES, *exchange.COLUMNS} <= scores


def break_summary(text: str):
    return lambda place: (place / "summary.csv").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / "summary.csv").unlink(), "is not a results directory"),
        (break_summary(""), "not a readable table"),
        (break_summary("key,dataset\n1,her2st\n"), "has no column split, fold, target"),
        (break_summary('a,b\n"1'), "not a readable table"),
        (lambda place: (place / "run.json").unlink(), "is not a results directory"),
        (lambda place: (place / "run.json").write_text("{"), "is not valid JSON"),
        (lambda place: (place / "run.json").write_text("[]"), "is not a run's record"),
        (
            lambda place: next(place.glob("trials/*/genes.parquet")).write_bytes(b"PAR1"),
            "parquet is not a readable table",
        ),
    ],
)
def test_damaged_results_are_refused_in_one_line_that_names_the_file(tmp_path: Path, damage, message: str) -> None:
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"])
    damage(place)
    with pytest.raises(UserError, match=message) as refused:
        load([place])
    assert "\n" not in str(refused.value)
    assert str(tmp_path) in str(refused.value)


def test_a_metric_that_is_not_a_number_is_refused_by_column(tmp_path: Path) -> None:
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"])
    summary = pd.read_csv(place / "summary.csv", dtype=str)
    summary.loc[0, "mse"] = "high"
    summary.to_csv(place / "summary.csv", index=False)
    with pytest.raises(UserError, match="column mse holds something other than numbers"):
        load([place])


def test_no_trials_and_no_directories_are_refused(tmp_path: Path) -> None:
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"])
    pd.read_csv(place / "summary.csv").iloc[:0].to_csv(place / "summary.csv", index=False)
    with pytest.raises(UserError, match="has no trials"):
        load([place])
    with pytest.raises(UserError, match="no results directory was named"):
        load([])


def test_the_published_table_is_complete_and_names_its_source() -> None:
    table = published()
    assert table.groupby("split").size().to_dict() == {"loso": 3 * 6 * 4, "kfold": 3 * 6 * 4}
    assert not table.duplicated(["dataset", "split", "metric", "method"]).any()
    assert set(table["metric"]) == {"pcc_acg", "pcc_heg", "mse", "mae"}
    assert table["source"].str.len().gt(0).all()
    errors = table[table["metric"].isin(["mse", "mae"])]
    assert errors["note"].str.contains("not on one scale").all()
    acg = table[(table["dataset"] == "cscc") & (table["metric"] == "pcc_acg") & (table["split"] == "loso")].set_index(
        "method"
    )["mean"]
    assert acg["mclstexp"] / acg["bleep"] - 1 == pytest.approx(0.3209, abs=1e-3)  # "+32.09 %" in the paper's text


def test_facts_of_the_run_are_kept(tmp_path: Path) -> None:
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"])
    (section,) = load([place])
    assert section.runs[0].record == RunRecord.model_validate_json((place / "run.json").read_text())
    assert section.formula.startswith("log10(1 + 10000")
    assert section.missing["A2"] == "no image of this name"


def test_a_directory_of_another_layout_is_refused_with_the_version_that_wrote_it(tmp_path: Path) -> None:
    place = make_results(tmp_path / "r", methods=(STNET,), slices=["B4", "C2"])
    record = json.loads((place / "run.json").read_text())
    for layout in ({}, {"layout": LAYOUT + 1}):
        written = {name: value for name, value in record.items() if name != "layout"} | layout
        (place / "run.json").write_text(json.dumps(written | {"versions": {"stbench": "7.1"}}))
        with pytest.raises(UserError) as refused:
            load([place])
        (line,) = str(refused.value).splitlines()
        assert line.startswith(f"{place} was written by stbench 7.1, in another layout")
        assert "use that version, or run its commands again with another --out" in line


def test_seeds_that_nobody_has_run_through_yet_are_left_out_and_named(tmp_path: Path) -> None:
    to_come = {(name, "C2", 1): ("pending", "") for name in ("stnet", "training_mean")}
    place = make_results(
        tmp_path, methods=(STNET, CONTROLS[0]), slices=["B4", "C2"], seeds=(0, 1), states=to_come, n_genes=4
    )
    (section,) = load([place])
    assert set(section.rows["seed"]) == {"0"}
    assert section.unrun_seeds == ("1",)


def test_a_seed_that_one_method_has_run_through_stays_and_shows_what_the_others_lack(tmp_path: Path) -> None:
    to_come = {("stnet", "C2", 1): ("pending", "")}
    place = make_results(
        tmp_path, methods=(STNET, CONTROLS[0]), slices=["B4", "C2"], seeds=(0, 1), states=to_come, n_genes=4
    )
    (section,) = load([place])
    assert set(section.rows["seed"]) == {"0", "1"}
    assert section.unrun_seeds == ()


def test_a_run_that_has_just_begun_keeps_all_its_rows(tmp_path: Path) -> None:
    to_come = {("stnet", "C2", 0): ("interrupted", "")}
    place = make_results(tmp_path, methods=(STNET,), slices=["B4", "C2"], states=to_come, n_genes=4)
    (section,) = load([place])
    assert len(section.rows) == 2


@pytest.mark.parametrize(
    ("config", "label", "kind"),
    [
        ({}, "none", "none"),
        ({"encoder": "resnet18", "weights": "random"}, "random", "random"),
        ({"encoder": "resnet18", "weights": "imagenet"}, "imagenet (resnet18-f37072fd)", "imagenet"),
        ({"encoder": "resnet18", "weights": "random.pth"}, "file (random.pth 12345678)", "file"),
        ({"start": 1}, "random", "random"),  # of a method with settings of its own: the label says it
        ({"predictions": {}}, "unknown", "unknown"),  # made elsewhere
    ],
)
def test_the_kind_of_weights_is_that_of_the_setting(
    load_fake: Callable[..., Section], config: dict[str, str], label: str, kind: str
) -> None:
    (spec,) = load_fake(methods=(STNET,)).specs.values()
    assert weights_kind(replace(spec, config=config, weights=label)) == kind
