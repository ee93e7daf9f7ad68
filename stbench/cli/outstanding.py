"""Which of the planned trials are still to run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .console import out

if TYPE_CHECKING:
    from ..results.run_record import TrialRecord


def outstanding(results: Path, keys: Iterable[str], retry_failed: bool, only: Collection[str] | None) -> list[str]:
    """The keys of the trials that are still to run, in the order of ``keys``; prints how many results are reused.

    ``retry_failed``: those that failed are among them, and what failed elsewhere in the directory as it would reuse the
    model of one of them. ``only``: the names of the folds that are given out now; None: all.
    """
    from ..results.record import read_run
    from ..trials.attempts import put_back
    from ..trials.state import FINAL_STATES
    from ..trials.survey import states_of

    trials = read_run(results).trials
    states: dict[str, str] = {key: state.state for key, state in states_of(results, keys)}
    n_planned = len(states)
    later = [key for key in states if only is not None and trials[key].identity.fold not in only]
    for key in later:
        del states[key]
    if retry_failed:
        again = [key for key, state in states.items() if state == "failed"]
        for key in [*again, *_held_up(results, trials, again)]:
            put_back(results, key)
            states[key] = "pending"
    counts = Counter(states.values())
    todo = [key for key, state in states.items() if state not in FINAL_STATES]
    ended = ", ".join(f"{counts[state]} {state}" for state in FINAL_STATES if counts[state])
    reused = f"; reused: {ended}" if ended else ""
    resumed = f"; {counts['interrupted']} resume where they were interrupted" if counts["interrupted"] else ""
    left = f"; {len(later)} of other folds are left as they are" if later else ""
    out.print(f"{n_planned} trials, {len(todo)} to run{resumed}{reused}{left}", soft_wrap=True)
    if counts["failed"]:
        out.print("failed trials are not run again without --retry-failed", style="yellow")
    return todo


def _held_up(results: Path, trials: dict[str, TrialRecord], again: Collection[str]) -> Iterator[str]:
    """What failed since a trial of ``again``, whose model it reuses, had failed; of other commands, too."""
    from ..results.record import spec_at
    from ..trials.survey import states_of

    known = set(again)
    if not known:
        return
    for key, state in states_of(results, [key for key in trials if key not in known]):
        if state.state == "failed" and spec_at(results, key).trained_by in known:
            yield key
