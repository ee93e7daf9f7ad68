"""`stbench ablate` and `run --encoders`: what is planned, what trains, what reuses a model, what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stbench import registry
from stbench.errors import UserError
from stbench.results.ablation import choose_switches, grid, parse_sweep, plan_ablation, refuse_above
from stbench.results.summary_schema import SUMMARY_COLUMNS
from stbench.switches import Switch, Variant
from stbench.trials.spec import TrialSpec
from stbench.trials.work import read_method

SOURCE = '''
"""A method with switches, which writes down every training."""
import json
import os
from pathlib import Path
from typing import ClassVar

import numpy as np

from stbench.method import MethodConfig, Needs
from stbench.switches import Switch, Variant


class Config(MethodConfig):
    level: float = 1.0  # learnt
    shift: float = 0.0  # looked at by predict alone
    fails: bool = False


class Switched:
    name: ClassVar[str] = "switched"
    title: ClassVar[str] = "Switched"
    kind: ClassVar[str] = "control"
    Config = Config
    presets: ClassVar[dict] = {"published": {}, "quick": {"level": 2.0}}
    inference_fields = frozenset({"shift"})
    switches = (
        Switch(
            "shift",
            "Shift of every prediction",
            (Variant("none", "as learnt", {"shift": 0.0}), Variant("up", "one more", {"shift": 1.0}),
             Variant("far up", "nine more", {"shift": 9.0})),
            "Table 1",
        ),
        Switch("level", "Level", (Variant("one", "learns one", {"level": 1.0}), Variant("two", "two", {"level": 2.0}))),
        Switch("target", "Scale", (Variant("per gene", "shares of the gene", target="gene-log10-cp10k"),)),
    )

    def __init__(self, config):
        self.config = config
        self.learnt = np.zeros(0, dtype=np.float32)

    needs = property(lambda self: Needs())
    weights_label = property(lambda self: "none")

    def fit(self, slides, run):
        with open(os.environ["TRAININGS"], "a") as log:
            log.write(f"{self.config.level}\\n")
        if self.config.fails or os.path.exists(os.environ["TRAININGS"] + ".fail"):
            raise RuntimeError("asked to fail")
        self.learnt = self.config.level * np.concatenate([slide.target for slide in slides]).mean(axis=0)

    def predict(self, slide):
        level = slide.patches.mean(axis=(1, 2, 3), dtype=np.float32)[:, None] / 255
        return self.learnt + level + np.float32(self.config.shift)

    def save(self, directory):
        np.save(directory / "learnt.npy", self.learnt)
        (directory / "config.json").write_text(self.config.model_dump_json())

    @classmethod
    def load(cls, directory, device="cpu"):
        method = cls(Config(**json.loads((directory / "config.json").read_text())))
        method.learnt = np.load(directory / "learnt.npy")
        return method
'''
DEMO = ("--dataset", "demo", "--slices", "P1a,P2a", "--no-mlflow")
SHIFT = Switch("shift", "Shift", (Variant("up", "one more", {"shift": 1.0}),))


@pytest.fixture
def switched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The method's reference; what it trained is written to the file that :func:`trainings` reads."""
    path = tmp_path / "switched.py"
    path.write_text(SOURCE)
    monkeypatch.setenv("TRAININGS", str(tmp_path / "trainings.txt"))
    return f"{path}:Switched"


def trainings(tmp_path: Path) -> list[str]:
    path = tmp_path / "trainings.txt"
    return path.read_text().split() if path.is_file() else []


def summary_of(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "summary.csv", keep_default_na=False, na_values={"mse": [""], "fit_s": [""]})


def planned(reference: str, *switches: Switch, **options: Any) -> Any:
    method = registry.method(reference)
    fields = {"preset": "published", "dataset": "demo", "target": "spot-log10-cp10k"} | options
    return plan_ablation(reference, method, switches or choose_switches(method), **fields)


# Planning -----------------------------------------------------------------------------------------------------------


def test_every_configuration_is_planned_once_and_inference_alone_trains_nothing(switched: str) -> None:
    study = planned(switched)
    assert [(one.choice.variant, one.target, one.reuses) for one in study.configurations] == [
        ("", "spot-log10-cp10k", False),
        ("shift=1.0", "spot-log10-cp10k", True),
        ("shift=9.0", "spot-log10-cp10k", True),
        ("level=2.0", "spot-log10-cp10k", False),
        ("", "gene-log10-cp10k", False),
    ]
    assert study.statement() == "5 variants (the base is one): 3 trained, 2 reuse a trained model"


def test_the_base_is_the_variant_that_equals_the_preset(switched: str) -> None:
    bases = {
        preset: {switch.name: [row.variant.name for row in rows if row.is_base] for switch, rows in study.switches}
        for preset in ("published", "quick")
        for study in [planned(switched, preset=preset)]
    }
    assert bases["published"] == {"shift": ["none"], "level": ["one"], "target": ["preset"]}
    assert bases["quick"] == {"shift": ["none"], "level": ["two"], "target": ["preset"]}


def test_a_switch_may_have_other_variants_under_a_preset_or_a_dataset() -> None:
    first, second, third = (Variant(name, name) for name in "abc")
    switch = Switch("s", "S", (first,), under={"quick": (second,), "quick/demo": (third,)})
    assert switch.of("published", "demo") == (first,)
    assert switch.of("quick", "her2st") == (second,)
    assert switch.of("quick", "demo") == (third,)


def test_a_grid_over_training_and_inference_trains_once_for_each_trained_setting(switched: str) -> None:
    study = planned(switched, grid([("level", [2.0, 3.0]), ("shift", [1.0, 2.0])]))
    trained = [one.choice for one in study.configurations if not one.reuses]
    assert [choice.variant for choice in trained] == ["", "level=2.0, shift=1.0", "level=3.0, shift=1.0"]
    for one in study.configurations:
        if one.reuses:
            assert one.choice.trained_by in trained
            assert one.choice.trained_by.config.level == one.choice.config.level


@settings(deadline=None)  # the first example imports the method
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 3)), min_size=1, max_size=8))
def test_who_trains_comes_first_and_differs_in_inference_alone(values: list[tuple[float, float]]) -> None:
    method = registry.method("bleep")
    variants = tuple(
        Variant(str(i), "", {"dropout": dropout / 4, "k": 1 + int(k)}) for i, (dropout, k) in enumerate(values)
    )
    study = plan_ablation("bleep", method, [Switch("s", "S", variants)], "quick", "demo", "spot-log10-cp10k")
    seen: list[Any] = []
    for one in study.configurations:
        trainer = one.choice.trained_by
        if trainer is not None:
            assert trainer in seen
            assert trainer.config.model_copy(update={"k": one.choice.config.k}) == one.choice.config
        assert one.choice.config not in [choice.config for choice in seen]
        seen.append(one.choice)
    assert len({one.config.dropout for one in seen}) == sum(one.trained_by is None for one in seen)


def test_an_unknown_switch_lists_the_known_ones(switched: str, stbench_command: Callable) -> None:
    refused = stbench_command("ablate", switched, *DEMO, "--only", "shfit")
    assert refused.code == 2
    assert "unknown switch of switched 'shfit' - did you mean 'shift'?" in refused.err
    assert "choose from: level, shift, target" in refused.err


def test_a_method_without_switches_says_how_to_sweep() -> None:
    with pytest.raises(UserError, match="training_mean has no registered switches - sweep a setting with --set"):
        choose_switches(registry.method("training_mean"))


def test_more_variants_than_allowed_are_refused(switched: str) -> None:
    with pytest.raises(UserError, match=r"the grid has 6 variants \(2 of level x 3 of shift\), more than 5"):
        grid([("level", [1, 2]), ("shift", [1, 2, 3])], at_most=5)
    with pytest.raises(UserError, match="5 variants are more than 4"):
        refuse_above(planned(switched), 4)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("k=1,50", ("k", [1, 50])),
        ("encoder=resnet18,resnet50", ("encoder", ["resnet18", "resnet50"])),
        ("trunk=[1,2],[3,4]", ("trunk", [[1, 2], [3, 4]])),
        ("last_relu=true,false", ("last_relu", [True, False])),
        ("input_px=null,64", ("input_px", [None, 64])),
    ],
)
def test_sweeps_are_json_values_or_words(text: str, parsed: tuple[str, list[Any]]) -> None:
    assert parse_sweep(text) == parsed


@pytest.mark.parametrize("text", ["k", "k=", "=1"])
def test_a_sweep_without_values_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="not of the form FIELD=A,B"):
        parse_sweep(text)


def test_a_setting_that_does_not_exist_is_refused(switched: str, stbench_command: Callable) -> None:
    refused = stbench_command("ablate", switched, *DEMO, "--set", "shfit=1,2")
    assert refused.code == 2
    assert "unknown setting of switched 'shfit'" in refused.err


# Running ------------------------------------------------------------------------------------------------------------


def test_an_inference_sweep_retrains_nothing(switched: str, tmp_path: Path, stbench_command: Callable) -> None:
    results = tmp_path / "r"
    done = stbench_command("ablate", switched, *DEMO, "--only", "shift", "--out", results)
    assert done.code == 0, done.err
    assert "3 variants (the base is one): 1 trained, 2 reuse a trained model" in done.out
    assert len(trainings(tmp_path)) == 2  # the base, once a fold
    summary = summary_of(results)
    assert list(summary.columns) == list(SUMMARY_COLUMNS)
    base = summary[summary["variant"] == ""].set_index("fold")
    reused = summary[summary["variant"] != ""]
    assert set(summary["state"]) == {"finished"}
    assert list(base["trained_by"]) == ["", ""]
    assert len(reused) == 4
    assert (reused["fit_s"] == 0).all()
    assert list(reused["trained_by"]) == list(base.loc[reused["fold"], "key"])
    for row in reused.itertuples():
        ours, theirs = (
            anndata.read_h5ad(results / "trials" / key / "predictions" / f"{row.slice}.h5ad").X
            for key in (row.key, row.trained_by)
        )
        np.testing.assert_allclose(ours - theirs, float(row.variant.removeprefix("shift=")), atol=1e-5)


def test_the_same_command_again_and_one_more_switch_reuse_what_is_there(
    switched: str, tmp_path: Path, stbench_command: Callable
) -> None:
    command = ("ablate", switched, *DEMO, "--out", tmp_path / "r")
    stbench_command(*command, "--only", "level")
    assert len(trainings(tmp_path)) == 4
    again = stbench_command(*command, "--only", "level,shift")
    assert "8 trials, 4 to run; reused: 4 finished" in again.out
    assert len(trainings(tmp_path)) == 4
    assert "8 trials, 0 to run" in stbench_command(*command, "--only", "level,shift").out


def test_run_json_says_what_each_variant_changes(switched: str, tmp_path: Path, stbench_command: Callable) -> None:
    results = tmp_path / "r"
    for only in ("shift", "target"):
        assert stbench_command("ablate", switched, *DEMO, "--only", only, "--out", results).code == 0
    ablation = json.loads((results / "run.json").read_text())["ablation"]
    assert ablation["method"] == "switched"
    assert ablation["base"]["variant"] == ""
    shift, target = ablation["switches"]
    assert (shift["name"], shift["title"], shift["answers"]) == ("shift", "Shift of every prediction", "Table 1")
    assert [(row["name"], row["words"], row["variant"], row["base"], row["reused"]) for row in shift["variants"]] == [
        ("none", "as learnt", "", True, False),
        ("up", "one more", "shift=1.0", False, True),
        ("far up", "nine more", "shift=9.0", False, True),
    ]
    assert [row["target"] for row in target["variants"]] == ["spot-log10-cp10k", "gene-log10-cp10k"]
    summary = summary_of(results)
    entry = ["method", "preset", "variant", "weights", "target"]
    there = set(summary[entry].itertuples(index=False, name=None))
    assert {tuple(row[name] for name in entry) for switch in (shift, target) for row in switch["variants"]} == there


def test_where_the_training_failed_its_variants_fail_with_that_reason(
    switched: str, tmp_path: Path, stbench_command: Callable
) -> None:
    done = stbench_command(
        "ablate", switched, *DEMO, "--set", "fails=true", "--set", "shift=0.0,1.0", "--out", tmp_path / "r"
    )
    assert done.code == 1
    summary = summary_of(tmp_path / "r").set_index(["variant", "fold"])
    trained = summary.loc[("fails=True", "P1a")]
    reused = summary.loc[("shift=1.0, fails=True", "P1a")]
    assert trained["reason"] == "RuntimeError: asked to fail"
    assert reused["reason"] == f"trial {trained['key']}, whose model it reuses, failed: RuntimeError: asked to fail"
    assert (summary.loc[""]["state"] == "finished").all()


def test_a_retry_of_the_training_retries_what_failed_because_of_it(
    switched: str, tmp_path: Path, stbench_command: Callable
) -> None:
    """Also variants of another command, which this one does not plan."""
    results, trouble = tmp_path / "r", tmp_path / "trainings.txt.fail"
    trouble.touch()
    assert stbench_command("ablate", switched, *DEMO, "--only", "shift", "--out", results).code == 1
    assert set(summary_of(results)["state"]) == {"failed"}
    trouble.unlink()
    assert "0 to run; reused: 2 failed" in stbench_command("run", "--methods", switched, *DEMO, "--out", results).out
    done = stbench_command("run", "--methods", switched, *DEMO, "--out", results, "--retry-failed")
    assert "2 trials, 6 to run" in done.out
    assert done.code == 0
    assert set(summary_of(results)["state"]) == {"finished"}
    assert len(trainings(tmp_path)) == 4


def test_a_variant_launched_alone_trains_what_it_reuses_first(
    switched: str, tmp_path: Path, stbench_command: Callable
) -> None:
    import shutil

    results = tmp_path / "r"
    stbench_command("ablate", switched, *DEMO, "--only", "shift", "--out", results)
    row = summary_of(results).query("trained_by != ''").iloc[0]
    for key in (row["key"], row["trained_by"]):
        shutil.rmtree(results / "trials" / key)
    assert stbench_command("trial", results, row["key"]).out.strip() == f"{row['key']}: finished"
    assert (results / "trials" / row["trained_by"] / "metrics.csv").is_file()


def test_a_trained_trial_without_its_model_is_refused(switched: str, tmp_path: Path, stbench_command: Callable) -> None:
    stbench_command("run", "--methods", switched, *DEMO, "--out", tmp_path / "r")
    refused = stbench_command("ablate", switched, *DEMO, "--only", "shift", "--out", tmp_path / "r")
    assert refused.code == 2
    assert "kept no model, which shift=1.0 would reuse - delete it and run the same command again" in refused.err


def test_another_base_needs_another_place(switched: str, tmp_path: Path, stbench_command: Callable) -> None:
    command = ("ablate", switched, *DEMO, "--only", "shift", "--out", tmp_path / "r")
    stbench_command(*command)
    refused = stbench_command(*command, "--preset", "quick")
    assert refused.code == 2
    assert "holds an ablation study of another base - give another --out" in refused.err


def test_a_dry_run_says_what_each_variant_is_and_writes_nothing(
    switched: str, tmp_path: Path, stbench_command: Callable
) -> None:
    done = stbench_command("ablate", switched, *DEMO, "--dry-run", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    for words in (
        "nine more",
        "shift=9.0",
        "reuses a model",
        "target=gene-log10-cp10k",
        "shift: Shift of every prediction, Table 1",
    ):
        assert words in done.out
    assert "10 trials: switched" in done.out
    assert not (tmp_path / "r").exists()
    assert trainings(tmp_path) == []


def test_a_key_depends_on_reuse_only_where_there_is_some(
    switched: str, tmp_path: Path, stbench_command: Callable
) -> None:
    results = tmp_path / "r"
    stbench_command("ablate", switched, *DEMO, "--only", "shift", "--out", results)
    stbench_command("run", "--methods", switched, *DEMO, "--out", tmp_path / "plain")
    ablated, plain = summary_of(results), summary_of(tmp_path / "plain")
    assert set(ablated.loc[ablated["variant"] == "", "key"]) == set(plain["key"])
    one = ablated[ablated["trained_by"] != ""].iloc[0]
    spec = TrialSpec.read(results / "specs" / f"{one['key']}.json")
    assert spec.trained_by == one["trained_by"]
    alone = TrialSpec(**{**vars(spec), "trained_by": ""})
    assert alone.key != spec.key


# A method of the package --------------------------------------------------------------------------------------------


def test_a_reused_model_predicts_as_one_trained_with_that_setting(tmp_path: Path, stbench_command: Callable) -> None:
    """The sweep's k = 3 equals a run whose own k is 3: nothing but prediction looks at it."""
    small = ("--preset", "quick", *DEMO)
    stbench_command("ablate", "position_knn", *small, "--set", "k=3", "--out", tmp_path / "swept")
    stbench_command("run", "--methods", "position_knn", "--set", "position_knn.k=3", *small, "--out", tmp_path / "own")
    swept, own = summary_of(tmp_path / "swept"), summary_of(tmp_path / "own")
    swept = swept[swept["variant"] == "k=3"]
    assert (swept["trained_by"] != "").all()
    np.testing.assert_array_equal(swept["mse"], own["mse"])
    model = tmp_path / "swept" / "trials" / swept["trained_by"].iloc[0]
    assert read_method(model).config.k == 50


# Encoders -----------------------------------------------------------------------------------------------------------


def test_encoders_make_a_row_each_for_methods_that_have_one(stbench_command: Callable, tmp_path: Path) -> None:
    done = stbench_command(
        *("run", "--methods", "feature_ridge,training_mean", *DEMO, "--preset", "quick"),
        *("--encoders", "test_resnet,test_efficientnet", "--out", tmp_path / "r"),
    )
    assert done.code == 0, done.err
    assert "training_mean has no encoder and is run once, whatever --encoders says" in done.out
    rows = summary_of(tmp_path / "r")
    assert set(zip(rows["method"], rows["variant"], strict=True)) == {
        ("feature_ridge", "encoder=test_resnet"),
        ("feature_ridge", "encoder=test_efficientnet"),
        ("training_mean", ""),
    }


def test_an_encoder_may_bring_its_weights(stbench_command: Callable, tmp_path: Path) -> None:
    import torch

    from stbench.training.encoders import build_encoder

    torch.manual_seed(0)
    torch.save(build_encoder("test_resnet").module.state_dict(), tmp_path / "mine.pth")
    done = stbench_command(
        *("run", "--methods", "feature_ridge", *DEMO, "--preset", "quick"),
        *("--encoders", f"test_resnet@{tmp_path / 'mine.pth'}", "--out", tmp_path / "r"),
    )
    assert done.code == 0, done.err
    (weights,) = set(summary_of(tmp_path / "r")["weights"])
    assert weights.startswith("file (mine.pth ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "feature_ridge", "--encoders", "test_resnte"), "unknown encoder 'test_resnte'"),
        (("--methods", "training_mean", "--encoders", "test_resnet"), "changes nothing"),
        (("--methods", "feature_ridge", "--encoders", "test_resnet@"), "names no encoder"),
        (
            (*("--methods", "feature_ridge", "--encoders", "test_resnet"), "--set", "feature_ridge.encoder=resnet18"),
            "both choose an encoder",
        ),
    ],
)
def test_bad_encoders_stop_the_run_with_one_line(
    words: tuple[str, ...], message: str, stbench_command: Callable, tmp_path: Path
) -> None:
    refused = stbench_command("run", *words, *DEMO, "--preset", "quick", "--out", tmp_path / "r")
    assert refused.code == 2
    assert message in refused.err
    assert not (tmp_path / "r").exists()
