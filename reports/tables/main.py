"""How numbers become tables to read: leaderboard (the form of the paper's Table 1), slices, trials, protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from stbench.system.wording import listed

from ..numbers.means import replicates
from ..numbers.metrics import METRICS
from ..sections.section import PRESET_OF_OTHERS, Section, records, slides, transfer, windows
from ..words.format import number, plus_minus
from ..words.protocol import INCOMPLETE, caption
from ..words.significance import QUESTION
from .cells import DASH, amount_cell, count_cell, number_cell, text_cell
from .table import Cell, Table

PAPER = ("pcc_acg", "pcc_heg", "mse", "mae")
STRICT = ("strict_pcc_acg", "strict_pcc_heg")

EXCHANGED = "patches exchanged"


def leaderboard_table(section: Section, board: pd.DataFrame, published: pd.DataFrame) -> Table:
    """``board``: :func:`tables.with_published` of :func:`tables.with_exchanged` of the leaderboard.

    ``published``: where the printed numbers come from.
    """
    printed = [
        metric for metric in PAPER if f"{metric}_published" in board and board[f"{metric}_published"].notna().any()
    ]
    columns = ["method", "slices", *(METRICS[metric].title for metric in PAPER), "PCC (ACG)", "PCC (HEG)"]
    columns += ["PCC (ACG)", "moves by"]
    groups = [("", 2), ("paper pack", len(PAPER)), ("strict pack", len(STRICT)), (EXCHANGED, 2)]
    if printed:
        columns += [METRICS[metric].title for metric in printed]
        groups.append(("as published", len(printed)))

    def row(entry: pd.Series) -> tuple[Cell, ...]:
        name = Cell(str(entry["title"]), str(entry["title"]).lower(), tags=tuple(entry["tags"]))
        trials = (
            ""
            if entry["n_trials"] == entry["of_trials"]
            else f"{entry['n_trials']}/{entry['of_trials']} slices × seeds"
        )
        mark = "" if entry["complete"] else f" {INCOMPLETE}"
        slices = Cell(f"{entry['n_slices']}/{entry['of_slices']}{mark}", float(entry["n_slices"]), minor=trials)
        scores = [_score(entry, metric) for metric in (*PAPER, *STRICT)]
        return (name, slices, *scores, *_exchanged(entry), *(_printed(entry, metric) for metric in printed))

    blocks = [[row(entry) for _, entry in board[board["kind"] == kind].iterrows()] for kind in ("method", "control")]
    return Table(
        name="leaderboard",
        caption=caption(section, "mean ± standard deviation over slices"),
        columns=tuple(columns),
        blocks=tuple(tuple(block) for block in blocks),
        groups=tuple(groups),
        notes=tuple(leaderboard_notes(section, board, published if printed else published.iloc[:0])),
    )


def _score(entry: pd.Series, metric: str) -> Cell:
    if entry["n_slices"] == 0:
        return Cell(DASH)
    defined = int(entry[f"{metric}_slices"])
    if defined == 0:
        return Cell("undefined")
    minor = [] if defined == entry["n_slices"] else [f"defined on {defined}/{entry['n_slices']}"]
    seeds = entry[f"{metric}_sd_seeds"]
    minor += [f"seeds ± {number(seeds)}"] if not math.isnan(seeds) else []
    text = plus_minus(entry[metric], entry[f"{metric}_sd"])
    return Cell(text, float(entry[metric]), strong=bool(entry[f"{metric}_best"]), minor=", ".join(minor))


def _exchanged(entry: pd.Series) -> tuple[Cell, Cell]:
    """PCC (ACG) with exchanged patches, and how far the prediction moves; dashes where the method was not asked."""
    asked = int(entry["exchanged_slices"])
    if not asked:
        return Cell(DASH), Cell(DASH)
    minor = "" if asked == entry["n_slices"] else f"on {asked}/{entry['n_slices']}"

    score, move = entry["exchanged_pcc_acg"], entry["exchanged_move"]
    return number_cell(score, 4, "undefined", minor=minor), number_cell(move, 3, "undefined", minor=minor)


def not_asked(section: Section, board: pd.DataFrame) -> list[str]:
    """Why finished entries have no numbers with exchanged patches, once for each reason; none where all have."""
    without = board[(board["n_slices"] > 0) & (board["exchanged_slices"] == 0)]
    elsewhere = without["preset"] == PRESET_OF_OTHERS
    said = []
    if elsewhere.any():
        said.append(
            f"{listed(list(without.loc[elsewhere, 'label']))}: predictions made elsewhere, which cannot be asked with "
            "exchanged patches."
        )
    if not elsewhere.all():
        whose = "all entries" if len(without) == len(board) else listed(list(without.loc[~elsewhere, "label"]))
        said.append(f"{whose}: undefined, as predictions are constant or slices have a single spot.")
    return said


def _printed(entry: pd.Series, metric: str) -> Cell:
    mean, spread = entry[f"{metric}_published"], entry[f"{metric}_published_spread"]
    return Cell("") if math.isnan(mean) else Cell(plus_minus(mean, spread), float(mean))


def leaderboard_notes(section: Section, board: pd.DataFrame, published: pd.DataFrame) -> list[str]:
    """What a reader must know to read the leaderboard, only as far as it applies."""
    notes = [
        f"{section.coverage}. ± is the standard deviation over test slices (n − 1) of the mean over seeds: a spread "
        "between slices, not an interval of confidence."
        + (f" Differences are tested under “{QUESTION}”." if len(board) > 1 else "")
    ]
    if any(board[f"{metric}_sd_seeds"].notna().any() for metric in METRICS):
        notes.append("seeds ±: standard deviation over seeds (n − 1) of the mean over slices.")
    if any(board[f"{metric}_best"].any() for metric in METRICS):
        notes.append(
            "Bold: the best method of a column, among those complete on every slice. Controls are set apart below."
        )
    if not board["complete"].all():
        notes.append(
            f"{INCOMPLETE} not every slice and seed has finished: the mean is over fewer slices and is not ranked."
        )
    undefined = any(((board[f"{m}_slices"] < board["n_slices"]) & (board["n_slices"] > 0)).any() for m in METRICS)
    if undefined:
        notes.append(
            "undefined: a constant prediction has no correlation. The paper pack drops such genes from PCC (ACG), "
            "and one of them leaves PCC (HEG) without a value; the strict pack counts them as 0."
        )
    constant = section.rows.groupby("entry")["n_constant_prediction"].max()
    for row in records(board.assign(constant=constant)):
        if row.constant > 0 and row.pcc_acg_slices > 0:
            notes.append(
                f"{row.label} predicts one value for up to {int(row.constant)} genes of a slice, so its paper and "
                "strict PCC differ."
            )
    if board["exchanged_slices"].any():
        notes.append(
            f"{EXCHANGED}: every spot was given the patch of another spot of its slice, and predicted again. moves by: "
            "root mean square change of the prediction, as a share of its standard deviation over the spots."
        )
    notes += [f"{EXCHANGED}, –: {why}" for why in not_asked(section, board)]
    if (board["leak"] != "").any():
        notes.append(
            "leak: is shown the expression of the slice that it predicts, as its released code is; set apart from the "
            "others and not ranked."
        )
    if (board["oracle"] & (board["leak"] == "")).any():
        notes.append(
            "oracle: sees what no method may (the test spots' total counts); a mark to read others against, no "
            "competitor."
        )
    here = published[
        (published["dataset"] == section.dataset)
        & (published["split"] == section.split)
        & published["method"].isin(board["method"])
    ]
    for source in here["source"].unique():
        over = f", over all {len(section.expected)} slices" if section.expected else ""
        notes.append(f"as published: {source}{over}. For orientation: its data, settings and scale are not this run's.")
    return notes + _published_notes(section, here)


def _published_notes(section: Section, here: pd.DataFrame) -> list[str]:
    """The remarks on published numbers, each once, with the metrics and methods that it is about."""
    about: dict[str, list[tuple[str, str]]] = {}
    for row in records(here):
        for clause in filter(None, row.note.split("; ")):
            about.setdefault(clause, []).append((row.metric, row.method))
    titles = section.entries.drop_duplicates("method").set_index("method")["title"]
    notes = []
    for clause, cases in about.items():
        metrics = list(dict.fromkeys(METRICS[metric].title for metric, _ in cases))
        methods = list(dict.fromkeys(method for _, method in cases))
        everybody = len(methods) == here["method"].nunique() and len(methods) > 1
        whose = "" if everybody else f" of {listed([titles[method] for method in methods])}"
        notes.append(f"as published, {listed(metrics)}{whose}: {clause}.")
    return notes


def per_slice_table(section: Section, scores: pd.DataFrame, metric: str) -> Table:
    """Slices as rows, entries as columns; ``scores``: :func:`tables.slice_table`. Bold: the best method of a slice."""
    scored = {(row.slice, row.entry): row for row in records(scores.assign(value=scores[metric]))}
    methods = list(section.entries.index[section.entries["kind"] == "method"])
    best_of = max if METRICS[metric].higher_is_better else min
    rows = []
    for name in section.slices:
        known = [value for entry in methods if not math.isnan(value := scored[name, entry].value)]
        best = best_of(known) if len(known) > 1 else None
        about = scored[name, section.entries.index[0]]
        cells = [text_cell(name), text_cell(about.patient), count_cell(about.n_spots)]
        for entry in section.entries.index:
            row = scored[name, entry]
            strong = entry in methods and row.value == best
            cells.append(number_cell(row.value, 4, "undefined" if row.n_seeds else "not finished", strong))
        rows.append(tuple(cells))
    return Table(
        name=f"slices-{metric}",
        caption=caption(section, f"{METRICS[metric].title} of each slice"),
        columns=("slice", "patient", "spots", *section.entries["label"]),
        blocks=(tuple(rows),),
        notes=("Mean over the seeds that finished. Bold: the best method of a slice.",),
        text_columns=frozenset({0, 1}),
    )


def trials_table(section: Section, trials: pd.DataFrame) -> Table:
    """``trials``: :func:`tables.trial_table`."""
    rows = [
        (
            *map(text_cell, (row.label, row.state, row.reason)),
            Cell(f"{row.seed}", float(row.seed) if str(row.seed).isdigit() else None),
            *map(text_cell, (row.fold, row.slices)),
            amount_cell(row.fit_s, 1),
            amount_cell(row.peak_mem_mb),
            *map(text_cell, (row.device, _arithmetic(row), row.key)),
        )
        for row in records(trials)
    ]
    done = int((trials["state"] == "finished").sum())
    return Table(
        name="trials",
        caption=caption(section, f"{done} of {len(trials)} trials finished"),
        columns=(
            "method",
            "state",
            "reason",
            "seed",
            "fold",
            "test slices",
            "fit (s)",
            "memory (MB)",
            "device",
            "precision",
            "key",
        ),
        blocks=(tuple(rows),),
        notes=("fit: time to train; memory: the peak of the process (CPU) or of the device (GPU).",),
        text_columns=frozenset({0, 1, 2, 4, 5, 8, 9, 10}),
    )


def _arithmetic(trial: Any) -> str:
    """``fp32 (TF32: convolutions), compiled``"""
    in_tf32 = f" (TF32: {trial.tf32})" if trial.tf32 else ""
    return f"{trial.precision}{in_tf32}{', compiled' if trial.compiled == 'compiled' else ''}"


def protocol_table(section: Section) -> Table:
    """Who was held out, and how many training slices share the test slice's patient."""
    statements = {fold.name: fold.statement for recorded in section.recorded for fold in recorded.folds}
    rows = []
    for row in records(replicates(section)):
        shared = Cell("not recorded") if math.isnan(row.same_patient) else count_cell(row.same_patient)
        rows.append(
            (*map(text_cell, (row.slice, row.patient, row.fold)), shared, text_cell(statements.get(str(row.fold), "")))
        )
    return Table(
        name="protocol",
        caption=caption(section, "who was held out"),
        columns=("test slice", "patient", "fold", "training slices of the same patient", "the fold in words"),
        blocks=(tuple(rows),),
        notes=tuple(_of_two_datasets(section, statements)),
        text_columns=frozenset({0, 1, 2, 4}),
    )


def _of_two_datasets(section: Section, statements: Mapping[str, str]) -> Iterator[str]:
    """Where slices of another dataset were trained on: the folds beyond the first, and the genes left out."""
    across = transfer(section)
    if across is None:
        return
    if len(statements) > 1:
        yield f"Every fold tests these slices: {'; '.join(f'{name}: {text}' for name, text in statements.items())}."
    if across.missing:
        yield (
            f"Genes of {across.trained_title} that were not measured on every tested slice, and are not scored "
            f"({len(across.missing)} of {across.n_panel}): {', '.join(across.missing)}."
        )


def slides_table(section: Section) -> Table:
    """What the prepared slides are: size, padding, image, scale, and the key of their content."""
    rows = []
    patch_um, patch_px = windows(section)
    resampled = patch_um is not None
    for name, slide in slides(section).items():
        rows.append(
            (
                *map(text_cell, (name, slide.patient)),
                count_cell(slide.n_spots),
                count_cell(slide.n_padded),
                text_cell(slide.image_level),
                amount_cell(math.nan if slide.um_per_px is None else slide.um_per_px, 3),
                *([amount_cell(math.nan if slide.window_px is None else slide.window_px, 1)] if resampled else []),
                text_cell(slide.key),
            )
        )
    return Table(
        name="slides",
        caption=caption(section, "the data as prepared"),
        columns=(
            "slice",
            "patient",
            "spots",
            "padded patches",
            "image",
            "µm per px",
            *([f"px of {patch_um:g} µm"] if patch_um is not None else []),
            "content key",
        ),
        blocks=(tuple(rows),),
        notes=() if patch_um is None else (f"Windows of {patch_um:g} µm, resampled to patches of {patch_px} px.",),
        text_columns=frozenset({0, 1, 4, 7 if resampled else 6}),
    )
