"""``stbench new``: a package of a method or a dataset of one's own, which works and is tested as it stands."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from ..scaffolding.package import dataset_package, method_package, write_package
from ..system.locate import data_root
from ..system.user_paths import expanded
from .console import out
from .options import DataOption

new_app = typer.Typer(help="Write a package with a method or dataset of your own, to start from.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="As it will be typed and imported: lower-case, with underscores.")
]
TitleOption = Annotated[
    str | None, typer.Option("--title", metavar="TEXT", help="As reports print it (made of the name).")
]
OutOption = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Folder in which the package's folder NAME is made.")
]


@new_app.command("method")
def new_method(
    name: NameArgument,
    title: TitleOption = None,
    torch: Annotated[
        bool, typer.Option("--torch/--numpy", help="A network that stbench trains, or a method that does all itself.")
    ] = True,
    folder: OutOption = Path(),
) -> None:
    """Write the folder NAME: a package with a small method that works, and its tests."""
    _write(method_package(name, title, "torch" if torch else "numpy"), expanded(folder) / name)
    out.print(f"  stbench methods check {name}", soft_wrap=True)
    out.print(f"  stbench run --methods {name},controls --dataset demo --preset quick", soft_wrap=True)


@new_app.command("dataset")
def new_dataset(
    name: NameArgument,
    title: TitleOption = None,
    folder: OutOption = Path(),
    data: DataOption = None,
) -> None:
    """Write the folder NAME: a package with a dataset of slices that lie in the data folder, and its tests."""
    _write(dataset_package(name, title, data_root(data)), expanded(folder) / name)
    out.print("  stbench data list", soft_wrap=True)
    out.print(f"  stbench data check {name}", soft_wrap=True)


def _write(files: Mapping[str, str], folder: Path) -> None:
    """Write the package, and print what to do with it."""
    write_package(files, folder)
    out.print(f"wrote {folder}: {', '.join(files)}", soft_wrap=True)
    out.print("next, in the environment that stbench is in:", soft_wrap=True)
    out.print(f"  pip install -e {shlex.quote(f'{folder}[dev]')}", soft_wrap=True, markup=False)
