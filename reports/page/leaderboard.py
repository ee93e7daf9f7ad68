"""The leaderboard of several results directories: one page and one table over datasets, machines and dates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stbench.system.files import replacing, write_text

from ..numbers.common_trials import Standings, overview, standings, tidy
from ..numbers.metrics import METRICS
from ..sections.merge import load_merged
from ..sections.section import Section
from ..tables.cells import DASH, number_cell
from ..tables.standings import METRIC, board_table, lead
from ..tables.table import Cell, Table
from ..words import warnings
from ..words.protocol import split_title
from .files import LeaderboardFiles
from .html import environment, shared
from .report import file_names


@dataclass(frozen=True)
class SectionBoard:
    """What the page shows of one section."""

    name: str  # its anchor
    title: str
    lead: Sequence[str]
    badges: Sequence[tuple[str, str]]
    table: Table


def write_leaderboard(
    results: Sequence[Path], out: Path, summaries: Mapping[Path, str] | None = None
) -> LeaderboardFiles:
    """See :func:`stbench.reports.leaderboard`."""
    merged = load_merged(results, summaries)
    placed = [standings(section) for section in merged]
    boards = [
        SectionBoard(
            name,
            section_title(standing.section),
            lead(standing),
            warnings.badges(standing.section),
            board_table(standing),
        )
        for standing, name in zip(placed, file_names(merged), strict=True)
    ]
    out = Path(out)
    page, table = out / "leaderboard.html", out / "leaderboard.csv"
    runs = {run.directory: run for section in merged for run in section.runs}
    text = (
        environment()
        .get_template("leaderboard.html")
        .render(
            title="stbench leaderboard",
            runs_heading="Runs",
            overview=overview_table(placed) if len(placed) > 1 else None,
            boards=boards,
            runs=list(runs.values()),
            metric=METRICS[METRIC].title,
            **shared(),
        )
    )
    numbers = tidy(placed)
    with replacing(table) as temporary:
        numbers.to_csv(temporary, index=False)
    write_text(page, text)
    return LeaderboardFiles(out, page, table, tuple((board.title, board.lead[0]) for board in boards))


def section_title(section: Section) -> str:
    return f"{section.title}, {split_title(section.split)}, {section.target}"


def overview_table(all_standings: Sequence[Standings]) -> Table:
    """Ranks across sections; a mean rank only over sections that have every entry listed."""
    table = overview(all_standings, METRIC)
    titles = {standing.section.name: section_title(standing.section) for standing in all_standings}
    n_ranked = {
        standing.section.name: int(standing.table[f"{METRIC}_rank"].notna().sum()) for standing in all_standings
    }
    rows = []
    for _, entry in table.iterrows():
        cells = [Cell(str(entry["title"]), str(entry["title"]).lower(), tags=tuple(entry["tags"]))]
        for name in titles:
            rank = entry[name]
            cells.append(Cell(DASH) if math.isnan(rank) else Cell(f"{rank:.0f} of {n_ranked[name]}", float(rank)))
        cells.append(number_cell(entry["mean_rank"], 2))
        rows.append(tuple(cells))
    over = [titles[name] for name in table.attrs["sections"]]
    return Table(
        name="overview",
        caption=f"Rank by {METRICS[METRIC].title} in each section",
        columns=("method", *titles.values(), "mean rank"),
        blocks=(tuple(rows),),
        notes=(
            f"The mean rank is over the sections in which every entry listed is ranked: {'; '.join(over)}."
            if over
            else "No section ranks every entry listed, so no mean rank is given.",
            "–: not there, or not ranked. Of several versions of a method the newest counts here.",
        ),
    )
