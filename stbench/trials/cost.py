"""What a trial will take, before it is run: time, memory and disk, from past trials of its kind or from a table.

Nothing here is exact, and every figure says what it rests on. Seconds are a training's, proportional to its spots and
epochs, and those of what follows it (prediction, scores), proportional to the test spots. What a past trial of the same
method took is scaled by both; where its preset was another one, also by the ratio of the two presets in the table. Not
accounted for: settings that change the network, attention whose cost grows faster than a section, and another machine.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

from ..system.files import read_object
from .cost_table import Rate, has_gpu, rate
from .outcome import MAY_GO, read_ended
from .spec import EXTERNAL, TrialSpec
from .state import EndedState

READ = 20  # past trials of one method, preset, variant and dataset that are looked at, spread over all of them
GROUPS = 8  # such groups that are looked at where none is of exactly this kind
NEAREST = 7  # past trials that an estimate is the median of
TYPICAL_SPOTS = 350  # of a section, where nothing is known of any: HER2+ has 361 in the mean
LIBRARIES = 2**30  # bytes that are resident before a trial holds anything of its own
REST_S = 2.0  # of every trial, beside training and prediction: data are opened, scores computed, files written
# a prediction is a forward pass, a third of a training step; all are made twice, once with exchanged patches
PREDICTION = 2 / 3
# of prediction and truth in compressed files, for a spot and gene, and of tables and records beside them: measured
BYTES_PER_VALUE, BYTES_PER_TRIAL = 8.0, 60_000.0


@dataclass(frozen=True)
class Cost:
    """What a trial will take, roughly. ``gpu_memory_bytes`` is None where it runs on a CPU."""

    seconds: float
    memory_bytes: int  # resident at the peak, libraries included
    gpu_memory_bytes: int | None
    disk_bytes: int  # that stay when it has ended
    basis: Literal["past", "table"]
    n_past: int = 0  # trials that it rests on; 0 for the table


class Size(NamedTuple):
    """Of a prepared slide."""

    n_spots: int
    n_genes: int


class Work(NamedTuple):
    """What a trial has to do."""

    spots: int  # that it trains on
    epochs: int
    test_spots: int
    values: int  # predicted: test spots times genes


class Past(NamedTuple):
    """A trial that finished."""

    work: Work
    rate: Rate
    on_gpu: bool
    reuses: bool  # another's model
    threads: int | None  # that it computed with; None: not known
    fit_s: float
    rest_s: float
    peak_bytes: float
    disk_bytes: float  # without the model
    model_bytes: float


class Kind(NamedTuple):
    method: str
    dataset: str
    preset: str
    variant: str


class Costs:
    """What the trials of one results directory will take.

    Parameters
    ----------
    results : Path
        The results directory, whose past trials are looked at: a sample of each kind, when the first of it is asked
        for. It need not be there yet.
    sizes : Mapping[str, Size], optional
        Prepared slides by the key of their content, beside those that ``run.json`` lists.
    on_gpu : bool, optional
        Whether trials whose device is ``auto`` will run on a GPU. Default: whether this machine shows one.
    threads : int
        Cores that a trial on a CPU will have.
    """

    def __init__(
        self, results: Path, sizes: Mapping[str, Size] | None = None, on_gpu: bool | None = None, threads: int = 1
    ) -> None:
        self.results = Path(results)
        self.threads = threads
        self.on_gpu = has_gpu() if on_gpu is None else on_gpu
        self._sizes = dict(sizes or {})
        self._ended: dict[Kind, list[str]] = defaultdict(list)
        path = self.results / "run.json"
        if path.is_file():
            self._look(read_object(path))
        self._mean_size = _mean_size(self._sizes.values())
        self._past: dict[Kind, list[Past]] = {}
        self._like: dict[tuple[Kind, bool, bool], list[Past]] = {}
        self._known: dict[tuple[Kind, Rate, bool, bool, bool, Work], Cost] = {}

    def of(self, spec: TrialSpec) -> Cost:
        """What a trial will take."""
        kind = Kind(spec.name, spec.data.name, spec.preset, spec.variant)
        on_gpu = spec.device.startswith("cuda") or (spec.device == "auto" and self.on_gpu)
        reuses, work = bool(spec.trained_by or spec.model), self._work(spec)
        question = kind, rate(spec.name, spec.preset, spec.origin), on_gpu, reuses, spec.save_model, work
        if question not in self._known:
            self._known[question] = self._estimate(*question)
        return self._known[question]

    def _estimate(self, kind: Kind, row: Rate, on_gpu: bool, reuses: bool, keeps_model: bool, work: Work) -> Cost:
        threads = 1 if on_gpu else self.threads
        past = self._alike(kind, on_gpu, reuses)
        if not past:
            fit_s = 0.0 if reuses else row.fit_s or _fit_s(work, row, on_gpu) / threads
            rest_s = REST_S + _predict_s(work, row, on_gpu) / threads
            disk = BYTES_PER_TRIAL + BYTES_PER_VALUE * work.values + (row.model_mib * 2**20 if keeps_model else 0)
            gpu_memory = int(row.gpu_memory_mib * 2**20) if on_gpu else None
            return Cost(fit_s + rest_s, int(row.memory_mib * 2**20), gpu_memory, int(disk), "table")
        near = sorted(past, key=lambda each: abs(math.log((each.work.spots or 1) / (work.spots or 1))))[:NEAREST]
        seconds = median(
            each.fit_s
            * (1 if on_gpu else (each.threads or threads) / threads)
            * _ratio(_fit_s(work, row, on_gpu), _fit_s(each.work, each.rate, on_gpu))
            + each.rest_s * _ratio(work.test_spots, each.work.test_spots)
            for each in near
        )
        peak = max(
            LIBRARIES + (each.peak_bytes - LIBRARIES) * max(1.0, _ratio(work.spots, each.work.spots))
            if each.peak_bytes > LIBRARIES
            else each.peak_bytes
            for each in near
        )
        if not peak:  # it was not seen what they held
            peak = (row.gpu_memory_mib if on_gpu else row.memory_mib) * 2**20
        models = [each.model_bytes for each in near if each.model_bytes] or [row.model_mib * 2**20]
        disk = median(each.disk_bytes * _ratio(work.values, each.work.values) for each in near)
        return Cost(
            seconds,
            int(row.memory_mib * 2**20 if on_gpu else peak),
            int(peak) if on_gpu else None,
            int(disk + (max(models) if keeps_model else 0)),
            "past",
            len(near),
        )

    def _alike(self, kind: Kind, on_gpu: bool, reuses: bool) -> list[Past]:
        """Past trials of the nearest kind that there are, of the same method in any case."""
        question = kind, on_gpu, reuses
        if question not in self._like:
            found: list[Past] = []
            for kinds in self._nearer_and_nearer(kind):
                found = [
                    past
                    for each in kinds[:GROUPS]
                    for past in self._past_of(each)
                    if (past.on_gpu, past.reuses) == (on_gpu, reuses)
                ]
                if found:
                    break
            self._like[question] = found
        return self._like[question]

    def _nearer_and_nearer(self, kind: Kind) -> Iterator[list[Kind]]:
        """Kinds like ``kind`` that have past trials: the same, then with less and less in common."""
        same_method = [each for each in self._ended if each.method == kind.method]
        yield [each for each in same_method if each == kind]
        same_preset = [each for each in same_method if each.preset == kind.preset]
        yield [each for each in same_preset if each.variant == kind.variant]
        yield same_preset
        yield same_method

    def _past_of(self, kind: Kind) -> list[Past]:
        if kind not in self._past:
            keys = self._ended[kind]
            step = max(1, len(keys) // READ)
            self._past[kind] = [past for key in keys[::step][:READ] if (past := self._read(key)) is not None]
        return self._past[kind]

    def _read(self, key: str) -> Past | None:
        """A past trial; ``None`` for one that tells nothing: it did not finish, or its slides were prepared anew."""
        state = read_ended(self.results / "trials" / key)
        if state is None or state.state != "finished" or state.fit_s is None:
            return None
        spec = TrialSpec.read(self.results / "specs" / f"{key}.json")
        known = all(spec.data.keys[name] in self._sizes for name in (*spec.train, *spec.test))
        if spec.method.startswith(EXTERNAL) or not known:
            return None
        return _past(spec, state, self._work(spec))

    def _work(self, spec: TrialSpec) -> Work:
        keys, sizes, mean = spec.data.keys, self._sizes, self._mean_size
        tested = [sizes.get(keys[name], mean) for name in spec.test]
        epochs = spec.config.get("epochs")
        return Work(
            spots=sum(sizes.get(keys[name], mean).n_spots for name in spec.train),
            epochs=epochs if isinstance(epochs, int) else 1,
            test_spots=sum(size.n_spots for size in tested),
            values=sum(size.n_spots * size.n_genes for size in tested),
        )

    def _look(self, run: Mapping[str, Any]) -> None:
        """Take sizes of slides and kinds of ended trials from the content of ``run.json``."""
        for section in run["sections"]:
            for slide in section["slides"].values():
                self._sizes[slide["key"]] = Size(slide["n_spots"], section["n_genes"])
        trials = self.results / "trials"
        there = {path.name for path in trials.iterdir()} if trials.is_dir() else set()
        for key, trial in run["trials"].items():
            if key in there:
                asked = trial["identity"]
                self._ended[Kind(asked["method"], asked["dataset"], asked["preset"], asked["variant"])].append(key)


def _past(spec: TrialSpec, state: EndedState, work: Work) -> Past:
    whole = state.ended - state.started  # of the last attempt: earlier ones are in fit_s alone
    in_one_go = state.attempts in (None, 1)
    fit_s, predict_s = state.fit_s or 0.0, state.predict_s or 0.0
    model = {name: record for name, record in (state.files or {}).items() if name.partition("/")[0] in MAY_GO}
    return Past(
        work=work,
        rate=rate(spec.name, spec.preset, spec.origin),
        on_gpu=state.device not in (None, "cpu"),
        reuses=bool(spec.trained_by or spec.model),
        threads=state.threads,
        fit_s=fit_s,
        rest_s=max(predict_s, whole - fit_s) if in_one_go else predict_s,
        peak_bytes=(state.peak_mem_mb or 0.0) * 2**20,
        disk_bytes=sum(record.size for name, record in (state.files or {}).items() if name not in model),
        model_bytes=sum(record.size for record in model.values()),
    )


def _fit_s(work: Work, row: Rate, on_gpu: bool) -> float:
    """Seconds of training, of one core or a GPU."""
    return work.spots * work.epochs * (row.gpu_s if on_gpu else row.core_s)


def _predict_s(work: Work, row: Rate, on_gpu: bool) -> float:
    return PREDICTION * work.test_spots * (row.gpu_s if on_gpu else row.core_s)


def _ratio(wanted: float, known: float) -> float:
    """How many times as much; 1 where nothing was measured."""
    return wanted / known if known else 1.0


def _mean_size(sizes: Iterable[Size]) -> Size:
    """Of the slides that are known, for one that ``run.json`` lists no more, as it was prepared anew."""
    known = list(sizes)
    if not known:
        return Size(TYPICAL_SPOTS, 1000)
    return Size(round(fmean(size.n_spots for size in known)), round(fmean(size.n_genes for size in known)))
