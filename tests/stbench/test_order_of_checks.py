"""What is wrong is told in order: arguments, data, weights; what costs nothing before what takes time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from stbench import registry
from stbench.cli.method_choices import choose_methods
from stbench.data.prepare import prepare, require_readable
from stbench.data.splits import loso
from stbench.dataset import SlideSource
from stbench.errors import UserError
from stbench.method import MethodConfig, Needs, configure
from stbench.results.plan import Execution, Experiment, MethodChoice, plan
from stbench.system import files
from stbench.training import encoders, pretrained
from stbench.trials.spec import DataSpec, TrialSpec

SLOW = ("torchvision", "timm", "torch_geometric", "scipy.stats")

IN_ANOTHER_PROCESS = f"""
import sys
from stbench.cli import main
try:
    main(sys.argv[1:])
except SystemExit as left:
    print("code", left.code)
print("torch imported:", "torch" in sys.modules)
print("slow imported:", [name for name in {SLOW!r} if name in sys.modules])
"""


def _alone(*words: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, which says whether torch was imported."""
    environment = os.environ | {"COLUMNS": "300"} | variables
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=True)


@pytest.mark.parametrize(
    "words",
    [
        ("run", "--methods", "all"),
        ("run", "--methods", "published", "--split", "lopo", "--dry-run"),
        ("ablate", "mclstexp"),
        ("audit",),
        ("score", "B4.h5ad", "--name", "theirs", "--out", "r"),
        ("data", "prepare"),
    ],
)
def test_missing_data_are_told_in_one_line_before_torch_is_imported(words: tuple[str, ...], tmp_path: Path) -> None:
    dataset = ("alex10x",) if words[0] == "data" else ("--dataset", "alex10x")
    done = _alone(*words, *dataset, "--data", tmp_path)
    assert done.stdout.split("\n")[-4:] == ["code 2", "torch imported: False", "slow imported: []", ""]
    (line,) = done.stderr.strip().split("\n")
    assert line.startswith("stbench: no slice of alex10x was found")


def test_missing_weights_are_told_before_what_builds_networks_is_imported(tmp_path: Path) -> None:
    """That takes longer than everything else together: half a minute on a slow machine."""
    environment = {"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    words = ("run", "--methods", "bleep,hist2st,thitogene,mclstexp", "--dataset", "demo", "--preset", "published")
    done = _alone(*words, "--set", f"mclstexp.weights={tmp_path / 'none.pth'}", "--out", tmp_path / "r", **environment)
    assert done.stdout.split("\n")[-4:] == ["code 2", "torch imported: True", "slow imported: []", ""]
    (line,) = done.stderr.strip().split("\n")
    assert line.startswith("stbench: there is no weights file")
    done = _alone(*words[:2], "bleep,hist2st", *words[3:], "--out", tmp_path / "r", **environment)
    assert done.stdout.split("\n")[-4:] == ["code 2", "torch imported: True", "slow imported: []", ""]
    (line,) = done.stderr.strip().split("\n")
    assert line.startswith("stbench: the pretrained weights resnet50.a1_in1k could not be downloaded (HF_HUB_OFFLINE")


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Nothing of any encoder may be looked at: what was asked for is listed."""
    asked: list[object] = []
    monkeypatch.setattr(pretrained, "require_reachable", lambda wanted: None)
    monkeypatch.setattr(encoders, "require_encoders", lambda wanted: asked.append(list(wanted)))
    return asked


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--methods", "stnett"), "unknown method 'stnett'"),
        (("--methods", "nowhere.py:A"), "there is no file nowhere.py"),
        (("--methods", "stnet", "--set", "stnet.epochs"), "--set stnet.epochs is not of the form"),
        (("--methods", "stnet", "--set", "bleep.epochs=1"), "unknown method in --set 'bleep'"),
        (("--methods", "stnet", "--encoders", "@a.pth"), "'@a.pth' names no encoder"),
        (("--methods", "stnet", "--seeds", "a"), "--seeds a is not a list"),
        (("--methods", "stnet", "--target", "log"), "unknown target 'log'"),
        (("--methods", "stnet", "--split", "lozo"), "unknown split 'lozo'"),
        (("--methods", "stnet", "--folds", "3"), "--folds 3 needs --split kfold"),
        (("--methods", "stnet", "--slices", "A1,A1"), "names something twice"),
        (("--methods", "stnet", "--engine", "cloud"), "unknown engine 'cloud'"),
    ],
)
def test_arguments_are_told_before_missing_data(
    words: tuple[str, ...], message: str, tmp_path: Path, stbench_command: Callable, no_weights: list[object]
) -> None:
    done = stbench_command("run", *words, "--dataset", "alex10x", "--data", tmp_path)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert not no_weights


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--slices", "P1a"), "leave-one-slice-out needs two slices, there is 1 (P1a)"),
        (("--slices", "P1a,P1b", "--split", "lopo"), "leave-one-patient-out needs two patients"),
        (("--split", "kfold", "--folds", "7"), "k-fold with k = 7 needs 7 slices, there are 6"),
        (("--slices", "P9z"), "unknown slice of demo 'P9z'"),
    ],
)
@pytest.mark.parametrize("command", [("run", "--methods", "stnet"), ("ablate", "stnet")])
def test_too_few_slices_are_told_before_anything_is_prepared_or_any_weights_are_looked_for(
    command: tuple[str, ...],
    words: tuple[str, ...],
    message: str,
    stbench_command: Callable,
    no_weights: list[object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stbench.data.prepare.prepare", lambda *_, **__: pytest.fail("slices were prepared"))
    done = stbench_command(*command, "--dataset", "demo", *words)
    assert done.code == 2
    assert message in done.err
    assert not no_weights


@pytest.mark.parametrize("what", ["gone", "a folder", "a loop"])
def test_a_file_that_cannot_be_read_is_named_with_its_slice(what: str, tmp_path: Path) -> None:
    path = tmp_path / "image.jpg"
    if what == "a folder":
        path.mkdir()
    elif what == "a loop":
        path.symlink_to(path)
    source = SlideSource("P2_ST_rep1", "P2", lambda: pytest.fail("it was read"), files=(path,))
    with pytest.raises(UserError, match=r"image\.jpg of slice P2_ST_rep1 cannot be read \(.+\) - restore it") as caught:
        require_readable([source])
    assert "\n" not in str(caught.value)


def test_settings_are_told_before_weights_and_weights_all_in_one_go(
    stbench_command: Callable, no_weights: list[object], tmp_path: Path
) -> None:
    wrong = ("run", "--methods", "stnet,bleep", "--set", "bleep.epochs=none", "--dataset", "demo")
    done = stbench_command(*wrong)
    assert "bleep.epochs" in done.err
    assert not no_weights
    right = ("run", "--methods", "stnet,bleep,feature_ridge,feature_knn,training_mean", "--dataset", "demo")
    stbench_command(*right, "--dry-run")
    (once,) = no_weights
    assert once == [
        *[("densenet121", "imagenet"), ("resnet50.a1_in1k", "imagenet")],
        *[("densenet121", "random"), ("densenet121", "random")],
    ]


def test_a_start_reads_every_file_once(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import upstream

    upstream.write_cscc(tmp_path / "data")
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "SETTLED_S", -1.0)
    slices = ("--slices", "P2_ST_rep1,P5_ST_rep1")
    command = ("run", "--methods", "training_mean,position_knn", "--dataset", "cscc", "--data", tmp_path / "data")
    assert stbench_command("data", "prepare", "cscc", *slices, "--data", tmp_path / "data").code == 0
    files._digests.clear()
    read: Counter[str] = Counter()
    hashed = files.hashlib.file_digest

    def counting(handle: Any, digest: Any) -> Any:
        read[handle.name if isinstance(handle.name, str) else str(handle.name)] += 1
        return hashed(handle, digest)

    monkeypatch.setattr(files.hashlib, "file_digest", counting)
    assert stbench_command(*command, *slices, "--out", tmp_path / "r", "--no-mlflow").code == 0
    assert sum("patches.npy" in name for name in read) == 2
    assert sum(str(tmp_path / "data") in name for name in read) >= 6
    assert set(read.values()) == {1}


class Counted:
    """A method that counts how often it is made and how often its weights are described."""

    name, title, kind, Config, presets = "counted", "Counted", "method", MethodConfig, {"quick": {}}
    needs = Needs()
    made: ClassVar[list[str]] = []

    def __init__(self, config: Any) -> None:
        self.made.append("made")

    @property
    def weights_label(self) -> str:
        self.made.append("described")
        return "none"


def test_a_plan_describes_each_choice_once_however_many_trials_it_has(tmp_path: Path) -> None:
    data = prepare(registry.dataset("demo"), "spot-log10-cp10k", Path(os.environ["STBENCH_CACHE"]))
    keys = {name: slide.key for name, slide in data.slides.items()}
    spec = DataSpec("demo", data.name, None, os.environ["STBENCH_CACHE"], data.target.name, keys)
    method: Any = Counted
    choice = MethodChoice("counted", method, "published", {}, configure(method))
    reusing = MethodChoice("counted", method, "published", {"k": 1}, configure(method), trained_by=choice)
    Counted.made.clear()
    experiment = Experiment(data, spec, [choice, reusing], "loso", loso(data.patients), [0, 1])
    planned = plan(experiment, Execution(tmp_path, "command"))
    assert len(planned) == experiment.n_trials == 2 * 2 * len(data.slides)
    assert Counter(Counted.made) == {"made": 2, "described": 2}
    specs = [TrialSpec.read(tmp_path / "specs" / f"{key}.json") for key in planned]
    assert {one.trained_by for one in specs} - {""} == {one.key for one in specs if not one.trained_by}


def test_what_was_changed_is_planned_as_data_and_said_in_words() -> None:
    first, second = choose_methods("stnet", "published", "demo", ["stnet.epochs=3"], "random", "resnet18,resnet34")
    assert first.changes == {"epochs": 3, "encoder": "resnet18"}
    assert first.variant == "epochs=3, encoder=resnet18"
    assert second.changes == {"epochs": 3, "encoder": "resnet34"}
