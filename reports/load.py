"""Results directories as tidy tables: one section for each (dataset, split, target), never two protocols in one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stbench import exchange, run_record, trial_files
from stbench.errors import UserError
from stbench.tables import numbers, read_csv, read_text

from .style import PUBLISHED

METRIC_COLUMNS = ("pcc_acg", "pcc_heg", "mse", "mae", "strict_pcc_acg", "strict_pcc_heg")
REQUIRED = (
    *("key", "dataset", "split", "target", "method", "title", "kind", "seed", "slice", "state"),
    *METRIC_COLUMNS[:4],
)
TEXT = (
    *("fold", "oracle", "preset", "variant", "weights", "patient", "device", "precision", "tf32", "reason"),
    *("trained_by", "leak"),
)
NUMBERS = (
    *METRIC_COLUMNS,
    *exchange.COLUMNS,
    *("n_spots", "n_genes", "n_constant_truth", "n_constant_prediction", "same_patient_training_slices"),
    *("fit_s", "predict_s", "peak_mem_mb", "n_parameters"),
)
LOG_LINES = 15
UNENDED = ("pending", "running", "interrupted")
STATES = (*UNENDED, *trial_files.FINAL_STATES)


@dataclass(frozen=True)
class Run:
    """One results directory: its name and what ``run.json`` says (empty where it says nothing)."""

    directory: Path
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        return self.directory.name


@dataclass(frozen=True)
class Section:
    """Everything that may stand in one table: one dataset, one split, one target.

    ``rows``: one a trial and test slice, columns of ``summary.csv`` and ``entry``. ``entries``: one a row of the table
    to be (a method under one preset, variant, kind of weights and precision), indexed by ``entry``, in the order of the
    table: published methods as in the paper, other methods, controls, oracles. ``genes``: entry, seed and the columns
    of the trials' ``genes.parquet`` (slice, gene, r, p, strict_r, mean_truth, ...).
    """

    dataset: str
    split: str
    target: str
    title: str
    formula: str
    rows: pd.DataFrame
    entries: pd.DataFrame
    genes: pd.DataFrame
    slices: tuple[str, ...]  # test slices, in fold order
    patients: Mapping[str, str]
    expected: tuple[str, ...]  # all slices of the dataset, in fold order; empty: unknown
    missing: Mapping[str, str]  # slice to the reason why it is not there
    facts: tuple[Mapping[str, Any], ...]  # what each run says of this section
    runs: tuple[Run, ...]
    notes: pd.DataFrame  # entry, note, trials: what methods had to tell
    logs: Mapping[str, str]  # key of a failed trial to the last lines of its log
    without_genes: tuple[str, ...]  # keys of finished trials that have no per-gene table
    unrun_seeds: tuple[str, ...] = ()  # planned, and not run through by any entry yet: their rows are left out

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.split}-{self.target}"

    @property
    def coverage(self) -> str:
        """``6/32 slices``; ``6 slices`` where the dataset's full number is not known."""
        of = f"/{len(self.expected)}" if self.expected else ""
        return f"{len(self.slices)}{of} slice{'' if not of and len(self.slices) == 1 else 's'}"


def load(results: Sequence[Path], summaries: Mapping[Path, str] | None = None) -> list[Section]:
    """Read one or several results directories.

    Directories of one section are merged; a trial that is in two counts once. ``summaries``: what ``summary.csv`` of a
    directory would hold if it could be written anew; the file itself is read where there is none.

    Raises ``UserError`` for what is not a results directory, for an unreadable table, and where two directories hold
    different outcomes under one name.
    """
    rows, runs = read(results, summaries)
    return sections(_one_row_a_trial(rows), runs)


def read(results: Sequence[Path], summaries: Mapping[Path, str] | None = None) -> tuple[pd.DataFrame, dict[Path, Run]]:
    """The rows of all ``summary.csv`` with the ``directory`` that each is from, a trial's copies left out; the runs."""
    if not results:
        raise UserError("no results directory was named - give the folder that 'stbench run' wrote")
    directories = list(dict.fromkeys(Path(path).resolve() for path in results))
    runs = {directory: Run(directory, _facts(directory)) for directory in directories}
    contents = {Path(place).resolve(): content for place, content in (summaries or {}).items()}
    tables = [_complete(_summary(run.directory, contents.get(run.directory)), run) for run in runs.values()]
    return _without_copies(pd.concat(tables, ignore_index=True)), runs


def sections(rows: pd.DataFrame, runs: Mapping[Path, Run], with_genes: bool = True) -> list[Section]:
    """``rows`` and ``runs``: of :func:`read`, one row a trial and slice; a column ``version`` tells entries apart."""
    protocols = rows.groupby(["dataset", "split", "target"], sort=False)
    return [_section(part.copy(), runs, with_genes) for _, part in protocols]


def _facts(directory: Path) -> dict[str, Any]:
    path = directory / "run.json"
    if not path.is_file():
        return {}
    return run_record.read(path)


def _summary(directory: Path, content: str | None) -> pd.DataFrame:
    path = directory / "summary.csv"
    if content is None and not path.is_file():
        raise UserError(
            f"{directory} is not a results directory (it has no summary.csv) - name one that 'stbench run' wrote"
        )
    anew = f"'stbench report {directory}' writes it anew"
    table = read_text(path, anew, content)
    absent = [name for name in REQUIRED if name not in table.columns]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)} - {anew}")
    strange = set(table["state"]).difference(STATES)
    if strange or not (path.read_text(encoding="utf-8") if content is None else content).endswith("\n"):
        raise UserError(f"{path} was cut or changed - {anew}")
    if table.empty:
        raise UserError(f"{path} has no trials - run 'stbench run' with at least one method and slice")
    for name in TEXT:
        table[name] = table[name] if name in table.columns else ""
    for name in NUMBERS:
        table[name] = numbers(table[name], path).astype(float) if name in table.columns else np.nan
    # who is shown the truth is no competitor, whether it is a control by design or a method by a leak
    table["oracle"] = (table["oracle"].str.lower() == "true") | (table["leak"] != "")
    table["directory"] = str(directory)
    # trials before the precision was resolved at planning have "auto" where nothing was computed
    table["lowered"] = table["precision"].where(~table["precision"].isin(["fp32", "auto"]), "")
    return table


def _complete(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """``table``, if it has the rows of all trials that ``run.json`` lists."""
    found = {key: set(rows["slice"]) for key, rows in table.groupby("key")}
    tested = {
        (*name.split("|"), fold["name"]): fold["test"]
        for name, section in run.facts.get("sections", {}).items()
        for fold in section.get("folds", ())
    }
    for key, trial in run.facts.get("trials", {}).items():
        dataset, target, split, fold = (*trial["identity"], "", "", "", "")[:4]
        lacking = set(tested.get((dataset, split, target, fold), ())).difference(found.get(key, ()))
        if key not in found or lacking:
            what = f"slice {', '.join(sorted(lacking))} of " if key in found else ""
            raise UserError(
                f"{run.directory / 'summary.csv'} has no row for {what}trial {key} ({trial['label']}) - "
                f"'stbench report {run.directory}' writes it anew"
            )
    return table


def _without_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one of the copies of a trial, if possible a finished one."""
    trial = ["dataset", "split", "target", "key", "slice"]  # one trial may answer for two splits
    finished_first = rows.assign(_rank=(rows["state"] != "finished").astype(int)).sort_values("_rank", kind="stable")
    return finished_first.drop_duplicates(trial).sort_index().drop(columns="_rank").reset_index(drop=True)


def _one_row_a_trial(rows: pd.DataFrame) -> pd.DataFrame:
    """``rows``, if no two of them are different outcomes under one name."""
    question = ["dataset", "split", "target", "method", "preset", "variant", "lowered", "seed", "slice"]
    for (*_, method, _preset, _variant, _lowered, seed, slide), same in rows.groupby(question, sort=False):
        if len(set(same["key"])) > 1:
            places = " and ".join(
                f"{Path(at).name} ({key})" for at, key in zip(same["directory"], same["key"], strict=True)
            )
            raise UserError(
                f"{method} on slice {slide}, seed {seed}, has different trials in {places}: they differ in code or "
                "data - report them apart"
            )
    size = rows.groupby(["dataset", "split", "target", "slice"], sort=False)[["n_spots", "n_genes"]].nunique()
    if (size > 1).any(axis=None):
        dataset, _, _, slide = size.index[(size > 1).any(axis=1)][0]
        raise UserError(
            f"slice {slide} of {dataset} was scored with different spots or genes in these results - report them apart"
        )
    return rows


def _section(rows: pd.DataFrame, runs: Mapping[Path, Run], with_genes: bool) -> Section:
    dataset, split, target = (str(rows.iloc[0][name]) for name in ("dataset", "split", "target"))
    rows, unrun_seeds = _without_unrun_seeds(rows)
    involved = [runs[Path(directory)] for directory in rows["directory"].drop_duplicates()]
    facts = [run.facts.get("sections", {}).get(f"{dataset}|{split}|{target}", {}) for run in involved]
    about = [part.get("dataset", {}) for part in facts]
    expected = next((tuple(map(str, part["slices_expected"])) for part in about if part.get("slices_expected")), ())
    tested = list(rows["slice"].drop_duplicates())
    slices = tuple([name for name in expected if name in tested] + [name for name in tested if name not in expected])
    missing = {
        str(name): str(why) for part in about for name, why in part.get("missing", {}).items() if name not in tested
    }
    entries, rows["entry"] = _entries(rows)
    genes, without_genes = _genes(rows if with_genes else rows.iloc[:0])
    return Section(
        dataset=dataset,
        split=split,
        target=target,
        title=next((str(part["title"]) for part in about if part.get("title")), dataset),
        formula=next((str(part["target"]["formula"]) for part in facts if part.get("target", {}).get("formula")), ""),
        rows=rows,
        entries=entries,
        genes=genes,
        slices=slices,
        patients=dict(zip(rows["slice"], rows["patient"], strict=True)),
        expected=expected,
        missing=missing,
        facts=tuple(facts),
        runs=tuple(involved),
        notes=_notes(rows),
        logs=_logs(rows),
        without_genes=without_genes,
        unrun_seeds=unrun_seeds,
    )


def _without_unrun_seeds(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows but for those of seeds that no method has run through yet, and those seeds.

    Where further seeds of a run are still to come, the seeds that are there can be compared already. Where no seed is
    complete, all rows stay.
    """
    waiting = rows["state"].isin(UNENDED)
    entry = ["method", "preset", "variant", "weights", "lowered"]
    has_wait = waiting.groupby([rows["seed"], *(rows[name] for name in entry)]).any()
    unrun = has_wait.groupby(level="seed").all()
    if unrun.all() or not unrun.any():
        return rows, ()
    gone = unrun.index[unrun]
    return rows[~rows["seed"].isin(gone)].copy(), tuple(map(str, gone))


def _entries(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    identity = ["method", "preset", "variant", "weights", "lowered", *(["version"] if "version" in rows else [])]
    table = rows.drop_duplicates(identity)[[*identity, "title", "kind", "oracle", "leak"]].reset_index(drop=True)
    published = list(PUBLISHED)

    def place(row: Any) -> tuple[int, int, int]:
        if row.kind == "control":
            return (2, int(row.oracle), row.Index)
        return (0, published.index(row.method), row.Index) if row.method in published else (1, 0, row.Index)

    table = table.iloc[[row.Index for row in sorted(records(table), key=place)]].reset_index(drop=True)
    table["tags"] = [_tags(row) for row in records(table)]
    brief = [_named(row.title, _warning_tags(row)) for row in records(table)]
    full = [_named(row.title, row.tags) for row in records(table)]
    table["label"] = [long if brief.count(short) > 1 else short for short, long in zip(brief, full, strict=True)]
    table["entry"] = [
        "/".join(filter(None, (row.method, row.preset, row.variant, row.weights, row.lowered, _version(row))))
        for row in records(table)
    ]
    names = rows[identity].merge(table[[*identity, "entry"]], on=identity, how="left")["entry"]
    return table.set_index("entry"), names.set_axis(rows.index)


def _tags(row: Any) -> tuple[str, ...]:
    """What must stand beside a method's name: oracle, preset, changes to it, weights, a precision below float32."""
    preset = "" if row.kind == "control" and row.preset == "published" else row.preset
    weights = f"weights: {row.weights}" if row.weights not in ("", "none") else ""
    return tuple(filter(None, (_oracle_tag(row), preset, row.variant, weights, row.lowered, _version(row))))


def _warning_tags(row: Any) -> tuple[str, ...]:
    """The part of the tags that changes what a number means; figures have room for no more."""
    random = "random weights" if row.weights.startswith("random") else ""
    # a control has no published settings to depart from
    preset = row.preset if row.kind != "control" and row.preset not in ("", "published") else ""
    return tuple(filter(None, (_oracle_tag(row), preset, row.variant, random, row.lowered, _version(row))))


def _version(row: Any) -> str:
    return str(getattr(row, "version", ""))


def _oracle_tag(row: Any) -> str:
    if row.leak:
        return "leak"
    return "oracle" if row.oracle and "oracle" not in row.title.lower() else ""


def _named(title: str, tags: Sequence[str]) -> str:
    return f"{title} ({', '.join(tags)})" if tags else title


def _genes(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    table, without = _of_trials(rows, "genes.parquet")
    if table.empty:
        table = pd.DataFrame({"entry": [], "seed": [], "slice": [], "gene": [], "r": []}).astype({"r": float})
    return table, without


def trial_table(section: Section, name: str) -> pd.DataFrame:
    """``trials/KEY/NAME`` (csv or parquet) of all finished trials in one table, with ``entry`` and ``seed`` in front.

    Trials of an older version may not have it; a table without rows where none has.
    """
    return _of_trials(section.rows, name)[0]


def _of_trials(rows: pd.DataFrame, name: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The tables, and the keys of the finished trials that have none."""
    parts, without = [], []
    finished = rows[rows["state"] == "finished"]
    tested = finished.groupby(["directory", "key"])["slice"].agg(list).to_dict()
    for row in records(finished.drop_duplicates("key")):
        part = trial_files.read_table(Path(row.directory) / "trials" / row.key, name, tested[row.directory, row.key])
        if part is None:
            without.append(row.key)
            continue
        part.insert(0, "entry", row.entry)
        part.insert(1, "seed", row.seed)
        parts.append(part)
    if not parts:
        return pd.DataFrame(), tuple(without)
    table = pd.concat(parts, ignore_index=True)
    return table.astype({"slice": str}), tuple(without)


def evidence(section: Section, name: str) -> list[Path]:
    """The files ``evidence/NAME`` of the section's runs: facts about the data, written before anything is trained."""
    paths = [run.directory / "evidence" / name for run in section.runs]
    return [path for path in paths if path.is_file()]


def _notes(rows: pd.DataFrame) -> pd.DataFrame:
    """Alarms, and what methods noted while they ran: each once for each entry, with the number of trials."""
    said = []
    for row in records(rows.drop_duplicates("key")):
        state = trial_files.read_ended(Path(row.directory) / "trials" / row.key)
        if state is not None:
            kinds = dict.fromkeys(str(alarm["kind"]) for alarm in state.get("alarms") or [])
            said += [(row.entry, f"alarm: {kind}") for kind in kinds]
            said += [(row.entry, str(note)) for note in state.get("notes") or []]
    table = pd.DataFrame(said, columns=["entry", "note"])
    return table.groupby(["entry", "note"], sort=False).size().rename("trials").reset_index()


def _logs(rows: pd.DataFrame) -> dict[str, str]:
    logs = {}
    for row in records(rows[rows["state"] == "failed"].drop_duplicates("key")):
        for place in ("trials", "running"):
            path = Path(row.directory) / place / row.key / "log.txt"
            if path.is_file():
                logs[row.key] = _last_lines(path)
                break
    return logs


def _last_lines(path: Path, count: int = LOG_LINES, at_most: int = 65536) -> str:
    with open(path, "rb") as handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - at_most))
        lines = handle.read().decode("utf-8", errors="replace").splitlines()
    return "\n".join(lines[-count:])


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples, whose fields have the columns' types."""
    yield from frame.itertuples()


def published() -> pd.DataFrame:
    """Numbers as printed in papers: dataset, split, metric, method, mean, spread, source, note. Shown, never a gate."""
    names = ("dataset", "split", "metric", "method", "source", "note")
    return read_csv(Path(__file__).with_name("published.csv"), names)  # a spread may be blank


def describe(value: Any) -> str:
    """A fact of ``run.json`` as one line of text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
