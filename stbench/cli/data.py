"""``stbench data``: list, check and prepare the data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from .. import registry
from ..data.target_names import DEFAULT_TARGET
from ..errors import UserError
from ..system.locate import cache_root, cohort_names, data_root
from .completion import complete_target
from .console import out, say_once, with_bar
from .data_import import data_import
from .gene_panels import PanelOptions
from .lists import slice_list
from .options import DataOption, DatasetArgument, PanelFromOption, PanelOption, PatchUmOption, SlicesOption
from .preparing import notes_of, prepare_slices

if TYPE_CHECKING:
    from ..data.inventory import CheckReport, SliceCheck

data_app = typer.Typer(help="List, import, check and prepare the data.", no_args_is_help=True)
data_app.command("import")(data_import)


@data_app.command("list")
def data_list(data: DataOption = None) -> None:
    """List every dataset: slices present, spots, genes, place, and how to get what is missing."""
    from ..data.inventory import list_dataset

    root = data_root(data)
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("dataset", "left"), ("title", "left"), ("slices", "right"), ("spots", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("genes", justify="right")
    table.add_column("place", overflow="fold")
    gaps, faults = [], []
    for name in [*registry.dataset_names(), *cohort_names(root)]:
        try:
            listing = list_dataset(registry.dataset(name, root))
        except UserError as error:
            table.add_row(name, "-", "-", "-", "-", "-")
            faults.append(error)
            continue
        spots = f"{listing.n_spots:,}" if listing.n_spots else "-"
        place = str(listing.place) if listing.place else ("generated on demand" if listing.present else "-")
        genes = "common" if listing.n_genes is None else str(listing.n_genes)
        count = f"{len(listing.present)}/{listing.n_expected}"
        table.add_row(name, listing.title, count, spots, genes, place)
        if listing.missing:
            gaps.append(listing)
    out.print(table)
    out.print(f"looked under: {root or 'nowhere (no --data, no STBENCH_DATA, no user data folder)'}", soft_wrap=True)
    for fault in faults:
        out.print(str(fault), style="red", soft_wrap=True)
    for listing in gaps:
        missing = [source.id for source in listing.missing]
        names = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        out.print(Text.assemble((listing.name, "bold"), f" lacks {names}"), soft_wrap=True)
        out.print(f"  {listing.missing[0].id}: {listing.missing[0].reason}", soft_wrap=True)
        out.print(f"  {listing.how_to_get}", soft_wrap=True)


@data_app.command("check")
def data_check(
    dataset: DatasetArgument,
    slices: SlicesOption = None,
    panel: PanelOption = None,
    panel_from: PanelFromOption = None,
    data: DataOption = None,
    patch_um: PatchUmOption = None,
    pictures: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the pictures (data-check/NAME).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object of JSON, and nothing else.")] = False,
) -> None:
    """Read every slice, validate it, and draw its spots over the tissue; a bad one does not stop the others."""
    from stbench.reports.figures.slide_picture import draw_slide

    from ..data.inventory import check_dataset

    options = PanelOptions(panel, panel_from, dataset, data, slices, "loso", None, patch_um)
    options.check_one_list("slices are checked on one list")
    opened, _ = options.open()
    place = pictures or Path("data-check") / opened.name
    checked = with_bar(
        "checking",
        lambda bar: check_dataset(
            opened,
            slice_list(slices),
            draw=lambda slide, message: draw_slide(slide, place / f"{slide.id}.png", message),
            on_progress=bar,
        ),
    )
    if as_json:
        typer.echo(json.dumps(checked.facts(), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        _print_check(checked, opened.how_to_get, place)
    if not checked.sound:
        raise typer.Exit(2)  # bad input, as wherever else a slide is refused


def _print_check(checked: CheckReport, how_to_get: str, place: Path) -> None:
    table = Table(
        title=f"{checked.title}: {len(checked.slices)}/{len(checked.slices) + len(checked.missing)} slices checked",
        title_justify="left",
        box=None,  # eighty columns hold it
        pad_edge=False,
    )
    for heading in ("slice", "patient", "spots", "genes", "counts", "µm/px", "image", "padded", "verdict"):
        table.add_column(heading, justify="left" if heading in ("slice", "patient", "image", "verdict") else "right")
    for result in checked.slices:
        size = f"{result.image_level} {result.image_size[0]}x{result.image_size[1]}" if result.image_size else "-"
        table.add_row(
            result.id,
            result.patient,
            _or_dash(result.n_spots),
            _or_dash(result.n_genes),
            "-" if result.median_counts is None else f"{result.median_counts:,.0f}",
            "unknown" if result.um_per_px is None else f"{result.um_per_px:.3f}",
            size,
            _or_dash(result.n_padded),
            _verdict(result),
        )
    out.print(table)
    for problem in checked.problems:
        out.print(f"{problem.severity}: {problem.text}", soft_wrap=True)
    for result in checked.slices:
        for kind, texts in (("error", result.errors), ("notice", result.notices), ("note", result.notes)):
            for text in texts:
                about = text if text.startswith(f"{result.id}:") else f"{result.id}: {text}"
                out.print(f"{kind} {about}", style="red" if kind == "error" else "", soft_wrap=True)
    for missing in checked.missing[:3]:
        out.print(f"missing {missing.id}: {missing.reason}", soft_wrap=True)
    if len(checked.missing) > 3:
        out.print(f"and {len(checked.missing) - 3} more are missing; {how_to_get}", soft_wrap=True)
    if any(result.picture for result in checked.slices):
        out.print(f"pictures: {place} - look at them: spots must lie on tissue", soft_wrap=True)


@data_app.command("prepare")
def data_prepare(
    dataset: DatasetArgument,
    target: Annotated[
        str, typer.Option(help="Scale that is predicted.", autocompletion=complete_target)
    ] = DEFAULT_TARGET,
    slices: SlicesOption = None,
    panel: PanelOption = None,
    panel_from: PanelFromOption = None,
    data: DataOption = None,
    patch_um: PatchUmOption = None,
) -> None:
    """Cut the patches and compute the target now, so that the first run does not have to."""
    options = PanelOptions(panel, panel_from, dataset, data, slices, "loso", None, patch_um)
    options.check_one_list("slides are prepared for one list: the first run of a split prepares them")
    prepared = prepare_slices(options.open()[0], target, slices)
    say_once(notes_of(prepared))
    n_spots = sum(slide.n_spots for slide in prepared.slides.values())
    n_padded = sum(slide.n_padded for slide in prepared.slides.values())
    out.print(
        f"{prepared.title}: {prepared.coverage()} slices, {n_spots:,} spots x {len(prepared.genes)} genes, "
        f"patches of {prepared.patch_px} px ({n_padded} cross a border), target {prepared.target.name}",
        soft_wrap=True,
    )
    out.print(f"prepared data: {cache_root()}", soft_wrap=True)


def _verdict(result: SliceCheck) -> Text:
    return Text(result.verdict, {"errors": "red", "sound": "green"}.get(result.verdict, ""))


def _or_dash(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
