"""What ``metadata/ID.json`` says of a sample, and the size of a pixel, of which several things there speak."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stbench.errors import UserError
from stbench.system.compressed import existing, open_text
from stbench.system.scalars import as_number, as_text

from ..space_ranger.scale import VISIUM_PITCH_UM

AGREE = 1.1  # pixel sizes that differ by less are the same
SIZES = ("pixel_size_um_estimated", "pixel_size_um_embedded")


def read_metadata(path: Path) -> Mapping[str, Any]:
    try:
        with open_text(existing(path)) as text:
            content = json.load(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}) - fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} does not describe a sample (not a JSON object) - fetch it again")
    return content


def patient_in(metadata: Mapping[str, Any]) -> str | None:
    """The patient; in collections of one patient each a number may stand for the name."""
    value = metadata.get("patient")
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        value = f"{value:g}"
    text = re.sub(r"[^A-Za-z0-9._+-]+", "-", as_text(value) or "").strip("-._+")  # as a patient is written here
    return None if text.lower() in ("", "nan", "none", "unknown") else text


def pixel_size(metadata: Mapping[str, Any], pitch_px: float | None, notes: list[str]) -> tuple[float | None, str]:
    """µm per pixel and where that comes from; ``pitch_px`` is the distance of neighbouring spots in pixels.

    The array is a ruler where its pitch is known: 100 µm for Visium, ``inter_spot_dist`` for others. Metadata whose
    spots are larger than the distance between them have the two exchanged (cSCC), and sizes that rest on them are
    wrong. ``pixel_size_um_embedded`` is what the image's tags say, ten times too small in some.
    """
    stated = {name: value for name in SIZES if (value := as_number(metadata.get(name))) is not None and value > 0}
    technology = (as_text(metadata.get("st_technology")) or "").strip().lower()
    pitch_um, diameter = (as_number(metadata.get(name)) for name in ("inter_spot_dist", "spot_diameter"))
    if technology == "visium":
        pitch_um = VISIUM_PITCH_UM
    elif pitch_um is not None and diameter is not None and diameter > pitch_um:
        notes.append(
            f"its metadata have spots of {diameter:g} µm at a distance of {pitch_um:g} µm, which cannot be: the size "
            "of a pixel, which rests on that, is not used - give um_per_px if you know it"
        )
        return None, ""
    measured = pitch_um / pitch_px if pitch_um is not None and pitch_um > 0 and pitch_px is not None else None
    name, size = next(iter(stated.items()), ("", None))
    if measured is None:
        if len(stated) == len(SIZES) and not _agree(*stated.values()):
            notes.append(f"its metadata contradict each other: {_listed(stated)}; the first is taken")
        return size, f"{name} of its metadata" if name else ""
    odd = {name: size for name, size in stated.items() if not _agree(size, measured)}
    if odd:
        notes.append(
            f"by the spots, {pitch_um:g} µm apart, a pixel is {measured:.4g} µm wide, which is taken; its metadata say "
            f"{_listed(odd)}"
        )
    if technology == "visium" or name in odd or size is None:
        return measured, f"the spots' pitch of {pitch_um:g} µm"
    return size, f"{name} of its metadata"


def _listed(sizes: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {size:.4g}" for name, size in sizes.items())


def _agree(first: float, second: float) -> bool:
    return 1 / AGREE < first / second < AGREE
