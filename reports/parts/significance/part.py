"""Whether the differences between methods are more than chance: tests over patients, ranks, wins and variance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stbench.statistics import (
    Interval,
    Ranks,
    VarianceSplit,
    bootstrap_interval,
    mean_ranks,
    variance_components,
    win_matrix,
)

from ...figures import canvas
from ...numbers.means import board_of
from ...numbers.metrics import METRICS
from ...numbers.significance import (
    ALPHA,
    BestOfAll,
    Tested,
    against_best,
    against_control,
    best_of_all,
    comparable,
    in_order,
)
from ...sections.section import Section, records
from ...words.format import number, percent
from ...words.headline import HEADLINE_METRIC
from ...words.significance import QUESTION, claim_text, label_of, many_patients, p_equals, verb, why
from ..part import Context, Part, Picture, picture
from . import over_datasets
from .figures import rank_figure, rank_note, win_figure
from .tables import FEW_PATIENTS, comparison_table, ranks_table, variance_table

TITLE = METRICS[HEADLINE_METRIC].title


def part(section: Section, context: Context) -> Part | None:
    """``None`` where the section has a single entry; a part that says so where too few are complete."""
    if len(section.entries) < 2:
        return None
    board = board_of(section)
    frames = _frames(section, board)
    order = in_order(board, HEADLINE_METRIC)
    scores = comparable(section, board, HEADLINE_METRIC)
    tested = against_best(scores, board, HEADLINE_METRIC)
    if not tested:
        missing = f"Nothing can be compared: fewer than two entries are complete with a {TITLE} on every slice."
        return Part("significance", QUESTION, [missing, *_left_out(board)], frames=frames)
    ranks = mean_ranks(scores)
    split = _variance(section, board, HEADLINE_METRIC)
    tables = [comparison_table(section, tested, TITLE), ranks_table(section, _means(scores), ranks, TITLE)]
    over = over_datasets.over_datasets(section, context.sections, tested, HEADLINE_METRIC)
    if over:
        tables.append(over_datasets.table(section, context.sections, over, HEADLINE_METRIC))
        frames["datasets.csv"] = over_datasets.frame(over, HEADLINE_METRIC)
    if split is not None:
        tables.append(variance_table(section, split, TITLE))
    lead = [*_findings(section, tested), *_unrecorded(tested)]
    lead += [over_datasets.sentence(section, over[0])] if over else []
    lead += [*_by_rank(section, ranks), *_spread(split), *_left_out(board)]
    return Part("significance", QUESTION, lead, tables, _pictures(section, scores, ranks, list(order.index)), frames)


def _findings(section: Section, tested: Sequence[Tested]) -> list[str]:
    """What the tests say of the best, the claim to be the best of all first."""
    claim = best_of_all(tested, HEADLINE_METRIC)
    if claim is None or len(claim.pairs) == 1 or not claim.possible:
        return [_finding(section, tested[0]), *_further(section, tested)]
    best = label_of(section, claim.pairs[0].comparison.a)
    said = f"By {TITLE} {best} {claim_text(section, claim)}."
    if not claim.holds:
        return [said, _finding(section, tested[0]), *_further(section, tested)]
    said += " Such a claim stands only where each of its comparisons stands alone, so none is corrected for the others."
    control = against_control(tested, claim)
    if control is None:
        return [said]
    pair, p = control
    apart = "are told apart" if p <= ALPHA else "are not told apart"
    other = label_of(section, pair.comparison.b)
    return [said, f"{best} and the best control, {other}, {apart} (p {p_equals(p)}). {_ahead(section, pair)}"]


def _finding(section: Section, tested: Tested) -> str:
    comparison = tested.comparison
    a, b = label_of(section, comparison.a), label_of(section, comparison.b)
    other = f"the best control, {b}," if tested.role == "best control" else b
    return f"{a} and {other} {verb(tested, plural=True)} {why(tested)}. {_ahead(section, tested)}"


def _ahead(section: Section, tested: Tested) -> str:
    """Which of the two is ahead by patient, and by how much."""
    pair = tested.comparison
    a, b = label_of(section, pair.a), label_of(section, pair.b)
    if pair.difference == 0:
        return f"By patient they are level in {TITLE}."
    ahead, behind = (a, b) if tested.ahead else (b, a)
    return f"By patient {ahead} is {number(abs(pair.difference))} ahead of {behind} in {TITLE}."


def _further(section: Section, tested: Sequence[Tested]) -> list[str]:
    """The best control where it is not the first pair, and how many of all comparisons are told apart."""
    said = [_finding(section, pair) for pair in tested[1:] if pair.role == "best control"]
    if len(tested) > 2 and tested[0].smallest_p <= ALPHA:
        n = sum(pair.told_apart for pair in tested)
        best = label_of(section, tested[0].comparison.a)
        said.append(f"Of {len(tested)} comparisons with {best}, {n} show{'s' if n == 1 else ''} a difference.")
    return said


def _unrecorded(tested: Sequence[Tested]) -> list[str]:
    if tested[0].patients_known:
        return []
    return ["Slices whose patient was not recorded count as one patient together."]


def _means(scores: pd.DataFrame) -> dict[str, Interval]:
    by_entry = scores.groupby("entry", sort=False)
    return {str(entry): bootstrap_interval(own, np.random.default_rng(0)) for entry, own in by_entry}


def _ranked(ranks: Ranks) -> bool:
    """Two entries are compared by the test alone, and the ranks on one patient are those of the table of means."""
    return len(ranks.mean) > 2 and ranks.n_patients > 1


def _by_rank(section: Section, ranks: Ranks) -> list[str]:
    if not _ranked(ranks):
        return []
    if not ranks.separates:
        return [rank_note(ranks)]
    apart = int((ranks.mean - ranks.mean.iloc[0] >= ranks.critical_difference).sum())
    rough = "; a large-sample test, rough on so few patients" if ranks.n_patients < FEW_PATIENTS else ""
    return [
        f"By mean rank {label_of(section, str(ranks.mean.index[0]))} is told apart from {apart} of "
        f"{len(ranks.mean) - 1} others (Nemenyi's critical difference {ranks.critical_difference:.2f} on "
        f"{many_patients(ranks.n_patients)}{rough})."
    ]


def _variance(section: Section, board: pd.DataFrame, metric: str) -> VarianceSplit | None:
    """Over methods; over all comparable entries where there are fewer than two methods. None: nothing to split."""
    order = in_order(board, metric)
    methods = order[order["kind"] == "method"]
    entries = methods.index if len(methods) > 1 else order.index
    rows = section.rows[section.rows["entry"].isin(entries) & (section.rows["state"] == "finished")]
    if len(entries) < 2 or rows["slice"].nunique() < 2:
        return None
    patients = rows["slice"].map(section.patients).fillna("")
    return variance_components(rows[["entry", "slice", "seed"]].assign(patient=patients, value=rows[metric]))


def _spread(split: VarianceSplit | None) -> list[str]:
    if split is None or not split.table["variance"].any():
        return []
    shares = split.table[split.table["share"] >= 0.01].sort_values("share", ascending=False, kind="stable")
    listed = ", ".join(f"{row.source} {percent(row.share)}" for row in records(shares))
    rough = " (a rough guess from so little)" if split.table["df"].min() < 5 else ""
    return [f"Where the variance of {TITLE} over {split.n_entries} entries comes from{rough}: {listed}."]


def _left_out(board: pd.DataFrame) -> list[str]:
    """Who is not compared, and why."""
    said = []
    competitors = board[~board["oracle"]]
    short = competitors[~competitors["complete"]]
    if len(short):
        listed = ", ".join(f"{row.label} ({row.n_trials}/{row.of_trials} slices × seeds)" for row in records(short))
        said.append(f"Not compared, because not every slice and seed has finished: {listed}.")
    defined = competitors[f"{HEADLINE_METRIC}_slices"]
    undefined = competitors.assign(defined=defined)[competitors["complete"] & (defined < competitors["of_slices"])]
    if len(undefined):
        listed = ", ".join(f"{row.label} (defined on {row.defined}/{row.of_slices})" for row in records(undefined))
        said.append(f"Not compared, because {TITLE} is not defined on every slice: {listed}.")
    return said


def _pictures(section: Section, scores: pd.DataFrame, ranks: Ranks, order: Sequence[str]) -> list[Picture]:
    drawn = []
    with canvas.drawing():
        if _ranked(ranks):
            figure = rank_figure(section, ranks, f"{section.title}: mean rank by {TITLE}")
            drawn.append(picture(section, "ranks", f"mean rank by {TITLE}. {rank_note(ranks)}", figure))
        what = f"wins by {TITLE}: slices, and below patients, on which the row's entry is better than the column's"
        figure = win_figure(section, win_matrix(scores), order, f"{section.title}: wins by {TITLE}")
        drawn.append(picture(section, "wins", what, figure))
    return drawn


def _frames(section: Section, board: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The numbers of every metric in which two entries can be compared; no frame where there is none."""
    parts: dict[str, list[pd.DataFrame]] = {}
    for metric in METRICS.values():
        scores = comparable(section, board, metric.name)
        tested = against_best(scores, board, metric.name)
        if not tested:
            continue
        split = _variance(section, board, metric.name)
        claim = best_of_all(tested, metric.name)
        tables = {
            "comparisons.csv": _comparison_frame(tested),
            **({} if claim is None else {"best.csv": _claim_frame(claim)}),
            "ranks.csv": _ranks_frame(scores, mean_ranks(scores, metric.higher_is_better)),
            "wins.csv": win_matrix(scores, metric.higher_is_better),
            **({} if split is None else {"variance.csv": split.table}),
        }
        for name, frame in tables.items():
            parts.setdefault(name, []).append(frame.assign(metric=metric.name)[["metric", *frame.columns]])
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}


def _comparison_frame(tested: Sequence[Tested]) -> pd.DataFrame:
    rows = []
    for pair in tested:
        comparison = pair.comparison
        rows.append(
            {
                "entry": comparison.a,
                "other": comparison.b,
                "role": pair.role,
                "difference": comparison.difference,
                **_ends(comparison.interval),
                "test": comparison.test.name,
                "p": comparison.test.p,
                "p_holm": pair.p,
                "smallest_p": comparison.test.smallest_p,
                "smallest_p_holm": pair.smallest_p,
                "n_comparisons": pair.n_comparisons,
                "patients_won": comparison.patients_won,
                "patients_tied": comparison.patients_tied,
                "n_patients": comparison.n_patients,
                "slices_won": comparison.slices_won,
                "slices_tied": comparison.slices_tied,
                "n_slices": comparison.n_slices,
            }
        )
    return pd.DataFrame(rows)


def _claim_frame(claim: BestOfAll) -> pd.DataFrame:
    comparison = claim.pairs[0].comparison
    unproven = " ".join(pair.comparison.b for pair in claim.unproven)
    about = {"entry": comparison.a, "n_others": len(claim.pairs), "n_patients": comparison.n_patients, "p": claim.p}
    return pd.DataFrame([{**about, "smallest_p": claim.smallest_p, "unproven": unproven}])


def _ranks_frame(scores: pd.DataFrame, ranks: Ranks) -> pd.DataFrame:
    means = _means(scores)
    rows = [
        {"entry": entry, "mean": means[entry].mean, **_ends(means[entry]), "mean_rank": ranks.mean[entry]}
        for entry in map(str, ranks.mean.index)
    ]
    return pd.DataFrame(rows).assign(
        n_patients=ranks.n_patients,
        friedman_p=ranks.friedman_p,
        critical_difference=ranks.critical_difference,
        separates=ranks.separates,
    )


def _ends(interval: Interval) -> dict[str, float | str]:
    return {"low": interval.low, "high": interval.high, "level": interval.level, "interval_over": interval.over}
