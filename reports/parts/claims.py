"""The paper's claims and numbers beside ours: what holds, what does not, and what these results cannot decide.

Shown with ``stbench report --compare paper``; never a gate.
"""

from __future__ import annotations

import math
from collections import Counter

import pandas as pd

from ..numbers.means import board_of, eligible, with_published
from ..numbers.metrics import METRICS
from ..published.table1 import published
from ..sections.section import Section, records
from ..tables.cells import DASH, number_cell, text_cell, worded_cell
from ..tables.table import Cell, Table
from ..words.format import plus_minus
from ..words.protocol import caption
from ..words.warnings import unpublished
from .paper_claims import CLAIMS, Outcome, slice_grid
from .part import Context, Part

COLUMNS = ["claim", "paper", "ours", "holds", "outcome"]


def part(section: Section, context: Context) -> Part | None:
    """``None`` unless the paper is to be compared and has numbers or claims for this dataset and split."""
    if not context.compare_paper:
        return None
    differences = difference_table(section)
    claims = claim_table(section)
    if differences.empty and claims.empty:
        return None
    counts = Counter(claims["outcome"])
    lead = [
        f"Of {len(claims)} claims of the paper about {section.title}, {counts[Outcome.HOLDS]} hold here, "
        f"{counts[Outcome.FAILS]} do not, and {counts[Outcome.OPEN]} cannot be decided by these results."
        if len(claims)
        else f"The paper makes no claim about {section.title} under this split that can be read off these results."
    ]
    if section.expected and len(section.slices) < len(section.expected):
        lead.append(
            f"The paper's numbers are over {len(section.expected)} slices, ours over {len(section.slices)}: they are "
            "not the same quantity."
        )
    lead += _other_settings(section)
    lead.append("A difference says as much about data, scale and settings as about a method; none is a pass or a fail.")
    tables = []
    if len(claims):
        tables.append(_claims(section, claims))
    if len(differences):
        tables.append(_differences(section, differences))
    frames = {"claims.csv": claims.drop(columns="outcome"), "published.csv": differences}
    title = "Does it agree with the paper?"
    return Part("paper", title, lead, tables, frames={name: frame for name, frame in frames.items() if len(frame)})


def _other_settings(section: Section) -> list[str]:
    """Said where a method did not run as published: its numbers can then neither confirm nor refute the paper."""
    methods = section.entries[section.entries["kind"] == "method"]
    other = [f"preset {preset}" for preset in sorted(set(unpublished(section)["preset"]))]
    other += ["random encoder weights"] if (methods["weights_kind"] == "random").any() else []
    other += ["changed settings"] if (methods["variant"] != "").any() else []
    other += [f"precision {name}" for name in sorted(set(methods["lowered"]) - {""})]
    if not other:
        return []
    return [
        f"Methods ran here with other settings than the published ones ({', '.join(other)}): what does not hold here "
        "may hold there."
    ]


def claim_table(section: Section) -> pd.DataFrame:
    """One row per claim on this dataset: claim, paper, ours, holds (:attr:`Outcome.number`) and ``outcome``."""
    if section.split != "loso":
        return pd.DataFrame(columns=COLUMNS)
    grid = slice_grid(section)
    rows = []
    for claim in CLAIMS:
        if claim.dataset == section.dataset:
            answer = claim.statement.check(section, grid)
            outcome = answer.outcome
            rows.append((claim.text, claim.paper, answer.ours, outcome.number, outcome))
    return pd.DataFrame(rows, columns=COLUMNS)


def difference_table(section: Section) -> pd.DataFrame:
    """One row for each entry and metric that a paper printed: published, spread, ours, difference, source, note."""
    printed = published()
    board = board_of(section)
    board = with_published(board, printed, section.dataset, section.split)
    here = printed[(printed["dataset"] == section.dataset) & (printed["split"] == section.split)]
    about = here.set_index(["metric", "method"])
    rows = []
    for entry, scores in board.iterrows():
        for metric in METRICS:
            if (metric, scores["method"]) in about.index and scores["n_slices"]:
                row = about.loc[(metric, scores["method"])]
                value = float(scores[metric])
                rows.append(
                    {
                        "entry": entry,
                        "label": scores["label"],
                        "metric": metric,
                        "published": float(row["mean"]),
                        "published_spread": float(row["spread"]),
                        "ours": value,
                        "difference": value - float(row["mean"]),
                        "n_slices": int(scores["n_slices"]),
                        "complete": bool(eligible(board, metric).loc[str(entry)]),
                        "source": row["source"],
                        "note": row["note"],
                    }
                )
    return pd.DataFrame(rows)


def _claims(section: Section, claims: pd.DataFrame) -> Table:
    rows = tuple(
        (
            Cell(row.claim, row.claim),
            Cell(row.paper, row.paper),
            Cell(row.ours, row.ours),
            worded_cell(row.outcome.value, row.holds),
        )
        for row in records(claims)
    )
    return Table(
        name="claims",
        caption=caption(section, "claims of the paper, one by one"),
        columns=("claim", "paper", "here", "verdict"),
        blocks=(rows,),
        notes=(
            "A claim holds only over all of the dataset's slices and all six methods; one about a count of slices is "
            "refuted as soon as it cannot be reached any more. A gain holds where it is at least half of the printed.",
        ),
        text_columns=frozenset({0, 1, 2, 3}),
    )


def _differences(section: Section, table: pd.DataFrame) -> Table:
    def row(entry: pd.Series) -> tuple[Cell, ...]:
        difference = entry["difference"]
        return (
            Cell(entry["label"], entry["label"].lower(), tags=() if entry["complete"] else ("incomplete",)),
            text_cell(METRICS[entry["metric"]].title),
            Cell(plus_minus(entry["published"], entry["published_spread"]), float(entry["published"])),
            number_cell(entry["ours"], undefined="undefined"),
            Cell(DASH) if math.isnan(difference) else Cell(f"{difference:+.4f}".replace("-", "−"), difference),
        )

    sources = list(dict.fromkeys(table["source"]))
    flaws = list(dict.fromkeys(clause for note in table["note"] for clause in str(note).split("; ") if clause))
    return Table(
        name="published",
        caption=caption(section, "published numbers beside ours"),
        columns=("method", "metric", "published", "here", "difference"),
        blocks=(tuple(row(entry) for _, entry in table.iterrows()),),
        notes=(*(f"Source: {source}." for source in sources), *(f"Known flaw: {flaw}." for flaw in flaws)),
        text_columns=frozenset({0, 1}),
    )
