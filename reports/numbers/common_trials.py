"""Who stands where: entries ranked on the trials that all of them finished, and their ranks across sections."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..sections.section import Run, Section
from .means import slice_scores
from .metrics import METRICS

Trial = tuple[str, str]  # slice and seed


@dataclass(frozen=True)
class Standings:
    """A section's entries on its common trials.

    ``table``, indexed by entry in the order of the section's entries, has their columns and ``n_slices`` (slices that a
    seed finished on), ``n_trials`` (slices × seeds finished), ``n_common`` (of the common trials: all or, where the
    entry lacks one, 0), ``ranked``, and for each metric M ``M`` (mean over slices of the mean over seeds), ``M_sd``
    (standard deviation over slices, n - 1) and ``M_rank`` (1 is best, equals share the better rank; of the ranked
    entries on whose common trials the metric is defined everywhere).
    """

    section: Section
    common: frozenset[Trial]
    table: pd.DataFrame

    @property
    def pool(self) -> str:
        """What is ranked: methods; where there is none, the controls that are no oracle."""
        return "method" if (self.table["kind"] == "method").any() else "control"


def standings(section: Section) -> Standings:
    finished = section.rows[section.rows["state"] == "finished"]
    trials = {str(entry): _trials(part) for entry, part in finished.groupby("entry", sort=False)}
    table = section.entries.copy()
    methods = table.index[(table["kind"] == "method") & ~table["oracle"]]
    pool = methods if len(methods) else table.index[~table["oracle"]]
    ranked, common = share_trials({entry: trials.get(entry, frozenset()) for entry in pool}, len(section.slices))
    table["n_slices"] = [len({slide for slide, _ in trials.get(entry, ())}) for entry in table.index]
    table["n_trials"] = [len(trials.get(entry, ())) for entry in table.index]
    table["n_common"] = [len(common) if common and common <= trials.get(entry, set()) else 0 for entry in table.index]
    table["ranked"] = table.index.isin(ranked)
    pairs = pd.Series(list(zip(finished["slice"], finished["seed"], strict=True)), index=finished.index, dtype=object)
    by_slice = slice_scores(finished[pairs.isin(common) & finished["entry"].isin(table.index[table["n_common"] > 0])])
    for metric in METRICS.values():
        values = by_slice.groupby("entry")[metric.name]
        defined = values.count().reindex(table.index) == values.size().reindex(table.index)
        table[metric.name] = values.mean().reindex(table.index).where(defined)
        table[f"{metric.name}_sd"] = values.std(ddof=1).reindex(table.index).where(defined)
        values_ranked = table[metric.name].where(table["ranked"])
        table[f"{metric.name}_rank"] = values_ranked.rank(method="min", ascending=not metric.higher_is_better)
    return Standings(section, common, table)


def share_trials(finished: Mapping[str, Iterable[Trial]], n_slices: int) -> tuple[list[str], frozenset[Trial]]:
    """The entries that can be ranked together, and the trials that all of them finished.

    Entries join in the order of how many trials they finished, as long as the trials that are then common to all cover
    at least half of the section's slices. So none that finished less than half is ranked, and one that ran with other
    seeds does not take the others' ranks away.
    """
    sets = {entry: frozenset(trials) for entry, trials in finished.items()}
    ranked: list[str] = []
    common: frozenset[Trial] = frozenset()
    for entry in sorted(sets, key=lambda entry: -len(sets[entry])):
        shared = sets[entry] & common if ranked else sets[entry]
        covered = len({slide for slide, _ in shared})
        if covered and 2 * covered >= n_slices:
            ranked, common = [*ranked, entry], shared
    return ranked, common


def overview(all_standings: Sequence[Standings], metric: str) -> pd.DataFrame:
    """One row for each method, preset, variant, weights and precision that is ranked somewhere.

    Of a method's versions the newest counts. Controls, which are ranked where there is no method, are listed only where
    no section ranks methods.

    Columns: ``title`` and ``tags``, for each section's name the rank there (NaN: not ranked), and ``mean_rank``, over
    the sections in which every row has a rank (``attrs["sections"]``; NaN where there is none).
    """
    ranks: dict[str, dict[tuple[str, ...], float]] = {}
    named: dict[tuple[str, ...], tuple[str, tuple[str, ...]]] = {}
    kind = "method" if any(standing.pool == "method" for standing in all_standings) else "control"
    for standing in all_standings:
        here = ranks[standing.section.name] = {}
        for entry in _newest_last(standing):
            if entry["kind"] == kind and not math.isnan(entry[f"{metric}_rank"]):
                who = tuple(str(entry[name]) for name in ("method", "preset", "variant", "weights", "lowered"))
                here[who] = float(entry[f"{metric}_rank"])
                named[who] = (str(entry["title"]), tuple(tag for tag in entry["tags"] if tag != entry["version"]))
    table = pd.DataFrame(list(named.values()), columns=["title", "tags"])
    for name, here in ranks.items():
        table[name] = [here.get(who, np.nan) for who in named]
    shared = [name for name in ranks if table[name].notna().all()] if named else []
    table["mean_rank"] = table[shared].mean(axis=1) if shared else np.nan
    table = table.sort_values(["mean_rank", *ranks], kind="stable").reset_index(drop=True)
    table.attrs["sections"] = shared
    return table


def _newest_last(standing: Standings) -> list[pd.Series]:
    rows = standing.section.rows
    created = {str(run.directory): run.record.created for run in standing.section.runs}
    age = rows["directory"].map(created).groupby(rows["entry"]).max()
    return [standing.table.loc[entry] for entry in sorted(standing.table.index, key=lambda entry: str(age[entry]))]


def tidy(all_standings: Sequence[Standings]) -> pd.DataFrame:
    """One row for each section, entry and metric, with the runs that the entry comes from."""
    parts = []
    for standing in all_standings:
        section = standing.section
        about = runs_of(section)
        for metric in METRICS:
            part = pd.DataFrame(
                {
                    "dataset": section.dataset,
                    "split": section.split,
                    "target": section.target,
                    "method": standing.table["method"],
                    "entry": standing.table.index,
                    "metric": metric,
                    "mean": standing.table[metric],
                    "sd": standing.table[f"{metric}_sd"],
                    "n_slices": standing.table["n_slices"],
                    "n_common": standing.table["n_common"],
                    "rank": standing.table[f"{metric}_rank"].astype("Int64"),
                    "kind": standing.table["kind"],
                }
            )
            parts.append(part.join(about))
    return pd.concat(parts, ignore_index=True)[
        [
            "dataset",
            "split",
            "target",
            "method",
            "entry",
            "metric",
            "mean",
            "sd",
            "n_slices",
            "n_common",
            "rank",
            "run",
            "created",
            "versions",
            "machine",
            "kind",
        ]
    ]


def runs_of(section: Section) -> pd.DataFrame:
    """Indexed by entry: the names, dates, library versions and machines of the runs that it comes from, as text.

    ``where`` is short: the day, and the processor or system.
    """
    facts = {str(run.directory): run for run in section.runs}
    described = {}
    for entry, directories in section.rows.groupby("entry", sort=False)["directory"].unique().items():
        runs = [facts[directory] for directory in directories]
        described[entry] = {
            "run": "; ".join(run.name for run in runs),
            "where": "; ".join(dict.fromkeys(_where(run) for run in runs)),
            **{
                name: "; ".join(dict.fromkeys(_text(getattr(run.record, name)) for run in runs))
                for name in ("created", "versions", "machine")
            },
        }
    return pd.DataFrame.from_dict(described, orient="index")


def _where(run: Run) -> str:
    machine = run.record.machine
    hardware = machine.get("processor") or machine.get("system") or ""
    return ", ".join(filter(None, (run.record.created[:10], str(hardware))))


def _text(fact: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in fact.items()) if isinstance(fact, Mapping) else str(fact)


def _trials(finished: pd.DataFrame) -> frozenset[Trial]:
    return frozenset(zip(finished["slice"], finished["seed"], strict=True))
