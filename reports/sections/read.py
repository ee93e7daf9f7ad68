"""Results directories as tidy tables: one section for each (dataset, split, target), never two protocols in one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from stbench.errors import UserError
from stbench.results.record import read_run
from stbench.results.summary_schema import require_columns, typed
from stbench.system.tables import read_text

from .entries import entries_of, with_entry
from .section import Run, Section
from .specs import specs_of_entries, specs_of_rows, weights_kind
from .trial_files import STATES, UNENDED, complete_trials, last_log_lines, read_gene_tables, read_notes


def load(results: Sequence[Path], summaries: Mapping[Path, str] | None = None) -> list[Section]:
    """Read one or several results directories.

    Directories of one section are merged; a trial that is in two counts once. ``summaries``: what ``summary.csv`` of a
    directory would hold if it could be written anew; the file itself is read where there is none.

    Raises ``UserError`` for what is not a results directory, for an unreadable table, and where two directories hold
    different outcomes under one name.
    """
    rows, runs = read(results, summaries)
    return sections(_one_row_per_trial(rows), runs)


def read(results: Sequence[Path], summaries: Mapping[Path, str] | None = None) -> tuple[pd.DataFrame, dict[Path, Run]]:
    """The rows of all ``summary.csv`` with the ``directory`` that each is from, a trial's copies left out; the runs."""
    if not results:
        raise UserError("no results directory was named - give the folder that 'stbench run' wrote")
    directories = list(dict.fromkeys(Path(path).resolve() for path in results))
    runs = {directory: Run(directory, read_run(directory)) for directory in directories}
    contents = {Path(place).resolve(): content for place, content in (summaries or {}).items()}
    tables = [complete_trials(_summary(run.directory, contents.get(run.directory)), run) for run in runs.values()]
    rows = _without_copies(pd.concat(tables, ignore_index=True))
    return rows.assign(weights_kind=[weights_kind(spec) for spec in specs_of_rows(rows)], version=""), runs


def sections(rows: pd.DataFrame, runs: Mapping[Path, Run], with_genes: bool = True) -> list[Section]:
    """``rows`` and ``runs``: of :func:`read`, one row per trial and slice; a column ``version`` tells entries apart."""
    protocols = rows.groupby(["dataset", "split", "target"], sort=False)
    return [_section(part.copy(), runs, with_genes) for _, part in protocols]


def _summary(directory: Path, content: str | None) -> pd.DataFrame:
    path = directory / "summary.csv"
    if content is None and not path.is_file():
        raise UserError(
            f"{directory} is not a results directory (it has no summary.csv) - name one that 'stbench run' wrote"
        )
    anew = f"'stbench report {directory}' writes it anew"
    table = read_text(path, anew, content)
    require_columns(table, path, anew)
    strange = set(table["state"]).difference(STATES)
    if strange or not (path.read_text(encoding="utf-8") if content is None else content).endswith("\n"):
        raise UserError(f"{path} was cut or changed - {anew}")
    if table.empty:
        raise UserError(f"{path} has no trials - run 'stbench run' with at least one method and slice")
    table = typed(table, path, anew)
    # who is shown the truth is no competitor, whether it is a control by design or a method by a leak
    table["oracle"] |= table["leak"] != ""
    table["directory"] = str(directory)
    table["lowered"] = table["precision"].where(table["precision"] != "fp32", "")
    return table


def _without_copies(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep one of the copies of a trial, if possible a finished one."""
    trial = ["dataset", "split", "target", "key", "slice"]  # one trial may answer for two splits
    finished_first = rows.assign(_rank=(rows["state"] != "finished").astype(int)).sort_values("_rank", kind="stable")
    return finished_first.drop_duplicates(trial).sort_index().drop(columns="_rank").reset_index(drop=True)


def _one_row_per_trial(rows: pd.DataFrame) -> pd.DataFrame:
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
    recorded = [part for run in involved if (part := run.record.section(dataset, split, target)) is not None]
    about = [part.dataset for part in recorded]
    expected = next((part.slices_expected for part in about if part.slices_expected), ())
    tested = list(rows["slice"].drop_duplicates())
    slices = tuple([name for name in expected if name in tested] + [name for name in tested if name not in expected])
    missing = {name: why for part in about for name, why in part.missing.items() if name not in tested}
    entries = entries_of(rows)
    rows = with_entry(rows, entries)
    genes, without_genes = read_gene_tables(rows if with_genes else rows.iloc[:0])
    return Section(
        dataset=dataset,
        split=split,
        target=target,
        title=next((part.title for part in about if part.title), dataset),
        formula=next((part.target.formula for part in recorded if part.target.formula), ""),
        rows=rows,
        entries=entries,
        specs=specs_of_entries(rows),
        genes=genes,
        slices=slices,
        patients=dict(zip(rows["slice"], rows["patient"], strict=True)),
        expected=expected,
        missing=missing,
        recorded=tuple(recorded),
        runs=tuple(involved),
        notes=read_notes(rows),
        logs=last_log_lines(rows),
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
