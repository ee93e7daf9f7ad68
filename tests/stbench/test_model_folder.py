"""A model folder says what its model is, can be copied anywhere, and is read whole or refused in one line."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from stbench import NUMBERS, __version__
from stbench.cli import main
from stbench.errors import DamagedFileError, MethodFailed, UserError
from stbench.models.folder import ModelFacts, read_model, write_model
from stbench.trials.spec import TrialSpec
from stbench.trials.trained import as_in_its_trial
from stbench.trials.work import open_data

PROBE = Path(__file__).parent / "probe_method.py"
COMMAND = ("run", "--dataset", "demo", "--slices", "P1a,P1b", "--no-mlflow", "--save-models")


def run(*words: object) -> None:
    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two trials of a method in a file that is not where it was, as on another machine."""
    os.environ["STBENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "stbench-cache")
    place = tmp_path_factory.mktemp("made")
    method = Path(shutil.copy(PROBE, place / "probe_method.py"))
    run(*COMMAND, "--methods", f"{method}:Probe", "--out", place / "r")
    return place / "r"


@pytest.fixture
def trial(made: Path, tmp_path: Path) -> Path:
    """The trial that tested P1a, in a folder that is the test's own."""
    key = pd.read_csv(made / "summary.csv").set_index("slice")["key"]["P1a"]
    return Path(shutil.copytree(made / "trials" / key, tmp_path / "t"))


def test_it_says_what_the_model_is(trial: Path) -> None:
    spec = TrialSpec.read(trial / "spec.json")
    data = open_data(spec.data)
    facts = read_model(trial).facts
    assert (facts.key, facts.method, facts.origin, facts.name) == (spec.key, spec.method, spec.origin, "probe")
    assert (facts.dataset, facts.split, facts.fold, facts.seed) == ("demo", "loso", "P1a", 0)
    assert (facts.train, facts.test, facts.patients) == (("P1b",), ("P1a",), {"P1a": "P1", "P1b": "P1"})
    assert facts.genes == data.genes
    assert (facts.target, facts.formula) == (data.target.name, data.target.formula)
    assert (facts.patch_px, facts.patch_um, facts.precision) == (data.patch_px, None, "fp32")
    assert (facts.leak, facts.oracle, facts.same_patient) == ("", False, False)
    assert (facts.stbench, facts.numbers) == (__version__, NUMBERS)
    scores = pd.read_csv(trial / "metrics.csv").iloc[0]
    for name in ("pcc_acg", "pcc_heg", "mse", "mae"):
        assert facts.scores["P1a"][name] == pytest.approx(scores[name], rel=1e-12)
    slide = data.slides["P1b"]
    of_slide = facts.slides["P1b"]
    assert (of_slide.n_spots, of_slide.um_per_px, of_slide.image_level) == (slide.n_spots, slide.um_per_px, "full")
    assert of_slide.window_px == data.patch_px
    colours = slide.patches.mean(axis=(1, 2), dtype=np.float64)
    assert of_slide.mean_rgb == pytest.approx(colours.mean(axis=0), abs=1e-3)
    assert of_slide.std_rgb == pytest.approx(colours.std(axis=0), abs=1e-3)


def test_a_copy_elsewhere_predicts_what_the_trial_did(trial: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copytree(trial / "model", tmp_path / "elsewhere"))
    spec = TrialSpec.read(trial / "spec.json")
    predicted = anndata.read_h5ad(trial / "predictions" / "P1a.h5ad").X
    shutil.rmtree(trial)
    model = read_model(copied, "auto")
    assert (model.directory, model.notices) == (copied, ())
    said: list[str] = []
    again = as_in_its_trial(model, said.append).predict(open_data(spec.data).slides["P1a"].for_test())
    np.testing.assert_array_equal(again, predicted)
    assert said == []


def changed(trial: Path, **fields: object) -> None:
    path = trial / "model" / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_code_or_numbers_that_changed_are_a_notice(trial: Path) -> None:
    changed(trial, method_source="another", numbers=NUMBERS - 1, stbench="0.0.1")
    code, numbers = read_model(trial).notices
    assert code.startswith("the code of probe changed since model probe P1a seed 0 was trained")
    assert "was trained by stbench 0.0.1" in numbers


def test_another_format_says_who_reads_it(trial: Path) -> None:
    changed(trial, format=2, stbench="9.1", invented=1)
    with pytest.raises(UserError, match=r"is of format 2, and this stbench reads 1 - .* that wrote it \(9\.1\), or"):
        read_model(trial)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [({"seed": "many"}, "seed: "), ({"invented": 1}, "invented: "), ({"slides": {"P1b": {}}}, r"slides.P1b.n_spots: ")],
)
def test_facts_that_are_none_are_one_line(trial: Path, fields: dict[str, object], problem: str) -> None:
    changed(trial, **fields)
    with pytest.raises(
        DamagedFileError, match=rf"model\.json was changed \({problem}.* - restore it, or train"
    ) as raised:
        read_model(trial)
    assert "\n" not in str(raised.value)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "cut or changed": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "changed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
}


@pytest.mark.parametrize("said", DAMAGES)
@pytest.mark.parametrize("name", ["mean.npy", "config.json"])
def test_a_damaged_file_is_named(trial: Path, name: str, said: str) -> None:
    DAMAGES[said](trial / "model" / name)
    with pytest.raises(DamagedFileError, match=rf"model/{name} is .*{said} - restore it, or train the model again"):
        read_model(trial)


def test_what_a_method_cannot_load_is_one_line(trial: Path) -> None:
    (trial / "model" / "mean.npy").write_bytes(b"no array")
    files = json.loads((trial / "model" / "model.json").read_text())["files"]
    del files["mean.npy"]
    changed(trial, files=files)
    with pytest.raises(DamagedFileError, match=r"model cannot be loaded \(.*\) - restore it, or train the model again"):
        read_model(trial)


def test_a_method_that_is_not_here_is_named(trial: Path) -> None:
    changed(trial, method="gone.py:Probe", origin="/gone/gone.py:Probe")
    with pytest.raises(UserError, match=r"the method of .*model is not here: there is no file /gone/gone.py"):
        read_model(trial)


def test_it_is_said_what_a_folder_without_a_model_is(made: Path, trial: Path, tmp_path: Path) -> None:
    cases = {
        tmp_path / "nowhere": "there is no folder",
        tmp_path: "is no model folder: it has no model.json",
        made: "is a results directory - give the model of one of its trials",
    }
    for place, said in cases.items():
        with pytest.raises(UserError, match=said):
            read_model(place)
    (trial / "model" / "model.json").unlink()
    for place in (trial, trial / "model"):
        with pytest.raises(UserError, match=r"keeps a model without model.json, .* again with --save-models"):
            read_model(place)
    shutil.rmtree(trial / "model")
    with pytest.raises(UserError, match=r"is a trial that kept no model - .* again with --save-models"):
        read_model(trial)


def test_whoever_may_read_the_facts_may_read_the_model(trial: Path, tmp_path: Path) -> None:
    class Secretive:
        def save(self, directory: Path) -> None:
            (directory / "weights").touch(mode=0o600)

    write_model(tmp_path, read_model(trial).facts, Secretive())  # type: ignore[arg-type]
    assert (tmp_path / "weights").stat().st_mode == (tmp_path / "model.json").stat().st_mode


def test_a_method_may_not_take_the_name_of_the_facts(trial: Path, tmp_path: Path) -> None:
    class Taker:
        def save(self, directory: Path) -> None:
            (directory / "model.json").write_text("{}")

    facts: ModelFacts = read_model(trial).facts
    with pytest.raises(MethodFailed, match=r"saved a file model\.json, which the harness writes"):
        write_model(tmp_path, facts, Taker())  # type: ignore[arg-type]
