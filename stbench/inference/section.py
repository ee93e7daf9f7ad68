"""The section that is to be predicted: its image, its spots, and how large its pixels are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .. import registry
from ..errors import UserError, about_slice, unknown
from ..models.facts import ModelFacts
from ..slides.geometry import check_image
from ..slides.image import SlideImage
from ..slides.on_tissue import check_on_tissue
from ..slides.pixel_size import stated_pixel_size
from ..slides.slide import Slide
from ..slides.tissue_grid import Shape, tissue_grid
from ..system.user_paths import expanded
from .spots import Spots, read_spots
from .windows import training_slides

PITCH_UM = 100.0  # of Visium
FEWEST_PX = 8  # pixels of a pitch: less is a mistake, as neighbours would see the same
DIAMETER = 0.55  # of a pitch, as on Visium, where no spot's is known
STATED = "its file's"  # what the size of a pixel is from, where nothing else says it


@dataclass(frozen=True)
class Grid:
    """Spots to lay over the tissue."""

    pitch_um: float = PITCH_UM
    shape: Shape = "hexagonal"


def open_section(path: str, slice_name: str | None, root: Path | None, um_per_px: float | None) -> Slide:
    """The image of ``path``; with the spots that are measured on it, where it is more than an image.

    ``path`` is an image, or what :func:`stbench.registry.dataset` takes: then ``slice_name`` chooses one of several.
    """
    place = expanded(path)
    named = path in registry.dataset_names() or place.is_dir() or place.suffix.lower() in (".toml", ".h5ad")
    if not named and not place.exists() and "/" not in path and not place.suffix:
        named = True  # a cohort of the user's own, or a word that the registry says something of
    slide = _of_dataset(path, slice_name, root) if named else _of_image(place, slice_name)
    if um_per_px is not None:
        return replace(slide, um_per_px=um_per_px, um_per_px_from="as given")
    stated = stated_pixel_size(slide.image) if slide.um_per_px is None else None
    if stated is not None:
        return replace(slide, um_per_px=stated.um, um_per_px_from=f"{STATED} {stated.source}")
    return slide


def _of_image(path: Path, slice_name: str | None) -> Slide:
    if slice_name is not None:
        raise UserError(f"--slice {slice_name} chooses a slice of a dataset, and {path} is an image - leave it out")
    image = SlideImage.from_file(path)
    name = path.name.removesuffix(".gz")
    return _slide(name.partition(".")[0] or name, image, _no_spots(), None)


def _of_dataset(name: str, slice_name: str | None, root: Path | None) -> Slide:
    sources = {source.id: source for source in registry.dataset(name, root).find()[0]}
    if slice_name is not None and slice_name not in sources:
        raise unknown(f"slice of {name}", slice_name, sources)
    if slice_name is None and len(sources) != 1:
        raise UserError(f"{name} has {len(sources)} slices - choose one with --slice ({', '.join(sources)})")
    source = next(iter(sources.values())) if slice_name is None else sources[slice_name]
    with about_slice(source.id):
        return source.read()


def with_given_spots(slide: Slide, path: Path) -> tuple[Slide, list[str]]:
    """The slide with the spots of a file, and what to say of them."""
    spots = read_spots(path)
    placed = _slide(slide.id, slide.image, spots, slide)
    return placed, [*spots.notes, *notes_of_spots(placed)]


def notes_of_spots(slide: Slide) -> list[str]:
    """Whether the spots lie on the tissue of the image. ``UserError`` where some lie outside the image."""
    slide.image.require_inside(slide.centres)
    return [finding.text for finding in check_on_tissue(slide)]


def with_grid(slide: Slide, grid: Grid, models: Sequence[ModelFacts]) -> tuple[Slide, list[str]]:
    """The slide with a grid of spots over its tissue, as wide as those that the models were trained on."""
    if slide.um_per_px is None:
        raise UserError(
            f"how many µm a pixel of {slide.image.name} is does not stand in its file, and a grid has a pitch in µm - "
            "give it with --um-per-px"
        )
    pitch = grid.pitch_um / slide.um_per_px
    if not FEWEST_PX <= pitch <= max(slide.image.full_resolution_size):
        raise UserError(
            f"a pitch of {grid.pitch_um:g} µm is {pitch:,.1f} px on {slide.image.name} ({slide.um_per_px:.4g} µm per "
            "px) - check --pitch-um and --um-per-px"
        )
    found = tissue_grid(slide.image, pitch, grid.shape)
    if not len(found.centres):
        raise UserError(f"no tissue was found on {slide.image.name} - give the spots' positions with --spots")
    widths = [
        facts.spot_diameter * facts.um_per_px
        for facts in training_slides(models).values()
        if facts.um_per_px is not None
    ]
    width = float(np.median(widths)) if widths else DIAMETER * grid.pitch_um
    names = tuple(f"{x}x{y}" for x, y in found.array_xy)
    spots = Spots(names, found.centres, found.array_xy, min(width, grid.pitch_um) / slide.um_per_px)
    said = f"a {grid.shape} grid of {grid.pitch_um:g} µm has {len(names):,} spots on the tissue"
    if not found.on_tissue:
        said = (
            f"the image is not plainly of tissue on glass: a {grid.shape} grid of {grid.pitch_um:g} µm covers all of "
            f"it, {len(names):,} spots"
        )
    return _slide(slide.id, slide.image, spots, slide), [said]


def notes_of_image(slide: Slide) -> list[str]:
    """What the image's file says beyond its pixels, and where it speaks against what the slide is read with."""
    stated = slide.um_per_px_from.startswith(STATED)
    return [
        *slide.notes,
        *([f"a pixel of the image is {slide.um_per_px:.4g} µm wide by {slide.um_per_px_from}"] if stated else []),
        *(f"the image: {text}" for text in slide.image.remarks()),
        *(finding.text for finding in check_image(slide) if slide.um_per_px is not None),
    ]


def diameter_of(slide: Slide) -> float:
    """Of a spot, in full-resolution pixels."""
    from ..data.thumbnails import spot_diameter

    return spot_diameter(slide)


def _no_spots() -> Spots:
    return Spots((), np.empty((0, 2)), np.empty((0, 2), dtype=np.int64))


def _slide(name: str, image: SlideImage, spots: Spots, of: Slide | None) -> Slide:
    """A slide without counts; what is known of the image is that of the slide that it is ``of``."""
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    n_spots = len(spots.names)
    obs = pd.DataFrame(
        {
            "array_row": spots.array_xy[:, 1],
            "array_col": spots.array_xy[:, 0],
            "in_tissue": np.ones(n_spots, dtype=np.int64),
        },
        index=pd.Index(spots.names, dtype=object),
    )
    adata = AnnData(X=sparse.csr_matrix((n_spots, 0), dtype=np.int32), obs=obs, obsm={"spatial": spots.centres})
    factors = {} if spots.diameter is None else {"spot_diameter_fullres": spots.diameter}
    adata.uns["spatial"] = {name: {"images": {}, "scalefactors": factors, "metadata": {}}}
    if of is None:
        return Slide(id=name, patient="", adata=adata, image=image)
    return replace(of, adata=adata)
