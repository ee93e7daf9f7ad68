"""Whatever a method changes in the process is put back after the call, and said."""

from __future__ import annotations

import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import threadpoolctl
import torch

from stbench.system.isolation import process_kept
from stbench.system.process_state import WATCHED

logging.getLogger("stbench")  # as there is one in every run

# What somebody's code may do, by the words under which it is named
CHANGES: dict[str, list[Callable[[], object]]] = {
    "Python's global random generator": [lambda: random.seed(3), random.random],
    "numpy's global random generator": [lambda: np.random.seed(3), np.random.rand],  # noqa: NPY002
    "torch's global random generator": [lambda: torch.manual_seed(3), lambda: torch.rand(2)],
    "the working folder": [lambda: os.chdir("/")],
    "environment variables": [
        lambda: os.environ.update(CUDA_VISIBLE_DEVICES=""),
        lambda: os.environ.pop("PATH"),
        lambda: os.environ.clear(),
    ],
    "the umask": [lambda: os.umask(0o077)],
    "signal handlers": [
        lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        lambda: signal.signal(signal.SIGTERM, lambda *_: None),
        lambda: signal.signal(signal.SIGHUP, lambda *_: None),
    ],
    "the alarm clock": [lambda: signal.alarm(1000)],
    "warning filters": [
        lambda: warnings.simplefilter("error"),
        lambda: warnings.filterwarnings("ignore"),
        lambda: warnings.filterwarnings("error", message="one of many"),
    ],
    "how warnings are shown": [lambda: logging.captureWarnings(True)],
    "logging": [
        lambda: logging.getLogger().setLevel(logging.DEBUG),
        lambda: logging.getLogger().addHandler(logging.NullHandler()),
        lambda: logging.disable(logging.CRITICAL),
        lambda: setattr(logging.getLogger("stbench"), "disabled", True),
        lambda: logging.getLogger("stbench").addFilter(lambda record: False),
    ],
    "sys.path": [lambda: sys.path.insert(0, "/elsewhere"), sys.path.clear],
    "standard streams or hooks for errors": [
        lambda: setattr(sys, "stdout", open(os.devnull, "w")),  # noqa: SIM115
        lambda: setattr(sys, "excepthook", lambda *_: None),
    ],
    "the locale": [lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8")],
    "the recursion limit": [lambda: sys.setrecursionlimit(4321)],
    "garbage collection": [lambda: __import__("gc").disable()],
    "the fault handler": [lambda: __import__("faulthandler").disable()],
    "how processes are started": [lambda: multiprocessing.set_start_method("spawn", force=True)],
    "the cores that may be used": [lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})],
    "numpy's treatment of floating-point errors": [lambda: np.seterr(all="raise")],
    "numpy's handler of floating-point errors": [lambda: np.seterrcall(lambda *_: None)],
    "numpy's print options": [lambda: np.set_printoptions(precision=2)],
    "pandas options": [lambda: pd.set_option("mode.chained_assignment", None)],
    "threads of BLAS": [lambda: threadpoolctl.threadpool_limits(64)],
    "torch's default device": [lambda: torch.set_default_device("meta"), lambda: torch.set_default_device("cuda:7")],
    "torch's default dtype": [
        lambda: torch.set_default_dtype(torch.float64),
        lambda: torch.set_default_tensor_type(torch.HalfTensor),
    ],
    "torch's inference mode": [lambda: GUARDS.append(torch.inference_mode()) or GUARDS[-1].__enter__()],
    "torch's gradients": [lambda: torch.set_grad_enabled(False), lambda: torch.no_grad().__enter__()],
    "torch's autocast": [
        lambda: torch.autocast("cpu", torch.bfloat16).__enter__(),
        lambda: torch.set_autocast_dtype("cpu", torch.float16),
    ],
    "torch's deterministic algorithms": [lambda: torch.use_deterministic_algorithms(True, warn_only=True)],
    "torch's switches": [
        lambda: setattr(torch.backends.cudnn, "benchmark", True),
        lambda: setattr(torch.backends.cudnn, "enabled", False),
        lambda: setattr(torch.backends.mkldnn, "enabled", False),
        lambda: setattr(torch.utils.deterministic, "fill_uninitialized_memory", False),
    ],
    "torch's float32 precision": [
        lambda: torch.set_float32_matmul_precision("medium"),
        lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", True),
        lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
        lambda: setattr(torch.backends, "fp32_precision", "tf32"),
        lambda: setattr(torch.backends.mkldnn.matmul, "fp32_precision", "bf16"),
    ],
    "torch's number of threads": [lambda: torch.set_num_threads(torch.get_num_threads() + 1)],
    "torch's anomaly mode": [lambda: torch.autograd.set_detect_anomaly(True)],
    "torch's flushing of denormal numbers": [lambda: torch.set_flush_denormal(True)],
    "torch's hooks on all networks": [
        lambda: torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 2)
    ],
}
GUARDS: list[torch.inference_mode] = []
CASES = [(words, change) for words, changes in CHANGES.items() for change in changes]


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("ignore:torch.set_default_tensor_type")
@pytest.mark.parametrize(("words", "change"), CASES, ids=[f"{words}-{i}" for i, (words, _) in enumerate(CASES)])
def test_a_change_is_named_and_put_back(words: str, change: Callable[[], object]) -> None:
    (watched,) = (one for one in WATCHED if one.words == words)
    before = watched.read()
    said: list[str] = []
    with process_kept(said.extend):
        change()
        assert watched.state() != before
    assert watched.change(before, watched.read()) == ""
    assert any(one.startswith(words) for one in said), said
    assert not any("could not be put back" in one for one in said), said
    left: list[str] = []
    with process_kept(left.extend):
        pass
    assert left == []


def test_everything_that_is_watched_is_tried_here() -> None:
    never_blamed = {"torch's generators on the GPU"}
    assert {watched.words for watched in WATCHED} - never_blamed == set(CHANGES)


def test_weights_cast_in_an_autocast_that_was_never_left_are_forgotten() -> None:
    layer, x = torch.nn.Linear(4, 4), torch.ones(1, 4)
    with process_kept():
        torch.autocast("cpu", torch.bfloat16).__enter__()
        layer(x)
    with torch.no_grad():
        layer.weight.add_(1)
    with torch.autocast("cpu", torch.bfloat16):
        half = layer(x).float()
    torch.testing.assert_close(half, layer(x), atol=0.1, rtol=0)


def test_everything_that_is_changed_at_once_is_put_back_and_named() -> None:
    said: list[str] = []
    before = {watched: watched.read() for watched in WATCHED}
    with process_kept(said.extend):
        for changes in CHANGES.values():
            changes[0]()
    assert [words for watched, state in before.items() if (words := watched.change(state, watched.read()))] == []
    named = {words for words in CHANGES if any(one.startswith(words) for one in said)}
    assert set(CHANGES) - named <= {"torch's gradients"}  # leaving inference mode turns them on again


def test_it_is_put_back_whatever_is_raised() -> None:
    said: list[str] = []

    def change_and_raise(error: type[BaseException]) -> None:
        torch.set_default_dtype(torch.float64)
        raise error

    for error in (RuntimeError, SystemExit, KeyboardInterrupt, GeneratorExit):
        with pytest.raises(error), process_kept(said.extend):
            change_and_raise(error)
    assert torch.get_default_dtype() == torch.float32
    assert said == ["torch's default dtype (now torch.float64)"] * 4


def test_a_seed_makes_the_global_generators_the_same_whatever_ran_before() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(1))  # noqa: NPY002

    with process_kept(seed=5):
        first = draw()
    draw()
    with process_kept(seed=5):
        again = draw()
    with process_kept(seed=6):
        other = draw()
    assert first == again
    assert not set(first) & set(other)


def test_a_seed_leaves_the_generators_outside_alone_and_blames_nobody() -> None:
    said: list[str] = []
    state = random.getstate()
    with process_kept(said.extend, seed=5):
        pass
    assert random.getstate() == state
    assert said == []


def test_importing_a_library_is_no_offence() -> None:
    """Libraries silence warnings of their own and start loggers of their own."""
    said: list[str] = []
    with warnings.catch_warnings(), process_kept(said.extend):
        warnings.filterwarnings("ignore", message="numpy.dtype size changed")
        warnings.filterwarnings("always", category=DeprecationWarning, module=r"^sklearn\.")
        logging.getLogger("a.new.library").setLevel(logging.ERROR)
        os.environ["CUDA_MODULE_LOADING"] = "LAZY"
        kept = list(warnings.filters)
    os.environ.pop("CUDA_MODULE_LOADING", None)
    assert said == []
    assert kept[0][2] is DeprecationWarning


def test_the_deleted_working_folder_of_a_method_is_left(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with process_kept():
        os.chdir(gone)
        gone.rmdir()
    assert Path.cwd() == tmp_path
