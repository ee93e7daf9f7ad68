"""A trial: one method, one dataset, one fold, one seed. The unit of work, of failure, of resume and of caching.

A trial is planned as ``RESULTS/specs/KEY.json``, is attempted in ``RESULTS/attempts/KEY/TOKEN/`` (where checkpoints let
the next attempt go on after a crash) and ends as ``RESULTS/trials/KEY/``, which appears complete or not at all. Nothing
but RESULTS and the key is needed to run it, so any engine can: this process, another, another machine. No lock is
needed either: of two attempts that both get to the end one becomes the trial, and the other one's work is dropped.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from .. import registry
from ..errors import DeviceFailed, DeviceFull, Interrupted, NotApplicable, PlaceError, UserError, said
from ..system.beats import Beat, Observer
from ..system.environment import machine
from ..system.files import OF_THE_PLACE, flush, refused_errno, writing_to
from ..system.out_of_memory import broken_device, crowded_out, out_of_memory
from ..system.precision import tf32_flags
from ..system.processes import Process
from . import attempts, outcome
from .attempt import Attempt, log, logging_to
from .spec import EXTERNAL, TrialSpec
from .state import FINAL_STATES, EndedState, TrialState
from .whole_slide import SETTING
from .work import work_on

_DEVICE_FULL = (
    "the GPU is full in trial {label} ({crowded}): the trial stays open - free the card, or give it fewer trials at a "
    "time, and run the same command again"
)
_DEVICE_FAILED = (
    "the device failed in trial {label} ({broken}), and nothing that this process computes on it would count - run the "
    "same command again; if it fails again, look at the card (nvidia-smi), or at the method with CUDA_LAUNCH_BLOCKING=1"
)
WAIT_S = 1.0  # between two looks at the trial whose model is waited for


def run_trial(
    results: Path,
    key: str,
    on_progress: Callable[[int, int, str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrialState:
    """Run one planned trial and return its state; a trial that is done already is not run again.

    Whatever goes wrong inside the method is recorded as the state ``failed`` with its reason; only an interruption
    (state ``interrupted``, to be continued) and errors of the place itself (no such spec, full disk) come out.
    A trial that another process is seen to work on is left to it (state ``running``).
    """
    results = Path(results).absolute()  # a method may change the working folder
    spec_path = results / "specs" / f"{key}.json"
    if not spec_path.is_file():
        raise UserError(f"no trial {key} is planned in {results} - see {results / 'run.json'} for the keys")
    spec = TrialSpec.read(spec_path)
    ended = outcome.read_ended(results / "trials" / key)
    if ended is not None:
        return ended
    if spec.method.startswith(EXTERNAL):
        raise UserError(
            f"trial {key} was scored from predictions made elsewhere and cannot be run - score the files again with "
            "'stbench score'"
        )
    if spec.trained_by:
        _await_training(results, spec, on_progress, should_stop)
    with writing_to(results):
        return _attempt(results, spec, on_progress, should_stop)


def _await_training(
    results: Path,
    spec: TrialSpec,
    on_progress: Callable[[int, int, str], None] | None,
    should_stop: Callable[[], bool],
) -> None:
    """See to it that the trial whose model ``spec`` reuses has ended: run it, or wait for the process that does."""
    while run_trial(results, spec.trained_by, on_progress, should_stop).state not in FINAL_STATES:
        if should_stop():
            raise Interrupted(f"stopped while waiting for trial {spec.trained_by}")
        time.sleep(WAIT_S)


def _attempt(
    results: Path,
    spec: TrialSpec,
    on_progress: Callable[[int, int, str], None] | None,
    should_stop: Callable[[], bool],
) -> TrialState:
    """Work on a trial in a folder of this attempt's own, unless another process is seen to work on it."""
    observer = Observer()
    at_work = attempts.at_work(results, spec.key, observer)
    if at_work is not None and at_work[0] == "alive":
        return _left_to(at_work[1])
    folder, number = attempts.begin(results, spec.key)
    with Beat(folder / attempts.BEAT) as beat:
        state = _begun(results, spec, folder, number)
        first = attempts.first_at_work(results, spec.key, observer)
        if first not in ("", folder.name):  # another began in the same moment, and finds the same name first
            shutil.rmtree(folder)
            return _left_to(attempts.read_state(results / "attempts" / spec.key / first))
        attempts.go_on_from_earlier(results, spec.key, folder, observer)
        attempt = Attempt(spec, folder, on_progress, should_stop)
        with logging_to(folder / "log.txt"):
            log.info("trial %s: %s, attempt %d", spec.key, spec.label, number)
            try:
                found = _worked_on(attempt)
            except (Interrupted, PlaceError) as pause:
                with suppress(OSError, PlaceError):  # the place may not even take this
                    log.info("interrupted: %s", pause)
                    paused = {"state": "interrupted", "reason": str(pause), "notes": attempt.distinct_notes()}
                    state.model_copy(update=paused).write(folder)
                raise
            except NotApplicable as refusal:
                found = {"state": "skipped", "reason": str(refusal)}
                log.info("skipped: %s", refusal)
            except Exception as error:  # a method may fail in any way; it is recorded, and the others go on
                broken = broken_device(error)
                if broken is not None:
                    log.error("the device failed: %s\n%s", broken, _traceback())
                    state.model_copy(update={"reason": f"the device failed: {broken}"}).write(folder)
                    raise DeviceFailed(_DEVICE_FAILED.format(broken=broken, label=spec.label)) from error
                if refused_errno(error, folder) in OF_THE_PLACE:
                    raise  # as it comes: whoever called makes it the place's error, and the trial stays open
                found = {"state": "failed", "reason": _reason(error, spec)}
                log.error("failed: %s\n%s", found["reason"], _traceback())
            if beat.is_lost():
                log.warning("this attempt was thought dead meanwhile")
    return _finish(attempt, state, found)


def _worked_on(attempt: Attempt) -> dict[str, Any]:
    """What the trial came to. Memory of a GPU that others hold is a fault of the place."""
    spec = attempt.spec
    try:
        with tf32_flags(spec.precision):
            return work_on(attempt)
    except Exception as error:
        crowded = crowded_out(error)
        if crowded is None:
            raise
        raise DeviceFull(_DEVICE_FULL.format(crowded=crowded, label=spec.label)) from error


def _begun(results: Path, spec: TrialSpec, folder: Path, number: int) -> TrialState:
    """Write what is known of an attempt when it begins."""
    shutil.copyfile(results / "specs" / f"{spec.key}.json", folder / "spec.json")
    state = TrialState(
        state="running",
        reason="",
        notes=[],
        started=time.time(),
        attempts=number,
        token=folder.name,
        process=Process.here(),
        cpu=str(machine()["processor"]),
    )
    state.write(folder)
    return state


def _left_to(other: TrialState) -> TrialState:
    return TrialState(state="running", reason=f"{other.process or 'another process'} is working on it")


def end_from_outside(results: Path, key: str, cause: Literal["killed", "timeout", "oom"], reason: str) -> TrialState:
    """End a trial as failed whose process is gone, by whoever watched it; a trial that ended meanwhile stays as it is.

    What the last attempt left, its log and its history among it, becomes the trial's. Its checkpoint does not.
    """
    results = Path(results).absolute()
    with writing_to(results):
        ended = outcome.read_ended(results / "trials" / key)
        if ended is not None:
            return ended
        spec = TrialSpec.read(results / "specs" / f"{key}.json")
        earlier = attempts.attempts_of(results, key)
        folder, state = earlier[-1] if earlier else (None, TrialState(state="pending"))
        if folder is None or state.started is None:
            folder, number = attempts.begin(results, key)
            state = _begun(results, spec, folder, number)
        attempt = Attempt(spec, folder, None, lambda: False)
        (folder / attempts.BEAT).unlink(missing_ok=True)
        with logging_to(folder / "log.txt"):
            log.error("failed: %s", reason)
        return _finish(attempt, state, {"state": "failed", "cause": cause, "reason": reason})


def _finish(attempt: Attempt, state: TrialState, found: dict[str, Any]) -> EndedState:
    """Make an attempt's folder the trial's, complete with what became of it, unless another attempt was faster."""
    folder, key, results = attempt.directory, attempt.spec.key, attempt.results
    attempt.history.write_csv(folder / "history.csv")
    shutil.rmtree(folder / attempts.CHECKPOINT, ignore_errors=True)
    (folder / attempts.HISTORY).unlink(missing_ok=True)
    flush(folder)  # before the name that says that all is there
    found |= {"notes": attempt.distinct_notes(), "ended": time.time(), "files": outcome.list_files(folder)}
    ended = EndedState(**state.model_dump(exclude_unset=True) | found)
    ended.write(folder)
    other = _become(folder, results / "trials" / key)
    if other is not None:
        with logging_to(folder / "log.txt"):
            log.info("attempt %s ended the trial first; this one's work is dropped", other.token)
        dropped = {"state": "interrupted", "reason": f"attempt {other.token} ended the trial first", "files": None}
        state.model_copy(update=dropped).write(folder)
        attempts.strip(folder)
    attempts.tidy(results, key, Observer())
    return other or ended


def _become(folder: Path, trial: Path) -> EndedState | None:
    """Rename an attempt's folder to the trial's; what another attempt made of the trial, where that was faster."""
    trial.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            os.rename(folder, trial)
            return None
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
            ended = outcome.read_ended(trial)
            if ended is not None:
                # a network file system may do a rename and lose the answer: then the trial is this very attempt
                return None if ended.token == folder.name else ended
            if error.errno == errno.ENOENT:
                raise
            _put_aside(trial)


def _put_aside(trial: Path) -> None:
    """Remove what is left of a trial whose ``state.json`` was deleted, but not one that became complete meanwhile."""
    aside = trial.with_name(f".{trial.name}-{secrets.token_hex(4)}")
    os.rename(trial, aside)
    if (aside / "state.json").is_file():
        os.rename(aside, trial)
    else:
        shutil.rmtree(aside)


def _reason(error: Exception, spec: TrialSpec) -> str:
    """Why a trial failed, in one line."""
    memory = out_of_memory(error)
    if memory is None:
        return said(error)
    smaller = f"lower --set {spec.name}.batch_size, " if "batch_size" in spec.config else ""
    if SETTING in getattr(registry.method(spec.method), "execution_fields", ()) and spec.execution.get(SETTING) != "on":
        smaller = f"add --set {spec.name}.{SETTING}=on, "
    return f"{memory} - {smaller}free some or use another device, then run again with --retry-failed"


def _traceback() -> str:
    """Of the exception at work; an exception of a stranger's may refuse to be printed."""
    try:
        return traceback.format_exc()
    except Exception as error:  # noqa: BLE001 - whatever its __str__ raises
        return f"(the traceback cannot be printed: {type(error).__name__})"
