"""``stbench encoders``: which published image encoders are known by name, and what is known of each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from ..errors import unknown
from .completion import one_of
from .console import out

if TYPE_CHECKING:
    from ..training.foundation.table import PublishedEncoder

encoders_app = typer.Typer(
    help="Published image encoders that are known by name: network, file, licence, pretraining data.",
    no_args_is_help=True,
)
JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def _names() -> list[str]:
    from ..training.foundation.table import published_encoders

    return list(published_encoders())


@encoders_app.command("list")
def encoders_list(as_json: JsonOption = False) -> None:
    """List the encoders that --encoders knows by name, beside all of torchvision's and timm's."""
    from ..training.foundation.table import published_encoders

    rows = list(published_encoders().values())
    if as_json:
        out.print_json(json.dumps([facts(row) for row in rows]))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("name", no_wrap=True)
    for heading in ("size", "features"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("TCGA", "gated", "here"):
        table.add_column(heading, no_wrap=True)
    table.add_column("licence")
    for row in rows:
        here = "yes" if _here(row) else "no"
        size = f"{row.parameters / 1e6:,.0f} M"
        table.add_row(row.name, size, str(row.features), row.tcga, row.gated, here, row.licence)
    out.print(table)
    out.print(
        "size: parameters; TCGA: whether it saw slides of it; here: whether its weights are in this machine's cache\n"
        "use one: --encoders NAME@PATH with its weights in a file, or --encoders NAME with them in the Hugging Face "
        "cache; weights that are gated are never downloaded. All of one: stbench encoders show NAME",
        soft_wrap=True,
    )


@encoders_app.command("show")
def encoders_show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=one_of(_names))], as_json: JsonOption = False
) -> None:
    """Show all that is known of an encoder: what it is fed, what it returns, where its weights are."""
    from ..training.foundation.table import published_encoder

    row = published_encoder(name)
    if row is None:
        raise unknown("encoder", name, _names(), hint="all other names of torchvision and timm can be used too")
    if as_json:
        out.print_json(json.dumps(facts(row)))
        return
    cut = f", of which the centre of {row.input_px} px is cut out" if row.resize_px else ""
    file = _here(row)
    lines = {
        "network": f"{row.builder}, {row.parameters:,} parameters",
        "features": f"{row.features}: {row.pooling}",
        "images": f"patches resized to {row.resize_px or row.input_px} px, {row.interpolation}{cut}",
        "pixels": f"mean {_channels(row.mean)}, deviation {_channels(row.std)}, of RGB in [0, 1]",
        "licence": row.licence,
        "gated": row.gated,
        "pretraining": row.pretraining,
        "saw TCGA": row.tcga,
        "slides listed": "yes" if row.slides_are_listed else "no: it cannot be looked up whether it saw a slide",
        "scale": ", ".join([*(f"{value:g} µm/px" for value in row.um_per_px), row.scale]),
        "weights": f"{row.file}, {row.source}",
        "on the hub": "; ".join(f"{each.page} ({each.file})" for each in row.hub) or "no",
        "here": str(file) if file is not None else "no",
        "SHA-256": row.sha256 or "not known",
        "known by": f"{row.proof}: {row.proved_by}",
    }
    out.print(f"{row.title} ({row.name})", style="bold")
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, text in lines.items():
        table.add_row(heading, text)
    out.print(table)
    if row.images == "slides":
        out.print(
            f"use it: --encoders {row.name}{'' if file is not None else '@PATH'}. Frozen features are taken as above; "
            "methods keep their own scaling and size of images, and say where these differ",
            soft_wrap=True,
        )


def facts(row: PublishedEncoder) -> dict[str, Any]:
    """What is known of an encoder, and where its weights are on this machine; JSON-able."""
    file = _here(row)
    return row.model_dump(mode="json", exclude={"entries", "n_entries"}) | {
        "weights_here": None if file is None else str(file)
    }


def _here(row: PublishedEncoder) -> Any:
    """The file of the row's weights in the hub's cache, or, of a network of torchvision, in torch's."""
    from ..training.foundation.hub_cache import file_in_cache

    if row.images == "slides":
        return file_in_cache(row)
    from ..training.pretrained import kept

    return kept(row.name)


def _channels(values: tuple[float, float, float]) -> str:
    return " / ".join(f"{value:g}" for value in values)
