"""`stbench run`: what it writes, what it reuses, and how it fails."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from stbench.results.summary_schema import SUMMARY_COLUMNS
from stbench.trials.work import read_method

PROBE = f"{Path(__file__).parent / 'probe_method.py'}:Probe"
DEMO = ("--dataset", "demo", "--slices", "P1a,P1b,P2a", "--no-mlflow")


def _summary(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "summary.csv")


def test_a_run_writes_the_results_directory(tmp_path: Path, stbench_command: Callable) -> None:
    results = tmp_path / "results"
    done = stbench_command("run", "--methods", f"{PROBE},training_mean", *DEMO, "--seeds", "0,1", "--out", results)
    assert done.code == 0, done.err
    summary = _summary(results)
    assert list(summary.columns) == list(SUMMARY_COLUMNS)
    assert len(summary) == 3 * 2 * 2
    assert set(summary["state"]) == {"finished"}
    run = json.loads((results / "run.json").read_text())
    assert set(run["trials"]) == set(summary["key"])
    (section,) = run["sections"]
    assert section["dataset"]["slices_present"] == ["P1a", "P1b", "P2a"]
    assert section["folds"][0]["same_patient"] == ["P1b"]
    for key, rows in summary.groupby("key"):
        trial = results / "trials" / str(key)
        names = {path.name for path in trial.iterdir()}
        expected = {"spec.json", "state.json", "history.csv", "metrics.csv", "genes.parquet", "predictions", "log.txt"}
        expected |= {"targets.csv", "domains.csv", "domains.parquet"}
        assert names == expected
        prediction = anndata.read_h5ad(trial / "predictions" / f"{rows['slice'].iloc[0]}.h5ad")
        assert prediction.n_obs == rows["n_spots"].iloc[0]
        error = prediction.X - prediction.layers["truth"]
        np.testing.assert_allclose(np.mean(error.astype(float) ** 2), rows["mse"].iloc[0], rtol=1e-6)
        assert prediction.uns["stbench"]["target"] == "spot-log10-cp10k"
        genes = pd.read_parquet(trial / "genes.parquet")
        np.testing.assert_allclose(genes["strict_r"].mean(), rows["strict_pcc_acg"].iloc[0], rtol=1e-12)
        spread = prediction.layers["truth"].astype(float).std(axis=0)
        np.testing.assert_allclose(genes["sd_truth"], spread, atol=1e-9)
        own = pd.read_csv(trial / "targets.csv").set_index("target").loc["spot-log10-cp10k"]
        for score in ("pcc_acg", "pcc_heg", "strict_pcc_acg", "strict_pcc_heg"):
            np.testing.assert_allclose(own[score], rows[score].iloc[0], rtol=1e-9, err_msg=score)


def test_the_same_command_again_runs_nothing(tmp_path: Path, stbench_command: Callable) -> None:
    command = ("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    stbench_command(*command)
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "trials").rglob("*")}
    again = stbench_command(*command)
    assert "3 trials, 0 to run; reused: 3 finished" in again.out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "trials").rglob("*")} == stamps


def test_more_methods_join_an_earlier_run(tmp_path: Path, stbench_command: Callable) -> None:
    stbench_command("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    more = stbench_command("run", "--methods", f"{PROBE},training_mean", *DEMO, "--out", tmp_path / "r")
    assert "6 trials, 3 to run; reused: 3 finished" in more.out
    assert len(_summary(tmp_path / "r")) == 6


def test_a_failed_trial_is_recorded_and_the_others_go_on(tmp_path: Path, stbench_command: Callable) -> None:
    trouble = ("--set", f"{PROBE}.trouble=raise", "--set", f"{PROBE}.on=P1b")
    command = ("run", "--methods", PROBE, *DEMO, *trouble, "--out", tmp_path / "r")
    done = stbench_command(*command)
    assert done.code == 1
    assert "2/3" in done.out
    summary = _summary(tmp_path / "r").set_index("slice")
    assert summary.loc["P1b", "state"] == "failed"
    assert summary.loc["P1b", "reason"] == "RuntimeError: the probe was asked to raise"
    assert np.isnan(summary.loc["P1b", "mse"])
    assert list(summary.loc[["P1a", "P2a"], "state"]) == ["finished", "finished"]
    log = (tmp_path / "r" / "trials" / summary.loc["P1b", "key"] / "log.txt").read_text()
    assert "Traceback" in log
    again = stbench_command(*command)
    assert "0 to run; reused: 2 finished, 1 failed" in again.out
    retried = stbench_command(*command, "--retry-failed")
    assert "1 to run; reused: 2 finished" in retried.out


@pytest.mark.parametrize(
    ("trouble", "reason"),
    [("nan", "1 predicted values for slice P1b are NaN or infinite"), ("shape", "predicted an array of shape")],
)
def test_a_prediction_that_cannot_be_scored_fails_its_trial(
    tmp_path: Path, stbench_command: Callable, trouble: str, reason: str
) -> None:
    change = ("--set", f"{PROBE}.trouble={trouble}", "--set", f"{PROBE}.on=P1b")
    stbench_command("run", "--methods", PROBE, *DEMO, *change, "--out", tmp_path / "r")
    summary = _summary(tmp_path / "r").set_index("slice")
    assert summary.loc["P1b", "state"] == "failed"
    assert reason in summary.loc["P1b", "reason"]


def test_a_method_that_does_not_apply_is_skipped_with_its_reason(tmp_path: Path, stbench_command: Callable) -> None:
    done = stbench_command("run", "--methods", "nearest_replicate", *DEMO, "--out", tmp_path / "r")
    assert done.code == 0
    summary = _summary(tmp_path / "r").set_index("slice")
    assert summary.loc["P2a", "state"] == "skipped"
    assert "patient" in summary.loc["P2a", "reason"]
    assert "2/3" in done.out


def test_a_changed_method_is_run_again_and_replaces_the_old_one(tmp_path: Path, stbench_command: Callable) -> None:
    source = tmp_path / "mine.py"
    text = Path(PROBE.split(":")[0]).read_text()
    source.write_text(text)
    command = ("run", "--methods", f"{source}:Probe", *DEMO, "--out", tmp_path / "r")
    stbench_command(*command)
    before = _summary(tmp_path / "r")
    source.write_text(text.replace("/ 255", "/ 25"))
    stbench_command(*command)
    after = _summary(tmp_path / "r")
    assert len(after) == len(before) == 3
    assert not set(after["key"]) & set(before["key"])


def test_settings_that_differ_are_separate_rows(tmp_path: Path, stbench_command: Callable) -> None:
    stbench_command("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    stbench_command("run", "--methods", PROBE, *DEMO, "--set", f"{PROBE}.shift=0.5", "--out", tmp_path / "r")
    summary = _summary(tmp_path / "r")
    assert set(summary["variant"].fillna("")) == {"", "shift=0.5"}
    assert len(summary) == 6


PEEKING = """
import numpy as np
from stbench.method import MethodConfig, Needs
from stbench.readings import Readings, Source


class Config(MethodConfig):
    peek: bool = False


class Peeking:
    '''Predicts zero, or, as its imaginary released code does, the truth.'''

    name, title, kind, weights_label = "peeking", "Peeking", "method", "none"
    Config = Config
    presets = {"quick": {}, "released": {"peek": True}}
    readings = Readings("code", "text", {"peek": Source(released="predict")}, {"released": "gene-log10-cp10k"})

    def __init__(self, config):
        self.config = config

    @property
    def needs(self):
        return Needs(leak="it predicts the truth", whole_slide=True) if self.config.peek else Needs()

    def fit(self, slides, run):
        self.n_genes = len(slides[0].genes)

    def predict(self, slide):
        if self.config.peek:
            assert slide.place == {"P1a": 0, "P1b": 1, "P2a": 2}[slide.id]
            return slide.truth.target
        assert not hasattr(slide, "truth")
        return np.zeros((slide.n_spots, self.n_genes), dtype=np.float32)

    def save(self, directory): ...

    @classmethod
    def load(cls, directory, device="cpu"): ...
"""


@pytest.mark.usefixtures("unsaved_pictures")
def test_a_reading_brings_its_own_target_and_its_leak_is_named_everywhere(
    tmp_path: Path, stbench_command: Callable
) -> None:
    (tmp_path / "mine.py").write_text(PEEKING)
    command = ("run", "--methods", f"{tmp_path / 'mine.py'}:Peeking,training_mean", *DEMO, "--out", tmp_path / "r")
    done = stbench_command(*command, "--preset", "released")
    assert done.code == 0, done.err
    assert "training_mean has no preset 'released' and runs as published" in done.out
    assert "targets as the preset has them: gene-log10-cp10k for Peeking" in done.out
    assert "test expression reaches Peeking (released)" in done.out
    assert "(leak)" in done.out
    assert stbench_command(*command, "--target", "gene-log10-cp10k").code == 0
    summary = _summary(tmp_path / "r")
    assert set(summary["target"]) == {"gene-log10-cp10k"}
    presets = summary.groupby("method")["preset"].unique().map(sorted)
    assert presets.to_dict() == {"peeking": ["published", "released"], "training_mean": ["published"]}
    released = summary[summary["preset"] == "released"]
    assert set(released["leak"]) == {"it predicts the truth"}
    assert released["mse"].tolist() == [0, 0, 0]
    assert summary.loc[summary["preset"] == "published", "leak"].isna().all()
    (audit,) = (tmp_path / "r" / "evidence").glob("audit-*.json")
    (finding,) = [one for one in json.loads(audit.read_text())["findings"] if one["check"] == "test-expression"]
    assert finding["verdict"] == "leak"
    assert finding["examples"] == ["Peeking (released): it predicts the truth"]
    assert stbench_command("report", tmp_path / "r").code == 0
    page = (tmp_path / "r" / "report" / "report.html").read_text()
    assert "test expression reaches Peeking" in page
    assert "Its numbers are not ranked" in page
    assert "peek: False → True" in page
    board = pd.read_csv(next((tmp_path / "r" / "report" / "tables").glob("*-leaderboard.csv")))
    assert not board.loc[board["preset"] == "released", "mse_best"].any()


def test_a_target_that_is_asked_for_overrides_a_readings_own(tmp_path: Path, stbench_command: Callable) -> None:
    command = ("run", "--methods", "bleep,stnet", *DEMO, "--weights", "random", "--dry-run", "--preset", "released")
    assert "lognorm for BLEEP; stnet-logfreq for STnet" in stbench_command(*command).out
    done = stbench_command(*command, "--target", "lognorm", "--card", "a100")
    assert "counted for an NVIDIA A100, not measured" in done.out
    assert "targets as the preset has them" not in done.out
    assert "target lognorm" in done.out


def test_history_notes_and_costs_are_recorded(tmp_path: Path, stbench_command: Callable) -> None:
    done = stbench_command("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    assert done.err.count("the probe was here") == 1
    summary = _summary(tmp_path / "r")
    trial = tmp_path / "r" / "trials" / summary["key"].iloc[0]
    assert list(pd.read_csv(trial / "history.csv")["loss"]) == [1.0, 0.5]
    assert (summary["peak_mem_mb"] > 1).all()
    assert (summary["fit_s"] >= 0).all()


def test_a_trial_can_be_launched_alone(tmp_path: Path, stbench_command: Callable) -> None:
    stbench_command("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    key = _summary(tmp_path / "r")["key"].iloc[0]
    metrics = (tmp_path / "r" / "trials" / key / "metrics.csv").read_bytes()
    shutil.rmtree(tmp_path / "r" / "trials" / key)
    assert stbench_command("trial", tmp_path / "r", key).out.strip() == f"{key}: finished"
    assert (tmp_path / "r" / "trials" / key / "metrics.csv").read_bytes() == metrics
    assert stbench_command("trial", tmp_path / "r", "0" * 16).code == 2


def test_a_saved_model_predicts_what_its_trial_did(tmp_path: Path, stbench_command: Callable) -> None:
    from stbench.trials.spec import TrialSpec
    from stbench.trials.work import open_data

    stbench_command("run", "--methods", PROBE, *DEMO, "--save-models", "--out", tmp_path / "r")
    key = _summary(tmp_path / "r")["key"].iloc[0]
    trial = tmp_path / "r" / "trials" / key
    spec = TrialSpec.read(trial / "spec.json")
    (name,) = spec.test
    again = read_method(trial).predict(open_data(spec.data).slides[name].for_test())
    np.testing.assert_array_equal(again, anndata.read_h5ad(trial / "predictions" / f"{name}.h5ad").X)


def test_leave_one_patient_out_and_kfold_predict_every_slice_once(tmp_path: Path, stbench_command: Callable) -> None:
    command = ("run", "--methods", PROBE, "--dataset", "demo", "--no-mlflow", "--out", tmp_path / "r")
    done = stbench_command(*command, "--split", "lopo,kfold", "--folds", "2")
    assert done.code == 0, done.err
    summary = _summary(tmp_path / "r")
    for split, rows in summary.groupby("split"):
        assert rows["slice"].is_unique, split
        assert len(rows) == 6
    assert (summary.loc[summary["split"] == "lopo", "same_patient_training_slices"] == 0).all()


def test_a_dry_run_writes_nothing(tmp_path: Path, stbench_command: Callable) -> None:
    done = stbench_command("run", "--methods", PROBE, *DEMO, "--dry-run", "--out", tmp_path / "r")
    assert done.code == 0
    assert "P1a held out; 1 of 2 training slices are of the same patient" in done.out
    assert "3 trials" in done.out
    assert not (tmp_path / "r").exists()


def test_the_training_mean_equals_an_independent_computation(tmp_path: Path, stbench_command: Callable) -> None:
    from stbench.datasets.demo import Demo

    stbench_command("run", "--methods", "training_mean", *DEMO, "--out", tmp_path / "r")
    summary = _summary(tmp_path / "r").set_index("slice")
    sources = {source.id: source.read() for source in Demo().find()[0] if source.id in summary.index}
    tables = {
        name: pd.DataFrame(slide.adata.X.toarray(), columns=slide.genes)[Demo().panel()]
        for name, slide in sources.items()
    }
    logged = {name: np.log10(1 + 1e4 * table.div(table.sum(axis=1), axis=0)) for name, table in tables.items()}
    for held_out, truth in logged.items():
        mean = pd.concat([table for name, table in logged.items() if name != held_out]).mean()
        assert summary.loc[held_out, "mse"] == pytest.approx(((truth - mean) ** 2).to_numpy().mean(), abs=1e-6)
        assert summary.loc[held_out, "mae"] == pytest.approx((truth - mean).abs().to_numpy().mean(), abs=1e-6)
        assert np.isnan(summary.loc[held_out, "pcc_acg"])
        assert summary.loc[held_out, "strict_pcc_acg"] == 0


def test_a_full_disk_stops_the_run_with_one_line(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stbench.trials.scoring.write_prediction", full)
    done = stbench_command("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    assert done.code == 2
    assert "the disk is full" in done.err
    assert not list((tmp_path / "r" / "trials").iterdir())
    monkeypatch.undo()


BAD = [
    (("--methods", "stnett"), "did you mean 'stnet'"),
    (("--methods", ","), "no method is named"),
    (("--methods", "nowhere.py:Probe"), "nowhere.py"),
    (("--methods", "training_mean", "--set", "training_mean.k=3"), "unknown setting of training_mean 'k'"),
    (("--methods", "position_knn", "--set", "position_knn.k=-3"), "position_knn.k"),
    (("--methods", "training_mean", "--set", "stnet.epochs=3"), "must be among --methods"),
    (("--methods", "training_mean", "--set", "epochs"), "METHOD.FIELD=VALUE"),
    (("--methods", "training_mean", "--weights", "random"), "changes nothing"),
    (("--methods", "training_mean", "--preset", "fast"), "unknown preset 'fast'"),
    (("--methods", "training_mean", "--preset", "released"), "--preset released changes nothing: training_mean has no"),
    (("--methods", "training_mean", "--target", "log"), "unknown target 'log'"),
    (("--methods", "training_mean", "--split", "lopa"), "did you mean 'lopo'"),
    (("--methods", "training_mean", "--split", "loso,loso"), "twice"),
    (("--methods", "training_mean", "--folds", "3"), "--folds 3 needs --split kfold"),
    (("--methods", "training_mean", "--split", "kfold", "--folds", "9"), "9"),
    (("--methods", "training_mean", "--seeds", "a"), "whole numbers"),
    (("--methods", "training_mean", "--slices", "P1a,Q1"), "unknown slice of demo 'Q1'"),
    (("--methods", "training_mean", "--slices", "P1a"), "leave-one-slice-out needs two slices"),
    (("--methods", "training_mean", "--engine", "cloud"), "unknown engine 'cloud'"),
    (("--methods", "stnet", "--device", "cuda:9"), "cuda"),
    (("--methods", "training_mean", "--precision", "fp8"), "fp8"),
    (("--methods", "stnet", "--weights", "nowhere.pth"), "nowhere.pth"),
    (("--methods", "training_mean", "--data", "/no/such/folder"), "/no/such/folder"),
]


@pytest.mark.parametrize(("words", "expected"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_options_are_one_line_and_exit_code_2(
    tmp_path: Path, stbench_command: Callable, words: tuple[str, ...], expected: str
) -> None:
    dataset = () if "--slices" in words else ("--slices", "P1a,P1b,P2a")
    done = stbench_command("run", "--dataset", "demo", *dataset, *words, "--no-mlflow", "--out", tmp_path / "r")
    assert done.code == 2
    lines = [line for line in done.err.splitlines() if line.strip() and not line.startswith("note: ")]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("stbench: ")
    assert expected in lines[0]
    assert not (tmp_path / "r").exists()


def test_an_unknown_dataset_is_one_line(stbench_command: Callable) -> None:
    done = stbench_command("run", "--methods", "training_mean", "--dataset", "her2", "--no-mlflow")
    assert done.code == 2
    assert "did you mean 'her2st'" in done.err


def test_an_unknown_option_is_one_line(stbench_command: Callable) -> None:
    done = stbench_command("run", "--methods", "training_mean", "--dataset", "demo", "--sedes", "1")
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert "--sedes" in done.err


def test_a_plan_of_another_version_is_one_line(tmp_path: Path, stbench_command: Callable) -> None:
    stbench_command("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    path = next((tmp_path / "r" / "specs").iterdir())
    fields = json.loads(path.read_text())
    del fields["preset"]
    path.write_text(json.dumps(fields))
    done = stbench_command("report", tmp_path / "r")
    assert done.code == 2
    assert "was written by another version of stbench" in done.err


def test_a_results_directory_that_is_none_is_one_line(tmp_path: Path, stbench_command: Callable) -> None:
    for command in ("report", "track"):
        done = stbench_command(command, tmp_path)
        assert done.code == 2
        assert "is not a results directory" in done.err


@pytest.mark.parametrize("content", ["[]", '{"id": "0"}'])
def test_a_run_json_that_is_no_record_is_one_line(tmp_path: Path, stbench_command: Callable, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    for command in (("report", tmp_path), ("run", "--methods", PROBE, *DEMO, "--out", tmp_path)):
        done = stbench_command(*command)
        assert done.code == 2
        assert "run.json is not a run's record" in done.err
    assert (tmp_path / "run.json").read_text() == content


def test_a_directory_of_an_earlier_layout_is_refused_and_left_as_it_is(
    tmp_path: Path, stbench_command: Callable
) -> None:
    run = ("run", "--methods", "training_mean", *DEMO, "--out", tmp_path / "r", "--no-mlflow")
    assert stbench_command(*run).code == 0
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    del record["layout"]
    record["versions"]["stbench"] = "0.1.0"
    record["sections"] = {"|".join(("demo", "loso", section["target"]["name"])): {} for section in record["sections"]}
    (tmp_path / "r" / "run.json").write_text(json.dumps(record))
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    key = next(iter(record["trials"]))
    for command in (run, ("report", tmp_path / "r"), ("track", tmp_path / "r"), ("trial", tmp_path / "r", key)):
        done = stbench_command(*command)
        assert done.code == 2
        assert f"{tmp_path / 'r'} was written by stbench 0.1.0" in done.err
        assert "another --out" in done.err
    assert {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()} == before
