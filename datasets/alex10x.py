"""Alex+10x: six breast tumours of Wu et al. 2021 (senior author Alexander Swarbrick) and three of 10x Genomics, Visium.

The two sections of Block A are of one tumour, hence of one patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import files as resources
from pathlib import Path

from stbench.dataset import Missing, SlideSource
from stbench.errors import UserError

from .panels import panel
from .places import bases, first_file, first_folder
from .readers import space_ranger
from .readers.space_ranger.files import SpaceRangerFiles

SPOTS = {  # the sizes in the published evaluation
    "1142243F": 4784, "CID4290": 2432, "CID4465": 1211, "CID44971": 1162, "CID4535": 1127, "1160920F": 4895,
    "block1": 3798, "block2": 3987, "FFPE": 2518,
}  # fmt: skip

PATIENTS = {"block1": "block-A", "block2": "block-A"}  # every other section is a patient of its own

ALIASES = {  # the names under which 10x Genomics publishes them
    "block1": ("V1_Breast_Cancer_Block_A_Section_1",),
    "block2": ("V1_Breast_Cancer_Block_A_Section_2",),
    "FFPE": ("Visium_FFPE_Human_Breast_Cancer",),
}


class Alex10x:
    """Upstream layouts: Zenodo 4739739, the folders of mclSTExp, and Space Ranger folders named by section."""

    name = "alex10x"
    title = "Alex+10x"
    slices: Sequence[str] = tuple(SPOTS)
    expected_spots = SPOTS
    patch_px = 224
    panel_source = (
        "the list shipped with the published methods' code, the same in every fold: said to be the most variable genes "
        "of each section, kept where enough spots of all sections express them"
    )
    panel_saw_test = True
    catalogue = resources(__package__) / "alex10x.toml"
    how_to_get = (
        "stbench data fetch alex10x; or by hand: "
        "put one Space Ranger folder per section into alex10x/ in the data folder, named by section: the six of Wu et "
        "al. from https://zenodo.org/records/4739739 (full-resolution images: https://doi.org/10.48610/4fb74a9), "
        "block1, block2 and FFPE from https://www.10xgenomics.com/datasets; or all nine from "
        "https://zenodo.org/records/13117873"
    )
    citation = (
        "Wu SZ, Al-Eryani G, Roden DL, et al. Nature Genetics 53, 1334-1347 (2021). 10.1038/s41588-021-00911-1; "
        "10x Genomics, Human Breast Cancer (Block A Sections 1 and 2) and Human Breast Cancer: Ductal Carcinoma In "
        "Situ, Invasive Carcinoma (FFPE), CC BY 4.0"
    )

    def __init__(self, root: Path | None = None) -> None:
        self.root = root

    def patient(self, slice_id: str) -> str:
        return PATIENTS.get(slice_id, slice_id)

    def panel(self) -> list[str]:
        return panel("alex10x")

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        places = bases(self.root, "alex10x", "visium", "alex10x/visium")
        places += [
            place / below for place in places for below in ("Alex_NatGen", "10xGenomics") if (place / below).is_dir()
        ]
        sources, missing = [], []
        for name in self.slices:
            try:
                files = _find_section(places, name)
            except UserError as error:
                missing.append(Missing(name, str(error)))
                continue
            if files is None:
                looked_for = " or ".join(f"{folder}/" for folder in (name, *ALIASES.get(name, ())))
                reason = f"looked for {looked_for} under {self.root}" if self.root else "no data folder is known"
                missing.append(Missing(name, reason))
                continue
            read = partial(space_ranger.read, name, self.patient(name), files)
            parameters = {"reader": "space-ranger", "level": files.level, "label_column": files.label_column}
            sources.append(SlideSource(name, self.patient(name), read, files.paths(), parameters))
        return sources, missing


def _find_section(places: list[Path], name: str) -> SpaceRangerFiles | None:
    folder = first_folder(places, name, *ALIASES.get(name, ()))
    if folder is not None:
        return _section_folder(folder)
    return _wu_archive(places, name)


def _section_folder(folder: Path) -> SpaceRangerFiles:
    """One folder with everything. mclSTExp's holds a raw matrix and, beside it, the barcodes of the filtered one."""
    annotation = first_file([folder], "metadata_sedr_annotation.tsv")
    raw, filtered = folder / "raw_feature_bc_matrix", folder / "filtered_count_matrix"
    barcodes = first_file([filtered], "barcodes.tsv.gz", "barcodes.tsv")
    found = space_ranger.find(folder)
    return replace(
        found,
        barcodes=barcodes if found.counts == raw else None,
        labels=annotation,
        label_column=None if annotation is None else "fine_annot_type",
    )


def _wu_archive(places: list[Path], name: str) -> SpaceRangerFiles | None:
    """The archives of Zenodo 4739739, unpacked beside each other; they hold no full-resolution image."""
    counts = first_folder(places, f"filtered_count_matrices/{name}_filtered_count_matrix")
    spatial = first_folder(places, f"spatial/{name}_spatial")
    if counts is None and spatial is None:
        return None
    if counts is None:
        raise UserError(
            f"{spatial} is there, but filtered_count_matrices/{name}_filtered_count_matrix is not - unpack it"
        )
    if spatial is None:
        raise UserError(f"{counts} is there, but spatial/{name}_spatial is not - unpack spatial.tar.gz beside it")
    labels = first_file(places, f"metadata/{name}_metadata.csv")
    image = first_file(places, *(f"images/{name}{suffix}" for suffix in (".tif", ".tiff", ".jpg", ".png")))
    return space_ranger.from_parts(
        counts, spatial, image, labels=labels, label_column=None if labels is None else "Classification"
    )
