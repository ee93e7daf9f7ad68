"""``stbench new``: what it writes works and is clean; a name that cannot be is refused, and nothing is written."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PathDistribution
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from stbench import registry
from stbench.errors import UserError
from stbench.method_checks import run_checks
from stbench.scaffolding.names import LONGEST_NAME, LONGEST_TITLE, class_name
from stbench.scaffolding.package import dataset_package, method_package, write_package

VARIANTS: dict[str, Callable[..., dict[str, str]]] = {
    "torch": lambda *names: method_package(*names, library="torch"),
    "numpy": lambda *names: method_package(*names, library="numpy"),
    "dataset": dataset_package,
}


@pytest.mark.parametrize(
    ("name", "title"), [("ab", "A"), ("a" * LONGEST_NAME, "µ & <b> {x} %s " + "t" * (LONGEST_TITLE - 15))]
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_written_is_clean_and_formatted(variant: str, name: str, title: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    write_package(VARIANTS[variant](name, title), folder)
    for words in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *words, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    text = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file())
    assert title in text
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_the_method_passes_the_battery(library: str, tmp_path: Path) -> None:
    write_package(VARIANTS[library]("mymethod"), tmp_path / "mymethod")
    method = registry.method(f"{tmp_path}/mymethod/src/mymethod/method.py:Mymethod")
    assert (method.name, method.title) == ("mymethod", "Mymethod")
    assert {result.name: result.message for result in run_checks(method) if not result.passed} == {}


def test_the_dataset_passes_its_own_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new_cohort"
    write_package(dataset_package("new_cohort"), folder)
    registered = folder / "src" / "new_cohort-0.1.0.dist-info"  # as installing it would write
    registered.mkdir()
    (registered / "METADATA").write_text("Metadata-Version: 2.1\nName: new-cohort\nVersion: 0.1.0\n", encoding="utf-8")
    entry = "[stbench.datasets]\nnew_cohort = new_cohort.dataset:NewCohort\n"
    assert 'new_cohort = "new_cohort.dataset:NewCohort"' in (folder / "pyproject.toml").read_text(encoding="utf-8")
    (registered / "entry_points.txt").write_text(entry, encoding="utf-8")
    assert PathDistribution(registered).name == "new-cohort"
    monkeypatch.syspath_prepend(folder / "src")
    tests = _module(folder / "tests" / "test_dataset.py")
    data = tmp_path / "data"
    (data / "new_cohort").mkdir(parents=True)
    dataset = registry.dataset("new_cohort", data)
    tests.test_it_says_what_it_is()
    tests.test_without_files_every_slice_is_missing_with_its_reason(data)
    for slice_id in dataset.slices:
        tests.write_slice(data / "new_cohort", slice_id, dataset.panel(), np.random.default_rng(0))
    tests.test_every_slice_is_found_and_sound(data)
    tests.test_it_can_be_prepared(data, tmp_path / "cache")
    (data / "new_cohort" / "S2.jpg").unlink()
    present, missing = dataset.find()
    assert [source.id for source in present] == ["S1", "S3"]
    assert [gap.reason for gap in missing] == [f"looked for {data}/new_cohort/S2.jpg"]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("method", "My-Method", "e.g. my_method"),
        ("method", "a__b", "single underscores"),
        ("method", "2d", "the first a letter"),
        ("method", "", "cannot be a method's name"),
        ("method", "é", "lower-case letters"),
        ("method", "../x", "e.g. x"),
        ("dataset", "a" * (LONGEST_NAME + 1), f"at most {LONGEST_NAME}"),
        ("method", "stnet", "there is a method 'stnet' already"),
        ("method", "controls", "stands for several methods (--methods controls)"),
        ("dataset", "demo", "there is a dataset 'demo' already"),
        ("dataset", "mine", "there is a dataset 'mine' already"),
        ("method", "lambda", "keyword"),
        ("dataset", "json", "standard library"),
        ("method", "numpy", "a package 'numpy' is installed already"),
        ("method", "scikit_learn", "a package 'scikit_learn' is installed already"),
        ("method", "torch_method", "would be called TorchMethod"),
        ("dataset", "path", "would be called Path"),
        ("method", "taken", "exists already"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_one_line(
    kind: str, name: str, reason: str, tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "cohorts" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "cohorts" / "mine" / "cohort.toml").touch()
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path / "data"))
    out = tmp_path / "out"
    (out / "taken").mkdir(parents=True)
    done = stbench_command("new", kind, name, "--out", out)
    assert done.code == 2
    assert reason in done.err
    assert done.err.count("\n") == 1
    assert list(out.rglob("*")) == [out / "taken"]


@pytest.mark.parametrize("title", ["", " x", 'a "b"', "it's", "a\\b", "a\nb", "x" * (LONGEST_TITLE + 1)])
def test_a_title_that_cannot_be_is_refused(title: str) -> None:
    with pytest.raises(UserError, match="--title"):
        method_package("mymethod", title)


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    files = {"a": "text", "b": "text", "c": "\udcff"}  # which UTF-8 cannot hold
    with pytest.raises(UnicodeEncodeError):
        write_package(files, tmp_path / "mymethod")
    assert list(tmp_path.iterdir()) == []


def test_what_was_written_and_what_comes_next_are_said(tmp_path: Path, stbench_command: Callable) -> None:
    done = stbench_command("new", "method", "two_words", "--numpy", "--out", tmp_path / "in" / "here")
    assert (done.code, done.err) == (0, "")
    folder = tmp_path / "in" / "here" / "two_words"
    assert f"pip install -e '{folder}[dev]'" in done.out
    assert "stbench methods check two_words" in done.out
    assert (folder / "src" / "two_words" / "method.py").is_file()
    done = stbench_command("new", "dataset", "other_words", "--out", tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "stbench data check other_words" in done.out


def test_names_of_classes() -> None:
    assert class_name("my_2nd_method") == "My2ndMethod"
