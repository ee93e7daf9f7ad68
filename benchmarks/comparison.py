"""Whether a measurement of ``gpu.py`` is worse than an earlier one of the same card, torch, precision and size.

Two runs on one card are never equal: a change counts as worse where it is more than a tolerance, which is stated beside
it. Of a time that is ``FLOOR`` and the noise of both runs, which each run measured itself: how far its rounds lie from
their median. Memory has hardly any noise.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stbench.errors import UserError

FLOOR = 0.02  # of a time: clocks and temperature move it as much from day to day
NOISE = 3.0  # times the mean distance of a run's rounds from their median
MEMORY = 0.01
# what must be the same, and what it is called
SAME = {
    "device": "another card",
    "torch": "another torch",
    "cuda": "another CUDA",
    "precision": "another precision",
    "size": "other sections",
    "steps": "epochs of other lengths",
}
COLUMNS = ("method", "ms a batch", "ratio", "share of the bare loop", "ratio", "GiB", "ratio", "times may be longer by")


@dataclass(frozen=True)
class Change:
    """A quantity of one method, then and now; ``worse`` is the share by which it became worse, negative if better."""

    method: str
    what: str
    then: float
    now: float
    worse: float
    tolerance: float

    @property
    def ratio(self) -> float:
        return self.now / self.then

    def __str__(self) -> str:
        return (
            f"{self.method}: {self.what} {self.then:.4g} -> {self.now:.4g}, worse by {self.worse:.1%}, "
            f"of which {self.tolerance:.1%} may be noise"
        )


def read_report(path: Path) -> dict[str, Any]:
    """A report that ``gpu.py --out`` wrote. ``UserError`` where ``path`` holds none, or a damaged one."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        for name in SAME:
            report[name]
        dict(report["failed"])
        for cost in report["methods"].values():
            _noise(cost["rounds_s"])
            _noise(cost["bare_rounds_s"])
            if not all(cost[name] > 0 for name in ("batch_s", "bare_batch_s", "share")):
                raise ValueError("a time is not positive")
            cost["peak_memory_bytes"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else error
        raise UserError(
            f"{path} holds no measurement of benchmarks/gpu.py ({said}) - make one by --out, with this version"
        ) from error
    if not report["methods"]:
        raise UserError(f"{path} holds the measurement of no method - make one by --out")
    return report


def require_comparable(old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """``UserError``, in one line that names all that differs, where the two measured different things.

    ``new`` may be no more than what is about to be measured.
    """
    other = [f"{what} ({old[name]}, now {new[name]})" for name, what in SAME.items() if old[name] != new[name]]
    if set(old["methods"]).isdisjoint(new["methods"]):
        other.append(f"no method of both ({', '.join(old['methods'])}, now {', '.join(new['methods'])})")
    if other:
        raise UserError(f"the earlier measurement is of {'; '.join(other)} - measure both alike")


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Change]:
    """Step time, share of the bare loop and memory of every method that both have, in this order."""
    found = []
    for name, now in new["methods"].items():
        then = old["methods"].get(name)
        if then is None:
            continue
        noise = _noise(then["rounds_s"]) + _noise(now["rounds_s"])
        bare_noise = _noise(then["bare_rounds_s"]) + _noise(now["bare_rounds_s"])
        found.append(_change(name, "seconds of a batch", then["batch_s"], now["batch_s"], FLOOR + noise))
        fallen = then["share"] / now["share"] - 1
        tolerance = FLOOR + noise + bare_noise
        found.append(Change(name, "share of the bare loop", then["share"], now["share"], fallen, tolerance))
        before, after = then["peak_memory_bytes"], now["peak_memory_bytes"]
        if before is not None and after is not None:
            found.append(_change(name, "GiB at most", before / 2**30, after / 2**30, MEMORY))
    return found


def regressions(found: Sequence[Change]) -> list[Change]:
    return [change for change in found if change.worse > change.tolerance]


def markdown(found: Sequence[Change]) -> str:
    """A row a method: what it is now, and how many times what it was."""
    lines = [f"| {' | '.join(COLUMNS)} |", "| " + " | ".join(["---"] + ["---:"] * (len(COLUMNS) - 1)) + " |"]
    for name in dict.fromkeys(change.method for change in found):
        time, share, *rest = (change for change in found if change.method == name)
        memory = (f"{rest[0].now:.2f}", f"{rest[0].ratio:.3f}") if rest else ("unknown", "")
        cells = (f"{1e3 * time.now:.2f}", f"{time.ratio:.3f}", f"{share.now:.3f}", f"{share.ratio:.3f}", *memory)
        lines.append(f"| {' | '.join((name, *cells, f'{time.tolerance:.1%}'))} |")
    return "\n".join(lines)


def _change(method: str, what: str, then: float, now: float, tolerance: float) -> Change:
    return Change(method, what, then, now, now / then - 1, tolerance)


def _noise(rounds: Sequence[float]) -> float:
    """Of a median of rounds, as a share of it."""
    middle = statistics.median(rounds)
    if not middle > 0:
        raise ValueError("a round took no time")
    return NOISE * statistics.fmean(abs(each - middle) for each in rounds) / middle
