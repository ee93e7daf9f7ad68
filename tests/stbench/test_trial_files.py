"""A file of an ended trial that is missing, cut or changed is one line with a way out, and the way out works."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from stbench.cli import main
from stbench.errors import DamagedFileError, UserError
from stbench.reports.sections.read import load
from stbench.results.record import read_run
from stbench.results.summary import collect
from stbench.trials.outcome import read_ended, read_table, state_of
from stbench.trials.work import read_method

PROBE = f"{Path(__file__).parent / 'probe_method.py'}:Probe"
COMMAND = ("run", "--methods", PROBE, "--dataset", "demo", "--slices", "P1a,P1b", "--no-mlflow", "--save-models")
FILES = ("spec.json", "state.json", "history.csv", "metrics.csv", "genes.parquet", "targets.csv", "domains.csv")
FILES += ("domains.parquet", "predictions/P1a.h5ad", "model/config.json", "model/mean.npy")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two trials, with their models."""
    os.environ["STBENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "stbench-cache")
    results = tmp_path_factory.mktemp("made") / "r"
    with pytest.raises(SystemExit) as left:
        main([*COMMAND, "--out", str(results)])
    assert left.value.code == 0
    return results


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "r"))


def trial_of(results: Path, slide: str = "P1a") -> Path:
    summary = pd.read_csv(results / "summary.csv")
    return results / "trials" / summary.set_index("slice")["key"][slide]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def change(path: Path) -> None:
    """The same size, another content, as a power cut leaves blocks that were never written."""
    path.write_bytes(bytes(path.stat().st_size))


DAMAGES = {"deleted": Path.unlink, "emptied": lambda path: path.write_bytes(b""), "cut": cut, "zeroed": change}


def assert_way_out(printed: str, trial: Path, name: str) -> None:
    (line,) = printed.strip().splitlines()
    assert str(trial / name) in line
    assert line.endswith(f"delete {trial}, and the command that made it makes it again")


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_a_trial_is_listed_but_the_list_itself(made: Path, name: str) -> None:
    listed = json.loads((trial_of(made) / "state.json").read_text())["files"]
    assert (name in listed) == (name != "state.json")


@pytest.mark.parametrize("damage", ["deleted", "emptied", "cut"])
@pytest.mark.parametrize("name", [name for name in FILES if name != "state.json"])
def test_a_missing_or_cut_file_is_one_line(results: Path, name: str, damage: str) -> None:
    trial = trial_of(results)
    DAMAGES[damage](trial / name)
    with pytest.raises(DamagedFileError) as caught:
        collect(results)
    assert_way_out(str(caught.value), trial, name)


@pytest.mark.parametrize("name", ["metrics.csv", "state.json"])
def test_it_stops_the_report_and_the_run(results: Path, stbench_command: Callable, name: str) -> None:
    trial = trial_of(results)
    (trial / name).write_text("")
    for command in (("report", results), ("leaderboard", results), (*COMMAND, "--out", results)):
        done = stbench_command(*command)
        assert done.code == 2
        assert_way_out(done.err.splitlines()[-1], trial, name)


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", "null", '{"state": 1}', '{"state": "pending", "reason": ""}'])
def test_a_state_that_says_nothing_is_one_line(results: Path, content: str) -> None:
    trial = trial_of(results)
    (trial / "state.json").write_text(content)
    with pytest.raises(DamagedFileError) as caught:
        state_of(results, trial.name)
    assert_way_out(str(caught.value), trial, "state.json")


@pytest.mark.parametrize("name", ["metrics.csv", "genes.parquet", "targets.csv", "domains.csv", "domains.parquet"])
def test_a_table_of_the_right_size_and_another_content_is_no_table(results: Path, name: str) -> None:
    trial = trial_of(results)
    change(trial / name)
    with pytest.raises(DamagedFileError, match=f"{name} is not what the trial wrote: its content has changed - delete"):
        read_table(trial, name, ["P1a"])


def test_a_changed_model_is_not_used(results: Path) -> None:
    trial = trial_of(results)
    change(trial / "model" / "mean.npy")
    with pytest.raises(DamagedFileError, match=r"model/mean.npy is not what the trial wrote"):
        read_method(trial)


def test_a_model_may_be_removed_for_room(results: Path, stbench_command: Callable) -> None:
    trial = trial_of(results)
    shutil.rmtree(trial / "model")
    assert state_of(results, trial.name).state == "finished"
    with pytest.raises(UserError, match="delete it and run the command again with --save-models"):
        read_method(trial)


@pytest.mark.parametrize("deleted", [".", "state.json"])
def test_what_the_line_says_to_delete_is_made_again_with_the_same_numbers(
    results: Path, stbench_command: Callable, deleted: str
) -> None:
    before = pd.read_csv(results / "summary.csv").set_index("slice")
    trial = trial_of(results)
    if deleted == ".":
        shutil.rmtree(trial)
    else:
        (trial / deleted).unlink()
    assert collect(results).set_index("slice").loc["P1a", ["state"]].tolist() == ["pending"]
    assert pd.isna(collect(results).set_index("slice").loc["P1a", "mse"])
    done = stbench_command(*COMMAND, "--out", results)
    assert done.code == 0
    assert "2 trials, 1 to run; reused: 1 finished" in done.out
    after = pd.read_csv(results / "summary.csv").set_index("slice")
    assert set(after["state"]) == {"finished"}
    pd.testing.assert_series_equal(before["mse"], after["mse"], check_exact=True)


def rows(path: Path) -> list[str]:
    return path.read_text().splitlines()


def unlisted(results: Path) -> Path:
    """A trial as earlier versions wrote it: without the list of its files."""
    trial = trial_of(results)
    state = json.loads((trial / "state.json").read_text())
    del state["files"]
    (trial / "state.json").write_text(json.dumps(state))
    return trial


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_text(""), "is not a readable table"),
        (cut, "is not a readable table"),
        (change, "is not a readable table"),
        (lambda path: path.write_text("slice,mse\nP1a,1\n"), "has no column n_spots, n_genes, pcc_acg, pcc_heg, mae"),
        (lambda path: path.write_text(rows(path)[0] + "\n"), "has no row for slice P1a"),
        (lambda path: path.write_text(path.read_text().replace("P1a", "P1b")), "has no row for slice P1a"),
        (lambda path: path.write_text(path.read_text() + rows(path)[1].replace("P1a", "X") + "\n"), "has rows for X"),
        (lambda path: path.write_text(path.read_text().replace(",P1,", ",P1,many")), "is not a readable table (co"),
    ],
    ids=["missing", "empty", "cut", "zeroed", "columns", "header", "other", "more", "text"],
)  # fmt: skip
def test_metrics_of_an_earlier_version_are_checked_by_what_they_hold(
    results: Path, damage: Callable[[Path], object], message: str
) -> None:
    trial = unlisted(results)
    damage(trial / "metrics.csv")
    with pytest.raises(DamagedFileError) as caught:
        collect(results)
    assert f"metrics.csv {message}" in str(caught.value)
    assert_way_out(str(caught.value), trial, "metrics.csv")


def test_numbers_are_read_exactly(results: Path) -> None:
    trial = unlisted(results)
    text = (trial / "metrics.csv").read_text()
    row = text.splitlines()[1].split(",")
    assert float(row[4]) == collect(results).set_index("slice").loc["P1a", "pcc_acg"]
    assert read_table(trial, "metrics.csv", ["P1a"])["n_spots"].tolist() == [int(row[2])]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"id": 1}', '{"id": "a", "commands": [], "trials": {"k": 1}}'])
def test_a_record_of_the_run_that_is_none_is_one_line(results: Path, content: str) -> None:
    (results / "run.json").write_text(content)
    for read in (read_run, lambda place: load([place])):
        with pytest.raises(DamagedFileError) as caught:
            read(results)
        (line,) = str(caught.value).splitlines()
        assert line.startswith(f"{results / 'run.json'} ")
        assert "delete it and run every command of it again" in line


def test_a_record_of_the_run_that_is_deleted_is_made_again(results: Path, stbench_command: Callable) -> None:
    (results / "run.json").unlink()
    done = stbench_command(*COMMAND, "--out", results)
    assert done.code == 0
    assert "reused: 2 finished" in done.out


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"seed": "x"}'])
def test_a_plan_that_is_none_is_one_line(results: Path, content: str | None) -> None:
    spec = results / "specs" / f"{trial_of(results).name}.json"
    spec.unlink() if content is None else spec.write_text(content)
    with pytest.raises(DamagedFileError) as caught:
        collect(results)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{spec} ")
    assert f"delete {spec} and run the command again that planned it" in line


def test_a_plan_that_is_damaged_is_made_again(results: Path, stbench_command: Callable) -> None:
    spec = results / "specs" / f"{trial_of(results).name}.json"
    planned = spec.read_text()
    spec.write_text("{}")
    assert stbench_command(*COMMAND, "--out", results).code == 0
    assert spec.read_text() == planned


def test_a_damaged_state_of_an_attempt_is_an_interruption(results: Path) -> None:
    """Nothing is lost by it: the attempt goes on from its checkpoint."""
    trial = trial_of(results)
    attempt = results / "attempts" / trial.name / "0123abcd"
    attempt.parent.mkdir(parents=True)
    shutil.move(trial, attempt)
    for content in ("", "{}", "[]"):
        (attempt / "state.json").write_text(content)
        assert state_of(results, trial.name).state == "interrupted"


def test_a_trial_that_was_not_moved_to_its_place_has_not_ended(results: Path, stbench_command: Callable) -> None:
    trial = trial_of(results)
    (results / "attempts" / trial.name).mkdir(parents=True)
    shutil.move(trial, results / "attempts" / trial.name / "0123abcd")
    assert state_of(results, trial.name).state == "interrupted"
    assert stbench_command(*COMMAND, "--out", results).code == 0
    assert read_ended(trial).state == "finished"


@pytest.mark.parametrize("keep", [lambda text: text[:-20], lambda text: "".join(text.splitlines(True)[:-1])])
def test_a_summary_that_was_cut_is_not_reported(results: Path, keep: Callable[[str], str]) -> None:
    summary = results / "summary.csv"
    summary.write_text(keep(summary.read_text()))
    with pytest.raises(UserError, match=r"summary.csv (was cut or changed|has no row for trial).*writes it anew"):
        load([results])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("slides-demo/slides.json", '{"P1a": {"file": 1}}'),
        ("audit-demo-loso-spot-log10-cp10k.json", "{}"),
        ("made-from.json", "[]"),
        ("ceiling-demo-spot-log10-cp10k.parquet", "PAR1"),
    ],
)
def test_damaged_evidence_is_one_line_and_is_made_again(
    results: Path, stbench_command: Callable, name: str, content: str
) -> None:
    path = results / "evidence" / name
    path.write_text(content)
    done = stbench_command(*COMMAND, "--out", results)
    assert done.code == 2
    line = done.err.strip().splitlines()[-1]
    assert str(path) in line
    assert line.endswith("delete it to have it made again")
    path.unlink()
    assert stbench_command(*COMMAND, "--out", results).code == 0
    assert path.is_file()
