"""The user's own sections, described by a TOML file; or a single ``.h5ad`` or Space Ranger folder as it is.

::

    name = "bulb"
    title = "Mouse olfactory bulb"
    patch_px = 32                     # side of the window around a spot, in full-resolution pixels
    panel = "all"                     # genes common to all slides, or a file of one gene per line, or a list

    [[slide]]
    id = "MOB1"
    patient = "mouse1"
    reader = "legacy-st"              # or "space-ranger" (folder = ...), or "h5ad" (file = ...)
    counts = "MOB1.tsv.gz"            # relative to this file, or absolute; ~ and $NAME are replaced
    spots = "alignment_table_MOB1.tsv"
    image = "MOB1.jpg"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from stbench.dataset import Dataset, Missing, SlideSource
from stbench.errors import UserError, about_slice, unknown
from stbench.slides.slide import Slide
from stbench.system.compressed import existing, open_text
from stbench.system.user_paths import expanded

from .panels import read_panel, unique_genes
from .readers import h5ad, legacy_st, space_ranger
from .readers.assemble import unmatched

DEFAULT_PATCH_PX = 224
# A panel of common genes is refused below these numbers, and said below the last share, of the smallest slide's genes.
FEWEST_COMMON, LEAST_SHARE, NOTABLE_SHARE = 10, 0.01, 0.5
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # becomes part of file names


@dataclass(frozen=True)
class Reader:
    """What the entry of a slide may hold beside ``id``, ``patient`` and ``reader``, and how it is read."""

    required_paths: tuple[str, ...]
    optional_paths: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    open: Callable[[str, str, dict[str, Any]], tuple[Callable[[], Slide], tuple[Path, ...]]]

    @property
    def keys(self) -> tuple[str, ...]:
        return (*self.required_paths, *self.optional_paths, *self.numbers, *self.words)


def _legacy_st(slide_id: str, patient: str, values: dict[str, Any]) -> tuple[Callable[[], Slide], tuple[Path, ...]]:
    files = tuple(existing(value) for value in values.values() if isinstance(value, Path))
    return partial(legacy_st.read, slide_id, patient, **values), files


def _space_ranger(slide_id: str, patient: str, values: dict[str, Any]) -> tuple[Callable[[], Slide], tuple[Path, ...]]:
    image = values.get("image")
    files = space_ranger.find(values["folder"], None if image is None else existing(image))
    pitch_um = values.get("pitch_um", space_ranger.VISIUM_PITCH_UM)
    return partial(space_ranger.read, slide_id, patient, files, pitch_um=pitch_um), files.paths()


def _h5ad(slide_id: str, patient: str, values: dict[str, Any]) -> tuple[Callable[[], Slide], tuple[Path, ...]]:
    files = tuple(existing(value) for value in values.values() if isinstance(value, Path))
    named = h5ad.named_image(values["file"], values.get("library"))
    if named is not None and "image" not in values:
        files += (named,)
    options = {name: value for name, value in values.items() if name != "file"}
    return partial(h5ad.read, slide_id, patient, values["file"], **options), files


READERS = {
    "legacy-st": Reader(
        ("counts", "spots", "image"), ("labels",), ("image_scale", "pitch_um", "spot_diameter_um"), (), _legacy_st
    ),
    "space-ranger": Reader(("folder",), ("image",), ("pitch_um",), (), _space_ranger),
    "h5ad": Reader(("file",), ("image",), ("pitch_um",), ("library", "label", "layer"), _h5ad),
}


class OwnDataset:
    """A dataset made of entries, one per slide: what a manifest, a file or a folder is turned into."""

    def __init__(
        self,
        name: str,
        title: str,
        patch_px: int,
        panel: Sequence[str] | None,
        entries: Sequence[Mapping[str, Any]],
        origin: Path,
        citation: str = "",
    ) -> None:
        """``panel=None``: genes common to all slides. Each entry holds id, patient, reader and the reader's keys."""
        self.name = name
        self.title = title
        self.patch_px = patch_px
        self.slices: Sequence[str] = tuple(entry["id"] for entry in entries)
        self.how_to_get = f"the paths of the sections stand in {origin}"
        self.citation = citation
        self._panel = None if panel is None else list(panel)
        self.panel_notices: list[str] = []  # known once the slides were read
        # a list of the user's own may come from anywhere
        self.panel_source = "genes common to all slides, by their names" if panel is None else ""
        self.panel_saw_test = False if panel is None else None
        self._patients = {entry["id"]: entry["patient"] for entry in entries}
        self._sources: list[SlideSource] = []
        self._faults: dict[str, UserError] = {}  # slices whose files are not there
        for entry in entries:
            try:
                self._sources.append(_source(entry))
            except UserError as error:
                self._faults[entry["id"]] = error
                self._sources.append(SlideSource(entry["id"], entry["patient"], partial(_refuse, error)))

    def patient(self, slice_id: str) -> str:
        return self._patients[slice_id]

    def panel(self) -> list[str]:
        """Without a list of its own: genes common to all slides, in the order of the first."""
        if self._panel is None:
            genes = {}
            for source in self.find()[0]:
                with about_slice(source.id):
                    genes[source.id] = source.read().genes
            self._panel = self.panel_of(genes)
        return list(self._panel)

    def panel_of(self, genes: Mapping[str, Sequence[str]]) -> list[str]:
        """The panel, where ``genes`` are those of its slices, or of those among them that could be read.

        Raises ``UserError`` where hardly any gene is common to all of them.
        """
        if self._panel is not None:
            return list(self._panel)
        found, self.panel_notices = common_genes(self.name, genes)
        self.panel_source = f"the {len(found):,} genes common to all {len(genes)} slides, by their names"
        return found

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        """All of them: a path that leads nowhere is refused, not passed over."""
        for name, error in self._faults.items():
            with about_slice(name):
                raise error
        return list(self._sources), []

    def find_all(self) -> tuple[list[SlideSource], list[Missing]]:
        """As :meth:`find`, for a check that is to see every slice: reading one whose files are not there raises."""
        return list(self._sources), []


def common_genes(name: str, genes: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Genes that all slices list, in the order of the first; and what a user must know of their number."""
    slices = list(genes)
    shared = set(genes[slices[0]]).intersection(*(genes[one] for one in slices[1:]))
    smallest = min(slices, key=lambda one: len(genes[one]))
    n_smallest = len(genes[smallest])
    numbers = ", ".join(f"{one} {len(genes[one]):,}" for one in slices[:6]) + (", ..." if len(slices) > 6 else "")
    if len(shared) < max(min(FEWEST_COMMON, n_smallest), LEAST_SHARE * n_smallest):
        how_many = "no gene" if not shared else f"only {len(shared)} gene{'s' if len(shared) > 1 else ''}"
        odd = min(slices, key=lambda one: sum(len(set(genes[one]) & set(genes[other])) for other in slices))
        others = max((one for one in slices if one != odd), key=lambda one: len(genes[one]), default=odd)
        ours, theirs = unmatched(genes[odd], genes[others])
        raise UserError(
            f"the sections of {name} have {how_many} in common (they list: {numbers}; {odd} has {ours}, {others} has "
            f"{theirs}) - use the same kind of names in all, or give a panel"
        )
    notices = []
    if len(shared) < NOTABLE_SHARE * n_smallest:
        notices.append(
            f'panel = "all" are the {len(shared):,} genes common to all {len(slices)} slices, '
            f"{100 * len(shared) / n_smallest:.0f} % of those of {smallest} (they list: {numbers})"
        )
    return [gene for gene in genes[slices[0]] if gene in shared], notices


def _refuse(error: UserError) -> Slide:
    raise error


def _source(entry: Mapping[str, Any]) -> SlideSource:
    name, patient = entry["id"], entry["patient"]
    values = {key: value for key, value in entry.items() if key not in ("id", "patient", "reader")}
    read, files = READERS[entry["reader"]].open(name, patient, values)
    parameters = {key: value for key, value in entry.items() if not isinstance(value, Path)}
    return SlideSource(name, patient, read, files, parameters)


def open_dataset_path(path: Path) -> Dataset:
    """The dataset that ``path`` is: a manifest (``.toml``), an AnnData file (``.h5ad``), or a Space Ranger folder.

    The last two make a dataset of one slide, whose panel is all its genes. Raises ``UserError``.
    """
    path = expanded(path)
    if path.is_dir():
        _point_into(path)
        return _single(path, {"reader": "space-ranger", "folder": path})
    existing(path)
    if path.suffix.lower() == ".h5ad":
        return _single(path, {"reader": "h5ad", "file": path})
    if path.suffix.lower() == ".toml":
        return read_manifest(path)
    if path.suffix.lower() in (".h5", ".mtx") or path.name.lower().endswith(".mtx.gz"):
        raise UserError(
            f"{path} is a matrix without positions and image - give the folder of Space Ranger that it is in"
        )
    raise UserError(f"{path} is not a dataset - give a manifest (.toml), an .h5ad file, or a Space Ranger folder")


def _point_into(folder: Path) -> None:
    """Refuse a folder that is no section's output but holds files that could have been meant, with their names."""
    if any((folder / name).is_file() for name in (".zgroup", "zarr.json")):
        raise UserError(
            f"{folder} is a Zarr store, which is not read - write its table as .h5ad, with image and positions"
        )
    files = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in (".toml", ".h5ad"))
    if files and not any(folder.glob("*spatial/")):
        some = ", ".join(files[:4]) + (", ..." if len(files) > 4 else "")
        raise UserError(f"{folder} is a folder with {some} - name one of them, or list the sections in a manifest")


def _single(path: Path, entry: dict[str, Any]) -> OwnDataset:
    path = path.resolve()
    name = re.sub(r"[^A-Za-z0-9._+-]+", "-", path.stem).lstrip("._+-") or "section"
    return OwnDataset(name, path.stem, DEFAULT_PATCH_PX, None, [{"id": name, "patient": name, **entry}], path)


def read_manifest(path: Path) -> OwnDataset:
    """Open a manifest; every mistake in it is one line that says where it is and what to write."""
    try:
        with open_text(existing(path)) as text:
            content = tomllib.loads(text.read())
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML ({error}) - correct it") from error
    _check_keys(path, "key", content, ("name", "title", "patch_px", "panel", "citation", "slide"))
    name = _word(path, content, "name", NAME)
    entries = _entries(path, content)
    return OwnDataset(
        name=name,
        title=_word(path, content, "title") if "title" in content else name,
        patch_px=_patch_px(path, content),
        panel=_panel(path, content),
        entries=entries,
        origin=path,
        citation=_word(path, content, "citation") if "citation" in content else "",
    )


def _entries(path: Path, content: Mapping[str, Any]) -> list[dict[str, Any]]:
    slides = content.get("slide")
    if not isinstance(slides, list) or not slides or not all(isinstance(slide, dict) for slide in slides):
        raise UserError(f"{path} describes no slide - add one [[slide]] per section")
    entries = [_entry(path, number, slide) for number, slide in enumerate(slides, start=1)]
    names = [entry["id"] for entry in entries]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path}: two slides have the id '{twice}' - give each its own")
    return entries


def _entry(path: Path, number: int, slide: Mapping[str, Any]) -> dict[str, Any]:
    place = f"{path}, slide {number}"
    name = _word(place, slide, "id", NAME)
    place = f"{place} ({name})"
    kind = _word(place, slide, "reader")
    if kind not in READERS:
        raise unknown(f"reader in {place}:", kind, READERS)
    reader = READERS[kind]
    _check_keys(place, f"key for the reader {kind}", slide, ("id", "patient", "reader", *reader.keys))
    entry: dict[str, Any] = {"id": name, "patient": _word(place, slide, "patient", NAME), "reader": kind}
    missing = [key for key in reader.required_paths if key not in slide]
    if missing:
        raise UserError(
            f"{place} lacks {', '.join(missing)} - the reader {kind} needs {', '.join(reader.required_paths)}"
        )
    for key in slide:
        if key in (*reader.required_paths, *reader.optional_paths):
            entry[key] = _path(path, _word(place, slide, key))
        elif key in reader.numbers:
            entry[key] = _positive(place, slide, key)
        elif key in reader.words:
            entry[key] = _word(place, slide, key)
    return entry


def _path(manifest: Path, written: str) -> Path:
    """A path in a manifest: relative to it, or absolute; ``~`` and environment variables are replaced."""
    beside = manifest.parent / written
    return beside if beside.exists() else manifest.parent / expanded(written)


def _panel(path: Path, content: Mapping[str, Any]) -> list[str] | None:
    given = content.get("panel", "all")
    if given == "all":
        return None
    if isinstance(given, str):
        return read_panel(_path(path, given))
    if isinstance(given, list) and given and all(isinstance(gene, str) and gene for gene in given):
        return unique_genes(given, f"{path}: panel")
    raise UserError(f'{path}: panel must be "all", the path of a file with one gene per line, or a list of genes')


def _patch_px(path: Path, content: Mapping[str, Any]) -> int:
    value = content.get("patch_px", DEFAULT_PATCH_PX)
    if isinstance(value, bool) or not isinstance(value, int) or value < 2 or value % 2:
        raise UserError(
            f"{path}: patch_px = {value!r} is not an even number of pixels - write for example patch_px = 224"
        )
    return value


def _check_keys(place: Path | str, kind: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise unknown(f"{kind} in {place}:", key, known)


def _word(place: Path | str, values: Mapping[str, Any], key: str, form: re.Pattern[str] | None = None) -> str:
    value = values.get(key)
    if value is None:
        raise UserError(f'{place} lacks {key} - add {key} = "..."')
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{place}: {key} = {value!r} is not a text - write {key} = "..."')
    if form is not None and not form.fullmatch(value):
        raise UserError(
            f"{place}: {key} = '{value}' may hold only letters, digits and . _ + - (it becomes a file's name)"
        )
    return value


def _positive(place: str, values: Mapping[str, Any], key: str) -> float:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UserError(f"{place}: {key} = {value!r} is not a positive number - correct it")
    return float(value)
