"""``stbench data import``: the user's own sections become a cohort, found by its name afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from ..system.locate import data_root_to_write
from .completion import complete_cohort
from .console import err, out, with_bar
from .options import DataOption

if TYPE_CHECKING:
    from stbench.datasets.cohorts.importing import Imported
    from stbench.datasets.cohorts.section import Section

    from ..data.inventory import SliceCheck


def data_import(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="A section (a folder or file of any format), or a CSV that lists some."),
    ],
    cohort: Annotated[
        str,
        typer.Option(
            "--as", metavar="COHORT", help="The cohort that it becomes part of.", autocompletion=complete_cohort
        ),
    ],
    patient: Annotated[str | None, typer.Option(metavar="P1", help="Whose section it is.")] = None,
    slice_id: Annotated[
        str | None, typer.Option("--slice", metavar="S1", help="Its name in the cohort (that of the folder or file).")
    ] = None,
    reader: Annotated[
        str | None, typer.Option(metavar="NAME", help="Its format, where looking at it does not tell.")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="FILE", help="The H&E image at full resolution.")] = None,
    alignment: Annotated[str | None, typer.Option(metavar="FILE", help="Where the image lies (Xenium).")] = None,
    layer: Annotated[str | None, typer.Option(help="Where raw counts are: X, raw.X or a layer (AnnData).")] = None,
    library: Annotated[str | None, typer.Option(help="Which section of a file of several (AnnData).")] = None,
    label: Annotated[str | None, typer.Option(help="The column of labels (AnnData).")] = None,
    grid_um: Annotated[str | None, typer.Option(metavar="UM", help="Side of bins over cells (Xenium).")] = None,
    bin_um: Annotated[str | None, typer.Option(metavar="UM", help="Which bins (Visium HD).")] = None,
    um_per_px: Annotated[
        str | None, typer.Option(metavar="UM", help="Width of a pixel of the full-resolution image in µm.")
    ] = None,
    pitch_um: Annotated[
        str | None, typer.Option(metavar="UM", help="From one spot's centre to the next, in µm.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Any other key of the format; may be repeated.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of a new cohort, as reports print it (its name).")] = None,
    patch_px: Annotated[
        int | None, typer.Option("--patch-px", help="Of a new cohort: side of the window around a spot (224).")
    ] = None,
    copy: Annotated[bool, typer.Option("--copy", help="Copy the files instead of pointing at them.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace slices that the cohort has already.")] = False,
    data: DataOption = None,
) -> None:
    """Add a section, or all that a CSV lists, to a cohort of your own; each is read and checked first."""
    from stbench.datasets.cohorts.cohort import Cohort
    from stbench.datasets.cohorts.importing import import_sections
    from stbench.datasets.cohorts.section import SectionsError

    named = {
        "patient": patient, "slice": slice_id, "reader": reader, "image": image, "alignment": alignment,
        "layer": layer, "library": library, "label": label, "grid_um": grid_um, "bin_um": bin_um,
        "um_per_px": um_per_px, "pitch_um": pitch_um,
    }  # fmt: skip
    given = {key: value for key, value in named.items() if value is not None}
    for text in option or ():
        key, equals, value = text.partition("=")
        if not equals or not value:
            raise UserError(f"--option {text} is not KEY=VALUE - write for example --option spots=positions.tsv")
        given[key.strip()] = value
    place = Cohort(data_root_to_write(data), cohort, title, patch_px)
    place.require_usable()
    try:
        sections = _sections(path, given)
        imported = with_bar(
            "reading",
            lambda bar: import_sections(place, sections, replace=replace, copy=copy, on_progress=bar),
        )
    except SectionsError as bad:
        for line in bad.lines:
            err.print(line, style="red", soft_wrap=True)
        raise
    _tell(imported, sections, cohort, f" --data {data}" if data is not None else "")


def _sections(path: str, given: dict[str, str]) -> list[Section]:
    """The sections that the command line, or the table that it names, describes. Raises ``UserError``."""
    from stbench.datasets.cohorts.importing import bad_sections
    from stbench.datasets.cohorts.section import section
    from stbench.datasets.cohorts.table import is_table, read_table

    from ..system.user_paths import expanded

    table = expanded(path)
    if "reader" in given or not is_table(table):
        found, faults = section("", Path.cwd(), {**given, "path": path})
        lines = [f"{_option(fault.key, given)}{fault.text}" for fault in faults]
        if found is None:
            raise bad_sections(lines, 1)
        return [found]
    if given:
        raise UserError(
            f"{table} is a table of sections - give {', '.join(given)} as a column of it, not on the command line"
        )
    sections, lines = [], []
    rows = read_table(table)
    for row in rows:
        place = f"{table.name}, row {row.number}"
        if row.fault is not None:
            lines.append(f"{place} {row.fault}")
            continue
        found, faults = section(place, table.absolute().parent, row.fields)
        lines += [f"{place}, column {fault.key}: {fault.text}" for fault in faults]
        if found is not None:
            sections.append(found)
    if lines:
        raise bad_sections(lines, len(rows))
    return sections


def _option(key: str, given: dict[str, str]) -> str:
    if key == "path":
        return ""
    return f"--{key.replace('_', '-')}: " if key in NAMED else f"--option {key}={given.get(key, '...')}: "


NAMED = (
    "patient", "slice", "reader", "image", "alignment", "layer", "library", "label",
    "grid_um", "bin_um", "um_per_px", "pitch_um",
)  # fmt: skip


def _tell(imported: Imported, sections: Sequence[Section], cohort: str, data: str) -> None:
    n = len(sections)
    out.print(
        f"{cohort}: {n} slice{'s' * (n > 1)} imported, {imported.n_slides} in all"
        + (f" (replaced: {', '.join(imported.replaced)})" if imported.replaced else ""),
        soft_wrap=True,
    )
    for check, section in zip(imported.report.slices, sections, strict=True):
        out.print(_found(check, section), soft_wrap=True)
        for text in (*check.notices, *check.notes):
            style = "yellow" if text in check.notices else ""
            out.print(f"    {text.removeprefix(f'{check.id}: ')}", style=style, soft_wrap=True)
    out.print(f"manifest: {imported.manifest}", soft_wrap=True)
    out.print(f"look at it: stbench data check {cohort}{data}", soft_wrap=True)
    out.print(f"run it:     stbench run --methods all --dataset {cohort}{data}", soft_wrap=True)


def _found(check: SliceCheck, section: Section) -> str:
    """What is known of one section, on one line."""
    scale = (
        "µm per px unknown (--um-per-px says it)"
        if check.um_per_px is None
        else f"{check.um_per_px:.4g} µm per px{f' (by {check.um_per_px_from})' if check.um_per_px_from else ''}"
    )
    size = "x".join(map(str, check.image_size or ()))
    where = check.image_file or "embedded"
    return (
        f"  {check.id}, patient {check.patient}: {section.entry['reader']} ({section.why}); {check.n_spots:,} spots, "
        f"{check.n_genes:,} genes, median {check.median_counts:,.0f} counts per spot; {scale}; "
        f"{check.image_level} image {size} px ({where})"
    )
