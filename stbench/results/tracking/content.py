"""What is told of a trial and of a benchmark: tags, parameters and metrics, as the results directory has them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pandas as pd

from ...scores.exchange import COLUMNS as EXCHANGED
from ...trials.attempts import HISTORY
from ...trials.history import History
from ...trials.outcome import read_table
from ...trials.spec import TrialSpec
from ...trials.state import EndedState, TrialState
from ..run_record import RunRecord
from ..summary_schema import METRICS
from .limits import LONGEST_PARAM, Point, cut
from .names import LONGEST, joined

ENTRY = ["dataset", "split", "target", "method", "preset", "variant", "weights", "precision"]
EPOCH_S = 0.001  # that an epoch is taken to last where its method does not say


def params_of(spec: TrialSpec) -> dict[str, object]:
    """The parameters of a trial. They are known before it begins, and MLflow lets none be changed."""
    return {
        "method": spec.name,
        "dataset": spec.data.name,
        "target": spec.data.target,
        "split": spec.split,
        "fold": spec.fold,
        "seed": spec.seed,
        "preset": spec.preset,
        "variant": spec.variant,
        "precision": spec.precision,
        **{f"config.{name}": value for name, value in spec.config.items()},
    }


def tags_of(spec: TrialSpec, state: TrialState) -> dict[str, object]:
    """What else is to be known of a trial, as far as it has come."""
    tags: dict[str, object] = {
        "stbench.state": state.state,
        "stbench.reason": state.reason,
        "stbench.weights": spec.weights,
        "stbench.notes": "; ".join(state.notes or []),
    }
    if state.ended is not None:
        tags["stbench.device"] = state.device
    if state.compiled is not None:
        tags |= {"stbench.compiled": state.compiled.choice, "stbench.compiled_why": state.compiled.why}
    if spec.trained_by:
        tags["stbench.trained_by"] = spec.trained_by
    tags |= {f"version.{name}": number for name, number in (state.versions or {}).items()}
    tags |= {f"data.{joined(name)}": content for name, content in spec.data.keys.items()}
    return tags | originals([*spec.data.keys, spec.name])


def originals(names: Iterable[str]) -> dict[str, str]:
    """Tags that say what a name is which MLflow does not take as it is."""
    return {f"stbench.name.{joined(name)}"[:LONGEST]: name for name in names if joined(name) != name}


def scores_of(rows: pd.DataFrame, state: EndedState) -> Iterator[Point]:
    """The metrics of a trial that ended; ``rows`` are those of the summary, one for each test slice."""
    when = int(state.ended * 1000)
    for name in ("fit_s", "predict_s", "peak_mem_mb", "n_parameters"):
        value = getattr(state, name)
        if value is not None:
            yield Point(name, float(value), when)
    gain = None if state.compiled is None else state.compiled.gain
    if gain is not None:
        yield Point("compile_gain", gain, when)
    for row in rows.to_dict("records"):
        for name in (*METRICS, *EXCHANGED):
            if pd.notna(row[name]):
                yield Point(joined(name, str(row["slice"])), float(row[name]), when)
    for name in (*METRICS, *EXCHANGED):
        values = rows[name].dropna()
        if len(values) == len(rows):  # a mean that skips a slice would not be the trial's
            yield Point(name, float(values.mean()), when)


def history_of_ended(results: Path, key: str) -> dict[int, dict[str, float]]:
    """The curve of a trial that ended: epoch to values by name."""
    table = read_table(results / "trials" / key, "history.csv", ())
    if table is None:
        return {}
    values = table.drop(columns="epoch")
    return {
        int(epoch): {str(name): float(value) for name, value in row.items()}
        for epoch, row in zip(table["epoch"], values.to_dict("records"), strict=True)
    }


def history_at_work(results: Path, key: str, state: TrialState) -> dict[int, dict[str, float]]:
    """The curve of a trial at work, so far: epoch to values by name."""
    return History(results / "attempts" / key / (state.token or "") / HISTORY).rows


def curve(history: Mapping[int, Mapping[str, float]], after: int, started: int) -> Iterator[Point]:
    """The epochs after ``after``.

    ``started``: when the trial's run started, in milliseconds since the epoch. The time of an epoch follows from it and
    from how long the epochs before took, not from the clock, so that an epoch that is told twice is told as the same.
    """
    elapsed = 0.0
    for epoch, values in sorted(history.items()):
        if epoch > after:
            for name, value in values.items():
                if math.isfinite(value):
                    yield Point(joined("train", name), float(value), started + int(elapsed * 1000), epoch)
        seconds = values.get("seconds", EPOCH_S)
        elapsed += seconds if math.isfinite(seconds) else EPOCH_S


def benchmark_params(record: RunRecord, known: Mapping[str, str]) -> dict[str, str]:
    """Parameters of the parent that are not ``known`` yet: commands, datasets, splits, targets, methods, seeds.

    MLflow lets no parameter be changed, and a later command may add a dataset. So each parameter has one value: the
    first dataset is ``dataset``, further ones are ``dataset.2``, ``dataset.3``. What is there stays.
    """
    identities = [trial.identity for trial in record.trials.values()]
    values = {
        "command": list(record.commands),
        "dataset": [identity.dataset for identity in identities],
        "split": [identity.split for identity in identities],
        "target": [identity.target for identity in identities],
        "method": [identity.method for identity in identities],
        "seed": [str(identity.seed) for identity in identities],
    }
    new: dict[str, str] = {}
    for kind, listed in values.items():
        taken = {name: value for name, value in known.items() if name.partition(".")[0] == kind}
        for value in dict.fromkeys(listed):
            if cut(value, LONGEST_PARAM) not in taken.values():
                name = kind if not taken else f"{kind}.{len(taken) + 1}"
                new[name] = value
                taken[name] = cut(value, LONGEST_PARAM)
    return new


def means_of(summary: pd.DataFrame, known: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Metrics of the parent that are new, and the tags that their names need.

    Of every entry its mean over the slices, where no slice is missing, and how many slices are finished and planned.
    MLflow keeps every value that it is given, so a value is given once: when it is new. A mean that stood there and is
    none any more (further slices are planned, say) becomes NaN.
    """
    metrics: dict[str, float] = {}
    tags: dict[str, str] = {}
    for labels, rows in summary.fillna(dict.fromkeys(ENTRY, "")).groupby(ENTRY, sort=False):
        *named_by, weights, precision = map(str, labels)
        departures = ("" if weights == "none" else weights, "" if precision == "fp32" else precision)
        parts = [part for part in (*named_by, *departures) if part]
        tags |= originals(parts)
        values = {
            "slices_finished": float((rows["state"] == "finished").sum()),
            "slices_planned": float(len(rows)),
            **{name: float(rows[name].mean()) if rows[name].notna().all() else math.nan for name in METRICS},
        }
        for metric, value in values.items():
            name = joined(*parts, metric)
            if name not in known and math.isnan(value):
                continue
            before = known.get(name, math.inf)
            if before != value and not (math.isnan(before) and math.isnan(value)):
                metrics[name] = value
    return metrics, tags
