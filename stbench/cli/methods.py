"""``stbench methods``: what there is, with which settings, and whether it passes the checks."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .. import registry
from ..calls import Calls, declared
from ..errors import said
from ..method import configure
from ..precision import safe_precisions
from .console import out

methods_app = typer.Typer(
    help="Which methods there are, their settings, and the checks they must pass.", no_args_is_help=True
)


@methods_app.command("list")
def methods_list() -> None:
    """The methods that are installed, controls set apart."""
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "title", "kind", "presets", "sees"):
        table.add_column(heading)
    for name in registry.expand_methods("all"):
        method = registry.method(name)
        presets = ", ".join(dict.fromkeys(["published", *(preset.split("/")[0] for preset in method.presets)]))
        try:
            needs, _ = declared(Calls(name), method, configure(method))
        except Exception as error:  # noqa: BLE001 - of an installed package: one that is broken does not hide the others
            table.add_row(name, method.title, method.kind, presets, f"cannot be constructed: {escape(said(error))}")
            continue
        sees = [
            "whole slides" if needs.whole_slide else "single spots",
            *(["a slice of the same patient"] if needs.same_patient else []),
            *(["the test spots' depth (oracle)"] if needs.oracle else []),
        ]
        table.add_row(name, method.title, method.kind, presets, ", ".join(sees))
    out.print(table)
    out.print(
        "groups for --methods: all, published (kind method), controls (kind control); your own: path/to/file.py:Class"
    )


@methods_app.command("show")
def methods_show(
    name: Annotated[str, typer.Argument(metavar="NAME")],
    preset: Annotated[str, typer.Option(help="Show the values under this preset.")] = "published",
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="With what the preset changes for this dataset.")
    ] = "",
) -> None:
    """A method's settings: name, value under the preset, what it is and where it comes from."""
    method = registry.method(name)
    config = configure(method, preset, dataset)
    out.print(
        f"[bold]{escape(method.title)}[/bold]  ({method.kind} {method.name})  "
        f"preset {preset}{' for ' + dataset if dataset else ''}"
    )
    summary = (method.__doc__ or "").strip().split("\n\n")[0]
    out.print(escape(" ".join(summary.split())), soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    table.add_column("setting", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column("what it is")
    for field, info in type(config).model_fields.items():
        value = getattr(config, field)
        changed = "" if value == info.default else " *"
        table.add_row(escape(f"{field}"), escape(f"{value}{changed}"), escape(info.description or ""))
    out.print(table)
    out.print(f"* differs from the default; change one with --set {method.name}.SETTING=VALUE", soft_wrap=True)
    out.print(f"safe values of --precision: {', '.join(safe_precisions(method))}", soft_wrap=True)


@methods_app.command("check")
def methods_check(names: Annotated[list[str], typer.Argument(metavar="NAME...")]) -> None:
    """The battery of checks that every method must pass, on small made-up slides."""
    from ..method_checks import run_checks

    failed = 0
    for name in registry.expand_methods(",".join(names)):
        for result in run_checks(registry.method(name)):
            failed += not result.passed
            verdict = "[green]ok  [/green]" if result.passed else "[red]FAIL[/red]"
            out.print(
                f"{verdict} {name}: {result.name}{'' if result.passed else ' - ' + escape(result.message)}",
                soft_wrap=True,
            )
    if failed:
        out.print(f"{failed} checks did not pass", style="red")
        raise typer.Exit(1)
