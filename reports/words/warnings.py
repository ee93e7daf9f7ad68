"""What a reader must know before believing a section's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import pandas as pd

from stbench.audit.leaks import badge as leak_badge
from stbench.audit.patients import DISJOINT, REPLICATES
from stbench.data.transfer import ALL
from stbench.system.wording import shortened

from ..numbers.means import replicates
from ..sections.section import PRESET_OF_OTHERS, Run, Section, records, slides, transfer, windows
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
        replicate = (REPLICATES, "warn") if (shared > 0).any() else (DISJOINT, "good")
    part = bool(section.expected) and len(section.slices) < len(section.expected)
    leaks = [(leak_badge(leaks_of(section)), "warn")] if leaks_of(section) else []
    across = transfer(section)
    sides = [] if across is None else [(f"trained on {across.trained_title}, tested on {across.tested_title}", "plain")]
    return [*sides, (section.coverage, "warn" if part else "good"), replicate, *leaks]


def warnings(section: Section, board: pd.DataFrame) -> list[str]:
    """What stands against taking the numbers at their face, the gravest first; empty when nothing does."""
    return [warning for warn in WARNINGS for warning in warn(section, board)]


def _leaks(section: Section, board: pd.DataFrame) -> Iterator[str]:
    for who, what in leaks_of(section).items():
        yield f"Leak: {who} - {what}. Its numbers are not ranked."


def _transfer(section: Section, board: pd.DataFrame) -> Iterator[str]:
    across = transfer(section)
    if across is None:
        return
    if not across.trained_here:
        yield (
            f"The slices of {across.trained_title} that the models were trained on were not at hand: no control could "
            "be trained on them, strict PCC (HEG) is not known, and copies of tested slices among them were not "
            "looked for."
        )
    models = sorted(set(section.rows.loc[section.rows["fold"] != ALL, "seed"]))
    if models:
        yield (
            f"Trained models are tested, {len(models)} of each method at most ({_shortened(models)}: fold and seed). "
            "Each is a repetition, as a seed is elsewhere: a mean over seeds here is one over them, and models of "
            "different folds differ in their training slices too."
        )


def _random_weights(section: Section, board: pd.DataFrame) -> Iterator[str]:
    random = section.entries[section.entries["weights_kind"] == "random"]
    if len(random):
        yield (
            f"Random encoder weights: {_names(random['title'])}. The published methods start from pretrained weights; "
            "these numbers say nothing about those."
        )


def _presets(section: Section, board: pd.DataFrame) -> Iterator[str]:
    for preset, entries in unpublished(section).groupby("preset", sort=False):
        yield f"Preset {preset}, {PRESETS.get(str(preset), 'not the published settings')}: {_names(entries['title'])}."


def _precisions(section: Section, board: pd.DataFrame) -> Iterator[str]:
    """Where the methods of a section did not all compute in the same arithmetic, or not in the published codes'."""
    finished = section.rows[(section.rows["state"] == "finished") & (section.rows["kind"] == "method")]
    known = finished[finished["precision"] != ""].drop_duplicates("key")
    titles = {
        arithmetic: dict.fromkeys(trials["title"])
        for arithmetic, trials in known.groupby(["precision", "tf32"], sort=False)
    }
    said = {arithmetic: _arithmetic(*map(str, arithmetic)) for arithmetic in titles}
    if len(titles) > 1:
        shown = "; ".join(f"{said[arithmetic]}: {', '.join(whose)}" for arithmetic, whose in titles.items())
        yield f"Several precisions in one table, so that a difference may be one of rounding: {shown}."
        return
    for (precision, _), words in said.items():
        if precision != "fp32":
            yield f"Computed in {words}, where the published code computes in float32."


def _unrun_seeds(section: Section, board: pd.DataFrame) -> Iterator[str]:
    seeds = section.unrun_seeds
    if seeds:
        named = f"Seed{'s' if len(seeds) > 1 else ''} {', '.join(seeds)}"
        yield f"{named} of this run: planned, not run through by any method yet, and left out here."


def _unfinished(section: Section, board: pd.DataFrame) -> Iterator[str]:
    states = section.rows.drop_duplicates("key")["state"].value_counts()
    unfinished = [f"{count} {state}" for state, count in states.items() if state != "finished"]
    if unfinished:
        yield (
            f"Of {int(states.sum())} trials not all finished: {', '.join(unfinished)} (reasons below). Means are over "
            "those that did."
        )


def _incomplete(section: Section, board: pd.DataFrame) -> Iterator[str]:
    short = [
        f"{row.label} ({row.n_trials}/{row.of_trials} slices × seeds)" for row in records(board[~board["complete"]])
    ]
    if short:
        yield f"Incomplete and therefore not ranked: {', '.join(short)}."


def _replicates(section: Section, board: pd.DataFrame) -> Iterator[str]:
    shared = replicates(section)["same_patient"]
    if (shared > 0).any():
        yield (
            f"Replicates in training: {int((shared > 0).sum())} of {len(shared)} test slices have other slices of "
            "the same patient in the training set. Leave-one-patient-out (--split lopo) avoids that."
        )


def _few_slices(section: Section, board: pd.DataFrame) -> Iterator[str]:
    if section.expected and len(section.slices) < len(section.expected):
        across = transfer(section)
        title = section.title if across is None else across.tested_title
        yield f"Only {section.coverage} of {title}: not comparable with numbers over all of them."


def _coarse_images(section: Section, board: pd.DataFrame) -> Iterator[str]:
    levels = {name: slide.image_level for name, slide in slides(section).items() if slide.image_level != "full"}
    if levels:
        shown = ", ".join(f"{name} ({level})" for name, level in levels.items())
        yield f"Patches come from a downsampled image, not from full resolution: {shown}."


def _windows(section: Section, board: pd.DataFrame) -> Iterator[str]:
    patch_um, patch_px = windows(section)
    if patch_um is not None:
        sides = {name: slide.window_px for name, slide in slides(section).items() if slide.window_px is not None}
        shown = ", ".join(f"{name} ({side:.1f} px)" for name, side in sides.items())
        yield (
            f"Windows are {patch_um:g} µm wide on every slide and for every method, resampled to patches of {patch_px} "
            f"px: {shown}. Numbers with windows of another size are another section's."
        )


def _padding(section: Section, board: pd.DataFrame) -> Iterator[str]:
    padded = {name: slide.n_padded for name, slide in slides(section).items() if slide.n_padded}
    if padded:
        rule = next((recorded.padding for recorded in section.recorded if recorded.padding), "")
        shown = ", ".join(f"{name} ({count})" for name, count in padded.items())
        yield f"{sum(padded.values())} patches cross the image's border{f'; {rule}' if rule else ''}: {shown}."


def _notices(section: Section, board: pd.DataFrame) -> Iterator[str]:
    """What preparing the data had to tell, each once."""
    yield from dict.fromkeys(notice for recorded in section.recorded for notice in recorded.notices)


def _notes(section: Section, board: pd.DataFrame) -> Iterator[str]:
    """What methods had to tell."""
    for note, tellers in section.notes.groupby("note", sort=False):
        labels = section.entries.loc[tellers["entry"], "label"]
        whose = ", ".join(labels) if len(labels) <= NAMED else f"{len(labels)} of {len(section.entries)} entries"
        n_trials = int(tellers["trials"].sum())
        yield f"{whose}: {note} ({n_trials} trial{'s' if n_trials != 1 else ''})."


def _superseded(section: Section, board: pd.DataFrame) -> Iterator[str]:
    n_superseded = sum(_n_superseded(section, run) for run in section.runs)
    if n_superseded:
        yield (
            f"{n_superseded} earlier trial{'s' if n_superseded != 1 else ''} of the same methods, slices and seeds, "
            "with other code, data or precision, no longer counted and not shown."
        )


def _without_genes(section: Section, board: pd.DataFrame) -> Iterator[str]:
    keys = section.without_genes
    if keys:
        yield (
            f"{len(keys)} finished trials have no per-gene table, so the box plots leave them out: "
            f"{', '.join(keys[:5])}{' …' if len(keys) > 5 else ''}."
        )


WARNINGS: tuple[Callable[[Section, pd.DataFrame], Iterable[str]], ...] = (
    _leaks,
    _transfer,
    _random_weights,
    _presets,
    _precisions,
    _unrun_seeds,
    _unfinished,
    _incomplete,
    _replicates,
    _few_slices,
    _coarse_images,
    _windows,
    _padding,
    _notices,
    _notes,
    _superseded,
    _without_genes,
)


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


def _shortened(names: Sequence[str]) -> str:
    return shortened([str(name) for name in names], NAMED)


def _names(titles: Sequence[str] | pd.Series) -> str:
    return ", ".join(dict.fromkeys(map(str, titles)))
