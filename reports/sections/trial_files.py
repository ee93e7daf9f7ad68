"""Tables and logs that a section's trials left in their directories."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stbench.errors import UserError
from stbench.trials import outcome
from stbench.trials.state import FINAL_STATES

from .section import Run, Section, records

LOG_LINES = 15
UNENDED = ("pending", "running", "interrupted")
STATES = (*UNENDED, *FINAL_STATES)


def complete_trials(table: pd.DataFrame, run: Run) -> pd.DataFrame:
    """``table``, if it has the rows of all trials that ``run.json`` lists."""
    found = {key: set(rows["slice"]) for key, rows in table.groupby("key")}
    tested = {(section.protocol, fold.name): fold.test for section in run.record.sections for fold in section.folds}
    for key, trial in run.record.trials.items():
        lacking = set(tested.get((trial.identity.protocol, trial.identity.fold), ())).difference(found.get(key, ()))
        if key not in found or lacking:
            what = f"slice {', '.join(sorted(lacking))} of " if key in found else ""
            raise UserError(
                f"{run.directory / 'summary.csv'} has no row for {what}trial {key} ({trial.label}) - "
                f"'stbench report {run.directory}' writes it anew"
            )
    return table


def read_gene_tables(rows: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    table, without = _of_trials(rows, "genes.parquet")
    if table.empty:
        table = pd.DataFrame({"entry": [], "seed": [], "slice": [], "gene": [], "r": []}).astype({"r": float})
    return table, without


def trial_table(section: Section, name: str) -> pd.DataFrame:
    """``trials/KEY/NAME`` (csv or parquet) of all finished trials in one table, with ``entry`` and ``seed`` in front.

    Trials of an older version may not have it; a table without rows where none has. It is read once: whoever changes it
    takes a copy.
    """
    if name not in section.derived:
        section.derived[name] = _of_trials(section.rows, name)[0]
    table: pd.DataFrame = section.derived[name]
    return table


def _of_trials(rows: pd.DataFrame, name: str) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The tables, and the keys of the finished trials that have none."""
    parts, without = [], []
    finished = rows[rows["state"] == "finished"]
    tested = finished.groupby(["directory", "key"])["slice"].agg(list).to_dict()
    for row in records(finished.drop_duplicates("key")):
        part = outcome.read_table(Path(row.directory) / "trials" / row.key, name, tested[row.directory, row.key])
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


def read_notes(rows: pd.DataFrame) -> pd.DataFrame:
    """Alarms, and what methods noted while they ran: each once for each entry, with the number of trials."""
    said = []
    for row in records(rows.drop_duplicates("key")):
        state = outcome.read_ended(Path(row.directory) / "trials" / row.key)
        if state is not None:
            kinds = dict.fromkeys(alarm.kind for alarm in state.alarms or [])
            said += [(row.entry, f"alarm: {kind}") for kind in kinds]
            said += [(row.entry, note) for note in state.notes or []]
    table = pd.DataFrame(said, columns=["entry", "note"])
    return table.groupby(["entry", "note"], sort=False).size().rename("trials").reset_index()


def last_log_lines(rows: pd.DataFrame) -> dict[str, str]:
    logs = {}
    for row in records(rows[rows["state"] == "failed"].drop_duplicates("key")):
        path = Path(row.directory) / "trials" / row.key / "log.txt"
        if path.is_file():
            logs[row.key] = _last_lines(path)
    return logs


def _last_lines(path: Path, count: int = LOG_LINES, at_most: int = 65536) -> str:
    with open(path, "rb") as handle:
        handle.seek(0, 2)
        handle.seek(max(0, handle.tell() - at_most))
        lines = handle.read().decode("utf-8", errors="replace").splitlines()
    return "\n".join(lines[-count:])
