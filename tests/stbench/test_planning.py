"""Planning at any scale: what is written, which folds are run now, and what a run is said to take."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from made_up_runs import choice, experiment, finish, made_up_data

from stbench.errors import DamagedFileError
from stbench.results import plan as planning
from stbench.results.plan import Execution, MethodChoice, plan, specs_of
from stbench.results.record import read_run, spec_at
from stbench.results.summary import SummaryTable
from stbench.system import many_files
from stbench.trials.cost import Costs
from stbench.trials.forecast import Forecast
from stbench.trials.outcome import read_ended, read_table, state_of
from stbench.trials.scores_file import read_scores
from stbench.trials.spec import TrialSpec
from stbench.trials.state import TrialState
from stbench.trials.survey import states_of

MEAN = choice("training_mean")
DEMO = ("--dataset", "demo", "--preset", "quick", "--slices", "P1a,P2a,P3a", "--no-mlflow")


def planned(results: Path, n_slices: int = 3, *methods: MethodChoice, seeds: int = 1) -> list[str]:
    chosen = experiment(made_up_data(n_slices), methods or [MEAN], range(seeds))
    return plan(chosen, Execution(results, "stbench run", "cpu"))


def content(folder: Path) -> dict[str, tuple[int, int, int]]:
    found = {str(path): path.stat() for path in sorted(folder.rglob("*"))}
    return {path: (stat.st_ino, stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


# What is written ----------------------------------------------------------------------------------------------------


def test_specs_are_waited_for_once_and_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[int] = []
    monkeypatch.setattr(many_files, "sync_file_system", lambda folder: waited.append(len(os.listdir(folder))))
    keys = planned(tmp_path)
    assert waited == [3]  # when all are there
    specs = content(tmp_path / "specs")
    assert sorted(Path(path).stem for path in specs) == sorted(keys)
    assert planned(tmp_path) == keys
    assert content(tmp_path / "specs") == specs
    assert waited == [3]


def test_a_spec_that_is_another_or_cut_is_replaced(tmp_path: Path) -> None:
    first, second, third = planned(tmp_path)
    before = [spec_at(tmp_path, key) for key in (first, second, third)]
    (tmp_path / "specs" / f"{first}.json").write_text("{")
    moved = replace(before[1], data=replace(before[1].data, cache="/elsewhere"))
    (tmp_path / "specs" / f"{second}.json").write_text(moved.as_json())
    assert moved.key == second
    planned(tmp_path)
    assert [spec_at(tmp_path, key) for key in (first, second, third)] == before
    assert len(os.listdir(tmp_path / "specs")) == 3


def test_a_model_that_an_earlier_command_wants_kept_is_kept(tmp_path: Path) -> None:
    """A variant that it planned may wait for the model."""
    planned(tmp_path, 2, replace(MEAN, keep_model=True))
    for key in planned(tmp_path, 2):
        assert spec_at(tmp_path, key).save_model


def test_specs_and_the_record_have_lines(tmp_path: Path) -> None:
    key, *_ = planned(tmp_path)
    text = (tmp_path / "specs" / f"{key}.json").read_text()
    assert len(text.splitlines()) == len(json.loads(text)) + 2
    lines = (tmp_path / "run.json").read_text().splitlines()
    (line,) = [line for line in lines if key in line]
    assert json.loads(f"{{{line.rstrip(',')}}}")[key] == read_run(tmp_path).trials[key].model_dump()


def test_specs_that_cannot_be_written_are_named_by_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: str) -> None:
        raise OSError(28, "No space left on device", folder)

    monkeypatch.setattr(many_files, "sync_file_system", fails)
    with pytest.raises(planning.UserError, match=r"is full|no space|No space|holds no more|cannot write"):
        planned(tmp_path)
    assert not (tmp_path / "run.json").exists()


# What is looked at --------------------------------------------------------------------------------------------------


def test_states_of_many_are_those_of_each(tmp_path: Path) -> None:
    first, second, third = planned(tmp_path)
    finish(tmp_path, second, "S1", alarms=[{"kind": "a", "text": "b"}])
    (tmp_path / "attempts" / third / "token").mkdir(parents=True)
    TrialState(state="interrupted", reason="asked to stop").write(tmp_path / "attempts" / third / "token")
    found = dict(states_of(tmp_path, [first, second, third]))
    assert found == {key: state_of(tmp_path, key) for key in (first, second, third)}
    assert [state.state for state in found.values()] == ["pending", "finished", "interrupted"]


def test_of_what_is_pending_nothing_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = planned(tmp_path)
    monkeypatch.delattr("stbench.trials.survey.state_of")
    assert [state.state for _, state in states_of(tmp_path, keys)] == ["pending"] * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda trial: (trial / "metrics.csv").unlink(),
        lambda trial: (trial / "genes.txt").write_text("cut"),
        lambda trial: (trial / "state.json").write_text("{"),
        lambda trial: (trial / "state.json").write_text(
            '{"state": "finished", "reason": "", "started": NaN, "ended": 1}'
        ),
    ],
)
def test_what_is_damaged_is_told_of_many_as_of_one(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    key, *_ = planned(tmp_path)
    finish(tmp_path, key, "S0", {"metrics.csv": "slice\n", "genes.txt": "complete"})
    damage(tmp_path / "trials" / key)
    with pytest.raises(DamagedFileError) as one:
        state_of(tmp_path, key)
    with pytest.raises(DamagedFileError) as many:
        list(states_of(tmp_path, [key]))
    assert str(many.value) == str(one.value)


@pytest.mark.parametrize(
    "text",
    [
        "slice,n_spots,n_genes,pcc_acg,pcc_heg,mse,mae\nS0,2,2,0.5,,1,1e-3\n",
        'slice,n_spots,n_genes,pcc_acg,pcc_heg,mse,mae\n"S0",2,2,0.1,-0.5,1,nan\n',
    ],
)
def test_scores_are_read_as_the_table_has_them(tmp_path: Path, text: str) -> None:
    key, *_ = planned(tmp_path)
    finish(tmp_path, key, "S0", {"metrics.csv": text})
    trial = tmp_path / "trials" / key
    state = read_ended(trial)
    table = read_table(trial, "metrics.csv", ["S0"])
    assert state is not None
    assert table is not None
    ours = pd.DataFrame([*read_scores(trial, state, ["S0"]).values()])
    pd.testing.assert_frame_equal(ours, table, check_exact=True)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("slice,n_spots,n_genes,pcc_acg,pcc_heg,mse\nS0,2,2,0.5,0.5,1\n", "has no column mae"),
        ("slice,n_spots,n_genes,pcc_acg,pcc_heg,mse,mae\nS1,2,2,0.5,0.5,1,1\n", "has no row for slice S0"),
        ("slice,n_spots,n_genes,pcc_acg,pcc_heg,mse,mae\nS0,2,2,a,0.5,1,1\n", "is not a readable table"),
    ],
)
def test_scores_that_are_not_as_they_should_be_are_said(tmp_path: Path, text: str, what: str) -> None:
    key, *_ = planned(tmp_path)
    finish(tmp_path, key, "S0", {"metrics.csv": text})
    with pytest.raises(DamagedFileError, match=what):
        SummaryTable(tmp_path).collect()


def test_scores_that_were_changed_are_said(tmp_path: Path) -> None:
    key, *_ = planned(tmp_path)
    finish(tmp_path, key, "S0")
    path = tmp_path / "trials" / key / "metrics.csv"
    path.write_text(path.read_text().replace("0.5", "0.9"))
    with pytest.raises(DamagedFileError, match="its content has changed"):
        SummaryTable(tmp_path).collect()


def test_a_table_that_is_made_again_has_what_changed(tmp_path: Path) -> None:
    first, second, _ = planned(tmp_path)
    table = SummaryTable(tmp_path)
    assert list(table.collect()["state"]) == ["pending"] * 3
    finish(tmp_path, second, "S1")
    assert list(table.collect()["pcc_acg"].dropna()) == [0.5]
    finish(tmp_path, first, "S0", state="failed", reason="it broke")
    found = table.collect().set_index("key")
    assert list(found["state"]) == ["failed", "finished", "pending"]
    pd.testing.assert_frame_equal(found.reset_index(), SummaryTable(tmp_path).collect())
    assert found.loc[first, "reason"] == "it broke"


# Some folds ---------------------------------------------------------------------------------------------------------


def test_some_folds_are_run_and_the_others_are_counted_as_missing(tmp_path: Path, stbench_command: Callable) -> None:
    words = ("run", "--methods", "training_mean", *DEMO, "--out", tmp_path / "r")
    done = stbench_command(*words, "--only-folds", "P2a")
    assert done.code == 0, done.err
    assert "3 trials, 1 to run; 2 of other folds are left as they are" in done.out
    assert "1/3" in done.out
    summary = pd.read_csv(tmp_path / "r" / "summary.csv", index_col="fold")
    assert dict(summary["state"]) == {"P1a": "pending", "P2a": "finished", "P3a": "pending"}
    assert "3 trials, 2 to run; reused: 1 finished" in stbench_command(*words).out


def test_a_fold_that_there_is_not_is_one_line(tmp_path: Path, stbench_command: Callable) -> None:
    done = stbench_command(
        "run", "--methods", "training_mean", *DEMO, "--only-folds", "P2a,P2", "--out", tmp_path / "r"
    )
    assert done.code == 2
    assert "unknown fold of --split loso 'P2' - did you mean 'P2a'? (choose from: P1a, P2a, P3a)" in done.err
    assert not (tmp_path / "r").exists()


# What a run will take -----------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_is_left_and_what_it_takes(tmp_path: Path, stbench_command: Callable) -> None:
    words = ("run", "--methods", "training_mean", *DEMO, "--out", tmp_path / "r")
    new = stbench_command(*words, "--dry-run")
    assert not (tmp_path / "r").exists()
    assert "by state: 3 pending" in new.out
    assert "a table" in new.out
    assert "counted" not in new.out  # no step of a control was
    stbench_command(*words, "--only-folds", "P2a")
    before = content(tmp_path / "r")
    done = stbench_command(*words, "--dry-run", "--slots", "2")
    assert content(tmp_path / "r") == before
    assert "by state: 1 finished, 2 pending" in done.out
    assert "1 past trial" in done.out
    assert "a table" not in done.out
    assert "2 at a time; no GPU;" in done.out
    only = stbench_command(*words, "--dry-run", "--only-folds", "P2a")
    assert "nothing is to be run" in only.out


def specs() -> dict[str, TrialSpec]:
    """A base, two variants that predict with its model, and a short training; one fold that matters."""
    base = replace(choice("bleep", weights="random"), keep_model=True)
    reusing = [replace(choice("bleep", weights="random", k=k), trained_by=base) for k in (10, 20)]
    short = choice("training_mean")
    chosen = experiment(made_up_data(2), [short, *reusing, base])
    found = list(specs_of(chosen, Execution(Path("nowhere"), "stbench run", "cpu")))
    return {f"{spec.name} {spec.config['k'] if spec.trained_by else ''} {spec.fold}": spec for spec in found}


def test_the_longest_come_first_and_who_trains_before_who_reuses(tmp_path: Path) -> None:
    forecast, named = Forecast(Costs(tmp_path, on_gpu=False)), specs()
    for spec in named.values():
        forecast.see(spec)
    keys = {spec.key: name for name, spec in named.items()}
    order = [keys[key] for key in forecast.longest_first(list(keys))]
    assert order[:2] == ["bleep  S0", "bleep  S1"]
    assert order[-2:] == ["training_mean  S0", "training_mean  S1"]
    assert order[2:-2] == ["bleep 10 S0", "bleep 20 S0", "bleep 10 S1", "bleep 20 S1"]
    assert forecast.longest_first(["unseen", *keys])[-1] == "unseen"
    seconds = [forecast.cost(key).seconds for key in keys]
    assert forecast.seconds_on(1, keys) == pytest.approx(sum(seconds))
    assert forecast.seconds_on(100, keys) == pytest.approx(max(seconds))
