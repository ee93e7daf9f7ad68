"""``stbench methods``: which methods there are, their settings, and whether they pass the checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from .. import registry
from ..data.target_names import DEFAULT_TARGET
from ..errors import UserError, said
from ..readings import READINGS, Compared, compare, has_preset, readings_of, target_of
from .completion import complete_dataset, complete_method, complete_method_or_group, complete_preset
from .console import out

if TYPE_CHECKING:
    from ..method import Method

methods_app = typer.Typer(
    help="Which methods there are, their settings, and the checks they must pass.", no_args_is_help=True
)


@methods_app.command("list")
def methods_list() -> None:
    """List the installed methods, the controls last."""
    from ..method import configure
    from ..system.calls import Calls
    from ..trials.declarations import declared

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "title", "kind", "presets", "sees"):
        table.add_column(heading)
    for name in registry.expand_methods("all"):
        method = registry.method(name)
        presets = ", ".join(dict.fromkeys(["published", *(preset.split("/")[0] for preset in method.presets)]))
        try:
            needs, _ = declared(Calls(name), method, configure(method))
        except Exception as error:  # noqa: BLE001 - a broken method of an installed package hides no other
            table.add_row(name, method.title, method.kind, presets, f"cannot be constructed: {said(error)}")
            continue
        sees = [
            "whole slides" if needs.whole_slide else "single spots",
            *(["a slice of the same patient"] if needs.same_patient else []),
            *(["the test spots' depth (oracle)"] if needs.oracle else []),
            *(["the test slice's expression (leak)"] if needs.leak else []),
        ]
        table.add_row(name, method.title, method.kind, presets, ", ".join(sees))
    out.print(table)
    out.print(
        "groups for --methods: all, published (kind method), controls (kind control); your own: path/to/file.py:Class, "
        "or path/to/file.toml for code in an environment of its own",
        soft_wrap=True,
    )


@methods_app.command("show")
def methods_show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_method)],
    preset: Annotated[
        str, typer.Option(help="Show the values under this preset.", autocompletion=complete_preset)
    ] = "published",
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset",
            metavar="NAME",
            help="Include what the preset changes for this dataset.",
            autocompletion=complete_dataset,
        ),
    ] = "",
    comparison: Annotated[
        bool, typer.Option("--compare", help="Compare the presets published, released and paper, setting by setting.")
    ] = False,
) -> None:
    """Show a method's settings: name, value under the preset, meaning and source.

    published is the recommended, faithful reading; where the released code differs, its value is shown beside it.
    """
    from ..method import configure
    from ..training.precision import safe_precisions

    method = registry.method(name)
    if comparison:
        _say_comparison(method, dataset)
        return
    config = configure(method, preset, dataset)
    other = "released" if preset == "published" else "published"
    beside = configure(method, other, dataset) if preset in READINGS and has_preset(method, other) else config
    about = f"  ({method.kind} {method.name})  preset {preset}{' for ' + dataset if dataset else ''}"
    out.print(Text.assemble((method.title, "bold"), about))
    summary = (method.__doc__ or "").strip().split("\n\n")[0]
    out.print(" ".join(summary.split()), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column("what it is")
    for field, info in type(config).model_fields.items():
        value = getattr(config, field)
        changed = "" if value == info.default else " *"
        theirs = getattr(beside, field)
        marked = ("" if theirs == value else f"\n{other}: {theirs}", "yellow")
        table.add_row(field, Text.assemble(f"{value}{changed}", marked), info.description or "")
    out.print(table)
    out.print(f"* differs from the default; change one with --set {method.name}.SETTING=VALUE", soft_wrap=True)
    out.print(f"safe values of --precision: {', '.join(safe_precisions(method))}", soft_wrap=True)
    if readings_of(method) is not None:
        own, theirs = (target_of(method, reading, dataset) for reading in (preset, other))
        other_target = (f"  {other}: {theirs}" if preset in READINGS and own != theirs else "", "yellow")
        default = f"trained and scored on, unless --target says otherwise: {own or DEFAULT_TARGET}"
        out.print(Text.assemble(default, other_target))
        same_dataset = f" --dataset {dataset}" if dataset else ""
        out.print(
            f"with sources, and what no setting can express: stbench methods show {name}{same_dataset} --compare",
            soft_wrap=True,
        )


def _say_comparison(method: type[Method], dataset: str) -> None:
    """Print where the released code and the text differ from the recommended reading, with their sources."""
    readings = readings_of(method)
    if readings is None:
        raise UserError(
            f"{method.name} has no released code and no text to compare with: it has only the preset published - see "
            f"'stbench methods show {method.name}'"
        )
    rows = compare(method, dataset)
    where = dataset or "a dataset without settings of its own"
    out.print(Text.assemble((method.title, "bold"), f" on {where}: three readings"), soft_wrap=True)
    out.print(f"published: the faithful reading that is recommended here\nreleased:  {readings.code}")
    out.print(f"paper:     {readings.text}")
    differing = [row for row in rows if row.differs]
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("setting", *READINGS):
        table.add_column(heading, no_wrap=heading == "setting", overflow="fold")
    for row in differing:
        table.add_row(row.setting, *(_value(row, reading) for reading in READINGS))
    out.print()
    out.print(table)
    out.print()
    sources = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("source or reason", "", ""):
        sources.add_column(heading, overflow="fold")
    for row in differing:
        for number, (reading, source) in enumerate(_sources(row)):
            sources.add_row("" if number else row.setting, reading, source)
    out.print(sources)
    same = ", ".join(f"{row.setting} = {row.values['published']}" for row in rows if not row.differs)
    out.print(Text.assemble("\n", ("the same in all", "bold"), ": ", (same, "dim")))
    if readings.beyond:
        further = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title_justify="left")
        for heading in ("no setting for", "here", "released code", "text"):
            further.add_column(heading, ratio=1, overflow="fold")
        for difference in readings.beyond:
            further.add_row(difference.topic, difference.here, difference.released or "-", difference.paper or "-")
        out.print()
        out.print(further)


def _value(row: Compared, reading: str) -> Text:
    value = row.values[reading]
    return Text(str(value), "" if value == row.values["published"] else "yellow")


def _sources(row: Compared) -> list[tuple[str, str]]:
    """Why the recommended value is recommended, and the sources of the values that differ from it."""
    recommended = row.values["published"]
    return [
        (reading, source)
        for reading in READINGS
        if (source := getattr(row.source, reading)) and (reading == "published" or row.values[reading] != recommended)
    ]


@methods_app.command("check")
def methods_check(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", autocompletion=complete_method_or_group)],
) -> None:
    """Run the checks that every method must pass, on small synthetic slides."""
    from ..method_checks.battery import each_check

    failed = 0
    for name in registry.expand_methods(",".join(names)):
        for result in each_check(registry.method(name)):
            failed += not result.passed
            verdict = ("ok  ", "green") if result.passed else ("FAIL", "red")
            line = f" {name}: {result.name}{'' if result.passed else ' - ' + result.message}"
            out.print(Text.assemble(verdict, line), soft_wrap=True)
    if failed:
        out.print(f"{failed} checks did not pass", style="red")
        raise typer.Exit(1)
