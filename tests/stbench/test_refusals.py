"""What the system refuses, in whatever words a library puts it, is one line, and nothing is lost by it."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from stbench.data.cache import damage
from stbench.errors import MethodFailed, PlaceError, UserError
from stbench.method import Run, configure
from stbench.registry import method
from stbench.results.ablation import parse_sweep
from stbench.system.compressed import existing
from stbench.system.files import refused_errno, replacing, writing_to
from stbench.system.interrupt import stop_on_signals
from stbench.system.out_of_memory import crowded_out, out_of_memory
from stbench.training.checkpoint import Checkpoints, TrainingState
from stbench.training.encoders import read_weights, weights_label
from stbench.trials import attempt
from stbench.trials.outcome import state_of
from stbench.trials.work import _n_parameters

PROBE = f"{Path(__file__).parent / 'probe_method.py'}:Probe"
DEMO = ("--dataset", "demo", "--slices", "P1a,P1b", "--no-mlflow")
FULL = OSError(errno.ENOSPC, "No space left on device")


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


# as they were seen on a full tmpfs
LIBRARIES = {
    "python": FULL,
    "torch": RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 576 vs 534"),
    "torch, into a file": raised_from(RuntimeError("[enforce fail at inline_container.cc:671] ."), FULL),
    "torch, large": RuntimeError("PytorchStreamWriter failed writing file data/3: file write failed"),
    "safetensors": SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    "numpy": OSError("400000 requested and 131056 written"),
    "pyarrow": OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
    "h5py": RuntimeError("Can't decrement id ref count (file write failed: file descriptor = 3, errno = 28, error"),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_full_disk_is_known_in_every_library_s_words(tmp_path: Path, library: str) -> None:

    def fail() -> None:
        with replacing(tmp_path / "model.bin") as temporary:
            temporary.write_bytes(b"half of it")
            raise LIBRARIES[library]

    with pytest.raises(PlaceError) as caught:
        fail()
    assert str(caught.value).startswith(f"cannot write {tmp_path / 'model.bin'}: the disk is full - make room")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, r"the quota \(of disk space or of files\) is used up"),
        (errno.EROFS, "the file system is read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EISDIR, "it is a folder"),
        (errno.ENOTDIR, "a part of the path is a file, not a folder"),
        (errno.ENAMETOOLONG, "the path is too long"),
        (errno.EIO, "the disk reports an error"),
        (errno.ESTALE, "stale file handle"),
    ],
)
def test_other_refusals_are_told_in_words(tmp_path: Path, number: int, words: str) -> None:
    with pytest.raises(PlaceError, match=words), writing_to(tmp_path / "a"):
        raise OSError(number, os.strerror(number), str(tmp_path / "a"))


def test_a_file_elsewhere_is_named_itself(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match=r"^cannot use /elsewhere/counts.tsv: permission denied"), writing_to(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/counts.tsv")


@pytest.mark.parametrize(
    "error", [ValueError("28"), KeyError("errno"), RuntimeError("mat1 and mat2 shapes"), OSError()]
)
def test_other_errors_stay_what_they_are(tmp_path: Path, error: Exception) -> None:
    assert refused_errno(error, tmp_path) is None
    with pytest.raises(type(error)), writing_to(tmp_path):
        raise error


class FullAfter:
    """``torch.save`` on a disk that takes half of what it is given."""

    def __init__(self) -> None:
        self.full, self.save = True, torch.save

    def __call__(self, obj: object, file: Any) -> None:
        if not self.full:
            return self.save(obj, file)
        file.write(b"half")
        raise raised_from(
            RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 295168 vs 295064"), FULL
        )


def test_a_disk_that_is_full_at_a_checkpoint_leaves_the_trial_open(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = FullAfter()
    monkeypatch.setattr(torch, "save", disk)
    small = ("--set", "stnet.encoder=test_resnet", "--set", "stnet.input_px=32", "--set", "stnet.epochs=1")
    command = ("run", "--methods", "stnet", *DEMO, "--preset", "quick", "--weights", "random", *small)
    done = stbench_command(*command, "--device", "cpu", "--out", tmp_path / "r")
    assert done.code == 2
    assert "training.pt: the disk is full - make room, or choose another place" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    assert list((tmp_path / "r" / "trials").iterdir()) == []
    (attempt,) = [path.name for path in (tmp_path / "r" / "attempts").iterdir()]
    assert state_of(tmp_path / "r", attempt).state == "interrupted"
    disk.full = False
    done = stbench_command(*command, "--device", "cpu", "--out", tmp_path / "r")
    assert done.code == 0
    assert "2 trials, 2 to run; 1 resume where they were interrupted" in done.out


def test_a_method_that_meets_a_full_disk_is_not_to_blame(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stbench.trials.history import History

    def refuse(self: History, epoch: int, values: object) -> None:
        raise FULL

    monkeypatch.setattr(History, "add", refuse)
    done = stbench_command("run", "--methods", PROBE, *DEMO, "--out", tmp_path / "r")
    assert done.code == 2
    assert "the disk is full" in done.err.splitlines()[-1]
    assert list((tmp_path / "r" / "trials").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.72 GiB of which "
                "1.20 GiB is free. Including non-PyTorch memory, this process has 138.52 GiB memory in use."
            ),
            "out of GPU memory (2.00 GiB more were wanted)",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "out of GPU memory",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried "
                "to allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)"
            ),
            "out of memory (4.00 GiB more were wanted)",
        ),
        (MemoryError(), "out of memory"),
        (ValueError("out of range"), None),
    ],
)
def test_out_of_memory_is_told_in_words(error: Exception, words: str | None) -> None:
    assert out_of_memory(error) == words


@pytest.mark.parametrize(
    ("wanted", "free", "own", "words"),
    [
        ("2.00 GiB", "1.25 GiB", "16.00 GiB", "hold 61.9 of the 79.2 GiB"),
        ("512.00 MiB", "0 bytes", "16.00 GiB", "0.5 GiB more were wanted than the 16 GiB that it had, and other"),
        ("2.00 GiB", "1.25 GiB", "77.60 GiB", None),  # 300 MB of a desktop
        ("70.00 GiB", "1.25 GiB", "16.00 GiB", None),  # more than there is
    ],
)
def test_memory_of_a_gpu_that_others_hold_is_told_from_what_a_method_wants(
    wanted: str, free: str, own: str, words: str | None
) -> None:
    error = RuntimeError(
        f"CUDA out of memory. Tried to allocate {wanted}. GPU 0 has a total capacity of 79.15 GiB of which {free} is "
        f"free. Including non-PyTorch memory, this process has {own} memory in use. Of the allocated memory ..."
    )
    found = crowded_out(error)
    assert found is None if words is None else words in str(found)
    assert crowded_out(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED")) is None


def test_numpy_s_word_for_it_is_understood() -> None:
    with pytest.raises(MemoryError) as caught:
        np.empty((1 << 20, 1 << 20, 1 << 10), dtype=np.float64)
    assert out_of_memory(caught.value) == "out of memory (8.00 PiB more were wanted)"


def test_torch_s_word_for_it_is_understood() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 52)
    assert str(out_of_memory(caught.value)).startswith("out of memory (")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 28341\n"


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors", "image.jpg", "counts.tsv.gz", "slide.h5ad"])
def test_a_pointer_of_git_lfs_is_named_and_so_is_what_fetches_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(POINTER)
    with pytest.raises(UserError, match=rf"{name} is a Git LFS pointer, not the file itself - run 'git lfs pull'"):
        existing(path)


def test_weights_that_are_a_pointer_stop_the_run_in_one_line(tmp_path: Path, stbench_command: Callable) -> None:
    path = tmp_path / "resnet.pth"
    path.write_text(POINTER)
    for read in (read_weights, lambda place: weights_label("resnet18", str(place))):
        with pytest.raises(UserError, match="is a Git LFS pointer"):
            read(path)
    done = stbench_command("run", "--methods", "stnet", *DEMO, "--weights", path, "--out", tmp_path / "r")
    assert done.code == 2
    assert (
        done.err.strip()
        == f"stbench: {path} is a Git LFS pointer, not the file itself - run 'git lfs pull' in its repository"
    )


def test_a_pointer_of_git_annex_is_named_too(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("/annex/objects/SHA256E-s28341--4d7a2146.h5\n")
    with pytest.raises(UserError, match=r"is a git-annex pointer.*git annex get"):
        existing(tmp_path / "a.h5")


def pickled(path: Path) -> None:
    torch.save({"model": nn.Linear(2, 2)}, path)


def cut_archive(path: Path) -> None:
    torch.save({"weight": torch.ones(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "is not a file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_text("<html>404</html>"), "cannot read weights"),
        (pickled, "cannot read weights"),
        (cut_archive, "cannot read weights"),
        (lambda path: torch.save([1, 2], path), "holds no state dict"),
        (lambda path: torch.save({"lr": 0.1}, path), "holds no state dict"),
    ],
    ids=["folder", "empty", "page", "pickle", "cut", "list", "numbers"],
)
def test_weights_of_another_kind_are_one_line(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "weights.pth"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_wishes_to_stop_and_are_put_back(number: signal.Signals) -> None:
    at_first = signal.signal(number, signal.default_int_handler)  # also where the tests run under nohup
    try:
        with stop_on_signals() as stop:
            assert not stop()
            os.kill(os.getpid(), number)
            assert stop()
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, at_first)


def test_a_hangup_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("value", ["inf", "-inf", "nan", "Infinity", "NaN", "1e999", float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["stnet", "bleep", "mclstexp", "histogene", "hist2st", "thitogene"])
def test_no_method_takes_a_setting_that_is_not_finite(name: str, value: str | float) -> None:
    with pytest.raises(UserError, match=rf"{name}.lr = .* is not valid: .*finite number"):
        configure(method(name), changes={"lr": value})


@pytest.mark.parametrize("value", ["inf", "nan", "1e999", "-Infinity"])
def test_on_the_command_line_neither(tmp_path: Path, stbench_command: Callable, value: str) -> None:
    for command in (
        ("run", "--methods", "stnet", "--set", f"stnet.lr={value}", *DEMO),
        ("ablate", "stnet", "--set", f"lr=0.1,{value}", *DEMO),
    ):
        done = stbench_command(*command, "--weights", "random", "--out", tmp_path / "r")
        assert done.code == 2
        assert "finite number" in done.err.splitlines()[-1]
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("text", ["k=", "k=,", "k= ", "k=, ,"])
def test_a_sweep_without_values_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"is not of the form|lists no value for k"):
        parse_sweep(text)


def test_a_number_of_more_digits_than_python_reads_is_refused_in_one_line() -> None:
    field, values = parse_sweep(f"k={'9' * 5000}")
    with pytest.raises(UserError, match="is not valid"):
        configure(method("bleep"), changes={field: values[0]})


def state_of_training() -> TrainingState:
    network = nn.Linear(2, 2)
    return TrainingState(network, torch.optim.SGD(network.parameters(), lr=0.1), None, torch.Generator())


@pytest.mark.parametrize(
    ("damage", "note"),
    [
        (lambda path: path.write_bytes(b""), "could not be read"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "could not be read"),
        (lambda path: path.write_text(POINTER), "could not be read"),
        (lambda path: torch.save([1], path), "could not be read"),
        (lambda path: torch.save({"identity": "a"}, path), "it has no best_loss, best_weights, compiling, epoch"),
        (lambda path: torch.save({"identity": "b"}, path), "of other settings"),
        (lambda path: torch.save({"identity": "a", "epoch": nn.Linear(1, 1)}, path), "could not be read"),
    ],
)
def test_a_checkpoint_that_is_damaged_or_foreign_is_not_continued(
    tmp_path: Path, damage: Callable[[Path], object], note: str
) -> None:
    run = Run(checkpoint_directory=tmp_path)
    checkpoints = Checkpoints(run, "a")
    checkpoints.write(state_of_training())
    assert checkpoints.read() is not None
    damage(tmp_path / "training.pt")
    assert checkpoints.read() is None
    (said,) = run.notes
    assert note in said
    assert said.endswith("training started from the start")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "/a/b: permission denied - check the path"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/a"), "/a: is a directory - check the path"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/a" * 9), "file name too long - check the path"),
        (OSError(errno.EMFILE, "Too many open files"), "the system reports: Too many open files"),
        (MemoryError(), "out of memory - close other programs"),
    ],
)
def test_what_the_machine_refuses_is_one_line_wherever_it_happens(
    stbench_command: Callable, monkeypatch: pytest.MonkeyPatch, error: Exception, line: str
) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("stbench.registry.dataset", refuse)
    done = stbench_command("data", "check", "demo")
    assert done.code == 2
    assert line in done.err
    assert "Traceback" not in done.err


def test_a_reader_that_has_gone_is_no_error() -> None:
    import subprocess
    import sys

    program = "from stbench.cli import main; main(['methods', 'list'])"
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_log_that_takes_no_line_is_an_error() -> None:
    with pytest.raises(OSError, match="No space left"), attempt.logging_to(Path("/dev/full")):
        attempt.log.error("a line")


def test_the_logger_of_the_process_is_as_it_was_after_an_attempt(tmp_path: Path) -> None:
    before = (attempt.log.level, list(attempt.log.handlers))
    with attempt.logging_to(tmp_path / "log.txt"):
        attempt.log.info("a line")
        assert attempt.log.level == logging.INFO
    attempt.log.info("another")
    assert (attempt.log.level, list(attempt.log.handlers)) == before
    assert (tmp_path / "log.txt").read_text().rstrip().endswith("INFO a line")


@pytest.mark.parametrize("said", ["12M", 1.5, True, -1])
def test_a_method_s_size_is_a_whole_number(said: object) -> None:
    with pytest.raises(MethodFailed, match=r"its n_parameters are .*, not a number"):
        _n_parameters(SimpleNamespace(name="mine", n_parameters=said))
    assert _n_parameters(SimpleNamespace(name="mine", n_parameters=np.int64(12))) == 12
    assert _n_parameters(SimpleNamespace(name="mine")) is None


@pytest.mark.parametrize("content", ["", "{}", "[]", "null", '{"facts.json": "0"}'])
def test_a_prepared_entry_whose_digests_say_nothing_is_damaged(tmp_path: Path, content: str) -> None:
    np.save(tmp_path / "counts.npy", np.ones(3))
    (tmp_path / "digests.json").write_text(content)
    assert "digests.json" in str(damage(tmp_path))


def test_json_without_finite_numbers_is_refused(tmp_path: Path) -> None:
    from stbench.system.files import read_json

    (tmp_path / "a.json").write_text(json.dumps({"a": float("nan")}))
    with pytest.raises(UserError, match="NaN is not a number of JSON"):
        read_json(tmp_path / "a.json")
