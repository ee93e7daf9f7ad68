"""What the numbers say in plain words: the headline of a section."""

from __future__ import annotations

import pandas as pd

from ..numbers.means import eligible, replicates, slice_scores
from ..numbers.metrics import METRICS
from ..numbers.significance import ALPHA, BestOfAll, Tested, against_best, against_control, best_of_all, comparable
from ..sections.section import Section, records, transfer
from .format import number
from .significance import claim_text, many_patients, p_equals

HEADLINE_METRIC = "pcc_acg"
TRAINING_MEAN = "training_mean"
PRESETS = {
    "released": "the released code's values with its faults, not the faithful reading that is recommended",
    "paper": "the text's values, not the faithful reading that is recommended",
}


def headline(section: Section, board: pd.DataFrame) -> list[str]:
    """Sentences: who is best by PCC (ACG), by how much over the controls, and on how much data."""
    return [*_ranking(section, board), *_transfer(section), _coverage(section), _replicates(section)]


def _ranking(section: Section, board: pd.DataFrame) -> list[str]:
    metric = METRICS[HEADLINE_METRIC]
    complete = board[eligible(board, metric.name)].sort_values(metric.name, ascending=False, kind="stable")
    methods = complete[complete["kind"] == "method"]
    controls = complete[(complete["kind"] == "control") & ~complete["oracle"]]
    n_methods = int((board["kind"] == "method").sum())
    if not len(methods):
        if n_methods == 0:
            if not len(controls):
                return [f"Only controls were run, and none has a {metric.title} on every slice."]
            best = controls.iloc[0]
            return [
                f"Only controls were run. The best of them by {metric.title} is {best['label']} with "
                f"{number(best[metric.name])}: what a method has to beat.",
                *_oracle(complete),
            ]
        if not board.loc[board["kind"] == "method", "n_trials"].any():
            return ["No trial of a method has finished, so there is nothing to compare yet."]
        shown = board[(board["kind"] == "method") & (board["leak"] != "")]
        if len(shown) == n_methods:
            told = ", ".join(f"{row.label} ({number(getattr(row, metric.name))})" for row in records(shown))
            return [f"Every method here is shown the expression that it predicts, so none is called best: {told}."]
        return [f"No method has a {metric.title} on every slice, so none is called best."]
    best = methods.iloc[0]
    tested = against_best(comparable(section, board, metric.name), board, metric.name)
    claim = best_of_all(tested, metric.name)
    sentences = [_first(section, methods, n_methods, claim)]
    if len(controls):
        sentences.append(_against_control(section, best, controls.iloc[0], against_control(tested, claim)))
    else:
        was = "is complete" if (board["kind"] == "control").any() else "was run"
        sentences.append(f"No control {was}, so nothing frames this number from below.")
    sentences.append(_against_training_mean(board, best))
    return [*sentences, *_oracle(complete)]


def _first(section: Section, methods: pd.DataFrame, n_methods: int, claim: BestOfAll | None) -> str:
    """The best method and its lead over the next, with what the tests over patients say of its being the best."""
    best = methods.iloc[0]
    name = METRICS[HEADLINE_METRIC].title
    value = number(best[HEADLINE_METRIC])
    if n_methods == 1:
        return f"{best['label']}, the only method here, has a mean {name} of {value}."
    among = (
        f"of {n_methods} methods"
        if len(methods) == n_methods
        else f"of the {len(methods)} (of {n_methods}) complete methods"
    )
    if claim is None:
        return f"{best['label']}, the only one of {n_methods} methods that is complete, has a mean {name} of {value}."
    second = methods.iloc[1]
    ahead = best[HEADLINE_METRIC] - second[HEADLINE_METRIC]
    wins, ties, n = wins_between(section, str(best.name), str(second.name))
    return (
        f"{best['label']} has the highest mean {name} {among}: {value}, {number(ahead)} above {second['label']} "
        f"({_better(wins, ties, n)}), {'and' if claim.holds else 'but'} {claim_text(section, claim)}."
    )


def _apart(tested: tuple[Tested, float] | None, above: bool) -> str:
    """``, told apart on 7 patients (p = 0.016)``; nothing where the design cannot tell, as the first sentence says.

    ``above``: whether the best has the higher mean over slices; where patients say otherwise, that is said instead.
    """
    if tested is None or not tested[0].comparison.test.smallest_p <= ALPHA:
        return ""
    pair, p = tested
    on = f"on {many_patients(pair.comparison.n_patients)}"
    if pair.ahead != above:
        return f", but not where every patient counts the same, {on}"
    return f", {'told apart' if p <= ALPHA else 'not told apart'} {on} (p {p_equals(p)})"


def _against_control(section: Section, best: pd.Series, control: pd.Series, tested: tuple[Tested, float] | None) -> str:
    ahead = best[HEADLINE_METRIC] - control[HEADLINE_METRIC]
    wins, ties, n = wins_between(section, str(best.name), str(control.name))
    them = f"the best control, {control['label']} ({number(control[HEADLINE_METRIC])}),"
    apart = _apart(tested, above=ahead > 0)
    if ahead > 0:
        return f"It is above {them} by {number(ahead)} ({_better(wins, ties, n)}){apart}."
    if ahead == 0:
        return f"It is level with {them.rstrip(',')}."
    return f"It does not beat {them} and is {number(-ahead)} below it ({_better(wins, ties, n)}){apart}."


def _against_training_mean(board: pd.DataFrame, best: pd.Series) -> str:
    """By MSE: a constant prediction has no correlation."""
    mean = board[(board["method"] == TRAINING_MEAN) & eligible(board, "mse")]
    if mean.empty:
        return (
            "The training mean has no complete result here: whether it beats predicting each gene's mean is not known."
        )
    floor = mean.iloc[0]["mse"]
    numbers = f"(MSE {number(best['mse'])} against {number(floor)}; lower is better)"
    if best["mse"] < floor:
        return f"It beats the training mean {numbers}."
    return f"It does not beat the training mean, which predicts each gene's mean everywhere {numbers}."


def _oracle(complete: pd.DataFrame) -> list[str]:
    oracles = complete[complete["oracle"] & (complete["kind"] == "control")]
    if oracles.empty:
        return []
    best = oracles.iloc[0]
    return [f"{best['title']}, an oracle that sees what no method may, has {number(best[HEADLINE_METRIC])}."]


def _better(wins: int, ties: int, n: int) -> str:
    return f"higher on {wins} of {n} slices" + (f", level on {ties}" if ties else "")


def wins_between(section: Section, entry: str, other: str) -> tuple[int, int, int]:
    """Slices on which ``entry`` has the higher PCC (ACG), on which both are equal, and on which both have one."""
    scores = (
        slice_scores(section.rows)
        .pivot_table(index="slice", columns="entry", values=HEADLINE_METRIC)[[entry, other]]
        .dropna()
    )
    difference = scores[entry] - scores[other]
    return int((difference > 0).sum()), int((difference == 0).sum()), len(scores)


def _transfer(section: Section) -> list[str]:
    across = transfer(section)
    if across is None:
        return []
    return [
        f"Trained on {across.trained_title}, tested on {across.tested_title}, over the {across.n_shared} of "
        f"{across.trained_title}'s {across.n_panel} genes that were measured there."
    ]


def _coverage(section: Section) -> str:
    n_patients = len({section.patients[name] for name in section.slices if name in section.patients})
    n, total = len(section.slices), len(section.expected)
    patients = f" of {n_patients} patient{'s' if n_patients != 1 else ''}" if n_patients else ""
    if n < total:
        return f"This is {n} of the dataset's {total} slices{patients}, not the full benchmark."
    return f"This is {'all ' if total else ''}{n} slice{'s' if n != 1 else ''}{patients}."


def _replicates(section: Section) -> str:
    if transfer(section) is not None:
        return "Training and test slices are of different datasets, whose patients are taken to be different people."
    shared = replicates(section)["same_patient"]
    if shared.isna().any():
        return "How many training slices share the test slice's patient was not recorded."
    with_any = shared[shared > 0]
    if with_any.empty:
        return "No training slice is of a test slice's patient."
    low, high = int(with_any.min()), int(with_any.max())
    how_many = f"{low}" if low == high else f"{low} to {high}"
    return (
        f"On {len(with_any)} of {len(shared)} test slices the training set held {how_many} other "
        f"slice{'s' if high > 1 else ''} of the same patient: the number speaks for known patients, not for new ones."
    )


def leaks_of(section: Section) -> dict[str, str]:
    """Entries that are shown the expression of the slices that they predict, by label, to what is done with it."""
    leaking = section.entries[section.entries["leak"] != ""]
    return dict(zip(leaking["label"], leaking["leak"], strict=True))
