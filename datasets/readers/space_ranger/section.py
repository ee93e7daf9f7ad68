"""A section of a Space Ranger run: spots from its table of positions, counts from its matrix, and its best picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stbench.errors import UserError
from stbench.slides.evidence import Evidence
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide
from stbench.system.compressed import open_text

from ..array_indices import indices_of_positions
from ..assemble import assemble, unique_symbols, unmatched
from . import pictures
from .cells import read_cells
from .features import note_of_others
from .files import SpaceRangerFiles
from .join import Spots, bin_of, cells_with_outline, spots_under_tissue
from .matrix import Matrix, only_listed, read_matrix
from .names import listed
from .positions import read_positions
from .scale import AGREES, VISIUM_PITCH_UM, PixelSize, picture_scale, pixel_size, read_scale_factors, stated_size


@dataclass(frozen=True)
class _Placed:
    """Spots on the image and on the array."""

    spots: Spots
    array_xy: np.ndarray  # (n_spots, 2)
    centres: np.ndarray  # (n_spots, 2)
    size: PixelSize
    diameter_px: float | None
    notes: tuple[str, ...] = ()


def read(slide_id: str, patient: str, files: SpaceRangerFiles, *, pitch_um: float = VISIUM_PITCH_UM) -> Slide:
    """Read one section; spots are those under tissue, in the order of the matrix.

    ``pitch_um`` is the distance of neighbouring spots, centre to centre; bins of Visium HD say theirs themselves.
    Raises ``UserError`` for a file that is missing or malformed, or when the files do not belong together.
    """
    factors = read_scale_factors(files.scale_factors)
    matrix = read_matrix(files.counts, files.probes)
    if files.barcodes is not None:
        matrix = only_listed(matrix, files.barcodes, files.counts)
    placed = _cells(matrix.barcodes, factors, files) if files.cells else _spots(matrix, factors, files, pitch_um)
    genes, repeated = unique_symbols(matrix.features.names)
    image, smaller = _image(files, factors), _smaller(files, factors)
    spot_ids = [matrix.barcodes[row] for row in placed.spots.rows]
    notes = [*note_of_others(matrix.not_genes), *matrix.notes, *placed.spots.notes, *placed.size.notes, *placed.notes]
    notes += [*repeated, *_remarks_on_pictures(files, factors, image)]
    return assemble(
        slide_id,
        patient,
        counts=matrix.chosen(placed.spots.rows),
        genes=genes,
        gene_ids=matrix.features.ids,
        spot_ids=spot_ids,
        array_xy=placed.array_xy,
        centres=placed.centres,
        image=image,
        evidence=Evidence(smaller, placed.spots.off_tissue),
        um_per_px=placed.size.um,
        um_per_px_from=placed.size.origin,
        spot_diameter_px=placed.diameter_px,
        labels=None if files.labels is None else _labels(files, spot_ids),
        notes=notes,
    )


def _spots(matrix: Matrix, factors: dict[str, float], files: SpaceRangerFiles, pitch_um: float) -> _Placed:
    positions = read_positions(files.positions)
    spots = spots_under_tissue(matrix, positions, files)
    named = bin_of(matrix.barcodes[int(spots.rows[0])])
    bins = files.bin_um if named is None else named
    if bins is not None:
        pitch_um = bins
    size = pixel_size(factors, positions.array_xy, positions.centres, pitch_um, hexagonal=bins is None)
    places = positions.array_xy[spots.places], positions.centres[spots.places]
    if bins is None:
        return _Placed(spots, *places, size, factors.get("spot_diameter_fullres"))
    return _Placed(spots, *places, size, *_agreed_bins(bins, named, size, factors, files))


def _agreed_bins(
    bins: float, named: float | None, size: PixelSize, factors: dict[str, float], files: SpaceRangerFiles
) -> tuple[float | None, tuple[str, ...]]:
    """The side of a bin in pixels, where all that says it in µm agrees; folders of bins are copied and renamed.

    What bins are follows from their barcodes and from where they lie; a folder of another name is refused. Where only
    the scale factors say otherwise, nothing but their spot diameter is wrong, which is then measured.
    """
    stated = factors.get("microns_per_pixel")
    measured = size.pitch_px * stated if stated is not None and size.pitch_px is not None else None
    if files.bin_um is not None and named is not None and named != files.bin_um:
        raise UserError(
            f"{files.counts.parent} is called after bins of {files.bin_um:g} µm, but its barcodes are of bins of "
            f"{named:g} µm - take the folder that Space Ranger wrote"
        )
    said = factors.get("bin_size_um")
    if said is not None and said != bins:
        if measured is not None and abs(measured / bins - 1) > AGREES:
            raise UserError(
                f"bins are of {bins:g} µm by {'their barcodes' if named else 'their folder'}, but of {said:g} µm by "
                f"bin_size_um of {files.scale_factors}, and {measured:.4g} µm apart on the image - take all parts from "
                "the folder that Space Ranger wrote"
            )
        note = (
            f"bin_size_um of {files.scale_factors} is {said:g}, but bins are of {bins:g} µm: it is another bin's file, "
            "and only its scales are used"
        )
        return size.pitch_px, (note,)
    return factors.get("spot_diameter_fullres", size.pitch_px), ()


def _cells(barcodes: list[str], factors: dict[str, float], files: SpaceRangerFiles) -> _Placed:
    cells = read_cells(files.positions)
    spots = cells_with_outline(barcodes, cells, files)
    centres = cells.centres[spots.places]
    # cells are of all sizes: no diameter is that of a spot
    return _Placed(spots, indices_of_positions(centres), centres, stated_size(factors), None)


def _image(files: SpaceRangerFiles, factors: dict[str, float]) -> SlideImage:
    scale = 1.0 if files.level == "full" else picture_scale(factors, files.level, files.scale_factors)
    image = SlideImage.from_file(files.image, scale, files.level)
    pictures.require_not_cytassist(image, files.cytassist)
    return image


def _smaller(files: SpaceRangerFiles, factors: dict[str, float]) -> tuple[SlideImage, ...]:
    """The next smaller picture of the section, where its scale is known."""
    scale = factors.get(f"tissue_{files.smaller_level}_scalef", 0.0)
    if files.smaller is None or not (np.isfinite(scale) and scale > 0):
        return ()
    return (SlideImage.from_file(files.smaller, scale, files.smaller_level),)


def _remarks_on_pictures(files: SpaceRangerFiles, factors: dict[str, float], image: SlideImage) -> list[str]:
    """What a user should know of the pictures that are there, where none at full resolution was given."""
    if files.level == "full":
        return []
    notes = []
    if "regist_target_img_scalef" in factors and files.cytassist is None:
        notes.append("a CytAssist run: its small image may be the instrument's own, not H&E - look at it")
    size = (*image.full_resolution_size, 2 / image.scale)
    fitting = pictures.of_size([*files.passed_over, *files.beside], size)
    if len(fitting) == 1:
        notes.append(
            f"patches are cut from the {files.level} image; {fitting[0]} has the size of the full-resolution one, "
            "and is probably it: give it as the image (--image)"
        )
    elif fitting or files.passed_over:
        which = f"several pictures have its size: {listed(fitting)}" if fitting else listed(files.passed_over)
        why = "" if fitting else ": by the scale factors that has another size"
        notes.append(f"no picture near by is taken for the full-resolution image ({which}{why}): name it (--image)")
    return notes


def _labels(files: SpaceRangerFiles, barcodes: list[str]) -> list[str | None]:
    import pandas as pd

    assert files.labels is not None
    with open_text(files.labels) as text:
        separator = "\t" if "\t" in text.readline() else ","
        text.seek(0)
        frame = pd.read_csv(text, sep=separator, dtype=str, keep_default_na=False)
        frame = frame.set_index(frame.columns[0])
    if files.label_column not in frame:
        raise UserError(
            f"{files.labels} has no column '{files.label_column}' (but {', '.join(map(str, frame.columns))}) - name one"
        )
    column = frame[files.label_column]
    label = {str(name): value.strip() for name, value in column.items() if value.strip()}
    if label.keys().isdisjoint(barcodes):
        ours, theirs = unmatched(barcodes, list(label))
        raise UserError(
            f"{files.labels} labels none of the section's spots (they are named as {ours}, its rows {theirs}) - "
            "it belongs to another section"
        )
    return [label.get(barcode) for barcode in barcodes]
