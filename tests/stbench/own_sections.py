"""A user's own sections, under whatever names, described by a manifest: what a run needs, made in milliseconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import upstream

SIDE, PITCH = 6, 40  # spots along each side, pixels between them
GENES = tuple(f"GENE{i}" for i in range(8))


def write_manifest(
    folder: Path,
    patients: Mapping[str, str],
    name: str = "mine",
    title: str | None = None,
    genes: Sequence[str] = GENES,
    labels: Sequence[str] | None = None,
) -> Path:
    """``folder/NAME.toml`` of the slices that ``patients`` names, all with the content that their place gives them.

    ``labels``: of the spots, in turn, as written into the file.
    """
    text = [f"name = {json.dumps(name)}", "patch_px = 32", f"title = {json.dumps(title or name)}"]
    for place, (slice_id, patient) in enumerate(patients.items()):
        stem = f"section{place}"
        _write_section(folder, stem, place, genes, labels)
        text += ["", "[[slide]]", f"id = {json.dumps(slice_id)}", f"patient = {json.dumps(patient)}"]
        text += [
            'reader = "legacy-st"',
            f'counts = "{stem}.tsv"',
            f'spots = "{stem}_spots.tsv"',
            f'image = "{stem}.jpg"',
        ]
        text += [] if labels is None else [f'labels = "{stem}_labels.tsv"']
    return upstream.write_text(folder / f"{name}.toml", "\n".join(text) + "\n")


def _write_section(folder: Path, stem: str, seed: int, genes: Sequence[str], labels: Sequence[str] | None) -> None:
    rng = np.random.default_rng(seed)
    side = (SIDE + 1) * PITCH
    upstream.write_picture(folder / f"{stem}.jpg", upstream.tissue_image(side, side, rng))
    places = [(x, y) for y in range(1, SIDE + 1) for x in range(1, SIDE + 1)]
    dark = np.array([x * PITCH < side / 2 for x, _ in places])
    rates = np.where(dark[:, None] & (np.arange(len(genes)) % 2 == 0), 12.0, 4.0)
    counts = rng.poisson(rates)
    rows = ["\t".join(map(str, [f"{x}x{y}", *row])) for (x, y), row in zip(places, counts, strict=True)]
    upstream.write_text(folder / f"{stem}.tsv", "\n".join(["\t".join(["", *genes]), *rows]) + "\n")
    spots = [f"{x}\t{y}\t{x * PITCH}\t{y * PITCH}" for x, y in places]
    upstream.write_text(folder / f"{stem}_spots.tsv", "\n".join(["x\ty\tpixel_x\tpixel_y", *spots]) + "\n")
    if labels is not None:
        lines = [f"{x}\t{y}\t{labels[i % len(labels)]}" for i, (x, y) in enumerate(places)]
        upstream.write_text(folder / f"{stem}_labels.tsv", "\n".join(["x\ty\tlabel", *lines]) + "\n")
