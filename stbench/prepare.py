"""Prepared data: patches, counts, positions and target of every slide, cut once, kept on disk, shared by all trials.

Each slide is one directory in the cache, named by a hash of everything that determines it (the content of the source
files, the window, the padding rule, the panel, the layout's version). It is written under a temporary name and renamed,
under a lock, so two processes may prepare at once; when it is opened every file is checked against its recorded digest,
and an entry that is truncated or altered is made again, with a notice.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from .dataset import Dataset, Missing, SlideSource
from .errors import UserError, about_slice, unknown
from .files import file_digest, replacing_directory, value_digest, writing_to
from .locks import locked
from .mapped import require_whole
from .method import LeakedSlide, OracleSlide, TestSlide, TrainingSlide
from .slide import Slide, check_slide, refuse
from .targets import Target, target
from .thumbnails import spot_diameter, write_thumbnail

LAYOUT = 3  # raise it whenever what is written below changes
PADDING = 255  # a window that crosses the image's border is filled with white, and counted
READABLE = 100  # characters of an entry's name that say what it is
PADDING_RULE = "parts of a window outside the image are white (255), or black where a method's padding says so"


@dataclass(frozen=True)
class PreparedSlide:
    """One slide as trials use it. Arrays are read-only; ``patches`` is memory-mapped."""

    id: str
    patient: str
    genes: tuple[str, ...]
    patches: np.ndarray  # (n_spots, patch_px, patch_px, 3) uint8
    counts: np.ndarray  # (n_spots, n_genes) int32, panel genes
    total_counts: np.ndarray  # (n_spots,) int64, all genes of the slide
    n_measured: int  # how many genes these are
    target: np.ndarray  # (n_spots, n_genes) float32
    array_xy: np.ndarray  # (n_spots, 2) int64
    pixel_xy: np.ndarray  # (n_spots, 2) float64, full resolution
    spot_ids: tuple[str, ...]
    labels: tuple[str | None, ...] | None
    um_per_px: float | None
    image_level: str  # full, hires or lowres
    thumbnail: Path  # the whole image as a small JPEG
    thumbnail_scale: float  # its pixels per full-resolution pixel
    spot_diameter: float  # full-resolution pixels
    n_padded: int
    margins: np.ndarray | None  # (n_spots, 4) int64: pixels of a patch left, above, right, below the image; None: none
    notes: tuple[str, ...]
    key: str

    @property
    def n_spots(self) -> int:
        return len(self.counts)

    def for_training(self) -> TrainingSlide:
        return TrainingSlide(
            *self._image_side(),
            margins=self.margins,
            genes=self.genes,
            target=self.target,
            counts=self.counts,
            total_counts=self.total_counts,
        )

    def for_test(self, oracle: bool = False) -> TestSlide:
        """What a method may see when it predicts; an oracle control also sees the spots' total counts."""
        if oracle:
            return OracleSlide(*self._image_side(), margins=self.margins, total_counts=self.total_counts)
        return TestSlide(*self._image_side(), margins=self.margins)

    def for_leak(self, place: int) -> LeakedSlide:
        """For a method that declares a leak: what is to be predicted, and how many training slides stand before."""
        return LeakedSlide(*self._image_side(), margins=self.margins, truth=self.for_training(), place=place)

    def _image_side(self) -> tuple[str, str, np.ndarray, np.ndarray, np.ndarray, float | None]:
        require_whole(self.patches)
        return self.id, self.patient, self.patches, self.array_xy, self.pixel_xy, self.um_per_px

    def facts(self) -> dict[str, Any]:
        """What reports print about the slide (JSON-able)."""
        return {
            "patient": self.patient,
            "n_spots": self.n_spots,
            "n_padded": self.n_padded,
            "image_level": self.image_level,
            "um_per_px": self.um_per_px,
            "notes": list(self.notes),
            "key": self.key,
        }


@dataclass(frozen=True)
class PreparedDataset:
    """The slides of one dataset on one target, in fold order."""

    name: str
    title: str
    target: Target
    genes: tuple[str, ...]
    patch_px: int
    slides: Mapping[str, PreparedSlide]
    expected: tuple[str, ...]
    missing: tuple[Missing, ...]
    notices: tuple[str, ...] = ()
    panel_source: str = ""  # how the panel was chosen, in words; empty: the dataset does not declare it
    panel_saw_test: bool | None = None  # whether expression of slices that are tested was looked at; None: not declared

    @cached_property
    def patients(self) -> dict[str, str]:
        """Slice to patient, in fold order."""
        return {name: slide.patient for name, slide in self.slides.items()}

    def coverage(self) -> str:
        """``6/32``: how many of the dataset's slices these are."""
        return f"{len(self.slides)}/{len(self.expected)}"


def prepare(
    dataset: Dataset,
    target_name: str,
    cache: Path,
    slices: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> PreparedDataset:
    """Open the prepared slides of ``dataset``, making those that are not in ``cache`` yet.

    ``slices`` chooses some of those present; ``keys`` (slice to key) says which prepared content is wanted: a planned
    trial never runs on data that changed since it was planned. Raises ``UserError`` when no slice can be used.
    """
    chosen_target = target(target_name)
    sources, missing = choose(dataset, slices)
    panel = dataset.panel()
    prepared: dict[str, PreparedSlide] = {}
    notices: list[str] = list(getattr(dataset, "panel_notices", ()))
    for position, source in enumerate(sources):
        if on_progress is not None:
            on_progress(position, len(sources), source.id)
        wanted = (keys or {}).get(source.id)
        entry = _entry(dataset, source, panel, cache, wanted, notices)
        prepared[source.id] = _open(entry, chosen_target, panel, source, notices)
    if on_progress is not None:
        on_progress(len(sources), len(sources), "")
    return PreparedDataset(
        name=dataset.name,
        title=dataset.title,
        target=chosen_target,
        genes=tuple(panel),
        patch_px=dataset.patch_px,
        slides=prepared,
        expected=tuple(dataset.slices),
        missing=tuple(missing),
        notices=tuple(notices),
        panel_source=getattr(dataset, "panel_source", ""),
        panel_saw_test=getattr(dataset, "panel_saw_test", None),
    )


def choose(dataset: Dataset, slices: Sequence[str] | None) -> tuple[list[SlideSource], list[Missing]]:
    """The slices to use, all that are present or those of ``slices``, and those that are missing; reads no content.

    Raises ``UserError`` for a slice that is unknown or not there, and where there is none.
    """
    sources, missing = dataset.find()
    if slices is not None:
        for name in slices:
            if name not in dataset.slices:
                raise unknown(f"slice of {dataset.name}", name, dataset.slices)
        absent = {gone.id: gone.reason for gone in missing}
        for name in slices:
            if name in absent:
                raise UserError(f"slice {name} of {dataset.name} is not there: {absent[name]} - {dataset.how_to_get}")
        sources = [source for source in sources if source.id in set(slices)]
    if not sources:
        reason = f" ({missing[0].id}: {missing[0].reason})" if missing else ""
        raise UserError(
            f"no slice of {dataset.name} was found{reason} - {dataset.how_to_get}; "
            "name the folder with --data DIR or STBENCH_DATA, and see 'stbench data list'"
        )
    return sources, missing


def require_readable(sources: Iterable[SlideSource]) -> None:
    """``UserError`` for a file of a slice that is gone, or that may not be read; costs nothing."""
    for source in sources:
        for path in source.files:
            try:
                with open(path, "rb") as handle:
                    handle.read(1)
            except OSError as error:
                raise UserError(
                    f"{path} of slice {source.id} cannot be read ({error.strerror or error}) - restore it, or see "
                    "'stbench data list'"
                ) from error


def slide_key(dataset: Dataset, source: SlideSource, panel: Sequence[str]) -> str:
    """Digest of everything that determines a prepared slide."""
    for path in source.files:
        if not path.is_file():
            raise UserError(
                f"{path} of slice {source.id} is not there any more - restore it or see 'stbench data list'"
            )
    return value_digest(
        {
            "layout": LAYOUT,
            "padding": PADDING,
            "slice": source.id,
            "patient": source.patient,
            "files": [file_digest(path) for path in source.files],
            "parameters": dict(source.parameters),
            "patch_px": dataset.patch_px,
            "panel": list(panel),
        }
    )


def _entry(
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
            told = tuple(f"{slide.id}: {problem.text}" for problem in problems if problem.lasting)
            slide = replace(slide, notes=(*slide.notes, *told))
            with replacing_directory(entry) as temporary:
                _write(temporary, slide, panel, dataset.patch_px, key)
    return entry


def _entry_name(dataset: Dataset, source: SlideSource, key: str) -> str:
    """Its first part is for people, and short enough for any file system; the key alone tells entries apart."""
    return f"{dataset.name}-{source.id}"[:READABLE] + f"-{key[:16]}"


def _write(directory: Path, slide: Slide, panel: Sequence[str], patch_px: int, key: str) -> None:
    patches, n_padded = slide.image.cut(slide.centres, patch_px, pad=PADDING)
    counts, total_counts = panel_counts(slide, panel)
    labels = slide.adata.obs["label"].tolist() if "label" in slide.adata.obs else None
    arrays = {
        "patches": patches,
        "counts": counts,
        "total_counts": total_counts,
        "array_xy": slide.array_xy,
        "pixel_xy": slide.centres,
        "margins": slide.image.margins(slide.centres, patch_px),
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
    matrix = slide.adata.X.tocsc()
    column = {name: index for index, name in enumerate(slide.genes)}
    wanted = [column.get(name, -1) for name in panel]
    counts = np.zeros((slide.n_spots, len(wanted)), dtype=np.int32)
    present = [position for position, index in enumerate(wanted) if index >= 0]
    counts[:, present] = matrix[:, [wanted[position] for position in present]].toarray()
    total = np.asarray(matrix.sum(axis=1)).ravel().astype(np.int64)
    return counts, total


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


def _open(
    entry: Path, chosen_target: Target, panel: Sequence[str], source: SlideSource, notices: list[str]
) -> PreparedSlide:
    facts = json.loads((entry / "facts.json").read_text(encoding="utf-8"))

    def array(name: str) -> np.ndarray:
        loaded = np.load(entry / f"{name}.npy", mmap_mode="r" if name == "patches" else None, allow_pickle=False)
        loaded.flags.writeable = False
        return loaded

    counts, total_counts = array("counts"), array("total_counts")
    return PreparedSlide(
        id=source.id,
        patient=source.patient,
        genes=tuple(panel),
        patches=array("patches"),
        counts=counts,
        total_counts=total_counts,
        n_measured=facts["n_measured"],
        target=_target_array(entry, chosen_target, counts, total_counts, facts["n_measured"], notices),
        array_xy=array("array_xy"),
        pixel_xy=array("pixel_xy"),
        spot_ids=tuple(facts["spot_ids"]),
        labels=None if facts["labels"] is None else tuple(facts["labels"]),
        um_per_px=facts["um_per_px"],
        image_level=facts["image_level"],
        thumbnail=entry / "thumbnail.jpg",
        thumbnail_scale=facts["thumbnail_scale"],
        spot_diameter=facts["spot_diameter"],
        n_padded=facts["n_padded"],
        margins=array("margins") if facts["n_padded"] else None,
        notes=tuple(facts["notes"]),
        key=facts["key"],
    )


def _target_array(
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
        made = partial(chosen, counts, total_counts, n_measured)
        _write_target(home, f"target {chosen.name} of {entry.name}", made, notices)
    array = np.load(home / "target.npy", allow_pickle=False)
    array.flags.writeable = False
    return array


def _write_target(home: Path, name: str, made: Callable[[], np.ndarray], notices: list[str]) -> None:
    with writing_to(home):
        home.parent.mkdir(parents=True, exist_ok=True)
        with locked(home.parent / f".{home.name}.lock"):
            harm = damage(home) if home.is_dir() else "missing"
            if harm is not None:  # else another process made it meanwhile
                if home.is_dir():
                    notices.append(f"{name} was damaged ({harm}) and has been made again")
                with replacing_directory(home) as temporary:
                    np.save(temporary / "target.npy", made(), allow_pickle=False)
                    digests = {"target.npy": file_digest(temporary / "target.npy")}
                    (temporary / "digests.json").write_text(json.dumps(digests), encoding="utf-8")
