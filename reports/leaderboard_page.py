"""The leaderboard of several results directories: one page and one table over datasets, machines and dates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stbench.files import replacing, write_text

from . import LeaderboardFiles, verdict
from .layout import PAPER, STRICT, caption, split_title
from .load import Section, records
from .merge import load_merged
from .page import environment, shared
from .standings import Standings, is_version, overview, runs_of, standings, tidy
from .tables import METRICS
from .typeset import Cell, Table, number, plus_minus
from .write import file_names

METRIC = "strict_pcc_acg"  # a gene that was not predicted counts there; the paper's pack would leave it out


@dataclass(frozen=True)
class SectionBoard:
    """What the page shows of one section."""

    name: str  # its anchor
    title: str
    lead: Sequence[str]
    badges: Sequence[tuple[str, str]]
    table: Table


def write_leaderboard(results: Sequence[Path], out: Path) -> LeaderboardFiles:
    """See :func:`stbench.reports.leaderboard`."""
    merged = load_merged(results)
    placed = [standings(section) for section in merged]
    boards = [
        SectionBoard(name, section_title(one.section), lead(one), verdict.badges(one.section), board_table(one))
        for one, name in zip(placed, file_names(merged), strict=True)
    ]
    out = Path(out)
    page, table = out / "leaderboard.html", out / "leaderboard.csv"
    with replacing(table) as temporary:
        tidy(placed).to_csv(temporary, index=False)
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
    write_text(page, text)
    return LeaderboardFiles(out, page, table, tuple((board.title, board.lead[0]) for board in boards))


def section_title(section: Section) -> str:
    return f"{section.title}, {split_title(section.split)}, {section.target}"


def lead(one: Standings) -> list[str]:
    """The finding in a sentence, what frames it, and who is not ranked, and why."""
    table = one.table
    ranked = table[table["ranked"] & table[METRIC].notna()].sort_values(f"{METRIC}_rank", kind="stable")
    if ranked.empty:
        return [f"Nothing can be ranked: no {one.pool} has finished at least half of the slices."]
    best = ranked.iloc[0]
    n_slices = len({slide for slide, _ in one.common})
    n_seeds = len({seed for _, seed in one.common})
    shared_trials = f"{n_slices} of {len(one.section.slices)} slices" + (f" and {n_seeds} seeds" if n_seeds > 1 else "")
    level = ranked[ranked[f"{METRIC}_rank"] == 1]
    who = f"{best['label']} is" if len(level) == 1 else f"{' and '.join(level['label'])} are level and"
    first = (
        f"{who} first of {len(ranked)} {one.pool}s by {METRICS[METRIC].title}: {number(best[METRIC])} on "
        f"the {shared_trials} that all of them finished."
    )
    alone = (
        f"{best['label']} is the only {one.pool} that can be ranked: {METRICS[METRIC].title} {number(best[METRIC])} on "
        f"{shared_trials}."
    )
    sentences = [first if len(ranked) > 1 else alone]
    controls = table[(table["kind"] == "control") & ~table["oracle"] & table[METRIC].notna()]
    if one.pool == "control":
        sentences.append("Only controls are here: what a method has to beat.")
    elif len(controls):
        control = controls.iloc[controls[METRIC].argmax()]
        above = int((ranked[METRIC] > control[METRIC]).sum())
        sentences.append(
            f"{above} of {len(ranked)} ranked methods are above the best control on these trials, {control['label']} "
            f"({number(control[METRIC])})."
        )
    else:
        sentences.append("No control finished these trials, so nothing frames the numbers from below.")
    left_out = [
        f"{row.label} ({row.n_slices}/{len(one.section.slices)} slices)"
        for row in records(table[~table["ranked"] & (table["kind"] == one.pool) & ~table["oracle"]])
    ]
    if left_out:
        sentences.append(
            f"Not ranked, because the trials shared with the others would cover less than half of the slices: "
            f"{', '.join(left_out)}."
        )
    return sentences


def board_table(one: Standings) -> Table:
    """Method, rank, how many trials, metrics on the common ones, and which run each entry is from."""
    section, table = one.section, one.table
    about = {row.Index: row for row in records(runs_of(section))}
    of_slices = len(section.slices)

    def row(of: pd.Series) -> tuple[Cell, ...]:
        rank = of[f"{METRIC}_rank"]
        source = about[of.name]
        return (
            Cell(str(of["title"]), str(of["title"]).lower(), tags=tuple(of["tags"])),
            Cell(f"{rank:.0f}", float(rank)) if rank == rank else Cell("–"),
            Cell(f"{of['n_slices']}/{of_slices}", float(of["n_slices"])),
            Cell(f"{of['n_common']} of {of['n_trials']}", float(of["n_common"])),
            *(_value(of, metric) for metric in (*STRICT, *PAPER)),
            Cell(source.run, source.run, minor=source.where),
        )

    ranked = table["kind"] == one.pool
    first = table[ranked].sort_values(f"{METRIC}_rank", kind="stable", na_position="last")
    blocks = [[row(of) for _, of in part.iterrows()] for part in (first, table[~ranked])]
    columns = (
        "method",
        "rank",
        "slices",
        "trials used",
        *(METRICS[metric].title for metric in (*STRICT, *PAPER)),
        "run",
    )
    return Table(
        name="leaderboard",
        caption=caption(section, f"ranked by {METRICS[METRIC].title} on the trials that all ranked entries finished"),
        columns=columns,
        blocks=tuple(tuple(block) for block in blocks),
        groups=(("", 4), ("strict pack", len(STRICT)), ("paper pack", len(PAPER)), ("", 1)),
        notes=tuple(_notes(one)),
        text_columns=frozenset({0, len(columns) - 1}),
    )


def _value(of: pd.Series, metric: str) -> Cell:
    if not of["n_common"]:
        return Cell("–")
    if of[metric] != of[metric]:
        return Cell("undefined")
    return Cell(plus_minus(of[metric], of[f"{metric}_sd"]), float(of[metric]), strong=of[f"{metric}_rank"] == 1)


def _notes(one: Standings) -> list[str]:
    notes = [
        "trials used: of the slices × seeds that the entry finished, those that every ranked entry finished too; means "
        "and ranks are over these alone. ± is the standard deviation over slices (n − 1) of the mean over seeds; "
        "differences are not tested here.",
        "Bold: the best of the ranked. Controls and oracles stand below without a rank, on the same trials.",
    ]
    if one.pool == "control":
        notes[1] = "Bold: the best of the ranked. Oracles stand below without a rank, on the same trials."
    if one.table["tags"].map(lambda tags: any(map(is_version, tags))).any():
        notes.append("version: the same method from other code or another run; the higher number is the newer run.")
    if (one.table["preset"] == "external").any():
        notes.append(
            "external: predictions made elsewhere; that no test slice was trained on is declared by who made them."
        )
    return notes


def overview_table(all_standings: Sequence[Standings]) -> Table:
    """Ranks across sections; a mean rank only over sections that have every entry listed."""
    table = overview(all_standings, METRIC)
    titles = {one.section.name: section_title(one.section) for one in all_standings}
    n_ranked = {one.section.name: int(one.table[f"{METRIC}_rank"].notna().sum()) for one in all_standings}
    rows = []
    for _, of in table.iterrows():
        cells = [Cell(str(of["title"]), str(of["title"]).lower(), tags=tuple(of["tags"]))]
        for name in titles:
            rank = of[name]
            cells.append(Cell(f"{rank:.0f} of {n_ranked[name]}", float(rank)) if rank == rank else Cell("–"))
        mean = of["mean_rank"]
        cells.append(Cell(f"{mean:.2f}", float(mean)) if mean == mean else Cell("–"))
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
