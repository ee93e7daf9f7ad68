"""The files of a Xenium bundle, and the H&E image with its alignment, which lie in it or anywhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from stbench.errors import UserError
from stbench.system.compressed import existing, open_text
from stbench.system.scalars import as_number
from stbench.system.user_paths import unset_variables

from ..space_ranger.files import is_matrix_folder, matrix_files
from ..space_ranger.names import listed

MANIFEST = "experiment.xenium"
MATRICES = ("cell_feature_matrix.h5", "cell_feature_matrix", "cell_feature_matrix.zarr.zip")
CELLS = ("cells.parquet", "cells.csv.gz", "cells.csv")
TRANSCRIPTS = ("transcripts.parquet", "transcripts.csv.gz", "transcripts.csv")
DAPI_UM = 0.2125  # of all Xenium Analyzers


@dataclass(frozen=True)
class XeniumFiles:
    """The files of one section that are read."""

    folder: Path
    matrix: Path
    cells: Path
    image: Path
    alignment: Path
    manifest: Path | None  # None: it is not there
    transcripts: Path | None  # None: they are not there, or not asked for

    def paths(self) -> tuple[Path, ...]:
        """Every file that the slide depends on."""
        matrix = matrix_files(self.matrix) if self.matrix.is_dir() else (self.matrix,)
        others = (self.cells, self.image, self.alignment, self.manifest, self.transcripts)
        return (*matrix, *(path for path in others if path is not None))


def is_bundle(folder: Path) -> bool:
    return folder.is_dir() and (
        _named(folder, MANIFEST) is not None
        or (_first(folder, MATRICES) is not None and _first(folder, CELLS) is not None)
    )


def find(folder: Path, image: Path | None, alignment: Path | None, bins: bool) -> XeniumFiles:
    """The files in ``folder``; ``bins``: whether transcripts are wanted.

    10x Genomics' public bundles hold ``..._he_image.ome.tif`` and ``..._he_imagealignment.csv``, which need not be
    named. Raises ``UserError`` that says what is missing.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"does not exist{unset_variables(folder)}"
        raise UserError(f"{folder} {what} - give the output folder of Xenium")
    if not is_bundle(folder):
        inside = [place for place in sorted(folder.iterdir()) if place.is_dir() and is_bundle(place)]
        near = f"did you mean {inside[0]}?" if len(inside) == 1 else "give the folder that holds experiment.xenium"
        several = f" (it holds {listed(inside[:4])})" if len(inside) > 1 else ""
        raise UserError(f"{folder} is not an output folder of Xenium{several} - {near}")
    cells = _first(folder, CELLS)
    if cells is None:
        raise UserError(f"{folder} has no table of cells (looked for {', '.join(CELLS)}) - complete the folder")
    chosen = _image(folder, image)
    return XeniumFiles(
        folder,
        _matrix(folder),
        existing(cells),
        chosen,
        _alignment(folder, chosen, alignment),
        _named(folder, MANIFEST),
        _first(folder, TRANSCRIPTS) if bins else None,
    )


def dapi_um_per_px(manifest: Path | None, notes: list[str]) -> float:
    """The size of a pixel of the DAPI image, which the alignment refers to."""
    if manifest is None:
        notes.append(f"{MANIFEST} is not there: pixels of the DAPI image are taken to be {DAPI_UM} µm large, as always")
        return DAPI_UM
    try:
        with open_text(existing(manifest)) as text:
            content = json.load(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{manifest} is not valid JSON ({error}) - fetch it again") from error
    value = as_number(content.get("pixel_size")) if isinstance(content, dict) else None
    if value is None or not 0.01 < value < 10:
        raise UserError(f"{manifest} says no usable pixel_size (µm of a DAPI pixel) - fetch it again")
    return value


def _matrix(folder: Path) -> Path:
    for name in MATRICES:
        path = _named(folder, name)
        if path is not None and (path.is_file() or is_matrix_folder(path)):
            return path
    packed = (
        " (cell_feature_matrix.tar.gz is packed: unpack it)" if _named(folder, "cell_feature_matrix.tar.gz") else ""
    )
    raise UserError(f"{folder} has no counts of cells (looked for {', '.join(MATRICES)}){packed} - complete the folder")


def _image(folder: Path, given: Path | None) -> Path:
    if given is not None:
        if is_morphology(given):
            raise UserError(f"{given} is the DAPI (morphology) image of the instrument, not H&E - give the H&E image")
        return existing(given)
    found = [path for path in sorted(folder.glob("*he_image.ome.tif*")) if path.is_file()]
    if len(found) > 1:
        raise UserError(f"{folder} holds several H&E images ({listed(found)}) - choose one with --image")
    if not found:
        raise UserError(
            f"{folder} holds no H&E image (its morphology images are DAPI) - give it with --image, and its alignment "
            "with --alignment"
        )
    return found[0]


def is_morphology(path: Path) -> bool:
    """Whether a picture is one of the instrument's own: grey, and as large as H&E images that were warped onto it."""
    return path.name.lower().startswith("morphology") or path.parent.name.lower() == "morphology_focus"


def _alignment(folder: Path, image: Path, given: Path | None) -> Path:
    if given is not None:
        return existing(given)
    places = dict.fromkeys((folder.resolve(), image.parent.resolve()))
    found = [path for place in places for path in sorted(place.glob("*imagealignment.csv"))]
    if len(found) == 1:
        return found[0]
    several = f" (there are several: {listed(found)})" if found else ""
    raise UserError(
        f"how {image} lies on the cells of {folder} is not known{several} - give the alignment that Xenium Explorer "
        "exports (..._imagealignment.csv) with --alignment"
    )


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((path for name in names if (path := _named(folder, name)) is not None), None)


def _named(folder: Path, name: str) -> Path | None:
    """The file or folder ``name``, or the only ``..._name``: the makers' downloads put the dataset's name in front."""
    if (folder / name).exists():
        return folder / name
    found = sorted(folder.glob(f"*_{name}"))
    return found[0] if len(found) == 1 else None
