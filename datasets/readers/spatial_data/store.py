"""A store opened, and which of its elements are read: a table, the region that it annotates, and an image over it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError, reason_of, unknown

READ = ("images", "labels", "shapes", "tables")  # points are transcripts: none is needed, and there are millions
SIZES = re.compile(r"(.*?)_?(full|hires|lowres)_image")  # as spatialdata-io names the pictures of a Visium section
CHANNELS = {"r": 0, "g": 1, "b": 2, "red": 0, "green": 1, "blue": 2}


@dataclass(frozen=True)
class Chosen:
    """What of a store is read as one section."""

    table: str
    region: str
    region_key: str
    instance_key: str
    image: str
    channels: tuple[int, int, int]  # that hold red, green, blue
    to_image: np.ndarray  # (3, 3): from the region's own coordinates to pixels of the image
    systems: tuple[str, ...]  # coordinate systems in which both lie, the one that was used first


def is_store(folder: Path) -> bool:
    """Whether ``folder`` is a Zarr store with a table and shapes or labels in it."""
    if not folder.is_dir() or not any((folder / name).is_file() for name in ("zarr.json", ".zgroup")):
        return False
    tables = any((folder / name).is_dir() for name in ("tables", "table"))
    return tables and any((folder / name).is_dir() for name in ("shapes", "labels"))


def store_files(folder: Path) -> tuple[Path, ...]:
    """Every file that a section may depend on."""
    parts = [path for name in (*READ, "table") for path in (folder / name).rglob("*")]
    return tuple(sorted(path for path in (*parts, *folder.iterdir()) if path.is_file()))


def require_library() -> None:
    if find_spec("spatialdata") is None:
        raise UserError("SpatialData stores need the library of that name - pip install 'stbench[spatialdata]'")


def opened(folder: Path) -> Any:
    """The store, lazily. Raises ``UserError``."""
    require_library()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its dependencies' deprecations, and of stores of earlier versions
        try:
            import spatialdata

            return spatialdata.read_zarr(folder, selection=READ)
        except Exception as error:  # of any of the libraries beneath it
            raise UserError(
                f"{folder} cannot be read as SpatialData ({reason_of(error)}) - write it again with spatialdata"
            ) from error


def chosen(
    folder: Path, store: Any, region: str | None, table: str | None, image: str | None, system: str | None
) -> Chosen:
    """The elements that are named, or the only ones that fit. Raises ``UserError`` with what there is to choose."""
    annotated = _annotated(store)
    if not annotated:
        raise UserError(f"{folder} has no table that annotates shapes or labels - write one with region and instance")
    if table is not None and table not in {entry[0] for entry in annotated}:
        raise unknown(f"table of {folder}", table, {entry[0] for entry in annotated})
    if region is not None and region not in {entry[1] for entry in annotated}:
        raise unknown(f"region of {folder}", region, {entry[1] for entry in annotated})
    found = [entry for entry in annotated if table in (None, entry[0]) and region in (None, entry[1])]
    if len(found) != 1:
        what = "; ".join(f"{entry[1]} (table {entry[0]})" for entry in found) or "none"
        option = "--library" if len({entry[1] for entry in found}) == len(found) else "--library and --option table=..."
        raise UserError(f"{folder} holds several regions: {what} - choose one with {option}")
    table, region, region_key, instance_key = found[0]
    name = _image(folder, store, region, image, system)
    to_image, systems = _between(folder, store, region, name, system)
    return Chosen(table, region, region_key, instance_key, name, _rgb(folder, store, name), to_image, systems)


def _annotated(store: Any) -> list[tuple[str, str, str, str]]:
    """Table, region, region_key and instance_key of everything that a table annotates."""
    found = []
    for name, table in store.tables.items():
        attributes = table.uns.get("spatialdata_attrs", {})
        region = attributes.get("region")
        regions = [region] if isinstance(region, str) else list(region if region is not None else ())
        for each in regions:
            if each in store.shapes or each in store.labels:
                found.append((name, str(each), str(attributes["region_key"]), str(attributes["instance_key"])))
    return found


def _image(folder: Path, store: Any, region: str, given: str | None, system: str | None) -> str:
    if given is not None:
        if given not in store.images:
            raise unknown(f"image of {folder}", given, store.images)
        return given
    found = [name for name in store.images if _is_rgb(store.images[name]) and _common(store, region, name, system)]
    named = [name for name in found if (match := SIZES.fullmatch(name)) is not None and match[1] == region]
    found = named or found
    if len(found) > 1 and len({match[1] if (match := SIZES.fullmatch(name)) else name for name in found}) == 1:
        order = ("full", "hires", "lowres")
        found = sorted(found, key=lambda name: order.index(SIZES.fullmatch(name)[2]))[:1]  # type: ignore[index]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found or store.images) or "none"
    which = "several images" if found else "no colour image in a coordinate system"
    raise UserError(f"{folder} has {which} of {region} ({listed}) - name the H&E image with --option picture=NAME")


def _is_rgb(image: Any) -> bool:
    names = channel_names(image)
    # three stains under a microscope of fluorescence are three channels, too
    return len(names) == 3 and not any(isinstance(name, str) and "dapi" in name.lower() for name in names)


def channel_names(image: Any) -> list[Any]:
    finest = next(iter(image["scale0"].values())) if "scale0" in getattr(image, "children", {}) else image
    return list(finest.coords["c"].values.tolist()) if "c" in finest.coords else list(range(finest.sizes["c"]))


def _rgb(folder: Path, store: Any, name: str) -> tuple[int, int, int]:
    channels = channel_names(store.images[name])
    if len(channels) < 3:
        raise UserError(
            f"{folder}: the image {name} has {len(channels)} channels, not red, green and blue - choose another"
        )
    place = [CHANNELS.get(str(channel).lower()) for channel in channels[:3]]
    if sorted(p for p in place if p is not None) != [0, 1, 2]:
        return (0, 1, 2)
    return (place.index(0), place.index(1), place.index(2))


def _common(store: Any, region: str, image: str, system: str | None) -> list[str]:
    """The coordinate systems in which both lie."""
    both = [name for name in transformations(store[region]) if name in transformations(store[image])]
    return [name for name in both if system in (None, name)]


def transformations(element: Any) -> Mapping[str, Any]:
    from spatialdata.transformations import get_transformation

    found: Mapping[str, Any] = get_transformation(element, get_all=True)
    return found


def matrix_of(transformation: Any) -> np.ndarray:
    """(3, 3): x, y, 1 of an element to those of a coordinate system."""
    return np.asarray(transformation.to_affine_matrix(("x", "y"), ("x", "y")), dtype=np.float64)


def _between(
    folder: Path, store: Any, region: str, image: str, system: str | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """From the region's coordinates to pixels of the image, by every coordinate system in which both lie."""
    systems = _common(store, region, image, system)
    if not systems:
        lie = {name: ", ".join(transformations(store[name])) for name in (region, image)}
        raise UserError(
            f"{folder}: {region} ({lie[region]}) and {image} ({lie[image]}) lie in no common coordinate system"
            f"{'' if system is None else f' {system}'} - add the transformation that aligns them"
        )
    systems = sorted(systems, key=lambda name: name != "global")
    ways = []
    for name in systems:
        of_region, of_image = (matrix_of(transformations(store[element])[name]) for element in (region, image))
        if not np.isfinite(of_image).all() or abs(np.linalg.det(of_image)) < 1e-12 or not np.isfinite(of_region).all():
            raise UserError(
                f"{folder}: {image} or {region} is mapped to {name} by a matrix that is singular - correct it"
            )
        ways.append(np.linalg.inv(of_image) @ of_region)
    _require_agreement(folder, ways, systems, f"{region} and {image}")
    return ways[0], tuple(systems)


def _require_agreement(folder: Path, ways: Sequence[np.ndarray], systems: Sequence[str], what: str) -> None:
    for way, name in zip(ways[1:], systems[1:], strict=True):
        if not np.allclose(way, ways[0], rtol=1e-3, atol=1.0):
            raise UserError(
                f"{folder}: {what} lie differently to each other in the coordinate systems {systems[0]} and {name} - "
                "choose one with --option coordinate_system=NAME"
            )
