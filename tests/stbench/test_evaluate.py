"""Trained on one dataset, tested on another: over the genes that both have, beside controls, and told apart."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import anndata
import numpy as np
import own_sections
import pandas as pd
import pytest

from stbench.cli import main
from stbench.data.joining import physical_side
from stbench.data.measured import Measured, shared_genes
from stbench.data.prepared import PreparedDataset
from stbench.errors import UserError
from stbench.models.folder import read_model
from stbench.reports.sections.merge import load_merged
from stbench.reports.sections.read import load
from stbench.reports.tables.main import protocol_table
from stbench.reports.words.warnings import badges, warnings
from stbench.trials.spec import TrialSpec
from stbench.trials.work import open_data

PROBE = Path(__file__).parent / "probe_method.py"
GENES = [f"GENE{i}" for i in range(14)]
SHARED = GENES[:12]
TRAINED = {"S1": "P1", "S2": "P1", "S3": "P2"}
PLACES = {"x": "X", "y": "X", "z": "X"}  # the content of a section follows from its place: these are left out
TESTED = {"S1": "P1", "T2": "P2"}  # called as some of the others, and other ones
CONTROLS = "training_mean,depth_oracle"


def command(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert not left.value.code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets with other panels, models of all folds of the first (``models``), and these tested on the second."""
    os.environ["STBENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "stbench-cache")
    place = tmp_path_factory.mktemp("transfer")
    for name in ("first", "second"):
        (place / name).mkdir()
    first = own_sections.write_manifest(place / "first", TRAINED, "first", "First", GENES)
    second = own_sections.write_manifest(
        place / "second", PLACES | TESTED, "second", "Second", [*reversed(SHARED), "OTHER"]
    )
    run = ("run", "--no-mlflow", "--dataset", first, "--methods", f"{PROBE}:Probe")
    command(*run, "--save-models", "--out", place / "models")
    command(*evaluation(place), "--dataset", second, "--out", place / "tested")
    return place


def models(place: Path) -> list[Path]:
    """The trials that kept their model, by their test slices."""
    return sorted((place / "models" / "trials").iterdir(), key=lambda trial: TrialSpec.read(trial / "spec.json").test)


def evaluation(place: Path) -> list[object]:
    words: list[object] = ["evaluate", "--no-mlflow", "--controls", CONTROLS, "--slices", ",".join(TESTED)]
    return [*words, *(word for model in models(place) for word in ("--model", model))]


def summary(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "summary.csv", keep_default_na=False, dtype=str)


def joined_data(results: Path, key: str) -> tuple[TrialSpec, PreparedDataset]:
    spec = TrialSpec.read(results / "specs" / f"{key}.json")
    return spec, open_data(spec.data, results)


def test_each_model_predicts_the_slices_of_the_other_dataset_on_the_shared_genes(place: Path) -> None:
    table = summary(place / "tested")
    assert set(table["state"]) == {"finished"}
    assert set(table["dataset"]) == {"first-to-second"}
    assert set(table["split"]) == {"transfer"}
    assert set(table["n_genes"]) == {"12"}
    probes = table[table["method"] == "probe"]
    assert sorted(probes["slice"]) == sorted([*TESTED] * 3)
    assert sorted(set(probes["seed"])) == ["loso-S1-0", "loso-S2-0", "loso-S3-0"]
    for key in set(probes["key"]):
        spec, data = joined_data(place / "tested", key)
        model = read_model(Path(spec.model))
        assert spec.train == tuple(f"first.{name}" for name in model.facts.train)
        assert set(data.slides) == {*TESTED, *(f"first.{name}" for name in TRAINED)}
        for name in TESTED:
            slide = data.slides[name]
            written = anndata.read_h5ad(place / "tested" / "trials" / key / "predictions" / f"{name}.h5ad")
            assert list(written.var_names) == SHARED
            whole = model.method.predict(slide.for_test())
            columns = [model.facts.genes.index(gene) for gene in SHARED]
            np.testing.assert_array_equal(written.X, whole[:, columns])
            truth = np.log10(1 + 1e4 * slide.counts / slide.counts.sum(axis=1, keepdims=True))  # over the shared genes
            np.testing.assert_allclose(written.layers["truth"], truth, rtol=1e-6)


def test_controls_are_trained_on_the_slices_that_the_models_were_trained_on(place: Path) -> None:
    table = summary(place / "tested")
    means = table[table["method"] == "training_mean"].drop_duplicates("key")
    assert sorted(means["seed"]) == ["loso-S1-0", "loso-S2-0", "loso-S3-0"]
    for row in means.itertuples():
        _, data = joined_data(place / "tested", str(row.key))
        held_out = str(row.seed).split("-")[1]
        training = [data.slides[f"first.{name}"].target for name in TRAINED if name != held_out]
        written = anndata.read_h5ad(place / "tested" / "trials" / str(row.key) / "predictions" / "T2.h5ad")
        np.testing.assert_allclose(written.X[0], np.concatenate(training).mean(axis=0), rtol=1e-5)


def test_the_page_says_what_it_is_of(place: Path) -> None:
    (section,) = load([place / "tested"])
    assert section.title == "Trained on First, tested on Second"
    assert section.slices == tuple(TESTED)
    assert badges(section)[:2] == [("trained on First, tested on Second", "plain"), ("2/5 slices", "warn")]
    from stbench.reports.numbers.means import board_of

    told = " ".join(warnings(section, board_of(section)))
    assert "12 of the 14 genes of First were measured on every tested slice of Second" in told
    assert "missing: GENE12, GENE13" in told
    assert "3 of each method at most (loso-S1-0, loso-S2-0, loso-S3-0: fold and seed)" in told
    assert "over the shared genes; in training the models over their whole panel" in told
    assert "(2 of 14): GENE12, GENE13" in " ".join(protocol_table(section).notes)
    assert [merged.name for merged in load_merged([place / "tested"])] == [section.name]


def test_what_was_tested_is_not_tested_again_and_further_models_join_it(
    place: Path, stbench_command: Callable[..., object], tmp_path: Path
) -> None:
    shutil.copytree(place / "tested", tmp_path / "r")
    whole = ["evaluate", "--no-mlflow", "--controls", CONTROLS, "--slices", ",".join(TESTED)]
    whole += ["--model", place / "models", "--methods", "probe"]
    again = stbench_command(*whole, "--dataset", place / "second/second.toml", "--out", tmp_path / "r")
    assert again.code == 0
    assert "9 trials, 0 to run; reused: 9 finished" in again.out
    one = ["evaluate", "--no-mlflow", "--controls", "none", "--slices", "S1,T2", "--model", models(place)[0]]
    fresh = stbench_command(*one, "--dataset", place / "second/second.toml", "--out", tmp_path / "one")
    assert fresh.code == 0
    joined = stbench_command(*evaluation(place), "--dataset", place / "second/second.toml", "--out", tmp_path / "one")
    assert "9 trials, 8 to run; reused: 1 finished" in joined.out
    record = json.loads((tmp_path / "one/run.json").read_text(encoding="utf-8"))
    (section,) = record["sections"]
    assert [len(section["folds"]), section["transfer"]["missing"]] == [3, ["GENE12", "GENE13"]]


def test_without_the_training_slices_no_control_is_trained_and_it_is_said(
    place: Path, stbench_command: Callable[..., object], tmp_path: Path
) -> None:
    copied = shutil.copytree(models(place)[0] / "model", tmp_path / "model")
    words = ("evaluate", "--no-mlflow", "--slices", "S1", "--model", copied, "--dataset", place / "second/second.toml")
    done = stbench_command(*words, "--out", tmp_path / "r")
    assert done.code == 0
    assert "the training slices of First are not at hand (unknown dataset 'first'" in done.err
    table = summary(tmp_path / "r")
    assert list(table["method"]) == ["probe"]
    assert (table["strict_pcc_heg"][0], table["pcc_acg"][0] != "") == ("", True)
    whole = summary(place / "tested")
    same = whole[(whole["method"] == "probe") & (whole["seed"] == table["seed"][0]) & (whole["slice"] == "S1")]
    for score in ("pcc_acg", "pcc_heg", "mse", "mae", "exchanged_pcc_acg"):
        assert list(same[score]) == list(table[score])
    (section,) = load([tmp_path / "r"])
    assert "First that the models were trained on were not at hand" in " ".join(warnings(section, _board(section)))
    named = stbench_command(*words, "--trained-on", "nowhere", "--out", tmp_path / "r")
    assert (named.code, "unknown dataset 'nowhere'" in named.err) == (2, True)


def _board(section: object) -> pd.DataFrame:
    from stbench.reports.numbers.means import board_of

    return board_of(section)


def test_a_run_trains_once_on_all_slices_and_its_model_scores_the_same_by_itself(
    place: Path, stbench_command: Callable[..., object], tmp_path: Path
) -> None:
    first, second = place / "first/first.toml", place / "second/second.toml"
    words = ("run", "--no-mlflow", "--dataset", first, "--test-dataset", second, "--test-slices", "T2,S1")
    ran = stbench_command(*words, "--methods", f"{PROBE}:Probe,training_mean", "--save-models", "--out", tmp_path / "r")
    assert ran.code == 0
    table = summary(tmp_path / "r")
    assert sorted(zip(table["method"], table["fold"], table["seed"], table["slice"], strict=True)) == [
        (method, "all", "0", name) for method in ("probe", "training_mean") for name in TESTED
    ]
    probe = table[table["method"] == "probe"]
    trial = tmp_path / "r/trials" / probe["key"].iloc[0]
    facts = read_model(trial).facts
    assert (facts.dataset, facts.dataset_title, facts.train) == ("first", "First", tuple(TRAINED))
    assert (facts.patients["S1"], facts.genes) == ("P1", tuple(SHARED))
    evaluated = stbench_command(
        "evaluate", "--no-mlflow", "--model", trial, "--controls", "training_mean", "--dataset", second,
        "--slices", "S1,T2", "--out", tmp_path / "again",
    )  # fmt: skip
    assert evaluated.code == 0
    again = summary(tmp_path / "again")
    for method in ("probe", "training_mean"):
        for score in ("pcc_acg", "mse", "strict_pcc_heg", "exchanged_move"):
            assert list(again[again["method"] == method][score]) == list(table[table["method"] == method][score])


def test_windows_show_as_much_tissue_as_those_trained_on_where_pixels_have_a_size(
    place: Path, stbench_command: Callable[..., object], tmp_path: Path
) -> None:
    sized = {}
    for name, um_per_px in (("first", 0.5), ("second", 0.4)):
        text = (place / name / f"{name}.toml").read_text(encoding="utf-8")
        text = text.replace("[[slide]]", f"[[slide]]\num_per_px = {um_per_px}")
        sized[name] = place / name / f"{name}-sized.toml"
        sized[name].write_text(text, encoding="utf-8")
    words = ("run", "--no-mlflow", "--methods", "training_mean", "--dataset", sized["first"], "--test-slices", "T2")
    ran = stbench_command(*words, "--test-dataset", sized["second"], "--out", tmp_path / "r")
    assert ran.code == 0
    assert "windows of the tested slices are 16 µm wide, as those trained on, resampled to 32 px" in ran.err
    slides = json.loads((tmp_path / "r/run.json").read_text(encoding="utf-8"))["sections"][0]["slides"]
    assert (slides["T2"]["window_px"], slides["first.S1"]["window_px"]) == (40.0, 32.0)


def refused(place: Path, tmp_path: Path) -> Mapping[str, tuple[list[object], str]]:
    """What cannot be done: words of the command line, and what is said."""
    own_sections.write_manifest(tmp_path, {"N1": "N"}, "strange", "Strange", [f"ENSG{i}" for i in range(12)])
    (tmp_path / "same").mkdir()
    own_sections.write_manifest(tmp_path / "same", {"A1": "N"}, "same", "Same", GENES)
    first, second = place / "first/first.toml", place / "second/second.toml"
    last = models(place)[-1]  # S1 is a training slice of it
    one = ["evaluate", "--model", last, "--controls", "training_mean"]
    run = ["run", "--methods", "training_mean", "--dataset", first]
    test = ["--test-dataset", second]
    return {
        "itself": ([*one, "--dataset", first], "First is the dataset that is trained on"),
        "no genes": (
            [*one, "--dataset", tmp_path / "strange.toml"],
            "0 of the 14 genes of First were measured on every tested slice of Strange, and at least 10 are needed "
            "(First has GENE0, GENE1, GENE2, ...; Strange has ENSG0, ENSG1, ENSG10, ...)",
        ),
        "known by heart": (
            [*one, "--dataset", tmp_path / "same/same.toml"],
            "slice A1 of Same is the training slice first.S1",
        ),
        "twice": ([*one, "--model", last, "--dataset", second], "are the same model"),
        "no control": (
            [*one[:3], "--controls", f"{PROBE}:Probe", "--dataset", second],
            "is no control: it would have to be trained",
        ),
        "no model": (["evaluate", "--model", tmp_path, "--dataset", second], "is no model folder"),
        "no model kept": (["evaluate", "--model", place / "tested", "--dataset", second], "keeps no trained model"),
        "no such models": (
            ["evaluate", "--model", place / "models", "--methods", "stnet", "--dataset", second],
            "unknown method with models in",
        ),
        "nothing to choose": ([*one, "--methods", "probe", "--dataset", second], "chooses in a results directory"),
        "itself, elsewhere": (
            [*one, "--trained-on", "none", "--dataset", first],
            "First is the dataset that is trained on",
        ),
        "run itself": ([*run, "--test-dataset", first], "First is the dataset that is trained on"),
        "run split": ([*run, *test, "--split", "lopo"], "two ways to hold slices out"),
        "run folds": ([*run, *test, "--only-folds", "S1"], "there is one fold of all"),
        "run panel": ([*run, *test, "--panel", "hvg:12"], "with --test-dataset all slices are trained on"),
        "no dataset": ([*run, "--test-slices", "T2"], "are slices of --test-dataset"),
        "no slice": ([*run, *test, "--test-slices", "T3"], "unknown slice of second 'T3'"),
    }  # fmt: skip


def test_what_would_mean_nothing_is_refused_in_one_line(
    place: Path, stbench_command: Callable[..., object], tmp_path: Path
) -> None:
    for case, (words, said) in refused(place, tmp_path).items():
        out = tmp_path / "r"
        outcome = stbench_command(*words, "--no-mlflow", "--out", out)
        last = [line for line in outcome.err.splitlines() if not line.startswith("note: ")]
        assert outcome.code == 2, (case, outcome)
        assert len(last) == 1, (case, outcome.err)
        assert said in last[0], (case, last)
        assert not out.exists(), case


def test_models_of_other_ends_do_not_stand_in_one_table(
    place: Path, stbench_command: Callable[..., object], tmp_path: Path
) -> None:
    one, other = models(place)[:2]
    changed = tmp_path / "model"
    shutil.copytree(other / "model", changed)
    facts = json.loads((changed / "model.json").read_text(encoding="utf-8"))
    (changed / "model.json").write_text(json.dumps(facts | {"target": "lognorm"}), encoding="utf-8")
    words = ("evaluate", "--no-mlflow", "--dataset", place / "second/second.toml", "--out", tmp_path / "r")
    outcome = stbench_command(*words, "--model", one, "--model", changed)
    assert outcome.code == 2
    assert "differ in the target (spot-log10-cp10k and lognorm) - evaluate them apart" in outcome.err


def test_a_model_that_changed_since_it_was_planned_stops_the_command_and_leaves_its_trial_open(
    place: Path, stbench_command: Callable[..., object], tmp_path: Path
) -> None:
    copied = shutil.copytree(models(place)[0] / "model", tmp_path / "model")
    saved = next(path for path in sorted(copied.iterdir()) if path.name != "model.json")
    saved.write_bytes(saved.read_bytes() + b" ")
    words = ("evaluate", "--no-mlflow", "--slices", "S1", "--model", copied, "--dataset", place / "second/second.toml")
    outcome = stbench_command(*words, "--controls", "none", "--out", tmp_path / "r")
    assert (outcome.code, "is not what was written" in outcome.err) == (2, True)
    assert list(summary(tmp_path / "r")["state"]) == ["interrupted"]


def test_genes_are_shared_that_every_slice_lists_and_are_enough() -> None:
    slides = [Measured(frozenset(GENES[:11]), None), Measured(frozenset(GENES[1:]), 0.5)]
    assert shared_genes(GENES[::-1], slides, "A", "B") == tuple(GENES[10:0:-1])
    with pytest.raises(UserError, match="9 of the 14 genes of A were measured on every tested slice of B, and at"):
        shared_genes(GENES, [*slides, Measured(frozenset(GENES[:10]), None)], "A", "B")
    assert shared_genes(GENES[:2], slides[:1], "A", "B") == ("GENE0", "GENE1")  # a panel of fewer is whole


def test_the_size_of_windows_is_the_median_and_unknown_where_one_is() -> None:
    assert physical_side({"A": (224, 0.918), "B": (224, 0.688), "C": (224, 0.689)}) == 154.3
    assert physical_side({"A": (224, 0.688), "B": (224, None)}) is None
    assert physical_side({}) is None
