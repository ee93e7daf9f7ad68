"""Everything that one report consists of, from results directories to files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from stbench.system.files import replacing, write_text

from ..figures import canvas, slices
from ..numbers import means
from ..parts.ablation.study import study_of
from ..parts.contents import parts
from ..parts.part import Context, Part, Picture, picture
from ..published.table1 import published
from ..sections.entries import NOT_PRINTED
from ..sections.read import load
from ..sections.section import Section, records
from ..tables import main
from ..tables.latex import latex
from ..tables.markdown import markdown
from ..tables.table import Table
from ..words import headline, warnings
from .files import ReportFiles
from .genes import gene_view
from .html import SectionPage, render
from .processes import fitting_processes, makers


@dataclass(frozen=True)
class Composed:
    """One section's share of a report, with nothing written yet; names are those of files, without their suffix.

    ``frames``: full numbers, the name with its suffix (csv or parquet); ``tables``: what is typeset.
    """

    page: SectionPage
    frames: Mapping[str, pd.DataFrame]
    tables: Mapping[str, Table]
    pictures: Mapping[str, Picture]


def write_report(
    results: Sequence[Path],
    out: Path,
    compare_paper: bool = False,
    genes: Sequence[str] = (),
    summaries: Mapping[Path, str] | None = None,
    processes: int | None = 1,
) -> ReportFiles:
    """See :func:`stbench.reports.report`. All is made before anything is written."""
    sections = load(results, summaries)
    context = Context(sections, compare_paper, tuple(genes))
    printed = published()
    with makers(sections, context, processes or fitting_processes(sections)) as submit:
        coming = [
            (submit(_pictures, place), [submit(part, place) for part in parts(section)])
            for place, section in enumerate(sections)
        ]
        composed = [
            _compose(section, name, printed, *made)
            for section, name, made in zip(sections, file_names(sections), coming, strict=True)
        ]
    pages = [content.page for content in composed]
    text = render(pages)
    out = Path(out)
    table_files: list[Path] = []
    figure_files: list[Path] = []
    for content in composed:
        table_files += [_write_frame(out / "tables" / name, frame) for name, frame in content.frames.items()]
        for name, table in content.tables.items():
            table_files += _write_text_tables(out / "tables" / name, table)
        for name, drawing in content.pictures.items():
            figure_files += _write_picture(out / "figures" / name, drawing)
    page = out / "report.html"
    write_text(page, text)
    return ReportFiles(
        directory=out,
        page=page,
        tables=tuple(table_files),
        figures=tuple(figure_files),
        headlines=tuple((page.title, " ".join(page.headline)) for page in pages),
    )


def _compose(
    section: Section,
    name: str,
    printed: pd.DataFrame,
    drawings: Future[list[Picture]],
    coming: Sequence[Future[Part | None]],
) -> Composed:
    board = means.board_of(section)
    board = means.with_exchanged(board, section.rows)
    board = means.with_published(board, printed, section.dataset, section.split)
    scores, trials = means.slice_table(section), means.trial_table(section)
    leaderboard = main.leaderboard_table(section, board, printed)
    per_slice = tuple(main.per_slice_table(section, scores, metric) for metric in main.PAPER)
    trial_list = main.trials_table(section, trials)
    frames = {
        f"{name}-leaderboard.csv": board.drop(columns=NOT_PRINTED).reset_index(),
        f"{name}-slices.csv": scores,
        f"{name}-trials.csv": trials,
        f"{name}-genes.parquet": _gene_table(section),
    }
    typeset = {f"{name}-{table.name}": table for table in (leaderboard, *per_slice, trial_list)}
    genes = gene_view(section)
    pictures = drawings.result()
    drawn = {f"{name}-{drawing.name}": drawing for drawing in pictures}
    further = [part for made in coming if (part := made.result()) is not None]
    for part in further:
        stem = f"{name}-{part.name}"
        frames |= {f"{stem}-{what}": frame for what, frame in part.frames.items()}
        typeset |= {f"{stem}-{table.name}": table for table in part.tables}
        drawn |= {f"{stem}-{drawing.name}": drawing for drawing in part.pictures}
    page = SectionPage(
        section=section,
        name=name,
        headline=headline.headline(section, board),
        badges=warnings.badges(section),
        warnings=warnings.warnings(section, board),
        leaderboard=leaderboard,
        per_slice=per_slice,
        protocol=main.protocol_table(section),
        slides=main.slides_table(section),
        trials=trial_list,
        unfinished=list(records(trials[trials["state"] != "finished"])),
        pictures=pictures,
        parts=further,
        genes=genes,
    )
    return Composed(page, frames, typeset, drawn)


def file_names(sections: Sequence[Section]) -> list[str]:
    """One name for the files of each section, without characters that file systems or URLs mind; all different."""
    names: list[str] = []
    for section in sections:
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", section.name).strip("-")[:100] or "section"
        name, number = plain, 2
        while name.lower() in (other.lower() for other in names):
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
    return names


def _pictures(section: Section, _context: Context) -> list[Picture]:
    if study_of(section) is not None:
        return []  # dozens of variants of one method: the part on the study draws what can be read
    with canvas.drawing():
        drawn = []
        if slices.has_boxes(section.genes):
            drawn.append(
                ("pcc-boxes", "distribution of PCC over genes, for each slice and method", slices.boxes(section))
            )
        if (section.rows["state"] == "finished").any():
            for metric, title in (("pcc_acg", "PCC (ACG)"), ("pcc_heg", "PCC (HEG)"), ("mse", "MSE")):
                what = f"{title} of each slice and method"
                drawn.append((f"{metric.replace('_', '-')}-dots", what, slices.dots(section, metric)))
        return [picture(section, name, what, figure) for name, what, figure in drawn]


def _write_picture(stem: Path, drawing: Picture) -> list[Path]:
    written = []
    for form, content in drawing.forms.items():
        path = stem.with_name(f"{stem.name}.{form}")
        with replacing(path) as temporary:
            temporary.write_bytes(content)
        written.append(path)
    return written


def _gene_table(section: Section) -> pd.DataFrame:
    """The tidy table behind the boxes, one row for each entry, slice and gene; ``pcc`` is the mean over seeds."""
    grouped = section.genes.groupby(["entry", "slice", "gene"], sort=False)["r"]
    table = grouped.mean().rename("pcc").to_frame().assign(n_seeds=grouped.count()).reset_index()
    table["method"] = table["entry"].map(section.entries["method"])
    about = {"dataset": section.dataset, "split": section.split, "target": section.target}
    return table.assign(**about)[[*about, "slice", "entry", "method", "gene", "pcc", "n_seeds"]]


def _write_frame(path: Path, frame: pd.DataFrame) -> Path:
    with replacing(path) as temporary:
        if path.suffix == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            frame.to_csv(temporary, index=False)
    return path


def _write_text_tables(stem: Path, table: Table) -> list[Path]:
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in ("md", "tex")]
    write_text(paths[0], markdown(table))
    write_text(paths[1], latex(table))
    return paths
