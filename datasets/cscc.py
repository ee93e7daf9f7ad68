"""Cutaneous squamous cell carcinoma (Ji et al. 2020): 12 sections of four patients, first-generation arrays (2k).

Published method repositories call these Visium; they are not. The array's pitch is reported inconsistently, so the size
of a pixel stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from importlib.resources import files as resources
from pathlib import Path

from stbench.dataset import Missing, SlideSource

from .panels import panel
from .places import bases, first_file
from .readers import legacy_st

SPOTS = {  # selected spots that have counts; the order is the published fold order, not the alphabetical one
    "P2_ST_rep1": 666, "P2_ST_rep2": 646, "P2_ST_rep3": 638,
    "P5_ST_rep1": 590, "P5_ST_rep2": 521, "P5_ST_rep3": 521,
    "P9_ST_rep1": 1145, "P9_ST_rep2": 1071, "P9_ST_rep3": 1182,
    "P10_ST_rep1": 608, "P10_ST_rep2": 621, "P10_ST_rep3": 462,
}  # fmt: skip


class CSCC:
    """The files of GEO GSE144240 (its ST samples are GSE144239) in one flat folder, gzipped or not."""

    name = "cscc"
    title = "cSCC"
    slices: Sequence[str] = tuple(SPOTS)
    expected_spots = SPOTS
    patch_px = 224
    panel_source = (
        "the list shipped with the published methods' code, the same in every fold: said to be the most variable genes "
        "of each section, kept where enough spots of all sections express them"
    )
    panel_saw_test = True
    catalogue = resources(__package__) / "cscc.toml"
    how_to_get = (
        "stbench data fetch cscc; or by hand: "
        "download GSE144240_RAW.tar from https://www.ncbi.nlm.nih.gov/geo/query/acc.cgi?acc=GSE144240 and unpack it "
        "into GSE144240_RAW/ in the data folder; the files may stay gzipped"
    )
    citation = "Ji AL, Rubin AJ, Thrane K, et al. Cell 182, 497-514 (2020). 10.1016/j.cell.2020.05.039"

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    def patient(self, slice_id: str) -> str:
        return slice_id.split("_")[0]

    def panel(self) -> list[str]:
        return panel("cscc")

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        folders = ("GSE144240_RAW", "GSE144239_RAW")
        places = bases(
            self.root, "cscc", *folders, *(f"{top}/{raw}" for top in ("cscc", "CSCC_data") for raw in folders)
        )
        # first-generation data of other studies may lie in the same root: only whole names of this study's files match
        files = [path for place in places for path in sorted(place.iterdir()) if path.is_file()]
        sources, missing = [], []
        for name in self.slices:
            counts = _named(files, rf"(.*_)?{name}_stdata\.tsv(\.gz)?")
            spots = _named(files, rf".*spot.*[-_]{name}\.tsv(\.gz)?")
            image = _named(files, rf"(.*_)?{name}\.jpe?g(\.gz)?")
            if counts is None or spots is None or image is None:
                missing.append(Missing(name, _absent(places, name, counts, spots, image)))
                continue
            read = partial(legacy_st.read, name, self.patient(name), counts=counts, spots=spots, image=image)
            parameters = {"reader": "legacy-st"}
            sources.append(SlideSource(name, self.patient(name), read, (counts, spots, image), parameters))
        return sources, missing


def _named(files: list[Path], pattern: str) -> Path | None:
    """The first file whose whole name matches; where a file lies there packed and unpacked, the unpacked one."""
    return next((path for path in files if re.fullmatch(pattern, path.name)), None)


def _absent(places: list[Path], name: str, counts: Path | None, spots: Path | None, image: Path | None) -> str:
    if not places:
        return "no data folder is known"
    packed = first_file(places, "GSE144240_RAW.tar", "GSE144239_RAW.tar")
    if packed is not None:
        return f"{packed} is not unpacked: tar -xf it into GSE144240_RAW/ beside it"
    looked_for = {
        f"*{name}_stdata.tsv[.gz]": counts,
        f"*spot*{name}.tsv[.gz]": spots,
        f"*{name}.jpg[.gz]": image,
    }
    absent = ", ".join(pattern for pattern, path in looked_for.items() if path is None)
    return f"looked for {absent} in {places[-1]}"
