"""The files of a section: its matrix, its positions, its scale factors, its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from stbench.errors import UserError
from stbench.slides.image import Level

from . import pictures
from .layout import BINNED, POSITIONS, Place, locate
from .names import file_named, files_named, folders_named, listed, several_prefixes, subfolders
from .scale import read_scale_factors

SCALE_FACTORS = "scalefactors_json.json"
CELL_OUTLINES = ("cell_segmentations.geojson", "graphclust_annotated_cell_segmentations.geojson")
KINDS = ("filtered", "raw")
MICROSCOPE = "microscope_image"  # a folder that other tools look for the full-resolution image in


@dataclass(frozen=True)
class SpaceRangerFiles:
    """The files of one section, wherever they lie."""

    counts: Path  # .h5, or the folder of a matrix
    positions: Path  # of spots or bins; outlines of segmented cells
    scale_factors: Path
    image: Path
    level: Level
    smaller: Path | None = None  # the next smaller picture of the section, to check that the two belong together
    smaller_level: Level = "hires"
    barcodes: Path | None = None  # keep only these, in this order: for a raw matrix
    labels: Path | None = None  # a table with the barcode in its first column
    label_column: str | None = None
    passed_over: tuple[Path, ...] = ()  # pictures beside the matrix whose name does not say that they are the image
    beside: tuple[Path, ...] = ()  # pictures beside the folder of the run
    cytassist: Path | None = None  # what that instrument saw: never the image
    probes: Path | None = None  # which probes Space Ranger leaves out
    bin_um: float | None = None  # side of a bin of Visium HD, as its folder is called
    cells: bool = False  # spots are segmented cells

    @property
    def filtered(self) -> bool:
        """Whether the matrix is said to hold the spots under tissue alone."""
        return self.barcodes is not None or "filtered" in self.counts.name

    def paths(self) -> tuple[Path, ...]:
        """Every file that the slide depends on."""
        counts = matrix_files(self.counts) if is_mex(self.counts) else (self.counts,)
        shown = (self.image, self.smaller, self.cytassist)
        others = (self.positions, self.scale_factors, *shown, self.barcodes, self.labels, self.probes)
        return (*counts, *(path for path in others if path is not None))


def find(
    folder: Path,
    image: Path | None = None,
    *,
    bin_um: float | None = None,
    cells: bool = False,
    prefix: str | None = None,
) -> SpaceRangerFiles:
    """The files of the section in ``folder``.

    ``image`` names the full-resolution one if it is not in there as ``[..]image.<tif|..>``. Of a Visium HD run
    ``bin_um`` names the side of the bins that are spots, or ``cells`` says that segmented cells are. ``prefix`` is what
    the files of this section begin with, where those of others lie beside them.

    Raises ``UserError`` that names what is missing, and where there is such a folder near by.
    """
    place = locate(folder, bin_um, cells, prefix)
    if image is not None:
        pictures.require_stained(image)
    shared = _shared_spatial(place.run)
    if place.cells:
        spatial = [*folders_named(place.folder, "spatial"), *shared] or [place.folder]
        return _files(place, _outlines(place.folder), spatial, spatial, image)
    own = _spatial(place.folder, prefix)
    return _files(
        place,
        _positions(own, prefix if own == place.folder else None),
        [own],
        list(dict.fromkeys([own, *shared])),
        image,
    )


def from_parts(
    counts: Path,
    spatial: Path,
    image: Path | None = None,
    barcodes: Path | None = None,
    labels: Path | None = None,
    label_column: str | None = None,
) -> SpaceRangerFiles:
    """The same for parts that do not lie in one folder. Without ``image`` the hires, else the lowres one is taken."""
    parts = (counts, _positions(spatial), _scale_factors([spatial]))
    return _with_pictures(parts, [spatial], image, (barcodes, labels, label_column))


def _files(
    place: Place, positions: Path, factors_in: Sequence[Path], pictures_in: Sequence[Path], image: Path | None
) -> SpaceRangerFiles:
    # in a folder of its own the parts of a section need no prefix
    prefix = place.prefix if place.folder in factors_in else None
    counts, factors = find_counts(place.folder, place.cells, place.prefix), _scale_factors(factors_in, prefix)
    hires = pictures.reduced_picture(pictures_in, "hires", prefix)
    scale = read_scale_factors(factors).get("tissue_hires_scalef") if hires is not None else None
    full = image or pictures.full_resolution(place.folder, pictures.expected_size(hires, scale), place.prefix)
    found = _with_pictures((counts, positions, factors), pictures_in, full, prefix=prefix)
    if full is None:
        inside = {
            path: None for folder in (place.folder, place.run) for path in pictures.own_pictures(folder, place.prefix)
        }
        parent = place.run.absolute().parent
        near = (parent, *(folder / MICROSCOPE for folder in (place.run, parent)))
        beside = [path for folder in near for path in pictures.own_pictures(folder)]
        found = replace(found, passed_over=tuple(inside), beside=tuple(beside))
    return replace(
        found,
        probes=file_named(place.run, ("probe_set.csv",), place.prefix),
        bin_um=place.bin_um,
        cells=place.cells,
    )


def _with_pictures(
    parts: tuple[Path, Path, Path],
    folders: Sequence[Path],
    image: Path | None,
    others: tuple[Path | None, Path | None, str | None] = (None, None, None),
    prefix: str | None = None,
) -> SpaceRangerFiles:
    hires, lowres = (pictures.reduced_picture(folders, level, prefix) for level in ("hires", "lowres"))
    level: Level = "full" if image is not None else "hires" if hires is not None else "lowres"
    chosen = image or hires or lowres
    if chosen is None:
        raise UserError(
            f"there is no image: {folders[0]} has neither tissue_hires_image.png nor tissue_lowres_image.png, and no "
            "full-resolution image lies beside it - add one of them"
        )
    smaller = (hires or lowres) if level == "full" else lowres if level == "hires" else None
    smaller_level: Level = "hires" if smaller is not None and smaller == hires else "lowres"
    cytassist = next((found for folder in folders if (found := _cytassist(folder, prefix)) is not None), None)
    return SpaceRangerFiles(*parts, chosen, level, smaller, smaller_level, *others, cytassist=cytassist)


def _cytassist(folder: Path, prefix: str | None) -> Path | None:
    return file_named(folder, (f"{pictures.CYTASSIST}.tiff", f"{pictures.CYTASSIST}.tif"), prefix)


def _spatial(folder: Path, prefix: str | None) -> Path:
    """The folder ``spatial/``, or ``folder`` itself where everything lies side by side, as on GEO."""
    found = folders_named(folder, "spatial", prefix)
    if len(found) > 1:
        raise several_prefixes(folder, found, "spatial")
    if found:
        return found[0]
    if any(files_named(folder, name, prefix) for name in (*POSITIONS, SCALE_FACTORS)):
        return folder
    raise UserError(f"{folder} has no folder spatial/ - give the output folder of Space Ranger")


def _shared_spatial(run: Path) -> list[Path]:
    """The ``spatial/`` of a Visium HD run and of its bins: pictures and scales of pictures are the same in all."""
    binned = [path for parent in folders_named(run, BINNED) for path in subfolders(parent)]
    return [path for place in (run, *reversed(binned)) for path in folders_named(place, "spatial")]


def _positions(spatial: Path, prefix: str | None = None) -> Path:
    found = file_named(spatial, POSITIONS, prefix)
    if found is None:
        raise UserError(
            f"{spatial} has no positions of spots (looked for {', '.join(POSITIONS)}) - complete the folder"
        )
    return found


def _outlines(folder: Path) -> Path:
    found = file_named(folder, CELL_OUTLINES)
    if found is None:
        raise UserError(f"{folder} has no outlines of cells (looked for {', '.join(CELL_OUTLINES)}) - complete it")
    return found


def _scale_factors(folders: Sequence[Path], prefix: str | None = None) -> Path:
    places = (file_named(folder, (SCALE_FACTORS,), prefix) for folder in folders)
    found = next((path for path in places if path is not None), None)
    if found is None:
        raise UserError(f"{folders[0]} has no {SCALE_FACTORS} - complete the folder")
    return found


def find_counts(folder: Path, cells: bool = False, prefix: str | None = None) -> Path:
    """The filtered matrix in ``folder``, else the raw one; HDF5 before a folder of three files.

    Of three files with a ``prefix`` it is the one that ends in ``matrix.mtx``.
    """
    unit = "cell" if cells else "bc"
    for kind in KINDS:
        names = [f"{kind}_feature_{unit}_matrix", *([] if cells else [f"{kind}_gene_bc_matrices_h5"])]
        files = [path for name in names for path in files_named(folder, f"{name}.h5", prefix)]
        if len(files) > 1:
            raise UserError(f"{folder} holds several matrices ({listed(files)}) - keep the one of this section")
        if files:
            return files[0]
        names = [f"{kind}_feature_{unit}_matrix", *([] if cells else [f"{kind}_count_matrix"])]
        matrices = [path for name in names for path in folders_named(folder, name, prefix) if is_matrix_folder(path)]
        if len(matrices) > 1:
            raise UserError(f"{folder} holds several matrices ({listed(matrices)}) - keep the one of this section")
        if matrices:
            return matrices[0]
    if prefix is not None:
        flat = _flat_matrix(folder, prefix)
        if flat is not None:
            return flat
    elif is_matrix_folder(folder):  # its three files lie beside the positions, as on GEO
        return folder
    raise UserError(
        f"{folder} has no counts (looked for filtered_feature_{unit}_matrix.h5 and filtered_feature_{unit}_matrix/) - "
        "add them"
    )


_MATRIX_PARTS = (("matrix.mtx",), ("barcodes.tsv",), ("features.tsv", "genes.tsv"))


def _flat_matrix(folder: Path, prefix: str) -> Path | None:
    """Of the matrices beside the positions the filtered one, or the only one."""
    found = files_named(folder, "matrix.mtx", prefix)
    filtered = [path for path in found if "filtered" in path.name]
    chosen = filtered if len(found) > 1 else found
    if len(chosen) != 1 and found:
        raise UserError(f"{folder} holds several matrices ({listed(found)}) - keep the one of this section")
    return chosen[0] if chosen else None


def is_mex(counts: Path) -> bool:
    """Whether counts lie in three files: in a folder of their own, or with a prefix beside others."""
    return counts.is_dir() or counts.name.removesuffix(".gz").endswith(".mtx")


def is_matrix_folder(folder: Path) -> bool:
    return folder.is_dir() and all(file_named(folder, names) for names in _MATRIX_PARTS)


def matrix_files(counts: Path) -> tuple[Path, Path, Path]:
    """The three files of a matrix, given as the folder that holds them or as its own file beside the others."""
    prefix = None if counts.is_dir() else counts.name.removesuffix(".gz").removesuffix("matrix.mtx")[:-1]
    folder = counts if counts.is_dir() else counts.parent
    parts = [file_named(folder, names, prefix) for names in _MATRIX_PARTS]
    missing = [names[0] for names, part in zip(_MATRIX_PARTS, parts, strict=True) if part is None]
    if missing:
        of = "" if prefix is None else f" of {prefix}"
        raise UserError(f"{folder} lacks {', '.join(missing)}{of} (each may end in .gz) - complete the folder")
    return cast(tuple[Path, Path, Path], tuple(parts))
