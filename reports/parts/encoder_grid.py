"""Methods by encoders: whether the order of the methods survives another image encoder."""

from __future__ import annotations

import itertools

import pandas as pd

from ..numbers.means import board_of, eligible
from ..numbers.metrics import METRICS
from ..sections.section import Section, records
from ..sections.specs import chosen_encoder
from ..tables.cells import number_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.protocol import caption
from .part import Context, Part

METRIC = "pcc_acg"


def part(section: Section, context: Context) -> Part | None:
    """``None`` unless two methods or more were run with two encoders or more (``stbench run --encoders A,B``)."""
    table = grid_table(section)
    if table["encoder"].nunique() < 2 or table["method"].nunique() < 2:
        return None
    wide = table.pivot_table(index="label", columns="encoder", values=METRIC, sort=False)
    complete = wide.dropna()
    name = METRICS[METRIC].title
    lead = [_finding(complete, name)]
    if len(complete) < table["method"].nunique():
        gone = [label for label in dict.fromkeys(table["label"]) if label not in complete.index]
        lead.append(f"Not complete with every encoder, and left out of the orders: {', '.join(gone)}.")
    lead.append(
        "Encoders differ in size and in what they were pretrained on; random or other weights are tagged in the table "
        "at the top."
    )
    frames = {"grid.csv": table}
    return Part("encoders", "Does the order survive another encoder?", lead, (_table(section, wide),), frames=frames)


def grid_table(section: Section) -> pd.DataFrame:
    """One row for each entry of a method that was run with a named encoder: method, label, kind, encoder, the metric.

    Entries that change something else too, and entries that are not complete, have no place in the grid.
    """
    board = board_of(section)
    board = board[eligible(board, METRIC) & ~board["oracle"]]
    rows = []
    for row in records(board):
        encoder = chosen_encoder(section.specs[row.Index])
        if encoder:
            rows.append((row.method, row.title, row.kind, encoder, float(row.pcc_acg)))
    return pd.DataFrame(rows, columns=["method", "label", "kind", "encoder", METRIC])


def _finding(complete: pd.DataFrame, name: str) -> str:
    """``complete``: methods by encoders, no value missing."""
    from scipy.stats import kendalltau

    n_methods, n_encoders = complete.shape
    if n_methods < 2:
        return f"Fewer than two methods are complete with every encoder, so no order of {name} can be compared."
    orders = {tuple(complete[encoder].sort_values(ascending=False, kind="stable").index) for encoder in complete}
    best = {str(complete[encoder].idxmax()) for encoder in complete}
    if len(orders) == 1:
        return f"The order of {n_methods} methods by {name} is the same under all {n_encoders} encoders."
    agreement = [
        kendalltau(complete[left], complete[other]).statistic for left, other in itertools.combinations(complete, 2)
    ]
    first = f"{next(iter(best))} stays first" if len(best) == 1 else f"{' or '.join(sorted(best))} is first"
    return (
        f"The order of {n_methods} methods by {name} changes with the encoder: {first}; Kendall's τ between two "
        f"encoders is {number(float(pd.Series(agreement).mean()), 2)} on average (1: the same order)."
    )


def _table(section: Section, wide: pd.DataFrame) -> Table:
    values = wide.to_numpy(dtype=float)
    ranks = wide.rank(ascending=False, method="min").to_numpy(dtype=float)

    def cell(value: float, rank: float) -> Cell:
        return number_cell(value, strong=rank == 1, minor=f"rank {rank:.0f}")

    rows = tuple(
        (Cell(str(label), str(label).lower()), *map(cell, scores.tolist(), places.tolist()))
        for label, scores, places in zip(wide.index, values, ranks, strict=True)
    )
    return Table(
        name="encoders",
        caption=caption(section, f"{METRICS[METRIC].title} of each method with each encoder"),
        columns=("method", *map(str, wide.columns)),
        blocks=(rows,),
        notes=("rank: among the methods with the same encoder. Bold: the first. –: not run, or not complete.",),
    )
