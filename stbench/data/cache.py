"""The cache of prepared slides: what an entry is called, how it is written, opened, and found damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset import Dataset, SlideSource
from ..errors import UserError, about_slice
from ..slides.checks import check_slide, refuse
from ..slides.cutting import Window
from ..slides.slide import Slide
from ..system.array_file import ArrayFile, read_array
from ..system.files import file_digest, replacing_directory, value_digest, writing_to
from ..system.locks import locked
from .patch_files import read_patches, write_patches
from .physical import in_words, patch_um_of, window_of
from .prepared import PADDING, PADDING_RULE, PreparedSlide
from .shared_patches import link_patches, remember_patches
from .targets import Target
from .thumbnails import spot_diameter, write_thumbnail

LAYOUT = 3  # raise it whenever what is written below changes
SPOTS_AT_A_TIME = 4096  # whose counts are made dense
MAPPED_FROM = 256 * 2**20  # bytes: larger arrays stay in their file, smaller ones are read at once
READABLE = 100  # characters of an entry's name that say what it is


def slide_key(dataset: Dataset, source: SlideSource, panel: Sequence[str]) -> str:
    """Digest of everything that determines a prepared slide."""
    return value_digest(_made_from(dataset, source) | {"panel": list(panel)})


def _made_from(dataset: Dataset, source: SlideSource) -> dict[str, Any]:
    """What determines a prepared slide, but for the panel."""
    for path in source.files:
        if not path.is_file():
            raise UserError(
                f"{path} of slice {source.id} is not there any more - restore it or see 'stbench data list'"
            )
    return {
        "layout": LAYOUT,
        "padding": PADDING,
        "slice": source.id,
        "patient": source.patient,
        "files": [file_digest(path) for path in source.files],
        "parameters": dict(source.parameters),
        "patch_px": dataset.patch_px,
    } | ({} if patch_um_of(dataset) is None else {"patch_um": patch_um_of(dataset)})


def cached_entry(
    dataset: Dataset, source: SlideSource, panel: Sequence[str], cache: Path, wanted: str | None, notices: list[str]
) -> Path:
    """The directory of a complete, checked entry; made if it is not there or not sound."""
    slides = cache / "slides"
    if wanted is not None:
        entry = slides / _entry_name(dataset, source, wanted)
        if entry.is_dir() and damage(entry) is None:
            return entry
    key = slide_key(dataset, source, panel)
    if wanted is not None and key != wanted:
        raise UserError(
            f"the files of slice {source.id} of {dataset.name} have changed since this run was planned - "
            "start a new run (another --out), or restore the files"
        )
    entry = slides / _entry_name(dataset, source, key)
    if entry.is_dir() and damage(entry) is None:
        return entry  # without a lock: the cache may be read-only
    with writing_to(slides):
        slides.mkdir(parents=True, exist_ok=True)
        with locked(slides / f".{entry.name}.lock"):
            if entry.is_dir():
                harm = damage(entry)
                if harm is None:  # another process made it meanwhile
                    return entry
                notices.append(f"prepared data of {source.id} were damaged ({harm}) and have been made again")
                shutil.rmtree(entry)
            with about_slice(source.id):
                slide = source.read()
            problems = check_slide(slide, panel=panel)
            refuse(slide, problems)
            told = [f"{slide.id}: {problem.text}" for problem in problems if problem.lasting]
            window, patch_um = window_of(slide, dataset), patch_um_of(dataset)
            told += [] if patch_um is None else [in_words(slide, window, patch_um)]
            slide = replace(slide, notes=(*slide.notes, *told))
            patches = value_digest(_made_from(dataset, source))
            with replacing_directory(entry) as temporary:
                n_padded = link_patches(temporary, slides, patches)
                if n_padded is None:
                    n_padded = write_patches(temporary, slide, window, PADDING)
                _write(temporary, slide, panel, window, n_padded, key)
            remember_patches(entry, patches)
    return entry


def _entry_name(dataset: Dataset, source: SlideSource, key: str) -> str:
    """Its first part is for people, and short enough for any file system; the key alone tells entries apart."""
    return f"{dataset.name}-{source.id}"[:READABLE] + f"-{key[:16]}"


def _write(directory: Path, slide: Slide, panel: Sequence[str], window: Window, n_padded: int, key: str) -> None:
    """All but the patches, which are there already."""
    with ArrayFile(directory / "counts.npy", (slide.n_spots, len(panel)), np.int32) as counts:
        total_counts = write_panel_counts(slide, panel, counts)
    labels = slide.adata.obs["label"].tolist() if "label" in slide.adata.obs else None
    arrays = {
        "total_counts": total_counts,
        "array_xy": slide.array_xy,
        "pixel_xy": slide.centres,
        "margins": slide.image.margins(slide.centres, window),
    }
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array, allow_pickle=False)
    thumbnail_scale = write_thumbnail(slide, directory / "thumbnail.jpg")
    facts = {
        "spot_ids": slide.spot_ids,
        "labels": None if labels is None else [label if isinstance(label, str) else None for label in labels],
        "um_per_px": slide.um_per_px,
        "image_level": slide.image.level,
        "thumbnail_scale": thumbnail_scale,
        "spot_diameter": spot_diameter(slide),
        "n_padded": n_padded,
        "window_px": window.covered,
        "n_measured": len(slide.genes),
        "notes": list(slide.notes),
        "key": key,
        "padding": PADDING_RULE,
    }
    (directory / "facts.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    digests = {path.name: file_digest(path) for path in sorted(directory.iterdir())}
    (directory / "digests.json").write_text(json.dumps(digests, indent=1), encoding="utf-8")


def panel_counts(slide: Slide, panel: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
    """Counts of the panel's genes, (n_spots, n_genes) int32, and of all genes, (n_spots,) int64.

    A gene that the slide's file does not list was not seen in it: its counts are zero.
    """
    genes = list(panel)
    counts = np.zeros((slide.n_spots, len(genes)), dtype=np.int32)
    return counts, write_panel_counts(slide, genes, counts)


def write_panel_counts(slide: Slide, panel: Sequence[str], out: np.ndarray | ArrayFile) -> np.ndarray:
    """:func:`panel_counts`, whose rows are written into ``out``; returns those of all genes."""
    matrix = slide.adata.X.tocsr()
    column = {name: index for index, name in enumerate(slide.genes)}
    present = [position for position, name in enumerate(panel) if name in column]
    wanted = [column[panel[position]] for position in present]
    for start in range(0, slide.n_spots, SPOTS_AT_A_TIME):  # dense, they take many times the memory of the matrix
        some = matrix[start : start + SPOTS_AT_A_TIME]
        rows = np.zeros((some.shape[0], len(panel)), dtype=np.int32)
        rows[:, present] = some[:, wanted].toarray()
        for number, row in enumerate(rows, start):
            out[number] = row
    return np.asarray(matrix.sum(axis=1)).ravel().astype(np.int64)


def damage(entry: Path) -> str | None:
    """What is wrong with a prepared entry, in words; ``None`` when every file is as it was written."""
    record = entry / "digests.json"
    try:
        digests = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # what is no text is a ValueError too
        return f"digests.json cannot be read: {error}"
    if not isinstance(digests, dict) or not digests:
        return "digests.json lists no files"
    unlisted = [path.name for path in entry.glob("*.npy") if path.name not in digests]
    if unlisted:
        return f"digests.json does not list {', '.join(sorted(unlisted))}"
    for name, digest in digests.items():
        path = entry / name
        if not path.is_file():
            return f"{name} is missing"
        if file_digest(path) != digest:
            return f"{name} is truncated or altered"
    return None


def open_entry(
    entry: Path, chosen_target: Target, panel: Sequence[str], source: SlideSource, notices: list[str]
) -> PreparedSlide:
    facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))
    digests = json.loads((entry / "digests.json").read_text(encoding="utf-8"))

    def array(name: str) -> np.ndarray:
        return _loaded(entry / f"{name}.npy")

    counts, total_counts, pixel_xy = array("counts"), array("total_counts"), array("pixel_xy")
    patches, patches_digest = read_patches(entry, pixel_xy, digests)
    return PreparedSlide(
        id=source.id,
        patient=source.patient,
        genes=tuple(panel),
        patches=patches,
        patches_digest=patches_digest,
        counts=counts,
        total_counts=total_counts,
        n_measured=facts["n_measured"],
        target=target_array(entry, chosen_target, counts, total_counts, facts["n_measured"], notices),
        array_xy=array("array_xy"),
        pixel_xy=pixel_xy,
        spot_ids=tuple(facts["spot_ids"]),
        labels=None if facts["labels"] is None else tuple(facts["labels"]),
        um_per_px=facts["um_per_px"],
        image_level=facts["image_level"],
        thumbnail=entry / "thumbnail.jpg",
        thumbnail_scale=facts["thumbnail_scale"],
        spot_diameter=facts["spot_diameter"],
        n_padded=facts["n_padded"],
        window_px=float(facts.get("window_px", patches.shape[1])),  # entries of before did not say it
        margins=array("margins") if facts["n_padded"] else None,
        notes=tuple(facts["notes"]),
        key=facts["key"],
    )


def target_array(
    entry: Path,
    chosen: Target,
    counts: np.ndarray,
    total_counts: np.ndarray,
    n_measured: int,
    notices: list[str],
) -> np.ndarray:
    """The slide's target, (n_spots, n_genes) float32, kept beside the slide's entry and checked like it."""
    home = entry.parent.parent / "targets" / f"{entry.name}-{chosen.name}-{value_digest(chosen.formula)[:8]}"
    if not home.is_dir() or damage(home) is not None:
        write = partial(_write_values, chosen, counts, total_counts, n_measured)
        _write_target(home, f"target {chosen.name} of {entry.name}", write, notices)
    return _loaded(home / "target.npy")


def _loaded(path: Path) -> np.ndarray:
    return read_array(path, mapped=path.stat().st_size > MAPPED_FROM)


def _write_values(chosen: Target, counts: np.ndarray, total_counts: np.ndarray, n_measured: int, path: Path) -> None:
    """Write a target, piece by piece."""
    if counts.size == 0 or chosen.pools_spots:
        np.save(path, chosen(counts, total_counts, n_measured), allow_pickle=False)
        return
    with ArrayFile(path, counts.shape, np.float32) as values:
        for piece in chosen.pieces(*counts.shape):
            for number, row in enumerate(chosen.of_piece(counts, total_counts, n_measured, piece), piece[0].start):
                values[number] = row


def _write_target(home: Path, name: str, write: Callable[[Path], None], notices: list[str]) -> None:
    with writing_to(home):
        home.parent.mkdir(parents=True, exist_ok=True)
        with locked(home.parent / f".{home.name}.lock"):
            harm = damage(home) if home.is_dir() else "missing"
            if harm is not None:  # else another process made it meanwhile
                if home.is_dir():
                    notices.append(f"{name} was damaged ({harm}) and has been made again")
                with replacing_directory(home) as temporary:
                    write(temporary / "target.npy")
                    digests = {"target.npy": file_digest(temporary / "target.npy")}
                    (temporary / "digests.json").write_text(json.dumps(digests), encoding="utf-8")
