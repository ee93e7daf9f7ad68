"""What a trial will take, before it is run: time, memory and disk, from past trials of its kind or from a table.

Nothing here is exact, and every figure says what it rests on: past trials of the same method, or the counted steps of
a GPU, or the table. Seconds are a training's, of all its spots and epochs, and those of what follows it (prediction,
scores), of the test spots. What a past trial took is scaled by both, and by the ratio of the two presets where its own
was another one. On a CPU all is proportional to spots; on a GPU whole slides cost what was counted at their size. Not
accounted for: settings that change the network, and another machine than that of past trials.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

from ..registry import is_toml
from ..system.files import read_object
from .cards import Card, default_card
from .cost_table import has_gpu, rate
from .counted import counted
from .effort import Effort, Work
from .outcome import MAY_GO, read_ended
from .spec import EXTERNAL, TrialSpec
from .state import EndedState
from .whole_slide import SETTING as CHECKPOINTING

READ = 20  # past trials of one method, preset, variant and dataset that are looked at, spread over all of them
GROUPS = 8  # such groups that are looked at where none is of exactly this kind
NEAREST = 7  # past trials that an estimate is the median of
TYPICAL_SPOTS = 350  # of a section, where nothing is known of any: HER2+ has 361 in the mean
LIBRARIES = 2**30  # bytes that are resident before a trial holds anything of its own
REST_S = 2.0  # of every trial, beside training and prediction: data are opened, scores computed, files written
# of prediction and truth in compressed files, for a spot and gene, and of tables and records beside them: measured
BYTES_PER_VALUE, BYTES_PER_TRIAL = 8.0, 60_000.0


@dataclass(frozen=True)
class Cost:
    """What a trial will take, roughly. ``gpu_memory_bytes`` is None where it runs on a CPU."""

    seconds: float
    memory_bytes: int  # resident at the peak, libraries included
    gpu_memory_bytes: int | None
    disk_bytes: int  # that stay when it has ended
    basis: Literal["past", "counted", "table"]
    n_past: int = 0  # trials that it rests on, if it does on past ones


class Size(NamedTuple):
    """Of a prepared slide."""

    n_spots: int
    n_genes: int


class Past(NamedTuple):
    """A trial that finished."""

    work: Work
    effort: Effort
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
    card : Card, optional
        The GPU that counted steps are modelled for. Default: the first of the table.
    """

    def __init__(
        self,
        results: Path,
        sizes: Mapping[str, Size] | None = None,
        on_gpu: bool | None = None,
        threads: int = 1,
        card: Card | None = None,
    ) -> None:
        self.results = Path(results)
        self.threads = threads
        self.on_gpu = has_gpu() if on_gpu is None else on_gpu
        self.card = card or default_card()
        self._sizes = dict(sizes or {})
        self._ended: dict[Kind, list[str]] = defaultdict(list)
        path = self.results / "run.json"
        if path.is_file():
            self._look(read_object(path))
        self._mean_size = _mean_size(self._sizes.values())
        self._past: dict[Kind, list[Past]] = {}
        self._like: dict[tuple[Kind, bool, bool], list[Past]] = {}
        self._known: dict[tuple[Kind, Effort, bool, bool, bool, Work], Cost] = {}

    def of(self, spec: TrialSpec) -> Cost:
        """What a trial will take."""
        kind = Kind(spec.name, spec.data.name, spec.preset, spec.variant)
        on_gpu = spec.device.startswith("cuda") or (spec.device == "auto" and self.on_gpu)
        reuses, work = bool(spec.trained_by or spec.model), self._work(spec)
        question = kind, self._effort(spec), on_gpu, reuses, spec.save_model, work
        if question not in self._known:
            self._known[question] = self._estimate(*question)
        return self._known[question]

    def _effort(self, spec: TrialSpec) -> Effort:
        row, in_tf32 = rate(spec.name, spec.preset, spec.origin), spec.precision in ("tf32", "bf16")
        if is_toml(spec.origin):
            return Effort(row, None, self.card)
        kept, again = (counted(spec.name, spec.preset, checkpointing) for checkpointing in (False, True))
        return Effort(row, kept, self.card, again, in_tf32)

    def _estimate(self, kind: Kind, effort: Effort, on_gpu: bool, reuses: bool, keeps_model: bool, work: Work) -> Cost:
        threads, row = 1 if on_gpu else self.threads, effort.row
        past = self._alike(kind, on_gpu, reuses)
        if not past:
            fit_s = 0.0 if reuses else row.fit_s or effort.fit_s(work, on_gpu) / threads
            rest_s = REST_S + effort.predict_s(work, on_gpu) / threads
            disk = BYTES_PER_TRIAL + BYTES_PER_VALUE * work.values + (row.model_mib * 2**20 if keeps_model else 0)
            gpu_memory = effort.gpu_bytes(work) if on_gpu else None
            basis: Literal["counted", "table"] = "counted" if on_gpu and effort.counted else "table"
            return Cost(fit_s + rest_s, int(row.memory_mib * 2**20), gpu_memory, int(disk), basis)
        near = sorted(past, key=lambda each: abs(math.log((each.work.spots or 1) / (work.spots or 1))))[:NEAREST]
        seconds = median(
            each.fit_s
            * (1 if on_gpu else (each.threads or threads) / threads)
            * _ratio(effort.fit_s(work, on_gpu), each.effort.fit_s(each.work, on_gpu))
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
            peak = effort.gpu_bytes(work) if on_gpu else row.memory_mib * 2**20
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
        return _past(spec, state, self._work(spec), self._effort(spec))

    def _work(self, spec: TrialSpec) -> Work:
        keys, sizes, mean = spec.data.keys, self._sizes, self._mean_size
        trained = [sizes.get(keys[name], mean) for name in spec.train]
        tested = [sizes.get(keys[name], mean) for name in spec.test]
        epochs, batch_size = spec.config.get("epochs"), spec.config.get("batch_size")
        return Work(
            train=tuple(size.n_spots for size in trained),
            test=tuple(size.n_spots for size in tested),
            n_genes=max(size.n_genes for size in tested),
            epochs=epochs if isinstance(epochs, int) else 1,
            batch_size=batch_size if isinstance(batch_size, int) else None,
            checkpointing=spec.execution.get(CHECKPOINTING),
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


def _past(spec: TrialSpec, state: EndedState, work: Work, effort: Effort) -> Past:
    whole = state.ended - state.started  # of the last attempt: earlier ones are in fit_s alone
    in_one_go = state.attempts in (None, 1)
    fit_s, predict_s = state.fit_s or 0.0, state.predict_s or 0.0
    model = {name: record for name, record in (state.files or {}).items() if name.partition("/")[0] in MAY_GO}
    return Past(
        work=work,
        effort=effort,
        on_gpu=state.device not in (None, "cpu"),
        reuses=bool(spec.trained_by or spec.model),
        threads=state.threads,
        fit_s=fit_s,
        rest_s=max(predict_s, whole - fit_s) if in_one_go else predict_s,
        peak_bytes=(state.peak_mem_mb or 0.0) * 2**20,
        disk_bytes=sum(record.size for name, record in (state.files or {}).items() if name not in model),
        model_bytes=sum(record.size for record in model.values()),
    )


def _ratio(wanted: float, known: float) -> float:
    """How many times as much; 1 where nothing was measured."""
    return wanted / known if known else 1.0


def _mean_size(sizes: Iterable[Size]) -> Size:
    """Of the slides that are known, for one that ``run.json`` lists no more, as it was prepared anew."""
    known = list(sizes)
    if not known:
        return Size(TYPICAL_SPOTS, 1000)
    return Size(round(fmean(size.n_spots for size in known)), round(fmean(size.n_genes for size in known)))
