"""The user's own sections, described by a TOML file; or a single ``.h5ad`` or Space Ranger folder as it is.

::

    name = "bulb"
    title = "Mouse olfactory bulb"
    patch_px = 32                     # side of the window around a spot, in full-resolution pixels
    panel = "all"                     # genes common to all slides, or a file of one gene per line, or a list

    [[slide]]
    id = "MOB1"
    patient = "mouse1"
    reader = "legacy-st"              # or "space-ranger" (folder = ...), or "h5ad" (file = ...)
    counts = "MOB1.tsv.gz"            # relative to this file, or absolute; ~ and $NAME are replaced
    spots = "alignment_table_MOB1.tsv"
    image = "MOB1.jpg"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stbench.dataset import Dataset
from stbench.errors import UserError
from stbench.system.compressed import existing, open_text
from stbench.system.locate import NAME
from stbench.system.user_paths import expanded
from stbench.system.wording import shortened

from .entries import check_keys, checked_entry, path_in, word
from .own_dataset import OwnDataset
from .panels import read_panel, unique_genes
from .readers.table import READERS, recognised

DEFAULT_PATCH_PX = 224


def open_dataset_path(path: Path) -> Dataset:
    """The dataset that ``path`` is: a manifest (``.toml``), or one section in a format that a reader recognises.

    The latter makes a dataset of one slide, whose panel is all its genes. Raises ``UserError``.
    """
    path = expanded(path)
    if not path.is_dir():
        existing(path)
        if path.suffix.lower() == ".toml":
            return read_manifest(path)
    found = recognised(path)
    if found is not None:
        reader, _ = found
        if reader.other_paths:
            raise UserError(
                f"{path} is {reader.what}, which is read together with {', '.join(reader.other_paths)} - "
                "import it ('stbench data import'), or list the sections in a manifest"
            )
        return _single(path, {"reader": reader.name, reader.source: path})
    if path.is_dir():
        _point_into(path)
        return _single(path, {"reader": "space-ranger", "folder": path})  # which says what the folder lacks
    if path.suffix.lower() in (".h5", ".mtx") or path.name.lower().endswith(".mtx.gz"):
        raise UserError(
            f"{path} is a matrix without positions and image - give the folder of Space Ranger that it is in"
        )
    known = ", ".join(reader.what for reader in READERS.values() if not reader.other_paths)
    raise UserError(f"{path} is not a dataset - give a manifest (.toml), or one of: {known}")


def _point_into(folder: Path) -> None:
    """Refuse a folder that is no section's output but holds files that could have been meant, with their names."""
    if any((folder / name).is_file() for name in (".zgroup", "zarr.json")):
        raise UserError(
            f"{folder} is a Zarr store, but none of SpatialData (with tables/, and shapes/ or labels/) - give such a "
            "store, or write its table as .h5ad, with image and positions"
        )
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".toml", ".h5ad"))
    if files and not any(folder.glob("*spatial/")):
        some = shortened(files, 4)
        raise UserError(f"{folder} is a folder with {some} - name one of them, or list the sections in a manifest")


def _single(path: Path, entry: dict[str, Any]) -> OwnDataset:
    path = path.resolve()
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", path.stem).lstrip("._+-") or "section"
    return OwnDataset(name, path.stem, DEFAULT_PATCH_PX, None, [{"id": name, "patient": name, **entry}], path)


def read_manifest(path: Path) -> OwnDataset:
    """Open a manifest; every mistake in it is one line that says where it is and what to write."""
    try:
        with open_text(existing(path)) as text:
            content = tomllib.loads(text.read())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML ({error}) - correct it") from error
    check_keys(path, "key", content, ("name", "title", "patch_px", "panel", "citation", "slide"))
    name = word(path, content, "name", NAME)
    entries = _entries(path, content)
    return OwnDataset(
        name=name,
        title=word(path, content, "title") if "title" in content else name,
        patch_px=_patch_px(path, content),
        panel=_panel(path, content),
        entries=entries,
        origin=path,
        citation=word(path, content, "citation") if "citation" in content else "",
    )


def _entries(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    slides = content.get("slide")
    if not isinstance(slides, list) or not slides or not all(isinstance(slide, dict) for slide in slides):
        raise UserError(f"{path} describes no slide - add one [[slide]] per section")
    entries = [checked_entry(path, number, slide) for number, slide in enumerate(slides, start=1)]
    names = [entry["id"] for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two slides have the id '{twice}' - give each its own")
    return entries


def _panel(path: Path, content: Mapping[str, Any]) -> list[str] | None:
    given = content.get("panel", "all")
    if given == "all":
        return None
    if isinstance(given, str):
        return read_panel(path_in(path.parent, given))
    if isinstance(given, list) and given and all(isinstance(gene, str) and gene for gene in given):
        return unique_genes(given, f"{path}: panel")
    raise UserError(f'{path}: panel must be "all", the path of a file with one gene per line, or a list of genes')


def _patch_px(path: Path, content: Mapping[str, Any]) -> int:
    value = content.get("patch_px", DEFAULT_PATCH_PX)
    if isinstance(value, bool) or not isinstance(value, int) or value < 2 or value % 2:
        raise UserError(
            f"{path}: patch_px = {value!r} is not an even number of pixels - write for example patch_px = 224"
        )
    return value
