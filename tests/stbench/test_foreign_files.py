"""What a method's TOML file may say, what is refused, and the command lines that environments become."""

from __future__ import annotations

import os
from pathlib import Path

import foreign_toml
import pytest
import upstream

from stbench import registry
from stbench.errors import UserError
from stbench.foreign.definition import Environment, read_definition
from stbench.foreign.environment import Wanted, launch
from stbench.foreign.method import open_method
from stbench.foreign.settings import config_of
from stbench.method import configure
from stbench.trials import cost_table

PLAIN = """name = "mine"
title = "Mine"
train = "python train.sh {task}"
predict = ["python", "-m", "mine", "{task}"]
[environment]
python = "python3"
"""


def written(folder: Path, text: str = PLAIN, **changes: str) -> Path:
    for old, new in changes.items():
        lines = [f"{old} = {new}" if line.startswith(f"{old} = ") else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    return upstream.write_text(folder / "mine.toml", text)


@pytest.mark.parametrize(
    ("changes", "more", "message"),
    [
        ({"name": '"Mine"'}, "", "name: String should match pattern"),
        ({"train": '"python {tsak}"'}, "", r"train has {tsak}, which is none of here, task, model, checkpoint"),
        (
            {"predict": '"python {checkpoint}"'},
            "",
            "predict has {checkpoint}, which is none of here, task, model, ",
        ),
        ({"train": '""'}, "", "train is empty - give a command"),
        ({}, 'conda = "x"\n', "environment: give one of python, conda, apptainer, docker, not python and conda"),
        ({}, 'options = ["-v"]\n', "environment: options are for conda, apptainer and docker"),
        ({}, 'strange = "x"\n', "environment.strange: Extra inputs are not permitted"),
        ({}, "[settings]\ntask = 3\n", "the setting 'task' has the name of a place that every command knows - rename"),
        ({}, "[settings]\ncopy = 3\n", "settings.copy cannot be the name of a setting"),
        ({}, "[settings]\nrate = {}\n", "settings.rate has no default"),
        (
            {},
            "[settings]\nrate = {default = 1, least = 0}\n",
            "rate has least - a setting has choices, default",
        ),
        ({}, "[settings]\nrate = {default = 1, minimum = 2}\n", "rate: its default is not one of its own values"),
        ({}, "[settings]\nrate = 1979-05-27\n", "settings.rate is .* - a setting is a number, a text, true or false"),
        ({}, "[cost]\nminutes = 0\n", "cost.minutes: Input should be greater than 0"),
        ({"python": '"no/such/python"'}, "", "environment.python: .*/no/such/python is not there"),
        ({"python": '"./"'}, "", "is a folder - give the interpreter in it"),
        ({"python": '"no_such_python"'}, "", "there is no program no_such_python on PATH"),
        ({"train": '"python {here}/gone.py"'}, "", "a command names .*/gone.py, which is not there"),
        ({"train": '"python mine.toml"'}, "", "a command names mine.toml, and runs in a folder of its trial's own"),
        ({"title": '"Mine"\nexchange = 2'}, "", "is written for version 2 of the exchange folder, this is 1"),
        ({"title": '"Mine"\nfiles = ["$NOWHERE/x"]'}, "", r"no file or folder .* \(the environment variable NOWHERE"),
        ({"title": "Mine"}, "", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    tmp_path: Path, changes: dict[str, str], more: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOWHERE", raising=False)
    path = written(tmp_path, PLAIN + more, **changes)
    with pytest.raises(UserError, match=message) as caught:
        open_method(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_have_the_types_of_their_defaults(tmp_path: Path) -> None:
    more = """
[settings]
epochs = 90
rate = 1e-4
flip = true
sizes = [1, 2]
model_kind = {default = "small", choices = ["small", "large"], help = "of the network"}
[presets.quick]
epochs = 2
"""
    method = open_method(written(tmp_path, PLAIN + more))
    config = configure(method, "quick", changes={"rate": 1, "sizes": [3]})
    assert config.model_dump() == {"epochs": 2, "rate": 1.0, "flip": True, "sizes": (3,), "model_kind": "small"}
    assert method.Config.model_fields["model_kind"].description == "of the network"
    for changes in ({"epochs": "many"}, {"model_kind": "huge"}, {"sizes": ["x"]}, {"flip": 3}):
        with pytest.raises(UserError, match=r"mine\.\w+"):
            configure(method, "quick", changes=changes)
    assert config_of("m", {}, "x")().model_dump() == {}


def test_its_class_is_found_by_the_registry_and_follows_its_code(tmp_path: Path) -> None:
    path = foreign_toml.colour_line(tmp_path)
    method = registry.method(str(path))
    assert registry.expand_methods(f"training_mean,{path}") == ["training_mean", str(path)]
    assert registry.origin(os.path.relpath(path)) == str(path.resolve())
    assert registry.method(str(path)) is method
    first = registry.source_digest(method)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"Colour line"', '"A line"') + "[cost]\nminutes = 3\n", encoding="utf-8")
    renamed = registry.method(str(path))
    assert renamed.title == "A line"
    assert registry.source_digest(renamed) == first  # neither title nor cost move a number
    (tmp_path / "unnamed.py").write_text("x = 1\n", encoding="utf-8")
    assert registry.source_digest(registry.method(str(path))) == first
    for name in ("colour_line.py", "train.py"):  # named by `files`, and by a command
        with open(tmp_path / name, "a", encoding="utf-8") as handle:
            handle.write("x = 1\n")
        changed = registry.source_digest(registry.method(str(path)))
        assert changed != first
        first = changed
    with pytest.raises(UserError, match=r"there is no file no/such\.toml"):
        registry.method("no/such.toml")


def test_of_a_clone_its_code_counts_and_not_its_data(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    for name in ("model.py", ".git/config.py", "data/counts.csv", "lib/conf.yaml"):
        upstream.write_text(clone / name, "x")
    path = written(tmp_path, title='"Mine"\nfiles = ["clone"]')
    first = open_method(path).code_digest
    for name, counts in ((".git/config.py", False), ("data/counts.csv", False), ("lib/conf.yaml", True)):
        upstream.write_text(clone / name, "y")
        assert (open_method(path).code_digest != first) is counts, name


def test_what_it_costs_is_what_its_file_says_until_it_was_measured(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN + "[cost]\nminutes = 40\nmemory_gib = 12\n")
    rate = cost_table.rate("mine", "published", str(path))
    assert (rate.fit_s, rate.memory_mib) == (2400, 12 * 1024)
    assert rate.gpu_memory_mib == cost_table.UNKNOWN.gpu_memory_mib
    assert cost_table.rate("mine", "published", str(tmp_path / "gone.toml")) == cost_table.UNKNOWN


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on PATH with everything that starts environments."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("conda", "micromamba", "apptainer", "docker"):
        program = upstream.write_text(folder / name, "#!/bin/sh\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.delenv("CONDA_EXE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setenv("PYTHONPATH", "/ours")
    return folder


def wanted(gpu: bool = False) -> Wanted:
    return Wanted(
        ["python", "/here/train.py", "a b"], Path("/work"), (Path("/task"), Path("/work")), (Path("/clone"),),
        {"OMP_NUM_THREADS": "2"}, gpu, "stbench-token",
    )  # fmt: skip


def test_an_interpreter_is_put_in_the_place_of_python(tmp_path: Path, programs: Path) -> None:
    python = upstream.write_text(tmp_path / "env/bin/python", "")
    python.chmod(0o755)
    started = launch(Environment(python="env/bin/python", variables={"A": "b"}), tmp_path, wanted())
    assert started.words == (str(python), "/here/train.py", "a b")
    assert started.variables["PATH"].startswith(f"{python.parent}:{programs}")
    assert started.variables["A"] == "b"
    assert started.variables["OMP_NUM_THREADS"] == "2"
    assert "PYTHONPATH" not in started.variables
    assert started.end == ()


def test_a_conda_environment_is_named_or_is_a_folder(tmp_path: Path, programs: Path) -> None:
    run = (str(programs / "conda"), "run", "--no-capture-output")
    words = tuple(wanted().words)
    assert launch(Environment(conda="tf2"), tmp_path, wanted()).words == (*run, "--name", "tf2", *words)
    by_folder = launch(Environment(conda="./env"), tmp_path, wanted()).words
    assert by_folder == (*run, "--prefix", str(tmp_path / "env"), *words)
    (programs / "conda").unlink()
    micromamba = launch(Environment(conda="tf2"), tmp_path, wanted()).words
    assert micromamba == (str(programs / "micromamba"), "run", "--name", "tf2", *words)


def test_apptainer_sees_the_exchange_and_the_code_and_nothing_else(tmp_path: Path, programs: Path) -> None:
    image = upstream.write_text(tmp_path / "m.sif", "")
    weights = tmp_path / "weights"
    weights.mkdir()
    environment = Environment(apptainer="m.sif", variables={"A": "b"}, options=("--no-home",), binds=("weights",))
    started = launch(environment, tmp_path, wanted(gpu=True))
    assert started.words == (
        str(programs / "apptainer"), "exec", "--cleanenv", "--nv", "--pwd", "/work",
        "--bind", f"{tmp_path}:{tmp_path}:ro", "--bind", f"{weights}:{weights}:ro", "--bind", "/clone:/clone:ro",
        "--bind", "/task:/task:rw", "--bind", "/work:/work:rw",
        "--env", "CUDA_VISIBLE_DEVICES=1", "--env", "OMP_WAIT_POLICY=PASSIVE",
        "--env", "A=b", "--env", "OMP_NUM_THREADS=2",
        "--no-home", str(image), *wanted().words,
    )  # fmt: skip
    assert "--nv" not in launch(environment, tmp_path, wanted()).words
    hub = launch(Environment(apptainer="docker://me/m:1"), tmp_path, wanted()).words
    assert hub[-4] == "docker://me/m:1"
    with pytest.raises(UserError, match=r"there is no image .*gone\.sif - give a file or docker://NAME"):
        launch(Environment(apptainer="gone.sif"), tmp_path, wanted())


def test_a_docker_container_is_the_users_and_is_ended_by_name(tmp_path: Path, programs: Path) -> None:
    started = launch(Environment(docker="me/m:1", options=("--network", "none")), tmp_path, wanted(gpu=True))
    docker = str(programs / "docker")
    assert started.words == (
        docker, "run", "--rm", "--init", "--name", "stbench-token", "--user", f"{os.getuid()}:{os.getgid()}",
        "--ipc", "host", "--gpus", "all", "--workdir", "/work",
        "--mount", f"type=bind,source={tmp_path},target={tmp_path},readonly",
        "--mount", "type=bind,source=/clone,target=/clone,readonly",
        "--mount", "type=bind,source=/task,target=/task", "--mount", "type=bind,source=/work,target=/work",
        "--env", "HOME=/work", "--env", "CUDA_VISIBLE_DEVICES=1", "--env", "OMP_WAIT_POLICY=PASSIVE",
        "--env", "OMP_NUM_THREADS=2",
        "--network", "none", "me/m:1", *wanted().words,
    )  # fmt: skip
    assert started.end == (docker, "rm", "--force", "stbench-token")
    (programs / "docker").unlink()
    with pytest.raises(UserError, match=r"environment\.docker: this machine has no docker on PATH"):
        launch(Environment(docker="me/m:1"), tmp_path, wanted())


def test_a_command_is_a_text_or_a_list_of_words(tmp_path: Path) -> None:
    assert read_definition(written(tmp_path)).predict == ("python", "-m", "mine", "{task}")
