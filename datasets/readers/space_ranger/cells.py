"""Segmented cells of Visium HD as spots: each at the centroid of its outline.

The outlines are GeoJSON with one polygon per cell, in full-resolution pixels, and the cell's number in its properties;
a barcode of the matrix is ``cellid_000000017-1``. Hundreds of thousands of outlines are read one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from stbench.errors import UserError
from stbench.system.compressed import existing, open_text

from .positions import FARTHEST

CHUNK = 1 << 20  # characters that are read at once
LONGEST = 64 << 20  # characters of one outline, beyond which the file is damaged
OPENING, BETWEEN = re.compile(r'"features"\s*:\s*\['), re.compile(r"[\s,]*")
NUMBER = re.compile(r"(?:cellid_)?0*(\d{1,18})(?:-\d+)?")


@dataclass(frozen=True)
class Cells:
    numbers: np.ndarray  # (n,) int64, each once
    centres: np.ndarray  # (n, 2) float64: x, y in full-resolution pixels

    def places_of(self, barcodes: list[str]) -> np.ndarray:
        """(n,) int64: which cell each barcode is, -1 where it has no outline."""
        place = {int(number): row for row, number in enumerate(self.numbers)}
        return np.array([place.get(_number(barcode), -1) for barcode in barcodes], dtype=np.int64)


def read_cells(path: Path) -> Cells:
    """The centroid of every outline. Raises ``UserError`` for a file that is damaged or of another kind."""
    existing(path)
    centres: dict[int, tuple[float, float]] = {}
    with open_text(path) as text:
        try:
            for feature in _features(text):
                number = _number(feature["properties"]["cell_id"])
                if number in centres:
                    raise UserError(f"{path} outlines the cell {number} more than once - fetch it again")
                centres[number] = _centroid(feature["geometry"])
        except UnicodeDecodeError:
            raise
        except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
            raise UserError(
                f"{path} is no GeoJSON of outlines with a cell_id each ({type(error).__name__}: {error}, after "
                f"{len(centres)} of them) - fetch it again"
            ) from error
    if not centres:
        raise UserError(f"{path} outlines no cell - fetch it again")
    return Cells(np.array(list(centres), dtype=np.int64), np.array(list(centres.values()), dtype=np.float64))


def _number(name: Any) -> int:
    if isinstance(name, float) and name.is_integer():
        return int(name)
    match = NUMBER.fullmatch(str(name))
    if match is None:
        raise ValueError(f"'{str(name)[:40]}' is no number of a cell")
    return int(match[1])


def _features(text: IO[str]) -> Iterator[Any]:
    """The members of the list "features", decoded one at a time."""
    decoder, ask = json.JSONDecoder(), CHUNK
    buffer, at = _list_of_features(text), 0
    while True:
        at = BETWEEN.match(buffer, at).end()  # type: ignore[union-attr]  # it matches anything, if only nothing
        if buffer.startswith("]", at):
            return
        try:
            feature, at = decoder.raw_decode(buffer, at)
        except json.JSONDecodeError:
            more = text.read(ask)
            if not more or len(buffer) - at > LONGEST:
                raise ValueError("it is cut off or damaged") from None
            # twice as much each time, so that a long outline is decoded a few times and not once for each chunk
            buffer, at, ask = buffer[at:] + more, 0, 2 * ask
            continue
        ask = CHUNK
        yield feature


def _list_of_features(text: IO[str]) -> str:
    """What is read so far behind the list's opening bracket."""
    buffer = ""
    while len(buffer) <= LONGEST:
        chunk = text.read(CHUNK)
        buffer += chunk
        match = OPENING.search(buffer)
        if match is not None:
            return buffer[match.end() :]
        if not chunk:
            break
    raise ValueError("it has no list of features")


def _centroid(geometry: Any) -> tuple[float, float]:
    """Of a polygon or several, without their holes; of the corners where the outline encloses no area."""
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(f"an outline is a {kind}")
    polygons = coordinates if kind == "MultiPolygon" else [coordinates]
    rings = [
        (np.array(ring, dtype=np.float64)[:, :2], number > 0)
        for polygon in polygons
        for number, ring in enumerate(polygon)
    ]
    origin = rings[0][0][0]
    area, moment = 0.0, np.zeros(2)
    for ring, hole in rings:
        ring_area, ring_moment = _moments(ring - origin)
        sign = (-1 if hole else 1) * (np.sign(ring_area) or 1)  # rings run either way round
        area, moment = area + sign * ring_area, moment + sign * ring_moment
    corners = np.concatenate([ring for ring, _ in rings])
    centre = origin + moment / area if area > 0 else corners.mean(axis=0)
    if not (np.abs(centre) < FARTHEST).all():
        raise ValueError("an outline lies on no image")
    return float(centre[0]), float(centre[1])


def _moments(ring: np.ndarray) -> tuple[float, np.ndarray]:
    """Signed area, and area times centroid, of a ring that may be closed or not."""
    following = np.roll(ring, -1, axis=0)
    cross = ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]
    return float(cross.sum() / 2), ((ring + following) * cross[:, None]).sum(axis=0) / 6
