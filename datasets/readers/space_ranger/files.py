"""The files of a Space Ranger run: which folder, which matrix, which picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stbench.errors import UserError
from stbench.slides.image import Level
from stbench.system.user_paths import unset_variables

if TYPE_CHECKING:
    pass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass

POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")

PICTURE_SUFFIXES = (".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg", ".svs", ".ndpi")
MADE_BY_SPACE_RANGER = (
    "tissue_hires_image",
    "tissue_lowres_image",
    "aligned_fiducials",
    "aligned_tissue_image",
    "detected_tissue_image",
    "cytassist_image",
)


@dataclass(frozen=True)
class SpaceRangerFiles:
    """The files of one section, wherever they lie."""

    counts: Path  # .h5, or the folder of a matrix
    positions: Path
    scale_factors: Path
    image: Path
    level: Level
    smaller: Path | None = None  # the next smaller picture of the section, to check that the two belong together
    smaller_level: Level = "hires"
    barcodes: Path | None = None  # keep only these, in this order: for a raw matrix
    labels: Path | None = None  # a table with the barcode in its first column
    label_column: str | None = None
    passed_over: tuple[Path, ...] = ()  # pictures beside the matrix whose name does not say that they are the image

    @property
    def filtered(self) -> bool:
        """Whether the matrix is said to hold the spots under tissue alone."""
        return self.barcodes is not None or "filtered" in self.counts.name

    def paths(self) -> tuple[Path, ...]:
        """Every file that the slide depends on."""
        counts = matrix_files(self.counts) if self.counts.is_dir() else (self.counts,)
        others = (self.positions, self.scale_factors, self.image, self.smaller, self.barcodes, self.labels)
        return (*counts, *(path for path in others if path is not None))


def find(folder: Path, image: Path | None = None) -> SpaceRangerFiles:
    """The files in ``folder``; ``image`` names the full-resolution one if it is not in there as ``[..]image.<tif|..>``.

    Raises ``UserError`` that names what is missing, and where there is such a folder near by.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"is not a folder: it does not exist{unset_variables(folder)}"
        raise UserError(f"{folder} {what} - give the output folder of Space Ranger")
    _point_to_the_right_folder(folder)
    spatial = _one(folder, ("spatial", "*_spatial"), "folder spatial/")
    full = image or _full_resolution(folder)
    found = from_parts(find_counts(folder), spatial, full)
    return found if full is not None else replace(found, passed_over=tuple(_pictures(folder)))


def _point_to_the_right_folder(folder: Path) -> None:
    """Refuse a folder that is not one section's output, where the right one lies near it, with its path."""
    if is_output(folder):
        return
    for place in (folder, folder / "outs"):  # Visium HD bins its counts; each bin is laid out as a Visium section
        bins = place if place.name == "binned_outputs" else place / "binned_outputs"
        squares = [square for square in _folders(bins) if is_output(square)]
        if squares:
            usual = next((square for square in squares if square.name == "square_016um"), squares[-1])
            raise UserError(
                f"{folder} is a Visium HD run ({named_files(squares)}) - name one of its bins, for example {usual}"
            )
    inside = [place for place in (folder / "outs", *_folders(folder)) if is_output(place)]
    inside = inside or [place / "outs" for place in _folders(folder) if is_output(place / "outs")]
    inside = list(dict.fromkeys(inside)) or [place for place in [folder.absolute().parent] if is_output(place)]
    if len(inside) == 1:
        raise UserError(f"{folder} is not the output folder of Space Ranger - did you mean {inside[0]}?")
    if inside:
        some = ", ".join(str(place) for place in inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise UserError(f"{folder} holds {len(inside)} sections ({some}) - name one, or list them in a manifest")


def is_output(folder: Path) -> bool:
    """A place of positions and a matrix side by side, whatever they are called in full."""
    return folder.is_dir() and any(folder.glob("*spatial/")) and any(folder.glob("*bc_matri*"))


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def from_parts(
    counts: Path,
    spatial: Path,
    image: Path | None = None,
    barcodes: Path | None = None,
    labels: Path | None = None,
    label_column: str | None = None,
) -> SpaceRangerFiles:
    """The same for parts that do not lie in one folder. Without ``image`` the hires, else the lowres one is taken."""
    positions = _first(spatial, POSITIONS)
    if positions is None:
        raise UserError(
            f"{spatial} has no positions of spots (looked for {', '.join(POSITIONS)}) - complete the folder"
        )
    scale_factors = _first(spatial, ("scalefactors_json.json",))
    if scale_factors is None:
        raise UserError(f"{spatial} has no scalefactors_json.json - complete the folder")
    hires = _first(spatial, ("tissue_hires_image.png", "tissue_hires_image.jpg"))
    lowres = _first(spatial, ("tissue_lowres_image.png", "tissue_lowres_image.jpg"))
    level: Level = "full" if image is not None else "hires" if hires is not None else "lowres"
    chosen = image or hires or lowres
    if chosen is None:
        raise UserError(
            f"there is no image: {spatial} has neither tissue_hires_image.png nor tissue_lowres_image.png, and no "
            "full-resolution image lies beside it - add one of them"
        )
    smaller = (hires or lowres) if level == "full" else lowres if level == "hires" else None
    smaller_level: Level = "hires" if smaller is not None and smaller == hires else "lowres"
    return SpaceRangerFiles(
        counts, positions, scale_factors, chosen, level, smaller, smaller_level, barcodes, labels, label_column
    )


def find_counts(folder: Path) -> Path:
    """The filtered matrix in ``folder``, else the raw one; HDF5 before a folder of three files."""
    for kind in ("filtered", "raw"):
        files = sorted(folder.glob(f"*{kind}_feature_bc_matrix.h5")) + sorted(
            folder.glob(f"*{kind}_gene_bc_matrices_h5.h5")
        )
        if len(files) > 1:
            raise UserError(f"{folder} holds several matrices ({named_files(files)}) - keep the one of this section")
        if files:
            return files[0]
        for name in (f"{kind}_feature_bc_matrix", f"{kind}_count_matrix"):
            if is_matrix_folder(folder / name):
                return folder / name
    raise UserError(
        f"{folder} has no counts (looked for filtered_feature_bc_matrix.h5 and filtered_feature_bc_matrix/) - add them"
    )


def is_matrix_folder(folder: Path) -> bool:
    return folder.is_dir() and all(_matrix_part(folder, names) for names in _MATRIX_PARTS)


_MATRIX_PARTS = (("matrix.mtx",), ("barcodes.tsv",), ("features.tsv", "genes.tsv"))


def _matrix_part(folder: Path, names: tuple[str, ...]) -> Path | None:
    return _first(folder, tuple(name + suffix for name in names for suffix in (".gz", "")))


def matrix_files(folder: Path) -> tuple[Path, Path, Path]:
    parts = [_matrix_part(folder, names) for names in _MATRIX_PARTS]
    missing = [names[0] for names, part in zip(_MATRIX_PARTS, parts, strict=True) if part is None]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)} (each may end in .gz) - complete the folder")
    return cast(tuple[Path, Path, Path], tuple(parts))


def _full_resolution(folder: Path) -> Path | None:
    """A picture named ``image`` or ``..._image`` in the folder itself; those in spatial/ are never full resolution."""
    found = [path for path in _pictures(folder) if path.name.lower().split(".")[0].split("_")[-1] == "image"]
    if len(found) > 1:
        raise UserError(f"{folder} holds several full-resolution images ({named_files(found)}) - keep one, or name it")
    return found[0] if found else None


def _pictures(folder: Path) -> list[Path]:
    """Pictures in the folder itself that Space Ranger did not make."""
    return [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.lower().removesuffix(".gz").endswith(PICTURE_SUFFIXES)
        if path.name.lower().split(".")[0] not in MADE_BY_SPACE_RANGER
    ]


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _one(folder: Path, patterns: Sequence[str], what: str) -> Path:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_dir()]
    if not found:
        raise UserError(f"{folder} has no {what} - give the output folder of Space Ranger")
    if len(found) > 1:
        raise UserError(f"{folder} has several of what should be one {what} ({named_files(found)}) - keep one")
    return found[0]


def named_files(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths)
