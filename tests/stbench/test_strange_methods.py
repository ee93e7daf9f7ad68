"""What a method of the user's own may do is its own affair: the others run, with the same numbers, and it is named."""

from __future__ import annotations

import html
import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from plugins import plugin

TWO = ("--dataset", "demo", "--slices", "P1a,P1b", "--preset", "quick", "--no-mlflow")
DEMO = ("--dataset", "demo", "--slices", "P1a,P1b,P2a", "--preset", "quick", "--no-mlflow")
SMALL = ("epochs=1", "n_layers=1", "width=32", "heads=2", "input_px=8")
SHORT = [word for change in SMALL for word in ("--set", f"histogene.{change}")]


def _states(results: Path) -> dict[str, set[str]]:
    """Method to the reasons of its trials, or to their state where there is none."""
    summary = pd.read_csv(results / "summary.csv", keep_default_na=False)
    told = summary["reason"].where(summary["reason"] != "", summary["state"])
    return told.groupby(summary["method"]).agg(set).to_dict()


def _predictions(results: Path, method: str) -> dict[str, np.ndarray]:
    summary = pd.read_csv(results / "summary.csv")
    rows = summary[summary["method"] == method]
    assert set(rows["state"]) == {"finished"}, _states(results)
    return {
        name: anndata.read_h5ad(results / "trials" / key / "predictions" / f"{name}.h5ad").X
        for key, name in zip(rows["key"], rows["slice"], strict=True)
    }


ENDS = [
    ("on_fit", "import sys; sys.exit(0)", "it called sys.exit(0)"),
    ("on_fit", "import sys; sys.exit('bad option')", "it called sys.exit('bad option')"),
    ("on_predict", "exit()", "it called sys.exit()"),
    ("on_init", "raise SystemExit", "it called sys.exit()"),
    ("on_needs", "import sys; sys.exit(0)", "it called sys.exit(0)"),
    ("on_fit", "import os; os._exit(0)", "it called os._exit(0)"),
    ("on_fit", "raise KeyboardInterrupt", "it raised KeyboardInterrupt"),
    ("on_predict", "raise GeneratorExit", "it raised GeneratorExit"),
    ("on_fit", "import asyncio; raise asyncio.CancelledError('done')", "it raised CancelledError: done"),
    ("on_init", "raise RuntimeError('no licence')", "RuntimeError: no licence"),
    ("on_label", "raise KeyError('weights')", "KeyError: 'weights'"),
    ("on_needs", "return {'oracle': False}", "its needs are a dict, not a stbench.method.Needs"),
    ("on_label", "return None", "its weights_label is None, not a text such as 'none' or 'random'"),
    ("on_fit", "raise MemoryError", "out of memory - free some or use another device"),
    ("on_fit", "f = lambda: f(); f()", "RecursionError: maximum recursion depth exceeded"),
    ("on_fit", "open('/no/such/file')", "FileNotFoundError: [Errno 2] No such file or directory: '/no/such/file'"),
    ("on_fit", "raise PermissionError(13, 'not yours')", "PermissionError: [Errno 13] not yours"),
    ("on_fit", "raise run.interrupted('later')", "it raised Interrupted in fit though nobody asked it to stop"),
    ("on_fit", "import warnings; warnings.simplefilter('error'); warnings.warn('old')", "UserWarning: old"),
    ("on_fit", "class E(Exception): __str__ = None\n        raise E", "E: (its message cannot be read: TypeError)"),
    ("on_fit", "raise ValueError('one\\n\\x1b[31mtwo')", "ValueError: one [31mtwo"),
    ("on_fit", "raise ValueError('x' * 10000)", "ValueError: " + "x" * 400 + " ..."),
    ("on_fit", "run.log(1, loss=[1, 2])", "TypeError: run.log(loss=...) got [1, 2], not a number"),
    ("on_fit", "self.n_parameters = 'many'", "its n_parameters are 'many', not a number"),
]


def _run_each(
    folder: Path, stbench_command: Callable, strange: Sequence[Mapping[str, str]], expected: Sequence[str]
) -> None:
    """One run of all the strange methods and a control: each fails for its reason, on the terminal and in the table."""
    methods = [plugin(folder / f"m{i}.py", name=f"m{i}", **at) for i, at in enumerate(strange)]
    done = stbench_command("run", "--methods", ",".join([*methods, "training_mean"]), *TWO, "--out", folder / "r")
    assert done.code == 1
    states = _states(folder / "r")
    assert states.pop("training_mean") == {"finished"}
    assert "finished" not in set.union(*states.values())
    summary = pd.read_csv(folder / "r" / "summary.csv", keep_default_na=False)
    reasons = summary[(summary["slice"] == "P1a") & (summary["method"] != "training_mean")].set_index("method")[
        "reason"
    ]
    wanted = {f"m{i}": reason.replace("METHOD", f"m{i}") for i, reason in enumerate(expected)}
    assert {name: told[: len(wanted[name])] for name, told in reasons.items()} == wanted
    printed = "".join(done.err.split())  # a long line is wrapped
    for name, reason in wanted.items():
        assert "".join(f"{name} P1a seed 0: failed - {reason}".split()) in printed


def test_what_a_method_raises_is_its_trials_failure_and_the_others_run(
    tmp_path: Path, stbench_command: Callable
) -> None:
    strange = [{place: statement} for place, statement, _ in ENDS]
    _run_each(tmp_path, stbench_command, strange, [reason for _, _, reason in ENDS])


@pytest.mark.parametrize("statement", ["import sys; sys.exit(0)", "raise KeyError('x')", "import os; os._exit(0)"])
def test_a_file_that_cannot_be_imported_is_one_line_before_anything_runs(
    tmp_path: Path, stbench_command: Callable, statement: str
) -> None:
    mine = plugin(tmp_path / "mine.py", on_import=statement)
    done = stbench_command("run", "--methods", f"{mine},training_mean", *DEMO, "--out", tmp_path / "r")
    assert done.code == 2
    assert done.err.startswith(f"stbench: cannot load {tmp_path / 'mine.py'}: line 4: ")
    assert not (tmp_path / "r").exists()


def test_ctrl_c_is_still_the_users(tmp_path: Path, stbench_command: Callable) -> None:
    """Two interrupts stop at once, whatever the method makes of the first."""
    twice = "import os, signal, time; [(os.kill(os.getpid(), signal.SIGINT), time.sleep(0.01)) for _ in range(2)]"
    mine = plugin(tmp_path / "mine.py", on_fit=twice)
    done = stbench_command("run", "--methods", mine, *DEMO, "--out", tmp_path / "r")
    assert done.code == 130
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


RETURNS = [
    ("prediction.tolist()", "METHOD predicted a list for slice P1a, an array of shape (104, 114) is needed"),
    ("None", "METHOD predicted None for slice P1a, an array of shape (104, 114) is needed"),
    (
        "prediction.T",
        "METHOD predicted an array of shape (114, 104) for slice P1a, an array of shape (104, 114) is needed: spots",
    ),
    ("__import__('pandas').DataFrame(prediction)", "METHOD predicted a DataFrame for slice P1a, an array of shape"),
    (
        "__import__('scipy.sparse').sparse.csr_matrix(prediction)",
        "METHOD predicted a csr_matrix for slice P1a, an array",
    ),
    (
        "prediction.astype(object)",
        "METHOD predicted a numpy array for slice P1a of type object, an array of shape (104, 114)",
    ),
    ("prediction > 0", "METHOD predicted a numpy array for slice P1a of type bool"),
    ("prediction.astype(complex)", "METHOD predicted a numpy array for slice P1a of type complex128"),
    ("np.ma.masked_less(prediction, 1e9)", "METHOD predicted a MaskedArray for slice P1a with masked values"),
    (
        "prediction * np.float64(1e300)",
        "11856 predicted values for slice P1a are NaN or infinite, or too large for float32",
    ),
    ("prediction[:, 0]", "METHOD predicted an array of shape (104,) for slice P1a"),
    ("(row for row in prediction)", "METHOD predicted a generator for slice P1a"),
    ("__import__('torch').zeros(104, 114, device='meta')", "METHOD predicted a Tensor for slice P1a (torch.strided"),
]


def test_a_prediction_that_is_no_array_is_refused_in_words(tmp_path: Path, stbench_command: Callable) -> None:
    strange = [{"on_predict": f"prediction = {value}"} for value, _ in RETURNS]
    _run_each(tmp_path, stbench_command, strange, [reason for _, reason in RETURNS])


CHANGE_EVERYTHING = "; ".join(
    [
        "import os, random, signal, sys, logging, warnings, torch",
        "torch.set_default_dtype(torch.float64)",
        "torch.set_grad_enabled(False)",
        "torch.set_default_device('meta')",
        "torch.use_deterministic_algorithms(True)",
        "torch.set_num_threads(3)",
        "torch.set_flush_denormal(True)",
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.mkldnn.matmul.fp32_precision = 'bf16'",
        "torch.autograd.set_detect_anomaly(True)",
        "torch.autocast('cpu', torch.bfloat16).__enter__()",
        "torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, output: output * 2)",
        "torch.manual_seed(1)",
        "random.seed(1)",
        "np.random.seed(1)",
        "np.seterr(all='raise')",
        "os.chdir('/')",
        "os.environ.clear()",
        "os.umask(0o777)",
        "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "signal.alarm(1000)",
        "warnings.simplefilter('error')",
        "logging.disable(logging.CRITICAL)",
        "logging.getLogger('stbench').handlers.clear()",
        "sys.path.clear()",
        "sys.setrecursionlimit(200)",
        "sys.stdout = sys.stderr = open(os.devnull, 'w')",
    ]
)


@pytest.mark.parametrize(
    "place", ["on_fit", *(pytest.param(place, marks=pytest.mark.slow) for place in ("on_init", "on_predict"))]
)
def test_numbers_do_not_depend_on_what_ran_before(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """A method that changes all it can, in front of a control and a torch method, with a relative ``--out``."""
    monkeypatch.chdir(tmp_path)
    others = "colour_ridge,histogene"
    alone = stbench_command("run", "--methods", others, *DEMO, *SHORT, "--out", "alone")
    assert alone.code == 0, alone.err
    vandal = plugin(tmp_path / "mine.py", **{place: CHANGE_EVERYTHING})
    after = stbench_command("run", "--methods", f"{vandal},{others}", *DEMO, *SHORT, "--out", "after")
    assert Path.cwd() == tmp_path
    assert torch.get_default_dtype() == torch.float32
    assert "PATH" in os.environ
    for method in others.split(","):
        assert _states(tmp_path / "after")[method] == {"finished"}, after.err
        without, with_vandal = (_predictions(tmp_path / place, method) for place in ("alone", "after"))
        for name in without:
            np.testing.assert_array_equal(with_vandal[name], without[name], err_msg=f"{method} {name}")
    call = {"on_init": "its constructor", "on_fit": "fit", "on_predict": "predict"}[place]
    said = " ".join(after.err.split())  # a long line is wrapped
    assert said.count(f"mine changed in {call}: torch's default device (now meta), torch's default dtype") == 1


def test_who_changed_the_process_is_named_in_the_trials_state(tmp_path: Path, stbench_command: Callable) -> None:
    set_dtype = "__import__('torch').set_default_dtype(__import__('torch').float64)"
    places = {place: set_dtype for place in ("on_import", "on_label", "on_fit", "on_save")}
    mine = plugin(tmp_path / "mine.py", **(places | {"on_import": f"import torch\n{set_dtype}"}))
    done = stbench_command("run", "--methods", mine, *DEMO, "--save-models", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    state = json.loads(next((tmp_path / "r" / "trials").glob("*/state.json")).read_text())
    dtype = "torch's default dtype (now torch.float64); it was put back"
    named = [note for note in state["notes"] if "changed in" in note]
    assert named == [
        f"mine.py changed in its import: {dtype}",
        f"mine changed in weights_label: {dtype}",
        f"mine changed in fit: {dtype}",
        f"mine changed in save: {dtype}",
    ]


def test_unseeded_random_numbers_are_the_same_whatever_ran_before(tmp_path: Path, stbench_command: Callable) -> None:
    draws = "prediction += np.random.rand(*prediction.shape).astype(np.float32)"
    mine = plugin(tmp_path / "mine.py", on_predict=draws)
    noise = plugin(tmp_path / "noise.py", name="noise", on_fit="np.random.rand(1000); np.random.seed(7)")
    stbench_command("run", "--methods", mine, *DEMO, "--out", tmp_path / "alone")
    stbench_command("run", "--methods", f"{noise},{mine}", *DEMO, "--out", tmp_path / "after")
    alone, after = (_predictions(tmp_path / place, "mine") for place in ("alone", "after"))
    for name in alone:
        np.testing.assert_array_equal(after[name], alone[name])


def test_a_buffer_that_is_used_again_does_not_change_an_earlier_prediction(
    tmp_path: Path, stbench_command: Callable
) -> None:
    """Predictions of several slices of one fold, and those of the alarms, are copies."""
    plain = plugin(tmp_path / "plain.py", name="plain")
    once = "Mine.buffer = getattr(Mine, 'buffer', np.zeros((500, prediction.shape[1]), np.float32))"
    again = f"{once}; Mine.buffer[: len(prediction)] = prediction; prediction = Mine.buffer[: len(prediction)]"
    mine = plugin(tmp_path / "mine.py", on_predict=again)
    lopo = ("--split", "lopo", "--out", tmp_path / "r")
    done = stbench_command("run", "--methods", f"{mine},{plain}", *DEMO, *lopo)
    assert done.code == 0, done.err
    expected, found = _predictions(tmp_path / "r", "plain"), _predictions(tmp_path / "r", "mine")
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.usefixtures("unsaved_pictures")
def test_what_is_known_to_be_wrong_stands_in_the_table_on_the_terminal_and_in_the_report(
    tmp_path: Path, stbench_command: Callable
) -> None:
    """A training that diverged but stayed finite, and a warning that went to the log."""
    diverge = "[run.log(epoch, loss=np.float32(10.0**epoch)) for epoch in (1, 2, 3)]"
    warn = "__import__('logging').getLogger('stbench').warning('row %d was never trained', 63)"
    mine = plugin(tmp_path / "mine.py", on_fit=diverge, on_predict=f"{warn}; prediction *= np.float32(1e9)")
    done = stbench_command("run", "--methods", f"{mine},training_mean", *TWO, "--out", tmp_path / "r")
    assert done.code == 0
    kinds = ("the training diverged", "predictions lie far outside the target's range")
    summary = pd.read_csv(tmp_path / "r" / "summary.csv", keep_default_na=False).set_index("method")
    for kind in kinds:
        assert summary.loc["mine", "alarms"].str.contains(kind).all()
    assert summary.loc["mine", "notes"].str.contains("row 63 was never trained").all()
    assert set(summary.loc["training_mean", "alarms"]) == {""}
    last = [line for line in done.out.splitlines() if "column alarms" in line or "column notes" in line]
    assert last[0].startswith("2 of 4 trials raised an alarm (mine 2)")
    assert "mine 2" in last[1]
    assert done.err.count("note: row 63 was never trained") == 1
    (row,) = [line for line in done.out.splitlines() if line.startswith("mine  ")]
    assert "e+1" in row
    assert stbench_command("report", tmp_path / "r").code == 0
    page = html.unescape((tmp_path / "r" / "report" / "report.html").read_text())
    for text in (*kinds, "row 63 was never trained"):
        assert text in page
