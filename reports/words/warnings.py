"""What a reader must know before believing a section's numbers."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from stbench.audit.leaks import badge as leak_badge

from ..numbers.means import replicates
from ..sections.section import PRESET_OF_OTHERS, Run, Section, records, slides
from .headline import PRESETS, leaks_of

NAMED = 6  # entries that a warning names; of more it gives the number


def unpublished(section: Section) -> pd.DataFrame:
    """The methods among the entries that ran in another preset than the published one; others' predictions aside."""
    entries = section.entries
    return entries[~entries["preset"].isin(["", "published", PRESET_OF_OTHERS]) & (entries["kind"] == "method")]


def badges(section: Section) -> list[tuple[str, str]]:
    """(text, tone) with tone ``good``, ``warn`` or ``plain``."""
    shared = replicates(section)["same_patient"]
    if shared.isna().any():
        replicate = ("replicates: not recorded", "warn")
    else:
        replicate = ("replicates in training", "warn") if (shared > 0).any() else ("patient-disjoint", "good")
    part = bool(section.expected) and len(section.slices) < len(section.expected)
    leaks = [(leak_badge(leaks_of(section)), "warn")] if leaks_of(section) else []
    return [(section.coverage, "warn" if part else "good"), replicate, *leaks]


def warnings(section: Section, board: pd.DataFrame) -> list[str]:
    """What stands against taking the numbers at their face, the gravest first; empty when nothing does."""
    found = [f"Leak: {who} - {what}. Its numbers are not ranked." for who, what in leaks_of(section).items()]
    rows, entries = section.rows, section.entries
    random = entries[entries["weights_kind"] == "random"]
    if len(random):
        found.append(
            f"Random encoder weights: {_names(random['title'])}. The published methods start from pretrained weights; "
            "these numbers say nothing about those."
        )
    for preset, part in unpublished(section).groupby("preset", sort=False):
        found.append(
            f"Preset {preset}, {PRESETS.get(str(preset), 'not the published settings')}: {_names(part['title'])}."
        )
    found += _precisions(section)
    if section.unrun_seeds:
        named = f"Seed{'s' if len(section.unrun_seeds) > 1 else ''} {', '.join(section.unrun_seeds)}"
        found.append(f"{named} of this run: planned, not run through by any method yet, and left out here.")
    states = rows.drop_duplicates("key")["state"].value_counts()
    unfinished = {str(state): int(count) for state, count in states.items() if state != "finished"}
    if unfinished:
        shown = ", ".join(f"{count} {state}" for state, count in unfinished.items())
        found.append(
            f"Of {int(states.sum())} trials not all finished: {shown} (reasons below). Means are over those that did."
        )
    short = board[~board["complete"]]
    if len(short):
        shown = ", ".join(f"{row.label} ({row.n_trials}/{row.of_trials} slices × seeds)" for row in records(short))
        found.append(f"Incomplete and therefore not ranked: {shown}.")
    shared = replicates(section)["same_patient"]
    if (shared > 0).any():
        found.append(
            f"Replicates in training: {int((shared > 0).sum())} of {len(shared)} test slices have other slices of "
            "the same patient in the training set. Leave-one-patient-out (--split lopo) avoids that."
        )
    if section.expected and len(section.slices) < len(section.expected):
        found.append(f"Only {section.coverage} of {section.title}: not comparable with numbers over all of them.")
    prepared = slides(section)
    coarse = {name: slide.image_level for name, slide in prepared.items() if slide.image_level != "full"}
    if coarse:
        shown = ", ".join(f"{name} ({level})" for name, level in coarse.items())
        found.append(f"Patches come from a downsampled image, not from full resolution: {shown}.")
    padded = {name: slide.n_padded for name, slide in prepared.items() if slide.n_padded}
    if padded:
        rule = next((recorded.padding for recorded in section.recorded if recorded.padding), "")
        shown = ", ".join(f"{name} ({count})" for name, count in padded.items())
        found.append(f"{sum(padded.values())} patches cross the image's border{f'; {rule}' if rule else ''}: {shown}.")
    found += dict.fromkeys(notice for recorded in section.recorded for notice in recorded.notices)
    for note, said in section.notes.groupby("note", sort=False):
        labels = entries.loc[said["entry"], "label"]
        whose = ", ".join(labels) if len(labels) <= NAMED else f"{len(labels)} of {len(entries)} entries"
        n_trials = int(said["trials"].sum())
        found.append(f"{whose}: {note} ({n_trials} trial{'s' if n_trials != 1 else ''}).")
    n_superseded = sum(_n_superseded(section, run) for run in section.runs)
    if n_superseded:
        found.append(
            f"{n_superseded} earlier trial{'s' if n_superseded != 1 else ''} of the same methods, slices and seeds, "
            "with other code, data or precision, no longer counted and not shown."
        )
    if section.without_genes:
        found.append(
            f"{len(section.without_genes)} finished trials have no per-gene table, so the box plots leave them out: "
            f"{', '.join(section.without_genes[:5])}{' …' if len(section.without_genes) > 5 else ''}."
        )
    return found


def _precisions(section: Section) -> list[str]:
    """Where the methods of a section did not all compute in the same arithmetic, or not in the published codes'."""
    finished = section.rows[(section.rows["state"] == "finished") & (section.rows["kind"] == "method")]
    known = finished[finished["precision"] != ""].drop_duplicates("key")
    titles = {
        arithmetic: dict.fromkeys(part["title"])
        for arithmetic, part in known.groupby(["precision", "tf32"], sort=False)
    }
    said = {arithmetic: _arithmetic(*map(str, arithmetic)) for arithmetic in titles}
    if len(titles) > 1:
        shown = "; ".join(f"{said[arithmetic]}: {', '.join(whose)}" for arithmetic, whose in titles.items())
        return [f"Several precisions in one table, so that a difference may be one of rounding: {shown}."]
    lowered = [words for (precision, _), words in said.items() if precision != "fp32"]
    return [f"Computed in {words}, where the published code computes in float32." for words in lowered]


def _arithmetic(precision: str, tf32: str) -> str:
    if precision == "tf32":
        return "TF32"
    return f"{precision}, with {tf32} in TF32" if tf32 else precision


def _n_superseded(section: Section, run: Run) -> int:
    """Trials of the section that ended, and that a later plan of the run replaced."""
    protocol = (section.dataset, section.split, section.target)
    return sum(
        trial.identity.protocol == protocol and (run.directory / "trials" / key).is_dir()
        for key, trial in run.record.superseded.items()
    )


def _names(titles: Sequence[str] | pd.Series) -> str:
    return ", ".join(dict.fromkeys(map(str, titles)))
