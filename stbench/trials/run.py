"""A trial: one method, one dataset, one fold, one seed. The unit of work, of failure, of resume and of caching.

A trial is planned as ``RESULTS/specs/<key>.json``, works in ``RESULTS/running/<key>/`` (where checkpoints let it go on
after a crash) and ends as ``RESULTS/trials/<key>/``, which appears complete or not at all. Nothing but RESULTS and the
key is needed to run it, so any engine can: this process, another, another machine.
"""

from __future__ import annotations

import os
import shutil
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from ..errors import Interrupted, NotApplicable, PlaceError, UserError, said
from ..system.files import OF_THE_PLACE, flush, refused_errno, writing_to
from ..system.locks import Timeout, locked
from ..system.out_of_memory import out_of_memory
from ..system.precision import tf32_flags
from . import outcome
from .attempt import Attempt, log, logging_to
from .spec import EXTERNAL, TrialSpec
from .state import FINAL_STATES, EndedState, TrialState
from .work import work_on

LOCK_S = 10.0  # for the lock of a process that is gone, or is going
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
    """
    results = Path(results).absolute()  # a method may change the working folder
    spec_path = results / "specs" / f"{key}.json"
    if not spec_path.is_file():
        raise UserError(f"no trial {key} is planned in {results} - see {results / 'run.json'} for the keys")
    spec = TrialSpec.read(spec_path)
    done = results / "trials" / key
    ended = outcome.read_ended(done)
    if ended is not None:
        return ended
    if spec.method.startswith(EXTERNAL):
        raise UserError(
            f"trial {key} was scored from predictions made elsewhere and cannot be run - score the files again with "
            "'stbench score'"
        )
    if spec.trained_by:
        _await_training(results, spec, on_progress, should_stop)
    work = results / "running" / key
    with writing_to(results):
        work.mkdir(parents=True, exist_ok=True)
        try:
            with locked(results / "running" / f".{key}.lock", timeout=0):
                ended = outcome.read_ended(done)
                if ended is not None:  # another process has ended it meanwhile
                    return ended
                return _attempt(Attempt(spec, work, on_progress, should_stop), done)
        except Timeout:
            return TrialState(state="running", reason="another process is working on it")


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


def _attempt(attempt: Attempt, done: Path) -> EndedState:
    """Work on a trial in its directory under ``running/``, which becomes ``done`` when the trial ends."""
    spec, work = attempt.spec, attempt.directory
    shutil.copyfile(attempt.results / "specs" / f"{spec.key}.json", work / "spec.json")
    attempts = (outcome.read_attempt(work).attempts or 0) + 1
    state = TrialState(state="running", reason="", notes=[], started=time.time(), attempts=attempts, pid=os.getpid())
    state.write(work)
    with logging_to(work / "log.txt"):
        log.info("trial %s: %s", spec.key, spec.label)
        try:
            with tf32_flags(spec.precision):
                found = work_on(attempt)
        except (Interrupted, PlaceError) as pause:
            with suppress(OSError, PlaceError):  # the place may not even take this
                log.info("interrupted: %s", pause)
                paused = {"state": "interrupted", "reason": str(pause), "notes": attempt.distinct_notes()}
                state.model_copy(update=paused).write(work)
            raise
        except NotApplicable as refusal:
            found = {"state": "skipped", "reason": str(refusal)}
            log.info("skipped: %s", refusal)
        except Exception as error:  # a method may fail in any way; it is recorded, and the others go on
            if refused_errno(error, work) in OF_THE_PLACE:
                raise  # as it comes: whoever called makes it the place's error, and the trial stays open
            found = {"state": "failed", "reason": _reason(error, spec)}
            log.error("failed: %s\n%s", found["reason"], _traceback())
    return _finish(attempt, state, found, done)


def end_from_outside(results: Path, key: str, cause: Literal["killed", "timeout", "oom"], reason: str) -> TrialState:
    """End a trial as failed whose process is gone, by whoever watched it; a trial that ended meanwhile stays as it is.

    What the attempt left, its log and its history among it, becomes the trial's. Its checkpoint does not.
    """
    results = Path(results).absolute()
    done, work = results / "trials" / key, results / "running" / key
    with writing_to(results), locked(results / "running" / f".{key}.lock", timeout=LOCK_S):
        ended = outcome.read_ended(done)
        if ended is not None:
            return ended
        attempt = Attempt(TrialSpec.read(results / "specs" / f"{key}.json"), work, None, lambda: False)
        state = outcome.read_attempt(work)
        if state.started is None:
            state = state.model_copy(update={"started": time.time()})
        with logging_to(work / "log.txt"):
            log.error("failed: %s", reason)
        return _finish(attempt, state, {"state": "failed", "cause": cause, "reason": reason}, done)


def _finish(attempt: Attempt, state: TrialState, found: dict[str, Any], done: Path) -> EndedState:
    """Make an attempt's directory the trial's, complete with what became of it."""
    work = attempt.directory
    attempt.history.write_csv(work / "history.csv")
    shutil.rmtree(work / "checkpoint", ignore_errors=True)
    (work / "history.jsonl").unlink(missing_ok=True)
    flush(work)  # before the name that says that all is there
    found |= {"notes": attempt.distinct_notes(), "ended": time.time(), "files": outcome.list_files(work)}
    ended = EndedState(**state.model_dump(exclude_unset=True) | found)
    ended.write(work)
    done.parent.mkdir(parents=True, exist_ok=True)
    if done.exists():  # what is left of a trial whose state.json was deleted
        shutil.rmtree(done)
    os.replace(work, done)
    return ended


def _reason(error: Exception, spec: TrialSpec) -> str:
    """Why a trial failed, in one line."""
    memory = out_of_memory(error)
    if memory is None:
        return said(error)
    smaller = f"lower --set {spec.name}.batch_size, " if "batch_size" in spec.config else ""
    return f"{memory} - {smaller}free some or use another device, then run again with --retry-failed"


def _traceback() -> str:
    """Of the exception at work; an exception of a stranger's may refuse to be printed."""
    try:
        return traceback.format_exc()
    except Exception as error:  # noqa: BLE001 - whatever its __str__ raises
        return f"(the traceback cannot be printed: {type(error).__name__})"
