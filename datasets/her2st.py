"""HER2+ breast tumours (Andersson et al. 2021): 32 sections of seven patients, Spatial Transcriptomics (1k array).

The published benchmark takes the sections A2 to G3 of 36 by their position in a sorted directory; the stated rule (at
least 180 spots) does not give that list, so it stands here as names.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.resources import files as resources
from pathlib import Path

from stbench.dataset import Missing, SlideSource

from .panels import panel
from .places import bases, first_file, first_folder, only_picture
from .readers import legacy_st

SPOTS = {  # spots with counts, measured on the published files
    "A2": 325, "A3": 359, "A4": 343, "A5": 332, "A6": 360,
    "B1": 295, "B2": 270, "B3": 298, "B4": 283, "B5": 289, "B6": 277,
    "C1": 176, "C2": 187, "C3": 180, "C4": 184, "C5": 181, "C6": 178,
    "D1": 306, "D2": 303, "D3": 301, "D4": 302, "D5": 306, "D6": 315,
    "E1": 587, "E2": 572, "E3": 570,
    "F1": 691, "F2": 695, "F3": 712,
    "G1": 441, "G2": 467, "G3": 463,
}  # fmt: skip

PITCH_UM = 200.0
SPOT_DIAMETER_UM = 100.0


class HER2ST:
    """Both upstream layouts: that of github.com/almaan/her2st and that of the Zenodo archives."""

    name = "her2st"
    title = "HER2+"
    slices: Sequence[str] = tuple(SPOTS)
    expected_spots = SPOTS
    patch_px = 224
    panel_source = (
        "the list shipped with the published methods' code, the same in every fold: said to be the most variable genes "
        "of each section, kept where enough spots of all sections express them"
    )
    panel_saw_test = True
    catalogue = resources(__package__) / "her2st.toml"
    how_to_get = (
        "stbench data fetch her2st; or by hand: "
        "git clone https://github.com/almaan/her2st into the data folder (images are in the tree), or unpack the "
        "archives of Zenodo record 4751624 there with 7-Zip (AES; the passwords are in that repository's README)"
    )
    citation = (
        "Andersson A, Larsson L, Stenbeck L, et al. Nature Communications 12, 6012 (2021). 10.1038/s41467-021-26271-2"
    )

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    def patient(self, slice_id: str) -> str:
        """The letter: sections of one letter are neighbours in one tumour."""
        return slice_id[0]

    def panel(self) -> list[str]:
        return panel("her2st")

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        places = bases(self.root, "her2st", "her2st-master", "her2st/her2st-master")
        places += [place / "data" for place in places if (place / "data").is_dir()]
        sources, missing = [], []
        for name in self.slices:
            found = _find_slice(places, name, self.patient(name))
            if isinstance(found, Missing):
                missing.append(found)
            else:
                sources.append(found)
        return sources, missing


def _find_slice(places: list[Path], name: str, patient: str) -> SlideSource | Missing:
    counts = first_file(
        places,
        *(f"{folder}/{name}.tsv{suffix}" for folder in ("ST-cnts", "count-matrices") for suffix in ("", ".gz")),
    )
    spots = first_file(
        places,
        *(
            f"{folder}/{name}_selection.tsv{suffix}"
            for folder in ("ST-spotfiles", "spot-selections")
            for suffix in ("", ".gz")
        ),
    )
    folder = first_folder(places, f"ST-imgs/{patient}/{name}")
    image = only_picture(folder) if folder is not None else None
    if image is None:
        image = first_file(places, f"images/HE/{name}.jpg", f"HE/{name}.jpg")
    labels = first_file(
        places,
        *(
            f"{folder}{name}_labeled_coordinates.tsv{suffix}"
            for folder in ("ST-pat/lbl/", "meta/", "")
            for suffix in ("", ".gz")
        ),
    )
    if counts is None:
        return Missing(name, _absent(places, "counts", f"data/ST-cnts/{name}.tsv.gz", "count-matrices"))
    if spots is None:
        return Missing(name, _absent(places, "spot file", f"data/ST-spotfiles/{name}_selection.tsv", "spot-selections"))
    if image is None:
        if folder is not None and any(folder.iterdir()):
            return Missing(name, f"several files in {folder}: keep the one H&E image")
        return Missing(name, _absent(places, "image", f"data/ST-imgs/{patient}/{name}/*.jpg", "images"))
    read = partial(
        legacy_st.read,
        name,
        patient,
        counts=counts,
        spots=spots,
        image=image,
        labels=labels,
        pitch_um=PITCH_UM,
        spot_diameter_um=SPOT_DIAMETER_UM,
    )
    files = tuple(path for path in (counts, spots, image, labels) if path is not None)
    return SlideSource(name, patient, read, files, {"reader": "legacy-st", "pitch_um": PITCH_UM})


def _absent(places: list[Path], what: str, looked_for: str, archive: str) -> str:
    if not places:
        return "no data folder is known"
    packed = first_file(places, f"{archive}.zip")
    if packed is not None:
        return (
            f"no {what}, but {packed} is not unpacked: use 7-Zip (the archive is AES-encrypted; the passwords are in "
            "the README of github.com/almaan/her2st)"
        )
    return f"no {what}: looked for {looked_for} under {places[0]}"
